# once: a key is one living worker's at a time, and moves when that one dies, leaves, fails or gives
# it up; leader and is_leader.
use v5.36;
use Test::More;
use CC::Console;
use CC::Life qw($NOTES);

my $ONCE = $NOTES . <<'LUA';
    local dict = ngx.shared.d
    t.ran = 0
    function t.job(key, body)
        return t.life.once(key, function(k)
            t.ran = t.ran + 1
            assert(k == tostring(key))
            if dict:incr("inside " .. k, 1, 0) ~= 1 then
                -- whoever was killed inside has not counted down
                dict:set("inside " .. k, 1)
            end
            if body then body(k) end
            dict:incr("inside " .. k, -1)
        end)
    end
    t.got = { t.job("sweeper") }
LUA

sub holders ($c, $key, @workers) {
    return join ' ', map { $c->run($_, "return (t.life.holder('$key'))") } @workers;
}

subtest 'it moves' => sub {
    my $c = CC::Console->start(workers => 3, init => $ONCE, http => 'lua_shared_dict d 1m;');
    my $s = $c->s;
    my $runs = sub { join ' ', map { $c->run($_, 'return t.ran') } @_ };
    $s->wait_for(sub { $runs->(0 .. 2) =~ /1/ }, 'somebody to run it');
    is join(' ', sort split ' ', $runs->(0 .. 2)), '0 0 1', 'one runs it';
    my $holder = $c->run(0, 'return (t.life.holder("sweeper"))');
    is holders($c, 'sweeper', 0 .. 2), "$holder $holder $holder", 'all know who';
    is $c->run($holder, 'return select(2, t.life.holder("sweeper"))'), $c->pid($holder), 'by its pid, too';
    is $c->run($holder, 'return t.life.once("sweeper", function() end)'), "nil\tthis worker has asked for that key", 'asked twice';

    # -- killed, again and again: as long as anybody waits, somebody has it
    for my $round (1 .. 4) {
        my $dead = $c->pid($holder);
        $s->kill_worker($holder);
        my $next;
        $s->wait_for(sub {
            my ($id, $pid) = split /\t/, $c->run(0, 'return t.life.holder("sweeper")');
            $next = $id;
            return $id ne 'nil' && $pid != $dead;
        }, 'the next holder');
        isnt $next, 'nil', "round $round: worker $next has it";
        is $c->until($next, 'return t.ran', 1), 1, 'and runs it';
        $holder = $next;
    }

    # -- given up by its function's failure
    $c->each('t.fails = {} t.life.once("fails", function() t.fails[1] = true error("no luck") end)');
    $s->wait_for(sub { 3 == grep { $_ eq 'true' } $c->each('return t.fails[1]') }, 'each to try once');
    is $c->run(0, 'return t.life.holder("fails")'), '', 'a function that fails gives the key up';
    is join(' ', $c->each('local n = 0 t.life.once("fails", function() n = n + 1 end) return n')), '0 0 0', 'and may ask again';

    # -- given up by release
    is $c->run(1, 'return t.life.once("mine", function() t.mine = 1 end)'), 'true', 'a free key is had at once';
    is $c->run(2, 'return t.life.once("mine", function() t.mine = 2 end)'), 'false', 'one that is held is waited for';
    is $c->run(0, 'return t.life.release("mine")'), 'false', 'who has not asked gives nothing up';
    is $c->run(1, 'return t.life.release("mine")'), 'true', 'release';
    is $c->until(2, 'return t.mine', 2), 2, 'the next one runs';
    is $c->run(1, 'return t.mine'), 1, 'the first one has';

    # -- bounds
    is $c->run(0, 'return t.life.once(("k"):rep(65), function() end)'), "nil\ta key has 1 to 64 bytes", 'a long key';
    is $c->run(0, 'return t.life.once("", function() end)'), "nil\ta key has 1 to 64 bytes", 'no key';
    is $c->run(0, 'local ok, err for i = 1, 200 do ok, err = t.life.once("many " .. i, function() end) if ok == nil then
        for j = 1, i do t.life.release("many " .. j) end return i > 100, err end end'), "true\ttoo many keys are held", 'too many';

    # -- reload: the new workers take over once the old ones leave
    my $line = $c->console($holder);
    ok $c->reload(wait_old => 0), 'reload';
    $line->until('return ngx.worker.exiting()', 'true');
    my $old = $line->pid;
    my $new;
    $s->wait_for(sub {
        my ($id, $pid) = split /\t/, $c->run(0, 'return t.life.holder("sweeper")');
        $new = $id;
        return $id ne 'nil' && $pid != $old;
    }, 'a new holder');
    is $c->until($new, 'return t.ran', 1), 1, 'a new worker runs it, while the old one lingers';
    like $line->run('return t.life.once("late", function() end)'), qr/^nil\t/, 'who leaves asks for nothing';
    $line->close;
    ok $s->quit, 'quits';
    $s->log_is_clean(qr/exited on signal 9|no luck|stack traceback|^\s/);
};

subtest 'a function that runs on while its worker leaves' => sub {
    my $c = CC::Console->start(workers => 2, http => 'lua_shared_dict d 1m;', init => $ONCE . q{
        t.job("long", function()
            while not t.over do ngx.sleep(0.02) end
        end)
    });
    my $s = $c->s;
    my $holder;
    $s->wait_for(sub { ($holder = $c->run(0, 'return (t.life.holder("long"))')) ne 'nil' }, 'a holder');
    my $line = $c->console($holder);
    my $old = $line->pid;
    ok $c->reload(wait_old => 0), 'reload';
    $line->until('return ngx.worker.exiting()', 'true');
    $s->wait_for(sub { $c->run(0, 'return select(2, t.life.holder("sweeper"))') ne $old }, 'the other key to move');
    is $c->run(0, 'return select(2, t.life.holder("long"))'), $old, 'what still runs keeps its key';
    $line->run('t.over = true');
    $s->wait_for(sub { my $pid = $c->run(0, 'return select(2, t.life.holder("long"))'); $pid =~ /^\d+$/ && $pid != $old }, 'the next holder');
    pass 'then it moves';
    $c->each('t.over = true');
    $line->close;
    ok $s->quit, 'quits';
    $s->log_is_clean;
};

subtest 'leader' => sub {
    my $c = CC::Console->start(workers => 3, init => $NOTES);
    my $s = $c->s;
    my $know = sub ($leader, @workers) {
        my $pid = $s->worker_pid($leader);
        is $c->until($_, 'return t.life.leader()', "$leader\t$pid"), "$leader\t$pid", "worker $_ knows" for @workers;
        is $c->run($_, 'return t.life.is_leader()'), $_ == $leader ? 'true' : 'false', 'and itself' for @workers;
        is $c->until($_, "return t.heard('leader $leader $pid " . ($_ == $leader ? 'true' : 'false') . "')", 1), 1, 'the event'
            for @workers;
    };
    $know->(0, 0 .. 2);
    # the master cannot follow up at once
    kill STOP => $s->master_pid;
    my @pid = map { $s->worker_pid($_) } 0 .. 2;
    kill KILL => $pid[0];
    is $c->until($_, 'return (t.life.leader())', 1), 1, "worker $_: the next one leads" for 1, 2;
    is $c->run(1, 'return t.life.is_leader()'), 'true', 'and knows';
    is $c->until(1, "return t.heard('leader 1 $pid[1] true')", 1), 1, 'by the event, too';
    is $c->run(1, 'local ok, why = t.life.ready() return ok, why'), "false\tworker 0 was ended by signal 9", 'a seat is empty';
    kill CONT => $s->master_pid;
    $s->wait_for(sub { ($s->worker_pid(0) // $pid[0]) != $pid[0] }, 'a successor');
    $know->(0, 1, 2);
    ok $c->reload, 'reload';
    $know->(0, 0 .. 2);
    ok $s->quit, 'quits';
    $s->log_is_clean(qr/exited on signal 9/);
};

done_testing;
