# The balancer under fastcgi, uwsgi, scgi, grpc and https: the address is chosen, names and
# certificates stay those of the upstream.
use v5.36;
use Test::More;
use IO::Socket::INET;
use POSIX ();
use CC::Server;

my $s = CC::Server->new(module => 1, ports => 24);

# Answers each connection once: $answer of the request's bytes, once it has the whole of it.
sub peer ($plus, $answer) {
    my $sock = IO::Socket::INET->new(Listen => 20, LocalAddr => '127.0.0.1', LocalPort => $s->port($plus)) or die $!;
    my $pid = fork // die;
    return $pid if $pid;
    while (my $c = $sock->accept) {
        my $buffer = '';
        my $text;
        until (defined($text = $answer->($buffer))) {
            sysread $c, $buffer, 4096, length $buffer or last;
        }
        syswrite $c, $text if defined $text;
        close $c;
    }
    POSIX::_exit(0);
}

sub fastcgi ($bytes) {
    my $at = 0;
    while (length $bytes >= $at + 8) {
        my (undef, $type, $id, $length, $padding) = unpack 'CCnnC', substr $bytes, $at;
        return join '', map { pack('CCnnCx', 1, $_->[0], $id, length $_->[1], 0) . $_->[1] }
            [ 6, "Status: 200\r\n\r\nfastcgi" ], [ 6, '' ], [ 3, "\0" x 8 ] if $type == 5 && !$length;
        $at += 8 + $length + $padding;
    }
    return undef;
}

sub scgi ($bytes) {
    my ($length) = $bytes =~ /^(\d+):/ or return undef;
    return length $bytes >= $length + 2 + length $length ? "Status: 200 OK\r\n\r\nscgi" : undef;
}

sub uwsgi ($bytes) {
    return undef if length $bytes < 4 || length $bytes < 4 + unpack 'xv', $bytes;
    return "HTTP/1.0 200 OK\r\n\r\nuwsgi";
}

my @peers = (peer(3, \&fastcgi), peer(4, \&scgi), peer(5, \&uwsgi));
END { kill KILL => @peers if @peers }

my %port = (fastcgi => 3, scgi => 4, uwsgi => 5, grpc => 6);
my $has_openssl = do {
    # for the names in certificates to be those of no address
    system('openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=secure.test '
        . "-addext subjectAltName=DNS:secure.test -keyout '@{[ $s->path('key.pem') ]}' "
        . "-out '@{[ $s->path('cert.pem') ]}' >/dev/null 2>&1") == 0;
};
my $h2 = ($s->nginx('-v'))[1] =~ m{nginx/1\.(\d+)\.} && $1 >= 25 ? [ '', 'http2 on;' ] : [ 'http2', '' ];
my $secure = !$has_openssl ? '' : <<'E';
upstream secure.test { cc_balancer "127.0.0.1:%PORT+9%, 127.0.0.1:%PORT+7%"; keepalive 4; }
upstream other.test { cc_balancer 127.0.0.1:%PORT+7%; }
upstream named.test { server 127.0.0.1:%PORT+7%; cc_balancer_tries 2; }
server {
    listen 127.0.0.1:%PORT+7% ssl;
    ssl_certificate %PREFIX%/cert.pem;
    ssl_certificate_key %PREFIX%/key.pem;
    location / { return 200 "$ssl_server_name $ssl_session_reused $connection"; }
}
E
my $in_server = !$has_openssl ? '' : <<'E';
    proxy_ssl_verify on;
    proxy_ssl_trusted_certificate %PREFIX%/cert.pem;
    proxy_ssl_server_name on;
    proxy_http_version 1.1;
    proxy_set_header Connection '';
    location /secure { proxy_pass https://secure.test; }
    location /other { proxy_pass https://other.test; }
    location /renamed { proxy_ssl_name secure.test; proxy_pass https://other.test; }
    location /named { proxy_ssl_name secure.test; proxy_pass https://named.test; }
E
my $upstreams = join "\n", map { "upstream $_ { cc_balancer 127.0.0.1:%PORT+9%,127.0.0.1:%PORT+$port{$_}%; }" } keys %port;
my $locations = join "\n", map { "location /$_ { ${_}_pass $_; }" } keys %port;
$s->start(http => <<"E");
$upstreams
$secure
server { listen 127.0.0.1:%PORT+6% $h2->[0]; $h2->[1] location / { return 200 grpc; } }
server {
    listen 127.0.0.1:%PORT%;
    add_header X-Addr \$upstream_addr always;
    $in_server
    $locations
}
E

sub at ($plus) { '127.0.0.1:' . $s->port($plus) }
for my $name (sort keys %port) {
    my $r = $s->get($s->port, "/$name");
    is $r->status, 200, "$name: answered";
    is $r->body, $name, "$name: by its peer";
    is $r->header('X-Addr'), at(9) . ', ' . at($port{$name}), "$name: the second one";
}
SKIP: {
    skip 'no openssl to make a certificate', 9 if !$has_openssl;
    my $r = $s->get($s->port, '/secure');
    is $r->status, 200, 'https: the certificate is that of the upstream\'s name';
    like $r->body, qr/^secure\.test /, 'which is asked for';
    is $r->header('X-Addr'), at(9) . ', ' . at(7), 'not the address';
    is $s->get($s->port, '/secure')->body, $r->body, 'the connection is kept';
    is $s->get($s->port, '/other')->status, 502, 'the certificate of another name is refused';
    for my $n (1 .. 2) {
        $r = $s->get($s->port, '/renamed');
        is $r->status, 200, 'proxy_ssl_name';
    }
    my $named = $s->get($s->port, '/named');
    $r = $s->get($s->port, '/named');
    is $r->status, 200, 'https to the servers';
    # or the connection is kept
    my ($number) = $named->body =~ /(\d+)$/;
    like $r->body, qr/^secure\.test (?:r \d+|\. $number)$/, 'whose sessions are resumed';
}
ok $s->quit, 'quit';
$s->log_is_clean(qr/Connection refused|upstream SSL certificate does not match/);
done_testing;
