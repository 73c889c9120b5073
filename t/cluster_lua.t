# require "ngx_cc": what the original's document promises, in its better form (C1 to C47), in requests
# and in timers.
use v5.36;
use Test::More;
use CC::Server;

my $http = <<'CONF';
    lua_shared_dict ngxcc_dict 1m;
    init_by_lua_block {
        local ok, err = pcall(require("ngx_cc").new, require "ngx_cc", "early")
        early = err
    }
    init_worker_by_lua_block {
        ngx_cc = require "ngx_cc"
        ngx_cc.cluster.super = { host = "127.0.0.1", port = "%PORT%" }
        route = ngx_cc:new "test"
        other = ngx_cc:new "kada"
        require("module.invoke").apply(route)
        require("module.heartbeat").apply(other)
        require("module.invalid").apply(other)
        function route.invoke.who(r, channel, arg)
            ngx.req.read_body()
            ngx.print(ngx.worker.id(), " ", ngx.req.get_method(), " ", channel, " ", arg.k or "-", " ",
                ngx.req.get_body_data() or "-", " ", ngx.var.http_x_mine or "-")
        end
        function route.invoke.bad() ngx.status = tonumber(ngx.var.arg_bad) ngx.print "no" end
        -- returns when `n` are in it, of all workers
        function route.invoke.meet(r, _, arg)
            local dict = ngx.shared.ngxcc_dict
            dict:incr(arg.at, 1, 0)
            while dict:get(arg.at) < tonumber(arg.n) do ngx.sleep(0.001) end
            dict:incr(arg.at .. " left", 1, 0)
            ngx.print "met"
        end
        function route.invoke.dies() error "it dies" end
        function other.invoke.where() ngx.print("kada ", ngx.worker.id()) end
        function route.invoke.master(r)
            local here, status, list = r.isInvokeAtMaster()
            if here then return ngx.print("router ", ngx.worker.id()) end
            r.say(status, list)
        end
        function route.invoke.per(r)
            local here, status, list = r.isInvokeAtPer()
            if here then return ngx.print("per ", ngx.worker.id()) end
            r.say(status, list)
        end
        -- a call's status, and of each answer: its status, body, and what it is from
        function show(ok, list)
            local out = { tostring(ok) }
            for _, r in ipairs(list) do
                out[#out + 1] = r == false and "false"
                    or r.status .. " " .. (r.body == "" and "<" .. (r.err or "") .. ">" or r.body)
            end
            return table.concat(out, "; ")
        end
        function fails(...) local ok, err = pcall(...) return ok and "no error" or err end
    }
CONF
my $server = <<'CONF';
    listen 127.0.0.1:%PORT+1% per_worker;
    location ~ ^/([^/]+)/invoke { content_by_lua 'ngx_cc.invokes(ngx.var[1])'; }
    location ~ ^/([^/]+)/hub { content_by_lua 'ngx_cc.invokes(ngx.var[1], true)'; }
    location /ding { return 200 "ding $cc_worker_id $args"; }
    location = /plain { return 200 "plain"; }
    location = /run { content_by_lua_block {
        ngx.req.read_body()
        local text = ngx.req.get_body_data()
        ngx.say(tostring(assert(loadstring(text:gsub("^.-\n", "", 1)))()))
    } }
    location = /timer { content_by_lua_block {
        ngx.req.read_body()
        local sem, result = require("ngx.semaphore").new(), nil
        local f = assert(loadstring(ngx.req.get_body_data()))
        assert(ngx.timer.at(0, function() local ok, r = pcall(f) result = tostring(r) sem:post() end))
        sem:wait(10)
        ngx.say(result)
    } }
CONF
my $s = CC::Server->new(module => 1, lua => 1, workers => 3, http => $http, server => $server)->start;

# runs Lua in worker 1, in a request; the body's first line is not part of it
sub lua ($code, $query = '', %o) {
    my $r = $s->request($o{method} // 'POST', $s->port(2), "/run$query", body => "BODY\n$code", headers => { 'X-Mine' => 'm' });
    return $r->body =~ s/\n\z//r;
}
sub timer ($code) { $s->request('POST', $s->port(2), '/timer', body => $code)->body =~ s/\n\z//r }
sub reason ($code, $pattern, $name) { like lua("return fails(function() $code end)"), $pattern, $name }

subtest 'new' => sub {
    like lua('return early'), qr/initiating ngx_cc channel \[early\] in init_by_lua/, 'not in init_by_lua (C1)';
    reason 'ngx_cc:new("x", { dict = "none" })', qr/access shared dictionary: none/, 'a dictionary that is not there (C1)';
    is lua('return tostring(ngx_cc:new("test") == route)'), 'true', 'the same name: the same route (C6)';
    reason 'ngx_cc:new("a/b")', qr/bad channel name "a\/b"/, 'a name that fits no path';
    reason 'ngx_cc:new(7)', qr/bad channel \(string expected, got number\)/, 'not a name';
    is lua('return tostring(route.channels) .. tostring(route.invokes) .. type(route.remote)'), 'nilnilfunction', 'what a route inherits (C47)';
    is lua('ngx_cc:new("late").invoke.x = function() ngx.print "x" end return show(ngx_cc.channels.late.self("/_/invoke?x"))'),
        'true; 200 x', 'a channel made at run time (C6)';
    is lua('return route.cluster.router.port .. " " .. route.cluster.worker.port .. " " .. route.cluster.master.port .. " " .. tostring(route.isRoot())'),
        join(' ', $s->port(1), $s->port(2), $s->port, 'true'), 'the cluster table, and a root (C39)';
};

subtest 'locations' => sub {
    my $get = sub ($port, $path) { my $r = $s->get($s->port($port), $path); $r->status . ' ' . $r->body };
    is $get->(2, '/test/invoke?who'), '200 1 GET test - - -', 'in the worker that was reached (C7)';
    is $get->($_, '/test/hub?who'), '200 0 GET test - - -', "at the router, by port $_ (C7)" for 0 .. 3;
    is $get->(1, '/nope/invoke?who'), "403 URL include unknow channel.\n", 'an unknown channel (C8)';
    is $get->(1, '/nope/hub?who'), "403 URL include unknow channel.\n", 'at a hub, too';
    is $get->(2, '/test/invoke?none'), "404 unknown action\n", 'an unknown action (C9)';
    is $get->(2, '/test/invoke'), "404 no action in the query\n", 'no action (C9)';
    is $get->(2, '/test/invoke?x&who&bad=500'), '200 1 GET test - - -', 'the first that is one (C10)';
    is $get->(2, '/test/hub?bad=503'), '503 no', 'a status comes through the hub (C11)';
    like $get->(2, '/test/hub?dies'), qr/^500 /, 'and an error';
    is $get->(2, '/test/invokeXX?who'), '200 1 GET test - - -', 'names behind invoke (C12)';
    for my $method (qw(POST PUT PATCH DELETE)) {
        my $body = 'b' x ($method eq 'POST' ? 1_000_000 : 20_000);
        my $r = $s->request($method, $s->port(3), '/test/hub?who&k=v', body => $body, headers => { 'X-Mine' => 'm' });
        # large ones are in a file, of which get_body_data() does not know
        is $r->body, "0 $method test v - m", "$method with a body through the hub (C13)";
    }
    is $s->request('PUT', $s->port(3), '/test/hub?who', body => 'abc')->body, '0 PUT test - abc -', 'and a short one';
};

subtest 'directions' => sub {
    is lua('return show(route.cc("/_/invoke?who", "master"))'), 'true; 200 0 GET test - - m', 'master (C14)';
    is lua('return show(route.cc("/_/invoke?who", "workers"))'), join('; ', 'true', map { "200 $_ GET test - - m" } 0 .. 2), 'workers (C14)';
    is lua('local _, l = route.cc("/_/invoke?who", "workers") return l[1].port .. l[3].port'), $s->port(1) . $s->port(3), 'each with its port';
    is lua('return show(route.cc("/_/invoke?who", "clients"))'), 'true', 'no clients (C15)';
    is lua('return show(route.cc("/_/invoke?who", "super"))'), 'true', 'a root has no super (C16)';
    reason 'route.cc("/_/invoke?who", "sideways")', qr/bad direction "sideways"/, 'no direction (C17)';
    reason 'route.cc("/_/invoke?who", 5)', qr/bad options \(table or string expected, got number\)/, 'no options (C18)';
    reason 'route.cc("")', qr/bad url/, 'an empty url (C18)';
    reason 'route.cc()', qr/bad url \(string expected, got nil\)/, 'none';
    is lua('return show(route.cc("/_/invoke?who", {}))'), 'true; 200 0 GET test - - m', 'empty options: GET to the router (C18)';
    is lua('return show(route.cc("/_/invoke?who"))', '?k=9'), "true; 200 0 POST test 9 BODY\nreturn show(route.cc(\"/_/invoke?who\")) m",
        'no options: the current request (C18)';
    for my $case ([201, 'true'], [204, 'true'], [302, 'false'], [404, 'false'], [503, 'false']) {
        my ($status, $ok) = @$case;
        like lua("return show(route.cc('/_/invoke?bad=$status', 'master'))"), qr/^$ok; $status /, "$status (C19)";
    }
    is lua('return show(route.cc("/_/invoke?who", { method = ngx.HTTP_PUT, body = "B", args = { k = 3 } }))'),
        'true; 200 0 PUT test 3 B m', 'method, body, args (C20)';
    is lua('return show(route.cc("/_/invoke?who", { method = "DELETE" }))'), 'true; 200 0 DELETE test - - m', 'a method by its name';
    reason 'route.cc("/_/invoke?who", { method = "FOO" })', qr/bad method FOO/, 'no method (C20)';
    is lua('local o = { args = { k = 1 } } route.cc("/_/invoke?who", o) return tostring(o.direction) .. tostring(o.method)'), 'nilnil',
        'the options stay as they were (C21)';
    is lua('return show(route.cc("/_/invoke?who", { ctx = { cc_headers = "OFF" } }))'), 'true; 200 0 GET test - - -', 'no headers (C21)';
    is timer('return show(route.cc("/_/invoke?who", "workers"))'), join('; ', 'true', map { "200 $_ GET test - - -" } 0 .. 2), 'in a timer (C22)';
    is timer('return show(route.cast "/_/invoke?who")'), join('; ', 'true', map { "200 $_ GET test - - -" } 0 .. 2), 'cast in a timer';
    is lua('return show(route.cast("/_/invoke?who", { method = "GET" }))'), join('; ', 'true', map { "200 $_ GET test - - m" } 0 .. 2), 'cast (C46)';
};

subtest 'urls' => sub {
    is lua('return show(route.cc("/_/invoke/ding?x", "workers"))'), 'true; 200 ding 0 x; 200 ding 1 x; 200 ding 2 x', '/_/invoke/URI (C24)';
    is lua('return show(route.cc("/_/cast/ding", {}))'), 'true; 200 ding 0 ', '/_/cast/URI (C24)';
    is lua('return show(route.cc("/_/_/kada/invoke?where", "workers"))'), 'true; 200 kada 0; 200 kada 1; 200 kada 2', 'another channel (C25)';
    is lua("return show(route.cc('/_/$_?who', {}))"), 'true; 200 0 GET test - - m', "/_/$_ (C26)" for qw(hub foo cast);
    is lua('return show(route.cc("/test/invoke?who", {}))'), 'true; 200 0 GET test - - m', 'the own channel by its name';
    is lua('return show(route.cc("/kada/invoke?where", "workers"))'), 'true; 200 kada 0; 200 kada 1; 200 kada 2', 'another one by its name (C27)';
    reason 'route.cc("http://127.0.0.1/_/invoke?x")', qr/another host is called with remote/, 'a host (C28)';
    reason 'route.cc("/_/invoke?x#y")', qr/it holds a "#"/, 'a fragment (C28)';
    reason 'route.cc("/_/invoke?x y\r\nZ: 1")', qr/control character/, 'a line end';
    reason "route.cc('$_')", qr/bad url/, "nothing: $_" for '/_/', '_/invoke';
};

subtest 'options' => sub {
    my $dump = 'local function d(o) local a = {} for k, v in pairs(o.args or {}) do a[#a+1] = k .. "=" .. tostring(v) end table.sort(a)
        return tostring(o.direction) .. " " .. tostring(o.method) .. " " .. tostring(o.body) .. " " .. tostring(o.always_forward_body) .. " " .. table.concat(a, ",") end ';
    my %cases = (
        'ngx_cc.optionAgain()'                                  => 'nil POST nil true u=1,who=9',                # C30
        'ngx_cc.optionAgain("clients")'                         => 'clients POST nil true u=1,who=9',            # C31
        'ngx_cc.optionAgain({ direction = "super", body = "" })'=> 'super POST  true u=1,who=9',                 # C32
        'ngx_cc.optionAgain({ args = { u = "mine", z = 1 } })'  => 'nil POST nil true u=mine,who=9,z=1',         # C33
        'ngx_cc.optionAgain({ args = {} })'                     => 'nil POST nil true u=1,who=9',
        'ngx_cc.optionAgain({ direction = "super", args = { a = false, b = true } }, { method = "POST", body = "" })'
                                                                => 'super POST  nil a=false,b=true',             # C34
        'ngx_cc.optionAgain("workers", { method = "PUT" })'     => 'workers PUT nil nil ',                       # C35
        'ngx_cc.optionAgain(nil, { method = "PUT" })'           => 'nil PUT nil nil ',
        'ngx_cc.optionAgain({ args = { a = 1 } }, { args = { a = 2, b = 3 } })' => 'nil nil nil nil a=1,b=3',    # C36
        'ngx_cc.optionAgain2("super", { method = "PUT" }, true)'=> 'super PUT nil true u=1,who=9',               # C37
        'ngx_cc.optionAgain2("super", { method = "PUT" })'      => 'super PUT nil nil ',
    );
    is lua("$dump return d($_)", '?u=1&who=9'), $cases{$_}, $_ for sort keys %cases;
    reason 'ngx_cc.optionAgain(5)', qr/bad argument #1 to 'optionAgain'/, 'a number (C38)';
    reason 'ngx_cc.optionAgain({ args = "x=1" })', qr/cannot mix args/, 'args that are a string (C38)';
    is lua('local d, o = { args = { a = 1 } }, { args = { b = 2 } } ngx_cc.optionAgain(d, o) return tostring(d.args.b)'), 'nil', 'nothing given is changed';
};

subtest 'where' => sub {
    is $s->get($s->port(1), '/test/invoke?master')->body, 'router 0', 'isInvokeAtMaster in the router (C40)';
    is $s->get($s->port(3), '/test/invoke?master')->body, "router 0\n", 'and elsewhere';
    is $s->get($s->port(3), '/test/invoke?per')->body, 'per 2', 'isInvokeAtPer by a worker\'s port (C41)';
    is $s->get($s->port, '/test/invoke?per')->body, "per 0\nper 1\nper 2\n", 'by the common one';
    is $s->get($s->port, '/test/hub?per')->body =~ s/\n//gr, 'per 0per 1per 2', 'and by the hub';
};

subtest 'others' => sub {
    my $remote = 'http://127.0.0.1:' . $s->port;
    is lua('return show(route.self("/_/invoke?who", { method = ngx.HTTP_GET }))'), 'true; 200 1 GET test - - m', 'self (C42)';
    is lua("return show(ngx_cc.remote('$remote/plain'))"), 'true; 200 plain', 'remote (C43)';
    is lua("return show(ngx_cc.remote('$remote/ding?a', { args = { b = 1 } }))") =~ s/ding \d/ding/r, 'true; 200 ding a&b=1', 'with args';
    like lua('return show(ngx_cc.remote("http://127.0.0.1:1/x"))'), qr/^false; 502 </, 'refused (C43)';
    reason 'ngx_cc.remote("/x")', qr/need full remote url/, 'no host (C43)';
    reason 'ngx_cc.remote()', qr/need full remote url/, 'nothing';
    reason 'ngx_cc.remote("https://127.0.0.1/x")', qr/only http is spoken/, 'https (C43)';
    is lua("return show(ngx_cc.all { { ngx_cc.remote, '$remote/plain' }, { route.cc, '/_/invoke?bad=500', 'master' }, { error, 'x' } })"),
        'true; 200 plain; false; false', 'all, in order (C44)';
    is lua('local ok, l = ngx_cc.all { { route.cc, "/_/invoke?who", "workers" } } return #l[1]'), '3', 'several answers: a list (C44)';
    is lua('return show(ngx_cc.all {})'), 'false', 'all of nothing (C44)';
    reason 'ngx_cc.all(5)', qr/bad argument #1 to 'all'/, 'not a table';
    reason 'ngx_cc.all { {} }', qr/bad request 1/, 'an empty request';
    is lua('ngx_cc.say(true, { false, { status = 200, body = "a" }, { status = 500, body = "b" }, { { status = 201, body = "c" } } }) return ""'),
        "a\nc\n", 'say (C45)';
    is lua("local t = {} for i = 1, 3 do t[i] = { route.cc, '/_/invoke?meet&at=all&n=3', 'master' } end
        return show(ngx_cc.all(t))"), 'true; 200 met; 200 met; 200 met', 'at the same time';
};

subtest 'built-ins' => sub {
    my $stat = $s->get($s->port(2), '/test/hub?getServiceStat')->json;
    is_deeply $stat, { clients => [], service => '127.0.0.1:' . $s->port, routePort => '' . $s->port(1), ports => join(',', map { $s->port($_) } 1 .. 3) },
        'getServiceStat (C48)';
    is $s->get($s->port(2), '/test/hub?registerWorker=5')->status, 400, 'registerWorker without a pid (C53)';
    is $s->get($s->port(2), '/test/hub?transferServer')->status, 400, 'transferServer without a value (C54)';
    is $s->get($s->port(2), '/test/hub?transferServer=127.0.0.1:1', 'X-Forwarded-For' => '10.0.0.1')->status, 403, 'not by a proxy';
    is $s->get($s->port(2), "/test/invoke?$_=1", 'X-Forwarded-For' => '10.0.0.1')->status, 403, "nor $_" for qw(invalidClient reportHubPort);
};

subtest 'a worker that is stopped' => sub {
    my ($pid) = ($s->workers)[2];
    kill STOP => $pid;
    like lua('return show(route.cc("/_/invoke?who", "workers"))'), qr/^false; 200 0 .*; 200 1 .*; 504 </, 'its 504, the others\' answers (C19, C65)';
    kill CONT => $pid;
    like lua('return show(route.cc("/_/invoke?who", "workers"))'), qr/^true; 200 0 .*; 200 1 .*; 200 2 /, 'back';
};

subtest 'a request that ends while it waits' => sub {
    my $until = 'while ngx.shared.ngxcc_dict:get "gone%s" ~= %d do ngx.sleep(0.001) end ';
    my $r = lua('local t = ngx.thread.spawn(route.cc, "/_/invoke?meet&at=gone&n=4", "workers") '
        . sprintf($until, '', 3) . 'ngx.thread.kill(t) collectgarbage() collectgarbage() return "gone"');
    is $r, 'gone', 'its light thread is killed';
    is lua('ngx.shared.ngxcc_dict:incr("gone", 1) ' . sprintf($until, ' left', 3) . 'return show(route.cc("/_/invoke?who", {}))'), 'true; 200 0 GET test - - m', 'and nothing else is harmed';
};

done_testing;
