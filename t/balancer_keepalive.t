# Kept connections under the balancer: before and after it, and where nginx keeps them by itself; one
# that turns out to be broken costs one free retry, and never a loop (B20, B27).
use v5.36;
use Test::More;
use IO::Socket::INET;
use POSIX ();
use CC::Server;

my $s = CC::Server->new(module => 1, ports => 40, http => <<'E');
upstream before { keepalive 8; cc_balancer $arg_to; }
upstream after { cc_balancer $arg_to; keepalive 8; }
upstream least { least_conn; keepalive 8; cc_balancer $arg_to; zone least 64k; server 127.0.0.1:%PORT+1%; }
upstream automatic { cc_balancer $arg_to; }
upstream robin { server 127.0.0.1:%PORT+1%; keepalive 8; cc_balancer; }
upstream plain { server 127.0.0.1:%PORT+1%; keepalive 8; }
upstream tried { cc_balancer $arg_to; cc_balancer_tries 3; keepalive 8; }
server {
    listen 127.0.0.1:%PORT+1%;
    listen 127.0.0.1:%PORT+2%;
    location / { return 200 "$connection\n"; }
}
server {
    listen 127.0.0.1:%PORT%;
    proxy_http_version 1.1;
    proxy_set_header Connection '';
    proxy_read_timeout 500ms;
    add_header X-Tries $cc_balancer_tries always;
    add_header X-Addr $upstream_addr always;
    location / { proxy_pass http://$arg_u; }
    location /set/before { proxy_pass http://before; }
    location /set/after { proxy_pass http://after; }
    location /set/tried { proxy_pass http://tried; }
    location /set/automatic { proxy_pass http://automatic; }
}
E
my $auto = ($s->nginx('-v'))[1] =~ m{nginx/1\.(\d+)\.(\d+)} && ($1 > 29 || $1 == 29 && $2 >= 7);

# A peer that answers the first request of each connection and closes it at the second: to nginx, a
# kept connection that is broken. Beyond $whole connections it closes at the first, too. Tells, one
# byte each, the connections and the requests that it saw.
my $free = 9;
sub closing_peer ($whole = 1e9) {
    my $plus = $free++;
    my $sock = IO::Socket::INET->new(Listen => 50, LocalAddr => '127.0.0.1', LocalPort => $s->port($plus)) or die $!;
    pipe my $from, my $to;
    my $pid = fork // die;
    if (!$pid) {
        close $from;
        setpgrp;
        local $SIG{CHLD} = 'IGNORE';
        my $seen = 0;
        while (my $c = $sock->accept) {
            syswrite $to, 'c';
            $seen++;
            next if fork;
            my $requests = 0;
            my $buffer = '';
            while (sysread $c, $buffer, 4096, length $buffer) {
                while ($buffer =~ s/^.*?\r\n\r\n//s) {
                    syswrite $to, 'r';
                    POSIX::_exit(0) if ++$requests > 1 || $seen > $whole;
                    syswrite $c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
                }
            }
            POSIX::_exit(0);
        }
        POSIX::_exit(0);
    }
    close $to;
    close $sock;
    setpgrp $pid, $pid;
    return { pid => $pid, from => $from, address => '127.0.0.1:' . $s->port($plus) };
}

sub told ($peer) {
    kill KILL => -$peer->{pid};
    waitpid $peer->{pid}, 0;
    local $/;
    my $text = readline $peer->{from};
    return (($text =~ tr/c//), ($text =~ tr/r//));
}

$s->start;
sub peer ($plus) { '127.0.0.1:' . $s->port($plus) }
sub ask ($u, $to, $uri = '/') { $s->get($s->port, "$uri?u=$u&to=$to") }

for my $u (qw(before after least robin plain), $auto ? 'automatic' : ()) {
    my %seen;
    $seen{ ask($u, peer(1), $u =~ /auto/ ? '/set/automatic' : '/')->body }++ for 1 .. 5;
    is keys %seen, 1, "$u: one connection for all";
}
for my $u (qw(before after)) {
    my @seen = map { my $to = peer($_); my %seen; $seen{ ask($u, $to)->body }++ for 1 .. 3; keys %seen } 2, 1;
    is @seen, 2, "$u: one for each address";
}

for my $u ('after', 'before', 'tried', $auto ? 'automatic' : ()) {
    my $peer = closing_peer();
    is ask($u, $peer->{address}, "/set/$u")->status, 200, "$u: a first request";
    my $r = ask($u, $peer->{address}, "/set/$u");
    is $r->status, 200, "$u: the second goes over another connection";
    like $r->header('X-Tries'), qr/^\S+ failed 502 \S+ -, \S+ ok 200 \S+ \S+$/, "$u: both are told";
    is_deeply [ told($peer) ], [ 2, 3 ], "$u: two connections, three requests";
}

# many broken ones: still one free retry, and it is over a new connection
for my $u (qw(after before)) {
    my $peer = closing_peer();
    my @clients = map { $s->connect } 1 .. 4;
    $_->send_request(GET => "/set/$u?to=" . $peer->{address}) for @clients;
    is $_->read_response->status, 200, "$u: four at once" for @clients;
    my $r = ask($u, $peer->{address}, "/set/$u");
    is $r->status, 200, "$u: the next one is answered";
    is @{ [ split /, /, $r->header('X-Addr') ] }, 2, "$u: with one free retry";
    told($peer);
}
# a peer that closes all new ones, too: no more than was asked for
for my $case ([ after => 2 ], [ tried => 4 ]) {
    my ($u, $count) = @$case;
    my $peer = closing_peer(4);
    my @clients = map { $s->connect } 1 .. 4;
    $_->send_request(GET => "/set/$u?to=" . $peer->{address}) for @clients;
    is $_->read_response->status, 200, "$u: four at once" for @clients;
    my $r = ask($u, $peer->{address}, "/set/$u");
    is $r->status, 502, "$u: closed again and again";
    cmp_ok scalar(@{ [ split /, /, $r->header('X-Addr') ] }), '<=', $count, "$u: the tries and a free one";
    told($peer);
}

ok $s->quit, 'quit';
$s->log_is_clean(qr/prematurely closed|reset by peer|Broken pipe/);
done_testing;
