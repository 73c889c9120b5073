# The C functions that ngx_cc's Lua packages are made of: channels that Lua registers, who serves
# them, arguments, calls with a semaphore, built-ins, targets, facts.
use v5.36;
use Test::More;
use CC::Server;

my $http = <<'CONF';
    cc_channel test;
    init_by_lua_block {
        local ffi = require "ffi"
        ffi.cdef[[
            typedef struct { const char *data; size_t len; } ngx_cc_text_t;
            typedef struct { ngx_cc_text_t name, value; int has_value, kind; } ngx_cc_arg_t;
            typedef struct { ngx_cc_text_t node; int worker, port, via; } ngx_cc_target_t;
            typedef struct { ngx_cc_text_t node, super; int router, router_port, worker, port; } ngx_cc_facts_t;
            typedef struct { int done, status; ngx_cc_text_t headers, body, error; } ngx_cc_outcome_t;
            int ngx_cc_cluster_channel(const char *name, size_t len);
            int ngx_cc_cluster_supers(const char *channel, size_t len, const char *supers, size_t supers_len);
            int ngx_cc_cluster_node(const char *address, size_t len);
            int ngx_cc_cluster_has_channel(const char *name, size_t len);
            int ngx_cc_cluster_noted(void *request, ngx_cc_text_t *name);
            int ngx_cc_cluster_args(void *request, ngx_cc_arg_t *rows, size_t room);
            int ngx_cc_cluster_action(void *request, const char *name, size_t len, ngx_cc_text_t *uri);
            int ngx_cc_cluster_is_local(void *request);
            int ngx_cc_cluster_facts(const char *channel, size_t len, ngx_cc_facts_t *facts);
            int ngx_cc_cluster_targets(const char *channel, size_t len, const char *direction, size_t direction_len, ngx_cc_target_t *rows, size_t room);
            int ngx_cc_cluster_begin(void *request, void *sema, void *post);
            int ngx_cc_cluster_seal(int job);
            int ngx_cc_cluster_outcome(int job, size_t index, ngx_cc_outcome_t *row);
            void ngx_cc_cluster_end(int job);
            int ngx_cc_cluster_call(int job, void *request, int kind, unsigned worker, const char *address, size_t address_len,
                const char *method, size_t method_len, const char *target, size_t target_len, const char *headers, size_t headers_len,
                const char *body, size_t body_len, unsigned flags, unsigned connect, unsigned send, unsigned read);
            int ngx_cc_cluster_builtin(int job, void *request, const char *channel, size_t channel_len, const char *action, size_t action_len);
            int ngx_http_lua_ffi_sema_post(void *sem, int n);
        ]]
        C = ffi.C
        local base = require "resty.core.base"
        function request() return base.get_request() end
        function text(t) return ffi.string(t.data, t.len) end
        -- runs f(job), waits for its calls, returns what came of them
        function calls(f)
            local sem = require("ngx.semaphore").new()
            local post = ffi.cast("void *", C.ngx_http_lua_ffi_sema_post)
            local job = C.ngx_cc_cluster_begin(request(), sem.sem, post)
            assert(job > 0, job)
            local codes = { f(job) }
            if C.ngx_cc_cluster_seal(job) > 0 then assert(sem:wait(10)) end
            local row, result = ffi.new("ngx_cc_outcome_t"), {}
            for i = 1, #codes do
                if codes[i] < 0 then
                    result[i] = "code " .. codes[i]
                else
                    assert(C.ngx_cc_cluster_outcome(job, codes[i], row) == 1)
                    result[i] = row.done .. " " .. row.status .. " " .. text(row.body) .. text(row.error)
                    headers = text(row.headers)
                end
            end
            C.ngx_cc_cluster_end(job)
            assert(C.ngx_cc_cluster_outcome(job, 0, row) == -2)
            return unpack(result)
        end
        function call(job, kind, worker, address, method, target, headers, body, flags, time)
            return C.ngx_cc_cluster_call(job, request(), kind, worker, address, #address, method, #method, target, #target,
                headers or "", #(headers or ""), body or "", #(body or ""), flags or 0, 500, 500, time or 500)
        end
        package.preload["ngx_cc.content"] = function()
            return {
                invoke = function()
                    local name, rows = ffi.new("ngx_cc_text_t"), ffi.new("ngx_cc_arg_t[10]")
                    assert(C.ngx_cc_cluster_noted(request(), name) == 1)
                    ngx.print("lua ", text(name), ":")
                    for i = 0, C.ngx_cc_cluster_args(request(), rows, 10) - 1 do
                        ngx.print(" ", text(rows[i].name), "=", rows[i].has_value, text(rows[i].value), ",", rows[i].kind)
                    end
                    local uri = ffi.new("ngx_cc_text_t")
                    if C.ngx_cc_cluster_action(request(), "who", 3, uri) == 1 then ngx.print(" ", text(uri)) end
                    ngx.say(" ", C.ngx_cc_cluster_is_local(request()))
                end,
            }
        end
    }
    init_worker_by_lua_block {
        assert(C.ngx_cc_cluster_channel("made", 4) == 1)
        assert(C.ngx_cc_cluster_channel("a/b", 3) == 0)
        assert(C.ngx_cc_cluster_has_channel("made", 4) == 1 and C.ngx_cc_cluster_has_channel("test", 4) == 1)
        assert(C.ngx_cc_cluster_has_channel("none", 4) == 0)
    }
CONF
my $server = <<'CONF';
    listen 127.0.0.1:%PORT+1% per_worker;
    location ~ ^/([^/]+)/invoke { cc_invoke; cc_action who /who?$arg_x; }
    location ~ ^/([^/]+)/hub { cc_hub; cc_action who /who; }
    location ~ ^/([^/]+)/cast { cc_cast; }
    location /echo { content_by_lua_block {
        ngx.req.read_body()
        ngx.header["X-It"] = "is"
        ngx.status = 201
        ngx.print(ngx.worker.id(), " ", ngx.req.get_method(), " ", ngx.var.request_uri, " ", ngx.var.http_x_a or "-", " ",
            ngx.var.http_x_mine or "-", " ", ngx.req.get_body_data() or "", ((ngx.var.http_cc_hop or ""):gsub("; mac=.*", ";")))
    } }
    location /slow { content_by_lua_block { ngx.sleep(1) } }
    location /run { content_by_lua_block { ngx.req.read_body() ngx.say(assert(loadstring(ngx.req.get_body_data()))()) } }
CONF
my $s = CC::Server->new(module => 1, lua => 1, workers => 3, http => $http, server => $server)->start;
my $node = '127.0.0.1:' . $s->port;
sub run ($lua, %o) { my $r = $s->request('POST', $s->port(2), '/run?getServiceStat', body => $lua, %o); $r->body =~ s/\n\z//r }

is $s->get($s->port(1), '/made/invoke?a&b=1%20&getServiceStat&who&x=y')->body,
    "lua made: a=0,0 b=11 ,0 getServiceStat=0,1 who=0,2 x=1y,0 /who?y&a&b=1%20&getServiceStat&who&x=y 1\n",
    'a channel that Lua made goes to Lua, with its arguments in order';
is $s->get($s->port(3), '/made/hub?a')->body, "lua made: a=0,0 /who?a 1\n", 'at the router, too';
is $s->get($s->port(3), '/made/hub?a', 'X-Forwarded-For' => '10.0.0.1')->body, "lua made: a=0,0 /who?a 0\n", 'what came through a proxy is not local';
is $s->get($s->port(3), '/test/hub?getServiceStat')->json->{service}, $node, 'others stay';

my $calls = 'return calls(function(j) return call(j, 0, 2, "", "GET", "/echo?a", "X-A: b\nCC-Hop: 1; from=local\n"),
    call(j, 0, 0, "", "POST", "/echo", nil, "body"), call(j, 2, 0, "", "PUT", "/echo", nil, nil, 3),
    call(j, 1, 0, "' . $node . '", "GET", "/nothing") end)';
is run($calls, headers => { 'X-Mine' => 'm' }) =~ s/<html>.*//sr,
    "1 201 2 GET /echo?a b - 1 127.0.0.1 local;1 201 0 POST /echo - - body1 127.0.0.1 local;1 201 0 PUT /echo - m ${calls}1 127.0.0.1 local;1 404 ", 'calls to workers, the router, a node';
like run('calls(function(j) return call(j, 0, 1, "", "GET", "/echo") end) return headers'), qr/^x-it: is$/m, 'the headers of an answer';
is run('return calls(function(j) return call(j, 0, 9, "", "GET", "/echo"), call(j, 1, 0, "name:80", "GET", "/"),
    call(j, 0, 0, "", "G T", "/"), call(j, 0, 0, "", "GET", "/ x"), call(j, 0, 0, "", "GET", "/", "a b: c"),
    call(j, 0, 0, "", "GET", "/", "a: c\rd"), call(j, 5, 0, "", "GET", "/") end)'),
    'code -5code -3code -3code -3code -3code -3code -2', 'calls that cannot be made';
like run('return calls(function(j) return call(j, 0, 1, "", "GET", "/slow", nil, nil, 0, 100), call(j, 1, 0, "127.0.0.1:1", "GET", "/") end)'),
    qr/^2 504 read timed out2 502 connect\(\) failed \(111/, 'and that fail';
is run('return calls(function(j) return C.ngx_cc_cluster_builtin(j, request(), "test", 4, "getServiceStat", 14),
    C.ngx_cc_cluster_builtin(j, request(), "test", 4, "none", 4) end)') =~ s/"ports.*}//r,
    '1 200 {"clients":[],code -2', 'a built-in';
is run('local rows, out = require("ffi").new("ngx_cc_target_t[9]"), {}
    for _, d in ipairs { "workers", "master", "clients", "super", "tree", "up" } do
        local n = C.ngx_cc_cluster_targets("test", 4, d, #d, rows, 9)
        out[#out + 1] = d .. n
        for i = 0, n - 1 do out[#out + 1] = text(rows[i].node) .. "/" .. rows[i].worker .. "/" .. rows[i].port - ' . $s->port . ' .. "/" .. rows[i].via end
    end return table.concat(out, " ")'),
    join(' ', map { s/N/$node/gr } 'workers3 N/0/1/0 N/1/2/0 N/2/3/0', 'master1 N/0/1/0', 'clients0 super0', 'tree3 N/0/1/0 N/1/2/0 N/2/3/0', 'up-2'),
    'who is in a direction';
is run('local f = require("ffi").new("ngx_cc_facts_t") C.ngx_cc_cluster_facts("test", 4, f)
    return text(f.node) .. " " .. text(f.super) .. " " .. f.router .. " " .. f.router_port .. " " .. f.worker .. " " .. f.port'),
    "$node  0 " . $s->port(1) . ' 1 ' . $s->port(2), 'facts';

# -- a channel that Lua made has its place in the tree
is run('return C.ngx_cc_cluster_supers("made", 4, "127.0.0.1:1 x", 13) .. C.ngx_cc_cluster_supers("test", 4, "", 0)
    .. C.ngx_cc_cluster_node("x:y", 3)'), '000', 'supers and names that are none';
my $t = CC::Server->new(module => 1, lua => 1, workers => 2, http => $http =~ s/assert\(C.ngx_cc_cluster_channel\("made", 4\) == 1\)/
        local node, super = "127.0.0.2:%PORT%", "$node"
        assert(C.ngx_cc_cluster_node(node, #node) == 1 and C.ngx_cc_cluster_channel("made", 4) == 1)
        assert(C.ngx_cc_cluster_supers("made", 4, super, #super) == 1)/r,
    server => "listen 127.0.0.2:%PORT%; $server" =~ s/location ~ .*?invoke.*?\n.*?hub.*?\n/location ~ hub { cc_hub; }\n/sr)->start;
# Lua answers there: the built-in is asked for as Lua does it
my $facts = 'local f = require("ffi").new("ngx_cc_facts_t") C.ngx_cc_cluster_facts("made", 4, f) return text(f.node) .. " " .. text(f.super)';
is $t->request('POST', $t->port(2), '/run', body => $facts)->body, '127.0.0.2:' . $t->port . " $node\n", 'its node and its super, as Lua has set them';
ok $t->quit, 'quit';

# -- a job ends with its request
is run('local sem = require("ngx.semaphore").new() keep = sem
    job = C.ngx_cc_cluster_begin(request(), sem.sem, require("ffi").cast("void *", C.ngx_http_lua_ffi_sema_post))
    return call(job, 0, 0, "", "GET", "/slow", nil, nil, 0, 9000)'), '0', 'a job that nobody waits for';
is run('return C.ngx_cc_cluster_outcome(job, 0, require("ffi").new("ngx_cc_outcome_t"))'), '-2', 'ends with its request';

# -- from a timer
is run('ngx.timer.at(0, function() came = calls(function(j) return call(j, 0, 2, "", "GET", "/echo") end) end) while not came do ngx.sleep(0.001) end return came'),
    "1 201 2 GET /echo - - 1 - $node;", 'calls from a timer are the node\'s own';
$s->log_is_clean(qr/connect\(\) failed/, qr/open\(\) .* failed/);
done_testing;
