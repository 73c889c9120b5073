# How the Lua packages come into the Lua module's VMs: in any order of modules, chosen or off, with
# and without the code cache, and without the Lua module at all.
use v5.36;
use Test::More;
use CC::Console;

sub lua ($s, $code, $plus = 0) {
    return $s->request(POST => $s->port($plus), '/lua', body => $code)->body;
}

my $LUA = 'location = /lua { content_by_lua_block {
    ngx.req.read_body()
    local results = { pcall(assert(loadstring(ngx.req.get_body_data()))) }
    for i = 1, 4 do results[i] = tostring(results[i]) end
    ngx.print(table.concat(results, " ")) } }';
my $HTTP = 'lua_shared_dict d 1m;
    init_by_lua_block { in_init = tostring(require("ngx.ipc").generation()) .. tostring(ngx.worker.port()) }
    init_worker_by_lua_block {
        local d = ngx.shared.d
        d:set("port" .. ngx.worker.id(), tostring(ngx.worker.port()))
        d:set("received" .. ngx.worker.id(), tostring(require("ngx.ipc").receive("news", function(data)
            d:set("news" .. ngx.worker.id(), data .. "|" .. tostring(ngx.worker.port()))
        end)))
    }';
my $LISTEN = 'listen 127.0.0.1:%PORT+1% per_worker;';

for my $order (qw(module-first module-last)) {
    for my $cache (qw(on off)) {
        my $what = "$order, lua_code_cache $cache";
        my $s = CC::Server->new(module => 1, lua => 1, order => $order, workers => 2,
            http => "lua_code_cache $cache; $HTTP", server => "$LISTEN $LUA")->start;
        for my $id (0, 1) {
            is lua($s, "return ngx.shared.d:get('received$id')"), 'true true nil nil', "$what: receive in init_worker";
            is lua($s, "return ngx.shared.d:get('port$id')"), 'true ' . $s->port(1 + $id) . ' nil nil',
                "$what: ngx.worker.port() in init_worker";
            is lua($s, 'return ngx.worker.port()', 1 + $id), 'true ' . $s->port(1 + $id) . ' nil nil',
                "$what: ngx.worker.port() in a request";
        }
        is lua($s, 'return in_init'), 'true nilnil nil nil', "$what: in init_by_lua" if $cache eq 'on';
        is lua($s, 'return require("ngx.ipc").broadcast("news", "hello")'), 'true true nil nil', "$what: broadcast from a request";
        for my $id (0, 1) {
            ok $s->wait_for(sub { lua($s, "return ngx.shared.d:get('news$id')") =~ /hello\|${\$s->port(1 + $id)}/ }, 'the message'),
                "$what: worker $id gets it";
        }
        like lua($s, 'return require("ngx.ipc").receive("mine", print)'),
            $cache eq 'on' ? qr/^true true nil/
            : qr/^true nil another Lua VM of this worker receives \(lua_code_cache is off\): call receive in init_worker_by_lua\*/,
            "$what: receive in a request";
        is lua($s, 'return require("ngx.ipc").sender, #require("ngx.ipc").workers()'), 'true nil 2 nil', "$what: the rest";
        is lua($s, 'return ngx.worker.id() == tonumber(ngx.var.cc_worker_id), type(ngx.worker.pid()), ngx.worker.exiting()'),
            'true true number false', "$what: ngx.worker is complete";
        ok $s->reload, "$what: reload";
        is lua($s, 'return require("ngx.ipc").broadcast("news", "again")'), 'true true nil nil', "$what: broadcast after it";
        ok $s->wait_for(sub { lua($s, "return ngx.shared.d:get('news1')") =~ /again/ }, 'the message'), "$what: is heard";
        ok $s->quit, "$what: quit";
        $s->log_is_clean(qr/lua_code_cache is off/);
    }
}

# -- nobody receives in init_worker
{
    my $s = CC::Server->new(module => 1, lua => 1, workers => 1, http => 'lua_code_cache off; lua_shared_dict d 1m;', server => $LUA)->start;
    my $receive = 'return require("ngx.ipc").receive("mine", function(data) ngx.shared.d:set("mine", data) end)';
    is lua($s, $receive), 'true true nil nil', 'code cache off: the first request that receives does so';
    like lua($s, $receive), qr/^true nil another Lua VM/, 'the next one is told that it cannot';
    is lua($s, 'return require("ngx.ipc").send(ngx.worker.pid(), "mine", "x")'), 'true true nil nil', 'a third one sends';
    ok $s->wait_for(sub { lua($s, 'return ngx.shared.d:get("mine")') =~ /^true x/ }, 'the message'), 'and is heard';
    ok $s->quit, 'quit';
    $s->log_is_clean(qr/lua_code_cache is off/);
}

# -- cc_lua_preload
my $IPC  = 'return type(require "ngx.ipc")';
my $PORT = 'return type(ngx.worker.port)';
for my $case (
    # directive          ngx.ipc  ngx.worker.port
    [ '',                       1, 1 ],
    [ 'cc_lua_preload all;',    1, 1 ],
    [ 'cc_lua_preload off;',    0, 0 ],
    [ 'cc_lua_preload ngx.ipc;', 1, 0 ],
    [ 'cc_lua_preload ngx.worker;', 0, 1 ],
    [ 'cc_lua_preload ngx.worker ngx.ipc;', 1, 1 ],
) {
    my ($directive, $ipc, $port) = @$case;
    my $what = $directive || 'no directive';
    my $s = CC::Server->new(module => 1, lua => 1, main => $directive, server => "$LISTEN $LUA")->start;
    like lua($s, $IPC), $ipc ? qr/^true table/ : qr/^false .*module 'ngx\.ipc' not found/, "$what: ngx.ipc";
    is lua($s, $PORT), $port ? 'true function nil nil' : 'true nil nil nil', "$what: ngx.worker.port";
    is lua($s, 'return 1', 1), 'true 1 nil nil', "$what: the listener works";
    if ($directive eq 'cc_lua_preload off;') {
        ok $s->reload(main => ''), "$what: reload without it";
        like lua($s, $IPC), qr/^true table/, "$what: ngx.ipc is there";
        ok $s->reload(main => $directive), "$what: and with it again";
        like lua($s, $IPC), qr/not found/, "$what: gone";
    }
    ok $s->quit, "$what: quit";
    $s->log_is_clean;
}
{
    my $s = CC::Server->new(module => 1, lua => 1, http => '');
    for my $case (
        [ "cc_lua_preload bogus;",          qr/unknown Lua package "bogus" in \S+:1/ ],
        [ "\ncc_lua_preload ngx.ipc bogus;", qr/unknown Lua package "bogus" in \S+:2/ ],
        [ "cc_lua_preload ngx.ipc off;",    qr/unknown Lua package "off" in \S+:1/ ],
        [ "cc_lua_preload;",                qr/invalid number of arguments in "cc_lua_preload" directive in \S+:1/ ],
        [ "cc_lua_preload off;\ncc_lua_preload off;", qr/"cc_lua_preload" directive is duplicate in \S+:2/ ],
        [ "http {\ncc_lua_preload off;\n}",  qr/"cc_lua_preload" directive is not allowed here in \S+:2/ ],
        [ "http {\n}\ncc_lua_preload off;",  qr/"cc_lua_preload" directive must stand before "http" in \S+:3/ ],
    ) {
        my ($conf, $pattern) = @$case;
        my ($code, $output) = $s->try_conf("$conf\n");
        isnt $code, 0, ($conf =~ s/\n/ /gr) . ' is refused';
        like $output, $pattern, 'with file and line';
    }
}

# -- where the worker has no port of its own, and in the helper processes
{
    my $s = CC::Server->new(module => 1, lua => 1, server => $LUA, workers => 2,
        http => 'proxy_cache_path %PREFIX%/cache keys_zone=k:1m;')->start;
    is lua($s, 'return ngx.worker.port()'), 'true nil nil nil', 'no per_worker listener: no port';
    ok $s->quit, 'quit';
    $s->log_is_clean;
}

# -- without the Lua module
{
    my $s = CC::Server->new(module => 1, lua => 0, workers => 2, main => 'cc_lua_preload ngx.ipc;',
        server => "$LISTEN return 200 \$cc_worker_id:\$cc_worker_port;")->start;
    is $s->get($s->port(1 + $_))->body, "$_:" . $s->port(1 + $_), "no Lua: worker $_ answers at its port" for 0, 1;
    ok $s->reload(workers => 3), 'no Lua: reload';
    is $s->get($s->port(3))->body, '2:' . $s->port(3), 'no Lua: worker 2 came';
    my $heir = $s->kill_worker(0);
    is $s->get($s->port(1))->body, '0:' . $s->port(1), 'no Lua: a successor answers';
    ok $s->reload(lua => 1, server => "$LISTEN $LUA"), 'the Lua module comes by reload';
    like lua($s, $IPC), qr/^true table/, 'with ngx.ipc';
    ok $s->reload(lua => 0, server => 'return 204;'), 'and goes';
    is $s->get($s->port)->status, 204, 'the server goes on';
    ok $s->quit, 'no Lua: quit';
    $s->log_is_clean(qr/exited on signal 9/);
}
done_testing;
