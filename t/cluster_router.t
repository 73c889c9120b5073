# The router: found anew when it dies and over reloads (C4, C59 to C62), and what cc_hub answers when
# it cannot be reached. Without Lua.
use v5.36;
use Test::More;
use Time::HiRes qw(time);
use CC::Proc;
use CC::Server;
use CC::Wait qw(SLOW);

my $http = 'cc_channel test; cc_channel quick timeout=300ms;';
my $server = <<'CONF';
    listen 127.0.0.1:%PORT+1% per_worker;
    location ~ ^/([^/]+)/invoke { cc_invoke; cc_action who /who; }
    location ~ ^/([^/]+)/hub { cc_hub; cc_action who /who; cc_action hang /hang; }
    location = /who { return 200 "$cc_worker_id $pid $cc_router $cc_generation"; }
    location = /hang { proxy_pass http://127.0.0.1:%PORT+9%; }
CONF
my $s = CC::Server->new(module => 1, workers => 4, http => $http, server => $server)->start;
sub hub ($worker, $what = 'test/hub?who') { $s->get($s->port(1 + $worker), "/$what") }

is_deeply [ map { (split ' ', hub($_)->body)[0] } 0 .. 3 ], [ (0) x 4 ], 'worker 0 is the router';
my ($old) = $s->workers;

# -- it is killed: the master makes another one
my $start = time;
my $heir = $s->kill_worker(0, 'KILL');
isnt $heir, $old, 'a successor';
ok $s->wait_for(sub { my $r = hub(3); $r->status == 200 && (split ' ', $r->body)[1] == $heir }, 'the hub to be there', 5),
    'the successor is the router';
cmp_ok time - $start, '<', 1.5 * SLOW, 'within a second';

# -- it is killed while requests keep coming: none is lost but those that it had begun
{
    my ($pid) = $s->workers;
    my %status;
    my $end = time + 1.2;
    my $killed = 0;
    while (time < $end) {
        kill KILL => $pid if !$killed && time > $end - 1 && ++$killed;
        my $r = hub(2);
        $status{ $r->status }++;
    }
    is_deeply [ grep { $_ != 200 } keys %status ], [], 'GETs are asked again of the next one' or diag explain \%status;
    $s->wait_for(sub { ($s->workers)[0] != $pid }, 'the successor');
}

# -- it is stopped: an answer in time
{
    my ($pid) = $s->workers;
    kill STOP => $pid;
    my $start = time;
    my $r = hub(1, 'quick/hub?who');
    is $r->status, 504, 'a stopped router: 504';
    is $r->body, "worker 0, the router: read timed out\n", 'with the reason';
    cmp_ok time - $start, '<', 1 * SLOW, 'in time';
    kill CONT => $pid;
    is hub(1, 'quick/hub?who')->status, 200, 'continued: back';
}

# -- a client that goes away while the router thinks
{
    my ($pid) = $s->workers;
    kill STOP => $pid;
    my $c = $s->connect($s->port(2));
    $c->send("GET /test/hub?who HTTP/1.1\r\nHost: a\r\n\r\n");
    $c->close;
    kill CONT => $pid;
    is hub(1)->status, 200, 'is forgotten';
}

# -- reloads
ok $s->reload(workers => 4), 'reload';
is_deeply [ map { my @r = split ' ', hub($_)->body; [ @r[0, 3] ] } 0 .. 3 ], [ ([ 0, 2 ]) x 4 ],
    'the router is of the new generation';
ok $s->reload(workers => 2), 'reload to fewer (C62)';
is_deeply [ map { (split ' ', hub($_)->body)[0] } 0 .. 1 ], [ 0, 0 ], 'there is one';
my ($pid0, $pid1) = $s->workers;
ok $s->reload(workers => 1), 'to one';
is +(split ' ', $s->get($s->port, '/test/hub?who')->body)[0], 0, 'there is one';
ok $s->reload(workers => 3), 'to more';
is_deeply [ map { (split ' ', hub($_)->body)[0] } 0 .. 2 ], [ 0, 0, 0 ], 'there is one';

# -- a worker of the old generation, which still serves, asks the new one's router
{
    my $c = $s->connect($s->port(2), keepalive => 1);
    my ($p0, $p1) = $s->workers;
    $c->send("GET /test/hub?who HTTP/1.1\r\nHost: a\r\n");     # not complete: keeps the worker
    ok $s->reload(wait_old => 0), 'reload while a request comes in';
    $s->wait_for(sub { my ($n) = $s->workers; $n != $p0 }, 'new workers');
    $s->wait_for(sub { my @r = split ' ', hub(0)->body; ($r[3] // 0) == 6 }, 'the new router');
    $c->send("Connection: close\r\n\r\n");
    like $c->read_all, qr/200 OK.*\r\n\r\n0 \d+ \S* 6$/s, 'it is answered by the new router';
}

# -- two binaries have the same ports: a worker of the one may be answered by the other one's
ok $s->reload(workers => 4), 'four again';
my ($stays, $goes) = $s->upgrade(keep_old => 1);
my ($router, @others) = $s->worker_pids($stays);
# new ones have no connections yet
kill KILL => @others;
ok $s->wait_for(sub { my %now = map { $_ => 1 } $s->worker_pids($stays); keys %now == 4 && !grep { $now{$_} } @others }, 'successors'),
    'the old master has new workers';
my ($answers, @idle) = $s->worker_pids($goes);
kill STOP => $router, @idle;
for my $worker (1 .. 3) {
    my $r = hub($worker);
    is $r->status, 200, "worker $worker asks whoever is at the router's port";
    is +(split ' ', $r->body)[1], $answers, "... the other binary's router";
}
kill CONT => $router, @idle;
$s->signal(QUIT => $goes);
ok $s->wait_for(sub { !CC::Proc::alive($goes) }, 'the old master to leave'), 'the upgrade is over';
is hub(3)->status, 200, 'the hub is there';
ok $s->quit, 'quit';
$s->log_is_clean(qr/exited on signal 9/);
done_testing;
