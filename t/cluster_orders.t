# cc_orders: with a secret, who may change the cluster without signing: users of this machine, by a
# Unix socket, as the kernel names them. Nobody else, and not without the directive.
use v5.36;
use Test::More;
use File::Temp qw(tempdir);
use CC::Modules;
use CC::Server;

my $secret = 's' x 40;
my $nobody = (getpwnam 'nobody')[2] // plan skip_all => 'there is no user "nobody"';
# others may enter: what counts is who they are
my $dir = tempdir(CLEANUP => 1);
chmod 0755, $dir;
my $nodes = 0;
my ($lua) = grep { /http_lua/ } CC::Modules::available();

my $server = <<'CONF';
    cc_orders root nobody;
    listen 127.0.0.1:%PORT+1% per_worker;
    location ~ ^/([^/]+)/invoke { cc_invoke; }
    location ~ ^/([^/]+)/hub { cc_hub; }
    location ~ ^/([^/]+)/cast { cc_cast $arg_direction; }
    }
    server {
        listen unix:DIR/admin per_worker;
        cc_orders root;
        location ~ ^/([^/]+)/invoke { cc_invoke; }
        location ~ ^/([^/]+)/hub { cc_hub; }
        location ~ ^/([^/]+)/cast { cc_cast $arg_direction; }
        location ~ ^/off/([^/]+)/hub { cc_hub $1; cc_orders off; }
        location ~ ^/nobody/([^/]+)/hub { cc_hub $1; cc_orders nobody; }
    }
    server {
        listen unix:DIR/plain;
        location ~ ^/([^/]+)/hub { cc_hub; }
CONF
my $init = 'lua_shared_dict ngxcc_dict 1m; init_worker_by_lua_block {
    local ngx_cc = require "ngx_cc"
    ngx_cc.cluster.super = { host = "127.0.0.1", port = "%PORT%" }
    ngx_cc:new "made"
}';

sub node (%o) {
    my $own = "$dir/" . ++$nodes;
    mkdir $own;
    my $s = CC::Server->new(module => 1, lua => $o{lua} // 0, workers => 2, http => '', server => $server =~ s/DIR/$own/gr);
    $s->write('secret', "$secret\n");
    $s->start(http => "cc_channel test heartbeat=300ms; cc_secret_file " . $s->path('secret') . '; '
        . ($o{super} ? 'cc_super ' . name($o{super}) . ';' : '') . ($o{lua} ? $init : ''));
    return ($s, "unix:$own");
}
sub name ($s) { '127.0.0.1:' . $s->port }
sub clients ($s, $ch = 'test') { my $c = $s->get($s->port, "/$ch/hub?getServiceStat")->json->{clients}; return ref $c eq 'HASH' ? join ' ', sort keys %$c : '' }
sub becomes ($s, $want, $name) {
    $s->wait_for(sub { clients($s) eq $want }, $name, 15);
    is clients($s), $want, $name;
}
# the request of another user, as "STATUS BODY"
sub as_user ($uid, $s, @request) {
    pipe my $in, my $out or die $!;
    my $pid = fork // die $!;
    if (!$pid) {
        $) = "65534 65534";
        $> = $< = $uid;
        my $r = $s->get(@request);
        syswrite $out, $r->status . ' ' . $r->body;
        require POSIX;
        POSIX::_exit(0);
    }
    close $out;
    my $said = do { local $/; <$in> };
    waitpid $pid, 0;
    return $said;
}
plan skip_all => 'needs root, to be several users' if $> != 0;

my ($one, $at_one) = node();
my ($two) = node();
my ($leaf, $at_leaf) = node(super => $one);
becomes($one, name($leaf), 'a tree, with a secret');
my $order = 'hub?transferServer=' . name($two);
my $proof = qr/^403 no proof of who asks$/;

# -- who may not
my $r;
my $bad = sub ($name, @request) { my $r = $leaf->get(@request); like $r->status . ' ' . $r->body, $proof, $name };
$bad->('by loopback, where orders are taken, too', $leaf->port, "/test/$order");
$bad->('at a worker', $leaf->port(2), "/test/$order");
$bad->('by a Unix socket where they are not', "$at_leaf/plain", "/test/$order");
$bad->('where they are switched off', "$at_leaf/admin.0", "/off/test/$order");
$bad->('from root, where another user may', "$at_leaf/admin.0", "/nobody/test/$order");
$bad->('through a proxy', "$at_leaf/admin.0", "/test/$order", 'X-Forwarded-For' => '10.0.0.1');
like as_user($nobody, $leaf, "$at_leaf/admin.$_", "/test/$order"), $proof, "from another user, at worker $_" for 0, 1;
for my $hop ('1 - operator!; mac=' . '0' x 64, '1 - operator!', '0 - operator!; mac=') {
    like $leaf->get($leaf->port(1), "/test/$order", 'CC-Hop' => $hop)->status, qr/^40[03]$/, "CC-Hop: $hop";
}
is $leaf->request('POST', "$at_leaf/admin.0", '/test/hub?heartbeat', body => '{"a":1}')->status, 400, 'a message of nodes, malformed';
my $leave = qq({"type":"LEAVE","id":"${\name($leaf)}","epoch":1,"seq":1});
$r = $one->request('POST', "$at_one/admin.0", '/test/hub?heartbeat', body => $leave);
is $r->status . ' ' . $r->body, "403 orders are no messages of nodes\n", 'nor is an operator a node';
is clients($one), name($leaf), 'nothing has come of it';
is clients($two), '', 'anywhere';

# -- who may
$r = $leaf->get("$at_leaf/admin.1", "/test/$order");
is $r->status . ' ' . $r->body, "200 Okay.\n", 'root, at a worker that is not the router';
becomes($two, name($leaf), 'the new super is told, signed');
becomes($one, '', 'so is the old one');
$r = $leaf->get("$at_leaf/admin.1", '/test/invoke?transferServer=' . name($one));
is $r->status, 200, 'and back, by invoke';
becomes($one, name($leaf), 'as ordered');
is as_user($nobody, $leaf, "$at_leaf/admin.0", "/nobody/test/$order"), "200 Okay.\n", 'another user who is named';
becomes($two, name($leaf), 'as ordered');

# -- onward: to workers, and to the nodes below
$r = $leaf->get("$at_leaf/admin.0", '/test/cast?transferServer=' . name($one));
is $r->status, 200, 'a cast to all workers' or diag $r->body;
becomes($one, name($leaf), 'as ordered');
$r = $one->get("$at_one/admin.1", '/test/cast?direction=clients&transferServer=' . name($two));
is $r->status, 200, 'a cast to the nodes below is signed' or diag $r->body;
becomes($two, name($leaf), 'as ordered');
$r = $one->get($one->port(1), '/test/cast?direction=clients&transferServer=' . name($two));
is $r->status, 403, 'but not for anybody';

# -- from the shell
SKIP: {
    my ($curl) = grep { -x } map { "$_/curl" } split /:/, $ENV{PATH};
    skip 'there is no curl', 2 if !$curl;
    my $socket = "$at_leaf/admin.0" =~ s/^unix://r;
    is qx($curl -s --unix-socket $socket 'http://localhost/test/hub?transferServer=${\name($one)}'), "Okay.\n", 'curl';
    becomes($one, name($leaf), 'as ordered');
}

# -- in a channel of Lua's, where workers are asked over http
SKIP: {
    skip 'there is no Lua module', 3 if !$lua;
    my ($made, $at_made) = node(lua => 1);
    my ($to) = node(lua => 1);
    $r = $made->get("$at_made/admin.0", '/made/cast?transferServer=' . name($to));
    is $r->status, 200, 'a cast to the workers' or diag $r->body;
    is_deeply [ map { $_->{status} } $r->json->{replies}->@* ], [ 200, 200 ], 'who believe the worker that they are asked by';
    $to->wait_for(sub { clients($to, 'made') eq name($made) }, 'it has moved', 15);
    is clients($to, 'made'), name($made), 'it has moved';
    $_->quit for $made, $to;
}
ok $leaf->wait_log(qr/\[warn\] .*cc: transferServer: 403, no proof of who asks/), 'refusals are logged';
$_->quit for $leaf, $two, $one;
done_testing;
