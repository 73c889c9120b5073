# ngx.cc.lifecycle: what happened, which events fire, in which worker, with which arguments.
use v5.36;
use Test::More;
use CC::Console;
use CC::Life qw($NOTES heard);
use CC::Wait qw(now SLOW);

my %line;

# The workers hear that line, once each, in so many seconds.
sub all_hear ($c, $line, @workers) {
    for my $id (@workers) {
        is $c->until($id, "return t.heard('$line')", 1), 1, "worker $id hears: $line";
    }
    return;
}

subtest 'start, crash of each, quit of one' => sub {
    my $c = CC::Console->start(workers => 3, init => $NOTES);
    my $s = $c->s;
    my @pid = map { $c->pid($_) } 0 .. 2;
    all_hear($c, 'start 1 start', 0 .. 2);
    for my $id (0 .. 2) {
        all_hear($c, "worker_start $id $pid[$id] start", grep { $_ != $id } 0 .. 2);
        is $c->run($id, "return t.heard('worker_start $id $pid[$id] start')"), 0, 'not of itself';
    }
    is $c->until($_, "return t.life.leader()", "0\t$pid[0]"), "0\t$pid[0]", "worker $_ knows the leader" for 0 .. 2;
    is $c->run(0, 'return t.life.reason()') =~ s/\t.*//r, 'start', 'it knows why it was started';

    # -- every signal that kills, in each worker
    for my $kill ([ 1, 'KILL', 9 ], [ 2, 'SEGV', 11 ], [ 0, 'ABRT', 6 ], [ 0, 'KILL', 9 ]) {
        my ($id, $signal, $number) = @$kill;
        my $dead = $c->pid($id);
        my $heir = $s->kill_worker($id, $signal);
        my @others = grep { $_ != $id } 0 .. 2;
        all_hear($c, "worker_crash $id $dead $number nil", @others);
        all_hear($c, "worker_start $id $heir respawn", @others);
        is $c->until($id, 'return (t.life.reason())', 'respawn'), 'respawn', 'the successor knows why';
        is $c->run($id, 'local _, info = t.life.reason() return info.predecessor, info.signal'), "$dead\t$number",
            'and after whom, and how that one ended';
        is $c->run($id, 'return t.heard("start 1 start")'), 0, 'to it, nginx does not start';
        is $c->until($_, 'local id, pid = t.life.leader() return id, pid == tonumber(' . $s->worker_pid(0) . ')', "0\ttrue"),
            "0\ttrue", 'the leader is known' for 0 .. 2;
        $pid[$id] = $heir;
    }
    my $moves = $c->run(1, 'local l = {} for _, e in ipairs(t.events) do l[#l + 1] = e:match("^leader (%d+)") end return table.concat(l, " ")');
    like $moves, qr/0 1 0/, 'the leader moved when it died, and back';
    is $c->run(1, 'return t.life.is_leader()'), 'false', 'is_leader';
    is $c->run(0, 'return t.life.is_leader()'), 'true', 'is_leader';

    # -- an exit code
    my $dead = $c->pid(1);
    $s->request(POST => $s->port(2), '/lua', body => 'os.exit(3)');
    all_hear($c, "worker_crash 1 $dead nil 3", 0, 2);
    $s->wait_for(sub { ($s->worker_pid(1) // $dead) != $dead }, 'a successor');

    # -- told to leave by its pid: not a crash
    my $goes = $c->pid(1);
    my $from = $s->log_size;
    $s->signal(QUIT => $goes);
    $s->wait_for(sub { ($s->worker_pid(1) // $goes) != $goes }, 'a successor');
    all_hear($c, "worker_exit 1 $goes stop", 0, 2);
    all_hear($c, 'worker_start 1 ' . $s->worker_pid(1) . ' return', 0, 2);
    is_deeply [ grep { /^(stop|worker_exit)/ } @{ heard($s, 1, $from) } ], [ 'stop 1 stop', "worker_exit 1 $goes stop" ],
        'it takes it for a stop';
    is $c->run(0, "return t.heard('worker_crash 1 $goes nil 0')"), 0, 'nobody takes it for a crash';
    is $c->run(0, 'local c = t.life.counters() return c.crashes.count, c.crashes_signal.count, c.crashes_code.count,
        c.respawns.count, c.returns.count, c.starts.count, c.worker_starts.count, c.worker_exits.count'),
        join("\t", 5, 4, 1, 5, 1, 1, 9, 1), 'the counters';
    ok $s->quit, 'quits';
    $s->log_is_clean(qr/exited on signal|exited with code 3/);
};

subtest 'how fast a crash is known' => sub {
    my $c = CC::Console->start(workers => 4, init => $NOTES . q{
        t.life.on("worker_crash", function() ngx.update_time() t.at = ngx.now() end)
    });
    my $s = $c->s;
    my $slowest = 0;
    for my $round (1 .. 5) {
        my $before = $c->run(0, 'ngx.update_time() return ngx.now()');
        $s->kill_worker(1 + $round % 3);
        for my $id (grep { $_ != 1 + $round % 3 } 0 .. 3) {
            my $at = $c->until($id, "return t.at and t.at >= $before and t.at", qr/^\d/);
            my $took = $at - $before;
            $slowest = $took if $took > $slowest;
        }
    }
    cmp_ok $slowest, '<', 1 * SLOW, "in under a second (the slowest: $slowest s)";
    ok $s->quit, 'quits';
};

subtest 'reload' => sub {
    my $c = CC::Console->start(workers => 2, init => $NOTES);
    my $s = $c->s;
    my @old = map { $c->pid($_) } 0, 1;
    my $from = $s->log_size;
    ok $c->reload, 'reload';
    my @new = map { $c->pid($_) } 0, 1;
    all_hear($c, 'reload 2 reload', 0, 1);
    for my $id (0, 1) {
        is $c->run($id, 'return t.heard("start 1 start")'), 0, 'not a start';
        all_hear($c, "worker_start $id $new[$id] reload", 1 - $id);
        all_hear($c, "worker_exit $_ $old[$_] reload", $id) for 0, 1;
    }
    my $both = join "\n", @{ heard($s, 0, $from) };
    is scalar(() = $both =~ /^reload 2 reload$/mg), 2, 'the old workers hear it, too';
    is scalar(() = $both =~ /^worker_exit 0 $old[0] reload$/mg), 2, 'each when it leaves itself, the others when it has left';
    unlike $both, qr/^stop|crash/m, 'neither stop nor crash';

    # -- a configuration that fails
    my $length = $s->log_size;
    ok $s->reload_fails(main => 'nonsense;'), 'a reload that fails';
    is $c->run(0, 'return t.life.counters().reloads.count'), 1, 'is not counted';
    is_deeply heard($s, 0, $length), [], 'and is no event';

    # -- a lingering worker
    my $line = $c->console(1);
    ok $c->reload(wait_old => 0), 'reload with a lingering worker';
    $line->until('return ngx.worker.exiting()', 'true');
    is $c->until(0, 'local n = 0 for _, w in ipairs(t.life.workers()) do if w.state == "retiring" then n = n + 1 end end return n', 1),
        1, 'it is shown as retiring';
    my $lingers = $line->pid;
    is $c->run(0, "return t.heard('worker_exit 1 $lingers reload')"), 0, 'it has not left';
    kill KILL => $lingers;
    all_hear($c, "worker_crash 1 $lingers 9 nil", 0, 1);
    is $c->run(0, 'return #t.life.workers()'), 2, 'a crash of one that nobody follows';
    ok $s->quit, 'quits';
    $s->log_is_clean(qr/exited on signal 9/, qr/unknown directive "nonsense"/);
};

subtest 'stop' => sub {
    my $c = CC::Console->start(workers => 2, init => $NOTES, http =>
        'exit_worker_by_lua_block { require("ngx.cc.lifecycle").exit_worker() }');
    my $s = $c->s;
    for my $how (qw(quit stop)) {
        my @pid = map { $c->pid($_) } 0, 1;
        my $from = $s->log_size;
        ok $s->$how, $how;
        for my $id (0, 1) {
            my @events = grep { /^stop|own|worker_exit $id/ } @{ heard($s, $id, $from) };
            is_deeply \@events, [ 'stop 1 stop', "worker_exit $id $pid[$id] stop" ], "$how: worker $id hears of it once";
        }
        unlike $s->error_log($from), qr/worker_crash|reload/, 'and of nothing else';
        $s->start;
    }
    # -- during a reload
    my $from = $s->log_size;
    my $line = $c->console(0);
    ok $c->reload(wait_old => 0), 'reload';
    $line->until('return ngx.worker.exiting()', 'true');
    ok $s->stop, 'stop while old workers linger';
    like $s->error_log($from), qr/life: worker 0: reload 2 reload\..*life: worker 0: worker_exit 0 \d+ reload\./s, 'the old one left for the reload';
    like $s->error_log($from), qr/life: worker 1: stop 2 stop/, 'the new ones for the stop';
    unlike $s->error_log($from), qr/crash/, 'no crash';
    # whose connection was cut
    $s->log_is_clean(qr/open socket #\d+ left|aborting/);
};

subtest 'upgrade and roll-back' => sub {
    my $c = CC::Console->start(workers => 2, init => $NOTES);
    my $s = $c->s;
    my @old = map { $c->pid($_) } 0, 1;
    my $from = $s->log_size;
    my ($old, $new) = $s->upgrade;
    is $c->until($_, 'return t.heard("start 1 upgrade")', 1), 1, "new worker $_ hears of the upgrade" for 0, 1;
    is $c->run(0, 'local c = t.life.counters() return c.starts.count, c.upgrades.count'), "0\t1", 'and counts it';
    for my $id (0, 1) {
        like $s->error_log($from), qr/life: worker $id: stop 1 upgrade\.[^\n]*\n(?:.*\n)*?.*worker_exit $id $old[$id] upgrade\./,
            "old worker $id leaves for it";
    }

    # -- both run; the new one is taken back
    my @first = $s->workers;
    $from = $s->log_size;
    my ($stays, $goes) = $s->upgrade(keep_old => 1);
    $s->signal(WINCH => $stays);
    $s->wait_for(sub { !grep { CC::Proc::alive($_) } @first }, 'the old workers to leave');
    is scalar(() = $s->error_log($from) =~ /life: worker \d: stop 1 upgrade\./g), 2, 'the old workers leave for the upgrade';
    my $back = $s->log_size;
    $s->signal(QUIT => $goes);
    $s->wait_for(sub { !CC::Proc::alive($goes) }, 'the new master to leave');
    is scalar(() = $s->error_log($back) =~ /life: worker \d: stop 1 rollback\./g), 2, 'the new ones leave for the roll-back';
    $s->wait_for(sub { 2 == grep { defined } $s->workers }, 'workers of the old binary');
    my @again = map { $c->until($_, 'return ngx.worker.pid()', qr/^\d+$/) } 0, 1;
    is $c->until($_, 'return (t.life.reason())', 'return'), 'return', "worker $_ is back" for 0, 1;
    is $c->run(0, 'return t.life.ready()'), "true\tnil", 'all are ready';
    ok $s->quit, 'quits';
    $s->log_is_clean;
};

subtest 'handlers that fail, wait, or end their light thread' => sub {
    my $c = CC::Console->start(workers => 2, init => <<'LUA');
        local life = require "ngx.cc.lifecycle"
        t.got = {}
        life.on("worker_crash", function() error("oops") end)
        life.on("worker_crash", function(id) ngx.sleep(0.05) t.got[#t.got + 1] = "a" end)
        life.on("worker_crash", function(id) t.got[#t.got + 1] = "b" if #t.got == 2 then ngx.exit(0) end end)
        life.on("worker_start", function(id) t.got[#t.got + 1] = "s" end)
        t.raised = { pcall(life.on, "nonsense", function() end) }
        t.raised2 = { pcall(life.on, "start", "x") }
        t.raised3 = { pcall(life.once, {}, function() end) }
        t.raised4 = { pcall(life.ready, "x") }
LUA
    my $s = $c->s;
    $c->until(0, 'return table.concat(t.got)', 's');
    $c->run(0, 't.got = {}');
    $s->kill_worker(1);
    is $c->until(0, 'return table.concat(t.got)', 'abs'), 'abs', 'a failing one harms none, a slow one keeps the order';
    $s->kill_worker(1);
    is $c->until(0, 'return table.concat(t.got)', 'absabs'), 'absabs', 'nor does one that ends its light thread';
    is $c->run(0, 'return t.raised[2]'), "bad argument #1 to 'on' (unknown event nonsense)", 'an unknown event raises';
    is $c->run(0, 'return t.raised2[2]'), "bad argument #2 to 'on' (function expected, got string)", 'so does no function';
    is $c->run(0, 'return t.raised3[2]'), "bad argument #1 to 'once' (string expected, got table)", 'once';
    is $c->run(0, 'return t.raised4[2]'), "bad argument #1 to 'ready' (boolean expected, got string)", 'ready';
    like $s->error_log, qr/lifecycle handler of "worker_crash" failed: .*oops.*stack traceback/s, 'the failure is in the log';
    ok $s->quit, 'quits';
    $s->log_is_clean(qr/exited on signal 9|oops/);
};

done_testing;
