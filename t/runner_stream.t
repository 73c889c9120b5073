# Stream servers and what they answer; runs under the original runner too.
use Test::Nginx::Socket::Lua::Stream;

repeat_each(2);
plan tests => repeat_each() * 14;
run_tests();

__DATA__

=== TEST 1: an answer
--- stream_server_config
return "hello\n";
--- stream_response
hello
--- no_error_log
[error]



=== TEST 2: stream_config
--- stream_config
map $remote_addr $greeting { default "hi from $remote_addr\n"; }
--- stream_server_config
return $greeting;
--- stream_response
hi from 127.0.0.1



=== TEST 3: a request passed on to an HTTP server
--- http_config
server { listen 127.0.0.1:$TEST_NGINX_RAND_PORT_1; return 200 "got $arg_a"; }
--- stream_server_config
proxy_pass 127.0.0.1:$TEST_NGINX_RAND_PORT_1;
--- stream_request eval
"GET /?a=1 HTTP/1.0\r\n\r\n"
--- stream_response_like: ^HTTP/1\.1 200 OK.*got 1$



=== TEST 4: two servers
--- stream_server_config
return "one,";
--- stream_server_config2
return "two\n";
--- stream_response
one,two



=== TEST 5: a request of its own beside the stream server
--- stream_server_config
return "stream\n";
--- config
location /mine { return 200 "http\n"; }
--- request
GET /mine
--- response_body
http
--- error_code: 200
--- raw_response_headers_like: nginx



=== TEST 6: an option of the listen
--- steam_listen_option: proxy_protocol
--- stream_server_config
return "$proxy_protocol_addr\n";
--- stream_request eval
"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
--- stream_response
192.0.2.1
