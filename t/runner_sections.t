# Sections of the declarative format; runs under the original runner too.
use Test::Nginx::Socket::Lua;

repeat_each(2);
workers(1);
log_level('info');
add_response_body_check(sub {
    my ($block, $body) = @_;
    cmp_ok(length $body, '<', 100_000, 'a body check of the file') if $block->checked;
});
add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value('request', "GET /t\n") if !defined $block->request
        && !defined $block->raw_request && !defined $block->pipelined_requests;
    $block->checked;
});
$ENV{TEST_NGINX_GREETING} = 'good day';
$ENV{TEST_NGINX_HTML_DIR} ||= html_dir();
env_to_nginx('RUNNER_COLOR=blue');

plan tests => repeat_each() * 55;
run_tests();

__DATA__

=== TEST 1: status 200 is the default expectation
--- config
location /t { return 200 "ok"; }
--- response_body: ok



=== TEST 2: error_code and its pattern
--- config
location /t { return 404 "gone"; }
--- error_code: 404
--- response_body chomp
gone



=== TEST 3: error_code_like
--- config
location /t { return 418; }
--- error_code_like: ^41\d$



=== TEST 4: main_config, http_config, post_main_config
--- main_config
env RUNNER_FRUIT=apple;
--- http_config
map $arg_a $mapped { default none; 1 one; }
--- config
location /t {
    content_by_lua_block { ngx.say(ngx.var.mapped, " ", os.getenv("RUNNER_FRUIT"), " ", os.getenv("RUNNER_COLOR"), " ", os.getenv("RUNNER_TREE")) }
}
--- post_main_config
env RUNNER_TREE=elm;
--- request
GET /t?a=1
--- response_body
one apple blue elm



=== TEST 5: more_headers, response_headers
--- config
location /t {
    add_header X-Seen $http_x_one;
    add_header X-Port $server_port;
    return 200;
}
--- more_headers
# a comment
X-One: 1
X-Two: 2
--- response_headers
X-Seen: 1
X-Port: $ServerPort
! X-Two
--- response_headers_like
unused: by both runners



=== TEST 6: response_headers_like
--- config
location /t { return 200; }
--- response_headers_like
Server: nginx/\d.*
Content-Length: 0



=== TEST 7: raw_response_headers_like and unlike
--- config
location /t { return 200; }
--- raw_response_headers_like: \AHTTP/1\.1 200 OK\r\n
--- raw_response_headers_unlike: chunked



=== TEST 8: response_body_like
--- config
location /t { return 200 "one\ntwo\n"; }
--- response_body_like
^one
two$



=== TEST 9: response_body_unlike
--- config
location /t { return 200 "one\ntwo\n"; }
--- response_body_unlike: three



=== TEST 10: chunked response, body filters, a section of the file's own
--- config
location /t { content_by_lua_block { ngx.say("ab") ngx.flush(true) ngx.say("cd") } }
--- checked: 1
--- response_body_filters eval
[sub { $_[0] =~ s/\n//gr }, "uc"]
--- response_body: ABCD



=== TEST 11: user_files and the environment in them
--- config
location /t { alias $TEST_NGINX_HTML_DIR/sub/; }
--- user_files
>>> sub/a.txt
$TEST_NGINX_GREETING
>>> sub/b.txt 199801171935.33
second
--- request eval
["GET /t/a.txt", "GET /t/b.txt"]
--- response_body eval
["good day\n", "second\n"]
--- response_headers eval
["X-None:", "Last-Modified: Sat, 17 Jan 1998 19:35:33 GMT"]



=== TEST 12: the environment in config and in the expected body
--- config
location /t { return 200 "$TEST_NGINX_GREETING\n"; }
--- response_body
$TEST_NGINX_GREETING



=== TEST 13: a random port
--- http_config
server { listen 127.0.0.1:$TEST_NGINX_RAND_PORT_1; return 200 "inner"; }
--- config
location /t { proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1/; }
--- response_body: inner



=== TEST 14: server_name
--- server_name: a.example
--- config
location /t { return 200 "$server_name"; }
--- response_body: a.example



=== TEST 15: ignore_response
--- config
location /t { return 444; }
--- ignore_response
--- error_log eval
qr/using inherited|start worker process|signal process started|epoll/
--- SKIP



=== TEST 16: an empty answer has no status
--- config
location /t { return 444; }
--- error_code:



=== TEST 17: http09
--- config
location /t { return 200 "nine"; }
--- http09
--- raw_request eval
"GET /t\r\n"
--- response_body: nine



=== TEST 18: abort on a slow answer
--- config
location /t { content_by_lua_block { ngx.sleep(2) ngx.say("late") } }
--- timeout: 100ms
--- abort
--- ignore_response
--- no_error_log
[alert]



=== TEST 19: the root location
--- config
location /t { return 200; }
--- request
GET /index.html
--- response_body_like: It works!



=== TEST 20: HEAD
--- config
location /t { content_by_lua_block { ngx.header["Content-Length"] = 10 ngx.print("0123456789") } }
--- request
HEAD /t
--- response_headers
Content-Length: 10
--- response_body:



=== TEST 21: init, and skip_nginx that does not skip
--- init
open my $fh, '>', "$ENV{TEST_NGINX_HTML_DIR}/t" or die $!; print $fh 'made by init';
--- config
location /t { root $TEST_NGINX_HTML_DIR; }
--- skip_nginx: 2: < 0.5.0
--- response_body: made by init



=== TEST 22: skip_nginx that does
--- config
no such directive;
--- skip_nginx: 2: > 0.5.0



=== TEST 23: skip_eval
--- config
no such directive;
--- skip_eval: 2: 1 + 1 == 2



=== TEST 24: todo
--- config
location /t { return 500; }
--- todo: 2: not yet



=== TEST 25: JSON in any order
--- config
location /t { return 200 '{"b":1,"a":[2]}'; }
--- response_body_json_sort
--- response_body
{"a":[2],"b":1}
