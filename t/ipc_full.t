# Receivers that do not keep up: the sender is told at once, nothing that was accepted is lost, and
# it works again afterwards.
use v5.36;
use Test::More;
use CC::Console;
use CC::Memory;
use CC::Proc;
use CC::Wait qw(SLOW);

my $BALANCE = 'local s = ipc.stats() return s.sent - s.received - s.stranger - s.lost - s.queued';

for my $transport (qw(ring socket)) {
    subtest $transport => sub { fills($transport) };
}
done_testing;

sub rss ($pid) { CC::Proc::slurp("/proc/$pid/status") =~ /VmRSS:\s+(\d+)/ ? $1 : 0 }

sub fills ($transport) {
    my $c = CC::Console->start(
        workers => 3,
        main    => "cc_ipc_transport $transport; cc_ipc_queue 256k; cc_ipc_max_message 128k;",
        init    => <<'LUA');
            t.catch("news")
            t.rows = {}
            ipc.receive("row", function(data)
                if t.slow then ngx.sleep(t.slow) end
                t.rows[#t.rows + 1] = tonumber(data:match "^%d+")
            end)
            ipc.receive("blocks", function() t.wait(function() return t.go end) end)
            function t.in_order(n)
                for i = 1, n do if t.rows[i] ~= i then return "row " .. i .. " is " .. tostring(t.rows[i]) end end
                return #t.rows == n
            end
            function t.flood(to, data, most)
                local n, err = 0, nil
                while n < most do
                    local ok
                    ok, err = ipc.send_worker(to, "row", (n + 1) .. data)
                    if not ok then break end
                    n = n + 1
                end
                return n, err
            end
LUA
    my $s = $c->s;
    my @pid = map { $c->pid($_) } 0 .. 2;

    # -- a handler that blocks
    for my $case ([ small => '', 1_000_000 ], [ large => 'x' x 100_000, 1000 ]) {
        my ($size, $pad, $most) = @$case;
        $c->each('t.rows, t.go = {}, nil t.clear()');
        $c->run(0, 'assert(ipc.send_worker(1, "blocks"))');
        my ($count, $why) = split /\t/, $c->run(0, "return t.flood(1, ('x'):rep(${\length $pad}), $most)");
        is $why, 'full', "$size: a sender is told that the queue is full";
        cmp_ok $count, '>', 1, "$size: after some messages ($count)";
        my ($queued, $bytes) = split /\t/, $c->run(0, 'local s = ipc.stats() return s.queued, s.queued_bytes');
        cmp_ok $bytes, '<=', 256 * 1024 + 128 * 1024, "$size: what waits is bounded";
        cmp_ok $queued, '>', 0, "$size: and counted";
        is $c->run(2, 'return ipc.send_worker(0, "news", 1)'), 'true', "$size: others are not harmed";
        is $c->until(0, 'return t.count("news")', 1), 1, "$size: at all";
        like $c->run(0, 'local ok, err, list = ipc.broadcast("news", ("b"):rep(100000))
            return ok, err, #list, list[1].id, list[1].err'), qr/^nil\tfull\t1\t1\tfull$/,
            "$size: a broadcast tells whom it missed";
        is $c->until(2, 'return t.count("news")', 1), 1, "$size: and reaches the others";
        cmp_ok $c->run(0, 'return ipc.stats().full'), '>', 1, "$size: refusals are counted";
        $c->run(1, 't.go = true');
        is $c->until(1, "return #t.rows", $count), $count, "$size: all that was accepted arrives";
        is $c->run(1, "return t.in_order($count)"), 'true', "$size: in order";
        is $c->until(0, 'return ipc.stats().queued', 0), 0, "$size: nothing waits any more";
        is $c->run(0, 'return ipc.stats().queued_bytes'), 0, "$size: not a byte";
        is $c->until(0, $BALANCE, 0), 0, "$size: every message is accounted for";
    }

    # -- a stopped process
    $c->each('t.rows = {}');
    $s->kill_worker(1, 'STOP');
    my ($count, $why) = split /\t/, $c->run(0, 'return t.flood(1, "", 1000000)');
    is $why, 'full', 'stopped: full';
    my ($count2) = split /\t/, $c->run(2, 'return t.flood(1, "", 1000000)');
    cmp_ok $count2, '>', 0, 'stopped: each sender has a queue of its own, or finds the line full';
    is $c->run(0, 'return ipc.send_worker(2, "news", 2)'), 'true', 'stopped: others talk on';
    is $c->until(2, 'return t.count("news") > 0', 'true'), 'true', 'stopped: and hear';
    $s->signal(CONT => $pid[1]);
    is $c->until(1, 'return #t.rows', $count + $count2), $count + $count2, 'continued: everything arrives';
    is $c->until(0, $BALANCE, 0), 0, 'continued: every message is accounted for';

    # -- a slow handler, a sender that retries, memory
    $c->each('t.rows = {}');
    $c->run(1, 't.slow = 0.0001');
    my $pusher = $c->console(0);
    my $send = sub ($n) { "local i, refused = 1, 0
        while i <= $n do
            if ipc.send_worker(1, 'row', i .. ('p'):rep(6000)) then i = i + 1
            else refused = refused + 1 ngx.sleep(0.002) end
        end return refused" };
    my $refused = $pusher->run($send->(1500));
    SKIP: {
        skip 'the sender is no faster here', 1 if SLOW > 1;
        cmp_ok $refused, '>', 0, 'slow: refused at times';
    }
    is $c->until(1, 'return #t.rows', 1500), 1500, 'slow: nothing is lost';
    is $c->run(1, 'return t.in_order(1500)'), 'true', 'slow: nothing is reordered';
    $c->run(1, 't.slow = nil t.rows = {} collectgarbage()');
    $c->run(0, 'collectgarbage()');
    my @before = map { rss($_) } @pid[0, 1];
    $pusher->run($send->(20_000));
    is $c->until(1, 'return #t.rows', 20_000), 20_000, 'fast: nothing is lost';
    is $c->run(1, 'return t.in_order(20000)'), 'true', 'fast: nothing is reordered';
    my @after = map { rss($_) } @pid[0, 1];
    SKIP: {
        skip 'a checker of memory has some of its own', 2 if CC::Memory::on();
        cmp_ok $after[$_], '<', $before[$_] + 24_000, "memory of worker $_ is bounded" for 0, 1;
    }
    $pusher->close;

    # -- oneself
    $c->run(0, 't.rows, t.go = {}, nil assert(ipc.send_worker(0, "blocks"))');
    my ($mine, $full) = split /\t/, $c->run(0, 'return t.flood(0, "", 1000000)');
    is $full, 'full', 'oneself: full';
    $c->run(0, 't.go = true');
    is $c->until(0, 'return #t.rows', $mine), $mine, 'oneself: all that was accepted arrives';
    is $c->run(0, "return t.in_order($mine)"), 'true', 'oneself: in order';
    is $c->run(0, 'return ipc.send_worker(1, "row", ("x"):rep(131073))'), "nil\tmessage too long", 'too long is not full';
    is $c->run(0, 'return ipc.send_worker(1, "row", "1" .. ("x"):rep(131071))'), 'true', 'the longest passes';
    is $c->until(0, $BALANCE, 0), 0, 'every message is accounted for';

    # -- no handler
    my $before = $c->run(0, 'return ipc.stats().unhandled');
    $c->run(0, 'for i = 1, 10 do assert(ipc.send_worker(1, "nobody", i)) end assert(ipc.send_worker(1, "news", "end"))');
    is $c->until(1, 'return t.got[#t.got]', qr/end/), "news|end|$pid[0]", 'I9 messages without a handler harm nobody';
    is $c->run(0, 'return ipc.stats().unhandled') - $before, 10, 'I9 and are counted';

    ok $s->quit, 'quits';
    $s->log_is_clean;
}
