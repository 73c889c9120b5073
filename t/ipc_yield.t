# While a handler that runs in order has yielded: replies come through, whoever waits for them and
# whenever the call was made. And calls that nobody waits for any more, or nobody can answer.
use v5.36;
use Test::More;
use CC::Console;

my $INIT = <<'LUA';
    t.held, t.slow, t.own = 0, 0, 0
    if ngx.worker.id() < 2 then
        assert(ipc.receive("held", function()
            t.held = t.held + 1
            t.wait(function() return t.answer end)
            return "late"
        end, { concurrent = true }))
        assert(ipc.receive("slow", function()
            t.slow = t.slow + 1
            t.wait(function() return t.open end)
            t.slow = t.slow - 1
        end))
        assert(ipc.receive("echo", function(data) t.own = t.own + 1 return data end))
        assert(ipc.receive("asks all", function(data)
            local list, n = ipc.call_all("echo", data, { timeout = 5 }), {}
            for i, r in ipairs(list) do n[i] = r.data or r.err end
            t.all = table.concat(n, "|")
        end))
    end
    -- in a light thread of its own
    function t.call(...)
        t.reply = nil
        local args = { ... }
        ngx.timer.at(0, function() t.reply = { ipc.call(unpack(args)) } end)
    end
LUA
my $LONG = '{ timeout = 60 }';

for my $transport (qw(ring socket)) {
    subtest "$transport: replies" => sub {
        my $c = CC::Console->start(workers => 3, init => $INIT, main => "cc_ipc_transport $transport;");
        for my $to (1, 0) {
            my $whom = $to ? 'another worker' : 'itself';
            # the call first, then the handler that holds the others up
            $c->run(0, "t.open = false t.call($to, 'held', '', $LONG)");
            $c->until($to, 'return t.held', 1);
            $c->run(1, 'assert(ipc.send_worker(0, "slow"))');
            $c->until(0, 'return t.slow', 1);
            $c->run($to, 't.answer = true');
            is $c->until(0, 'return t.reply and t.reply[1]', 'late'), 'late', "a reply of $whom";
            is $c->run(0, 'return t.slow'), 1, '... while a handler has yielded';
            $c->run($to, 't.answer, t.held = nil, 0');
            $c->run(0, 't.open = true');
            $c->until(0, 'return t.slow', 0);
        }

        # a handler for what is retained that is registered later, and asks in turn
        $c->run(1, 'assert(ipc.retain("config", "k", "v"))');
        $c->run(0, 'ngx.timer.at(0, function()
            assert(ipc.receive("config", function(value)
                t.config = { ipc.call(1, "echo", value, { timeout = 5 }) }
            end))
        end)');
        is $c->until(0, 'return t.config and (t.config[1] or t.config[2])', 'v'), 'v', 'a handler that was registered later may call';

        # worker 2 has no handlers at all
        $c->until(1, 'local _, why = ipc.call(2, "echo", "x", { timeout = 0.2 }) return why', 'no handler for "echo"');
        is $c->run(1, "return ipc.call(2, 'echo', 'x', $LONG)"), qq{nil\tno handler for "echo"}, 'who has no handlers says so';
        is $c->run(1, "local n = {} for i, r in ipairs(ipc.call_all('echo', 'x', $LONG)) do n[i] = r.data or r.err end return unpack(n)"),
            qq{x\tx\tno handler for "echo"}, '... in a call to all, too';

        # a handler cannot wait for its own worker, which is not asked either
        my $late = $c->run(1, 'return ipc.stats().late');
        $c->run(1, 't.own = 0 assert(ipc.send_worker(1, "asks all", "y"))');
        is $c->until(1, 'return t.all', qr/y/),
            'y|a handler cannot call its own worker, where handlers run in order|no handler for "echo"', 'all but oneself';
        $c->run(1, 'assert(ipc.call(1, "echo", "behind"))');
        is $c->run(1, 'return t.own'), 1, 'its own handler has not run';
        is $c->run(1, 'return ipc.stats().late'), $late, 'and nothing came in vain';
        $c->s->quit;
        $c->s->log_is_clean;
    };
}

subtest 'nobody waits any more' => sub {
    my $c = CC::Console->start(workers => 2, init => $INIT);
    my $count = 'return (require("ngx.ipc.calls").count())';
    $c->run(0, 'for i = 1, 50 do
        local thread = ngx.thread.spawn(function() ipc.call(1, "held", "", { timeout = 60 }) end)
        ngx.thread.kill(thread)
    end');
    is $c->until(1, 'return t.held', 50), 50, 'called by light threads that were killed';
    is $c->run(0, $count), 50, 'they wait';
    $c->run(1, 't.answer = true');
    is $c->until(0, $count, 0), 0, 'until they are answered';
    is $c->run(0, 'return ipc.call(1, "echo", "x")'), 'x', 'others go on';
    $c->s->quit;
    $c->s->log_is_clean;
};
done_testing;
