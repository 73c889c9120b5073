# Workers that are killed: what was meant for the process dies with it, what was meant for the
# worker waits for its successor, and nobody else is harmed.
use v5.36;
use Test::More;
use CC::Console;

my $BALANCE = 'local s = ipc.stats() return s.sent - s.received - s.stranger - s.lost - s.queued';

for my $transport (qw(ring socket)) {
    subtest $transport => sub { crashes($transport) };
}
done_testing;

sub crashes ($transport) {
    my $c = CC::Console->start(
        workers => 3,
        main    => "cc_ipc_transport $transport;",
        init    => <<'LUA');
            t.catch("seat", "process", "all", "live")
            t.long = {}
            ipc.receive("long", function(data) t.long[#t.long + 1] = #data .. ":" .. ngx.md5(data) end)
            local ffi = require "ffi"
            ffi.cdef "int kill(int pid, int sig);"
            ipc.receive("dies", function() t.dying = true ffi.C.kill(ngx.worker.pid(), 9) end)
LUA
    my $s = $c->s;
    my @pid = map { $c->pid($_) } 0 .. 2;

    # -- stopped, written to, killed
    $s->kill_worker(1, 'STOP');
    is $c->run(0, "for i = 1, 50 do
            assert(ipc.send_worker(1, 'seat', i))
            assert(ipc.send($pid[1], 'process', i))
        end return true"), 'true', 'mail for a stopped worker is accepted';
    is $c->run(2, 'for i = 1, 5 do assert(ipc.broadcast("all", i)) end return true'), 'true', 'a broadcast, too';
    $c->until(0, 'return t.count("all")', 5);
    is $c->run(0, 'return t.count("all")'), 5, 'the others get it';
    my $heir = $s->kill_worker(1);
    isnt $heir, $pid[1], 'a successor';
    is $c->until(1, 'return t.count("seat") + t.count("all")', 55), 55, 'gets the mail for the worker id';
    is $c->run(1, 'return t.count("process")'), 0, 'and none that was for the process';
    is $c->run(1, "local n = 0
        for _, line in ipairs(t.got) do
            local i = line:match('^seat|(%d+)|$pid[0]')
            if i then assert(tonumber(i) == n + 1) n = n + 1 end
        end return n"), 50, 'in order';
    is $c->run(0, "return ipc.send($pid[1], 'process', 'x')"), "nil\tNo worker process with PID $pid[1]",
        'I11 the old pid is refused';
    is $c->run(0, "return ipc.send($heir, 'process', 'x')"), 'true', 'I11 the new pid is accepted';
    is $c->until(1, 'return t.got[#t.got]', qr/process/), "process|x|$pid[0]", 'I11 and reached';
    is $c->run(1, "return ipc.send($pid[0], 'live', 'back')"), 'true', 'the successor sends';
    is $c->until(0, 'return t.got[#t.got]', qr/live/), "live|back|$heir", 'and is heard';
    is $c->run(0, 'local p = ipc.get_other_worker_pids() table.sort(p) return unpack(p)'),
        join("\t", sort { $a <=> $b } $heir, $pid[2]), 'the pids are those of the living';
    is $c->until(0, $BALANCE, 0), 0, 'every message is accounted for';

    # -- a long message under way: the receiver dies
    $c->run(0, 't.clear()');
    $s->kill_worker(1, 'STOP');
    is $c->run(0, 'local d = ("y"):rep(4 * 1048576)
        for i = 1, 3 do assert(ipc.send_worker(1, "long", d)) end
        assert(ipc.send_worker(1, "seat", "after")) return ipc.stats().queued > 0'), 'true',
        'long messages are held back';
    my $heir2 = $s->kill_worker(1);
    is $c->until(1, 'return t.count("seat")', 1), 1, 'what comes behind a long message arrives';
    is $c->run(1, 'local d = ("y"):rep(4 * 1048576) local ok = #t.long > 1
        for _, sum in ipairs(t.long) do ok = ok and sum == #d .. ":" .. ngx.md5(d) end return ok'), 'true',
        'long ones arrive whole';
    is $c->until(0, $BALANCE, 0), 0, 'every message is accounted for';

    # -- a long message under way: the sender dies
    $c->each('t.clear() t.long = {}');
    $s->kill_worker(1, 'STOP');
    $c->run(2, 'assert(ipc.send_worker(1, "seat", "whole"))
        assert(ipc.send_worker(1, "long", ("z"):rep(16 * 1048576)))
        assert(ipc.send_worker(1, "seat", "never sent"))');
    $s->kill_worker(2);
    $s->signal(CONT => $heir2);
    is $c->run(2, 'assert(ipc.send_worker(1, "long", ("w"):rep(100000)))
        assert(ipc.send_worker(1, "live", "successor")) return true'), 'true', 'the successor of a killed sender sends';
    is $c->until(1, 'return t.count("live")', 1), 1, 'and is heard';
    is $c->run(1, 'return #t.long, t.long[1] == "100000:" .. ngx.md5(("w"):rep(100000)), t.got[1]:match("whole")'),
        "1\ttrue\twhole", 'half a message of the dead is not seen, whole ones are';
    is $c->until(0, $BALANCE, 0), 0, 'every message is accounted for';

    # -- a worker that is killed by its own message does not get it again
    my $now = $c->pid(1);
    $c->run(0, 'assert(ipc.send_worker(1, "dies")) assert(ipc.send_worker(1, "seat", "survivor"))');
    $s->wait_for(sub { my $pid = $s->worker_pid(1); $pid && $pid != $now }, 'a successor');
    is $c->until(1, 'return t.got[#t.got]', qr/survivor/), "seat|survivor|$pid[0]", 'the mail behind a deadly message arrives';
    is $c->run(1, 'return t.dying'), 'nil', 'the deadly one does not come again';

    # -- all of them, again and again, under load
    my @line = map { $c->console($_) } 0;
    $line[0]->ask('local until_ = ngx.now() + 30
        repeat
            ipc.broadcast("all", "x")
            ngx.sleep(0.001)
        until t.stop or ngx.now() > until_
        t.stop = nil');
    for my $round (1 .. 4) {
        $s->kill_worker($_) for 1, 2;
    }
    $c->run(0, 't.stop = true');
    $line[0]->answer;
    $line[0]->close;
    $c->each('t.clear()');
    $c->run(0, 'assert(ipc.broadcast("live", "x"))');
    is $c->until($_, 'return t.count("live")', 1), 1, "worker $_ is reached afterwards" for 0 .. 2;
    is $c->until(0, 'return #ipc.workers()', 3), 3, 'three workers in the table';
    is $c->run(0, 'for _, w in ipairs(ipc.workers()) do assert(w.state == "live" and w.generation == ipc.generation()) end return true'),
        'true', 'all live';
    is $c->until(0, "$BALANCE >= 0", 'true') , 'true', 'no message is counted twice';

    ok $s->quit, 'quits';
    $s->log_is_clean(qr/exited on signal 9/);
}
