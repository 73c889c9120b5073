# ngx.cc.balancer: chooses from any phase before the upstream connects, also after a yield; what it
# refuses; what it tells afterwards; and inside balancer_by_lua* (B1..B8, B10, B11, B13..B15, B19,
# B21..B26).
use v5.36;
use Test::More;
use IO::Socket::INET;
use Time::HiRes qw(time);
use CC::Server;
use CC::Wait qw(SLOW);

my $s = CC::Server->new(module => 1, ports => 24, http => <<'E');
server {
    listen 127.0.0.1:%PORT+1%;
    listen 127.0.0.1:%PORT+2%;
    listen [::1]:%PORT+2%;
    location / { return 200 "$server_addr:$server_port"; }
    location /404 { return 404; }
    location /500 { return 500; }
    location /slow { content_by_lua_block { ngx.sleep(5) } }
}
upstream u { cc_balancer; keepalive 4; }
upstream three { server 127.0.0.1:%PORT+1%; server 127.0.0.1:%PORT+2%; server 127.0.0.1:%PORT+9%; cc_balancer; }
upstream tries { cc_balancer; cc_balancer_tries 2; cc_balancer_timeouts 1s 1s 100ms; }
upstream inside { server 0.0.0.1; balancer_by_lua_block { ngx.ctx.run() } }
upstream both { server 0.0.0.1; balancer_by_lua_block { ngx.ctx.run() } cc_balancer_tries 3; keepalive 4; }
upstream wrong { server 0.0.0.1; balancer_by_lua_file conf/wrong.lua; cc_balancer_tries 3; }
init_by_lua_block {
    b = require "ngx.cc.balancer"
    port = %PORT%
    -- runs what the test sends, and tells what comes of it
    function tell(...)
        local out = {}
        for i = 1, select("#", ...) do
            out[i] = tostring((select(i, ...)))
        end
        return table.concat(out, " ")
    end
    function run(code)
        local f = assert(loadstring(ngx.unescape_uri(code or "")))
        return tell(f())
    end
    -- in ngx.var: the header filter of an internal redirect has another ngx.ctx
    function told()
        local out = {}
        for i, try in ipairs(b.tries()) do
            out[i] = (tonumber(try.address:match(":(%d+)$")) or port) - port .. " " .. tostring(try.state) .. " " .. tostring(try.status)
        end
        return table.concat(out, ", ")
    end
}
server {
    listen 127.0.0.1:%PORT%;
    set $said '';
    set $target $arg_u;
    proxy_http_version 1.1;
    proxy_set_header Connection '';
    proxy_next_upstream error timeout http_404 http_500;
    header_filter_by_lua_block {
        ngx.header.x_said = ngx.var.said
        ngx.header.x_tries = told()
        ngx.header.x_last = tell(b.get_last_failure())
    }
    log_by_lua_block { ngx.log(ngx.WARN, "log: ", told(), "; ", tell(b.get_last_failure()), "; ", tell(b.set_current_peer("127.0.0.1", 1))) }
    location / { access_by_lua_block { ngx.var.said = run(ngx.var.arg_c) } proxy_pass http://$target; }
    location /404 { access_by_lua_block { ngx.var.said = run(ngx.var.arg_c) } proxy_pass http://u; }
    location /500 { access_by_lua_block { ngx.var.said = run(ngx.var.arg_c) } proxy_pass http://u; }
    location /slow { access_by_lua_block { ngx.var.said = run(ngx.var.arg_c) } proxy_pass http://u; proxy_read_timeout 300ms; }
    location /rewrite { rewrite_by_lua_block { ngx.sleep(0.001) ngx.var.said = run(ngx.var.arg_c) ngx.sleep(0.001) } proxy_pass http://u; }
    location /limited { proxy_next_upstream_tries 2; access_by_lua_block { ngx.var.said = run(ngx.var.arg_c) } proxy_pass http://u; }
    location /content { content_by_lua_block { ngx.sleep(0.001) ngx.var.said = run(ngx.var.arg_c) ngx.exec("@proxy") } }
    location @proxy { proxy_pass http://u; }
    location /sub { content_by_lua_block {
        b.set_current_peer("127.0.0.1", port + 1)
        local one = ngx.location.capture("/subproxy?p=1")
        local two = ngx.location.capture("/subproxy?p=2")
        local none = ngx.location.capture("/subproxy")
        ngx.print(one.body, " ", two.body, " ", none.status, " ", #b.tries())
    } }
    location /subproxy { rewrite_by_lua_block { if ngx.var.arg_p then b.set_current_peer("127.0.0.1", port + ngx.var.arg_p) end } proxy_pass http://u; }
    location /phase { content_by_lua_block {
        local out
        ngx.timer.at(0, function() out = tell(b.set_current_peer("127.0.0.1", 1)) .. "; " .. tell(b.tries()) .. "; " .. tell(b.get_last_failure()) .. "; " .. tell(b.set_more_tries(1)) .. "; " .. tell(b.set_timeouts(1)) end)
        while not out do ngx.sleep(0.001) end
        ngx.print(out)
    } }
    location /inside { access_by_lua_block {
        local f = assert(loadstring(ngx.unescape_uri(ngx.var.arg_c)))
        ngx.ctx.run = function() ngx.var.said = ngx.var.said .. tell(f()) .. "|" end
    } proxy_pass http://inside; proxy_next_upstream_tries 4; }
    location /both { access_by_lua_block {
        local f = assert(loadstring(ngx.unescape_uri(ngx.var.arg_c)))
        ngx.ctx.run = function() ngx.var.said = ngx.var.said .. tell(f()) .. "|" end
    } proxy_pass http://both; }
    location /wrong { proxy_pass http://wrong; }
}
E
# accepted by the kernel, never answered
my $mute = IO::Socket::INET->new(Listen => 50, LocalAddr => '127.0.0.1', LocalPort => $s->port(5)) or die $!;
$s->start;

sub escape ($text) { $text =~ s/([^\w.-])/sprintf '%%%02x', ord $1/ger }
sub ask ($code, $uri = '/', $u = 'u') { $s->get($s->port, "$uri?u=$u&c=" . escape($code)) }
sub said ($code, $want, $name, $uri = '/') { is ask($code, $uri)->header('X-Said') // '', $want, $name }

# -- who is asked
for my $uri (qw(/ /rewrite /content)) {
    my $r = ask('return b.set_current_peer("127.0.0.1", port + 2)', $uri);
    is $r->body, '127.0.0.1:' . $s->port(2), "$uri: the peer that was set";
    is $r->header('X-Said'), 'true', 'true';
    is $r->header('X-Tries'), '2 ok 200', 'one try';
    is $r->header('X-Last'), 'nil', 'no failure';
}
for my $case (
    [ '"127.0.0.1", tostring(port + 2)', 'a port as a string' ], [ '"127.0.0.1:" .. port + 2', 'a port in the address' ],
    [ '"127.0.0.1:" .. port + 2, port + 9', 'which wins over the other' ],
) {
    is ask("b.set_current_peer($case->[0])")->body, '127.0.0.1:' . $s->port(2), $case->[1];
}
is ask('b.set_current_peer("[::1]", port + 2)')->body, '::1:' . $s->port(2), 'IPv6';
is ask('b.set_current_peer("[::1]:" .. port + 2)')->body, '::1:' . $s->port(2), 'IPv6 with a port';
is ask('b.set_current_peer("unix:/nobody/there")')->status, 502, 'a Unix socket that nobody has';
is ask('b.set_current_peer("127.0.0.1", port + 9) b.set_current_peer("127.0.0.1", port + 1)')->body,
    '127.0.0.1:' . $s->port(1), 'the last call counts';
is ask('')->status, 500, 'nothing is set, and there is no server';
like ask('', '/', 'three')->body, qr/^127/, 'with servers it is their turn';

# -- what is refused
for my $case (
    (map { [ qq{"$_", 80}, 'no host allowed' ] } 'localhost', 'example.invalid', '256.1.1.1', '0', '*'),
    [ '"", 80', 'no host' ], [ '"1.2.3.4/path", 80', 'invalid host' ], [ '"[::1", 80', 'invalid host' ],
    (map { [ qq{"1.2.3.4$_"}, 'invalid port' ] } '', ':', ':0', ':99999'),
    (map { [ qq{"1.2.3.4", $_}, 'invalid port' ] } qw(0 -1 65536 85377 1.5 "x" {} 0/0 1/0)),
    [ '"::1", 80', 'invalid port' ], [ '"unix:"', 'no path in the unix domain socket' ],
) {
    my ($arguments, $why) = @$case;
    said("return b.set_current_peer($arguments)", "nil $why", "set_current_peer($arguments)");
    said("return b.set_peers({ { $arguments } })", "nil $why 1", "set_peers, too") if $arguments !~ /\{/;
}
said('b.set_current_peer("127.0.0.1", port + 1) return b.set_peers { "127.0.0.1:1", "localhost:1" }', 'nil no host allowed 2', 'which one it is');
is ask('b.set_current_peer("127.0.0.1", port + 1) b.set_peers { "127.0.0.1:1", "localhost:1" }')->body,
    '127.0.0.1:' . $s->port(1), 'and what was set stays';
said('return b.set_peers {}', 'nil no host', 'no peers');
said('return pcall(b.set_current_peer)', q{false bad argument #1 to 'set_current_peer' (string expected, got no value)}, 'a wrong type raises');
said('return pcall(b.set_peers, "x")', q{false bad argument #1 to 'set_peers' (table expected, got string)}, 'so it does for a list');
said('return select(2, pcall(function() b.set_peers { 1 } end)):gsub("^.*:%d+: ", "")',
    q{bad argument #1 to 'set_peers' (string expected, got number) 1}, 'and what is in it');
is ask('b.set_current_peer("127.0.0.1", port + 1) b.set_current_peer(1)')->status, 500, 'which is 500';

# -- tries
my $r = ask('b.set_peers { "127.0.0.1:" .. port + 9, { "127.0.0.1", port + 5 }, { "127.0.0.1", port + 1 } } b.set_timeouts(1, 1, 0.1)');
is $r->body, '127.0.0.1:' . $s->port(1), 'the third of three';
is $r->header('X-Tries'), '9 failed 502, 5 failed 504, 1 ok 200', 'all of them told';
is $r->header('X-Last'), 'failed 504', 'and the last failure';
$s->wait_log(qr/log: 9 failed 502, 5 failed 504, 1 ok 200; failed 504; nil API disabled in the current context/)
    ? pass('in the log phase, too; nothing can be set there') : fail('the log phase');
$r = ask('return b.set_current_peer("127.0.0.1", port + 1), b.set_more_tries(2)', '/404');
is $r->header('X-Tries'), join(', ', ('1 next 404') x 3), 'two more';
is $r->header('X-Last'), 'next 404', 'next';
$r = ask('b.set_current_peer("127.0.0.1", port + 1) b.set_more_tries(5) b.set_more_tries(0)', '/500');
is $r->header('X-Tries'), '1 failed 500', 'the last call counts; 0 is no more';
is $r->status, 500, 'the last answer is passed on';
$r = ask('b.set_current_peer("127.0.0.1", port + 9)', '/', 'three');
is $r->header('X-Tries'), join(', ', ('9 failed 502') x 3), 'as many as there are servers';
$r = ask('b.set_current_peer("127.0.0.1", port + 9) b.set_more_tries(1)', '/', 'tries');
is $r->header('X-Tries'), join(', ', ('9 failed 502') x 3), 'in addition to cc_balancer_tries';
$r = ask('b.set_current_peer("127.0.0.1", port + 9) return b.set_more_tries(1)', '/limited');
is $r->header('X-Said'), 'true', 'within the limit';
$r = ask('b.set_current_peer("127.0.0.1", port + 9) return b.set_more_tries(2)', '/limited');
is $r->header('X-Said'), 'true reduced tries due to limit', 'beyond it';
is $r->header('X-Tries'), join(', ', ('9 failed 502') x 2), 'exactly the limit is made';
$r = ask('b.set_current_peer("127.0.0.1", port + 9) return b.set_more_tries(2147483647)');
is $r->header('X-Said'), 'true reduced tries due to limit', 'there is always one';
is @{ [ split /, /, $r->header('X-Tries') ] }, 100, 'of 100';
said("return b.set_more_tries($_)", 'nil invalid number of tries', "set_more_tries($_)") for qw(-1 1.5 0/0 1/0 1e10);
said('return pcall(b.set_more_tries, "1")', q{false bad argument #1 to 'set_more_tries' (number expected, got string)}, 'a wrong type raises');

# -- timeouts
my $began = time;
$r = ask('b.set_current_peer("127.0.0.1", port + 5) b.set_timeouts(nil, nil, 0.123)');
is $r->status, 504, 'the read timeout';
cmp_ok time - $began, '>=', 0.12, 'to the millisecond';
cmp_ok time - $began, '<', 1 * SLOW, 'and no longer';
$began = time;
$r = ask('b.set_current_peer("127.0.0.1", port + 5) b.set_timeouts(1)', '/slow');
is $r->status, 504, 'without one it is the location\'s';
cmp_ok time - $began, '>=', 0.29, 'for each that is nil';
$began = time;
ask('b.set_current_peer("127.0.0.1", port + 5) b.set_timeouts(nil, nil, 0.3)', '/', 'tries');
cmp_ok time - $began, '>=', 0.29, 'it wins over the directive';
for my $i (1 .. 3) {
    my $word = (qw(connect send read))[$i - 1];
    for my $bad (qw(0 -1 "1.234" 0/0 1/0 true 2147484)) {
        my $arguments = join ', ', map { $_ == $i ? $bad : 'nil' } 1 .. 3;
        said("return select(2, pcall(function() b.set_timeouts($arguments) end))", qq{[string "return select(2, pcall(function() b.set_timeo..."]:1: bad $word timeout},
            "set_timeouts($arguments)");
    }
}

# -- subrequests and phases
is $s->get($s->port, '/sub')->body, join(' ', '127.0.0.1:' . $s->port(1), '127.0.0.1:' . $s->port(2), 500, 0),
    'subrequests have choices and tries of their own';
is $s->get($s->port, '/phase')->body, join('; ', ('nil API disabled in the current context') x 2,
    'nil nil API disabled in the current context', ('nil API disabled in the current context') x 2), 'a timer has none';

# -- inside balancer_by_lua*
$r = ask('return b.get_last_failure(), b.set_current_peer("127.0.0.1", port + 9), b.set_more_tries(1)', '/inside');
is $r->header('X-Said'), 'nil true true|failed true true|failed true true|failed true true reduced tries due to limit|',
    'as ngx.balancer has it' or diag $r->header('X-Said');
$r = ask('local n = ngx.ctx.n or 0 ngx.ctx.n = n + 1 if n < 2 then b.set_more_tries(1) end return b.set_peers { { "127.0.0.1", port + 9 }, { "127.0.0.1", port + 1 } }', '/inside');
is $r->body, '127.0.0.1:' . $s->port(1), 'set_peers: one after the other';
is $r->header('X-Said'), 'true|true|', 'each true';
$r = ask('return b.set_current_peer("127.0.0.1", 65536)', '/inside');
is $r->header('X-Said'), 'nil invalid port|', 'a port that is none is refused there, too';
$r = ask('return b.set_current_peer("localhost", 80)', '/inside');
is $r->header('X-Said'), 'nil no host allowed|', 'and a name';

# -- under our hooks
$r = ask('return b.set_current_peer("127.0.0.1", port + (ngx.ctx.tried and 1 or 9), (function() ngx.ctx.tried = true end)())', '/both');
is $r->body, '127.0.0.1:' . $s->port(1), 'with cc_balancer_tries: a second try, for which the block runs again';
is $r->header('X-Tries'), '9 failed 502, 1 ok 200', 'both told';
is ask('return b.set_current_peer("127.0.0.1", port + 1)', '/both')->body, '127.0.0.1:' . $s->port(1), 'a kept connection'
    for 1 .. 2;

# -- errors there
for my $case (
    [ 'error("on purpose")', qr/failed to run balancer_by_lua.*: .*on purpose/ ],
    [ 'local x = nil + 1', qr/failed to run balancer_by_lua.*attempt to perform arithmetic/ ],
    [ 'ngx.sleep(0.01)', qr/failed to run balancer_by_lua.*API disabled in the context of balancer_by_lua/ ],
    [ 'ngx.socket.tcp()', qr/failed to run balancer_by_lua.*API disabled in the context of balancer_by_lua/ ],
) {
    my ($code, $why) = @$case;
    for my $uri (qw(/inside /both)) {
        my $log = $s->log_size;
        $r = ask($code, $uri);
        is $r->status, 500, "$uri: $code: 500";
        is $r->header('X-Tries') // '', $uri eq '/both' ? '0 failed nil' : '', 'one try at most, which has failed';
        ok $s->wait_log(qr/\[error\] .*$why.*while connecting to upstream/s, $log), 'the log says why, and when';
    }
}
$s->write('conf/wrong.lua', 'this is no Lua');
my $log = $s->log_size;
is $s->get($s->port, '/wrong')->status, 500, 'no Lua at all: 500';
ok $s->wait_log(qr/\[error\] .*wrong\.lua.*while connecting to upstream/, $log), 'the log says where';
$s->write('conf/wrong.lua', 'require("ngx.cc.balancer").set_current_peer("127.0.0.1", ' . $s->port(1) . ')');
is $s->get($s->port, '/wrong')->status, 200, 'and is none the worse for it';

ok $s->quit, 'quit';
$s->log_is_clean(qr/no peer set|Connection refused|No such file|timed out|lua entry thread|no host allowed|0\.0\.0\.1|while connecting to upstream|failed to run balancer_by_lua/);
done_testing;
