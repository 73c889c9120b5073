# Function actions: Lua functions that answer calls of other workers over the rings, beside handlers
# of messages, on both transports.
use v5.36;
use Test::More;
use CC::Console;
use CC::Proc;

my $INIT = <<'LUA';
    local cc = require "ngx.cc"
    local ffi = require "ffi"
    ffi.cdef "int kill(int pid, int sig);"
    local id = ngx.worker.id
    t.cc, t.running, t.most = cc, 0, 0
    local actions = {
        who = function(args, body, from) return 200, id() .. ":" .. from.worker .. ":" .. body end,
        args = function(args) return tostring(args.k) .. "|" .. tostring(args.flag) .. "|" .. tostring(args.none) end,
        echo = function(args, body) return 201, body end,
        pid = function() return 200, ngx.worker.pid() end,
        slow = function(args, body)
            t.running = t.running + 1
            t.most = math.max(t.most, t.running)
            ngx.sleep(tonumber(args.s))
            t.running = t.running - 1
            return 200, body .. "!"
        end,
        gated = function(args, body)
            t.running = t.running + 1
            t.wait(function() return t.open end, "the gate")
            t.running = t.running - 1
            return 200, body .. "!"
        end,
        fails = function(args, body) error("it broke: " .. body) end,
        nothing = function() end,
        status = function() return 404 end,
        refuses = function() return nil, "no" end,
        ["a table"] = function() return 200, {} end,
        ["bad status"] = function() return 99, "x" end,
        exits = function() ngx.exit(200) end,
        ["exits later"] = function() ngx.sleep(0.05) ngx.exit(200) end,
        sends = function(args, body) ipc.send_worker((id() + 1) % 3, "news", body) return "sent" end,
        forwards = function(args, body)
            local status, reply = cc.call((id() + 1) % 3, "ch", "who", nil, body)
            return status, "by " .. id() .. " " .. reply
        end,
        long = function(args) return ("x"):rep(tonumber(args.n)) end,
    }
    for name, fn in pairs(actions) do assert(cc.action("ch", name, fn)) end
    assert(cc.action("other", "who", function() return "other" end))
    if id() ~= 1 then assert(cc.action("ch", "not in 1", function() return "i" .. id() end)) end
    t.catch("news")
    ipc.receive("blocks", function() t.blocked = true t.wait(function() return t.go end) t.blocked = false end)
    function t.all(...)
        local list, err = cc.call("all", ...)
        if not list then return nil, err end
        for i, r in ipairs(list) do list[i] = r.worker .. "=" .. (r.status and r.status .. " " .. r.body or r.err) end
        return table.concat(list, "; ")
    end
LUA

for my $transport (qw(ring socket)) {
    subtest "$transport: answers"   => sub { answers($transport) };
    subtest "$transport: beside"    => sub { beside($transport) };
    subtest "$transport: deaths"    => sub { deaths($transport) };
    subtest "$transport: reloads"   => sub { reloads($transport) };
}
subtest 'phases' => \&phases;
subtest 'over http' => \&over_http;
done_testing;

sub start ($transport, %opt) {
    return CC::Console->start(workers => 3, init => $INIT, %opt,
        main => "cc_ipc_transport $transport; " . ($opt{main} // ''));
}

sub answers ($transport) {
    my $c = start($transport, main => 'cc_ipc_max_message 2m;');
    for my $from (0, 2) {
        is $c->run($from, "return t.cc.call($_, 'ch', 'who', nil, 'x')"), "200\t$_:$from:x", "worker $_ answers worker $from"
            for 0 .. 2;
        is $c->run($from, 'return t.all("ch", "who", nil, "y")'),
            join('; ', map { "$_=200 $_:$from:y" } 0 .. 2), "all answer worker $from";
    }
    is $c->run(0, 'return t.cc.call(1, "other", "who")'), "200\tother", 'a channel has its own actions';
    is $c->run(0, 'return t.cc.call(1, "ch", "args", "flag")'), "200\tnil|true|nil", 'a name alone';
    is $c->run(0, 'return t.cc.call(1, "ch", "args", "fl%61g")'), "200\tnil|true|nil", 'and encoded';
    is $c->run(0, 'return t.cc.call(1, "ch", "args", "k=a%20b&flag")'), "200\ta b|true|nil", 'the query, as a string';
    is $c->run(0, 'return t.cc.call(1, "ch", "args", { k = "ä&=", flag = true })'), "200\tä&=|true|nil", 'and as a table';
    is $c->run(0, 'return t.cc.call("1", "ch", "echo", nil, 5)'), "201\t5", 'a number is a string, and a string a number';

    # -- what a function returns
    is $c->run(0, 'return t.cc.call(1, "ch", "nothing")'), "200\t", 'nothing is 200';
    is $c->run(0, 'return t.cc.call(1, "ch", "status")'), "404\t", 'a status alone';
    my $before = $c->run(0, 'return ipc.stats().failed');
    my $from = $c->s->log_size;
    like $c->run(0, 'return t.cc.call(1, "ch", "fails", nil, "so")'), qr/^500\taction failed: .*it broke: so$/, 'an error is 500';
    ok $c->s->wait_log(qr/\[error\].*action "fails" of "ch" failed: .*it broke: so\nstack traceback:/s, $from), 'and logged with its trace';
    is $c->run(0, 'return t.cc.call(1, "ch", "refuses")'), "500\tno", 'nil and a reason is 500, too';
    is $c->run(0, 'return t.cc.call(1, "ch", "a table")'), "500\taction returned a table", 'a table is no body';
    is $c->run(0, 'return t.cc.call(1, "ch", "bad status")'), "500\taction returned a bad status", '99 is no status';
    is $c->run(0, 'return t.cc.call(1, "ch", "exits")'), "500\tthe action has ended its light thread", 'ngx.exit is answered';
    is $c->run(0, 'return t.cc.call(0, "ch", "exits")'), "500\tthe action has ended its light thread", 'to oneself, too';
    is $c->run(0, 'return ipc.stats().failed') - $before, 6, 'each is counted as failed';
    # all that may run at a time, all of which have yielded when they end their light threads
    is $c->run(0, 'local ended, threads = 0, {}
        for i = 1, 120 do
            threads[i] = ngx.thread.spawn(function()
                local status = t.cc.call(1, "ch", "exits later", nil, nil, { timeout = 10 })
                ended = ended + (status == 500 and 1 or 0)
            end)
        end
        for i = 1, 120 do ngx.thread.wait(threads[i]) end
        return ended'), 120, '120 at once';
    is $c->run(0, 'return t.cc.call(1, "ch", "who")'), "200\t1:0:", 'then others are answered';
    is $c->run(0, 'return t.cc.call(1, "ch", "who", nil, "x")'), "200\t1:0:x", 'others are not harmed';

    # -- what is not answered
    my $unhandled = $c->run(0, 'return ipc.stats().unhandled');
    is $c->run(0, 'return t.cc.call(1, "ch", "unknown")'), "nil\tno such action", 'an unknown action';
    is $c->run(0, 'return t.cc.call(1, "unknown", "who")'), "nil\tno such action", 'an unknown channel';
    is $c->run(0, 'return t.all("ch", "not in 1")'), '0=200 i0; 1=no such action; 2=200 i2', 'known to some';
    is $c->run(0, 'return ipc.stats().unhandled') - $unhandled, 3, 'counted as unhandled';
    is $c->run(0, "return t.cc.call($_, 'ch', 'who')"), "nil\tno such worker", "worker $_: there is none" for 3, 1023, -7, 1.5, 1e6;
    is $c->run(0, 'return t.cc.call(1, "ch", ("x"):rep(300))'), "nil\tbad channel or action name", 'a name too long';
    is $c->run(0, 'return t.cc.action("a\0b", "x", print)'), "nil\tbad channel or action name", 'a name with a NUL';
    is $c->run(0, 'return t.cc.call(1, "ch", "echo", nil, ("x"):rep(2097153))'), "nil\tmessage too long", 'a call too long';
    is $c->run(0, 'return t.cc.call(1, "ch", "long", "n=2097153")'), "nil\treply too long", 'a reply too long';
    like $c->raises(0, 'return t.cc.call("some", "ch", "who")'), qr/bad argument #1 to 'call' \(a worker id or "all" expected\)/, 'no target';
    like $c->raises(0, 'return t.cc.call(1, nil, "who")'), qr/bad argument #2 to 'call' \(string expected, got nil\)/, 'no channel';
    like $c->raises(0, 'return t.cc.call(1, "ch", "who", nil, {})'), qr/bad argument #5 to 'call' \(string expected, got table\)/, 'a table for a body';
    like $c->raises(0, 'return t.cc.call(1, "ch", "who", nil, "", 5)'), qr/bad argument #6 to 'call' \(table expected, got number\)/, 'a number for options';
    like $c->raises(0, 't.cc.action("ch", "x", 5)'), qr/bad argument #3 to 'action' \(function or nil expected, got number\)/, 'a number for a function';

    # -- bodies
    my $make = 'local function make(n) local p = {} for i = 0, 255 do p[i] = string.char(i) end
        local s = table.concat(p, "", 0, 255) return (s .. "\0\r\n\255"):rep(math.ceil(n / 260)):sub(1, n) end ';
    for my $size (0, 1, 4096, 16384, 65536, 262_144, 1 << 20) {
        is $c->run(0, "$make local data = make($size)
            for id = 0, 2 do local status, body = t.cc.call(id, 'ch', 'echo', nil, data)
                if body ~= data then return id, status, body and #body end end
            for _, r in ipairs(t.cc.call('all', 'ch', 'echo', nil, data)) do
                if r.body ~= data then return r.worker, r.err end end
            return 'same'"), 'same', "$size bytes there and back";
    }

    # -- set anew, removed
    is $c->run(1, 'return t.cc.action("ch", "who", function() return "new" end)'), 'true', 'another function';
    is $c->run(0, 'return t.all("ch", "who", nil, "z")'), '0=200 0:0:z; 1=200 new; 2=200 2:0:z', 'is the one that answers';
    is $c->run(1, 'return t.cc.action("ch", "who", nil)'), 'true', 'removed';
    is $c->run(0, 'return t.cc.call(1, "ch", "who")'), "nil\tno such action", 'it is unknown';
    is $c->run(1, 'return t.cc.action("ch", "who", function() return "back" end)'), 'true', 'and again';
    is $c->run(0, 'return t.cc.call(1, "ch", "who")'), "200\tback", 'known';
    ok $c->s->quit, 'quits';
    $c->s->log_is_clean(qr/action ".*" of "ch" failed/);
}

# Functions that yield, calls in functions, and handlers of messages that block.
sub beside ($transport) {
    my $c = start($transport);
    my $line = $c->console(0);
    $line->ask('local threads = {}
        for i = 1, 60 do threads[i] = ngx.thread.spawn(function()
            local status, body = t.cc.call(1, "ch", "gated", nil, i, { timeout = 30 })
            return body == i .. "!" end) end
        for i = 1, 60 do local _, ok = ngx.thread.wait(threads[i]) if not ok then return i end end
        return "all"');
    is $c->until(1, 'return t.running', 60), 60, 'functions that wait do so side by side';
    $c->run(1, 't.open = true');
    is $line->answer, 'all', 'and answer';
    $c->run(1, 't.open = nil');
    $line->close;
    is $c->run(0, 'local threads, good = {}, 0
        for i = 1, 400 do threads[i] = ngx.thread.spawn(function()
            local status, body = t.cc.call(1, "ch", "slow", "s=0.01", i, { timeout = 30 })
            return body == i .. "!" end) end
        for i = 1, 400 do local _, ok = ngx.thread.wait(threads[i]) if ok then good = good + 1 end end
        return good'), 400, 'more than there are light threads for wait their turn';
    cmp_ok $c->run(1, 'return t.most'), '<=', 100, 'which is bounded';
    is $c->run(0, 'return t.cc.call(1, "ch", "who", nil, "x")'), "200\t1:0:x", 'and others are answered';
    is $c->run(0, 'return t.all("ch", "forwards", nil, "f")'),
        '0=200 by 0 1:0:f; 1=200 by 1 2:1:f; 2=200 by 2 0:2:f', 'functions call';
    is $c->run(0, 'return t.all("ch", "sends", nil, "m")'), '0=200 sent; 1=200 sent; 2=200 sent', 'and send';
    is $c->until($_, 'return t.count("news")', 1), 1, "worker $_ has got it" for 0 .. 2;

    # -- time
    is $c->run(0, 'return t.cc.call(1, "ch", "gated", nil, "x", { timeout = 0.05 })'), "nil\ttimeout", 'too slow';
    is $c->run(0, 'return t.cc.call(0, "ch", "gated", nil, "x", { timeout = 0.05 })'), "nil\ttimeout", 'to oneself, too';
    $c->run($_, 't.open = true') for 0, 1;
    is $c->until(0, 'return ipc.stats().late', 1), 1, 'the late reply is dropped and counted';
    is $c->run(0, 'local l = ngx.now() t.cc.call(1, "ch", "slow", "s=0.3", "x", { timeout = 10 })
        ngx.update_time() return ngx.now() - l < 5'), 'true', 'nobody waits longer than needed';

    # -- a handler of messages that has yielded stops no action, of whichever order
    for my $round (1, 2) {
        $c->run(0, 't.go = nil assert(ipc.send_worker(1, "blocks"))');
        $c->until(1, 'return t.blocked', 'true');
        $c->run(1, 't.clear()');
        $c->run(0, 'for i = 1, 300 do assert(ipc.send_worker(1, "news", i)) end');
        is $c->run(0, 'return t.cc.call(1, "ch", "who", nil, "x")'), "200\t1:0:x", "$round: a call goes past messages that wait";
        is $c->run(1, 'return t.cc.call(2, "ch", "who", nil, "x")'), "200\t2:1:x", "$round: and so does a reply";
        is $c->run(1, 'return t.count("news")'), 0, "$round: messages wait";
        is $c->run(1, 'return ipc.stats().queued'), 300, "$round: and are counted";
        $c->run(1, 't.go = true');
        is $c->until(1, 'return t.count("news")', 300), 300, "$round: until the handler ends";
        is $c->run(1, 'for i, line in ipairs(t.got) do if not line:find("news|" .. i .. "|", 1, true) then return line end end return "in order"'),
            'in order', "$round: in order";
        $c->run(1, 't.go = nil');
    }
    is $c->until(0, 'local s = ipc.stats() return s.sent - s.received - s.stranger - s.lost - s.queued', 0), 0,
        'every message is accounted for';
    ok $c->s->quit, 'quits';
    $c->s->log_is_clean;
}

sub deaths ($transport) {
    my $c = start($transport);
    my $s = $c->s;
    my $line = $c->console(0);

    # -- killed while it works on the call
    $line->ask('return t.all("ch", "slow", "s=0.4", "x", { timeout = 60 })');
    $c->until(1, 'return t.running', 1);
    $s->kill_worker(1);
    is $line->answer, '0=200 x!; 1=died; 2=200 x!', 'a killed worker costs no time, and never the others\' answers';
    is $c->run(0, 'return t.all("ch", "who", nil, "y")'), '0=200 0:0:y; 1=200 1:0:y; 2=200 2:0:y', 'its successor answers';

    # -- stopped, then killed: what it has not read is its successor's
    if ($transport eq 'ring') {
        $s->signal(STOP => $s->worker_pid(1));
        $line->ask('return t.cc.call(1, "ch", "who", nil, "z", { timeout = 20 })');
        $c->until(2, 'return t.cc.call(0, "ch", "who", nil, "")', "200\t0:2:");
        $s->kill_worker(1);
        is $line->answer, "200\t1:0:z", 'what it had not read its successor answers';
    }

    # -- killed with several calls, from several workers: of those that it had not read, which its
    # successor answers, and of those that it worked on
    my @lines = map { $c->console($_) } 0, 0, 2;
    $_->ask('return t.cc.call(1, "ch", "slow", "s=50", "x", { timeout = 60 })') for @lines;
    $c->until(1, 'return t.running', 3);
    $s->signal(STOP => $s->worker_pid(1));
    my $unread = $c->console(2);
    $unread->ask('return t.cc.call(1, "ch", "who", nil, "u", { timeout = 60 })');
    $c->until(2, 'return t.cc.call(0, "ch", "who", nil, "")', "200\t0:2:");
    $s->kill_worker(1);
    is $_->answer, "nil\tdied", 'each is told of the death' for @lines;
    is $unread->answer, "200\t1:2:u", 'and who was not read is answered';
    $_->close for @lines, $unread;
    is $c->until(0, 'local s = ipc.stats() return s.sent - s.received - s.stranger - s.lost - s.queued', 0), 0,
        'every message is accounted for';

    # -- the caller is killed, or its light thread
    $line->ask('return t.cc.call(1, "ch", "slow", "s=0.3", "x")');
    $c->until(1, 'return t.running', 1);
    $s->kill_worker(0);
    $line->close;
    is $c->until(1, 'return t.running', 0), 0, 'a caller that was killed harms nobody';
    is $c->run(0, 'return t.all("ch", "who", nil, "y")'), '0=200 0:0:y; 1=200 1:0:y; 2=200 2:0:y', 'all answer its successor';
    $c->run(0, 't.thread = ngx.timer.at(0, function()
        local thread = ngx.thread.spawn(function() t.cc.call(1, "ch", "gated", nil, "x") end)
        t.wait(function() return t.kill end)
        ngx.thread.kill(thread) collectgarbage() collectgarbage()
        t.killed = true end)');
    $c->until(1, 'return t.running', 1);
    $c->run(0, 't.kill = true');
    is $c->until(0, 'return t.killed', 'true'), 'true', 'a light thread is killed in its call';
    $c->run(1, 't.open = true');
    $c->until(1, 'return t.running', 0);
    is $c->run(0, 'collectgarbage() return t.cc.call(1, "ch", "who", nil, "k")'), "200\t1:0:k", 'and harms nobody, either';
    ok $s->quit, 'quits';
    $s->log_is_clean(qr/exited on signal 9/);
}

sub reloads ($transport) {
    my $c = start($transport);
    my $s = $c->s;
    my $line = $c->console(0);
    $line->run('t.good, t.bad, t.stop = 0, {}, false
        function t.load()
            while not t.stop do
                for _, r in ipairs(t.cc.call("all", "ch", "who", nil, "x", { timeout = 10 })) do
                    if r.body == r.worker .. ":0:x" then t.good = t.good + 1
                    else t.bad[#t.bad + 1] = r.worker .. " " .. tostring(r.err or r.body) end
                end
            end
        end
        for i = 1, 4 do ngx.timer.at(0, t.load) end');
    $line->until('return t.good > 100', 'true');
    for my $workers (3, 2, 3) {
        ok $c->reload(workers => $workers, wait_old => 0), "reload to $workers workers under load";
        my $good = $line->run('return t.good');
        $line->until("return t.good > $good + 100", 'true');
        is $line->run('return #t.bad == 0 and "" or t.bad[1]'), '', 'a leaving worker\'s casts are answered, by the new ones';
    }
    is $line->run('return t.all("ch", "pid")'), join('; ', map { "$_=200 " . $c->pid($_) } 0 .. 2), 'all are the newest';
    $line->run('t.stop = true');
    $line->ask('return t.cc.call(1, "ch", "slow", "s=0.5", "x")');
    $c->until(1, 'return t.running', 1);
    ok $c->reload(wait_old => 0), 'once more';
    is $line->answer, "200\tx!", 'a call that was under way is answered';
    $line->close;
    ok $s->wait_for(sub { !$s->retiring_pids }, 'the old ones to leave', 15), 'old workers leave at once';
    $c->run(0, 'for i = 1, 20 do ngx.timer.at(0, function()
        local status, body = t.cc.call(i % 3, "ch", "slow", "s=0.1", i) ngx.log(ngx.NOTICE, "timer has: ", body or status) end) end');
    ok $s->quit(15), 'quit with calls under way';
    is scalar(() = $s->error_log =~ /timer has: \d+!/g), 20, 'all of which were answered';
    $s->log_is_clean;
}

sub phases () {
    my $c = CC::Console->start(workers => 2, init => $INIT . <<'LUA', server => <<'CONF');
        t.early = {}
        t.early[1] = select(2, cc.call(1, "ch", "who"))
        ngx.timer.at(0, function() t.early[2] = t.all("ch", "who", nil, "t") end)
LUA
        location = /all {
            rewrite_by_lua_block { ngx.ctx.r = require("ngx.cc").call(1, "ch", "echo", nil, "") }
            access_by_lua_block { ngx.ctx.a = require("ngx.cc").call(0, "ch", "echo", nil, "") }
            content_by_lua_block { ngx.say(ngx.ctx.r, ngx.ctx.a, require("ngx.cc").call(1, "ch", "echo", nil, "x")) }
            log_by_lua_block { local _, err = require("ngx.cc").call(1, "ch", "echo") ngx.log(ngx.NOTICE, "log says ", err) }
        }
CONF
    is $c->until(0, 'return t.early[1], t.early[2]', qr/;/),
        "call cannot wait in the context of init_worker\t0=200 0:0:t; 1=200 1:0:t", 'init_worker cannot wait, its timers can';
    is $c->s->get($c->s->port, '/all')->body, "201201201x\n", 'rewrite, access, content';
    ok $c->s->wait_log(qr/log says call cannot wait in the context of log/), 'log cannot wait';
    ok $c->s->quit, 'quits';
    $c->s->log_is_clean;

    my $s = CC::Server->new(module => 1, http => 'init_by_lua_block {
        package.loaded.says = { select(2, pcall(require("ngx.cc").action, "ch", "x", print)) } }
        server { listen 127.0.0.1:%PORT%; location / { content_by_lua_block { ngx.say(require("says")[1]) } } }');
    $s->start;
    like $s->get($s->port)->body, qr/^ngx\.cc: action cannot be used in init_by_lua\*/, 'init_by_lua is too early';
    ok $s->quit, 'quits';
    $s->log_is_clean;
}

# The same actions as a client asks for them.
sub over_http () {
    my $c = CC::Console->start(workers => 3, init => $INIT, http => <<'HTTP', server => <<'CONF');
        cc_channel ch timeout=1s;
        cc_channel other;
        cc_node 127.0.0.1:8000;
HTTP
        location ~ ^/([^/]+)/invoke { cc_invoke; cc_action plain /plain; cc_action who2 /plain; }
        location ~ ^/([^/]+)/hub { cc_hub; }
        location ~ ^/([^/]+)/cast { cc_cast; }
        location ~ ^/([^/]+)/master { cc_cast master; }
        location ~ ^/([^/]+)/tree { cc_cast tree; }
        location = /plain { return 202 plain; }
CONF
    my $s = $c->s;
    my $get = sub ($uri, $id = 0) { $s->get($s->port(1 + $id), $uri) };
    my $r = $get->('/ch/invoke?who', 1);
    is $r->status . ' ' . $r->body, '200 1:1:', 'cc_invoke: the function in the worker that was reached';
    is $get->('/other/invoke?who')->body, 'other', 'of the channel';
    is $get->('/ch/hub?who', 2)->body, '0:0:', 'cc_hub: in the router';
    is $get->('/ch/invoke?x=1&args&k=v&flag')->body, 'v|true|nil', 'the first argument that names an action, and the whole query';
    is $get->('/ch/invoke?plain&who')->body, 'plain', 'a cc_action before it';
    like $get->('/ch/invoke?getServiceStat&who')->body, qr/"service":"127.0.0.1:8000"/, 'a built-in one before it';
    $c->run(1, 't.cc.action("ch", "from", function(args, body, from) return from.node .. " " .. from.worker end)');
    is $c->run(0, 'return t.cc.call(1, "ch", "from")'), "200\t127.0.0.1:8000 0", 'the node is told';
    is $get->('/ch/invoke?from', 1)->body, '127.0.0.1:8000 1', 'of a request, too';
    is $get->('/ch/invoke?status')->status, 404, 'its status';
    is $get->('/ch/invoke?fails')->status, 500, 'an error';
    is $get->('/ch/invoke?slow&s=3')->status, 504, 'too slow';
    my $body = join '', map { chr } 0 .. 255;
    $r = $s->request(POST => $s->port(1), '/ch/invoke?echo', body => $body);
    is $r->status . $r->body, "201$body", 'a body of any bytes';

    $r = $get->('/ch/cast?who&k=v', 1);
    is $r->status, 200, 'cc_cast';
    is $r->body, '{"channel":"ch","direction":"workers","asked":3,"answered":3,"replies":['
        . join(',', map { qq({"node":"127.0.0.1:8000","worker":$_,"port":${\$s->port(1 + $_)},"status":200,"body":"$_:1:"}) } 0 .. 2)
        . '],"missing":[]}', 'all workers have answered';
    my @rings = map { $c->run($_, 'return ipc.stats().received') } 0;
    is $get->('/ch/cast?who')->status, 200, 'once more';
    is $c->run(0, 'return ipc.stats().received') - $rings[0], 4, 'there and back over the rings, but for oneself';
    is $get->('/ch/cast?who2')->json->{answered}, 3, 'other actions go over http';
    is $c->run(0, 'return ipc.stats().received') - $rings[0], 4, 'and nothing of them over the rings';
    $r = $get->('/ch/master?who', 2);
    is_deeply [ map { $_->{body} } $r->json->{replies}->@* ], [ '0:2:' ], 'to the router';
    is scalar($get->('/ch/tree?who')->json->{replies}->@*), 3, 'down the tree, where this node is all there is';
    $r = $s->request(POST => $s->port(1), '/ch/cast?echo', body => $body);
    is_deeply [ $r->status, map { $_->{status} } $r->json->{replies}->@* ], [ 200, 201, 201, 201 ], 'with a body';
    is length $r->json->{replies}[2]{body_base64}, 344, 'which comes back in base64';
    $r = $get->('/ch/cast?not%20in%201', 2);
    is $r->status, 207, 'a function that one worker does not have';
    is_deeply $r->json->{missing}, [ { node => '127.0.0.1:8000', worker => 1, error => 'no such action' } ], 'is missing there';
    $c->run(1, 't.cc.action("ch", "slow", function() ngx.sleep(5) end)');
    $r = $get->('/ch/cast?slow&s=0');
    is $r->status, 207, 'a slow one';
    is_deeply $r->json->{missing}, [ { node => '127.0.0.1:8000', worker => 1, error => 'timed out' } ], 'costs the time, and nobody else';

    # -- a client that goes away
    my $client = $s->connect($s->port(1));
    $client->send("GET /ch/cast?slow&s=0.2 HTTP/1.1\r\nHost: x\r\n\r\n");
    $c->until(1, 'return t.cc.call(1, "ch", "status")', qr/404/);
    $client->close;
    is $get->('/ch/cast?who')->status, 200, 'harms nobody';
    ok $s->quit(20), 'quits';
    $s->log_is_clean(qr/action "fails" of "ch" failed/, qr/\[warn\]/);
}
