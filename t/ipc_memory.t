# A receiver that runs for ever: the light thread that runs handlers is renewed, nothing is lost
# over that, and memory stays.
use v5.36;
use Test::More;
use CC::Console;
use CC::Memory;
use CC::Proc;

my $c = CC::Console->start(workers => 2, init => <<'LUA');
    t.next, t.wrong = 1, 0
    ipc.receive("row", function(data)
        if tonumber(data) ~= t.next then t.wrong = t.wrong + 1 end
        t.next = t.next + 1
        -- what a handler allocates in its request is freed with that only
        if t.next % 50 == 0 then ngx.sleep(0.001) end
    end)
    ipc.receive("plain", function() t.plain = (t.plain or 0) + 1 end)
LUA
my $s = $c->s;

sub rss ($id) { CC::Proc::slurp('/proc/' . $s->worker_pid($id) . '/status') =~ /VmRSS:\s+(\d+)/ ? $1 : 0 }

my $push = sub ($name, $to, $from, $till) {
    $c->run(0, "for i = $from, $till do
        local ok, err
        repeat
            ok, err = ipc.send_worker($to, '$name', i)
            if not ok then assert(err == 'full') ngx.sleep(0.001) end
        until ok
        if i % 2000 == 0 then ngx.sleep(0.001) end
    end");
};

$push->('plain', 1, 1, 20_000);
$c->until(1, 'return t.plain', 20_000);
$c->each('collectgarbage() collectgarbage()');
my @warm = map { rss($_) } 0, 1;
$push->('plain', 1, 1, 200_000);
is $c->until(1, 'return t.plain', 220_000), 220_000, '200000 messages, none lost';
$c->each('collectgarbage() collectgarbage()');
my @after = map { rss($_) } 0, 1;
SKIP: {
    skip 'a checker of memory has some of its own', 2 if CC::Memory::on();
    cmp_ok $after[$_] - $warm[$_], '<', 8 * 1024, "worker $_: memory stays" for 0, 1;
}

$push->('row', 1, 1, 12_000);
is $c->until(1, 'return t.next', 12_001), 12_001, 'a handler that yields is renewed, too';
is $c->run(1, 'return t.wrong'), 0, 'in order';

$push->('plain', 0, 1, 12_000);
is $c->until(0, 'return t.plain', 12_000), 12_000, 'so is one that gets messages from itself';

# a light thread that a handler has left behind lives on in its own request
$c->run(1, 'ipc.receive("leaves", function()
    ngx.thread.spawn(function() t.left = "waits" t.wait(function() return t.go end) t.left = "done" end) end)');
$c->run(0, 'assert(ipc.send_worker(1, "leaves"))');
$c->until(1, 'return t.left', 'waits');
$c->run(1, 't.plain = 0');
$push->('plain', 1, 1, 11_000);
is $c->until(1, 'return t.plain', 11_000), 11_000, 'renewal does not wait for what handlers left behind';
is $c->run(1, 't.go = true return t.left'), 'waits', 'which still runs';
is $c->until(1, 'return t.left', 'done'), 'done', 'to its end';

ok $s->quit, 'quit';
$s->log_is_clean;

# -- all timers of the Lua module taken by others
my $few = CC::Console->start(workers => 2, http => 'lua_max_running_timers 5;', init => <<'LUA');
    ipc.receive("plain", function() t.plain = (t.plain or 0) + 1 end)
    function t.take_timers()
        for i = 1, 10 do ngx.timer.at(0, function() t.wait(function() return t.free end) end) end
    end
    ipc.receive("exits", function() ngx.exit(0) end)
LUA
$few->run(1, 't.take_timers()');
$few->run(0, 'for i = 1, 12000 do
    while not ipc.send_worker(1, "plain") do ngx.sleep(0.001) end
    if i % 1000 == 0 then ngx.sleep(0.001) end end');
is $few->until(1, 'return t.plain', 12_000), 12_000, 'no timer left: messages are handled';
$few->run(1, 't.free = true');
$few->run(0, 'for i = 1, 12000 do
    while not ipc.send_worker(1, "plain") do ngx.sleep(0.001) end
    if i % 1000 == 0 then ngx.sleep(0.001) end end');
is $few->until(1, 'return t.plain', 24_000), 24_000, 'timers free again: so they are';
$few->run(0, 'for i = 1, 3 do assert(ipc.send_worker(1, "exits")) assert(ipc.send_worker(1, "plain")) end');
is $few->until(1, 'return t.plain', 24_003), 24_003, 'and a receiver that is ended has a successor';
ok $few->s->quit, 'quit';
$few->s->log_is_clean(qr/lua_max_running_timers are not enough/, qr/has ended the receiver/);
done_testing;
