# Peers for nginx to talk to: tcp_listen, udp_listen; runs under the
# original runner too.
use Test::Nginx::Socket::Lua;
use CC::Ports;

$ENV{TEST_NGINX_PEER_PORT} = CC::Ports::port();
$ENV{TEST_NGINX_HTML_DIR} ||= html_dir();
repeat_each(2);
plan tests => repeat_each() * 16;
run_tests();

__DATA__

=== TEST 1: a reply, and the query it saw
--- config
location /t { content_by_lua_block {
    local s = ngx.socket.tcp()
    assert(s:connect("127.0.0.1", $TEST_NGINX_PEER_PORT))
    s:send("ping\n")
    ngx.say(s:receive())
} }
--- request
GET /t
--- tcp_listen: $TEST_NGINX_PEER_PORT
--- tcp_query
ping
--- tcp_query_len: 5
--- tcp_reply
pong
--- response_body
pong



=== TEST 2: a reply made from the query, over a Unix socket
--- config
location /t { content_by_lua_block {
    local s = ngx.socket.tcp()
    assert(s:connect("unix:$TEST_NGINX_HTML_DIR/peer.sock"))
    s:send("abc")
    ngx.say(s:receive("*a"))
} }
--- request
GET /t
--- tcp_listen: $TEST_NGINX_HTML_DIR/peer.sock
--- tcp_reply eval
sub { uc $_[0] }
--- response_body
ABC



=== TEST 3: a late reply in parts
--- config
location /t { proxy_pass http://127.0.0.1:$TEST_NGINX_PEER_PORT; }
--- request
GET /t
--- tcp_listen: $TEST_NGINX_PEER_PORT
--- tcp_reply eval
["HTTP/1.0 200 OK\r\n", "Content-Length: 4\r\n\r\n", "body"]
--- tcp_reply_delay: 20ms
--- response_body: body



=== TEST 4: no reply, a timeout
--- config
location /t { proxy_pass http://127.0.0.1:$TEST_NGINX_PEER_PORT; proxy_read_timeout 50ms; }
--- request
GET /t
--- tcp_listen: $TEST_NGINX_PEER_PORT
--- tcp_no_close
--- tcp_reply:
--- error_code: 504
--- error_log
timed out



=== TEST 5: UDP
--- config
location /t { content_by_lua_block {
    local s = ngx.socket.udp()
    s:setpeername("127.0.0.1", $TEST_NGINX_PEER_PORT)
    s:send("ping")
    ngx.say(s:receive())
} }
--- request
GET /t
--- udp_listen: $TEST_NGINX_PEER_PORT
--- udp_query: ping
--- udp_reply: pong
--- response_body
pong



=== TEST 6: UDP, several datagrams
--- config
location /t { content_by_lua_block {
    local s = ngx.socket.udp()
    s:setpeername("127.0.0.1", $TEST_NGINX_PEER_PORT)
    s:send("x")
    ngx.say(s:receive(), s:receive())
} }
--- request
GET /t
--- udp_listen: $TEST_NGINX_PEER_PORT
--- udp_reply eval
["a", "b"]
--- udp_reply_delay: 0.01
--- response_body
ab
--- no_error_log
[error]
