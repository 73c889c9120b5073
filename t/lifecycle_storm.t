# Many reloads, many workers, many crashes: nothing leaks, nobody is forgotten, nobody wakes for
# nothing.
use v5.36;
use Test::More;
use CC::Console;
use CC::Life qw($NOTES);
use CC::Memory;
use CC::Proc;
use CC::Wait qw(now until_true SLOW);

# How often a process gave up the processor by itself: how often it woke, nearly.
sub switches ($pid) { CC::Proc::slurp("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m ? $1 : 0 }
sub pages ($pid) { (split ' ', CC::Proc::slurp("/proc/$pid/statm"))[1] }

subtest 'a storm of reloads' => sub {
    my $c = CC::Console->start(workers => 3, init => $NOTES . 't.life.once("job", function() end)');
    my $s = $c->s;
    ok $c->reload, 'reload' for 1 .. 2;
    my @before = (scalar(keys %{ $s->fds }), pages($s->master_pid));
    my $worker_fds = keys %{ $s->fds($s->worker_pid(0)) };
    my $start = now();
    my $reloads = 40;
    for (1 .. $reloads) {
        # ten a second, whether or not the old workers are gone
        $s->signal('HUP');
        my $till = now() + 0.1;
        until_true(sub { now() >= $till }, 1);
    }
    # several signals may be one reload; the last one is in force once the workers say so. Who has not
    # left by then still costs the master descriptors
    $s->wait_for(sub { 3 == (() = CC::Proc::children($s->master_pid)) }, 'the old ones to leave', 30);
    $s->reload($c->options);
    my $count = $c->until(0, 'local c = t.life.counters() return c.worker_starts.count - c.worker_exits.count', 3);
    is $count, 3, 'who started and did not leave is there';
    is $c->until(0, 'return #t.life.workers()', 3), 3, 'three workers';
    is $c->run(0, 'return t.life.counters().crashes.count'), 0, 'none crashed';
    cmp_ok $c->run(0, 'return t.life.counters().reloads.count'), '>=', 10, 'many reloads were in force';
    is $c->until($_, 'return t.life.ready()', "true\tnil"), "true\tnil", 'ready' for 0 .. 2;
    my @after = (scalar(keys %{ $s->fds }), pages($s->master_pid));
    # both ends of the line of each worker that had not left when the last configuration was loaded may
    # be among them
    cmp_ok $after[0], '<=', $before[0] + 6 * SLOW, 'no more descriptors in the master than before';
    $s->wait_for(sub { keys %{ $s->fds($s->worker_pid(0)) } <= $worker_fds + 1 }, 'few descriptors');
    cmp_ok scalar(keys %{ $s->fds($s->worker_pid(0)) }), '<=', $worker_fds + 1, 'and in a worker, but for this connection';
    SKIP: {
        skip 'a checker of memory has some of its own', 1 if CC::Memory::on();
        cmp_ok $after[1] - $before[1], '<', 1500, 'the master has not grown by six megabytes: ' . ($after[1] - $before[1]) . ' pages';
    }
    like $c->run(0, 'return (t.life.holder("job"))'), qr/^\d$/, 'somebody has the key';
    ok $s->quit, 'quits';
    $s->log_is_clean;
};

subtest 'a handler that does not keep up' => sub {
    plan skip_all => 'hundreds of workers take too long under a checker of memory' if CC::Memory::on();
    my $c = CC::Console->start(workers => 60, timeout => 60, init => q{
        local life = require "ngx.cc.lifecycle"
        t.crashes, t.starts = 0, 0
        life.on("worker_crash", function()
            while ngx.worker.id() == 0 and not t.go do ngx.sleep(0.01) end
            t.crashes = t.crashes + 1
        end)
        life.on("worker_start", function() t.starts = t.starts + 1 end)
        t.life = life
    });
    my $s = $c->s;
    my $killed = 0;
    while ($killed < 600) {
        my @pid = map { $s->worker_pid($_) } 1 .. 59;
        kill KILL => @pid;
        $killed += @pid;
        $s->wait_for(sub { !grep { ($s->worker_pid($_) // $pid[ $_ - 1 ]) == $pid[ $_ - 1 ] } 1 .. 59 }, 'successors');
    }
    is $c->until(0, 'return t.life.counters().crashes.count', $killed), $killed, 'all are counted';
    $c->run(0, 't.go = true');
    my $missed = $s->wait_log(qr/\[warn\].*lifecycle: (\d+) events were missed: a handler does not keep up/);
    ok $missed, 'so many wait for a handler and no more';
    is $c->until(0, 'return t.crashes + t.starts > 1000', 'true'), 'true', 'those that waited come';
    my ($count) = $s->error_log =~ /lifecycle: (\d+) events were missed/;
    cmp_ok $c->run(0, 'return t.crashes + t.starts') + $count, '>=', 2 * $killed, 'the others are counted';
    my $heard = $c->run(0, 'return t.crashes');
    kill KILL => $s->worker_pid(1);
    is $c->until(0, 'return t.crashes', $heard + 1), $heard + 1, 'and later ones come again';
    ok $s->quit(30), 'quits';
};

subtest 'sixty-four workers' => sub {
    my $s = CC::Server->new(module => 1, lua => 1, workers => 64, timeout => 60, http => q{
        init_worker_by_lua_block {
            local life = require "ngx.cc.lifecycle"
            life.on("worker_crash", function(id, pid, signal)
                ngx.log(ngx.NOTICE, "heard of ", id, " ", pid, " ", signal, ".")
            end)
        }
        server { listen 127.0.0.1:%PORT%; location / { content_by_lua_block {
            local life = require "ngx.cc.lifecycle"
            local c = life.counters()
            ngx.print(#life.workers(), " ", tostring(life.ready()), " ", c.worker_starts.count, " ", c.crashes.count)
        } } }
    })->start;
    $s->wait_for(sub { $s->get($s->port)->body eq '64 true 64 0' }, 'all to be ready');
    is $s->get($s->port)->body, '64 true 64 0', 'all are there';
    my @pid = map { $s->worker_pid($_) } 0 .. 63;
    my $from = $s->log_size;
    my $start = now();
    kill KILL => $pid[17];
    my $heard = sub ($id) { scalar(() = $s->error_log($from) =~ /heard of $id $pid[$id] 9\./g) };
    $s->wait_for(sub { $heard->(17) >= 63 }, 'all to hear');
    my $took = now() - $start;
    is $heard->(17), 63, 'all others hear of a crash, once';
    cmp_ok $took, '<', 1 * SLOW, sprintf 'within %.3f s', $took;

    # -- a dozen at once
    $s->wait_for(sub { ($s->worker_pid(17) // $pid[17]) != $pid[17] }, 'a successor');
    kill KILL => @pid[ 30 .. 41 ];
    $s->wait_for(sub { $s->get($s->port)->body eq '64 true 77 13' }, 'all to be back');
    is $s->get($s->port)->body, '64 true 77 13', 'each counted once';
    $s->wait_for(sub { $heard->(35) >= 52 }, 'the survivors to hear');
    cmp_ok $heard->(35), '>=', 52, 'the survivors hear of each';

    # -- idle: no wake-ups
    my @idle = map { $s->worker_pid($_) } 0 .. 15;
    my @woken = map { switches($_) } @idle;
    cmp_ok $woken[0], '>', 0, 'wake-ups can be counted';
    my $till = now() + 3;
    until_true(sub { now() >= $till }, 5);
    my $most = 0;
    for (0 .. $#idle) {
        my $woke = switches($idle[$_]) - $woken[$_];
        $most = $woke if $woke > $most;
    }
    # the bus keeps house once a second
    cmp_ok $most, '<=', 8, "an idle worker wakes at most $most times in three seconds";
    ok $s->quit(60), 'quits';
    $s->log_is_clean(qr/exited on signal 9|worker_connections/);
};

subtest 'crashes while reloading' => sub {
    my $c = CC::Console->start(workers => 4, init => $NOTES . 't.life.once("job", function() end)');
    my $s = $c->s;
    my $killed = 0;
    for my $round (1 .. 12) {
        $s->signal('HUP');
        my @pids = $s->worker_pids;
        kill KILL => $pids[ $round % @pids ] if @pids;
        my $till = now() + 0.05 * ($round % 4);
        until_true(sub { now() >= $till }, 1);
    }
    $s->reload($c->options);
    my $BALANCE = 'local c = t.life.counters() return c.worker_starts.count - c.worker_exits.count - c.crashes.count, #t.life.workers()';
    is $c->until(0, $BALANCE, "4\t4"), "4\t4", 'whoever started has left, has crashed, or is there';
    is $c->until($_, 'return t.life.ready()', "true\tnil"), "true\tnil", "worker $_ says all are ready" for 0 .. 3;
    cmp_ok $c->run(0, 'return t.life.counters().crashes.count'), '>=', 6, 'crashes were seen';
    $s->wait_for(sub { $c->run(1, 'return (t.life.holder("job"))') =~ /\d/ }, 'the key to be held');
    like $c->run(1, 'return (t.life.holder("job"))'), qr/^\d$/, 'somebody has the key';
    ok $s->quit, 'quits';
    $s->log_is_clean(qr/exited on signal 9/);
};

done_testing;
