# What soaks have found: each case here was a message, a worker or a descriptor that went missing.
use v5.36;
use Test::More;
use CC::Console;

my $handlers = <<'LUA';
    ipc.receive {
        ["sleeps"] = function() ngx.sleep(0.6) t.slept = true end,
        ["mute"] = function() t.asked = true t.wait(function() return t.told end) end,
        ["echo"] = function(data) return data end,
        ["asks"] = function(data) t.answer = ipc.call(1, "echo", data, { timeout = 2 }) or "none" end,
    }
    t.catch("news")
LUA

# -- mail that comes in the very turn of the event loop in which the last call runs out of time:
# the deputy that was woken for it is woken for later replies, and for the end
for my $transport (qw(ring socket)) {
    my $c = CC::Console->start(main => "cc_ipc_transport $transport;", init => $handlers);
    my ($line, $busy, $pid) = ($c->console(0), $c->console(0), $c->pid(0));
    $line->run('assert(ipc.send_worker(0, "sleeps")) ngx.sleep(0.01)');
    $line->ask('return ipc.call(1, "mute", "", { timeout = 0.2 })');
    is $c->until(1, 'return t.asked', 'true'), 'true', "$transport: a call while a handler sleeps";
    # the loop is held up by a posted event, which is the last thing in a turn, until the call's
    # time is over and mail has come
    $busy->ask('local sema, till = require "ngx.semaphore".new(), os.clock() + 0.3
        ngx.thread.spawn(function() sema:wait(1) while os.clock() < till do end end) sema:post(1)');
    $c->run(1, "assert(ipc.send($pid, 'news', 'x'))");
    is $busy->answer, '', 'the loop goes on';
    is $line->answer, "nil\ttimeout", 'it is not answered';
    $c->run(1, 't.told = true');
    $line->run('t.wait(function() return t.slept end)');
    is $line->run('assert(ipc.send_worker(0, "asks", "second")) return t.wait(function() return t.answer end)'),
        'second', 'a reply for a handler that waits for it';
    $_->close for $line, $busy;
    ok $c->reload, 'and the worker leaves when it is told to';
    ok $c->s->quit, 'quits';
    $c->s->log_is_clean;
}

# -- a full line whose receiver is killed when it has no successor any more
{
    my $c = CC::Console->start(main => 'cc_ipc_transport socket; cc_ipc_queue 2m; cc_ipc_max_message 1m;', init => $handlers);
    my ($line, $pid) = ($c->console(0), $c->pid(1));
    $c->s->kill_worker(1, 'STOP');
    is $line->run('local ok, err repeat ok, err = ipc.send_worker(1, "news", ("x"):rep(60000)) until not ok return err'),
        'full', 'a line is filled';
    kill 'HUP', $c->s->master_pid;
    # a stopped worker keeps its title, so that reload() would wait for it
    $c->s->wait_for(sub { $c->s->worker_pids == 3 }, 'the new workers');
    $line->until('return ngx.worker.exiting()', 'true');
    kill 'KILL', $pid;
    is $line->until('return ipc.stats().queued', 0), 0, 'what waited is given up';
    like $line->run('local s = ipc.stats() return s.lost'), qr/^[1-9]/, 'and counted';
    is $line->run('return ipc.send_worker(1, "news")'), "nil\tNo worker with id 1", 'nobody is there';
    $line->close;
    ok $c->s->wait_for(sub { !$c->s->retiring_pids }, 'the old worker to leave'), 'the sender leaves';
    ok $c->s->quit, 'quits';
    $c->s->log_is_clean(qr/exited on signal 9/);
}

# -- what is left unread when a generation ends: by one who was killed and has no successor, and what
# a killed sender held back
for my $transport (qw(ring socket)) {
    my $c = CC::Console->start(main => "cc_ipc_transport $transport; cc_ipc_queue 2m; cc_ipc_max_message 1m;",
        workers => 3, init => $handlers);
    my @line = map { $c->console($_) } 0 .. 2;
    $c->s->kill_worker($_, 'STOP') for 1;
    $line[0]->run('for i = 1, 10 do assert(ipc.send_worker(1, "news", i)) end');
    $line[2]->run('repeat until not ipc.send_worker(1, "news", ("x"):rep(60000))');
    kill 'HUP', $c->s->master_pid;
    $c->s->wait_for(sub { $c->s->worker_pids == 4 }, 'the new workers');
    $_->until('return ngx.worker.exiting()', 'true') for @line[0, 2];
    kill 'KILL', $line[1]->pid, $line[2]->pid;
    $c->s->wait_for(sub { $c->s->retiring_pids == 1 && $c->s->worker_pids == 3 }, 'the deaths');
    $_->close for @line;
    ok $c->s->wait_for(sub { !$c->s->retiring_pids }, 'the last old worker to leave'), "$transport: the last of a generation leaves";
    is $c->until(0, 'local s = ipc.stats() return s.sent - s.received - s.stranger - s.lost', 0), 0, 'each message is counted';
    is $c->run(0, 'return #ipc.workers()'), 3, 'the table has the living';
    ok $c->s->quit, 'quits';
    $c->s->log_is_clean(qr/exited on signal 9/);
}

# -- a whole generation is killed: those of the next one count what it has not read, from each other
# and from newer ones. A long message is one, whole or not
for my $transport (qw(ring socket)) {
    my $c = CC::Console->start(main => "cc_ipc_transport $transport; cc_ipc_queue 8m; cc_ipc_max_message 1m;",
        workers => 3, init => $handlers);
    my @line = map { $c->console($_) } 0 .. 2;
    my @pid  = map { $_->pid } @line;
    $c->s->kill_worker(1, 'STOP');
    $line[0]->run(qq{for i = 1, 10 do assert(ipc.send_worker(1, "news", i)) end
        for i = 1, 5 do assert(ipc.send($pid[1], "news", i)) end});
    $line[2]->run('for i = 1, 3 do assert(ipc.send_worker(1, "news", ("x"):rep(1000000))) end');
    kill 'HUP', $c->s->master_pid;
    $c->s->wait_for(sub { $c->s->worker_pids == 6 }, 'the new workers');
    $_->until('return ngx.worker.exiting()', 'true') for @line[0, 2];
    is $c->until(0, "return ipc.send($pid[1], 'news', 'from a newer one')", 'true'), 'true', "$transport: a newer worker sends, too";
    my $sent = $c->run(0, 'return ipc.stats().sent');
    kill 'KILL', @pid;
    $c->s->wait_for(sub { $c->s->worker_pids == 3 }, 'the deaths');
    $_->close for @line;
    is $c->until(0, 'local s = ipc.stats() return s.sent - s.received - s.stranger - s.lost', 0), 0, 'each message is counted';
    is $c->run(0, 'local s = ipc.stats() return s.lost'), 19, 'as lost';
    is $c->run(1, "return ipc.send($pid[1], 'news', 'x')"), "nil\tNo worker process with PID $pid[1]", 'nobody is there';
    # what was held for them is given back: a second reload begins as if there had been none
    ok $c->reload, 'a reload';
    is $c->run(0, 'assert(ipc.broadcast("news", "x")) local s = ipc.stats() return s.lost'), 19, 'nothing is counted twice';
    ok $c->s->quit, 'quits';
    $c->s->log_is_clean(qr/exited on signal 9/);
}
done_testing;
