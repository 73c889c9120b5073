# Reload: no connection is refused, ports follow worker_processes, nothing
# leaks, and a listen may change its kind (P7).
use v5.36;
use Test::More;
use Socket qw(SOL_SOCKET SO_REUSEPORT);
use IO::Socket::INET;
use POSIX ();
use CC::Proc;
use CC::Server;
use CC::Sockopt qw(sockopt may_look);

my $answer = 'location / { return 200 "$pid $server_port\n"; }';

sub http ($words, @more) {
    return "\nserver { listen 127.0.0.1:%PORT% $words; $answer }"
        . "\nserver { listen 127.0.0.1:%PORT+8% ; $answer }" . join '', @more;
}

sub who ($s, $plus) { ($s->get($s->port($plus))->body =~ /^(\d+) /)[0] // 'nobody' }
sub range ($s, $n) { return [ map { who($s, $_) } 0 .. $n - 1 ] }
sub ports ($s) { return [ map { s/.*://r - $s->port } $s->listening ] }

# Descriptors of the master by what they are.
sub open_files ($s) {
    my $fds = $s->fds;
    return join ' ', sort map { s/\[\d+\]//r =~ s/\S*\///r } values %$fds;
}

# The master closes what it has of a worker when it has reaped it.
sub settled ($s, $files) {
    $s->wait_for(sub { open_files($s) eq $files }, 'the descriptors to be those of before');
    return open_files($s);
}

my $s = CC::Server->new(module => 1, workers => 4, http => http('per_worker'))->start;
# what a generation keeps of the one before it is there from the first reload on
$s->reload;
# who was reaped last may still be among them
my ($files, $times) = ('', 0);
$s->wait_for(sub {
    my $now = open_files($s);
    $times = $now eq $files ? $times + 1 : 0;
    $files = $now;
    return $times > 20;
}, 'the master to have closed what it had of the old workers');

# -- a client at work all the while
my ($read, $write);
pipe $read, $write;
my $client = fork // die;
if (!$client) {
    my $stop;
    $SIG{TERM} = sub { $stop = 1 };
    my ($count, @bad) = (0);
    until ($stop) {
        for my $k (0, 1) {
            my $r = $s->get($s->port($k));
            # the signal itself interrupts the request that it meets
            last if $stop;
            $count++;
            push @bad, $r->error if $r->status != 200;
        }
    }
    syswrite $write, "$count " . (@bad ? "@bad[0 .. ($#bad < 4 ? $#bad : 4)]" : 'fine') . "\n";
    POSIX::_exit(0);
}
close $write;

for my $n (4, 6, 2, 3, 4, 4) {
    ok $s->reload(workers => $n), "reload to $n workers";
    my @workers = $s->workers;
    is_deeply range($s, $n), \@workers, "$n workers, each on its port";
    is_deeply ports($s), [ sort { $a <=> $b } 0 .. $n - 1, 8 ], 'and no other port';
}
kill TERM => $client;
my $told = readline $read;
waitpid $client, 0;
like $told, qr/^\d{2,} fine$/, 'no request of the time failed' or diag $told;
is settled($s, $files), $files, 'the master holds the same descriptors';

# -- connections that are open when it comes
{
    my @kept = map { $s->connect($s->port($_)) } 0 .. 3;
    my @old  = map { ($_->request(GET => '/', keepalive => 1)->body =~ /^(\d+)/)[0] } @kept;
    my @begun = map { my $c = $s->connect($s->port($_)); $c->send("GET / HTTP/1.0\r\n"); $c } 0 .. 3;
    my @before = $s->workers;
    is_deeply \@old, \@before, 'kept connections are with the workers';
    # the begun ones must have been accepted, else a new worker takes them
    $s->wait_for(sub {
        my $n = 0;
        $n += grep { $_->{state} eq 'ESTABLISHED' } $s->sockets($_) for @before;
        $n == 8;
    }, 'eight connections');
    ok $s->reload(wait_old => 0), 'reload';
    my @new = $s->workers;
    is_deeply range($s, 4), \@new, 'new connections go to the new workers';
    is_deeply [ map { $_->send("\r\n"); ($_->read_response->body =~ /^(\d+)/)[0] } @begun ], \@old,
        'what was begun is finished by the old ones';
    $_->close for @kept, @begun;
    ok $s->wait_for(sub { !grep { CC::Proc::alive($_) } @before }), 'which leave then';
}

# -- a reload that fails
for my $bad ('server { listen 127.0.0.1:%PORT+2%; }', 'server { listen 127.0.0.1:65534 per_worker; }', 'bogus;') {
    my @workers = $s->workers;
    ok $s->reload_fails(http => http('per_worker', $bad)), "refused: $bad";
    is_deeply range($s, 4), \@workers, 'the old workers serve on';
}
{
    # a foreign socket on a port that a new worker would need
    my $foreign = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $s->port(5), Listen => 1, ReuseAddr => 1)
        or die "bind: $!";
    ok $s->reload_fails(workers => 6), 'refused: a port is not free';
    like $s->error_log, qr/bind\(\) to 127\.0\.0\.1:\Q${\ $s->port(5) }\E failed \(98/, 'nginx says which';
    # until then the master tries, which takes it seconds
    $s->wait_log(qr/still could not bind/);
    ok $s->wait_for(sub { "@{ ports($s) }" eq '0 1 2 3 8' }), 'the ports are those of before';
}
is settled($s, $files), $files, 'still the same descriptors';
my $heir = $s->kill_worker(2);
is who($s, 2), $heir, 'and a successor has its port';

# -- the base moves by one: a socket changes hands
for my $base (1, 0) {
    ok $s->reload(http => http('per_worker') =~ s/%PORT%/%PORT+$base%/r), "base +$base";
    is_deeply [ map { who($s, $base + $_) } 0 .. 3 ], [ $s->workers ], 'each worker on its port';
    is_deeply ports($s), [ (map { $base + $_ } 0 .. 3), 8 ], 'and no other port';
}

# -- from one kind to the other
for my $to ('', 'per_worker', 'reuseport', 'per_worker', 'reuseport', '', 'per_worker') {
    my $name = $to || 'plain';
    ok $s->reload(http => http($to)), "to $name" or last;
    is_deeply ports($s), $to eq 'per_worker' ? [ 0 .. 3, 8 ] : [ 0, 8 ],
        "$name: the ports";
    if ($to eq 'per_worker') {
        my @workers = $s->workers;
        is_deeply range($s, 4), \@workers, "$name: each worker on its own";
    }
    else {
        isnt who($s, 0), 'nobody', "$name: answers";
    }
}
SKIP: {
    skip 'no looking into sockets here', 1 if !may_look();
    $s->stop;
    $s->start;
    $s->reload;
    my $master = $s->master_pid;
    is_deeply [ map { sockopt($master, $_->{fd}, SOL_SOCKET, SO_REUSEPORT) } grep { $_->{state} eq 'LISTEN' } $s->sockets ],
        [ (0) x 5 ], 'per_worker does not need SO_REUSEPORT';
}

# -- without the module, and with it again
ok $s->reload(module => 0, http => http('')), 'the module is dropped';
is_deeply ports($s), [ 0, 8 ], 'its ports too';
ok $s->reload, 'once more';
unlike CC::Proc::slurp('/proc/' . $s->master_pid . '/maps'), qr/ngx_http_cc_module/, 'nothing of it is mapped';
ok $s->reload(module => 1, http => http('per_worker')), 'and taken back';
is_deeply range($s, 4), [ $s->workers ], 'each worker on its port';

ok $s->quit, 'quit';
is_deeply [ map { who($s, $_) } 0 .. 3, 8 ], [ ('nobody') x 5 ], 'all ports are closed';
$s->log_is_clean(qr/exited on signal 9/, qr/conflicts with|invalid port|unknown directive "bogus"|bind\(\)/);

done_testing;
