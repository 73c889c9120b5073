# Where nginx has no timer free, and says so only when one would run: handlers and keys wait, nothing is
# lost, and the worker leaves when it is told to. And what is told to whom, once.
use v5.36;
use Test::More;
use CC::Console;
use CC::Life qw($NOTES);

my $INIT = $NOTES . <<'LUA';
    -- more than may run
    function t.fill()
        t.open, t.filled = false, 0
        for _ = 1, 8 do
            ngx.timer.at(0, function()
                t.filled = t.filled + 1
                repeat ngx.sleep(0.005) until t.open or ngx.worker.exiting()
                t.filled = t.filled - 1
            end)
        end
    end
LUA

subtest 'no timer is free' => sub {
    my $c = CC::Console->start(workers => 2, http => 'lua_max_running_timers 5;', init => $INIT);
    my $s = $c->s;
    $c->until(1, 'return t.heard("leader 0 ' . $c->pid(0) . ' false")', 1);
    $c->run(1, 't.fill()');
    ok $s->wait_log(qr/lua_max_running_timers/), 'they are used up';
    my $from = $s->log_size;
    $c->run(1, 't.once = { t.life.once("key", function() t.ran = true end) }');
    is $c->run(1, 'return t.once[1]'), 'true', 'a key is had';
    my $dead = $c->pid(0);
    $s->kill_worker(0);
    ok $s->wait_log(qr/lua_max_running_timers/, $from), 'no light thread for it, nor for a handler';
    is $c->run(1, "return t.ran, t.heard('worker_crash 0 $dead 9 nil')"), "nil\t0", 'so neither ran';
    $c->run(1, 't.open = true');
    is $c->until(1, 'return t.ran', 'true'), 'true', 'once there is one, the function runs';
    is $c->until(1, "return t.heard('worker_crash 0 $dead 9 nil')", 1), 1, 'and the handler is told';
    is $c->run(1, 'return (t.life.holder("key"))'), 1, 'the key is still its';

    # -- the worker leaves though what it has asked for never came
    $from = $s->log_size;
    $c->run(1, 't.fill()');
    ok $s->wait_log(qr/lua_max_running_timers/, $from), 'used up again';
    $dead = $c->pid(0);
    my $stays = $c->pid(1);
    $s->kill_worker(0);
    $s->wait_for(sub { $s->error_log =~ /worker process $dead exited on signal 9/ }, 'the crash');
    ok $s->quit(10), 'quits';
    like $s->error_log, qr/life: worker 1: worker_crash 0 $dead 9/, 'and what came before it is told then';
    $s->log_is_clean(qr/lua_max_running_timers/, qr/exited on signal 9/);
};

subtest 'told once' => sub {
    my $c = CC::Console->start(workers => 2, init => $INIT);
    my $pid = $c->pid(0);
    is $c->until(1, "return t.heard('leader 0 $pid false')", 1), 1, 'who leads';
    $c->run(1, 't.later = {} assert(t.life.on("leader", function(id, pid, mine) t.later[#t.later + 1] = id .. " " .. pid .. " " .. tostring(mine) end))');
    is $c->until(1, 'return table.concat(t.later, "|")', "0 $pid false"), "0 $pid false", 'a handler that comes later is told';
    is $c->run(1, "return t.heard('leader 0 $pid false')"), 1, '... alone';
    is $c->run(1, 'return t.life.once("returns", function() t.returned = true return { "something" } end)'), 'true', 'a function that returns something';
    is $c->until(1, 'return t.returned', 'true'), 'true', 'has run';
    is $c->run(1, 'return (t.life.holder("returns"))'), 1, 'and has not failed';
    ok $c->s->quit, 'quits';
    $c->s->log_is_clean;
};
done_testing;
