# What a handler may do, and what it cannot harm.
use v5.36;
use Test::More;
use CC::Console;

for my $transport (qw(ring socket)) {
    subtest $transport => sub { handlers($transport) };
}
done_testing;

sub handlers ($transport) {
    my $c = CC::Console->start(
        workers => 2,
        main    => "cc_ipc_transport $transport;",
        http    => 'lua_shared_dict d 1m;',
        server  => 'location = /pause { content_by_lua_block { ngx.sleep(0.02) ngx.print("pong") } }
            location = /hello { return 200 "hello"; }',
        init    => <<'LUA');
            t.catch("news", "done")
            local function deep(data) error("it broke: " .. data) end
            ipc.receive {
                ["fails"] = function(data) deep(data) end,
                ["fails with a table"] = function() error({ code = 7 }) end,
                ["fails with an object"] = function()
                    error(setmetatable({}, { __tostring = function() return "object says so" end }))
                end,
                ["fails with a hostile object"] = function()
                    error(setmetatable({}, { __tostring = function() error("again") end }))
                end,
                ["fails with nil"] = function() error(nil) end,
                ["overflows"] = function() local function f() return 1 + f() end f() end,
                ["sleeps"] = function(data) ngx.sleep(0.01) t.got[#t.got + 1] = "slept|" .. data .. "|" .. ipc.sender end,
                ["exits"] = function() ngx.exit(ngx.OK) end,
                ["exits late"] = function() ngx.sleep(0.002) ngx.exit(ngx.ERROR) end,
                ["exits 500"] = function() ngx.exit(500) end,
                ["exits in a thread"] = function()
                    ngx.thread.spawn(function() ngx.sleep(0.002) ngx.exit(ngx.OK) end)
                    ngx.sleep(0.01)
                end,
                ["exits after the handler"] = function()
                    ngx.thread.spawn(function() ngx.sleep(0.005) ngx.exit(ngx.OK) end)
                end,
                ["execs"] = function() ngx.exec("/hello") end,
                ["redirects"] = function() ngx.redirect("/hello") end,
                ["says"] = function() ngx.say("x") end,
                ["phase"] = function() t.phase = ngx.get_phase() end,
                ["socket"] = function(data)
                    local sock = ngx.socket.tcp()
                    assert(sock:connect("127.0.0.1", tonumber(data)))
                    assert(sock:send("GET /pause HTTP/1.0\r\n\r\n"))
                    t.got[#t.got + 1] = "socket|" .. assert(sock:receive("*a")):match("pong$") .. "|" .. ipc.sender
                    sock:close()
                end,
                ["coroutine"] = function(data)
                    local co = coroutine.wrap(function(a) local b = coroutine.yield(a .. "1") return b .. "2" end)
                    t.got[#t.got + 1] = "coroutine|" .. co(data) .. co(data) .. "|" .. ipc.sender
                end,
                ["threads"] = function(data)
                    local function part(n) return function() ngx.sleep(0.003) return data .. n end end
                    local a, b = ngx.thread.spawn(part(1)), ngx.thread.spawn(part(2))
                    local _, x = ngx.thread.wait(a)
                    local _, y = ngx.thread.wait(b)
                    t.got[#t.got + 1] = "threads|" .. x .. y .. "|" .. ipc.sender
                end,
                ["outlives"] = function(data)
                    local to = ipc.sender
                    ngx.thread.spawn(function()
                        ngx.sleep(0.01)
                        t.got[#t.got + 1] = "outlived|" .. tostring(ipc.sender) .. "|"
                        ipc.send(to, "done", data)
                    end)
                end,
                ["timer"] = function(data)
                    local to = ipc.sender
                    ngx.timer.at(0, function() ipc.send(to, "done", data .. ngx.get_phase()) end)
                end,
                ["chain"] = function(data)
                    local n = tonumber(data)
                    t.chain[#t.chain + 1] = (t.inside and "nested " or "") .. n
                    t.inside = true
                    if n < 11 then assert(ipc.send(ngx.worker.pid(), "chain", n + 1)) end
                    t.inside = false
                end,
                ["relay"] = function(data)
                    -- sends of its own, between taking the data and answering
                    assert(ipc.send(ngx.worker.pid(), "noise", ("n"):rep(100000)))
                    assert(ipc.send(ipc.sender, "noise", ("m"):rep(70000)))
                    assert(ipc.reply("back", data))
                    assert(ipc.reply("back", data:reverse()))
                end,
                ["noise"] = function(data) t.noise = (t.noise or 0) + #data end,
                ["back"] = function(data) t.back[#t.back + 1] = ngx.md5(data) end,
                ["replaces itself"] = function(data)
                    ipc.receive("replaces itself", function(d) t.got[#t.got + 1] = "second|" .. d .. "|" end)
                    t.got[#t.got + 1] = "first|" .. data .. "|"
                end,
                ["removes itself"] = function(data)
                    ipc.receive("removes itself", nil)
                    t.got[#t.got + 1] = "once|" .. data .. "|"
                end,
            }
            t.chain, t.back = {}, {}
LUA
    my @pid = map { $c->pid($_) } 0, 1;
    my $got = sub ($id, $count) {
        $c->until($id, 'return #t.got', $count);
        return $c->run($id, 'local l = table.concat(t.got, " ") t.clear() return l');
    };

    # -- failures
    my $failures = 0;
    for my $to (0, 1) {
        for my $case (
            [ 'fails',                qr/ipc handler "fails" failed: .*it broke: why.*?stack traceback:.*?in function 'deep'/s ],
            [ 'fails with a table',   qr/ipc handler "fails with a table" failed: table: 0x/ ],
            [ 'fails with an object', qr/failed: object says so/ ],
            [ 'fails with a hostile object', qr/ipc handler "fails with a hostile object" failed:/ ],
            [ 'fails with nil',       qr/ipc handler "fails with nil" failed: nil/ ],
            [ 'overflows',            qr/ipc handler "overflows" failed: / ],
            [ 'execs',                qr/ipc handler "execs" failed: .*API disabled in the context of ngx.timer/ ],
            [ 'redirects',            qr/ipc handler "redirects" failed: / ],
            [ 'says',                 qr/ipc handler "says" failed: / ],
        ) {
            my ($name, $pattern) = @$case;
            my $from = $c->s->log_size;
            $failures++;
            $c->run(0, "assert(ipc.send($pid[$to], '$name', 'why')) assert(ipc.send($pid[$to], 'news', 'after'))");
            is $got->($to, 1), "news|after|$pid[0]", "worker $to: $name: the next message arrives";
            ok $c->s->wait_log($pattern, $from), "worker $to: $name: is logged";
        }
    }
    is $c->until(0, 'return ipc.stats().failed', $failures), $failures, 'failures are counted';

    # -- what it may do
    is $c->run(0, "assert(ipc.send($pid[1], 'phase')) return true"), 'true', 'sent';
    is $c->until(1, 'return t.phase', 'timer'), 'timer', 'I13 handlers run in the phase timer';
    $c->run(0, "for i = 1, 5 do assert(ipc.send($pid[1], 'sleeps', i)) assert(ipc.send($pid[1], 'news', i)) end");
    is $got->(1, 10), join(' ', map { ("slept|$_|$pid[0]", "news|$_|$pid[0]") } 1 .. 5), 'a handler that sleeps keeps the order';
    my $port = $c->s->port;
    $c->run(0, "assert(ipc.send($pid[1], 'socket', $port)) assert(ipc.send($pid[1], 'news', 2))");
    is $got->(1, 2), "socket|pong|$pid[0] news|2|$pid[0]", 'a cosocket in a handler, too';
    $c->run(0, "assert(ipc.send($pid[1], 'coroutine', 'a')) assert(ipc.send($pid[1], 'threads', 'b'))
        assert(ipc.send($pid[1], 'news', 'c'))");
    is $got->(1, 3), "coroutine|a1a2|$pid[0] threads|b1b2|$pid[0] news|c|$pid[0]", 'coroutines and light threads';
    $c->run(0, "t.clear() assert(ipc.send($pid[1], 'outlives', 'x'))");
    is $got->(1, 1), 'outlived|nil|', 'a thread that outlives its handler runs on, without a sender';
    is $got->(0, 1), "done|x|$pid[1]", 'and can send';
    $c->run(0, "assert(ipc.send($pid[1], 'timer', 'y'))");
    is $got->(0, 1), "done|ytimer|$pid[1]", 'a timer from a handler can send';

    # -- ngx.exit ends the light thread that runs the handlers
    my $rounds = 0;
    for my $name ('exits', 'exits late', 'exits 500', 'exits in a thread', 'exits after the handler') {
        for my $to (0, 1) {
            my $from = $c->s->log_size;
            $c->run(0, "for i = 1, 3 do
                assert(ipc.send($pid[$to], '$name')) assert(ipc.send($pid[$to], 'sleeps', i)) end");
            is $got->($to, 3), join(' ', map { "slept|$_|$pid[0]" } 1 .. 3), "worker $to: $name: all later messages arrive"
                unless $name eq 'exits after the handler';
            if ($name eq 'exits after the handler') {
                # it hits whichever handler is running: that one is lost, no other
                $c->run(0, "for i = 1, 20 do assert(ipc.send($pid[$to], 'news', i)) end");
                $c->until($to, 'return t.count("news")', 20);
                like $got->($to, 20), qr/news\|1\|.* news\|20\|/, "worker $to: $name: later messages arrive";
            }
            ok $c->s->wait_log(qr/ngx\.exit/, $from), "worker $to: $name: is logged";
        }
    }
    is $c->run(0, 'return ipc.sender'), 'nil', 'no sender is left over';

    # -- to oneself, and back and forth
    $c->run(0, "assert(ipc.send($pid[0], 'chain', 1))");
    is $c->until(0, 'return #t.chain', 11), 11, 'a chain of 11 messages to oneself';
    is $c->run(0, 'return table.concat(t.chain, " ")'), join(' ', 1 .. 11), 'in order, none inside another';
    for my $to (0, 1) {
        is $c->run(0, "t.back = {}
            local data = {}
            for i = 1, 20 do data[i] = ('x' .. i .. '\\0'):rep(5000 * i) end
            for i = 1, 20 do assert(ipc.send($pid[$to], 'relay', data[i])) end
            t.wait(function() return #t.back == 40 end)
            for i = 1, 20 do
                if t.back[2 * i - 1] ~= ngx.md5(data[i]) or t.back[2 * i] ~= ngx.md5(data[i]:reverse()) then return i end
            end
            return 'intact'"), 'intact', "worker $to: sends and replies inside handlers keep their bytes";
    }

    # -- handlers that change handlers
    $c->each('t.clear()');
    $c->run(0, "for i = 1, 3 do assert(ipc.send($pid[1], 'replaces itself', i)) end
        for i = 1, 3 do assert(ipc.send($pid[1], 'removes itself', i)) end assert(ipc.send($pid[1], 'news', 'end'))");
    is $got->(1, 5), "first|1| second|2| second|3| once|1| news|end|$pid[0]", 'a handler may replace and remove itself';

    ok $c->s->quit, 'quits';
    $c->s->log_is_clean(qr/ipc handler/, qr/ngx\.exit/);
}
