# listen unix:PATH per_worker: worker k on PATH.k (P3).
use v5.36;
use Test::More;
use IO::Socket::INET;
use CC::Server;

my $answer = 'location / { return 200 "$pid $server_addr [$cc_worker_port]\n"; }';
my $s = CC::Server->new(module => 1, workers => 3,
    http => "server { listen unix:%PREFIX%/s.sock per_worker; $answer }")->start;

sub answers ($n) {
    return [ map { $s->get('unix:' . $s->path("s.sock.$_"))->body } 0 .. $n - 1 ];
}

sub expected (@workers) {
    return [ map { "$workers[$_] unix:" . $s->path("s.sock.$_") . " []\n" } 0 .. $#workers ];
}

sub files () { return [ sort map { s{.*/}{}r } glob $s->path('s.sock*') ] }

is_deeply answers(3), expected($s->workers),
    'worker k on PATH.k, with its $server_addr; no $cc_worker_port';
is_deeply files(), [ map { "s.sock.$_" } 0 .. 2 ], 'no other file';

ok $s->reload, 'reload';
is_deeply answers(3), expected($s->workers), 'the new workers answer';

my $heir = $s->kill_worker(1);
is_deeply answers(3), expected($s->workers), "a successor ($heir) too";

ok $s->reload(workers => 5), 'more workers';
is_deeply answers(5), expected($s->workers), 'all answer';
ok $s->reload(workers => 2), 'fewer workers';
is_deeply answers(2), expected($s->workers), 'they answer';
is_deeply files(), [ map { "s.sock.$_" } 0, 1 ], 'the files of the others are gone';

ok $s->reload(workers => 1), 'a single worker';
is_deeply answers(1), expected($s->workers), 'is still number 0';

my ($rc, $out) = $s->try_conf(workers => 3);
is $rc, 0, 'nginx -t beside it' or diag $out;
is_deeply files(), ['s.sock.0'], 'leaves no file';
is_deeply answers(1), expected($s->workers), 'and takes none away';

ok $s->reload(http => "server { listen unix:%PREFIX%/s.sock; $answer }"), 'plain';
is $s->get('unix:' . $s->path('s.sock'))->status, 200, 'answers at PATH';
is_deeply files(), ['s.sock'], 'and only there';
ok $s->reload(workers => 2, http => "server { listen unix:%PREFIX%/s.sock per_worker; $answer }");
is_deeply answers(2), expected($s->workers), 'and back';

# -- a configuration that nginx gives up after it has made the files
my $foreign = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $s->port, Listen => 1)
    or die "bind: $!";
ok $s->reload_fails(workers => 4, http => "server { listen unix:%PREFIX%/s.sock per_worker; $answer }
    server { listen 127.0.0.1:%PORT%; }"), 'a reload fails when it opens its sockets';
$s->wait_log(qr/still could not bind/);
ok $s->wait_for(sub { "@{ files() }" eq 's.sock.0 s.sock.1' }), 'the files it made are gone, the others there';
is_deeply answers(2), expected($s->workers), 'and in use';
$foreign->close;
ok $s->reload(workers => 4), 'so the next one works';
is_deeply answers(4), expected($s->workers), 'with all files';

ok $s->quit, 'quit';
is_deeply files(), [], 'no file is left';

ok $s->start->stop, 'fast stop';
is_deeply files(), [], 'no file is left';
$s->log_is_clean(qr/exited on signal 9/, qr/bind\(\)/);

# -- the suffix must fit into sun_path
my $long = CC::Server->new(module => 1, ports => 1);
my $room = 107 - length $long->path('') ;
SKIP: {
    skip 'the prefix is too long', 4 if $room < 8;
    my $path = $long->path('p' x ($room - 2));
    my $http = "\nserver { listen unix:$path per_worker; $answer }";
    ($rc, $out) = $long->try_conf(workers => 10, http => $http);
    is $rc, 0, '.9 fits' or diag $out;
    ($rc, $out) = $long->try_conf(workers => 11, http => $http);
    is $rc, 1, '.10 does not';
    my $line = $long->line_of('per_worker');
    like $out, qr/too long path in the unix domain socket of worker 10 of "listen unix:\Q$path\E per_worker" in \S+:$line$/m;
    is_deeply [ glob "$path*" ], [], 'no file';
}

done_testing;
