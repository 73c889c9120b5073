# A worker that is flooded with messages serves its requests all the while.
use v5.36;
use Test::More;
use CC::Console;

my $BALANCE = 'local s = ipc.stats() return s.sent - s.received - s.stranger - s.lost - s.queued';

for my $transport (qw(ring socket)) {
    for my $size (10, 10_000) {
        subtest "$transport, $size bytes" => sub { flood($transport, $size) };
    }
}
done_testing;

sub flood ($transport, $size) {
    my $c = CC::Console->start(
        workers => 3,
        main    => "cc_ipc_transport $transport; cc_ipc_queue 256k; cc_ipc_max_message 64k;",
        init    => 'ipc.receive("flood", function() t.handled = (t.handled or 0) + 1 end)',
        server  => 'location = /plain { return 200 "served"; }
            location = /handled { content_by_lua_block { ngx.print(require("cc_console").handled or 0) } }',
    );
    my $s = $c->s;
    my @line = map { $c->console($_) } 0, 2;
    $_->ask("local data, full = ('f'):rep($size), 0
        repeat
            while ipc.send_worker(1, 'flood', data) do end
            full = full + 1
            ngx.sleep(0.001)
        until t.stop and full > 2
        return full") for @line;
    $c->until(1, 'return (t.handled or 0) > 0', 'true');

    my ($served, %seen) = 0;
    for my $round (1 .. 100) {
        $served++ if $s->get($s->port(2), '/plain')->body eq 'served';
        my $r = $s->get($s->port(2), '/handled');
        $served++ if $r->status == 200;
        $seen{ $r->body } = 1;
    }
    is $served, 200, 'every request was served';
    cmp_ok keys %seen, '>', 10, 'while messages were handled, ' . keys(%seen) . ' times between requests';
    $c->run($_, 't.stop = true') for 0, 2;
    cmp_ok $_->answer, '>', 1, 'and more came than it could handle' for @line;
    $_->close for @line;
    is $c->until(0, $BALANCE, 0), 0, 'every message is accounted for';
    ok $s->quit(15), 'quits';
    $s->log_is_clean;
}
