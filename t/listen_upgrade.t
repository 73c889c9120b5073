# Binary upgrade: the new master inherits each worker's sockets (P7).
use v5.36;
use Test::More;
use CC::Proc;
use CC::Server;

my $answer = 'location / { return 200 "$pid\n"; }';
my $http = "
    server { listen 127.0.0.1:%PORT% per_worker; $answer }
    server { listen unix:%PREFIX%/s per_worker; $answer }
    server { listen 127.0.0.1:%PORT+8%; $answer }";
my $s = CC::Server->new(module => 1, workers => 3, http => $http)->start;

sub who ($peer) { $s->get($peer)->body =~ s/\n//r || 'nobody' }
sub ports () { return [ map { who($s->port($_)) } 0 .. 2 ] }
sub paths () { return [ map { who('unix:' . $s->path("s.$_")) } 0 .. 2 ] }
sub count () { return scalar(() = $s->sockets) }
sub listens () { return join ' ', $s->listening }

sub each_its_own ($name, @workers) {
    is_deeply ports(), \@workers, "$name: each worker on its port";
    is_deeply paths(), \@workers, "$name: and on its path";
    return;
}

my ($sockets, $listens) = (count(), listens());
my @first = $s->workers;

# -- upgrade
my ($old, $new) = $s->upgrade;
my @second = $s->workers;
each_its_own('upgrade', @second);
is count(), $sockets, 'as many sockets as before';
is listens(), $listens, 'the same ones';
is $s->error_log =~ /using inherited sockets from "([\d;]+)"/ && (() = $1 =~ /;/g), 7,
    'all of them were inherited';

# -- reload and crash after it
ok $s->reload, 'reload';
each_its_own('reload', $s->workers);
$s->kill_worker(1);
each_its_own('crash', $s->workers);
ok $s->reload(workers => 2), 'fewer workers';
is_deeply ports(), [ $s->workers, 'nobody' ], 'inherited ports vanish too';
is_deeply [ map { s/.*\.//r } glob $s->path('s.*') ], [ 0, 1 ], 'and paths';
ok $s->reload(workers => 3), 'more';
each_its_own('more', $s->workers);

# -- upgrade of the upgraded
$s->upgrade;
each_its_own('second upgrade', $s->workers);
is count(), $sockets, 'as many sockets as at first';

# -- rollback: the new one goes, the old one serves on
{
    my @before = $s->workers;
    my ($stays, $goes) = $s->upgrade(keep_old => 1);
    my %mine = map { $_ => 1 } @before, $s->worker_pids($goes);
    my @both = @{ ports() };
    is scalar(grep { $mine{$_} } @both), 3, 'both masters serve';
    $s->signal(QUIT => $goes);
    $s->wait_for(sub { !CC::Proc::alive($goes) }, 'the new master to leave');
    # the pid file goes back to the old one
    $s->wait_for(sub { ($s->pid_in_file // 0) == $stays }, 'the old pid file');
    $s->{slots} = [@before];
    each_its_own('rollback', @before);
    is count(), $sockets, 'as many sockets as at first';
    ok $s->reload, 'reload';
    each_its_own('reload after rollback', $s->workers);
}

# -- upgrade to another number of workers, and to none of it
$s->configure(workers => 5);
$s->write_conf;
$s->upgrade;
is_deeply [ map { who($s->port($_)) } 0 .. 4 ], [ $s->workers ], 'upgrade to five workers';
$s->configure(http => $http =~ s/ per_worker//gr);
$s->write_conf;
$s->upgrade;
isnt who($s->port), 'nobody', 'upgrade to a plain listen';
is_deeply [ map { who($s->port($_)) } 1 .. 4 ], [ ('nobody') x 4 ], 'the other ports are closed';

ok $s->quit, 'quit';
is_deeply [ glob $s->path('s*') ], [], 'no socket file is left' or diag join ' ', glob $s->path('s*');
$s->log_is_clean(qr/exited on signal 9/);

done_testing;
