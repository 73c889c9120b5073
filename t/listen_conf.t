# nginx-conf/listen.conf does what its comments say.
use v5.36;
use Test::More;
use FindBin;
use CC::Proc;
use CC::Server;

my $s = CC::Server->new(module => 1, ports => 32);
my $conf = CC::Proc::slurp("$FindBin::Bin/../nginx-conf/listen.conf");

# the harness brings modules, files and ports of its own
$conf =~ s/^include .*modules\.conf;.*$//m or fail 'no include of the modules';
$conf =~ s/^(?:pid|error_log)\s[^;]*;//mg;
$conf =~ s/^\s*(?:access_log|default_type|\w+_temp_path)\s[^;]*;//mg;
$conf =~ s{127\.0\.0\.1:80(\d\d)(?=[^"\n]*;)}{'127.0.0.1:' . $s->port($1)}ge;
$conf =~ s{unix:/tmp/}{unix:%PREFIX%/}g;
$s->start($conf);

my @workers = $s->workers;
is scalar(@workers), 4, 'four workers';
like $s->get($s->port)->body, qr/^worker ([0-3]), pid \d+, port ${\ $s->port }, its own \d+$/, 'the shared port';
is_deeply [ map { $s->get($s->port(10 + $_))->body } 0 .. 3 ],
    [ map { my $p = $s->port(10 + $_); "worker $_, pid $workers[$_], port $p, its own $p\n" } 0 .. 3 ],
    'a port for each worker';
is $s->get($s->port(13), '/', Host => 'status.example')->body, "status of worker 3\n", 'the virtual host';
is $s->get('unix:' . $s->path('listen.sock.3'))->body,
    'worker 3 at unix:' . $s->path('listen.sock.3') . "\n", 'the socket file';
ok $s->quit, 'quit';
$s->log_is_clean;

done_testing;
