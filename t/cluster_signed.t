# With cc_secret_file: nodes sign what they tell each other, and believe nothing else. Wrong secrets,
# changed and repeated calls, answers of strangers are refused, with a status, a reason and a log line.
use v5.36;
use Test::More;
use IO::Socket::INET;
use File::Temp qw(tmpnam);
use CC::Ports;
use CC::Server;

my $server = <<'CONF';
    listen 127.0.0.1:%PORT+1% per_worker;
    location ~ ^/([^/]+)/invoke { cc_invoke; cc_action who /who; }
    location ~ ^/([^/]+)/hub { cc_hub; cc_action who /who; }
    location ~ ^/([^/]+)/cast { cc_cast $arg_direction; }
    location = /who { internal; return 200 "$cc_node $cc_worker_id $request_method $http_cc_auth"; }
CONF
my ($old, $new, $other) = map { $_ x 40 } qw(o n x);

sub node (%o) {
    my $secret = $o{secret} // "$old\n";
    my $s = CC::Server->new(module => 1, lua => 0, workers => 2, http => '', server => $server);
    $s->write('secret', $secret);
    my $http = join ' ', map { "$_;" } 'cc_channel test heartbeat=500ms',
        "cc_secret_file " . $s->path('secret'),
        ($o{super} ? "cc_super $o{super}" : ()), @{ $o{http} // [] };
    return $s->start(http => $http);
}
sub name ($s) { '127.0.0.1:' . $s->port }
sub tree ($s) { my $c = $s->get($s->port, '/test/hub?getServiceStat')->json->{clients}; return ref $c eq 'HASH' ? join ' ', sort keys %$c : '' }
sub becomes ($s, $want, $name) {
    $s->wait_for(sub { tree($s) eq $want }, $name, 15);
    is tree($s), $want, $name;
}

# -- a wire between a child and its super that keeps what was said on it
my ($wire, $log) = (CC::Ports::port(), tmpnam());
sub wire ($to) {
    my $l = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $wire, Listen => 64, ReuseAddr => 1) or die "wire: $!";
    my $pid = fork // die;
    return $pid if $pid;
    $SIG{CHLD} = 'IGNORE';
    while (my $c = $l->accept) {
        next if fork;
        my $s = IO::Socket::INET->new(PeerAddr => $to) or exit;
        my %other = (fileno $c, $s, fileno $s, $c);
        while (1) {
            vec(my $r = '', fileno $c, 1) = 1;
            vec($r, fileno $s, 1) = 1;
            select $r, undef, undef, undef;
            for my $from ($c, $s) {
                next if !vec($r, fileno $from, 1);
                sysread $from, my $data, 65536 or exit;
                if ($from == $c && open my $f, '>>', $log) { syswrite $f, "\0$data" }
                syswrite $other{ fileno $from }, $data;
            }
        }
    }
    exit;
}
my $root = node(http => [ "cc_node 127.0.0.1:$wire" ]);
my $wirer = wire(name($root));
my $child = node(super => "127.0.0.1:$wire");
becomes($root, name($child), 'a child that has the secret is taken');

# -- what is signed works as ever
my $r = $root->get($root->port(2), '/test/cast?who&direction=tree');
is $r->status, 200, 'a cast down the tree';
is $r->json->{answered}, 4, 'all workers of both answer';
$r = $root->get($root->port(1), '/test/cast?who&direction=clients');
is $r->status, 200, 'a cast to the clients';
like $r->json->{replies}[0]{body}, qr/^\Q${\name($child)}\E \d GET $/, "an action's answer is signed, and the action need not know";
$r = $child->request('POST', $child->port(2), '/test/cast?who&direction=super', body => 'x' x 20_000);
is $r->status, 200, 'and to the super, with a body' or diag $r->body;
is $r->json->{replies}[0]{node}, "127.0.0.1:$wire", 'who it is';
is $child->get($child->port, '/test/hub?getServiceStat')->json->{super}, "127.0.0.1:$wire", 'the child has its super';

# -- who does not sign may use actions, but change nothing
is $root->get($root->port(2), '/test/hub?who')->status, 200, 'an action is for all';
for my $port ($root->port(1), $root->port(2)) {
    $r = $root->get($port, '/test/hub?transferServer=127.0.0.1:1');
    is $r->status, 403, 'where there is a secret this machine is no proof';
    is $r->body, "no proof of who asks\n", '... says the reason';
}
$r = $root->get($root->port(1), '/test/hub?who', 'CC-Cast' => 'tree; id=' . 'a' x 32 . '; hops=1; deadline=900');
like $r->body, qr/^127.* 0 GET $/, 'nor does the header of a cast count';

# -- what was said on the wire, again and changed
sub said () { local $/; open my $f, '<', $log or return (); return grep { /^POST .*HB/s } split /\0/, <$f> }
ok $root->wait_for(sub { (my @s = said()) >= 2 }, 'heartbeats'), 'heartbeats are heard on the wire';
my ($said) = reverse said();
sub replay ($port, $text) {
    my $c = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") or die;
    $text =~ s/^connection:.*?\r\n//mi;
    $text =~ s/\r\n/\r\nConnection: close\r\n/;
    print $c $text;
    local $/;
    my ($status, $body) = (<$c> // '') =~ m{^HTTP/1.1 (\d+).*?\r\n\r\n(.*)\z}s;
    return "$status $body";
}
like $said, qr/^CC-Auth: v1 kid=\w+,id=\Q${\name($child)}\E,ep=\d+,ctr=\d+,to=127\.0\.0\.1:$wire,(?:nonce=\w+,)?mac=\w{64}\r$/mi, 'they are signed';
unlike join('', said()), qr/$old/, 'the secret is not told';
is replay($root->port, $said), "403 the call was here before\n", 'said again' for 1, 2;
is replay($root->port(2), $said), "403 the call was here before\n", 'said again to another worker';
is replay($root->port, $said =~ s/"HB"/"hb"/r), "403 the signature is wrong\n", 'with another body';
is replay($root->port, $said =~ s/ctr=(\d+)/'ctr=' . ($1 + 5)/er), "403 the signature is wrong\n", 'with another counter';
is replay($root->port, $said =~ s/heartbeat/transferServer=127.0.0.1:1/r), "403 the signature is wrong\n", 'with another query';
is replay($root->port, $said =~ s/^POST/PUT/r), "403 the signature is wrong\n", 'with another method';
is replay($root->port, $said =~ s/kid=\w+/kid=00000000/r), "403 the call is signed with an unknown secret\n", 'with another secret';
is replay($root->port, $said =~ s/v1 /v2 /r), "403 invalid CC-Auth header\n", 'of another version';
is replay($child->port, $said), "403 the call is signed for node \"127.0.0.1:$wire\"\n", 'to another node';
ok $root->wait_log(qr/\[warn\] .*cc: signed call: 403, the call was here before, client: 127\.0\.0\.1/), 'and logged';
# one line and a number, not a line for each
my $at = $root->log_size;
for my $case ([ $said, 'the call was here before' ], [ $said =~ s/"HB"/"hb"/r, 'the signature is wrong' ]) {
    my ($text, $why) = @$case;
    replay($root->port(1), $text) for 1 .. 30;
    ok $root->wait_log(qr/\[warn\] .*cc: signed call: 403, \Q$why\E \(\d+ more\)$/m, $at), "$why: their number is logged";
    cmp_ok scalar(() = $root->error_log($at) =~ /cc: signed call: 403, \Q$why\E/g), '<', 10, '... in few lines';
}
is tree($root), name($child), 'the child is still there';

# -- strangers
my $stranger = node(super => name($root), secret => "$other\n");
my $foreign = node(super => name($root), http => [ 'cc_cluster another' ]);
my $open = CC::Server->new(module => 1, lua => 0, workers => 1, http => "cc_channel test heartbeat=500ms; cc_super ${\name($root)};", server => $server)->start;
ok $root->wait_log(qr/signed call: 403, the call is signed with an unknown secret/), 'another secret is refused';
ok $root->wait_log(qr/signed call: 403, the signature is wrong/), 'so is another cluster';
ok $root->wait_log(qr/heartbeat: 403, no proof of who asks/), 'and none';
is tree($root), name($child), 'none of them is taken';
ok $stranger->wait_log(qr/\[warn\] .*channel "test": node \Q${\name($root)}\E: the answer is not signed by the node/), 'who was refused knows why';
ok $open->wait_log(qr/\[warn\] .*channel "test": node \Q${\name($root)}\E answers 403/), 'without a secret, too';
$_->quit for $stranger, $foreign;

# -- a super that does not have the secret is not believed
my $victim = node(super => name($open));
ok $victim->wait_log(qr/node \Q${\name($open)}\E: the answer is not signed by the node/), 'a stranger is no super';
is_deeply $victim->get($victim->port, '/test/cast?who&direction=super')->json->{replies}, [], 'nor is what it answers believed';
$_->quit for $victim, $open;

# -- another secret, without a moment in which nodes do not understand each other
$root->write('secret', "$old\n$new\n");
ok $root->reload, 'the new secret is known as the second one';
$child->write('secret', "$new\n$old\n");
ok $child->reload, 'the child signs with the new one';
becomes($root, name($child), 'and is understood');
is $root->get($root->port, '/test/cast?who&direction=tree')->json->{answered}, 4, 'and understands';
$root->write('secret', "$new\n");
ok $root->reload, 'the old one is forgotten';
$child->write('secret', "$new\n");
ok $child->reload, 'by both';
is $root->get($root->port, '/test/cast?who&direction=tree')->json->{answered}, 4, 'all is well';

# -- both start anew: epochs and counters begin again
$child->quit;
$child->start;
becomes($root, name($child), 'a child that starts anew is taken');
is replay($root->port, $said), "403 the call is signed with an unknown secret\n", 'what was said long ago is not';
$root->quit;
$root->start;
becomes($root, name($child), 'a super that starts anew is believed');

kill KILL => $wirer;
unlink $log;
$_->log_is_clean(qr/connect\(\) failed/) for $root, $child;
done_testing;
