# per_worker in stream{}, TCP and UDP, and in mail{}.
use v5.36;
use Test::More;
use Socket qw(:all);
use CC::Modules;
use CC::Server;

my ($probe) = CC::Server->new->try_conf(stream => "server { listen 127.0.0.1:1; return x; }");
plan skip_all => 'no stream module' if $probe;

use constant N => 3;

# The answer of `return` to a TCP client, or to a datagram.
sub tcp ($peer) {
    my $c = CC::HTTP->connect($peer);
    return $c->error ? 'nobody' : $c->read_all =~ s/\n//r;
}

sub udp_send ($port) {
    socket my $udp, AF_INET, SOCK_DGRAM, 0;
    connect $udp, pack_sockaddr_in($port, INADDR_LOOPBACK);
    send $udp, 'x', 0;
    return $udp;
}

sub udp_read ($udp, $seconds = CC::Wait::DEADLINE) {
    my $bits = '';
    vec($bits, fileno $udp, 1) = 1;
    return 'silence' if select($bits, undef, undef, $seconds) <= 0;
    my $answer;
    return defined recv($udp, $answer, 2048, 0) ? $answer =~ s/\n//r : 'nobody';
}

sub udp ($port) { udp_read(udp_send($port)) }

sub own ($s, $plus, $ask = \&tcp) { return [ map { $ask->($s->port($plus + $_)) } 0 .. N - 1 ] }

sub expected ($s, $plus) {
    my @workers = $s->workers;
    return [ map { "$workers[$_] 127.0.0.1 " . $s->port($plus + $_) } 0 .. N - 1 ];
}

my $answer = 'return "$pid $server_addr $server_port\n";';
for my $order ('module-first', 'module-last') {
    my $s = CC::Server->new(module => 1, workers => N, ports => 24, order => $order, stream => "
        server { listen 127.0.0.1:%PORT% per_worker; $answer }
        server { listen *:%PORT+4% per_worker; $answer }
        server { listen 127.0.0.1:%PORT% udp per_worker; $answer }
        server { listen unix:%PREFIX%/s per_worker; return \$pid; }",
        http => 'server { listen 127.0.0.1:%PORT+12% per_worker; return 200 "$pid 127.0.0.1 $cc_worker_port"; }
        server { listen 127.0.0.1:%PORT+18%; return 200 "$cc_worker_id $cc_worker_port"; }')->start;
    my $check = sub ($when) {
        is_deeply own($s, 0), expected($s, 0), "$order, $when: TCP";
        is_deeply own($s, 4), expected($s, 4), 'TCP, wildcard';
        is_deeply own($s, 0, \&udp), expected($s, 0), 'UDP on the same ports';
        is_deeply [ map { tcp('unix:' . $s->path("s.$_")) } 0 .. N - 1 ], [ $s->workers ], 'Unix';
        my ($id, $port) = split ' ', $s->get($s->port(18))->body;
        is $port, $s->port($id), '$cc_worker_port counts stream listens';
    };
    $check->('start');
    my @listens = $s->listening;
    ok $s->reload, 'reload';
    $check->('reload');
    is_deeply [ $s->listening ], \@listens, 'the same sockets';

    # a stopped worker's port is answered by nobody else
    my $victim = $s->worker_pid(1);
    $s->signal(STOP => $victim);
    my $held = udp_send($s->port(1));
    is_deeply [ map { udp($s->port($_)) } 0, 2 ], [ @{ expected($s, 0) }[ 0, 2 ] ], 'with a worker stopped, the others';
    is udp_read($held, 0), 'silence', 'do not answer for it';
    my $heir = $s->kill_worker(1);
    like udp_read($held), qr/^$heir /, 'its successor reads what was sent to it';
    $check->('crash');

    $s->upgrade;
    $check->('upgrade');
    ok $s->reload(stream => "server { listen 127.0.0.1:%PORT%; $answer }"), 'plain';
    like tcp($s->port), qr/^\d+ /, 'answers';
    is tcp($s->port(1)), 'nobody', 'once';
    ok $s->quit, 'quit';
    is_deeply [ glob $s->path('s*') ], [], 'no socket file is left';
    $s->log_is_clean(qr/exited on signal 9/);
}

# -- clashes, across blocks too
my $s = CC::Server->new(module => 1, workers => N);
for (
    [ 'within stream', '127.0.0.1:%PORT% per_worker', '127.0.0.1:%PORT+2%', undef, 1 ],
    [ 'udp and udp', '127.0.0.1:%PORT% udp per_worker', '*:%PORT+2% udp', undef, 1 ],
    [ 'udp and tcp', '127.0.0.1:%PORT% udp per_worker', '127.0.0.1:%PORT+2%', undef, 0 ],
    [ 'stream and http', '127.0.0.1:%PORT% per_worker', undef, '127.0.0.1:%PORT+2%', 1 ],
    [ 'http and stream', '127.0.0.1:%PORT+2%', undef, '127.0.0.1:%PORT% per_worker', 1 ],
    [ 'the same address in both', '127.0.0.1:%PORT%', undef, '127.0.0.1:%PORT% per_worker', 1 ],
    [ 'both per_worker', '127.0.0.1:%PORT% per_worker', undef, '127.0.0.1:%PORT% per_worker', 1 ],
    [ 'udp and http', '127.0.0.1:%PORT% udp', undef, '127.0.0.1:%PORT% per_worker', 0 ],
) {
    my ($name, $first, $second, $http, $clash) = @$_;
    my $text = "worker_processes 3;\nstream {\n server { listen $first; $answer }\n"
        . (defined $second ? " server { listen $second; $answer }" : '') . "\n}\nhttp {\n"
        . (defined $http ? " server { listen $http; }" : ' server { listen 127.0.0.1:%PORT+8%; }') . "\n}\n";
    my ($rc, $out) = $s->try_conf(conf => $text);
    is $rc, $clash, $name or diag $out;
    my ($a, $b) = (3, defined $second ? 4 : 7);
    like $out, qr/(?::$a conflicts with .*:$b|:$b conflicts with .*:$a)$/m, 'both lines' if $clash;
}
{
    my ($rc, $out) = $s->try_conf(stream => "\nserver { listen 127.0.0.1 per_worker; $answer }");
    like $out, qr/\[emerg\] .*no port in "127\.0\.0\.1" of the "listen" directive in \S+:\d+$/m, 'no port';
    ($rc, $out) = $s->try_conf(stream => "\nserver { listen 127.0.0.1:%PORT% udp per_worker reuseport; $answer }");
    like $out, qr/"reuseport" parameter is incompatible with "per_worker" in/, 'reuseport';
}

# -- sharing, where stream{} has it
SKIP: {
    my ($minor) = CC::Modules::build_info() =~ m{nginx/1\.(\d+)};
    skip 'no virtual servers in stream{} before 1.25.5', 1 if $minor < 26;
    for (['%PORT% per_worker', '%PORT%'], ['%PORT%', '%PORT% per_worker'], ['%PORT% per_worker', '%PORT% per_worker default_server']) {
        my @words = @$_;
        my $v = CC::Server->new(module => 1, workers => N, stream => "server { listen 127.0.0.1:$words[0]; server_name a; $answer }
            server { listen 127.0.0.1:$words[1]; server_name b; $answer }")->start;
        is_deeply own($v, 0), expected($v, 0), "two servers: @words";
        is tcp($v->port(N)), 'nobody', 'and no more sockets';
    }
}

# -- mail{}: the same mechanism
SKIP: {
    my $mail = 'mail { auth_http 127.0.0.1:1; server_name m; server { listen 127.0.0.1:%PORT% per_worker; protocol smtp; } }';
    my $m = CC::Server->new(module => 1, workers => N, conf => "worker_processes 3; $mail");
    my ($rc, $out) = $m->try_conf;
    skip 'no mail module', 1 if $out =~ /unknown directive "mail"/;
    is $rc, 0, 'mail{}' or diag $out;
    $m->start;
    my @greetings = map { my $c = CC::HTTP->connect($m->port($_)); $c->fill(CC::Wait::now() + 10); $c->{buf} } 0 .. N - 1;
    is_deeply [ map { substr $_, 0, 3 } @greetings ], [ (220) x N ], 'each port greets';
    is tcp($m->port(N)), 'nobody', 'and no other';
    $m->signal(STOP => $m->worker_pid(1));
    my $held = CC::HTTP->connect($m->port(1));
    is $held->fill(CC::Wait::now()), undef, 'a stopped worker does not';
    $m->signal(CONT => $m->worker_pid(1));
    ok $held->fill(CC::Wait::now() + 10), 'until it goes on';
    $held->close;
    ok $m->quit;
    $m->log_is_clean;
}

done_testing;
