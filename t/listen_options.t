# per_worker beside the other options of listen (P10), on each socket.
use v5.36;
use Test::More;
use Socket qw(:all);
use IPC::Open2 ();
use CC::Modules;
use CC::Ports;
use CC::Server;
use CC::Sockopt qw(sockopt backlog may_look);

use constant WORKERS => 3;

sub server ($words, $inside = '') {
    return "server { listen $words; $inside\n"
        . 'location / { return 200 "$pid $remote_addr $server_port $server_protocol\n"; } }';
}

# { port => pid and fd of the master's listening socket }
sub listeners ($s, $proto = qr/^tcp/) {
    my $master = $s->master_pid;
    my %by_port;
    for my $socket ($s->sockets) {
        next if $socket->{proto} !~ $proto || $socket->{state} eq 'ESTABLISHED';
        my ($port) = $socket->{local} =~ /:(\d+)$/ or next;
        $by_port{$port} = [ $master, $socket->{fd} ];
    }
    return \%by_port;
}

sub pids ($s, $plus, $ask) {
    return [ map { ($ask->($s->port($plus + $_)) =~ /^(\d+) /m)[0] } 0 .. WORKERS - 1 ];
}

sub certificate ($s) {
    return system('openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 1'
        . ' -keyout ' . $s->path('conf/key') . ' -out ' . $s->path('conf/crt') . ' 2>/dev/null') == 0;
}

# -- what the sockets themselves tell
SKIP: {
    skip 'no looking into the sockets of others here', 1 if !may_look();
    my $s = CC::Server->new(module => 1, workers => WORKERS, ports => 40, http => join "\n",
        server('127.0.0.1:%PORT% per_worker backlog=77'),
        server('127.0.0.1:%PORT+4% deferred per_worker'),
        server('127.0.0.1:%PORT+8% per_worker so_keepalive=30:4:7'),
        server('127.0.0.1:%PORT+12% rcvbuf=32k per_worker sndbuf=48k'),
        server('127.0.0.1:%PORT+16% per_worker fastopen=5'),
        server('127.0.0.1:%PORT+20% bind per_worker'),
    )->start;
    my $at = listeners($s);
    my $each = sub ($plus, $ask) { [ map { $ask->(@{ $at->{ $s->port($plus + $_) } }) } 0 .. WORKERS - 1 ] };
    my $all  = sub ($value) { [ ($value) x WORKERS ] };
    my $tcp  = sub ($name) { sub ($pid, $fd) { sockopt($pid, $fd, IPPROTO_TCP, $name) } };
    my $sol  = sub ($name) { sub ($pid, $fd) { sockopt($pid, $fd, SOL_SOCKET, $name) } };

    is_deeply $each->(0, \&backlog), $all->(77), 'backlog';
    is_deeply $each->(4, sub { $tcp->(TCP_DEFER_ACCEPT)->(@_) ? 1 : 0 }), $all->(1), 'deferred';
    is_deeply $each->(0, $tcp->(TCP_DEFER_ACCEPT)), $all->(0), 'only where it stands';
    is_deeply $each->(8, $sol->(SO_KEEPALIVE)), $all->(1), 'so_keepalive';
    is_deeply $each->(8, $tcp->(TCP_KEEPIDLE)), $all->(30), 'its idle time';
    is_deeply $each->(8, $tcp->(TCP_KEEPINTVL)), $all->(4), 'its interval';
    is_deeply $each->(12, $sol->(SO_RCVBUF)), $all->(2 * 32768), 'rcvbuf';
    is_deeply $each->(12, $sol->(SO_SNDBUF)), $all->(2 * 49152), 'sndbuf';
    is_deeply $each->(16, $tcp->(TCP_FASTOPEN)), $all->(5), 'fastopen';
    is_deeply [ map { @{ $each->($_, $sol->(SO_REUSEPORT)) } } 0, 4, 8, 12, 16, 20 ],
        [ (0) x (6 * WORKERS) ], 'SO_REUSEPORT is nowhere';
    is_deeply pids($s, $_, sub ($port) { $s->get($port)->body }), [ $s->workers ],
        "port +$_ answers" for 0, 4, 8, 12, 16, 20;

    $s->reload;
    $at = listeners($s);
    is_deeply $each->(0, \&backlog), $all->(77), 'backlog after a reload';
    is_deeply $each->(0, $sol->(SO_REUSEPORT)), $all->(0), 'and no SO_REUSEPORT';
    ok $s->quit;
    $s->log_is_clean;
}

# -- Multipath TCP, from 1.29.7 on
SKIP: {
    my ($minor, $patch) = CC::Modules::build_info() =~ m{nginx/1\.(\d+)\.(\d+)};
    skip 'no "multipath" in this nginx', 1 if $minor * 100 + $patch < 2907;
    use constant IPPROTO_MPTCP => 262;
    socket my $probe, AF_INET, SOCK_STREAM, IPPROTO_MPTCP or skip 'no MPTCP', 1;
    skip 'no looking into the sockets of others here', 1 if !may_look();
    my $s = CC::Server->new(module => 1, workers => WORKERS, http => server('127.0.0.1:%PORT% multipath per_worker'))->start;
    my $protocols = sub {
        my $at = listeners($s, qr/^(?:tcp|\?)/);
        return [ map { sockopt(@{ $at->{ $s->port($_) } // [ $s->master_pid, -1 ] }, SOL_SOCKET, 38) } 0 .. WORKERS - 1 ];
    };
    is_deeply $protocols->(), [ (IPPROTO_MPTCP) x WORKERS ], 'multipath';
    is_deeply pids($s, 0, sub ($port) { $s->get($port)->body }), [ $s->workers ], 'each worker on its port';
    ok $s->reload(http => server('127.0.0.1:%PORT% per_worker')), 'reload without';
    is_deeply $protocols->(), [ (IPPROTO_TCP) x WORKERS ], 'plain TCP';
    is_deeply pids($s, 0, sub ($port) { $s->get($port)->body }), [ $s->workers ], 'each worker on its port';
    $s->log_is_clean;
}

# -- IPv4 through an IPv6 socket
SKIP: {
    skip 'no IPv6', 3 if !CC::Ports::has_ipv6();
    my $s = CC::Server->new(module => 1, workers => WORKERS, http => join "\n",
        server('[::]:%PORT% per_worker ipv6only=off'),
        server('[::]:%PORT+4% per_worker'), server('*:%PORT+4% per_worker'))->start;
    my @workers = $s->workers;
    is_deeply pids($s, 0, sub ($port) { $s->get("127.0.0.1:$port")->body }), \@workers,
        'ipv6only=off, over IPv4';
    is_deeply pids($s, 0, sub ($port) { $s->get("[::1]:$port")->body }), \@workers, 'over IPv6';
    is_deeply [ map { my $host = $_;
            @{ pids($s, 4, sub ($port) { $s->get("$host:$port")->body }) } } '127.0.0.1', '[::1]' ],
        [ @workers, @workers ], 'ipv6only=on: both wildcards on the same ports';
}

# -- proxy_protocol
{
    my $s = CC::Server->new(module => 1, workers => WORKERS, http =>
        server('127.0.0.1:%PORT% proxy_protocol per_worker', 'set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;'))
        ->start;
    my $ask = sub ($port) {
        my $c = $s->connect($port);
        $c->send("PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n");
        return $c->request(GET => '/')->body;
    };
    is_deeply pids($s, 0, $ask), [ $s->workers ], 'proxy_protocol';
    is_deeply [ map { $ask->($s->port($_)) =~ s/^\d+ //r } 0 .. WORKERS - 1 ],
        [ map { '192.0.2.7 ' . $s->port($_) . " HTTP/1.1\n" } 0 .. WORKERS - 1 ],
        'the address it brings, and the real port';
}

# -- http2 without TLS: the server's first frame is SETTINGS
SKIP: {
    skip 'no ngx_http_v2_module', 1 if CC::Modules::build_info() !~ /--with-http_v2_module/;
    my $s = CC::Server->new(module => 1, workers => WORKERS,
        http => server('127.0.0.1:%PORT% http2 per_worker'))->start;
    my @types = map {
        my $c = $s->connect($s->port($_));
        $c->send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" . pack('C9', 0, 0, 0, 4, 0, 0, 0, 0, 0));
        $s->wait_for(sub { $c->fill(CC::Wait::now() + 1); length $c->{buf} >= 9 }, 'a frame');
        (unpack 'C9', $c->{buf})[3];
    } 0 .. WORKERS - 1;
    is_deeply \@types, [ (4) x WORKERS ], 'http2';
    ok $s->quit;
    $s->log_is_clean;
}

# -- ssl
SKIP: {
    skip 'no openssl', 2 if system('openssl version > /dev/null 2>&1') != 0;
    skip 'no ngx_http_ssl_module', 2 if CC::Modules::build_info() !~ /--with-http_ssl_module/;
    my $s = CC::Server->new(module => 1, workers => WORKERS, http => server('127.0.0.1:%PORT% ssl per_worker',
        'ssl_certificate %PREFIX%/conf/crt; ssl_certificate_key %PREFIX%/conf/key;'));
    certificate($s) or skip 'no certificate', 2;
    $s->start;
    my $ask = sub ($port) {
        my $pid = IPC::Open2::open2(my $from, my $to,
            "openssl s_client -quiet -connect 127.0.0.1:$port 2>/dev/null");
        print $to "GET / HTTP/1.0\r\n\r\n";
        my $all = do { local $/; readline $from };
        waitpid $pid, 0;
        return ($all // '') =~ s/.*\r\n\r\n//sr;
    };
    is_deeply pids($s, 0, $ask), [ $s->workers ], 'ssl';
    ok $s->quit;
    $s->log_is_clean;
}

# -- quic: a version nobody knows is answered with those the server knows
sub quic_answers ($port) {
    socket my $udp, AF_INET, SOCK_DGRAM, 0;
    connect $udp, pack_sockaddr_in($port, INADDR_LOOPBACK);
    send $udp, pack('C N C a8 C a8 x1200', 0xc0, 0x1a2a3a4a, 8, 'destinat', 8, 'sourceid'), 0;
    return sub ($seconds) {
        my $bits = '';
        vec($bits, fileno $udp, 1) = 1;
        return 0 if select($bits, undef, undef, $seconds) <= 0;
        recv $udp, my $packet, 2048, 0;
        return (unpack 'C N', $packet)[1] == 0 ? 1 : 0;
    };
}

SKIP: {
    skip 'no ngx_http_v3_module', 1 if CC::Modules::build_info() !~ /--with-http_v3_module/;
    skip 'no openssl', 1 if system('openssl version > /dev/null 2>&1') != 0;
    my $tls = 'ssl_certificate %PREFIX%/conf/crt; ssl_certificate_key %PREFIX%/conf/key;';
    my $s = CC::Server->new(module => 1, workers => WORKERS, http =>
        server('127.0.0.1:%PORT% quic per_worker', $tls) . server('127.0.0.1:%PORT% ssl per_worker', $tls));
    certificate($s) or skip 'no certificate', 1;
    my ($rc, $out) = $s->try_start;
    is $rc, 0, 'quic and ssl on the same ports' or diag $out;
    my $want = [ sort map { my $a = '127.0.0.1:' . $s->port($_); ($a, "udp:$a") } 0 .. WORKERS - 1 ];
    is_deeply [ $s->listening ], $want, 'a UDP and a TCP socket for each worker';
    is_deeply [ map { quic_answers($s->port($_))->(10) } 0 .. WORKERS - 1 ], [ (1) x WORKERS ],
        'each answers';
    $s->signal(STOP => $s->worker_pid(1));
    my $held = quic_answers($s->port(1));
    is_deeply [ map { quic_answers($s->port($_))->(10) } 0, 2 ], [ 1, 1 ], 'with worker 1 stopped, the others do';
    is $held->(0), 0, 'and nobody does in its place';
    $s->signal(CONT => $s->worker_pid(1));
    is $held->(10), 1, 'but itself';
    ok $s->reload, 'reload';
    is_deeply [ $s->listening ], $want, 'the same sockets';
    is_deeply [ map { quic_answers($s->port($_))->(10) } 0 .. WORKERS - 1 ], [ (1) x WORKERS ],
        'each answers';
    ok $s->quit;
    $s->log_is_clean;
}

done_testing;
