# Requests of every shape; runs under the original runner too.
use Test::Nginx::Socket::Lua;

repeat_each(1);
no_long_string();
plan tests => 31;
run_tests();

__DATA__

=== TEST 1: a body and its length
--- config
location /t { content_by_lua_block {
    ngx.req.read_body() ngx.say(ngx.var.http_content_length, ":", ngx.req.get_body_data())
} }
--- request
POST /t
hello
--- response_body
5:hello



=== TEST 2: a request by eval, an old version
--- config
location /t { return 200 "$request"; }
--- request eval
"GET /t" . "?x=" . "a" x 3 . " HTTP/1.0"
--- response_body: GET /t?x=aaa HTTP/1.0



=== TEST 3: several requests, each with its expectations
--- config
location /t { add_header X-Who $http_x_who; return 200 "$arg_a"; }
location /u { return 403 "no"; }
--- request eval
["GET /t?a=1", "GET /u", "GET /t?a=3"]
--- more_headers eval
["X-Who: me", "", "X-Who: you\nX-More: 1"]
--- error_code eval
[200, 403, 200]
--- response_headers eval
["X-Who: me", "! X-Who", "X-Who: you"]
--- response_body eval
["1", "no", qr/^\d$/]



=== TEST 4: packets with delays, in the head and in the body
--- config
location /t { content_by_lua_block {
    ngx.req.read_body() ngx.say(ngx.var.request, " ", ngx.req.get_body_data())
} }
--- request eval
[["PO", "ST /t", {value => "\nhel", delay_before => 0.02}, {value => "lo", delay_before => 0.02}]]
--- response_body
POST /t HTTP/1.1 hello



=== TEST 5: pipelined
--- config
location /t { return 200 "$arg_a $http_connection"; }
location /c { content_by_lua_block { ngx.say("chunked") } }
--- pipelined_requests eval
["GET /t?a=1", "GET /c", "POST /t?a=3\nbody"]
--- error_code eval
[200, 200, 200]
--- response_body eval
["1 keep-alive", "chunked\n", "3 close"]



=== TEST 6: raw request
--- config
location /t { return 200 "$http_x_raw"; }
--- raw_request eval
"GET /t HTTP/1.1\r
Host: localhost\r
X-Raw: yes\r
Connection: close\r
\r
"
--- response_body: yes



=== TEST 7: raw request in fragments
--- config
location /t { content_by_lua_block {
    local start = ngx.now()
    ngx.req.read_body() ngx.update_time()
    ngx.say(ngx.req.get_body_data(), " ", ngx.now() - start > 0.02 and "late" or "at once")
} }
--- raw_request eval
["POST /t HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 4\r\n\r\n", "ab", "cd"]
--- raw_request_middle_delay: 0.04
--- response_body
abcd late



=== TEST 8: chunked request body
--- config
location /t { content_by_lua_block { ngx.req.read_body() ngx.print(ngx.req.get_body_data()) } }
--- more_headers
Transfer-Encoding: chunked
--- request eval
"POST /t
3\r
abc\r
0\r
\r
"
--- response_body: abc



=== TEST 9: a malformed request
--- config
location /t { return 200; }
--- raw_request eval
"nonsense\r\n\r\n"
--- error_code: 400
--- response_body_like: 400 Bad Request



=== TEST 10: half-close after the request
--- config
location /t { content_by_lua_block { ngx.sleep(0.01) ngx.say("still here") } }
--- request
GET /t
--- shutdown: 1
--- response_body
still here
