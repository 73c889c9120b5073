# A worker that calls itself: nginx serves the call as it serves any other, but its bytes stay in the
# process. Whatever an action does with its connection has to go on as over a socket.
use v5.36;
use Test::More;
use CC::Proc;
use CC::Server;
use CC::Sockopt ();
use CC::Wait qw(SLOW);

my $http = <<'CONF';
cc_channel test; cc_channel quick timeout=300ms; client_max_body_size 2m; lua_check_client_abort on;
lua_shared_dict ngxcc_dict 1m;
init_worker_by_lua_block { route = require("ngx_cc"):new "lua" }
log_format own '$uri $status $remote_addr $request_length';
CONF
my $server = <<'CONF';
    listen 127.0.0.1:%PORT+1% per_worker;
    access_log logs/own.log own;
    location ~ ^/([^/]+)/cast { cc_cast $arg_direction; }
    location ~ ^/([^/]+)/invoke {
        cc_invoke; client_max_body_size 0;
        cc_action who /who; cc_action echo /echo; cc_action sent /sent; cc_action copied /copied; cc_action slow /slow;
        cc_action three /three; cc_action once /once; cc_action gone /gone; cc_action large /large;
        cc_action local /local; cc_action proxied /proxied; cc_action chunked /chunked; cc_action closed /closed; cc_action left /left;
    }
    location = /who { return 200 "$remote_addr:$remote_port $server_addr:$server_port $cc_worker_id"; }
    location = /local { content_by_lua_block {
        local ffi = require "ffi"
        pcall(ffi.cdef, "int ngx_cc_cluster_is_local(void *request);")
        ngx.print(ffi.C.ngx_cc_cluster_is_local(require("resty.core.base").get_request()))
    } }
    # as long as the clock says
    location = /again { content_by_lua_block {
        local calls, till = 0, ngx.now() + 0.3
        repeat
            local ok = route.cc("/test/invoke?who", "master")
            calls = calls + (ok and 1 or 0)
        until ngx.now() > till
        ngx.print(calls)
    } }
    location = /echo { content_by_lua_block {
        ngx.req.read_body()
        local file = ngx.req.get_body_file()
        ngx.print(ngx.req.get_body_data() or file and io.open(file):read("*a") or "")
    } }
    location = /sent { sendfile on; alias %PREFIX%/file; }
    location = /copied { sendfile off; alias %PREFIX%/file; }
    location = /slow { sendfile on; limit_rate 600k; alias %PREFIX%/file; }
    location = /chunked { ssi on; ssi_types *; default_type text/plain; alias %PREFIX%/file; }
    location = /closed { ssi on; ssi_types *; default_type text/plain; chunked_transfer_encoding off; alias %PREFIX%/file; }
    location = /three { keepalive_requests 3; return 200 "$connection $connection_requests"; }
    location = /once { keepalive_timeout 0; return 200 "$connection"; }
    location = /gone { return 444; }
    location = /large { client_max_body_size 1k; proxy_pass http://127.0.0.1:%PORT%/who; }
    location = /proxied { proxy_pass http://127.0.0.1:%PORT%/file; proxy_max_temp_file_size 100k; proxy_buffers 4 4k; }
    location = /file { root %PREFIX%; }
    location = /left { content_by_lua_block {
        ngx.on_abort(function() ngx.log(ngx.NOTICE, "the caller has left") ngx.exit(499) end)
        ngx.sleep(60)
    } }
    location = /stub { stub_status; }
CONF
my $file = join '', map { chr(32 + $_ % 90) } 1 .. 300_000;
$file =~ tr/<&"\\/..../;

# As is(), for texts that nobody wants to see.
sub whole ($got, $wanted, $name) {
    ok $got eq $wanted, $name or diag length($got), ' bytes for ', length($wanted), ': ', substr $got, 0, 200;
}

for my $workers (1, 3) {
    my $s = CC::Server->new(module => 1, workers => $workers, http => $http, server => $server);
    $s->write('file', $file);
    $s->start;
    my $own = $workers;    # the last one's port
    # what the worker that casts has answered itself
    my $cast = sub ($action, %opt) {
        my $channel = delete $opt{channel} // 'test';
        $s->request(delete $opt{method} // 'GET', $s->port($own), "/$channel/cast?$action", %opt)->json->{replies}[$workers - 1];
    };
    my ($at, $id) = ('127.0.0.1:' . $s->port($own), $workers - 1);

    # -- where it comes from
    is $cast->('who')->{body}, "127.0.0.1: $at $id", "$workers workers: it comes from the same address, without a port";
    if ($workers > 1) {
        my $other = $s->get($s->port($own), '/test/cast?who')->json->{replies}[0]{body};
        like $other, qr/^127\.0\.0\.1:\d+ /, '... and what comes from another worker has one';
    }
    is_deeply [ grep { ($_->{remote} // '') eq $at && $_->{state} eq 'ESTABLISHED' } map { $s->sockets($_) } $s->workers ],
        [], '... over no port';
    SKIP: {
        skip 'the kernel does not let look into others', 1 if !CC::Sockopt::may_look();
        is scalar(() = CC::Sockopt::within(($s->workers)[$id])), 2, '... but over a connection with itself, which is kept';
    }

    is_deeply [ map { $_->{body} } $s->get($s->port($own), '/test/cast?local')->json->{replies}->@* ], [ (1) x $workers ],
        'the caller is on this machine, for itself as for others';
    if ($workers == 1) {
        my $again = $s->connect($s->port);
        $again->send("GET /again HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        is $s->get($s->port, '/who')->status, 200, 'calls without end leave room for others';
        like $again->read_all, qr/\r\n[1-9]\d*\r?\n/, '... and time goes on';
    }

    # -- bodies there and back, up to what waits in between and far beyond
    for my $size (0, 1, 20_000, 65_535, 65_536, 65_537, 300_000) {
        my $body = substr $file, 0, $size;
        whole($cast->('echo', method => 'POST', body => $body)->{body}, $body, "$size bytes");
    }
    whole($cast->($_)->{body}, $file, "a file, $_") for qw(sent copied slow chunked closed proxied);
    is $cast->('who', method => 'POST', body => $file)->{status}, 200, 'a body that nobody reads';

    # -- it ends as any other does
    my %seen;
    for (1 .. 9) {
        my $reply = $cast->('three');
        is $reply->{status}, 200, 'an answer though nginx closes now and then';
        $seen{ (split ' ', $reply->{body})[0] }++;
    }
    cmp_ok keys %seen, '>=', 3, 'keepalive_requests';
    is scalar(keys %{ { map { $cast->('once')->{body} => 1 } 1 .. 5 } }), 5, 'Connection: close';
    my $missing = sub ($action, $channel) { $s->get($s->port($own), "/$channel/cast?$action")->json->{missing}[-1]{error} };
    like $missing->('gone', 'test'), qr/closed before the answer/, 'closed without an answer';
    is $cast->('large', method => 'POST', body => $file)->{status}, 413, 'answered before the body was read';
    is $cast->('who')->{status}, 200, '... and then';
    like $missing->('left', 'quick'), qr/timed out/, 'one that does not answer';
    ok $s->wait_log(qr/the caller has left/), '... is told that the caller has left';
    ok $s->wait_for(sub { CC::Proc::slurp($s->path('logs/own.log')) =~ m{^/left 499 }m }, '499'), '... and logged as one left by its client';
    my ($worker) = ($s->workers)[$id];
    my $files = CC::Proc::fds($worker);
    $cast->('once') for 1 .. 50;
    ok $s->wait_for(sub { keys(CC::Proc::fds($worker)->%*) <= keys(%$files) + 2 }, 'descriptors'), 'closed ones leave no descriptor';

    # -- stub_status counts them: as accepted, and as active until they are closed
    my $stub = sub { $s->get($s->port($own), '/stub')->body };
    my ($accepted, $handled) = $stub->() =~ /^ (\d+) (\d+) /m;
    is $accepted, $handled, 'as many were handled as accepted';
    my ($active) = $stub->() =~ /connections: (\d+)/;
    $cast->('once') for 1 .. 20;
    my $after;
    ok $s->wait_for(sub { ($after) = $stub->() =~ /connections: (\d+)/; $after <= $active }, 'active'), 'none stays active'
        or diag "$active, $after";
    cmp_ok +($stub->() =~ /^ (\d+) /m)[0], '>=', $accepted + 20, '... and each was counted';

    # -- a call under way keeps the worker, an idle connection does not
    my $c = $s->connect($s->port($own));
    $c->send("GET /test/cast?slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    $s->reload(wait_old => 0);
    my $answer = $c->read_all;
    like $answer, qr/"answered":$workers,/, 'an answer during a reload';
    ok $s->wait_for(sub { !CC::Proc::alive($worker) }, 'the old worker to leave'), '... after which the worker leaves';
    is $cast->('who')->{body}, "127.0.0.1: $at $id", 'its successor calls itself, too';
    ok $s->quit, 'quit';
    $s->log_is_clean(except => qr/prematurely closed|client intended to send too large body|upstream timed out|closed before the answer|timed out/);
}

# -- other listeners
sub who ($listen, %opt) {
    my $s = CC::Server->new(module => 1, lua => 0, workers => 2, http => 'cc_channel test timeout=2s;', %opt,
        server => "listen $listen;" . <<'CONF')->start;
    location = /test/cast { cc_cast; }
    location = /test/invoke { cc_invoke; cc_action who /who; }
    location = /who { internal; return 200 "$remote_addr:$remote_port $server_addr:$server_port"; }
CONF
    my $json = $s->get($s->port, '/test/cast?who')->json;
    my $bodies = [ map { $_->{body} } $json->{replies}->@* ];
    my $reasons = [ map { $_->{error} } $json->{missing}->@* ];
    ok $s->quit, "$listen: quit";
    $s->log_is_clean(except => qr/broken header/);
    return ($s, $bodies, $reasons);
}
for my $listen ('%PORT+1% per_worker', '127.0.0.1:%PORT+1% per_worker; listen %PORT+3%') {
    my ($s, $bodies) = who($listen);
    my @own = grep { /^127\.0\.0\.1: / } @$bodies;
    is scalar(@own), 1, 'one of them is the caller';
    my ($id) = grep { $bodies->[$_] eq ($own[0] // '') } 0, 1;
    is $own[0], '127.0.0.1: 127.0.0.1:' . $s->port(1 + $id), '... at its own port';
}
{
    my (undef, $bodies) = who('unix:%PREFIX%/worker.sock per_worker');
    is_deeply [ map { s/ .*//r } @$bodies ], [ 'unix::', 'unix::' ], 'Unix sockets';
}
SKIP: {
    skip 'no IPv6', 2 unless -e '/proc/net/if_inet6' && -s '/proc/net/if_inet6';
    my ($s, $bodies) = who('[::1]:%PORT+1% per_worker');
    is scalar(grep { /^::1: ::1:\d+$/ } @$bodies), 1, 'IPv6';
}
{
    my (undef, $bodies, $reasons) = who('127.0.0.1:%PORT+1% per_worker proxy_protocol');
    is_deeply $bodies, [], 'where the PROXY protocol is expected';
    is $reasons->[0], $reasons->[1], '... a worker has no way of its own';
}
for my $method (qw(poll select)) {
    SKIP: {
        my ($code, $says) = CC::Server->new(module => 1, http => '', events => "use $method;")->try_conf;
        skip "this nginx has no $method", 2 if $says =~ /invalid event type/;
        my (undef, $bodies) = who('127.0.0.1:%PORT+1% per_worker', events => "use $method;");
        is scalar(grep { /^127\.0\.0\.1:\d+ / } @$bodies), 2, "$method does not tell the end of a connection: sockets are used";
    }
}
done_testing;
