# Messages can be sent from every phase, to another worker, and come from there.
use v5.36;
use Test::More;
use CC::Console;

for my $transport (qw(ring socket)) {
    subtest $transport => sub { phases($transport) };
}
done_testing;

sub phases ($transport) {
    my $c = CC::Console->start(
        workers => 2,
        main    => "cc_ipc_transport $transport;",
        init    => 't.catch("phase")
            assert(ipc.send_worker(1, "phase", "init_worker"))
            assert(ipc.broadcast("phase", "init_worker to all"))
            assert(ngx.timer.at(0, function() assert(ipc.send_worker(1, "phase", ngx.get_phase())) end))',
        http => <<'CONF',
            lua_shared_dict d 1m;
            init_by_lua_block {
                local ipc = require "ngx.ipc"
                function say()
                    local ok, err = ipc.send_worker(1, "phase", ngx.get_phase())
                    if not ok then ngx.log(ngx.ERR, ngx.get_phase(), ": ", err) end
                end
            }
            upstream u { server 0.0.0.1; balancer_by_lua_block { say()
                assert(require("ngx.balancer").set_current_peer("127.0.0.1", ngx.var.server_port)) } }
CONF
        server => <<'CONF',
            location = /all {
                set_by_lua_block $x { say() return 1 }
                rewrite_by_lua_block { say() }
                access_by_lua_block { say() }
                content_by_lua_block { say() ngx.say("body") }
                header_filter_by_lua_block { say() }
                body_filter_by_lua_block { if ngx.arg[2] then say() end }
                log_by_lua_block { say() }
            }
            location = /balanced { proxy_pass http://u/plain; }
            location = /plain { return 200 plain; }
            location = /thread { content_by_lua_block {
                ngx.thread.wait(ngx.thread.spawn(function() ngx.sleep(0.001) say() end))
                coroutine.wrap(function() say() end)()
                ngx.timer.at(0.001, function() say() end)
            } }
CONF
    );
    my $s = $c->s;

    is $c->until(1, 'return #t.got', 6), 6, 'sent before the receiver existed: worker 1 has all';
    is $c->run(1, 'local l = {} for _, line in ipairs(t.got) do l[#l + 1] = line:match("|(.*)|") end table.sort(l) return table.concat(l, ",")'),
        'init_worker,init_worker,init_worker to all,init_worker to all,timer,timer', 'from init_worker and a timer there';
    is $c->until(0, 'return #t.got', 2), 2, 'worker 0 has both broadcasts';
    $c->each('t.clear()');

    my $heard = sub ($what, @phases) {
        $c->until(1, 'return #t.got', scalar @phases);
        is $c->run(1, 'local l = {} for _, line in ipairs(t.got) do l[#l + 1] = line:match("|(.*)|") end t.clear() return table.concat(l, " ")'),
            "@phases", $what;
    };

    for my $id (0, 1) {
        my $port = $s->port(1 + $id);
        is $s->get($port, '/all')->body, "body\n", "worker $id: a request through all phases";
        $heard->("worker $id: each has sent", qw(set rewrite access content header_filter body_filter log));
        is $s->get($port, '/balanced')->body, 'plain', "worker $id: through a balancer";
        $heard->("worker $id: which has sent", 'balancer');
        is $s->get($port, '/thread')->status, 200, "worker $id: a light thread, a coroutine, a timer of a request";
        $heard->("worker $id: have sent", qw(content content timer));
    }
    ok $s->quit, 'quit';
    $s->log_is_clean;
}
