# cc_balancer with addresses from a variable: who is asked, in which order, and what is refused
# (B2, B4, B5, B6, B9, B27).
use v5.36;
use Test::More;
use CC::Ports;
use CC::Server;

my $ipv6 = CC::Ports::has_ipv6();
my $v6 = $ipv6 ? 'listen [::1]:%PORT+2%;' : '';
my $s = CC::Server->new(module => 1, http => <<"E")->start;
server {
    listen 127.0.0.1:%PORT+1%;
    listen 127.0.0.1:%PORT+2%;
    $v6
    listen unix:%PREFIX%/peer.sock;
    location / { return 200 "\$server_addr:\$server_port \$http_host\\n"; }
}
upstream bare { cc_balancer \$arg_to; }
upstream served { server 127.0.0.1:%PORT+1%; cc_balancer \$arg_to; }
upstream fixed { cc_balancer 127.0.0.1:%PORT+9%, 127.0.0.1:%PORT+2%; }
upstream before { keepalive 2; cc_balancer \$arg_to; }
upstream after { cc_balancer \$arg_to; keepalive 2; }
upstream both { least_conn; server 127.0.0.1:%PORT+1%; keepalive 2; cc_balancer \$arg_to; zone both 64k; }
upstream rand { zone rand 64k; server 127.0.0.1:%PORT+1%; random two; cc_balancer \$arg_to; }
upstream backup { server 127.0.0.1:%PORT+9%; server 127.0.0.1:%PORT+1% backup; cc_balancer \$arg_to; }
upstream late { cc_balancer \$arg_to; server 127.0.0.1:%PORT+1%; }
map \$uri \$chosen { default \$arg_to; /nobody ''; }
upstream mapped { cc_balancer \$chosen; }
server {
    listen 127.0.0.1:%PORT%;
    add_header X-Tries \$cc_balancer_tries always;
    add_header X-Addr \$upstream_addr always;
    proxy_set_header Host \$proxy_host;
    location / { proxy_pass http://\$arg_u; }
    location /bare { proxy_pass http://bare; }
    location /nobody { proxy_pass http://mapped; }
    location /plain { proxy_pass http://127.0.0.1:%PORT+1%; }
}
E

sub ask ($u, $to, $uri = '/') { $s->get($s->port, "$uri?u=$u&to=$to") }
sub peer ($plus, $host = '127.0.0.1') { "$host:" . $s->port($plus) }

for my $u (qw(bare served before after both rand backup late)) {
    my $r = ask($u, peer(2));
    is $r->status, 200, "$u: answered";
    is $r->body, peer(2) . " $u\n", "$u: by the one that was named, as the upstream";
    is $r->header('X-Addr'), peer(2), "$u: \$upstream_addr";
    like $r->header('X-Tries'), qr/^\Q${\peer(2)}\E ok 200 \d\.\d{3} \d\.\d{3}$/, "$u: one try";
}
is ask('bare', 'unix:' . $s->path('peer.sock'))->status, 200, 'a Unix socket';
is ask('bare', 'unix:' . $s->path('none.sock'))->status, 502, 'a Unix socket that nobody has';
SKIP: {
    skip 'no IPv6', 1 if !$ipv6;
    is ask('bare', peer(2, '[::1]'))->body, '::1:' . $s->port(2) . " bare\n", 'an IPv6 address';
}

# -- lists
my $r = ask('bare', peer(9) . ',' . peer(2));
is $r->header('X-Addr'), peer(9) . ', ' . peer(2), 'the second after the first';
is $r->status, 200, 'answered';
is ask('fixed', '')->header('X-Addr'), peer(9) . ', ' . peer(2), 'a list in the directive';

# -- nothing chosen
for my $u (qw(served both rand late)) {
    is ask($u, '')->body, peer(1) . " $u\n", "$u: the server where nothing is chosen";
}
is ask('backup', '')->body, peer(1) . " backup\n", 'backup servers are there, too';
my $at = $s->log_size;
is ask('bare', '')->status, 500, 'nothing chosen and no server';
ok $s->wait_log(qr/\[error\].*no peer set for upstream "bare", which has no servers/, $at), 'the log says it';
is $s->get($s->port, '/nobody?to=' . peer(1))->status, 500, 'an empty value of a map is nothing, too';
is $s->get($s->port, '/plain')->header('X-Tries'), undef, 'other upstreams are not looked at';

# -- what is no address
my %told;
for my $case (
    [ 'localhost:80', 'no host allowed' ], [ 'example.invalid', 'no host allowed' ],
    [ '256.1.1.1', 'no host allowed' ], [ '0', 'no host allowed' ], [ '*', 'no host allowed' ],
    [ '1.2.3.4/path', 'invalid host' ], [ '[::1', 'invalid host' ], [ '[::x]:80', 'invalid IPv6 address' ],
    [ '1.2.3.4:99999', 'invalid port' ], [ '1.2.3.4:', 'invalid port' ], [ '1.2.3.4:0', 'invalid port' ],
    [ '1.2.3.4', 'invalid port' ], [ '1.2.3.4:-1', 'invalid port' ], [ '::1', 'invalid port' ], [ ':80', 'no host' ],
    [ 'unix:', 'no path in the unix domain socket' ],
    [ 'unix:/' . 'x' x 120, 'too long path in the unix domain socket' ],
) {
    my ($bad, $why) = @$case;
    my $at = $s->log_size;
    is ask('served', $bad)->status, 500, "$bad is refused";
    # of several with the same reason the first is told, of the others the number
    ok $s->wait_log($told{$why}++ ? qr/\[error\].* cc: \Q$why\E in peer "[^"]+" of "\$arg_to".*(?: \(\d+ more\)$|"\Q$bad\E")/m
        : qr/\[error\].* cc: \Q$why\E in peer "\Q$bad\E" of "\$arg_to", which is "\Q$bad\E"/, $at), $why;
    my ($code, $output) = $s->try_conf("events {}\nhttp {\nupstream u {\n\ncc_balancer $bad;\n}\n}\n");
    isnt $code, 0, "$bad is refused in the directive";
    like $output, qr/\[emerg\] .*\Q$why\E in peer "\Q$bad\E" of "cc_balancer" in \S+:5\b/, 'with file and line';
}
$at = $s->log_size;
is ask('served', peer(1) . ',localhost:80')->status, 500, 'a bad one later in the list';
ok $s->wait_log(qr/no host allowed in peer "localhost:80"/, $at), 'is told';

is ask('served', peer(2))->body, peer(2) . " served\n", 'and the next request is served';
ok $s->quit, 'quit';
$s->log_is_clean(qr/no peer set|in peer|none\.sock|Connection refused/);
done_testing;
