# Messages over reloads: a message goes to the sender's own generation and to newer ones; what is
# addressed to a process reaches it as long as it lives.
use v5.36;
use Test::More;
use CC::Console;
use CC::Wait qw(SLOW);

my $BALANCE = 'local s = ipc.stats() return s.sent - s.received - s.stranger - s.lost - s.queued';
my $INIT = <<'LUA';
    t.catch("news", "late", "own", "answer", "fin")
    ipc.receive("ask", function(data) t.answered, t.why = ipc.reply("answer", data .. " from " .. ipc.generation()) end)
    ipc.receive("big", function(data) t.big = ngx.md5(data) end)
LUA

for my $transport (qw(ring socket)) {
    subtest $transport => sub { reloads($transport) };
}
subtest 'a zone of another size' => \&zone;
subtest 'the module goes and comes' => \&module;
subtest 'a failed reload' => \&failed;
subtest 'last words' => \&last_words;
subtest 'deaths during a reload' => \&deaths;
done_testing;

sub reloads ($transport) {
    my $c = CC::Console->start(workers => 2, init => $INIT, main => "cc_ipc_transport $transport;");
    my $s = $c->s;
    is $c->run(0, 'return ipc.generation()'), 1, 'generation 1';

    # -- nobody lingers
    my @first = map { $c->pid($_) } 0, 1;
    ok $c->reload, 'reload';
    is $c->run(0, 'return ipc.generation()'), 2, 'generation 2';
    is $c->run(0, 'return ipc.broadcast("news", "two")'), 'true', 'I12 broadcast after a reload';
    is $c->until($_, 'return t.count("news")', 1), 1, "I12 worker $_ has it" for 0, 1;
    is $c->run(0, "return ipc.send($first[0], 'news')"), "nil\tNo worker process with PID $first[0]", 'an old pid is refused';
    is $c->run(0, 'return #ipc.workers(), #ipc.get_other_worker_pids()'), "2\t1", 'the table holds the new workers';

    # -- an old worker that stays
    my $old = $c->console(1);
    my $other_old = $c->console(0);
    my $pid = $old->pid;
    ok $c->reload(wait_old => 0), 'reload with a lingering worker';
    $old->until('return ngx.worker.exiting()', 'true');
    $old->run('t.clear()');
    is $c->run(0, 'return ipc.broadcast("news", "three")'), 'true', 'I12 a new worker broadcasts';
    is $c->until($_, 'return t.count("news")', 1), 1, "I12 new worker $_ has it" for 0, 1;
    is $old->run('return ipc.broadcast("late", "bye")'), 'true', 'a retiring worker broadcasts';
    for (0, 1) {
        is $c->until($_, 'return t.count("late")', 1), 1, "new worker $_ hears it";
        is $c->run($_, 'return t.got[#t.got]'), "late|bye|$pid", "from it";
    }
    is $old->until('return t.count("late")', 1), 1, 'it hears itself';
    is $other_old->until('return t.count("late")', 1), 1, 'so does its retiring colleague';
    is $old->run('return t.count("news")'), 0, 'I12 but nothing that new workers broadcast';
    is $old->run('return ipc.broadcast("own", "x", { generation = "own" })'), 'true', '{ generation = "own" }';
    is $old->until('return t.count("own")', 1), 1, 'is heard by itself';
    is $other_old->until('return t.count("own")', 1), 1, 'and its colleague';
    is $old->run('return ipc.broadcast("fin", "x")'), 'true', 'a message behind it';
    for (0, 1) {
        is $c->until($_, 'return t.count("fin")', 1), 1, "arrives in new worker $_";
        is $c->run($_, 'return t.count("own")'), 0, 'where the other did not';
    }

    # -- by pid, across
    my $new = $c->pid(0);
    is $old->run("return ipc.send($new, 'ask', 'old')"), 'true', 'an old worker writes to a new one by pid';
    is $old->until('return t.got[#t.got]', qr/answer/), "answer|old from 3|$new", 'and is answered';
    is $c->run(0, 'return t.answered, t.why'), "true\tnil", 'reply was true';
    is $c->run(0, "return ipc.send($pid, 'ask', 'new')"), 'true', 'a new worker writes to a retiring one by pid';
    is $c->until(0, 'return t.got[#t.got]', qr/answer/), "answer|new from 2|$pid", 'and is answered';
    is $old->run("return ipc.send(${\$other_old->pid}, 'ask', 'colleague')"), 'true', 'old to old';
    is $old->until('return t.got[#t.got]', qr/colleague/), 'answer|colleague from 2|' . $other_old->pid, 'is answered';
    my $sum = $old->run("assert(ipc.send($new, 'big', ('q'):rep(8 * 1048576))) return ngx.md5(('q'):rep(8 * 1048576))");
    is $c->until(0, 'return t.big', $sum), $sum, 'long messages pass between generations';
    is $c->run(0, 'local n = 0 for _, w in ipairs(ipc.workers()) do
        if w.state == "retiring" then n = n + 1 assert(w.generation == 2) end end return n, #ipc.workers()'),
        "2\t4", 'the table shows who is retiring';
    is $c->run(0, 'return #ipc.get_other_worker_pids()'), 1, 'get_other_worker_pids does not';

    # -- one of the old ones goes: the other one misses nothing
    my $gone = $other_old->pid;
    $other_old->close;
    $s->wait_for(sub { !CC::Proc::alive($gone) }, 'an old worker to leave');
    is $old->run('return ipc.broadcast("fin", "alone")'), 'true', 'a broadcast does not complain of those who left';
    is $c->until($_, 'return t.got[#t.got]', qr/alone/), "fin|alone|$pid", "new worker $_ has it" for 0, 1;
    like $old->run("return ipc.send($gone, 'fin')"), qr/^nil\tNo worker process with PID $gone/, 'by pid it is told';
    like $old->run('return ipc.send_worker(0, "fin")'), qr/^nil\tNo worker with id 0/, 'by worker id, too';

    # -- several reloads, a lingering worker of each
    my @lingering = ($old);
    for my $generation (4 .. 6) {
        push @lingering, $c->console($generation % 2);
        ok $c->reload(wait_old => 0), "reload to generation $generation";
    }
    $lingering[-1]->until('return ngx.worker.exiting()', 'true');
    $_->run('t.clear()') for @lingering;
    $c->each('t.clear()');
    for my $i (0 .. $#lingering) {
        is $lingering[$i]->run("return ipc.broadcast('news', 'from $i')"), 'true', "lingering worker $i broadcasts";
    }
    for (0, 1) {
        is $c->until($_, 'return t.count("news")', 4), 4, "newest worker $_ hears all of them";
    }
    for my $i (0 .. $#lingering) {
        is $lingering[$i]->until('return t.count("news")', $i + 1), $i + 1, "lingering worker $i hears those that are not newer";
    }
    is $c->run(1, 'return ipc.broadcast("fin", "x")'), 'true', 'the newest broadcast';
    $c->until(0, 'return t.count("fin")', 1);
    $_->run('ipc.send(ngx.worker.pid(), "own", "x")'), $_->until('return t.count("own")', 1) for @lingering;
    is join(' ', map { $_->run('return t.count("fin")') } @lingering), '0 0 0 0', 'no older worker hears it';

    # -- a new worker dies while old ones linger
    $s->kill_worker(0);
    is $lingering[1]->run('return ipc.broadcast("late", "heir")'), 'true', 'an old worker broadcasts after a crash';
    is $c->until($_, 'return t.count("late")', 1), 1, "new worker $_ hears it" for 0, 1;

    # -- an old worker goes at once when its last request is over
    $_->close for @lingering;
    ok $s->wait_for(sub { !$s->retiring_pids }, 'old workers to leave'), 'lingering workers leave';
    is $c->until(0, 'return #ipc.workers()', 2), 2, 'and the table';
    is $c->until(0, $BALANCE, 0), 0, 'every message is accounted for';

    # -- more and fewer workers
    for my $workers (4, 8, 2, 1, 3) {
        ok $c->reload(workers => $workers), "reload to $workers workers";
        is $c->run($workers - 1, 'return ipc.broadcast("news", "count")'), 'true', "$workers: broadcast";
        $c->until($_, 'return t.count("news")', 1) for 0 .. $workers - 1;
        is_deeply [ $c->each('return t.count("news")') ], [ (1) x $workers ], "$workers: each has it once";
    }
    ok $s->quit, 'quits';
    $s->log_is_clean(qr/exited on signal 9/);
}

sub zone {
    my $c = CC::Console->start(init => $INIT, main => 'cc_zone 2m;');
    my $old = $c->console(0);
    my $from = $c->s->log_size;
    ok $c->reload(main => 'cc_zone 3m;', wait_old => 0), 'reload';
    ok $c->s->wait_log(qr/\[notice\].*cc: shared zone is new: old workers and new ones do not see each other/, $from), 'is told';
    is $c->run(0, 'return ipc.generation(), #ipc.workers()'), "1\t2", 'generations begin anew';
    is $old->run('return ipc.broadcast("news", "old")'), 'true', 'an old worker broadcasts';
    $old->until('return t.count("news")', 1);
    is $c->run(0, 'return ipc.broadcast("news", "new")'), 'true', 'a new one broadcasts';
    is $c->until($_, 'return table.concat(t.got)', qr/new/), 'news|new|' . $c->pid(0), "new worker $_ has that one only" for 0, 1;
    is $old->run('return t.count("news")'), 1, 'the old one has its own only';
    is $old->run("return ipc.send(${\$c->pid(0)}, 'news')"), "nil\tNo worker process with PID " . $c->pid(0), 'nor by pid';
    $old->close;
    ok $c->s->quit, 'quits';
    $c->s->log_is_clean;
}

sub module {
    my $c = CC::Console->start(init => $INIT);
    my $s = $c->s;
    my $fds = keys %{ $s->fds };
    for my $round (1, 2) {
        ok $s->reload(module => 0, main => '', http => 'server { listen 127.0.0.1:%PORT%; return 200 "plain"; }'), 'reload without the module';
        is $s->get($s->port)->body, 'plain', 'serves';
        ok $s->reload($c->options(module => 1, main => '')), 'reload with it';
        is $c->run(0, 'return ipc.broadcast("news", "x")'), 'true', 'broadcast';
        is $c->until($_, 'return t.count("news")', 1), 1, "worker $_ has it" for 0, 1;
        is $c->run(0, 'return ipc.generation()'), 1, 'generation 1';
    }
    cmp_ok keys %{ $s->fds }, '<=', $fds + 1, 'the master keeps no descriptors of it';
    ok $s->quit, 'quits';
    $s->log_is_clean;
}

sub failed {
    my $c = CC::Console->start(init => $INIT);
    my $s = $c->s;
    my $fds = keys %{ $s->fds };
    my $pid = $c->pid(1);
    for my $bad (
        [ $c->options(main => 'cc_zone 4k;') ],
        [ $c->options(main => 'cc_ipc_queue 1k;') ],
        [ $c->options(http => 'bogus;') ],
        # fails late, after everything of ours was made
        [ $c->options(http => 'lua_shared_dict d 1m; server { listen 192.0.2.1:80; }') ],
    ) {
        ok $s->reload_fails(@$bad), 'refused';
        is $c->run(0, 'return ipc.generation()'), 1, 'no generation was counted';
        is $c->run(0, 't.clear() return ipc.broadcast("news", "on")'), 'true', 'the workers talk on';
        is $c->until(0, 'return t.count("news")', 1), 1, 'and hear';
    }
    is $c->pid(1), $pid, 'they are the same';
    is scalar(keys %{ $s->fds }), $fds, 'no descriptor was left';
    @$c{qw(init server http)} = ($INIT, '', '');
    ok $c->reload(main => ''), 'a good reload';
    is $c->run(0, 'return ipc.generation()'), 2, 'counts';
    ok $s->quit, 'quits';
    $s->log_is_clean(qr/\[emerg\]/);
}

# Old and new workers killed while the master is between the two.
sub deaths {
    my $c = CC::Console->start(init => $INIT);
    my $s = $c->s;
    my $master = $s->master_pid;
    for my $round (1 .. 4) {
        my @old = $s->worker_pids;
        $s->signal('HUP');
        my $young = $s->wait_for(sub {
            my ($new) = grep { my $pid = $_; !grep { $_ == $pid } @old } CC::Proc::children($master);
            return $new;
        }, 'a new worker');
        kill KILL => $round % 2 ? $old[0] : $young;
        $s->wait_for(sub { $s->is_complete && !grep { CC::Proc::alive($_) } @old, $round % 2 ? () : $young },
            'the new workers to be alone');
        is $c->run(0, 'return ipc.broadcast("news", "x")'), 'true', "round $round: broadcast";
        is $c->until($_, 'return t.count("news")', 1), 1, "round $round: worker $_ hears it" for 0, 1;
        is join(' ', sort $c->run(1, 'local l = {}
            for _, w in ipairs(ipc.workers()) do l[#l + 1] = w.id .. w.state .. w.generation end
            table.sort(l) return unpack(l)')), join("\t", map { $_ . 'live' . ($round + 1) } 0, 1), "round $round: the table is right";
    }
    ok $s->quit, 'quits';
    $s->log_is_clean(qr/exited on signal 9/);
}

# What a worker says in its last moments.
sub last_words {
    my $c = CC::Console->start(
        init   => $INIT,
        http   => 'lua_shared_dict d 1m; exit_worker_by_lua_block {
            local ipc = require "ngx.ipc"
            ngx.shared.d:set("exit", tostring(ipc.broadcast("late", "exit " .. ngx.worker.id()))) }',
    );
    my $s = $c->s;
    my @line = map { $c->console($_) } 0, 1;
    my @pid = map { $_->pid } @line;
    ok $c->reload(wait_old => 0), 'reload';
    $_->until('return ngx.worker.exiting()', 'true') for @line;
    # the last message, and at once the end of the last request
    # (more than a ring holds, and what can be said in the moment that a leaving worker has)
    my $size = int 1048576 / SLOW;
    $line[0]->run("for i = 1, 3 do assert(ipc.broadcast('news', ('m'):rep($size))) end");
    $_->close for @line;
    for my $id (0, 1) {
        is $c->until($id, 'return t.count("news")', 3), 3, "worker $id hears what a worker said before it left";
        is $c->until($id, 'return t.count("late")', 2), 2, "worker $id hears both exit_worker_by_lua";
    }
    is $c->run(0, 'return ngx.shared.d:get("exit")'), 'true', 'broadcast was true there';
    ok $s->quit, 'quits';
    $s->log_is_clean;
}
