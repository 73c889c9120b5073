# How often a request is tried, and what is told of each try, without Lua (B12, B14, B16..B18, B21,
# B22): the last failing one is told, too.
use v5.36;
use Test::More;
use IO::Socket::INET;
use CC::Server;

my $s = CC::Server->new(module => 1, ports => 24, http => <<E);
server {
    listen 127.0.0.1:%PORT+1%;
    listen 127.0.0.1:%PORT+2%;
    listen 127.0.0.1:%PORT+3%;
    location / { return 200 "fine\n"; }
    @{[ map { "location ~ /$_ { return $_; }" } 200, 401, 403, 404, 429, 500, 502, 503, 504 ]}
}
server {
    listen 127.0.0.1:%PORT+4%;
    location / { return 444; }
}
upstream one { server 127.0.0.1:%PORT+1%; cc_balancer \$arg_to; }
upstream three { server 127.0.0.1:%PORT+1%; server 127.0.0.1:%PORT+2%; server 127.0.0.1:%PORT+3%; cc_balancer \$arg_to; }
upstream exactly { server 127.0.0.1:%PORT+1%; cc_balancer \$arg_to; cc_balancer_tries 4; }
upstream only { server 127.0.0.1:%PORT+1%; cc_balancer_tries 3; }
upstream several { server 127.0.0.1:%PORT+1% max_fails=0; server 127.0.0.1:%PORT+2% max_fails=0; cc_balancer_tries 5; }
upstream kept { server 127.0.0.1:%PORT+1% max_fails=0; server 127.0.0.1:%PORT+2% max_fails=0; keepalive 2; cc_balancer_tries 5; }
upstream failing { server 127.0.0.1:%PORT+1%; server 127.0.0.1:%PORT+2%; cc_balancer_tries 9; }
upstream many { cc_balancer \$arg_to; cc_balancer_tries 100; }
server {
    listen 127.0.0.1:%PORT%;
    add_header X-Tries \$cc_balancer_tries always;
    add_header X-Addr \$upstream_addr always;
    add_header X-Last \$cc_balancer_last_failure always;
    proxy_read_timeout 200ms;
    proxy_next_upstream error timeout http_403 http_404 http_429 http_500 http_502 http_503 http_504;
    location / { proxy_pass http://\$arg_u; }
    location /limited/ { proxy_next_upstream_tries 2; proxy_pass http://\$arg_u; }
    location /off/ { proxy_next_upstream off; proxy_pass http://\$arg_u; }
    location /timed/ { proxy_next_upstream_timeout 300ms; proxy_pass http://\$arg_u; }
    location /few/ { proxy_next_upstream error; proxy_pass http://\$arg_u; }
    location /again/ { error_page 502 = \@other; proxy_pass http://one; }
    location \@other { proxy_pass http://exactly; }
    location /stale/ { proxy_set_header Connection ''; proxy_http_version 1.1; proxy_pass http://\$arg_u; }
}
E
# accepted by the kernel, never answered
my $mute = IO::Socket::INET->new(Listen => 50, LocalAddr => '127.0.0.1', LocalPort => $s->port(5)) or die $!;
$s->start;

sub peer ($plus) { '127.0.0.1:' . $s->port($plus) }
sub tries ($r) { [ map { (split ' ')[1, 2] } split /, /, $r->header('X-Tries') // '' ] }

sub made ($u, $to, $uri, $count, $status, $name, %more) {
    my $r = $s->request($more{method} // 'GET', $s->port, "$uri?u=$u&to=$to");
    is $r->status, $status, "$name: $status";
    is @{ [ split /, /, $r->header('X-Addr') // '' ] }, $count, "$name: $count tries";
    is @{ tries($r) } / 2, $count, "$name: all of them told" or diag $r->header('X-Tries');
    is $r->header('X-Last'), $more{last}, "$name: the last failure" if exists $more{last};
    return $r;
}

# as many as there are servers, or peers
made('one',   peer(1), '/500', 1, 500, 'one server',  last => 'failed 500');
made('three', peer(1), '/500', 3, 500, 'three servers', last => 'failed 500');
made('one',   join(',', (peer(1)) x 3), '/503', 3, 503, 'three peers', last => 'failed 503');
made('one',   peer(1), '/200', 1, 200, 'no failure', last => undef);

# as many as were asked for, from the first peer again
my $r = made('exactly', peer(9) . ',' . peer(8), '/', 4, 502, 'cc_balancer_tries', last => 'failed 502');
is $r->header('X-Addr'), join(', ', peer(9), peer(8), peer(9), peer(8)), 'in turn';
made('exactly', peer(1), '/404', 4, 404, 'four times one', last => 'next 404');
made('only', '', '/500', 3, 500, 'a lone server is tried again');
made('several', '', '/500', 5, 500, 'round robin begins anew');
made('kept', '', '/500', 5, 500, 'over kept connections, too');
# two tries, and the one that finds nobody
$r = made('failing', '', '/500', 3, 502, 'those that failed are not tried again');
like $r->header('X-Tries'), qr/, failing failed 502 - -$/, 'nobody is left';
made('many', peer(9), '/', 100, 502, 'a hundred');

# nginx's limits
made('exactly', peer(9), '/limited/', 2, 502, 'proxy_next_upstream_tries');
made('exactly', peer(9), '/off/', 1, 502, 'proxy_next_upstream off');
made('exactly', peer(5), '/timed/', 2, 504, 'proxy_next_upstream_timeout', last => 'failed 504');
made('exactly', peer(1), '/few/500', 1, 500, 'a status that is not listed', last => undef);
made('exactly', peer(1), '/401', 1, 401, '401 is passed on', last => undef);

# POST
made('exactly', peer(9), '/', 4, 502, 'POST after refused', method => 'POST');
made('exactly', peer(1), '/500', 1, 500, 'POST after 500', method => 'POST', last => 'failed 500');
made('exactly', peer(5), '/', 1, 504, 'POST after a timeout', method => 'POST');

# what is told
for my $case ([ 403, 'next' ], [ 404, 'next' ], map { [ $_, 'failed' ] } 429, 500, 502, 503, 504) {
    my ($status, $state) = @$case;
    $r = made('one', join(',', (peer(1)) x 2), "/$status", 2, $status, $status, last => "$state $status");
    is_deeply tries($r), [ ($state, $status) x 2 ], "$status is $state";
    like $r->header('X-Tries'), qr/^(\S+ \w+ \d+ \d\.\d{3} \d\.\d{3}(, |$)){2}/, 'with times';
}
$r = made('one', join(',', peer(9), peer(4), peer(5), peer(1)), '/200', 4, 200, 'one failure after the other');
is $r->header('X-Tries') =~ s/\d\.\d{3}/T/gr,
    sprintf('%s failed 502 - -, %s failed 502 T -, %s failed 504 T -, %s ok 200 T T', map { peer($_) } 9, 4, 5, 1),
    'refused, closed early, timed out, answered';
is $r->header('X-Last'), 'failed 504', 'the last failure';

# a second upstream of the same request
$r = $s->get($s->port, '/again/?to=' . peer(9));
is $r->header('X-Tries'), join(', ', (peer(9) . ' failed 502 - -') x 5), 'tries of all upstreams of a request';

ok $s->quit, 'quit';
$s->log_is_clean(qr/Connection refused|timed out|prematurely closed|no live upstreams/);
done_testing;
