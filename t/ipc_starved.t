# A worker that gets no memory for a long message refuses it, or counts it as lost when it is the
# receiver, and works on.
use v5.36;
use Test::More;
use CC::Console;
use CC::Limit;

plan skip_all => 'prlimit(2) is not known here' if !CC::Limit::is_possible();

use constant LITTLE => 1 << 20;

for my $transport (qw(ring socket)) {
    my $c = CC::Console->start(workers => 3, main => "cc_ipc_transport $transport;", init => <<'LUA');
        t.long = ngx.worker.id() == 0 and string.rep("x", 12 * 1024 * 1024) or ""
        ipc.receive("long", function(data) t.size = #data end)
        ipc.receive("short", function(data) t.short = data end)
LUA
    my $s = $c->s;
    my @pids = map { $s->worker_pid($_) } 0 .. 2;
    my $send = sub ($to, $what) { $c->run(0, "local ok, err = ipc.send_worker($to, $what) return tostring(ok), tostring(err)") };
    my $with_little = sub ($id, $do) {
        my $limit = CC::Limit::take($pids[$id], memory => LITTLE) or die 'no limit';
        my $said = $do->();
        CC::Limit::give_back($pids[$id], $limit);
        return $said;
    };

    $s->kill_worker(1, 'STOP');
    is $with_little->(0, sub { $send->(1, '"long", t.long') }), "nil\tfull", "$transport: what cannot be held is refused";
    is $with_little->(0, sub { $send->(0, '"long", t.long') }), "nil\tfull", 'a message to oneself, too';
    $s->kill_worker(1, 'CONT');
    is $send->(1, '"short", "one"'), "true\tnil", 'the next one is accepted';
    is $c->until(1, 'return t.short', 'one'), 'one', 'and arrives';
    is $c->run(1, 'return t.size'), 'nil', 'nothing of the one that was refused';
    is $send->(1, '"long", t.long'), "true\tnil", 'it is accepted when there is memory';
    is $c->until(1, 'return t.size', 12 << 20), 12 << 20, 'and arrives';

    my $lost = $c->run(0, 'return ipc.stats().lost');
    $with_little->(2, sub {
        $send->(2, '"long", t.long');
        $send->(2, '"short", "two"');
        is $c->until(2, 'return t.short', 'two'), 'two', 'a receiver without memory goes on with the next one';
    });
    is $c->run(0, 'return ipc.stats().lost'), $lost + 1, 'the one before is counted as lost';
    is $c->run(2, 'return t.size'), 'nil', 'and not handled';
    $send->(2, '"long", t.long');
    is $c->until(2, 'return t.size', 12 << 20), 12 << 20, 'it is, when there is memory again';

    is_deeply [ map { $s->worker_pid($_) } 0 .. 2 ], \@pids, 'nobody has died';
    is $c->run(0, 'local s = ipc.stats() return s.sent - s.received - s.lost - s.stranger - s.queued'), 0, 'the counters add up';
    ok $s->quit, 'quit';
    $s->log_is_clean;
}
done_testing;
