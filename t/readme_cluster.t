# The README's chapter "Cluster": its two nodes, and what its troubleshooting says of nodes that do not
# find each other.
use v5.36;
use Test::More;
use FindBin;
use CC::Ports;
use CC::Proc;
use CC::Server;

my ($chapter) = CC::Proc::slurp("$FindBin::Bin/../README.md") =~ /^## Cluster\n(.*?)^## /ms;
my ($root_conf, $lines) = $chapter =~ /^```nginx\n(.*?)^```/msg;
my %own = map { /^\s*(cc_\w+)/ ? ($1 => $_) : () } split /\n/, $lines;
is_deeply [ sort keys %own ], [qw(cc_node cc_super)], 'what the other node has of its own';

my ($root, $other) = map { CC::Server->new(module => 1, lua => 0, ports => 16) } 1, 2;
my %port = (8000 => $root->port, 8010 => $root->port(10), 8100 => $other->port, 8110 => $other->port(10));
sub moved ($text) { $text =~ s/127\.0\.0\.1:(8\d\d\d)/'127.0.0.1:' . $port{$1}/ger }
my $other_conf = $root_conf =~ s/listen 127\.0\.0\.1:80/listen 127.0.0.1:81/gr;
$other_conf =~ s/^.*cc_node.*$/$own{cc_node}\n$own{cc_super}/m;
my $secret = `head -c 32 /dev/urandom | base64`;
$_->write('conf/cc.secret', $secret) for $root, $other;
$root->start(moved($root_conf));
$other->start(moved($other_conf));

my $at = '127.0.0.1:' . $other->port;
ok $root->wait_for(sub {
    my $clients = $root->get($root->port, '/test/hub?getServiceStat')->json->{clients};
    ref $clients eq 'HASH' && $clients->{$at};
}, 'the other node'), 'both nodes are shown';
my $cast = $root->get($root->port, '/test/cast?who')->json;
is_deeply [ sort map { $_->{body} } $cast->{replies}->@* ],
    [ sort map { my $s = $_; map { "worker $_ of 127.0.0.1:" . $s->port } 0, 1 } $root, $other ], 'four workers answer';

# -- those that are not found
sub stranger (%o) {
    my $s = CC::Server->new(module => 1, lua => 0, ports => 16);
    $s->write('conf/cc.secret', $o{secret} // $secret);
    my $node = '127.0.0.1:' . ($o{node} // $s->port);
    my $conf = $root_conf =~ s/127\.0\.0\.1:(8\d\d\d)/'127.0.0.1:' . $s->port($1 - 8000)/ger;
    my $super = $o{super} // '127.0.0.1:' . $root->port;
    $conf =~ s/^.*cc_node.*$/cc_node $node;\ncc_super $super;\n@{[ $o{http} \/\/ '' ]}/m;
    return $s->start($conf);
}
my $lost = stranger(node => CC::Ports::port());
ok $root->wait_log(qr/\[warn\] .*node \S+ is refused: the dial-back failed/), 'a cc_node under which nobody is reached';
ok $lost->wait_log(qr/\[warn\] .*no super takes this node; it goes on trying/), 'no super takes it';
my $other_secret = stranger(secret => 'x' x 40);
ok $root->wait_log(qr/\[warn\] .*the call is signed with an unknown secret/), 'another secret';
ok $other_secret->wait_log(qr/\[warn\] .*node \S+: the answer is not signed by the node/), 'as the other side sees it';
my $other_cluster = stranger(http => 'cc_cluster another;');
ok $root->wait_log(qr/\[warn\] .*the signature is wrong/), 'another cluster';
my $third = CC::Server->new(module => 1, lua => 0, ports => 16);
$third->write('conf/cc.secret', $secret);
my $name = $third->port(5);
$third->start($root_conf =~ s/(cc_node +127\.0\.0\.1:)8000/$1$name/r =~ s/127\.0\.0\.1:(8\d\d\d)/'127.0.0.1:' . $third->port($1 - 8000)/ger);
my $caller = stranger(super => '127.0.0.1:' . $third->port);
ok $third->wait_log(qr/\[warn\] .*the call is signed for node "127/), 'another name than cc_node';
my $strict = stranger(http => 'cc_allow_node 10.0.0.0/8;');
my $unknown = stranger(super => '127.0.0.1:' . $strict->port);
ok $strict->wait_log(qr/\[warn\] .*node \S+ is refused: the address is not allowed/), 'an address that is not in cc_allow_node';
ok $unknown->wait_log(qr/\[warn\] .*127\.0\.0\.1:\d+ refuses this node: the address is not allowed/), 'as the other side sees it';
my $shared = CC::Server->new(module => 1, lua => 0);
my $shared_conf = $root_conf =~ s/^.*(?:per_worker|cc_secret_file|cc_node).*$//mgr =~ s/127\.0\.0\.1:8000/'127.0.0.1:' . $shared->port/er;
$shared->start($shared_conf);
ok $shared->wait_for(sub {
    my $answer = $shared->get($shared->port, '/test/hub?who');
    $answer->status == 503 && $answer->body eq qq{no "listen ... per_worker" to reach the worker by\n};
}, 'the worker that is not the router'), 'no port to reach the router by';
is $root->get($root->port, '/test/hub?transferServer=127.0.0.1:1')->body, "no proof of who asks\n", 'no proof';
is $root->get($root->port, '/none/hub?who')->body, "URL include unknow channel.\n", 'no such channel';
done_testing;
