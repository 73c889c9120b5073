# Nodes: five of them in a tree on this machine. They find their supers by themselves, are known in
# every worker, die, come back, move; casts reach all below (C15, C16, C48 to C57, C63, C64, C66).
use v5.36;
use Test::More;
use Time::HiRes qw(time);
use CC::Ports;
use CC::Server;
use CC::Wait qw(SLOW);

my $server = <<'CONF';
    listen 127.0.0.1:%PORT+1% per_worker;
    location ~ ^/([^/]+)/invoke { cc_invoke; cc_action who /who; }
    location ~ ^/([^/]+)/hub { cc_hub; cc_action who /who; }
    location ~ ^/([^/]+)/cast { cc_cast $arg_direction; }
    location = /who { internal; return 200 "$cc_node $cc_worker_id"; }
CONF

sub node (%o) {
    my $http = join ' ', map { "$_;" } 'cc_channel test heartbeat=500ms', 'cc_channel kada', $o{super} ? "cc_super $o{super}" : (), $o{http} // ();
    my $s = CC::Server->new(module => 1, lua => 0, workers => $o{workers} // 2, http => $http, server => $server);
    return $s->start;
}
sub name ($s) { '127.0.0.1:' . $s->port }
sub stat_of ($s, $port = $s->port, $ch = 'test') { $s->get($port, "/$ch/hub?getServiceStat")->json }
# the tree as { name => { ... } }
sub tree ($stat) { my $c = $stat->{clients}; return { map { $_ => tree($c->{$_}) } ref $c eq 'HASH' ? keys %$c : () } }
sub becomes ($s, $want, $name) {
    my $got;
    my $ok = $s->wait_for(sub { $got = tree(stat_of($s)); explain_($got) eq explain_($want) }, $name, 15);
    is_deeply $got, $want, $name;
}
sub explain_ ($t) { join ',', map { "$_(" . explain_($t->{$_}) . ')' } sort keys %$t }
sub ask ($s, $what, $port = $s->port) { $s->get($port, "/test/$what") }

my $root = node();
my $bb = node(super => name($root));
my $c = node(super => name($root));
my $d = node(super => name($bb));
my $e = node(super => name($bb), workers => 1);

becomes($root, { name($bb) => { name($d) => {}, name($e) => {} }, name($c) => {} }, 'the tree is found');
my $stat = stat_of($root);
is $stat->{service}, name($root), 'service';
is $stat->{ports}, join(',', map { $root->port($_) } 1, 2), 'ports';
is $stat->{routePort}, $root->port(1), 'routePort';
ok !exists $stat->{super}, 'a root has no super';
is $stat->{clients}{ name($bb) }{super}, name($root), 'a client has one';
is_deeply $stat->{clients}{ name($c) }{clients}, [], 'who has no clients has an empty list, as in the original';
ok !exists ask($root, 'hub?getServiceStat&selfOnly=1')->json->{clients}, 'selfOnly (C48)';
is_deeply tree($root->get($root->port(2), '/test/invoke?getServiceStat')->json), tree($stat), 'every worker knows';
ok $root->wait_for(sub { keys tree(stat_of($root, $root->port, 'kada'))->%* == 2 }, 'the other channel'), 'each channel has its tree';

# -- casts
my $r = ask($root, 'cast?who&direction=clients');
is $r->status, 200, 'clients';
is_deeply [ map { $_->{node} } $r->json->{replies}->@* ], [ sort { (split /:/, $a)[1] <=> (split /:/, $b)[1] } name($bb), name($c) ], 'each client, once (C15, C51)';
like $_->{body}, qr/^\Q$_->{node}\E \d$/, 'answers for itself' for $r->json->{replies}->@*;
$r = ask($d, 'cast?who&direction=super');
is $r->json->{replies}[0]{node}, name($bb), 'super (C16)';
is ask($root, 'cast?who&direction=super')->json->{asked}, 0, 'of the root: nobody';
$r = ask($root, 'cast?who&direction=tree', $root->port(2));
is $r->status, 200, 'tree';
is_deeply [ sort map { $_->{body} } $r->json->{replies}->@* ],
    [ sort map { my $s = $_; map { name($s) . " $_" } $s == $e ? 0 : (0, 1) } $root, $bb, $c, $d, $e ], 'every worker of every node, once';
$r = ask($bb, 'cast?who&direction=tree');
is $r->json->{answered}, 5, 'of a node in the middle: what is below';

# -- a node that is stopped costs its part only
kill STOP => $d->master_pid, $d->worker_pids;
my $start = time;
$r = ask($root, 'cast?who&direction=tree');
is $r->status, 207, 'one node hangs';
is $r->json->{answered}, 7, 'the others have answered';
is_deeply [ map { $_->{node} } $r->json->{missing}->@* ], [ name($d) ], 'which one is told';
cmp_ok time - $start, '<', 3 * SLOW, 'in time';
kill CONT => $d->worker_pids, $d->master_pid;
becomes($root, { name($bb) => { name($d) => {}, name($e) => {} }, name($c) => {} }, 'it is back');

# -- the router of a node in the middle is killed: the next one goes on
$bb->kill_worker(0);
becomes($root, { name($bb) => { name($d) => {}, name($e) => {} }, name($c) => {} }, 'a router is killed');
ok $bb->reload(workers => 1), 'and reloaded to one worker';
becomes($root, { name($bb) => { name($d) => {}, name($e) => {} }, name($c) => {} }, 'the tree stays');

# -- a leaf dies, and comes back
$e->quit;
becomes($root, { name($bb) => { name($d) => {} }, name($c) => {} }, 'a node that is gone is forgotten (C63)');
$e->start;
becomes($root, { name($bb) => { name($d) => {}, name($e) => {} }, name($c) => {} }, 'and taken back (C66)');

# -- a node in the middle dies: those below turn to its super, and return when it is back
$bb->quit;
becomes($root, { name($c) => {}, name($d) => {}, name($e) => {} }, 'a node in the middle dies: its super takes its clients');
is ask($d, 'cast?who&direction=super')->json->{replies}[0]{node}, name($root), 'their super is another one (C64)';
$bb->start;
becomes($root, { map { name($_) => {} } $bb, $c, $d, $e }, 'it comes back');
$_->quit && $_->start for $d, $e;
becomes($root, { name($bb) => { name($d) => {}, name($e) => {} }, name($c) => {} }, 'who is started anew asks it first');

# -- all supers are gone: a node works on, and finds them again
{
    my $f = node(super => name($e));
    ok $f->wait_for(sub { tree(stat_of($e))->{ name($f) } }, 'a client'), 'one more';
    $e->quit;
    kill STOP => $root->master_pid, $root->worker_pids, $bb->master_pid, $bb->worker_pids;
    is $f->get($f->port, '/test/hub?who')->status, 200, 'without any super it works';
    kill CONT => $bb->worker_pids, $bb->master_pid, $root->worker_pids, $root->master_pid;
    $f->quit;
    $e->start;
    becomes($root, { name($bb) => { name($d) => {}, name($e) => {} }, name($c) => {} }, 'all is as before');
}

# -- transfer (C54)
$r = ask($d, 'hub?transferServer=' . name($c), $d->port(2));
is $r->status, 200, 'transferServer' or diag $r->body;
is $r->body, "Okay.\n", '... Okay.';
becomes($root, { name($bb) => { name($e) => {} }, name($c) => { name($d) => {} } }, 'both supers know at once');
is stat_of($d, $_)->{super}, name($c), 'and every worker' for $d->port(1), $d->port(2);
ok $d->reload, 'it holds over a reload';
becomes($root, { name($bb) => { name($e) => {} }, name($c) => { name($d) => {} } }, 'it stays there');
is ask($c, 'hub?transferServer=' . name($d))->status, 409, 'a circle is refused';
is ask($d, 'hub?transferServer=10.9.9.9:80')->status, 403, 'so is an address that is not allowed';
is ask($d, 'hub?transferServer')->status, 400, 'and none';
is ask($d, 'hub?transferServer=127.0.0.1:' . CC::Ports::port())->status, 503, 'and one where nobody is';
becomes($root, { name($bb) => { name($e) => {} }, name($c) => { name($d) => {} } }, 'nothing has changed');

# -- the original's way to report (C50)
is ask($root, 'hub?reportHubPort=' . $c->port)->status, 200, 'reportHubPort of a node that is there';
is ask($root, 'hub?reportHubPort=' . CC::Ports::port())->status, 403, 'of one that is not: the dial-back fails';
is ask($root, 'hub?reportHubPort=abc,1.2.3.4:5')->status, 400, 'of what is no port';
is ask($root, 'hub?registerWorker=' . $root->port(1) . '&pid=' . ($root->workers)[0])->status, 200, 'registerWorker (C53)';
is ask($root, 'hub?registerWorker=1&pid=1')->status, 404, 'of a stranger';
is ask($root, 'hub?registerWorker=80')->status, 400, 'without pid';
is ask($root, 'hub?heartbeat')->body, "Okay.\n", 'heartbeat';
is ask($root, 'hub?heartbeat=abc1')->body, "abc1\n", 'with a nonce';
is $root->request('POST', $root->port, '/test/hub?heartbeat', body => '{"type":"NONE"}')->status, 400, 'a message that is none';

# -- casts of built-ins
is ask($root, 'cast?getServiceStat&selfOnly=1')->json->{answered}, 2, 'a built-in can be cast';
is ask($root, 'cast?heartbeat')->status, 400, 'not what is between two nodes';
for my $what ('transferServer=127.0.0.1:1', 'who&transferServer=127.0.0.1:1') {
    my $r = $root->get($root->port(2), "/test/cast?$what&direction=clients", 'X-Forwarded-For' => '10.0.0.1');
    is $r->status, 403, "nobody casts $what for who may not";
}
$r = ask($c, 'cast?direction=clients&transferServer=' . name($bb));
is $r->status, 200, 'who may sends all clients elsewhere' or diag $r->body;
becomes($root, { name($bb) => { name($d) => {}, name($e) => {} }, name($c) => {} }, 'they have gone');

# -- who asks from elsewhere changes nothing
for my $what (qw(transferServer=127.0.0.1:1 reportHubPort=1 reportClient=1 heartbeat registerWorker=1&pid=1 invalidWorker=1 invalidClient=1.2.3.4:1)) {
    for my $header ('X-Forwarded-For', 'Via') {
        my $r = $root->get($root->port(2), "/test/hub?$what", $header => '10.0.0.1');
        is $r->status, 403, "$what through a proxy: 403";
        is $r->body, "no proof of who asks\n", 'with the reason';
    }
}
ok $root->wait_log(qr/\[warn\] .*cc: transferServer: 403, no proof of who asks/), 'and a line in the log';

# -- another configuration
my $channels = 'cc_channel test heartbeat=500ms; cc_channel kada;';
ok $e->quit && $e->start(http => "$channels cc_super ${\name($c)};"), 'a start with another super';
becomes($root, { name($bb) => { name($d) => {} }, name($c) => { name($e) => {} } }, 'moves the node');
ok $e->reload(http => $channels), 'a reload without';
becomes($root, { name($bb) => { name($d) => {} }, name($c) => {} }, 'makes it a root');
ok !exists stat_of($e)->{super}, '... by its own word, too';

$_->log_is_clean(qr/exited on signal 9/, qr/connect\(\) failed/) for $root, $bb, $c, $d, $e;
done_testing;
