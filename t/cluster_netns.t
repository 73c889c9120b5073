# Three nodes on hosts of their own, on a slow wire that loses frames: they find each other, a cast
# reaches all; a cut makes a node vanish, healing brings it back.
use v5.36;
use Test::More;
use CC::Server;
use CC::Wait qw(now SLOW);
use CC::Wire;

my $wire = CC::Wire->new(3) // plan skip_all => CC::Wire::why_not();
use constant LEASE => 1.2;

my $server = <<'CONF';
    listen %IP%:80;
    listen 127.0.0.1:%PORT+1% per_worker;
    location ~ ^/([^/]+)/invoke { cc_invoke; cc_action who /who; }
    location ~ ^/([^/]+)/hub { cc_hub; cc_action who /who; }
    location ~ ^/([^/]+)/cast { allow 127.0.0.1; deny all; cc_cast $arg_direction; }
    location = /who { internal; return 200 "$cc_node $cc_worker_id"; }
CONF
my @node;
sub node ($host, @supers) {
    my $s = $node[$host] = CC::Server->new(module => 1, lua => 0, workers => 2);
    $s->write('conf/secret', 's' x 40 . "\n");
    my $ip = $wire->ip($host);
    my $http = join ' ', map { "$_;" } 'cc_channel test heartbeat=300ms', "cc_node $ip:80", 'cc_secret_file secret',
        'cc_allow_node 10.77.0.0/24', @supers ? 'cc_super ' . join ' ', map { $wire->ip($_) . ':80' } @supers : ();
    $wire->in($host, sub { $s->start(http => $http, server => $server =~ s/%IP%/$ip/r) });
}
sub ask ($host, $what) { $wire->in($host, sub { $node[$host]->get($node[$host]->port, "/test/$what") }) }
sub shape ($stat = undef) {
    my $c = ref $stat eq 'HASH' ? $stat->{clients} : undef;
    return ref $c eq 'HASH' ? join ' ', map { (split /[.:]/)[3] . '(' . shape($c->{$_}) . ')' } sort keys %$c : '';
}
sub becomes ($host, $want, $what, $seconds = 25) {
    my ($start, $got) = now();
    $node[$host]->wait_for(sub { ($got = shape(ask($host, 'hub?getServiceStat')->json)) eq $want }, $what, $seconds);
    is $got, $want, $what;
    return now() - $start;
}
# a lost frame may cost one cast an answer, not all of them
sub cast_reaches ($host, @nodes) {
    my @want = map { my $ip = $wire->ip($_); "$ip:80 0", "$ip:80 1" } @nodes;
    my @got;
    $node[$host]->wait_for(sub {
        my $r = ask($host, 'cast?who&direction=tree')->json // {};
        @got = sort map { $_->{body} // '' } ($r->{replies} // [])->@*;
        return "@got" eq "@want";
    }, 'a cast', 10);
    is_deeply \@got, \@want, "a cast reaches @nodes";
}

$wire->set(delay => 0.02, jitter => 0.005, loss => 0.02);
node(1);
node(2, 1, 3);
node(3, 1);
becomes(1, '2() 3()', 'with 20 ms, and 2 frames of 100 lost, the tree is found');
cast_reaches(1, 1, 2, 3);
my $start = now();
ask(1, 'cast?who&direction=clients');
cmp_ok now() - $start, '>', 0.04, 'the wire is as slow as it should be';
is $wire->in(1, sub { CC::HTTP->connect($wire->ip(2) . ':80')->request('GET', '/test/cast?who')->status }), 403,
    'it is another host: what is for this one only is not for it';
is $wire->in(1, sub { CC::HTTP->connect($wire->ip(2) . ':80')->request('GET', '/test/hub?transferServer=10.77.0.3:80')->body }),
    "no proof of who asks\n", 'nor may it change anything without a signature';

# -- a host nobody reaches
$wire->cut(3);
$start = now();
my $r = ask(1, 'cast?who&direction=tree');
cmp_ok now() - $start, '<', 3 * SLOW, 'a cast to a host that has just gone takes no longer than its timeouts';
cmp_ok $r->json->{answered}, '>=', 4, 'and has the answers of the others';
is $wire->in(1, sub { $node[1]->get($node[1]->port(2), '/test/hub?getServiceStat') })->status, 200, 'nor does it spoil what the router tells of the tree';
becomes(1, '2()', 'a host is cut off: it vanishes');
cmp_ok now() - $start, '<', LEASE + 4, 'when its lease has ended';
cast_reaches(1, 1, 2);
cast_reaches(3, 3);
$wire->heal;
becomes(1, '2() 3()', 'the wire is whole again: it is back');
cast_reaches(1, 1, 2, 3);

# -- two that do not reach each other, while both reach the third
$wire->cut(1, 2);
becomes(1, '3(2())', 'a link is cut: the node behind it goes to its fall-back');
cast_reaches(1, 1, 2, 3);
$wire->heal;
becomes(1, '2() 3()', 'the link is whole again: it returns to the super that it prefers', 30);

# -- a wire that is all but useless
$wire->set(delay => 0.15, loss => 0.1);
cast_reaches(1, 1, 2, 3);
$wire->set(delay => 0, jitter => 0, loss => 0);
becomes(1, '2() 3()', 'in the end all is well');
is ask(1, 'cast?who&direction=tree')->status, 200, 'really';

for (3, 2, 1) {
    $wire->in($_, sub { ok $node[$_]->quit, "host $_: quit" });
    $node[$_]->log_is_clean(qr/connect\(\) failed/, qr/access forbidden by rule/);
}
done_testing;
