# A worker dies: its successor has the port, nobody else notices (P6).
use v5.36;
use Test::More;
use CC::Server;

my $answer = 'location / { return 200 "$pid\n"; }';
my $s = CC::Server->new(module => 1, workers => 4, http => "
    server { listen 127.0.0.1:%PORT% per_worker; $answer }
    server { listen unix:%PREFIX%/s per_worker; $answer }
    server { listen 127.0.0.1:%PORT+8%; $answer }")->start;

sub who ($plus) { $s->get($s->port($plus))->body =~ s/\n//r || 'nobody' }
sub all () { return [ map { who($_) } 0 .. 3 ] }

my $sockets = () = $s->sockets;

for my $k (0 .. 3) {
    my @before = $s->workers;
    my @kept = map { $s->connect($s->port($_)) } 0 .. 3;
    $_->request(GET => '/', keepalive => 1) for @kept;

    my $heir = $s->kill_worker($k);
    $before[$k] = $heir;
    is_deeply all(), \@before, "worker $k killed: its successor has the port, the others keep theirs";
    is $s->get('unix:' . $s->path("s.$k"))->body, "$heir\n", 'and the path';

    my @after = map { $_->request(GET => '/', keepalive => 1)->body =~ s/\n//r } @kept;
    is_deeply [ @after[ grep { $_ != $k } 0 .. 3 ] ], [ @before[ grep { $_ != $k } 0 .. 3 ] ],
        'connections to the others go on';
    $_->close for @kept;
}

# -- the socket outlives the worker: a connection made in between waits
{
    my $victim = $s->worker_pid(1);
    $s->signal(STOP => $victim);
    my $waiting = $s->connect($s->port(1));
    ok $waiting->ok, 'a connection to a worker that does not accept';
    $waiting->send_request(GET => '/');
    my $heir = $s->kill_worker(1);
    is $waiting->read_response->body, "$heir\n", 'is served by its successor';
}

# -- again and again, and all at once
$s->kill_worker(2) for 1 .. 3;
is_deeply all(), [ $s->workers ], 'killed again and again';
{
    my @victims = $s->workers;
    $s->signal(KILL => $_) for @victims;
    $s->wait_for(sub { my %old = map { $_ => 1 } @victims;
        my @now = grep { !$old{$_} } $s->worker_pids; @now == 4 }, 'four successors');
    my @answers = @{ all() };
    my %distinct = map { $_ => 1 } @answers;
    is scalar(keys %distinct), 4, 'all at once: four distinct workers on the four ports';
    is_deeply [ sort keys %distinct ], [ sort $s->worker_pids ], 'the successors';
    is_deeply [ map { $s->get('unix:' . $s->path("s.$_"))->body =~ s/\n//r } 0 .. 3 ], \@answers,
        'on path and port the same';
    is scalar(() = $s->sockets), $sockets, 'the master holds as many sockets as before';
}

# -- leaves in good order
ok $s->reload, 'reload after it all';
is_deeply all(), [ $s->workers ], 'each worker on its port';
ok $s->quit, 'quit';
is_deeply [ glob $s->path('s.*') ], [], 'no socket file is left';
$s->log_is_clean(qr/exited on signal 9/);

done_testing;
