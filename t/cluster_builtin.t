# Built-in actions that are cast: workers are asked for them over the rings, and say what they would
# say over HTTP.
use v5.36;
use Test::More;
use CC::Ports;
use CC::Server;

# workers cannot be asked over http here: their invoke location is closed
my $server = <<'CONF';
    location ~ ^/([^/]+)/invoke { cc_invoke; }
    location ~ ^/([^/]+)/hub { cc_hub; }
    location ~ ^/([^/]+)/cast { cc_cast $arg_direction; }
    location = /status { cc_status json; }
    }
    server {
        listen 127.0.0.1:%PORT+1% per_worker;
        location / { return 410 "closed"; }
        location ~ ^/([^/]+)/hub { cc_hub; }
        location ~ ^/([^/]+)/cast { cc_cast $arg_direction; }
CONF

sub node ($workers, $http = '') {
    return CC::Server->new(module => 1, lua => 0, workers => $workers, server => $server,
        http => "cc_channel test heartbeat=300ms; cc_channel other heartbeat=300ms; $http")->start;
}
sub name ($s) { '127.0.0.1:' . $s->port }
sub bodies ($r) { [ map { "$_->{status} $_->{body}" } $r->json->{replies}->@* ] }
sub clients ($s) { my $c = $s->get($s->port, '/test/hub?getServiceStat')->json->{clients}; return ref $c eq 'HASH' ? join ' ', sort keys %$c : '' }
sub becomes ($s, $want, $name) {
    $s->wait_for(sub { clients($s) eq $want }, $name, 15);
    is clients($s), $want, $name;
}

for my $transport (qw(ring socket)) {
    my $root = CC::Server->new(module => 1, lua => 0, workers => 3, server => $server, main => "cc_ipc_transport $transport;",
        http => "cc_channel test heartbeat=300ms; cc_channel other heartbeat=300ms;")->start;
    my $leaf = node(2, 'cc_super ' . name($root) . ';');
    becomes($root, name($leaf), "$transport: a tree of two");

    # -- the same words, three times, and nothing over http
    my $said = $root->get($root->port, '/test/invoke?getServiceStat')->body;
    my $sent = sub { $root->get($root->port, '/status')->json->{ipc}{sent} };
    my $before = $sent->();
    my $r = $root->get($root->port(1), '/test/cast?getServiceStat');
    is $r->status, 200, 'a cast of getServiceStat';
    is_deeply bodies($r), [ ("200 $said") x 3 ], 'each worker tells of the node and all below it';
    is_deeply [ map { @$_{qw(worker port)} } $r->json->{replies}->@* ], [ map { $_, $root->port(1 + $_) } 0 .. 2 ], 'which worker it is';
    is $sent->() - $before, 4, 'asked and answered by messages, but for oneself';
    $r = $root->get($root->port(3), '/test/cast?getServiceStat&selfOnly=1&direction=master');
    unlike $r->json->{replies}[0]{body}, qr/clients/, 'with its arguments, to the router';
    $r = $root->get($root->port(2), '/test/cast?getServiceStat&direction=tree');
    is $r->json->{answered}, 5, 'down the tree';
    $r = $root->request(HEAD => $root->port(2), '/test/cast?getServiceStat');
    is $r->status . $r->body, '200', 'HEAD';
    $r = $root->get($root->port(1), '/test/cast?nothing&getServiceStat');
    is_deeply bodies($r), [ ('410 closed') x 3 ], 'where another argument is the first, the location of the worker decides';

    # -- a node below that does not answer costs its time, not the cast's
    kill STOP => $leaf->worker_pids;
    $r = $root->get($root->port(1), '/test/cast?getServiceStat');
    is $r->status, 200, 'a client that is stopped';
    is $r->json->{replies}[2] && $r->json->{replies}[2]{body} =~ /"ports":"-"/, 1, 'is shown as one that does not answer' or diag $r->body;
    kill CONT => $leaf->worker_pids;
    becomes($root, name($leaf), 'it goes on');

    # -- what changes the cluster
    my $second = node(2);
    my $order = 'cast?transferServer=' . name($second);
    is $leaf->get($leaf->port(1), "/test/$order", 'X-Forwarded-For' => '10.0.0.1')->status, 403, 'needs proof';
    $r = $leaf->get($leaf->port(2), "/test/$order");
    is_deeply bodies($r), [ ("200 Okay.\n") x 2 ], 'transferServer, in each worker' or diag $r->body;
    becomes($second, name($leaf), 'the new super has it');
    becomes($root, '', 'the old one does not');
    is $leaf->get($leaf->port, '/other/hub?getServiceStat')->json->{super}, name($root), 'other channels stay';
    $r = $leaf->get($leaf->port(1), '/test/cast?transferServer=nobody:1');
    is $r->status, 502, 'a bad address';
    is_deeply bodies($r), [ ("400 transferServer: the host must be an IP address\n") x 2 ], 'each says so';
    $r = $leaf->get($leaf->port(1), '/test/cast?transferServer=10.9.9.9:80');
    like $r->json->{replies}[1]{status}, qr/^403$/, 'one that is not allowed';
    $r = $leaf->get($leaf->port(1), '/test/cast?heartbeat');
    is $r->status, 400, 'what is between two nodes cannot be cast';
    $_->quit for $leaf, $second, $root;
    $root->log_is_clean(qr/\[warn\]/);
}
done_testing;
