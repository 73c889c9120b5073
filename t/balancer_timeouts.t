# cc_balancer_timeouts: constants and variables, for this request only, and what is refused.
use v5.36;
use Test::More;
use IO::Socket::INET;
use Time::HiRes qw(time);
use CC::Server;
use CC::Wait qw(SLOW);

my $refuser = CC::Server->new(module => 1, http => '');
my $s = CC::Server->new(module => 1, http => <<'E');
upstream fixed { cc_balancer 127.0.0.1:%PORT+5%; cc_balancer_timeouts 1s 1s 150ms; }
upstream varied { cc_balancer 127.0.0.1:%PORT+5%; cc_balancer_timeouts $arg_c $arg_s $arg_r; }
upstream full { cc_balancer 127.0.0.1:%PORT+6%; cc_balancer_timeouts 150ms 5s 5s; }
upstream kept { cc_balancer 127.0.0.1:%PORT+1%; cc_balancer_timeouts 5s 5s $arg_r; keepalive 4; }
server { listen 127.0.0.1:%PORT+1%; location / { return 200 "$connection\n"; } }
server {
    listen 127.0.0.1:%PORT%;
    proxy_next_upstream off;
    proxy_read_timeout 400ms;
    proxy_http_version 1.1;
    proxy_set_header Connection '';
    add_header X-Last $cc_balancer_last_failure always;
    location / { proxy_pass http://$arg_u; }
    location /post { proxy_pass http://varied; proxy_request_buffering on; }
    location /kept { proxy_pass http://kept; }
}
E
my $mute = IO::Socket::INET->new(Listen => 50, LocalAddr => '127.0.0.1', LocalPort => $s->port(5)) or die $!;
# a queue that takes one, and is full: to others nobody answers
my $full = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => $s->port(6)) or die $!;
my @waiting = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $s->port(6), Blocking => 0) } 1 .. 8;
$s->start;

sub took ($uri) {
    my $began = time;
    my $r = $s->get($s->port, $uri);
    return ($r, time - $began);
}

my ($r, $seconds) = took('/?u=fixed');
is $r->status, 504, 'the read timeout of the directive';
cmp_ok $seconds, '>=', 0.145, 'not before';
cmp_ok $seconds, '<', 0.4 * SLOW, 'and before that of the location';
is $r->header('X-Last'), 'failed 504', 'told';

($r, $seconds) = took('/?u=varied&r=50ms');
is $r->status, 504, 'a read timeout of the request';
cmp_ok $seconds, '<', 0.15 * SLOW, 'is shorter';
($r, $seconds) = took('/?u=varied');
is $r->status, 504, 'without a value it is the location\'s';
cmp_ok $seconds, '>=', 0.395, 'and no other request\'s';
($r, $seconds) = took('/?u=varied&r=600ms');
cmp_ok $seconds, '>=', 0.595, 'longer than the location\'s';

($r, $seconds) = took('/?u=full');
is $r->status, 504, 'the connect timeout';
cmp_ok $seconds, '>=', 0.145, 'not before';
cmp_ok $seconds, '<', 1 * SLOW, 'in time';

# the kept connections know a location by its conf: one with other timeouts is still the same
my %seen;
for my $n (1 .. 4) {
    my $r = $s->get($s->port, "/kept?r=${n}s");
    is $r->status, 200, 'over kept connections';
    $seen{ $r->body }++;
}
is keys %seen, 1, 'the same one each time';

for my $bad (qw(0 0ms x -1s 1x 99999999999s)) {
    my $at = $s->log_size;
    is $s->get($s->port, "/?u=varied&s=$bad")->status, 500, "$bad is refused";
    # the first with its value, those that follow within a second with their number
    ok $s->wait_log(qr/\[error\].* cc: invalid timeout in "\$arg_s", which is (?:"\Q$bad\E"|"[^"]*" \(\d+ more\))/, $at), 'and told';
}
for my $bad ('0 1s 1s', '1s 0ms 1s', '1s 1s 0', '1s 1s x', '1s 1s -1', '1s 1s ""') {
    my ($code, $output) = $refuser->try_conf("events {}\nhttp {\nupstream u {\ncc_balancer_timeouts $bad;\n}\n}\n");
    isnt $code, 0, "cc_balancer_timeouts $bad is refused";
    like $output, qr/\[emerg\] .*invalid value "[^"]*" in \S+:4\b/, 'where';
}

ok $s->quit, 'quit';
$s->log_is_clean(qr/timed out|invalid timeout/);
done_testing;
