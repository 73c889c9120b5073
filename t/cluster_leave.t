# A request that waits for what its worker will not do any more, for it leaves: it is answered, in Lua,
# too, and the worker goes.
use v5.36;
use Test::More;
use IO::Select;
use IO::Socket::INET;
use CC::Ports;
use CC::Server;

my $http = <<'CONF';
    cc_channel test;
    lua_shared_dict ngxcc_dict 1m;
    init_worker_by_lua_block { ngx_cc = require "ngx_cc" route = ngx_cc:new "test" }
CONF
my $server = <<'CONF';
    listen 127.0.0.1:%PORT+1% per_worker;
    location ~ ^/([^/]+)/invoke { content_by_lua 'ngx_cc.invokes(ngx.var[1])'; }
    location ~ ^/([^/]+)/hub { content_by_lua 'ngx_cc.invokes(ngx.var[1], true)'; }
    location ~ ^/native/([^/]+)/hub { cc_hub $1; }
CONF
# a super that never says a word
my $mute = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1', LocalPort => CC::Ports::port()) or die $!;
my $order = 'hub?transferServer=127.0.0.1:' . $mute->sockport;

for my $path ('/test', '/native/test') {
    my $s = CC::Server->new(module => 1, lua => 1, workers => 1, http => $http, server => $server);
    $s->start;
    is $s->get($s->port(1), '/test/hub?getServiceStat')->status, 200, "$path: the router is there";
    my $client = $s->connect($s->port(1), timeout => 20);
    $client->send("GET $path/$order HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    # it has asked that super
    ok IO::Select->new($mute)->can_read(20), 'the order is under way';
    my $asked = $mute->accept;
    ok $s->reload, 'a reload';
    my $answer = $client->read_all;
    like $answer, qr{^HTTP/1.1 50[03] }, 'the order is answered';
    ok $s->wait_for(sub { !$s->retiring_pids }, 'the old worker to leave'), 'and its worker leaves';
    ok $s->quit, 'quits';
}
done_testing;
