# ngx.exit in a handler ends the light thread that runs handlers, and all that run beside it: what
# takes over, also where no timer is free, and who still counts as running.
use v5.36;
use Test::More;
use CC::Console;

my $INIT = <<'LUA';
    t.catch("news")
    assert(ipc.receive("exits", function() ngx.exit(ngx.OK) end))
    assert(ipc.receive("exits among timers", function()
        -- more than may run: none is left for an heir
        for _ = 1, 6 do
            ngx.timer.at(0, function() t.wait(function() return t.open end) end)
        end
        ngx.exit(ngx.OK)
    end))
    t.beside = 0
    assert(ipc.receive("beside", function(data)
        t.beside = t.beside + 1
        t.wait(function() return t.exit == data or t.open end)
        if t.exit == data then t.exited = true ngx.exit(ngx.OK) end
    end, { concurrent = true }))
LUA

subtest 'several in a row, and no timer free' => sub {
    my $c = CC::Console->start(workers => 2, http => 'lua_max_running_timers 5;', init => $INIT);
    my $from = $c->s->log_size;
    $c->run(0, 'assert(ipc.send_worker(1, "exits among timers"))');
    ok $c->s->wait_log(qr/ngx\.exit/, $from), 'the first has ended the receiver';
    $c->run(0, 'for i = 1, 3 do assert(ipc.send_worker(1, "exits")) end
        for i = 1, 5 do assert(ipc.send_worker(1, "news", i)) end');
    ok $c->s->wait_log(qr/lua_max_running_timers/, $from), 'no timer was free';
    $c->run(1, 't.open = true');
    is $c->until(1, 'return t.count("news")', 5), 5, 'once one is, all that came is handled';
    is $c->run(0, 'assert(ipc.send_worker(1, "exits")) assert(ipc.send_worker(1, "news", 6))') // '', '', 'more';
    is $c->until(1, 'return t.count("news")', 6), 6, 'and it goes on so';
    ok $c->s->quit, 'quits';
    $c->s->log_is_clean(qr/ngx\.exit/, qr/lua_max_running_timers/);
};

subtest 'handlers of a receiver that was renewed' => sub {
    my $c = CC::Console->start(workers => 2, init => $INIT);
    # they stay with the receiver that began them, which another one follows
    $c->run(0, 'for i = 1, 200 do assert(ipc.send_worker(1, "beside", i)) end');
    is $c->until(1, 'return t.beside', 200), 200, '200 have begun';
    for (1 .. 3) {
        $c->run(0, 'for i = 1, 4000 do assert(ipc.send_worker(1, "news", i)) end');
        is $c->until(1, 'return t.count("news")', 4000), 4000, 'more messages than a receiver takes';
        $c->run(1, 't.clear()');
    }
    $c->run(1, 't.exit = "7"');
    is $c->until(1, 'return t.exited', 'true'), 'true', 'one of them exits';
    # those 200 have ended with the seventh; 200 more have room beside each other
    $c->run(0, 'for i = 1001, 1200 do assert(ipc.send_worker(1, "beside", i)) end
        assert(ipc.send_worker(1, "news", "behind"))');
    is $c->until(1, 'return t.beside', 400), 400, 'as many begin as there is room for';
    is $c->until(1, 'return t.count("news")', 1), 1, 'and the receiver is free';
    $c->run(1, 't.open = true');
    ok $c->s->quit, 'quits';
    $c->s->log_is_clean(qr/ngx\.exit/);
};
done_testing;
