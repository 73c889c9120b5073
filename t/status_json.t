# cc_status: everything, from whichever worker is reached; forms, methods, headers; the shared zone
# counts what workers did that are no more.
use v5.36;
use JSON::PP ();
use Test::More;
use CC::Console;

my ($true, $false) = (JSON::PP::true(), JSON::PP::false());
my $c = CC::Console->start(workers => 3, http => 'cc_channel test; cc_channel other;
    upstream hashed { cc_balancer workers key=$uri max_fails=1; server 127.0.0.1:1; }
    upstream listed { cc_balancer 127.0.0.1:7 [::1]:8; server 127.0.0.1:1; }',
    server => 'location = /cc_status { cc_status; }
        location = /json { cc_status json; } location = /metrics { cc_status prometheus; }
        location = /ready { cc_status ready; } location = /page { cc_status html; }
        location = /closed { cc_status; allow 127.0.0.2; deny all; }
        location /hashed { proxy_pass http://hashed; }
        location ~ ^/([^/]+)/hub { cc_hub; }');
my $s = $c->s;
sub status ($worker = 0) { $s->get($s->port(1 + $worker), '/cc_status')->json }

ok $s->wait_for(sub { status()->{ready} }, 'all workers'), 'all are ready';

# -- what there is
my $r = $s->get($s->port(2), '/cc_status');
is $r->status, 200, 'it answers';
is $r->header('Content-Type'), 'application/json', 'JSON';
is $r->header('Cache-Control'), 'no-store', 'which is not kept';
my $json = $r->json;
is_deeply [ map { $json->{$_} } qw(node generation router worker ready reason) ],
    [ '127.0.0.1:' . $s->port, 1, 0, 1, $true, undef ], 'the node';
is_deeply [ map { [ @$_{qw(id pid generation state ready port)} ] } $json->{workers}->@* ],
    [ map { [ $_, $s->worker_pid($_), 1, 'live', $true, $s->port(1 + $_) ] } 0 .. 2 ], 'its workers';
is_deeply [ sort map { $_->{name} } $json->{channels}->@* ], [qw(other test)], 'its channels';
ok $s->wait_for(sub { !grep { ($_->{state} // '') ne 'root' } status()->{channels}->@* }, 'the router'), 'a root in both';
is_deeply [ map { ref } $json->{nodes}->@{qw(super clients)} ], [qw(ARRAY ARRAY)], 'the nodes around it: none';
like $json->{nginx}, qr/^\d+\.\d+\.\d+$/, 'versions';
cmp_ok $json->{zone}{used}, '<', $json->{zone}{size}, 'the zone';
cmp_ok abs($json->{time} / 1000 - time), '<', 30, 'the time';

# -- the same from everywhere, but for who answers
sub steady ($json) { delete @$json{qw(time worker)}; JSON::PP->new->canonical->encode($json) }
my @from = map { steady(status($_)) } 0 .. 2;
is $from[$_], $from[0], "from worker $_: the same" for 1, 2;

# -- messages are counted for each process
$c->each('t.catch("a") return 1');
$c->run(1, 'return ipc.broadcast("a", "x")') for 1 .. 5;
$c->until($_, 'return t.count("a")', 5) for 0 .. 2;
is_deeply [ map { [ @$_{qw(sent received)} ] } status(2)->{workers}->@* ], [ [ 0, 5 ], [ 15, 5 ], [ 0, 5 ] ], 'by worker';
is_deeply [ @{ status()->{ipc} }{qw(sent received waiting queued unhandled)} ], [ 15, 15, 0, 0, 0 ], 'and in all';

# -- a worker that does not keep up
my ($victim) = ($s->workers)[2];
kill STOP => $victim;
my $sent = $c->run(0, 'local n = 0; repeat n = n + 1; local ok, why = ipc.send(' . $victim . ', "a", ("x"):rep(1000000)) until not ok or n == 30
    return n');
my $stuck = status(1);
cmp_ok $stuck->{workers}[2]{inbox}, '>', 1e6, 'the ring to it is full';
cmp_ok $stuck->{workers}[0]{queued}, '>', 5, 'and more waits at the sender';
cmp_ok $stuck->{ipc}{waiting}, '>=', $stuck->{workers}[0]{queued}, 'all of which waits';
is $stuck->{workers}[1]{queued}, 0, 'the others hold nothing';
kill CONT => $victim;
ok $s->wait_for(sub { my $j = status(1); !$j->{ipc}{waiting} && !$j->{workers}[0]{queued} && !$j->{workers}[2]{inbox} }, 'the rest'),
    'it goes on: nothing waits';

# -- retained values: who has seen what
$c->run(0, 'return ipc.retain("conf", "k", "one")');
$c->each('return ipc.receive("conf", function() end)');
ok $s->wait_for(sub { !grep { !defined $_->{seen}{conf} } status()->{workers}->@* }, 'all'), 'all have seen it';
$json = status(1);
my ($name) = $json->{retained}{names}->@*;
is_deeply [ $name->{name}, $json->{retained}{values}, $name->{sequence} ], [ 'conf', 1, $json->{retained}{sequence} ], 'its name';
is_deeply [ map { $_->{seen}{conf} } $json->{workers}->@* ], [ ($name->{sequence}) x 3 ], 'and its number';

# -- the balancer
is_deeply [ map { [ @$_{qw(name source)}, scalar $_->{peers}->@* ] } $json->{balancer}{upstreams}->@* ],
    [ [ 'hashed', 'workers', 3 ], [ 'listed', 'list', 2 ] ], 'upstreams';
is_deeply [ map { $_->{address} } $json->{balancer}{upstreams}[1]{peers}->@* ], [ '127.0.0.1:7', '[::1]:8' ], 'a list';

# -- a crash: the counts stay, its own start over
my $before = status();
my $heir = $s->kill_worker(1);
ok $s->wait_for(sub { status()->{workers}[1]{pid} == $heir && status()->{ready} }, 'the successor'), 'a successor';
my $after = status(2);
is_deeply [ @{ $after->{lifecycle} }{qw(load)}, map { $after->{lifecycle}{$_}{count} } qw(starts worker_starts crashes crashes_signal respawns reloads) ],
    [ 'start', 1, 4, 1, 1, 1, 0 ], 'the crash is counted';
cmp_ok $after->{lifecycle}{crashes}{last}, '>=', $before->{time}, 'with its time';
is_deeply [ @{ $after->{workers}[1] }{qw(sent why ended)} ], [ 0, 'respawn', 'signal 9' ], 'the successor begins with nothing sent';
is $after->{ipc}{sent}, $before->{ipc}{sent}, 'the sum has lost nothing';

# -- a worker that leaves while it serves is shown beside its successors
my $elder = $c->console(0);
ok $s->reload(wait_old => 0), 'a reload';
ok $s->wait_for(sub { my $j = status(1); $j->{generation} == 2 && $j->{workers}->@* == 4 && $j->{ready} }, 'both'), 'four workers';
$json = status(1);
is_deeply [ map { [ @$_{qw(id generation state)} ] } $json->{workers}->@* ],
    [ (map { [ $_, 2, 'live' ] } 0 .. 2), [ 0, 1, 'retiring' ] ], 'three, and an old one';
is $json->{lifecycle}{reloads}{count}, 1, 'the reload is counted';
my $old = JSON::PP::decode_json($elder->run('local c = ngx.socket.tcp() c:connect("127.0.0.1", ' . $s->port . ')
    c:send("GET /json HTTP/1.0\r\n\r\n") local a = c:receive("*a") c:close() return a:match("\r\n\r\n(.*)$")'));
is $old->{generation}, 2, 'and asked from there';
$elder->close;

# -- who is not ready
my $ready = $s->get($s->port, '/ready');
is_deeply [ $ready->status, $ready->body, $ready->header('Cache-Control') ], [ 200, qq({"ready":true}\n), 'no-store' ], 'ready';
$c->run(2, 'return require "ngx.cc.lifecycle".ready(false, "cache is \"cold\"")');
$ready = $s->get($s->port(1), '/ready');
is $ready->status, 503, 'not ready: 503';
is_deeply $ready->json, { ready => $false, reason => 'worker 2 is not ready: cache is "cold"' }, 'who, and why';
$json = status();
is_deeply [ $json->{ready}, $json->{workers}[2]{ready}, $json->{workers}[2]{reason} ],
    [ $false, $false, 'cache is "cold"' ], 'in the status, too';
$c->run(2, 'return require "ngx.cc.lifecycle".ready(true)');
is $s->get($s->port(1), '/ready')->status, 200, 'ready again';

# -- forms
sub kind ($uri, %header) { $s->get($s->port, $uri, %header)->header('Content-Type') =~ s/;.*//r }
is kind('/cc_status', Accept => 'text/html,*/*;q=0.8'), 'text/html', 'a browser gets the page';
is kind('/cc_status', Accept => 'application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.2'),
    'text/plain', 'Prometheus gets metrics';
is kind('/cc_status', Accept => 'application/json'), 'application/json', 'JSON';
is kind('/json', Accept => 'text/html'), 'application/json', 'what the location says';
is kind('/page'), 'text/html', 'the page';
is kind('/page?format=json'), 'application/json', 'what the query says';
is kind('/ready?format=json', Accept => 'text/html'), 'application/json', 'but for ready';
unlike $s->get($s->port, '/ready?format=json')->body, qr/workers/, '... which tells nothing else';
is $s->get($s->port, '/cc_status?format=yaml')->status, 400, 'no such form: 400';
like $s->get($s->port, '/page')->header('Content-Security-Policy'), qr/^default-src 'none'; script-src 'sha256-[\w+\/]{43}='; style-src 'sha256-/,
    'the page runs its own script only';

# -- methods and access
my $head = $s->request(HEAD => $s->port, '/json');
is $head->status, 200, 'HEAD';
is $head->body, '', '... has no body';
cmp_ok $head->header('Content-Length'), '>', 1000, '... and its length';
is $s->request($_ => $s->port, '/json', body => 'x')->status, 405, "$_: 405" for qw(POST PUT DELETE);
is $s->get($s->port, '/closed')->status, 403, 'allow and deny are heard';

# -- with the sockets, with one process
ok $c->reload(main => 'cc_ipc_transport socket;'), 'a reload';
$json = $s->get($s->port, '/json')->json;
is_deeply [ $json->{ipc}{transport}, $json->{ipc}{ring}, $json->{workers}[0]{inbox} ], [ 'socket', 0, undef ], 'the sockets';
ok $s->quit, 'quit';
$s->log_is_clean(qr/exited on signal 9/, qr/access forbidden by rule/, qr/are shutting down|open socket/);


# -- what nginx -t refuses
for ([ 'cc_status yaml;', 'invalid value "yaml"' ], [ 'cc_status; cc_status;', '"cc_status" directive is duplicate' ],
    [ 'cc_status json html;', 'invalid number of arguments in "cc_status" directive' ],
    [ 'stub_status; cc_status;', '"cc_status" in a location that has a content handler' ],
    [ 'cc_status; stub_status;', '"cc_status" and another content handler in the same location' ]) {
    my ($text, $why) = @$_;
    my ($code, $output) = $s->try_conf("events {}\nhttp { server {\nlocation / {\n$text\n} } }");
    is $code, 1, "$text is refused";
    like $output, qr/\[emerg\].*\Q$why\E.* in \S+:4\b/, '... with the line';
}
done_testing;
