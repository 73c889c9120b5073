# Calls: who answers, what comes back, and what the caller is told when nothing does.
use v5.36;
use Test::More;
use CC::Console;
use CC::Proc;
use CC::Wait qw(SLOW);

my $BALANCE = 'local s = ipc.stats() return s.sent - s.received - s.stranger - s.lost - s.queued';
my $PROMPT = 15;

my $INIT = <<'LUA';
    t.calls, t.order = {}, {}
    local ffi = require "ffi"
    ffi.cdef "int kill(int pid, int sig);"
    local function id() return ngx.worker.id() end
    ipc.receive {
        ["who"] = function(data) return id() .. ":" .. data .. ":" .. ipc.sender end,
        ["pid"] = function() return ngx.worker.pid() end,
        ["echo"] = function(data) return data end,
        ["nothing"] = function() end,
        ["nil and more"] = function() return nil, "more" end,
        ["boolean"] = function() return true end,
        ["table"] = function() return {} end,
        ["fails"] = function(data) error("it broke: " .. data .. "\nat length") end,
        ["too long"] = function(data) return ("x"):rep(tonumber(data)) end,
        ["sleeps"] = function(data) ngx.sleep(0.002) return data .. "!" end,
        ["gate"] = function(data)
            t.began = (t.began or 0) + 1
            t.wait(function() return t.go or t.outlasts and ngx.worker.exiting() end)
            if t.outlasts then ngx.sleep(t.outlasts) end
            return data
        end,
        ["dies in"] = function(data)
            if tonumber(data) == id() then ffi.C.kill(ngx.worker.pid(), 9) end
            return "alive"
        end,
        ["forwards"] = function(data)
            local target, name, rest = data:match "^(%S+) (%S+) ?(.*)$"
            local reply, err = ipc.call(target, name, rest, { timeout = 5 })
            return (reply or tostring(err)) .. " by " .. ipc.sender
        end,
        ["asks itself"] = function() return select(2, ipc.call(id(), "echo")) end,
        ["asks any"] = function()
            local seen = {}
            for i = 1, 12 do seen[i] = assert(ipc.call("any", "who")):match "^%d" end
            return table.concat(seen)
        end,
        ["asks all"] = function() return t.told(ipc.call_all("echo", "x")) end,
        ["cycle"] = function(data)
            if data == "end" then return "never" end
            local reply, err = ipc.call(1 - id(), data == "back" and "cycle" or "cycle", data == "back" and "end" or "back",
                { timeout = data == "back" and 0.2 or 5 })
            return tostring(reply or err)
        end,
        ["row"] = function(data) t.order[#t.order + 1] = tonumber(data) end,
    }
    function t.told(results, err)
        if not results then return err end
        local l = {}
        for i, r in ipairs(results) do l[i] = r.id .. "=" .. (r.data or "(" .. r.err .. ")") end
        return table.concat(l, " ")
    end
LUA

my $EARLY = <<'LUA';
    -- before anybody serves
    t.early = {}
    assert(ngx.timer.at(0, function()
        t.early[1] = ipc.call("leader", "echo", "leader")
        t.early[2] = ipc.call("any", "echo", "any")
        for i = 0, 2 do t.early[3 + i] = ipc.call(i, "echo", i) end
        t.early[6] = t.told(ipc.call_all("echo", "all"))
    end))
LUA

for my $transport (qw(ring socket)) {
    subtest "$transport: answers"  => sub { answers($transport) };
    subtest "$transport: failures" => sub { failures($transport) };
    subtest "$transport: handlers" => sub { handlers($transport) };
    subtest "$transport: deaths"   => sub { deaths($transport) };
    subtest "$transport: leaving"  => sub { leaving($transport) };
}
subtest 'phases' => \&phases;
done_testing;

sub start ($transport, %opt) {
    return CC::Console->start(workers => 3, init => $INIT, %opt,
        main => "cc_ipc_transport $transport; " . ($opt{main} // ''));
}

sub answers ($transport) {
    my $c = start($transport, init => $INIT . $EARLY);
    my @pid = map { $c->pid($_) } 0 .. 2;
    my $early = 'leader any 0 1 2 0=all 1=all 2=all';
    is $c->until($_, 'return table.concat(t.early, " ")', $early), $early, "worker $_ has called from its first timer" for 0 .. 2;
    is $c->run(0, "return ipc.call($_, 'who', 'x')"), "$_:x:$pid[0]", "worker $_ answers worker 0" for 0 .. 2;
    is $c->run(2, 'return ipc.call("1", "who", 5)'), "1:5:$pid[2]", 'a number as a string, and a string as a number';
    is $c->run(0, 'return ipc.call(1, "who")'), "1::$pid[0]", 'absent data is the empty string';
    is $c->run(0, 'return ipc.call(1, "who", nil, { timeout = 1 })'), "1::$pid[0]", 'so is nil before options';
    is $c->run(1, 'return ipc.call("leader", "pid")'), $pid[0], 'the leader';
    is join('', sort split //, $c->run(0, 'local l = {} for i = 1, 9 do l[i] = ipc.call("any", "who"):match "^%d" end
        return table.concat(l)')), '000111222', 'any: all by turns';
    is $c->run(1, 'return t.told(ipc.call_all("who", "y"))'), join(' ', map { "$_=$_:y:$pid[1]" } 0 .. 2), 'call_all';
    is $c->run(0, 'return ipc.call(1, "nothing")'), '', 'a handler that returns nothing';
    is $c->run(0, 'return ipc.call(1, "nil and more")'), '', 'or nil';

    my $make = 'local function make(n) local p = {} for i = 0, 255 do p[i] = string.char(i) end
        local s = table.concat(p, "", 0, 255) return (s .. "\0\r\n\255"):rep(math.ceil(n / 260)):sub(1, n) end ';
    for my $size (0, 1, 255, 256, 4095 .. 4097, 16383 .. 16385, 65535 .. 65537, 262_144, 1 << 20) {
        is $c->run(0, "$make local data, l = make($size), {}
            for id = 0, 2 do local reply = assert(ipc.call(id, 'echo', data)) l[id + 1] = #reply .. ngx.md5(reply) end
            for _, r in ipairs(assert(ipc.call_all('echo', data))) do l[#l + 1] = #r.data .. ngx.md5(r.data) end
            for i = 1, 6 do if l[i] ~= #data .. ngx.md5(data) then return 'reply ' .. i end end
            return #l"), 6, "$size bytes there and back";
    }

    # -- many at a time
    for my $name (qw(echo sleeps)) {
        my $count = $name eq 'echo' ? 1000 : 200;
        is $c->run(0, "local threads, wrong = {}, 0
            for i = 1, $count do threads[i] = ngx.thread.spawn(function()
                local reply, err = ipc.call(i % 3, '$name', 'n' .. i, { timeout = 30 })
                return reply == 'n' .. i .. ('$name' == 'sleeps' and '!' or ''), err
            end) end
            for i = 1, $count do
                local _, right, err = ngx.thread.wait(threads[i])
                if not right then wrong = wrong + 1 t.why = err end
            end
            return wrong, t.why"), "0\tnil", "$count at a time: each has its own reply ($name)";
    }
    my @line = map { $c->console($_) } 0 .. 2;
    $_->ask('for i = 1, 2000 do
        local to = (ngx.worker.id() + i) % 3
        local reply, err = ipc.call(to, "who", i)
        if reply ~= to .. ":" .. i .. ":" .. ngx.worker.pid() then error(tostring(reply) .. tostring(err)) end
    end return "right"') for @line;
    is $_->answer, 'right', 'from all to all, one after another' for @line;
    is $c->until(0, $BALANCE, 0), 0, 'every message is accounted for';
    is $c->run(0, 'return ipc.stats().late'), 0, 'no reply was late';
    $_->close for @line;
    ok $c->s->quit($PROMPT), 'quits';
    $c->s->log_is_clean;
}

sub failures ($transport) {
    my $c = start($transport, main => 'cc_ipc_max_message 1m; cc_ipc_queue 1m;');
    for my $case (
        [ '3, "echo"', 'No worker with id 3' ],
        [ '-1, "echo"', 'No worker with id -1' ],
        [ '1.5, "echo"', 'No worker with id 1.5' ],
        [ '65536, "echo"', 'No worker with id 65536' ],
        [ '0/0, "echo"', qr/No worker with id -?nan/ ],
        [ '1, "none"', 'no handler for "none"' ],
        [ '1, ("n"):rep(255)', 'alert name length cannot exceed 254, was 255' ],
        [ '1, "boolean"', 'handler returned a boolean, not a string' ],
        [ '1, "table"', 'handler returned a table, not a string' ],
        [ '1, "fails", "why"', qr/^handler failed: \S+: it broke: why$/ ],
        [ '0, "fails", "here"', qr/^handler failed: \S+: it broke: here$/ ],
        [ '1, "echo", ("x"):rep(1048577)', 'message too long' ],
        [ '1, "too long", 1048577', 'reply too long' ],
        [ '0, "too long", 1048577', 'reply too long' ],
    ) {
        my ($args, $why) = @$case;
        my ($reply, $err) = split /\t/, $c->run(0, "return ipc.call($args)"), 2;
        is $reply, 'nil', "call($args)";
        ref $why ? like($err, $why, 'why') : is($err, $why, 'why');
    }
    is length $c->run(0, 'return ipc.call(1, "too long", 1048576)'), 1_048_576, 'the longest reply passes';
    is $c->run(0, 'return t.told(ipc.call_all("none"))'), join(' ', map { "$_=(no handler for \"none\")" } 0 .. 2), 'call_all: all fail';
    is $c->run(0, 'return ipc.call_all(("n"):rep(255))'), "nil\talert name length cannot exceed 254, was 255", 'call_all: a name too long';

    for my $case (
        [ 'call(nil, "n")',                      qr/bad argument #1 to 'call' \(a worker id, "leader" or "any" expected\)/ ],
        [ 'call("all", "n")',                    qr/bad argument #1 to 'call'/ ],
        [ 'call(0)',                             qr/bad argument #2 to 'call' \(string expected, got nil\)/ ],
        [ 'call(0, "n", {})',                    qr/bad argument #3 to 'call' \(string expected, got table\)/ ],
        [ 'call(0, "n", "d", 1)',                qr/bad argument #4 to 'call' \(table expected, got number\)/ ],
        [ 'call_all()',                          qr/bad argument #1 to 'call_all' \(string expected, got nil\)/ ],
        [ 'call_all("n", true)',                 qr/bad argument #2 to 'call_all' \(string expected, got boolean\)/ ],
        [ 'call_all("n", "d", "1")',             qr/bad argument #3 to 'call_all' \(table expected, got string\)/ ],
        (map { [ "call(0, 'n', 'd', { timeout = $_ })", qr/bad timeout to 'call' \(a positive number of seconds expected\)/ ] }
            qw(0 -1 0/0 "1" true)),
        [ 'call_all("n", "d", { timeout = 0 })', qr/bad timeout to 'call_all'/ ],
    ) {
        my ($code, $why) = @$case;
        like $c->raises(0, "ipc.$code"), qr/^test:1: @{[ $why ]}/, $code;
    }
    is $c->run(0, 'return ipc.call(1, "echo", "x", { timeout = math.huge })'), 'x', 'for ever is a long time';

    # -- time over: the late reply belongs to nobody
    is $c->run(0, 'return ipc.call(1, "gate", "late", { timeout = 0.02 })'), "nil\ttimeout", 'time over';
    is $c->run(0, 'return t.told(ipc.call_all("gate", "late", { timeout = 0.02 }))'),
        '0=(timeout) 1=(timeout) 2=(timeout)', 'for all';
    is $c->run(0, 'return ipc.stats().late'), 0, 'nothing has come yet';
    $c->each('t.go = true');
    is $c->until(0, 'return ipc.stats().late', 4), 4, 'late replies are counted';
    is $c->run(0, 'return ipc.call(1, "echo", "next")'), 'next', 'and are not the next call\'s';
    $c->each('t.go = nil');

    # -- no room for the call
    my $pid = $c->pid(1);
    $c->s->kill_worker(1, 'STOP');
    $c->run(0, 'repeat local ok = ipc.send_worker(1, "nothing", ("f"):rep(100000)) until not ok');
    is $c->run(0, 'return ipc.call(1, "echo", ("x"):rep(100000))'), "nil\tfull", 'a full queue';
    is $c->run(0, 'return t.told(ipc.call_all("echo", ("x"):rep(100000))):gsub("x+", "x")'), "0=x 1=(full) 2=x\t2", 'costs the others nothing';
    $c->s->signal(CONT => $pid);
    is $c->until(0, 'return ipc.call(1, "echo", "again")', 'again'), 'again', 'room again';
    is $c->until(0, $BALANCE, 0), 0, 'every message is accounted for';
    ok $c->s->quit($PROMPT), 'quits';
    $c->s->log_is_clean(qr/ipc handler "fails" failed/);
}

sub handlers ($transport) {
    my $c = start($transport);
    my @pid = map { $c->pid($_) } 0 .. 2;
    is $c->run(0, 'return ipc.call(1, "forwards", "2 who x")'), "2:x:$pid[1] by $pid[0]", 'a handler calls another worker';
    is $c->run(0, 'return ipc.call(1, "forwards", "2 forwards 0 who x")'), "0:x:$pid[2] by $pid[1] by $pid[0]",
        'through two, and back to a worker whose receiver is free';
    my $own = 'a handler cannot call its own worker, where handlers run in order';
    is $c->run(0, "return ipc.call($_, 'asks itself')"), $own, "worker $_: its own" for 0, 1;
    unlike $c->run(0, 'return ipc.call(1, "asks any")'), qr/1/, 'any is not its own';
    is $c->run(0, 'return ipc.call(1, "asks all")'), "0=x 1=($own) 2=x", 'all but its own';
    is $c->run(0, 'return ipc.call(1, "cycle")'), 'timeout', 'two handlers that wait for each other: one gives up';

    # -- while a handler waits: replies go on, the rest is put aside in its order
    my $line = $c->console(0);
    $line->ask('return ipc.call(1, "forwards", "2 gate x", { timeout = 30 })');
    $c->until(2, 'return t.began', 1);
    is $c->run(1, 'return ipc.call(0, "echo", "meanwhile")'), 'meanwhile', 'a request of that worker is answered';
    $c->run(0, 'for i = 1, 300 do assert(ipc.send_worker(1, "row", i)) end');
    is $c->run(1, 'return ipc.call(0, "echo", "again")'), 'again', 'behind messages, too';
    $c->run(0, 'for i = 301, 600 do assert(ipc.send_worker(1, "row", i)) end');
    is $c->run(1, 'return #t.order'), 0, 'which wait';
    $c->run(2, 't.go = true');
    is $line->answer, "x by $pid[0]", 'the handler has its reply';
    is $c->until(1, 'return #t.order', 600), 600, 'what was put aside is handled';
    is $c->run(1, 'for i = 1, 600 do if t.order[i] ~= i then return i end end return "in order"'), 'in order', 'in order';

    # -- the same again and again: whoever has waited can be woken for the next
    is $c->run(0, 'for i = 1, 300 do
        local reply, err = ipc.call(1, "forwards", "2 echo " .. i)
        if not reply or not reply:find("^" .. i .. " ") then return i, reply, err end
        end return "right"'), 'right', 'one call in a handler after another';
    $line->close;
    is $c->until(0, $BALANCE, 0), 0, 'every message is accounted for';
    ok $c->s->quit($PROMPT), 'quits at once, whoever has called';
    $c->s->log_is_clean;
}

sub deaths ($transport) {
    my $c = start($transport);
    my $s = $c->s;
    my @pid = map { $c->pid($_) } 0 .. 2;

    $s->kill_worker(1, 'STOP');
    is $c->run(0, 'return t.told(ipc.call_all("echo", "x", { timeout = 1 }))'), '0=x 1=(timeout) 2=x', 'one is stopped';
    is $c->run(0, 'return ipc.call("leader", "echo", "x")'), 'x', 'others answer';
    $s->signal(CONT => $pid[1]);
    is $c->until(0, 'return ipc.stats().late', 1), 1, 'it goes on: late';

    is $c->run(0, 'return t.told(ipc.call_all("dies in", 1, { timeout = 1 }))'), '0=alive 1=(timeout) 2=alive', 'one dies of it';
    $s->wait_for(sub { my $pid = $s->worker_pid(1); $pid && $pid != $pid[1] }, 'a successor');
    is $c->until(0, 'return ipc.call(1, "pid") ~= nil', 'true'), 'true', 'its successor answers';

    # -- a call that waits for a stopped worker is answered by its successor
    my $old = $c->pid(1);
    $s->kill_worker(1, 'STOP');
    my $line = $c->console(0);
    $line->ask('return ipc.call(1, "pid", "", { timeout = 30 })');
    $c->until(0, 'return ipc.stats().sent > 0', 'true');
    my $heir = $s->kill_worker(1);
    is $line->answer, $heir, 'killed before its handler began: the successor answers';

    # -- the caller dies: the reply is a stranger's
    my $lines = $c->console(2);
    $lines->ask('return ipc.call(1, "gate", "for nobody", { timeout = 30 })');
    $c->until(1, 'return t.began', 1);
    $s->kill_worker(2);
    my $late = $c->run(0, 'return ipc.stats().late');
    $c->run(1, 't.go = true');
    is $c->run(2, 'return ipc.call(1, "echo", "mine")'), 'mine', 'its successor gets its own replies only';
    is $c->run(0, 'return ipc.stats().late'), $late, 'the other reply is not its';
    $line->close;
    is $c->until(0, $BALANCE, 0), 0, 'every message is accounted for';
    ok $s->quit($PROMPT), 'quits';
    $s->log_is_clean(qr/exited on signal 9/);
}

sub leaving ($transport) {
    my $c = start($transport);
    my $s = $c->s;
    my @old = map { $c->console($_) } 0 .. 2;
    my @pid = map { $_->pid } @old;
    ok $c->reload(wait_old => 0), 'reload';
    $_->until('return ngx.worker.exiting()', 'true') for @old;
    is $old[0]->run('return ipc.call(2, "pid")'), $pid[2], 'a leaving worker calls its colleague';
    is $old[0]->run('return ipc.call(0, "pid")'), $pid[0], 'and itself';
    is $old[1]->run('return t.told(ipc.call_all("pid"))'), join(' ', map { "$_=$pid[$_]" } 0 .. 2), 'and all of its generation';
    is $c->run(0, 'return t.told(ipc.call_all("pid"))'), join(' ', map { "$_=" . $c->pid($_) } 0 .. 2), 'a new one calls the new ones';
    is $old[1]->run('return ipc.call("leader", "pid"), ipc.call("any", "echo", "x")'), "$pid[0]\tx", 'has a leader, and any';
    is $old[2]->run('return ipc.call(0, "forwards", "1 pid")'), "$pid[1] by $pid[2]", 'handlers of leaving workers call';
    $old[1]->close;
    $s->wait_for(sub { !CC::Proc::alive($pid[1]) }, 'it to leave');
    is $old[0]->run('return t.told(ipc.call_all("pid", "", { timeout = 60 }))'), "0=$pid[0] 1=(gone) 2=$pid[2]", 'who has gone is not waited for';
    is $old[0]->run('return ipc.call(1, "pid")'), "nil\tNo worker with id 1", 'nor called';

    # -- a call that nobody answers ends with the worker that waits for it
    $old[0]->ask('return ipc.call(2, "gate", "x", { timeout = 10 })');
    $old[2]->until('return t.began', 1);
    $old[2]->run('t.go = true');
    is $old[0]->answer, 'x', 'in the middle of it';
    $_->close for @old[0, 2];
    ok $s->wait_for(sub { !$s->retiring_pids }, 'old workers to leave', $PROMPT), 'all of them leave at once';

    # -- calls in timers while all workers are told to leave
    $c->run(0, 'for i = 1, 50 do ngx.timer.at(0, function()
        local reply, err = ipc.call(i % 3, "sleeps", i) ngx.log(ngx.NOTICE, "timer has: ", reply or err) end) end');
    ok $s->quit($PROMPT), 'quit with calls under way';
    SKIP: {
        skip 'who leaves has a moment for what is under way, which is too short here', 1 if SLOW > 1;
        is scalar(() = $s->error_log =~ /timer has: \d+!/g), 50, 'all of which were answered';
    }
    $s->log_is_clean;

    # -- and where something must be cut off
    $s->start($c->options(main => "cc_ipc_transport $transport; worker_shutdown_timeout 100ms;"));
    $c->run(1, 't.outlasts = 0.5');
    my $line = $c->console(0);
    $line->ask('return ipc.call(1, "gate", "x", { timeout = 600 })');
    $c->until(1, 'return t.began', 1);
    ok $s->quit($PROMPT), 'worker_shutdown_timeout ends a call that waits in a request';
    $line->close;
    $s->log_is_clean;
}

sub phases () {
    my $c = CC::Console->start(
        workers => 2,
        init    => "$INIT t.said = {}
            function t.note(phase, reply, err) t.said[#t.said + 1] = phase .. '=' .. tostring(reply or err) end
            function t.try() t.note(ngx.get_phase(), ipc.call(1, 'echo', 'ok')) end
            t.try()
            t.note('all', ipc.call_all('echo'))",
        http => 'upstream u { server 0.0.0.1; balancer_by_lua_block { require("cc_console").try()
            assert(require("ngx.balancer").set_current_peer("127.0.0.1", ngx.var.server_port)) } }',
        server => <<'CONF');
            location = /all {
                set_by_lua_block $x { require("cc_console").try() return 1 }
                rewrite_by_lua_block { require("cc_console").try() }
                access_by_lua_block { require("cc_console").try() }
                content_by_lua_block { require("cc_console").try() ngx.say("body") }
                header_filter_by_lua_block { require("cc_console").try() }
                body_filter_by_lua_block { if ngx.arg[2] then require("cc_console").try() end }
                log_by_lua_block { require("cc_console").try() }
            }
            location = /balanced { proxy_pass http://u/plain; }
            location = /plain { return 200 plain; }
            location = /thread { content_by_lua_block {
                ngx.thread.wait(ngx.thread.spawn(function() require("cc_console").try() end))
                coroutine.wrap(function() require("cc_console").try() end)()
                ngx.timer.at(0, function() require("cc_console").try() end)
            } }
CONF
    my $s = $c->s;
    my $no = 'call cannot wait in the context of';
    my $said = sub ($count) {
        $c->until(0, 'return #t.said', $count);
        return $c->run(0, 'local l = table.concat(t.said, ",") t.said = {} return l');
    };
    is $said->(2), "init_worker=$no init_worker,all=call_all cannot wait in the context of init_worker", 'init_worker';
    is $s->get($s->port(1), '/all')->body, "body\n", 'a request through all phases';
    is $said->(7), join(',', "set=$no set", 'rewrite=ok', 'access=ok', 'content=ok', map { "$_=$no $_" } qw(header_filter body_filter log)), 'each';
    is $s->get($s->port(1), '/balanced')->body, 'plain', 'through a balancer';
    is $said->(1), "balancer=$no balancer", 'no';
    is $s->get($s->port(1), '/thread')->status, 200, 'a light thread, a coroutine, a timer';
    is $said->(3), 'content=ok,content=ok,timer=ok', 'can';
    is $c->run(0, 'return ipc.stats().sent'), 12, 'where it could not wait nothing was sent';
    ok $s->quit($PROMPT), 'quits';
    $s->log_is_clean;
}
