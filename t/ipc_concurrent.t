# Handlers that run beside each other: what keeps its order, whose message it is, what one of them
# cannot do to the others.
use v5.36;
use Test::More;
use CC::Console;
use CC::Memory;
use CC::Proc;

my $BALANCE = 'local s = ipc.stats() return s.sent - s.received - s.stranger - s.lost - s.queued';

my $INIT = <<'LUA';
    t.began, t.ended, t.open, t.rows = {}, {}, {}, {}
    local function gate(data)
        t.began[#t.began + 1] = data
        t.wait(function() return t.open[data] or t.open.all end)
        t.ended[#t.ended + 1] = data .. ":" .. tostring(ipc.sender)
        return data
    end
    local beside = { concurrent = true }
    assert(ipc.receive("gate", gate, beside))
    assert(ipc.receive({ ["table gate"] = gate, ["other gate"] = gate }, beside))
    assert(ipc.receive("ordered gate", gate))
    assert(ipc.receive("row", function(data) t.rows[#t.rows + 1] = tonumber(data) end))
    assert(ipc.receive("beside", function(data) t.rows[#t.rows + 1] = tonumber(data) end, beside))
    assert(ipc.receive("sender", function(data)
        local before = ipc.sender
        ngx.sleep(tonumber(data))
        local thread = ngx.thread.spawn(function() return ipc.sender end)
        local _, inner = ngx.thread.wait(thread)
        t.senders[#t.senders + 1] = tostring(before == ipc.sender) .. " " .. before .. " " .. tostring(inner)
        assert(ipc.reply("answer", data))
    end, beside))
    t.senders = {}
    t.catch("answer", "news")
    assert(ipc.receive("fails", function(data) ngx.sleep(0.001) error("it broke: " .. data) end, beside))
    assert(ipc.receive("exits", function() ngx.sleep(0.001) ngx.exit(ngx.OK) end, beside))
    assert(ipc.receive("echo", function(data) return data end, beside))
    assert(ipc.receive("asks itself", function() return ipc.call(ngx.worker.id(), "echo", "me") end, beside))
    assert(ipc.receive("cycle", function(data)
        local n = tonumber(data)
        if n == 0 then return "bottom" end
        return (assert(ipc.call(1 - ngx.worker.id(), "cycle", n - 1)))
    end, beside))
    assert(ipc.receive("counts", function() t.counted = (t.counted or 0) + 1 end, beside))
    assert(ipc.receive("counts and waits", function()
        ngx.sleep(0.001)
        t.counted = (t.counted or 0) + 1
    end, beside))
    function t.push(name, from, till)
        for i = from, till do
            local ok, err
            repeat
                ok, err = ipc.send_worker(1, name, i)
                if not ok then assert(err == "full") ngx.sleep(0.001) end
            until ok
            if i % 500 == 0 then ngx.sleep(0.001) end
        end
    end
LUA

for my $transport (qw(ring socket)) {
    subtest $transport => sub { beside($transport) };
    subtest "$transport: memory" => sub { memory($transport) };
}
done_testing;

sub beside ($transport) {
    my $c = CC::Console->start(workers => 2, init => $INIT, main => "cc_ipc_transport $transport;");
    my @pid = map { $c->pid($_) } 0, 1;
    my $list = sub ($what) { $c->run(1, "return table.concat(t.$what, ' ')") };
    my $clear = sub { $c->each('t.began, t.ended, t.open, t.rows = {}, {}, {}, {}') };

    # -- order: of beginning always, of ending as it comes
    for my $name ('gate', 'table gate') {
        $clear->();
        $c->run(0, "for i = 1, 3 do assert(ipc.send_worker(1, '$name', 'g' .. i)) end
            assert(ipc.send_worker(1, 'other gate', 'o'))
            for i = 1, 5 do assert(ipc.send_worker(1, 'row', i)) end");
        is $c->until(1, 'return #t.rows', 5), 5, "$name: what comes behind does not wait";
        is $list->('began'), 'g1 g2 g3 o', "$name: they have begun in order";
        is $list->('ended'), '', "$name: and all wait";
        my @ended;
        for my $one (qw(g3 o g1 g2)) {
            $c->run(1, "t.open.$one = true");
            push @ended, "$one:$pid[0]";
            is $c->until(1, 'return table.concat(t.ended, " ")', "@ended"), "@ended", "$name: $one ends when it may";
        }
    }
    $clear->();
    $c->run(0, 'for i = 1, 3 do assert(ipc.send_worker(1, "ordered gate", i)) end assert(ipc.send_worker(1, "gate", "g"))');
    $c->until(1, 'return #t.began', 1);
    is $c->run(1, 'return ipc.call(0, "echo", "x")'), 'x', 'without it: time passes';
    is $list->('began'), 1, 'one at a time, and the others wait for it';
    $c->run(1, 't.open.all = true');
    is $c->until(1, 'return #t.ended', 4), 4, 'until it ends';
    is $list->('began'), '1 2 3 g', 'in order';

    $clear->();
    $c->run(0, 'for i = 1, 1000 do assert(ipc.send_worker(1, "beside", i)) end');
    is $c->until(1, 'return #t.rows', 1000), 1000, 'handlers that do not wait';
    is $c->run(1, 'for i = 1, 1000 do if t.rows[i] ~= i then return i end end return "in order"'), 'in order', 'are in order';

    # -- registered again without it
    $c->run(1, 'ipc.receive("beside", function(data)
        t.rows[#t.rows + 1] = tonumber(data) t.wait(function() return t.open.all end) end)');
    $clear->();
    $c->run(0, 'for i = 1, 3 do assert(ipc.send_worker(1, "beside", i)) end');
    $c->until(1, 'return #t.rows', 1);
    is $c->run(1, 'ipc.call(0, "echo", "x") return #t.rows'), 1, 'registered anew without the option: in order';
    $c->run(1, 't.open.all = true');
    $c->until(1, 'return #t.rows', 3);

    # -- whose message it is
    $clear->();
    $c->run($_, 'for i = 1, 20 do assert(ipc.send_worker(1, "sender", (21 - i) / 2000)) end') for 0, 1;
    is $c->until(1, 'return #t.senders', 40), 40, 'all have ended';
    is $c->run(1, "local n = {} for _, line in ipairs(t.senders) do n[line] = (n[line] or 0) + 1 end
        return n['true $pid[0] nil'], n['true $pid[1] nil']"), "20\t20", 'each knew its sender, before and after, threads of it do not';
    is $c->until($_, 'return t.count("answer")', 20), 20, "replies reached sender $_" for 0, 1;
    is $c->run(1, 'return ipc.sender'), 'nil', 'none is left over';

    # -- failures stay with those who fail
    $clear->();
    my $from = $c->s->log_size;
    $c->run(0, 'assert(ipc.send_worker(1, "gate", "survivor"))
        for i = 1, 10 do assert(ipc.send_worker(1, "fails", i)) assert(ipc.send_worker(1, "news", i)) end');
    is $c->until(1, 'return t.count("news")', 10), 10, 'beside handlers that fail';
    is $c->until(0, 'return ipc.stats().failed', 10), 10, 'failures are counted';
    ok $c->s->wait_log(qr/ipc handler "fails" failed: \S+: it broke: 1\n.*stack traceback/s, $from), 'and logged';
    $c->run(1, 't.open.all = true');
    is $c->until(1, 'return table.concat(t.ended)', "survivor:$pid[0]"), "survivor:$pid[0]", 'who waited goes on';
    like $c->run(0, 'return ipc.call(1, "fails", "why")'), qr/^nil\thandler failed: \S+: it broke: why$/, 'a call is told';
    is $c->run(0, 'return ipc.call(1, "none")'), "nil\tno handler for \"none\"", 'as ever';

    $from = $c->s->log_size;
    $c->run(0, 'assert(ipc.send_worker(1, "exits"))');
    ok $c->s->wait_log(qr/ngx\.exit/, $from), 'ngx.exit is logged';
    $c->run(0, 'for i = 11, 20 do assert(ipc.send_worker(1, "news", i)) end');
    is $c->until(1, 'return t.count("news")', 20), 20, 'and later messages are handled';

    # -- calls
    is $c->run(0, 'return ipc.call(1, "asks itself")'), 'me', 'a concurrent handler may call its own worker';
    is $c->run(0, 'return ipc.call(1, "cycle", 9)'), 'bottom', 'and in a circle';

    # -- more than there may be
    $clear->();
    $c->run(0, 'for i = 1, 600 do assert(ipc.send_worker(1, "gate", i)) end');
    is $c->until(1, 'return #t.began', 257), 257, '256 beside each other, and one in the place of those in order';
    is $c->run(1, 'ipc.call(0, "echo", "x") return #t.began'), 257, 'no more';
    $c->run(1, 't.open.all = true');
    is $c->until(1, 'return #t.ended', 600), 600, 'the rest follows';
    is $c->run(1, 'for i = 1, 600 do if t.began[i] ~= tostring(i) then return i end end return "in order"'), 'in order', 'in order';

    is $c->until(0, $BALANCE, 0), 0, 'every message is accounted for';
    ok $c->s->quit(15), 'quits';
    $c->s->log_is_clean(qr/ipc handler/, qr/ngx\.exit/);
}

sub memory ($transport) {
    my $c = CC::Console->start(workers => 2, init => $INIT, main => "cc_ipc_transport $transport;");
    my $rss = sub {
        $c->each('collectgarbage() collectgarbage()');
        return map { CC::Proc::slurp('/proc/' . $c->s->worker_pid($_) . '/status') =~ /VmRSS:\s+(\d+)/ } 0, 1;
    };
    for my $name ('counts', 'counts and waits') {
        $c->run(1, 't.counted = 0');
        $c->run(0, "t.push('$name', 1, 15000)");
        is $c->until(1, 'return t.counted', 15_000), 15_000, "$name: warm";
        my @warm = $rss->();
        $c->run(0, "t.push('$name', 1, 50000)");
        is $c->until(1, 'return t.counted', 65_000), 65_000, "$name: 50000 messages, none lost";
        my @after = $rss->();
        SKIP: {
            skip 'a checker of memory has some of its own', 2 if CC::Memory::on();
            cmp_ok $after[$_] - $warm[$_], '<', 8 * 1024, "$name: worker $_: memory stays" for 0, 1;
        }
    }
    ok $c->s->quit(15), 'quits';
    $c->s->log_is_clean;
}
