# cc_balancer clients: a gateway and three nodes below it. A key has its node; one that dies takes
# only its keys with it, and gets them back.
use v5.36;
use Test::More;
use CC::Server;

my $server = <<'E';
    listen 127.0.0.1:%PORT+1% per_worker;
    location ~ ^/([^/]+)/hub { cc_hub; }
    location / { return 200 "$cc_node"; }
E

sub node ($super, $http = '', $more = '') {
    my $up = $super ? "cc_super $super;" : '';
    return CC::Server->new(module => 1, lua => 0, workers => 2, http => "cc_channel test heartbeat=500ms; $up $http",
        server => "$server $more")->start;
}
sub name ($s) { '127.0.0.1:' . $s->port }

my $gateway = node('', <<'E', <<'L');
upstream nodes { cc_balancer clients channel=test key=$arg_k; keepalive 8; }
upstream fallback { server 127.0.0.1:%PORT%; cc_balancer clients channel=test key=$arg_k; }
upstream even { cc_balancer clients channel=$arg_ch; cc_balancer_tries 3; }
E
    add_header X-Tries $cc_balancer_tries always;
    location /nodes { proxy_pass http://nodes; }
    location /fallback { proxy_pass http://fallback/own; }
    location /even { proxy_pass http://even; }
L

my $r = $gateway->get($gateway->port, '/nodes?k=1');
is $r->status, 502, 'nobody is below';
is $r->header('X-Tries'), 'nodes failed 502 - -', 'which is told';

is $gateway->get($gateway->port, '/fallback?k=1')->body, name($gateway), 'but where the upstream has servers of its own';

my @nodes = map { node(name($gateway)) } 1 .. 3;
sub picks ($port = $gateway->port(1)) { return [ map { $gateway->get($port, "/nodes?k=key$_")->body } 1 .. 60 ] }
sub different ($picks) { my %seen; @seen{@$picks} = (); return scalar keys %seen }
ok $gateway->wait_for(sub { different(picks()) == 3 }, 'three nodes'), 'each node has some keys';
my $picks = picks();
is_deeply [ sort { $a cmp $b } keys %{ { map { $_ => 1 } @$picks } } ], [ sort { $a cmp $b } map { name($_) } @nodes ], 'which are they';
is_deeply picks($gateway->port(2)), $picks, 'another worker picks the same';
my %even;
$even{ $gateway->get($gateway->port, '/even?ch=test')->body }++ for 1 .. 40;
is keys %even, 3, 'without a key by turns';
isnt $gateway->get($gateway->port, '/fallback?k=1')->body, name($gateway), 'who is below comes first';
is $gateway->get($gateway->port, '/even?ch=other')->status, 502, 'an unknown channel has no nodes';

my $dead = $nodes[1];
my $was = name($dead);
$dead->kill_all;
my $left = picks();
is scalar(grep { $_ !~ /^127/ } @$left), 0, 'each request is answered while a node dies';
is_deeply [ map { $picks->[$_] eq $was ? '-' : $left->[$_] } 0 .. 59 ], [ map { $_ eq $was ? '-' : $_ } @$picks ],
    'only the keys of the dead one have moved';
ok $gateway->wait_for(sub { ($gateway->get($gateway->port, '/nodes?k=' . (map { "key$_" } grep { $picks->[ $_ - 1 ] eq $was } 1 .. 60)[0])->header('X-Tries') // '') !~ /,/ },
    'the node to be known as dead'), 'and then nobody tries it';
# the failure that the gateway has counted is over before the node is back for good
$dead->start;
ok $gateway->wait_for(sub { different(picks()) == 3 }, 'the node to come back'), 'it comes back';
is_deeply picks(), $picks, 'to its keys';

for my $s (@nodes, $gateway) {
    ok $s->quit, 'quit';
}
$gateway->log_is_clean(qr/Connection refused|no live upstreams|prematurely closed|reset by peer|cannot reach|no answer/);
done_testing;
