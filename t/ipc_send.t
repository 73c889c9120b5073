# Messages between workers: who gets them, in which order, whole.
use v5.36;
use Test::More;
use CC::Console;

for my $transport (qw(ring socket)) {
    subtest $transport => sub { sends($transport) };
}
done_testing;

sub sends ($transport) {
    my $c = CC::Console->start(
        workers => 3,
        main    => "cc_ipc_transport $transport;",
        init    => <<'LUA');
            t.catch("news", "")
            t.sums = {}
            ipc.receive("sum", function(data)
                t.sums[#t.sums + 1] = #data .. ":" .. ngx.md5(data)
            end)
            ipc.receive("who", function(data)
                assert(ipc.reply("news", "re:" .. data .. ":" .. ngx.worker.id()))
            end)
            ipc.receive("echo", function(data) assert(ipc.reply("sum", data)) end)
            t.from = {}
            ipc.receive("row", function(data)
                local list = t.from[ipc.sender] or {}
                t.from[ipc.sender] = list
                list[#list + 1] = tonumber(data)
            end)
LUA
    my @pid = map { $c->pid($_) } 0 .. 2;

    # -- one to one
    is $c->run(0, "return ipc.send($pid[1], 'news', 'hello')"), 'true', 'I1 send is true';
    is $c->until(1, 'return t.got[1]', qr/news/), "news|hello|$pid[0]", 'I1 the handler runs there and knows the sender';
    is $c->run(0, 'return #t.got'), 0, 'I1 and not here';
    is $c->run(2, 'return #t.got'), 0, 'I1 nor elsewhere';
    is $c->run(1, 'return ipc.sender'), 'nil', 'I1 no sender outside of a handler';
    is $c->run(0, "return ipc.send('$pid[1]', 'news', 5.5)"), 'true', 'I6 a pid as a string, a number as data';
    is $c->until(1, 'return t.got[2]', qr/news/), "news|5.5|$pid[0]", 'I6 it becomes a string';
    is $c->run(0, "return ipc.send_worker(1, 'news')"), 'true', 'send_worker';
    is $c->until(1, 'return t.got[3]', qr/news/), "news||$pid[0]", 'I6 absent data is the empty string';
    is $c->run(0, "return ipc.send($pid[1], '', 'x')"), 'true', 'I5 an empty name';
    is $c->until(1, 'return t.got[4]', qr/\S/), "|x|$pid[0]", 'I5 is a name';
    is $c->run(0, "return ipc.send_worker(3, 'news')"), "nil\tNo worker with id 3", 'a worker id that is not there';
    is $c->run(0, "return ipc.send_worker(-1, 'news')"), "nil\tNo worker with id -1", 'a negative one';
    is $c->run(0, "return ipc.send_worker(65536, 'news')"), "nil\tNo worker with id 65536", 'one that would wrap to 0';

    # -- to oneself
    $c->each('t.clear()');
    is $c->run(0, "local ok = ipc.send($pid[0], 'news', 'mine') return ok, #t.got"), "true\t0",
        'a message to oneself is queued, not run inside send()';
    is $c->until(0, 'return t.got[1]', qr/news/), "news|mine|$pid[0]", 'and runs';

    # -- reply
    $c->each('t.clear()');
    $c->run(0, "assert(ipc.send($pid[2], 'who', 'a')) assert(ipc.send($pid[0], 'who', 'b'))");
    is $c->until(0, 'table.sort(t.got) return table.concat(t.got, " ")', qr/ /),
        "news|re:a:2|$pid[2] news|re:b:0|$pid[0]", 'I3 reply goes to the sender, to oneself, too';
    like $c->raises(0, 'ipc.reply("news", "x")'), qr/Can't reply/, 'I3 outside a handler it raises';

    # -- broadcast
    $c->each('t.clear()');
    is $c->run(1, 'return ipc.broadcast("news", "all")'), 'true', 'I2 broadcast is true';
    is $c->until($_, 'return table.concat(t.got, " ")', qr/all/), "news|all|$pid[1]", "I2 worker $_ has it" for 0 .. 2;
    $c->run(1, 'for i = 1, 200 do assert(ipc.broadcast("news", "b" .. i)) end');
    $c->until($_, 'return t.count("news")', 201) for 0 .. 2;
    is_deeply [ $c->each('local ok = true
        for i = 1, 200 do ok = ok and t.got[i + 1] == "news|b" .. i .. "|' . $pid[1] . '" end
        return ok, #t.got') ], [ ("true\t201") x 3 ], 'I2 each has each once, in order';

    # -- pids
    is $c->run(0, 'local p = ipc.get_other_worker_pids() table.sort(p) return unpack(p)'),
        join("\t", sort { $a <=> $b } @pid[1, 2]), 'I10 the other pids';
    my $master = $c->s->master_pid;
    for my $pid (1, -1, 999999, $master, 0, '2^31', '2^32 + ' . $pid[1], "$pid[1] + 0.5", '0/0', 'math.huge', "'abc'") {
        my $shown = $c->run(0, "local pid = $pid return tostring(pid)");
        if ($pid eq "'abc'") {
            like $c->raises(0, "ipc.send($pid, 'news')"), qr/bad argument #1 to 'send' \(number expected, got string\)/,
                'I4 a word is no pid';
            next;
        }
        is $c->run(0, "return ipc.send($pid, 'news')"), "nil\tNo worker process with PID $shown", "I4 pid $pid is refused";
    }

    # -- lengths
    my $n = 0;
    my @sizes = (0, 1, 4000 .. 4004, 4093 .. 4097, 8192, 32767 .. 32769, 65535 .. 65537, 1 << 20, 10 << 20, 16 << 20);
    my $make = 'local function make(n) local p = {} for i = 0, 255 do p[i] = string.char(i) end
        local s = table.concat(p, "", 0, 255) return (s .. "\0\r\n\255"):rep(math.ceil(n / 260)):sub(1, n) end ';
    for my $size (@sizes) {
        my $got = $c->run(0, "$make local data = make($size)
            t.sums = {}
            assert(ipc.send($pid[1], 'echo', data))
            t.wait(function() return t.sums[1] end)
            return t.sums[1] == #data .. ':' .. ngx.md5(data)");
        is $got, 'true', "I7 $size bytes there and back";
    }
    is $c->run(0, "$make local data = make(" . (16 << 20) . ") t.sums = {}
        assert(ipc.send($pid[0], 'echo', data)) t.wait(function() return t.sums[1] end)
        return t.sums[1] == #data .. ':' .. ngx.md5(data)"), 'true', 'I7 16 MiB to oneself';
    for my $to ("send($pid[1]", "send($pid[0]", 'send_worker(2') {
        is $c->run(0, "return ipc.$to, 'sum', ('x'):rep(" . ((16 << 20) + 1) . '))'), "nil\tmessage too long",
            "I7 one byte more: $to)";
    }
    like $c->run(0, "return ipc.broadcast('sum', ('x'):rep(" . ((16 << 20) + 1) . '))'),
        qr/^nil\tmessage too long/, 'I7 one byte more: broadcast';

    # -- many, from several
    $c->each('t.from = {}');
    my @line = map { $c->console($_) } 0 .. 2;
    $_->ask("for i = 1, 20000 do
            local ok, err
            repeat ok, err = ipc.send($pid[1], 'row', i)
                if not ok then assert(err == 'full') ngx.sleep(0.001) end
            until ok
            if i % 1000 == 0 then ngx.sleep(0.001) end
        end") for @line;
    $_->answer for @line;
    $_->close for @line;
    $c->until(1, 'local n = 0 for _, l in pairs(t.from) do n = n + #l end return n', 60000);
    is $c->run(1, "local ok = true
        for _, pid in ipairs { $pid[0], $pid[1], $pid[2] } do
            for i = 1, 20000 do ok = ok and t.from[pid][i] == i end
        end
        return ok"), 'true', 'I8 20000 from each of three, none lost, in order';

    # -- every kind of name
    is $c->run(0, "local name = ('n'):rep(254) t.seen = nil
        ipc.receive(name, function(data) t.seen = data end)
        assert(ipc.send($pid[0], name, 'long'))
        t.wait(function() return t.seen end)
        ipc.receive(name, nil) return t.seen"), 'long', 'I5 254 bytes are a name';
    $c->run(1, 'ipc.receive("a\0b\n", function(data) t.seen = data end)');
    $c->run(0, "assert(ipc.send($pid[1], 'a\\0b\\n', 'z'))");
    is $c->until(1, 'return t.seen', 'z'), 'z', 'any bytes are a name';

    # -- counters
    is $c->until(0, 'local s = ipc.stats() return s.sent - s.received - s.stranger - s.lost - s.queued, s.failed', "0\t0"),
        "0\t0", 'everything sent was received';
    ok $c->s->quit, 'quits';
    $c->s->log_is_clean;
}
