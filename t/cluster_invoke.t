# cc_invoke: an action in the worker that was reached (C7 to C12), and cc_hub: in the router (C7,
# C11, C13), whichever worker was reached. Without Lua.
use v5.36;
use IO::Socket::INET;
use Test::More;
use CC::Server;

my $http = <<'CONF';
    cc_channel test;
    cc_channel kada timeout=500ms;
    client_max_body_size 2m;
    client_body_buffer_size 8k;
CONF
my $server = <<'CONF';
    listen 127.0.0.1:%PORT+1% per_worker;
    location ~ ^/([^/]+)/invoke { cc_invoke; cc_action who /who; cc_action fail /fail?code=1; cc_action echo /echo;
        cc_action named @named; cc_action moved /moved; cc_action none /none; }
    location ~ ^/([^/]+)/hub { cc_hub; cc_action who /who; cc_action fail /fail; cc_action echo /echo;
        cc_action hang /hang; cc_action head /who; cc_action none /none; }
    location /const { cc_invoke test; cc_action who /who; }
    location ~ ^/var/(?<name>[^/]+) { cc_invoke $name; cc_action who /who; }
    location = /who { internal; add_header X-Channel $cc_channel; add_header X-Router $cc_router;
        return 200 "$cc_worker_id $request_method $cc_channel $cc_node $cc_generation $args\n"; }
    location = /fail { internal; add_header X-Why bad always; return 418 "teapot $args\n"; }
    location = /none { internal; return 204; }
    location = /moved { internal; return 302 http://127.0.0.1/elsewhere; }
    location = /echo { internal; proxy_pass http://127.0.0.1:%PORT+8%; }
    location @named { return 200 "named $args\n"; }
    location = /vars { return 200 "$cc_router $cc_node $cc_generation [$cc_channel]\n"; }
CONF
my $s = CC::Server->new(module => 1, lua => 0, workers => 3, http => $http, server => $server)->start;
# says what arrived, and sends it back
my $echo = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $s->port(8), Listen => 64, ReuseAddr => 1) or die $!;
my $echoer = fork // die $!;
if (!$echoer) {
    while (my $c = $echo->accept) {
        my ($head, $body) = ('', '');
        while ($head !~ /\r\n\r\n/) { sysread $c, $head, 65536, length $head or last }
        ($head, $body) = split /\r\n\r\n/, $head, 2;
        my ($length) = $head =~ /^Content-Length: (\d+)/im;
        while (length $body < ($length // 0)) { sysread $c, $body, 65536, length $body or last }
        my ($method) = $head =~ /^(\w+)/;
        my ($mine) = $head =~ /^X-Mine: (.*?)\r?$/im;
        print $c join "\r\n", 'HTTP/1.0 201 Created', 'X-Seen: ' . join(' ', $method, length $body, $mine // '-'),
            'Content-Length: ' . length $body, '', $body;
        close $c;
    }
    require POSIX;
    POSIX::_exit(0);
}
close $echo;
END { kill KILL => $echoer if $echoer }
my ($any, @worker) = ($s->port, map { $s->port(1 + $_) } 0 .. 2);

# -- invoke
for my $id (0 .. 2) {
    my $r = $s->get($worker[$id], '/test/invoke?who&x=1');
    is $r->status, 200, "worker $id answers";
    is $r->body, "$id GET test 127.0.0.1:$any 1 who&x=1\n", '... itself, for the channel, with all arguments';
}
is $s->get($worker[1], '/test/invoke?x=1&w%68o=2')->body, "1 GET test 127.0.0.1:$any 1 x=1&w%68o=2\n",
    'the first argument that names an action';
is $s->get($worker[1], '/test/invoke?fail&who')->status, 418, 'of two, the first in the query (C10)';
is $s->get($worker[1], '/test/invoke?fail')->body, "teapot code=1&fail\n", "an action's own arguments come first";
is $s->get($worker[1], '/test/invoke?named')->body, "named named\n", 'a named location';
is $s->get($worker[1], '/test/invoke?moved')->header('Location'), 'http://127.0.0.1/elsewhere', 'a redirect is the answer';
is $s->get($worker[1], '/const/x?who')->body, "1 GET test 127.0.0.1:$any 1 who\n", 'a channel by its name';
is $s->get($worker[1], '/var/kada?who')->body, "1 GET kada 127.0.0.1:$any 1 who\n", 'and by a variable';
is $s->get($worker[2], '/test/invokeXXX?who')->status, 200, 'what follows the word does not matter (C12)';
for my $uri ('/nobody/invoke?who', '/var/nobody?who', '/nobody/hub?who') {
    my $r = $s->get($worker[1], $uri);
    is $r->status, 403, "$uri: 403";
    is $r->body, "URL include unknow channel.\n", '... in the words of the original (C8)';
}
ok $s->wait_log(qr/\[warn\] .*cc: unknown channel: 403, URL include unknow channel\..*client: 127\.0\.0\.1/), 'which is logged';
my $r = $s->get($worker[1], '/test/invoke?what%0a');
is $r->status, 404, 'an unknown action: 404 (C9)';
is $r->body, "unknown action \"what?\"\n", 'with the reason';
is $s->get($worker[1], '/test/invoke')->body, "no action in the query\n", 'no action at all';
is $s->get($any, '/vars')->body, "0 127.0.0.1:$any 1 []\n", 'the variables elsewhere';

# -- hub
for my $port ($any, @worker) {
    my $r = $s->get($port, '/test/hub?who&y');
    is $r->body, "0 GET test 127.0.0.1:$any 1 who&y\n", "hub at $port: the router";
    is $r->header('X-Channel'), 'test', 'with its headers';
    is scalar(grep { lc $_->[0] eq 'server' } $r->headers->@*), 1, 'one Server header' if ref $r->headers eq 'ARRAY';
}
for my $port (@worker) {
    $r = $s->get($port, '/test/hub?fail');
    is $r->status, 418, 'the status of the action (C11)';
    is $r->body, "teapot fail\n", 'and its body';
    is $r->header('X-Why'), 'bad', 'and headers';
    is $s->get($port, '/test/hub?none')->status, 204, '204 without a body';
    is $s->get($port, '/test/hub?nothing')->status, 404, 'an unknown action of the hub';
    my $head = $s->request('HEAD', $port, '/test/hub?head');
    is $head->status, 200, 'HEAD';
    is $head->body, '', 'without a body';
    cmp_ok $head->header('Content-Length') // 0, '>', 10, 'but with its length';
}

# -- bodies (C13)
for my $method (qw(GET POST PUT PATCH DELETE)) {
    for my $length (0, 3, 20_000, 1_000_000) {
        my $body = join '', map { chr 32 + ($_ * 7 + $length) % 90 } 1 .. $length;
        for my $port ($worker[0], $worker[2]) {
            my $r = $s->request($method, $port, '/test/hub?echo', body => $body, headers => { 'X-Mine' => "a b" });
            is $r->status, 201, "$method of $length bytes at $port";
            like $r->header('X-Seen') // '', qr/^$method $length a b$/, 'arrives with its headers';
            ok $r->body eq $body, 'and comes back';
        }
    }
}
is $s->request('POST', $worker[1], '/test/hub?echo', body => 'x' x 3_000_000)->status, 413, 'client_max_body_size holds';

# -- CC-Hop cannot be abused
for my $hop ('99 - local', '1 - local; mac=0', 'x') {
    my $r = $s->get($worker[1], '/test/hub?who', 'CC-Hop' => $hop);
    is $r->status, 400, "a header that no worker wrote: $hop";
    is $r->body, "invalid CC-Hop header\n", '... is refused';
}
my $foreign = ' - local; mac=' . '0' x 64;
is $s->get($worker[1], '/test/hub?who', 'CC-Hop' => "1$foreign")->status, 200, "one with another's key may ask";
my $order = '/test/hub?transferServer=127.0.0.1:9';
is $s->get($worker[1], $order, 'CC-Hop' => "1$foreign")->status, 403, 'and proves nothing';
is $s->get($worker[1], '/test/hub?who', 'CC-Hop' => "250$foreign")->status, 503, 'but how far it has come';

$s->log_is_clean(qr|client intended to send too large body|);
done_testing;
