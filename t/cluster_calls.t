# The connections that calls go over: kept alive, given up, replaced, and gone when the worker goes.
# Seen through cc_hub and cc_cast. Without Lua.
use v5.36;
use Test::More;
use Time::HiRes qw(time);
use CC::Server;
use CC::Wait qw(SLOW);

my $http = 'cc_channel test; client_max_body_size 2m;';
my $server = <<'CONF';
    listen 127.0.0.1:%PORT+1% per_worker;
    location ~ ^/([^/]+)/hub {
        cc_hub;
        cc_action which /which; cc_action three /three; cc_action once /once; cc_action none /none;
        cc_action file /file; cc_action chunked /chunked; cc_action moved /moved; cc_action hang /hang;
    }
    location ~ ^/([^/]+)/invoke { cc_invoke; cc_action which /which; }
    location ~ ^/([^/]+)/cast { cc_cast; }
    location = /which { return 200 "$connection $connection_requests"; }
    location = /three { keepalive_requests 3; return 200 "$connection $connection_requests"; }
    location = /once { keepalive_timeout 0; return 200 "$connection"; }
    location = /none { return 204; }
    location = /file { alias %PREFIX%/file; }
    location = /chunked { ssi on; ssi_types *; default_type text/plain; alias %PREFIX%/file; }
    location = /moved { return 302 /elsewhere; }
    location = /hang { proxy_pass http://127.0.0.1:%PORT+9%; }
CONF
my $s = CC::Server->new(module => 1, workers => 2, http => $http, server => $server);
my $file = join '', map { chr(32 + $_ % 90) } 1 .. 1_000_000;
$s->write('file', $file);
$s->start;
sub hub ($action, $method = 'GET', %more) { $s->request($method, $s->port(2), "/test/hub?$action", %more) }
my ($router, $other) = $s->workers;
sub open_calls () {
    my $to = '127.0.0.1:' . $s->port(1);
    scalar grep { ($_->{remote} // '') eq $to && $_->{state} eq 'ESTABLISHED' } $s->sockets($other);
}

# -- one connection for many calls
my ($connection) = split ' ', hub('which')->body;
is hub('which')->body, "$connection $_", "call $_ goes over the same connection" for 2 .. 5;
is hub('which', $_)->status, 200, "$_ too" for qw(POST PUT DELETE PATCH);
is hub('none')->status, 204, 'an answer without a body';
is hub('moved')->status, 302, 'a redirect is an answer';
is hub('file', 'HEAD')->header('Content-Length'), 1_000_000, 'an answer to HEAD has its length';
is hub('file')->body, $file, 'a long answer';
is hub('chunked')->body, $file, 'a chunked one';
is hub('which', 'POST', body => 'x' x 1_000_000)->status, 200, 'a long call';
like hub('which')->body, qr/^$connection /, 'over the same connection, all of them';

# -- the peer closes it, in its answer or behind it
my %seen;
for (1 .. 9) {
    my $r = hub('three');
    is $r->status, 200, 'an answer though the peer closes now and then';
    $seen{ (split ' ', $r->body)[0] }++;
}
cmp_ok keys %seen, '>=', 3, 'each connection for its calls';
is scalar(keys %{ { map { hub('once')->body => 1 } 1 .. 5 } }), 5, 'Connection: close';
ok $s->wait_for(sub { open_calls() <= 1 }, 'closed connections to go'), 'none is left behind';

# -- many at once
my @all = map { $s->connect($s->port(2)) } 1 .. 40;
$_->send("GET /test/hub?which HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") for @all;
is scalar(grep { $_->read_all =~ /^HTTP\/1.1 200 / } @all), 40, '40 at once';
cmp_ok open_calls(), '<=', 40, 'no more connections than calls';

# -- the router stops: several calls wait, each on a connection of its own; they are given up in time
kill STOP => $router;
@all = map { $s->connect($s->port(2)) } 1 .. 5;
$_->send("GET /test/hub?which HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") for @all;
my $start = time;
is scalar(grep { $_->read_all =~ /^HTTP\/1.1 504 / } @all), 5, 'a router that is silent';
cmp_ok time - $start, '<', 3 * SLOW, 'in time';
kill CONT => $router;
is hub('which')->status, 200, 'and again';

# -- idle connections do not keep a worker that leaves, and are no sockets left open
hub('which');
cmp_ok open_calls(), '>=', 1, 'an idle connection';
$start = time;
ok $s->reload, 'reload';
cmp_ok time - $start, '<', 2 * SLOW, 'without waiting for it';

# -- a call under way keeps it, until its answer
($router, $other) = $s->workers;
kill STOP => $router;
my $c = $s->connect($s->port(2));
$c->send("GET /test/hub?which HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
ok $s->wait_for(sub { open_calls() }, 'the call'), 'a call';
kill QUIT => $other;
ok $s->wait_log(qr/ \Q$other\E#\d+: gracefully shutting down/), 'its worker is told to leave';
kill CONT => $router;
like $c->read_all, qr/^HTTP\/1.1 200 .*\r\n\r\n\d+ \d+$/s, 'the answer still comes';
ok $s->wait_for(sub { (($s->workers)[1] // $other) != $other }, 'the successor'), 'then it goes';

# -- reloads under load
my %status;
for my $round (1 .. 5) {
    $s->reload(wait_old => 0);
    $status{ $s->request($_ % 2 ? 'GET' : 'POST', $s->port(2), '/test/hub?which')->status }++ for 1 .. 50;
    $status{ $s->get($s->port, '/test/cast?which')->status }++ for 1 .. 5;
}
is_deeply [ keys %status ], [200], 'no call is lost over reloads' or diag explain \%status;
ok $s->quit, 'quit';
$s->log_is_clean;
done_testing;
