# Of several answers to a call only the last one wakes who waits for them: also where the first came while
# that one was busy with what their sender had sent before.
use v5.36;
use Test::More;
use CC::Console;

my $c = CC::Console->start(workers => 3, http => 'cc_channel ch;', init => <<'LUA');
    local cc = require "ngx.cc"
    -- worker 1 answers at once, worker 2 when it is told to
    cc.action("ch", "which", function()
        local id = ngx.worker.id()
        if id == 2 then
            t.asked = true
            while not t.go do ngx.sleep(0.001) end
        end
        return 200, tostring(id)
    end)
    ipc.receive("flood", function(data)
        t.flood = (t.flood or 0) + 1
        if data ~= "call" then return end
        ngx.timer.at(0, function() t.answers = cc.call("all", "ch", "which", nil, "", { timeout = 300 }) end)
    end)
LUA

# the first is not always that busy
for my $round (1 .. 20) {
    $c->run(2, 't.go, t.asked = nil, nil');
    $c->run(0, 't.answers, t.flood = nil, 0');
    $c->run(1, 'for i = 1, 20000 do
            while not ipc.send_worker(0, "flood", i == 1 and "call" or "") do ngx.sleep(0.001) end
        end');
    $c->until(2, 'return t.asked', 'true');
    $c->until(0, 'return t.flood', 20000);
    # nothing else wakes it
    $c->run(2, 't.go = true');
    my $got = $c->until(0, 'return t.answers and #t.answers', qr/\d/);
    last if !is $got, 3, "round $round: all have answered, and the call is over";
}
ok $c->s->quit, 'quits';
$c->s->log_is_clean;
done_testing;
