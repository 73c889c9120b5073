# HUP to a master that has started another binary and was sent WINCH: nginx starts workers in the
# places of those that are still leaving. Those give their seats up, and nobody reads another's mail.
use v5.36;
use Test::More;
use CC::Console;
use CC::Proc;

my $BALANCE = 'local s = ipc.stats() return s.sent - s.received - s.stranger - s.lost - s.queued';
my $INIT    = <<'LUA';
    t.catch("seat", "self")
    t.life = require "ngx.cc.lifecycle"
    t.kept = 0
    assert(ipc.receive("wait", function() while not t.go do ngx.sleep(0.001) end end))
    assert(ipc.receive("kept", function() t.kept = t.kept + 1 end))
LUA

for my $transport (qw(ring socket)) {
    subtest "$transport: it gives way" => sub { comes_back($transport, 0) };
    subtest "$transport: it is stopped" => sub { comes_back($transport, 1) };
    subtest "$transport: it is killed"  => sub { comes_back($transport, 0, 1) };
}
done_testing;

sub comes_back ($transport, $stopped, $killed = 0) {
    my $c = CC::Console->start(workers => 2, http => 'cc_channel test;', main => "cc_ipc_transport $transport;", init => $INIT);
    my $s = $c->s;
    my $line  = $c->console(0);
    my $elder = $line->pid;
    my @first = $s->worker_pids;
    $line->run('assert(ipc.send_worker(1, "seat", "before")) assert(ipc.send_worker(0, "self", "before"))');
    $c->until($_, 'return #t.got', 1) for 0, 1;
    # mail that it has taken in and not handled yet
    my $kept = 12_000;
    $c->run(1, 'assert(ipc.send_worker(0, "wait", ""))');
    is $c->run(1, "local n = 0 for i = 1, $kept do if ipc.send_worker(0, 'kept', '') then n = n + 1 end if i % 500 == 0 then ngx.sleep(0.002) end end return n"),
        $kept, 'mail for it';
    my ($stays, $goes) = $s->upgrade(keep_old => 1);
    kill STOP => $elder if $stopped;
    $s->signal(WINCH => $stays);
    # the one that nothing keeps; nginx does not heed the order of two signals at once
    $s->wait_for(sub { 1 == grep { CC::Proc::alive($_) } @first }, 'worker 1 to leave');
    $s->signal(HUP => $stays);
    $s->wait_for(sub { 2 == grep { $_ != $goes && !is_one_of($_, @first) } CC::Proc::children($stays) }, 'workers in their places');
    $s->signal(QUIT => $goes);
    $s->wait_for(sub { !CC::Proc::alive($goes) }, 'the new master to leave');
    $s->wait_for(sub { $s->error_log =~ /process $elder does not give way/ }, 'it to be given up') if $stopped;

    isnt $c->pid(0), $elder, 'another one is in its place';
    is $c->run($_, 'return (t.life.reason())'), 'return', "worker $_ knows why it was started" for 0, 1;
    is $c->run($_, 'return #ipc.workers()'), 2, "worker $_ sees two" for 0, 1;
    if ($stopped) {
        is $c->run(0, "return ipc.send($elder, 'seat', 'x')"), "nil\tNo worker process with PID $elder", 'it is not sent to from its own seat';
        is $c->run(1, 'for i = 1, 100 do assert(ipc.send_worker(0, "seat", i)) end'), '', 'mail for the seat';
        is $c->until(0, 'return t.count("seat")', 100), 100, 'arrives while the old one is stopped';
        kill CONT => $elder;
        $line->until('return (ipc.send_worker(1, "seat", "x"))', 'nil');
    }
    $line->run('t.go = true');
    is $line->until('return t.kept', $kept), $kept, 'what it has taken in it handles' if $transport eq 'ring' && !$stopped;
    is $line->run('return ipc.send_worker(1, "seat", "x")'), "nil\tNo worker with id 1", 'the old one sends to nobody else';
    is $line->run('local ok, why, unsent = ipc.broadcast("self", "x") return ok, why, #unsent'), "nil\tgone\t1", 'nor to all';
    is $line->run('t.clear() return ipc.send_worker(0, "self", "y")'), 'true', 'only to itself';
    is $line->until('return t.got[#t.got]', qr{\|y\|}), "self|y|$elder", 'and hears it';
    is $c->run(1, "return ipc.send($elder, 'seat', 'x')"), "nil\tNo worker process with PID $elder", 'nobody sends to it';
    $c->run($_, 't.clear()') for 0, 1;
    for my $from (0, 1) {
        is $c->run($from, 'for i = 1, 1000 do assert(ipc.send_worker(0, "seat", i)) assert(ipc.send_worker(1, "seat", i)) end'), '', "worker $from sends";
    }
    is $c->until($_, 'return t.count("seat")', 2000), 2000, "worker $_ gets it all" for 0, 1;
    is $c->run($_, 'local next = {}
        for _, line in ipairs(t.got) do
            local i, from = line:match("^seat|(%d+)|(%d+)$")
            next[from] = (next[from] or 0) + 1
            assert(tonumber(i) == next[from])
        end return "in order"'), 'in order', "in order, at worker $_" for 0, 1;
    is $c->run(0, 'return ipc.call(1, "nobody", "x", { timeout = 5 })'), qq{nil\tno handler for "nobody"}, 'a call, and an answer';
    is $c->run(0, 'return t.life.ready()'), "true\tnil", 'all are ready';

    kill KILL => $elder if $killed;
    $line->close;
    $s->wait_for(sub { !CC::Proc::alive($elder) }, 'the old one to leave');
    is $c->run($_, 'local n = 0 for _, w in ipairs(ipc.workers()) do if w.state == "live" then n = n + 1 end end return n .. " of " .. #ipc.workers()'),
        '2 of 2', "worker $_ sees those who are there" for 0, 1;
    is $c->run(1, 'return ipc.send_worker(0, "seat", "z")'), 'true', 'they go on';
    is $c->until(0, 'return t.count("seat")', 2001), 2001, 'as if nothing had been';
    is $c->until(0, $BALANCE, 0), 0, 'every message is accounted for';
    my $heir = $s->kill_worker(0);
    is $c->until(0, 'return ngx.worker.pid()', $heir), $heir, 'a crash: the successor is there';
    is $c->run(0, 'return (t.life.reason())'), 'respawn', 'and knows of it';
    is $c->run(1, 'return #t.life.workers()'), 2, 'of the dead nothing is told any more';
    ok $s->quit, 'quits';
    $s->log_is_clean(qr/exited on signal 9/);
}

sub is_one_of ($pid, @all) { return scalar grep { $_ == $pid } @all }
