# cc_cast: one call to several workers, and what they answer (C14 to C17, C19, C65). Without Lua.
use v5.36;
use Test::More;
use Time::HiRes qw(time);
use CC::Server;
use CC::Wait qw(SLOW);

my $http = 'cc_channel test; cc_channel quick timeout=300ms; client_max_body_size 2m;';
my $server = <<'CONF';
    listen 127.0.0.1:%PORT+1% per_worker;
    location ~ ^/([^/]+)/invoke { cc_invoke; cc_action who /who; cc_action bad /bad; cc_action some /some; cc_action hang /hang; }
    location ~ ^/([^/]+)/hub { cc_hub; cc_action who /who; }
    location ~ ^/([^/]+)/cast { cc_cast $arg_direction; }
    location ~ ^/([^/]+)/master { cc_cast master; }
    location = /sub { cc_cast workers test; }
    location = /who { internal; return 200 "$cc_worker_id $request_method $http_x_mine $http_cookie $args"; }
    location = /bad { internal; return 500 "broken"; }
    location = /some { internal; if ($cc_worker_id = 1) { return 503 "not me"; } return 201 "me"; }
    location = /hang { internal; proxy_pass http://127.0.0.1:%PORT+9%; }
CONF
my $s = CC::Server->new(module => 1, workers => 3, http => $http, server => $server)->start;
my $node = '127.0.0.1:' . $s->port;
my @pid = $s->workers;

my $r = $s->get($s->port, '/test/cast?who&x=%20', 'X-Mine' => 'a', Cookie => 'b=c', 'Accept-Encoding' => 'gzip');
is $r->status, 200, 'all have answered 2xx';
is $r->header('Content-Type'), 'application/json', 'in JSON';
is_deeply $r->json, {
    channel => 'test', direction => 'workers', asked => 3, answered => 3, missing => [],
    replies => [ map { {
        node => $node, worker => $_, port => $s->port(1 + $_), status => 200, body => "$_ GET a b=c who&x=%20",
    } } 0 .. 2 ],
}, 'with what each of them said';
is $s->request('POST', $s->port(2), '/test/cast?who', body => 'x' x 100_000)->json->{replies}[2]{body},
    '2 POST   who', 'for other methods, from any worker';

$r = $s->get($s->port, '/test/cast?some');
is $r->status, 207, 'some have answered 2xx';
is_deeply [ map { $_->{status} } $r->json->{replies}->@* ], [ 201, 503, 201 ], 'and who has not can be seen';
$r = $s->get($s->port, '/test/cast?bad');
is $r->status, 502, 'none has';
is $r->json->{answered}, 3, 'although all answered';
is $s->get($s->port, '/test/cast?nothing')->json->{replies}[0]{status}, 404, 'an unknown action';
$r = $s->get($s->port, '/nobody/cast?who');
is $r->status, 403, 'an unknown channel';

$r = $s->get($s->port(3), '/test/master?who');
is_deeply [ map { $_->{worker} } $r->json->{replies}->@* ], [ 0 ], 'master: the router only (C14)';
for my $direction (qw(super clients)) {
    $r = $s->get($s->port, "/test/cast?who&direction=$direction");
    is $r->status, 200, "$direction: there is nobody (C15, C16)";
    is $r->json->{asked}, 0, '... and nobody is asked';
}
$r = $s->get($s->port, '/test/cast?who&direction=tree');
is $r->json->{answered}, 3, 'tree: here the workers';
$r = $s->get($s->port, '/test/cast?who&direction=sideways');
is $r->status, 400, 'an unknown direction (C17)';
like $r->body, qr/^unknown direction "sideways"/, '... is told';

# -- a stopped worker costs the timeout, and nobody else's answer (C19, C65)
kill STOP => $pid[1];
my $start = time;
$r = $s->get($s->port(1), '/test/cast?who');
my $took = time - $start;
is $r->status, 207, 'with one worker stopped';
is_deeply [ map { $_->{worker} } $r->json->{replies}->@* ], [ 0, 2 ], 'the others have answered';
is_deeply $r->json->{missing}, [ { node => $node, worker => 1, error => 'timed out' } ], 'and it is missing';
cmp_ok $took, '>', 1.9, 'after the timeout';
cmp_ok $took, '<', 2.6 * SLOW, '... and no longer';
$start = time;
is $s->get($s->port(1), '/quick/cast?who')->status, 207, "a channel's own timeout";
cmp_ok time - $start, '<', 1.2 * SLOW, '... is shorter';
kill CONT => $pid[1];
is $s->get($s->port(1), '/test/cast?who')->status, 200, 'continued: all are back';

kill STOP => @pid[1, 2];
my @all = map { $s->connect($s->port(1)) } 1 .. 3;
$_->send("GET /quick/cast?who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") for @all[0, 1];
$all[2]->send("GET /quick/cast?who HTTP/1.1\r\nHost: a\r\n\r\n");
$all[2]->close;     # goes away: nobody waits for that one
like $_->read_all, qr/ 207 .*"answered":1/s, 'several at a time' for @all[0, 1];
kill CONT => @pid[1, 2];

# -- a killed worker is replaced, and the cast is complete again (C59)
my $heir = $s->kill_worker(2);
ok $s->wait_for(sub { $s->get($s->port, '/test/cast?who')->status == 200 }, 'all answer again'), 'after a kill';
is $s->get($s->port(3), '/test/cast?who')->json->{answered}, 3, 'complete';
$s->log_is_clean(qr/exited on signal 9/);

# -- no listener of one's own
my $t = CC::Server->new(module => 1, workers => 2, http => $http,
    server => 'location ~ ^/([^/]+)/cast { cc_cast; } location ~ ^/([^/]+)/invoke { cc_invoke; }')->start;
$r = $t->get($t->port, '/test/cast?who');
is $r->status, 502, 'without a per_worker listener nobody can be asked';
is $r->json->{missing}[0]{error}, 'no "listen ... per_worker"', '... which is told';
$t->log_is_clean;

# -- Unix sockets
my $u = CC::Server->new(module => 1, workers => 2, http => $http, server => <<'CONF')->start;
    listen unix:%PREFIX%/w per_worker;
    location ~ ^/([^/]+)/cast { cc_cast; }
    location ~ ^/([^/]+)/invoke { cc_invoke; cc_action who /who; }
    location ~ ^/([^/]+)/hub { cc_hub; cc_action who /who; }
    location = /who { internal; return 200 "$cc_worker_id"; }
CONF
$r = $u->get($u->port, '/test/cast?who');
is_deeply [ map { [ @$_{qw(worker port body)} ] } $r->json->{replies}->@* ], [ [ 0, undef, '0' ], [ 1, undef, '1' ] ],
    'workers behind Unix sockets';
is $u->get('unix:' . $u->path('w.1'), '/test/hub?who')->body, '0', 'and the router';
$u->log_is_clean;
done_testing;
