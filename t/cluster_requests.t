# Requests of other kinds: subrequests, redirects, chunked and pipelined ones, one process only; and
# who is of this machine and who is not.
use v5.36;
use Test::More;
use CC::Server;

my $http = 'cc_channel test; gzip on; gzip_min_length 1; gzip_types text/plain;';
my $server = <<'CONF';
    listen 127.0.0.1:%PORT+1% per_worker;
    location ~ ^/([^/]+)/invoke { cc_invoke; cc_action who /who; cc_action echo /echo; cc_action loop /test/invoke; }
    location ~ ^/([^/]+)/hub { cc_hub; cc_action who /who; cc_action echo /echo; cc_action big /big; }
    location ~ ^/([^/]+)/cast { internal; cc_cast; }
    location = /who { internal; default_type text/plain; return 200 "$cc_worker_id $cc_channel $args $http_x_mine"; }
    location = /echo { internal; content_by_lua_block { ngx.req.read_body() ngx.print(ngx.req.get_method(), " ", ngx.req.get_body_data() or "") } }
    location = /big { internal; content_by_lua_block { ngx.header["Content-Type"] = "text/plain" for i = 1, 2000 do ngx.print(("x"):rep(1000)) end } }
    location = /capture { content_by_lua_block {
        local a = ngx.location.capture("/test/hub?who&" .. (ngx.var.args or ""))
        local b = ngx.location.capture("/test/hub?echo", { method = ngx.HTTP_POST, body = "of a subrequest" })
        ngx.say(a.status, " ", a.body)
        ngx.say(b.status, " ", b.body)
    } }
    location = /plain { content_by_lua_block {
        local c = ngx.location.capture("/test/cast?who")
        ngx.say(c.status, " ", c.body:match('"answered":(%d+)'))
    } }
    location = /redirected { rewrite ^ /test/hub?who last; }
    location = /paged { error_page 404 = /test/hub?who; return 404; }
CONF
my $s = CC::Server->new(module => 1, lua => 1, workers => 3, http => $http, server => $server)->start;

for my $port (map { $s->port($_) } 1 .. 3) {
    is $s->get($port, '/capture?x')->body, "200 0 test who&x \n200 POST of a subrequest\n", 'subrequests to the hub';
    is $s->get($port, '/plain')->body, "200 3\n", 'to a cast that is internal';
    is $s->get($port, '/redirected')->body, '0 test who ', 'a rewritten request';
    is $s->get($port, '/paged')->body, '0 test who ', 'an error page';
}
is $s->get($s->port(2), '/test/cast?who')->status, 404, 'an internal cast is not for clients (C8)';
is $s->get($s->port(2), '/test/invoke?loop')->status, 500, 'an action that is itself ends';
ok $s->wait_log(qr/rewrite or internal redirection cycle while/), 'and is logged by nginx';

# -- a connection that goes on
my $c = $s->connect($s->port(2), keepalive => 1);
$c->send("POST /test/hub?echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n4\r\n two\r\n0\r\n\r\n");
$c->send("GET /test/hub?who&n=2 HTTP/1.1\r\nHost: a\r\nX-Mine: y\r\n\r\n");
$c->send("POST /test/hub?echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nthird");
$c->send("GET /test/hub?who&n=4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
my $all = $c->read_all;
like $all, qr/POST first two.*0 test who&n=2 y.*POST third.*0 test who&n=4 /s, 'chunked, pipelined, expected: all in their order';
my $r = $s->get($s->port(3), '/test/hub?big');
is length $r->body, 2_000_000, 'a long answer';
$r = $s->get($s->port(3), '/test/hub?big', 'Accept-Encoding' => 'gzip');
is $r->header('Content-Encoding'), 'gzip', 'packed by the router';
is $s->get($s->port(1), '/test/hub?who')->body, '0 test who ', 'all is well';

# -- a client that goes away in the middle of a body
{
    my $c = $s->connect($s->port(2));
    $c->send("POST /test/hub?echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf");
    $c->close;
    is $s->get($s->port(2), '/test/hub?who')->status, 200, 'is forgotten';
}
$s->log_is_clean(qr/internal redirection cycle/, qr/prematurely closed/);

# -- who is of this machine
my $trust = CC::Server->new(module => 1, lua => 0, workers => 2, http => "cc_channel test;", server => <<'CONF')->start;
    listen 127.0.0.1:%PORT+1% per_worker;
    listen 127.0.0.1:%PORT+5% proxy_protocol;
    listen unix:%PREFIX%/hub;
    set_real_ip_from 127.0.0.1;
    real_ip_header X-Client;
    location ~ hub { cc_hub test; }
CONF
my $what = '/hub?invalidWorker=1';
for my $port ($trust->port(1), $trust->port(2), 'unix:' . $trust->path('hub')) {
    is $trust->get($port, $what)->status, 200, "$port: is" or next;
}
for my $client ('10.0.0.1', '127.0.0.9', '::1') {
    is $trust->get($trust->port($_), $what, 'X-Client' => $client)->status, 403, "said to be $client: who knows" for 1, 2;
}
for my $client ('10.0.0.1', '127.0.0.1') {
    my $c = $trust->connect($trust->port(5));
    $c->send("PROXY TCP4 $client 127.0.0.1 1234 80\r\nGET $what HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    like $c->read_all, qr/^HTTP\S+ 403 .*no proof of who asks\n\z/s, "by PROXY protocol, $client: not";
}
is $trust->get($trust->port(2), $what, $_ => '127.0.0.1')->status, 403, "with $_: not" for qw(X-Forwarded-For X-Real-IP Forwarded Via);
$trust->log_is_clean;

# -- one process
my $one = CC::Server->new(module => 1, lua => 0, master_process => 'off', http => "cc_channel test;",
    server => 'listen 127.0.0.1:%PORT+1% per_worker; location ~ hub { cc_hub test; cc_action who /who; } location /test/invoke { cc_invoke; cc_action who /who; }
    location ~ cast { cc_cast workers test; } location = /who { return 200 "$cc_worker_id $cc_router"; }')->start;
is $one->get($one->port, '/hub?who')->body, '0 0', 'one process is the router';
is $one->get($one->port, '/cast?who')->json->{answered}, 1, 'and all workers';
is $one->get($one->port, '/hub?getServiceStat')->json->{routePort}, $one->port(1), 'and a node';
ok $one->quit, 'quit';
done_testing;
