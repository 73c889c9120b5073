# How a server with the bus starts, runs and ends: no process waits for it, nothing of it stays
# behind, the error log has nothing to say.
use v5.36;
use Test::More;
use CC::Console;
use CC::Proc;
use CC::Wait qw(now);

my $INIT = 't.catch("news") ipc.receive("slow", function(data) ngx.sleep(tonumber(data)) t.got[#t.got + 1] = "slow|" end)
    -- outlasts worker_shutdown_timeout
    ipc.receive("blocks", function()
        local left = 40
        repeat
            ngx.sleep(0.01)
            if ngx.worker.exiting() then left = left - 1 end
        until left == 0
    end)';

# nginx's own timers of a minute and the like must not be what ends it
my $PROMPT = 15;

subtest 'quit' => sub {
    my $c = CC::Console->start(workers => 4, init => $INIT);
    ok $c->s->quit($PROMPT), 'at once, receivers or not';
    $c->s->log_is_clean;

    $c->s->start;
    $c->run(0, 'for i = 1, 500 do assert(ipc.broadcast("news", i)) end');
    ok $c->s->quit($PROMPT), 'after traffic';
    $c->s->log_is_clean;

    $c->s->start;
    $c->run(0, 'for id = 0, 3 do assert(ipc.send_worker(id, "slow", 0.3)) assert(ipc.send_worker(id, "news", "end")) end');
    ok $c->s->quit($PROMPT), 'with handlers at work';
    unlike $c->s->error_log, qr/messages? (?:was|were) lost/, 'which finish, and the mail behind them is handled';
    $c->s->log_is_clean;

    $c->s->start;
    ok $c->s->stop($PROMPT), 'stop';
    $c->s->log_is_clean;
};

subtest 'all mail is handled before a worker leaves' => sub {
    my $c = CC::Console->start(workers => 2, http => 'lua_shared_dict d 1m;', init => <<'LUA');
        local d = ngx.shared.d
        ipc.receive("count", function() d:incr("count", 1, 0) end)
        ipc.receive("blocks", function() t.wait(function() return d:get("go") end) end)
LUA
    my $line = $c->console(0);
    $line->run('assert(ipc.send_worker(1, "blocks")) for i = 1, 20000 do assert(ipc.send_worker(1, "count")) end');
    ok $c->reload(wait_old => 0), 'reload with a full mailbox';
    $line->until('return ngx.worker.exiting()', 'true');
    $line->run('ngx.shared.d:set("go", true)');
    $line->close;
    ok $c->s->wait_for(sub { !$c->s->retiring_pids }, 'old workers to leave'), 'old workers leave';
    is $c->run(0, 'return ngx.shared.d:get("count")'), 20000, 'and have handled everything';
    ok $c->s->quit($PROMPT), 'quit';
    $c->s->log_is_clean;
};

subtest 'worker_shutdown_timeout' => sub {
    for my $transport (qw(ring socket)) {
        my $c = CC::Console->start(workers => 3, init => $INIT,
            main => "worker_shutdown_timeout 100ms; cc_ipc_transport $transport; cc_ipc_queue 2m; cc_ipc_max_message 1m;");
        my $s = $c->s;
        # receivers registered, handlers that never return, mail queued on both sides
        my @line = map { $c->console($_) } 0 .. 2;
        $_->run('for id = 0, 2 do assert(ipc.send_worker(id, "blocks"))
            for i = 1, 20 do ipc.send_worker(id, "news", ("x"):rep(200000)) end end') for @line;
        my $from = $s->log_size;
        ok $c->reload, "$transport: old workers go";
        unlike $s->error_log($from), qr/exited on signal/, "$transport: and do not crash";
        is $c->run(0, 'return ipc.broadcast("news", "x")'), 'true', "$transport: the new ones talk";
        is $c->until($_, 'return t.count("news")', 1), 1, "$transport: worker $_ hears" for 0 .. 2;
        $_->run('for id = 0, 2 do assert(ipc.send_worker(id, "blocks"))
            for i = 1, 20 do ipc.send_worker(id, "news", ("x"):rep(200000)) end end')
            for map { $c->console($_) } 0 .. 2;
        ok $s->quit($PROMPT), "$transport: quit";
        $s->log_is_clean;
    }
};

subtest 'nothing grows' => sub {
    my $c = CC::Console->start(workers => 2, init => $INIT);
    my $s = $c->s;
    my $count = sub { scalar keys %{ $s->fds(@_) } };
    my @fds = map { $count->($_) } $s->master_pid, $s->worker_pids;
    # lines to workers that were about to leave are kept for a moment; growth is more than that
    my $no_more = sub ($what) {
        ok $s->wait_for(sub {
            my @now = map { $count->($_) } $s->master_pid, $s->worker_pids;
            return !grep { $now[$_] > $fds[$_] + 4 } 0 .. 2;
        }, 'descriptors to go'), "descriptors over $what";
    };
    for (1 .. 10) {
        my $line = $c->console(0);
        $c->reload(wait_old => 0) or fail 'reload';
        $line->run('assert(ipc.broadcast("news", "old"))');
        $line->close;
        $s->wait_for(sub { !$s->retiring_pids }, 'old workers to leave');
    }
    $no_more->('reloads');
    for (1 .. 10) { $s->kill_worker($_ % 2) }
    $c->each('assert(ipc.broadcast("news", "x"))');
    $c->until($_, 'return t.count("news") >= 2', 'true') for 0, 1;
    $no_more->('deaths');
    my $lingering = $c->console(1);
    $c->reload(wait_old => 0);
    $lingering->run('assert(ipc.broadcast("news", "old"))');
    $c->until(0, 'return t.count("news")', 1);
    my $before = $count->($lingering->pid);
    for (1 .. 3) {
        $c->reload(wait_old => 0);
        $lingering->run('assert(ipc.broadcast("news", "old"))');
        $c->until(0, 'return t.count("news")', 1);
    }
    ok $s->wait_for(sub { $count->($lingering->pid) <= $before + 2 }, 'descriptors to go'),
        'one that lingers over reloads does not collect descriptors';
    $lingering->close;
    ok $s->quit($PROMPT), 'quit';
    $s->log_is_clean(qr/exited on signal 9/);
};

subtest 'binary upgrade' => sub {
    my $c = CC::Console->start(workers => 2, init => $INIT);
    my $s = $c->s;
    my $talk = sub ($what) {
        for my $id (0, 1) {
            $c->run($id, "t.clear() assert(ipc.send(ngx.worker.pid(), 'news', 'mark'))");
            $c->until($id, 'return t.count("news") > 0', 'true');
        }
        is $c->run(0, 'return ipc.broadcast("news", "all")'), 'true', "$what: broadcast";
        is $c->until($_, 'return t.got[#t.got]', qr/all/), 'news|all|' . $c->pid(0), "$what: worker $_ hears" for 0, 1;
    };
    my $line = $c->console(0);
    $line->ask('local n = 0 while not t.stop do assert(ipc.broadcast("flow", "x")) n = n + 1 ngx.sleep(0.001) end return n');
    my ($old, $new) = $s->upgrade(keep_old => 1);
    isnt $old, $new, 'two masters';
    $s->signal(QUIT => $new);
    ok $s->wait_for(sub { $s->master_pid == $old }, 'the old master to be alone'), 'rolled back';
    $talk->('rolled back');
    $c->run(0, 't.stop = true');
    cmp_ok $line->answer, '>', 1, 'messages flowed all the time';
    $line->close;
    ($old, $new) = $s->upgrade;
    is $s->master_pid, $new, 'upgraded';
    $talk->('upgraded');
    is $c->run(0, 'return ipc.generation(), #ipc.workers()'), "1\t2", 'the new binary starts with generation 1';
    ok $c->reload, 'reload';
    $talk->('reloaded');
    ok $s->quit($PROMPT), 'quit';
    $s->log_is_clean;
};

subtest 'master_process off' => sub {
    my $c = CC::Console->start(master_process => 'off', init => $INIT);
    my $s = $c->s;
    is $c->run(0, 'return ipc.send(ngx.worker.pid(), "news", "me")'), 'true', 'send';
    is $c->until(0, 'return t.got[1]', qr/news/), 'news|me|' . $c->pid(0), 'arrives';
    is $c->run(0, 'return ipc.broadcast("news", "me")'), 'true', 'broadcast';
    is $c->until(0, 'return #t.got', 2), 2, 'once';
    is $c->run(0, 'return ipc.send_worker(0, "news", "me")'), 'true', 'send_worker';
    is $c->until(0, 'return #t.got', 3), 3, 'arrives';
    is $c->run(0, 'return #ipc.get_other_worker_pids(), #ipc.workers(), ipc.workers()[1].state'), "0\t1\tlive", 'no others';
    is $c->run(0, 'return ipc.send_worker(1, "news")'), "nil\tNo worker with id 1", 'none at all';
    ok $s->quit($PROMPT), 'quit';
    $s->log_is_clean;

    # some nginx versions do not serve after that, with or without the module; none may crash
    for my $main ('', 'cc_zone 2m;', 'cc_ipc_transport socket;') {
        $s->start($c->options(main => ''));
        my ($pid, $from) = ($s->master_pid, $s->log_size);
        $s->configure($c->options(main => $main));
        $s->write_conf;
        $s->signal('HUP');
        ok $s->wait_log(qr/enters/, $from), 'reload';
        is $s->master_pid, $pid, 'survives';
        ok $s->stop($PROMPT), 'stop';
        unlike $s->error_log($from), qr/cc:.*panic|no seat/, 'in good order';
    }
};

subtest 'helper processes' => sub {
    my $c = CC::Console->start(workers => 2, init => $INIT, http => 'proxy_cache_path %PREFIX%/cache keys_zone=k:1m;');
    is $c->run(1, 'return #ipc.workers()'), 2, 'the cache manager and loader are no workers';
    is $c->run(1, 'return ipc.broadcast("news", "x")'), 'true', 'broadcast';
    is $c->until($_, 'return t.count("news")', 1), 1, "worker $_ hears" for 0, 1;
    my ($manager) = grep { CC::Proc::title($_) =~ /cache manager/ } CC::Proc::children($c->s->master_pid);
    ok $manager, 'the manager runs';
    is $c->run(0, "return ipc.send($manager, 'news')"), "nil\tNo worker process with PID $manager", 'and is nobody';
    ok $c->reload, 'reload';
    ok $c->s->quit($PROMPT), 'quit';
    $c->s->log_is_clean;
};

subtest 'sixteen workers, and one' => sub {
    my $c = CC::Console->start(workers => 16, init => $INIT);
    $c->each('assert(ipc.broadcast("news", "x"))');
    is $c->until($_, 'return t.count("news")', 16), 16, "worker $_ hears all" for 0 .. 15;
    is $c->run(9, 'return #ipc.get_other_worker_pids()'), 15, 'fifteen others';
    ok $c->reload(workers => 1), 'reload to one';
    is $c->run(0, 'return ipc.broadcast("news", "x")'), 'true', 'broadcast';
    is $c->until(0, 'return t.count("news")', 1), 1, 'heard';
    ok $c->s->quit($PROMPT), 'quit';
    $c->s->log_is_clean;
};

subtest 'few connections' => sub {
    # all taken by clients: the bus has its own from the start, a line that is full gets one later
    my $c = CC::Console->start(workers => 2, init => $INIT, events => 'worker_connections 24;',
        main => 'cc_ipc_transport socket;');
    my $s = $c->s;
    my @idle = map { $s->connect($s->port(1)) } 1 .. 30;
    $s->kill_worker(1, 'STOP');
    my $line = $c->console(0);
    $line->run('for i = 1, 30 do assert(ipc.send_worker(1, "news", ("c"):rep(100000))) end');
    $s->kill_worker(1, 'CONT');
    is $c->until(1, 'return t.count("news")', 30), 30, 'everything arrives';
    $_->close for @idle, $line;
    ok $s->quit($PROMPT), 'quit';
    $s->log_is_clean(qr/worker_connections are not enough/);
};
done_testing;
