# Arguments and answers of ngx.ipc; one process talks to itself.
use Test::Nginx::Socket::Lua;

log_level('info');
no_long_string();
plan tests => 39;
run_tests();

__DATA__

=== TEST 1: I5 lengths of names
--- http_config
init_worker_by_lua_block { require("ngx.ipc").receive("news", function() end) }
--- config
location /t { content_by_lua_block {
    local ipc, me = require "ngx.ipc", ngx.worker.pid()
    for _, n in ipairs { 0, 254, 255, 1000 } do
        local name = ("n"):rep(n)
        ngx.say(n, " send: ", ipc.send(me, name, "x"))
        ngx.say(n, " send_worker: ", ipc.send_worker(0, name, "x"))
        ngx.say(n, " broadcast: ", ipc.broadcast(name, "x"))
        ngx.say(n, " receive: ", ipc.receive(name, function() end))
        ngx.say(n, " receive table: ", ipc.receive { [name] = function() end })
    end
} }
--- request
GET /t
--- response_body
0 send: true
0 send_worker: true
0 broadcast: true
0 receive: true
0 receive table: true
254 send: true
254 send_worker: true
254 broadcast: true
254 receive: true
254 receive table: true
255 send: nilalert name length cannot exceed 254, was 255
255 send_worker: nilalert name length cannot exceed 254, was 255
255 broadcast: nilalert name length cannot exceed 254, was 255
255 receive: nilalert name length cannot exceed 254, was 255
255 receive table: nilalert name length cannot exceed 254, was 255
1000 send: nilalert name length cannot exceed 254, was 1000
1000 send_worker: nilalert name length cannot exceed 254, was 1000
1000 broadcast: nilalert name length cannot exceed 254, was 1000
1000 receive: nilalert name length cannot exceed 254, was 1000
1000 receive table: nilalert name length cannot exceed 254, was 1000
--- no_error_log
[error]
[alert]



=== TEST 2: I5 a reply's name
--- http_config
init_worker_by_lua_block {
    local ipc = require "ngx.ipc"
    ipc.receive("ask", function(data)
        ngx.log(ngx.NOTICE, "reply: ", ipc.reply(("n"):rep(tonumber(data)), "x"))
    end)
}
--- config
location /t { content_by_lua_block {
    local ipc = require "ngx.ipc"
    ipc.send(ngx.worker.pid(), "ask", 254)
    ipc.send(ngx.worker.pid(), "ask", 255)
    ngx.say("sent")
} }
--- request
GET /t
--- response_body
sent
--- wait: 0.1
--- error_log
reply: true
reply: nilalert name length cannot exceed 254, was 255
--- no_error_log
[error]



=== TEST 3: I6 types of arguments
--- config
location /t { content_by_lua_block {
    local ipc, me = require "ngx.ipc", ngx.worker.pid()
    local function try(what, f, ...)
        local ok, err = pcall(f, ...)
        ngx.say(what, ": ", ok and "passes" or err)
    end
    try("pid nil", ipc.send, nil, "n")
    try("pid table", ipc.send, {}, "n")
    try("pid boolean", ipc.send, true, "n")
    try("pid word", ipc.send, "word", "n")
    try("pid digits", ipc.send, tostring(me), "n")
    try("name nil", ipc.send, me)
    try("name table", ipc.send, me, {})
    try("name number", ipc.send, me, 7)
    try("data absent", ipc.send, me, "n")
    try("data nil", ipc.send, me, "n", nil)
    try("data number", ipc.send, me, "n", 1.5)
    try("data table", ipc.send, me, "n", {})
    try("data boolean", ipc.send, me, "n", false)
    try("data function", ipc.send, me, "n", print)
    try("data light userdata", ipc.send, me, "n", ngx.null)
    try("id nil", ipc.send_worker, nil, "n")
    try("id data", ipc.send_worker, 0, "n", {})
    try("broadcast name", ipc.broadcast)
    try("broadcast data nil", ipc.broadcast, "n", nil)
    try("broadcast data", ipc.broadcast, "n", {})
    try("broadcast options", ipc.broadcast, "n", "d", "own")
    try("broadcast generation", ipc.broadcast, "n", "d", { generation = "own" })
} }
--- request
GET /t
--- response_body
pid nil: bad argument #1 to 'send' (number expected, got nil)
pid table: bad argument #1 to 'send' (number expected, got table)
pid boolean: bad argument #1 to 'send' (number expected, got boolean)
pid word: bad argument #1 to 'send' (number expected, got string)
pid digits: passes
name nil: bad argument #2 to 'send' (string expected, got nil)
name table: bad argument #2 to 'send' (string expected, got table)
name number: passes
data absent: passes
data nil: bad argument #3 to 'send' (string expected, got nil)
data number: passes
data table: bad argument #3 to 'send' (string expected, got table)
data boolean: bad argument #3 to 'send' (string expected, got boolean)
data function: bad argument #3 to 'send' (string expected, got function)
data light userdata: bad argument #3 to 'send' (string expected, got userdata)
id nil: bad argument #1 to 'send_worker' (number expected, got nil)
id data: bad argument #3 to 'send_worker' (string expected, got table)
broadcast name: bad argument #1 to 'broadcast' (string expected, got nil)
broadcast data nil: bad argument #2 to 'broadcast' (string expected, got nil)
broadcast data: bad argument #2 to 'broadcast' (string expected, got table)
broadcast options: bad argument #3 to 'broadcast' (table expected, got string)
broadcast generation: passes
--- no_error_log
[error]



=== TEST 4: I9 types of receive's arguments, and nothing is registered by halves
--- config
location /t { content_by_lua_block {
    local ipc = require "ngx.ipc"
    local function try(what, ...)
        local ok, err = pcall(ipc.receive, ...)
        ngx.say(what, ": ", ok and "passes" or err)
    end
    local heard
    try("nothing")
    try("number", 5, print)
    try("boolean", true, print)
    try("name alone", "n")
    try("word for a function", "n", "word")
    try("table for a function", "n", {})
    try("numeric key", { print })
    try("word in a table", { n = "word" })
    try("half a table", { good = function() heard = true end, bad = 1 })
    try("too long in a table", { good = function() heard = true end, [("n"):rep(300)] = print })
    try("nil", "n", nil)
    try("empty table", {})
    ipc.receive("end", function() heard = heard or "end" end)
    ipc.send(ngx.worker.pid(), "good")
    ipc.send(ngx.worker.pid(), "end")
    while not heard do ngx.sleep(0.001) end
    ngx.say("heard: ", heard)
} }
--- request
GET /t
--- response_body
nothing: bad argument #1 to 'receive' (string or table expected, got nil)
number: bad argument #1 to 'receive' (string or table expected, got number)
boolean: bad argument #1 to 'receive' (string or table expected, got boolean)
name alone: bad argument #2 to 'receive' (function or nil expected, got nil)
word for a function: bad argument #2 to 'receive' (function or nil expected, got string)
table for a function: bad argument #2 to 'receive' (function or nil expected, got table)
numeric key: bad argument #1 to 'receive' (a name is a string, got number)
word in a table: bad argument #1 to 'receive' (function expected for 'n', got string)
half a table: bad argument #1 to 'receive' (function expected for 'bad', got number)
too long in a table: passes
nil: passes
empty table: passes
heard: end
--- no_error_log
[error]



=== TEST 5: errors blame the caller's line
--- config
location /t { content_by_lua_block {
    local ipc = require "ngx.ipc"
    local ok, err = pcall(function()
        local sent = ipc.send({}, "n")
        return sent
    end)
    ngx.say(err)
} }
--- request
GET /t
--- response_body_like: ^content_by_lua\(nginx\.conf:\d+\):4: bad argument #1 to 'send' \(number expected, got table\)$
--- no_error_log
[error]



=== TEST 6: I9 receive registers, replaces, deletes
--- config
location /t { content_by_lua_block {
    local ipc, me = require "ngx.ipc", ngx.worker.pid()
    local log = {}
    local function note(text) return function(data) log[#log + 1] = text .. ":" .. data end end
    local function flush()
        local done
        ipc.receive("flush", function() done = true end)
        ipc.send(me, "flush")
        while not done do ngx.sleep(0.001) end
        ngx.say(table.concat(log, " "))
        log = {}
    end
    ngx.say(ipc.receive("a", note "first"))
    ipc.send(me, "a", 1) flush()
    ngx.say(ipc.receive("a", note "second"))
    ipc.send(me, "a", 2) flush()
    ngx.say(ipc.receive { a = note "third", b = note "b" })
    ipc.send(me, "a", 3) ipc.send(me, "b", 4) flush()
    ngx.say(ipc.receive("a", nil))
    ipc.send(me, "a", 5) ipc.send(me, "b", 6) flush()
    ngx.say(ipc.receive("a", nil))
    ngx.say(ipc.receive("a", note "again"))
    ipc.send(me, "a", 7) flush()
    ngx.say(ipc.stats().unhandled)
} }
--- request
GET /t
--- response_body
true
first:1
true
second:2
true
third:3 b:4
true
b:6
true
true
again:7
1
--- no_error_log
[error]



=== TEST 7: I3 reply outside of a handler
--- config
location /t { content_by_lua_block {
    local ipc = require "ngx.ipc"
    ngx.say(pcall(ipc.reply, "n", "x"))
    ngx.say(ipc.sender)
    ipc.receive("n", function() ngx.log(ngx.NOTICE, "sender is me: ", ipc.sender == ngx.worker.pid()) end)
    ipc.send(ngx.worker.pid(), "n")
    ngx.sleep(0.01)
    ngx.say(ipc.sender)
} }
--- request
GET /t
--- response_body_like
^false.*Can't reply.*
nil
nil$
--- error_log
sender is me: true
--- no_error_log
[error]



=== TEST 8: I14 receive in init_by_lua is refused, the rest of the API says what it lacks
--- http_config
init_by_lua_block {
    local ipc = require "ngx.ipc"
    results = {
        tostring(select(2, pcall(ipc.receive, "n", print))),
        tostring(select(2, ipc.send(1, "n"))),
        tostring(select(2, ipc.broadcast("n"))),
        tostring(select(2, ipc.workers())),
        tostring(select(2, ipc.get_other_worker_pids())),
        tostring(select(2, ipc.generation())),
        tostring(select(2, ipc.stats())),
        tostring(ipc.sender),
        tostring(ngx.worker.port()),
    }
}
--- config
location /t { content_by_lua_block { ngx.say(table.concat(results, "\n")) } }
--- request
GET /t
--- response_body_like
^.*receive cannot be used in init_by_lua\*: workers do not exist yet, call it in init_worker_by_lua\*
not a worker process
not a worker process
not a worker process
not a worker process
not a worker process
not a worker process
nil
nil$
--- no_error_log
[error]



=== TEST 9: an uncaught receive in init_by_lua stops the start
--- http_config
init_by_lua_block { require("ngx.ipc").receive("n", print) }
--- config
location /t { return 200; }
--- must_die
--- error_log
receive cannot be used in init_by_lua*



=== TEST 10: I10 what is known of the workers
--- config
location /t { content_by_lua_block {
    local ipc = require "ngx.ipc"
    ngx.say(#ipc.get_other_worker_pids())
    local list = ipc.workers()
    local me = list[1]
    ngx.say(#list, " ", me.id, " ", me.pid == ngx.worker.pid(), " ", me.generation, " ", me.state)
    ngx.say(ipc.generation())
    local keys = {}
    for key, value in pairs(ipc.stats()) do keys[#keys + 1] = key .. "=" .. type(value) end
    table.sort(keys)
    ngx.say(table.concat(keys, " "):match "failed=number" and table.concat(keys, " "):match "sent=number")
} }
--- request
GET /t
--- response_body
0
1 0 true 1 live
1
sent=number
--- no_error_log
[error]



=== TEST 11: messages that come before a handler is there wait for it
--- http_config
init_worker_by_lua_block {
    local ipc = require "ngx.ipc"
    assert(ipc.send(ngx.worker.pid(), "early", "one"))
    assert(ipc.broadcast("early", "two"))
    local heard = {}
    package.loaded.heard = heard
    ngx.timer.at(0, function()
        ipc.receive("early", function(data) heard[#heard + 1] = data end)
    end)
}
--- config
location /t { content_by_lua_block {
    local heard = require "heard"
    while #heard < 2 do ngx.sleep(0.001) end
    ngx.say(table.concat(heard, " "))
} }
--- request
GET /t
--- response_body
one two
--- no_error_log
[error]



=== TEST 12: require gives one and the same table
--- config
location /t { content_by_lua_block {
    ngx.say(require "ngx.ipc" == require "ngx.ipc", " ", package.loaded["ngx.ipc"] == require "ngx.ipc")
} }
--- request
GET /t
--- response_body
true true
--- no_error_log
[error]
