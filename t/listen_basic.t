# listen ... per_worker: worker k on port base+k, and only it (P1, P2, P8).
use v5.36;
use Test::More;
use CC::Ports;
use CC::Server;

my $answer = 'location / { return 200 "$pid $server_addr $server_port '
    . '$cc_worker_id $cc_worker_port\n"; }';

# One hash for what answers at the peer.
sub who ($s, $peer) {
    my $body = $s->get($peer)->body;
    my %got;
    @got{qw(pid addr port id worker_port)} = split ' ', $body;
    return \%got;
}

# Worker k and nobody else on base+k.
sub each_on_its_own ($s, $host, $addr, $base, $name) {
    my @workers = $s->workers;
    my (@wrong, %seen);
    for my $k (0 .. $#workers) {
        for (1 .. 8) {
            my $got = who($s, "$host:" . ($base + $k));
            $seen{ $got->{pid} // 'nobody' }++;
            my $want = "$workers[$k] $addr " . ($base + $k) . " $k";
            my $is = join ' ', map { $_ // '-' } @$got{qw(pid addr port id)};
            push @wrong, "$is instead of $want" if $is ne $want;
        }
    }
    ok !@wrong, "$name: worker k on base+k, with its \$server_addr and \$server_port"
        or diag @wrong[0 .. ($#wrong < 3 ? $#wrong : 3)];
    is scalar(keys %seen), scalar(@workers), "$name: all workers answered";
    like $s->get("$host:" . ($base + @workers))->error, qr/refused/i,
        "$name: base+n is refused";
}

my $ipv6 = CC::Ports::has_ipv6();

for my $mutex (qw(off on)) {
    my @servers = (
        [ '%PORT%',            '127.0.0.1', '127.0.0.1', 0 ],
        [ '127.0.0.1:%PORT+8%', '127.0.0.1', '127.0.0.1', 8 ],
        [ '*:%PORT+16%',        '127.0.0.1', '127.0.0.1', 16 ],
    );
    push @servers,
        [ '[::1]:%PORT+24%', '[::1]', '::1', 24 ],
        [ '[::]:%PORT+32%',  '[::1]', '::1', 32 ],
        if $ipv6;
    my $http = join "\n", map { "server { listen $_->[0] per_worker; $answer }" } @servers;
    my $s = CC::Server->new(module => 1, workers => 4, ports => 48,
        events => "accept_mutex $mutex;", http => $http)->start;
    each_on_its_own($s, $_->[1], $_->[2], $s->port($_->[3]), "accept_mutex $mutex, $_->[0]")
        for @servers;
    ok $s->quit, 'leaves';
    $s->log_is_clean;
}

# -- several in one server, and a shared one beside them
{
    my $s = CC::Server->new(module => 1, workers => 3, http => "server {
        listen 127.0.0.1:%PORT%;
        listen 127.0.0.1:%PORT+11% per_worker;
        listen 127.0.0.1:%PORT+4% per_worker;
        listen 127.0.0.1:%PORT+1% reuseport;
        $answer }")->start;
    my @workers = $s->workers;
    is_deeply [ map { who($s, $s->port($_))->{pid} } 11 .. 13, 4 .. 6 ],
        [ @workers, @workers ], 'each listen counts from a base of its own';
    is_deeply [ map { who($s, $s->port(4 + $_))->{worker_port} } 0 .. 2 ],
        [ map { $s->port(11 + $_) } 0 .. 2 ],
        '$cc_worker_port is the one declared first';
    my $shared = who($s, $s->port);
    is $shared->{port}, $s->port, 'the shared port answers';
    is $shared->{worker_port}, $s->port(11 + $shared->{id}),
        'and there too $cc_worker_port is the own one';
    like who($s, $s->port(1))->{pid}, qr/^\d+$/, 'a reuseport one too';
    is_deeply [ $s->listening ],
        [ sort map { '127.0.0.1:' . $s->port($_) } 0, 1, 4 .. 6, 11 .. 13 ],
        'no other socket';
    ok $s->quit;
    $s->log_is_clean;
}

# -- without the word nothing changes
{
    my $s = CC::Server->new(module => 1, workers => 2, http =>
        'server { listen 127.0.0.1:%PORT%;
            location / { return 200 "[$cc_worker_port]$cc_worker_id"; } }')->start;
    like $s->get($s->port)->body, qr/^\[\][01]$/, 'no $cc_worker_port then, a $cc_worker_id always';
    is_deeply [ $s->listening ], [ '127.0.0.1:' . $s->port ], 'one socket';
}

# -- a name with all its addresses
{
    my $s = CC::Server->new(module => 1, workers => 2,
        http => "server { listen localhost:%PORT% per_worker; $answer }");
    my ($rc, $out) = $s->try_start;
    SKIP: {
        skip 'localhost has no address here', 2 if $out =~ /host not found/;
        is $rc, 0, 'a name' or diag $out;
        my @hosts = map { /^(.*):/ } grep { /:\d*$s->{port}$/ } $s->listening;
        my @workers = $s->workers;
        is_deeply [ map { my $h = $_; map { who($s, "$h:" . $s->port($_))->{pid} } 0, 1 } @hosts ],
            [ (@workers) x @hosts ], "each of its addresses (@hosts)";
    }
}

# -- a port range elsewhere, neighbours on all sides
{
    my $s = CC::Server->new(module => 1, workers => 4, http => "
        server { listen 127.0.0.1:%PORT%-%PORT+3%; $answer }
        server { listen 127.0.0.1:%PORT+4% per_worker; $answer }
        server { listen 127.0.0.1:%PORT+8%; $answer }")->start;
    my @workers = $s->workers;
    is_deeply [ map { who($s, $s->port(4 + $_))->{pid} } 0 .. 3 ], \@workers,
        'fits between a port range and its neighbour';
}

done_testing;
