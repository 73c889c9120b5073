# Blocks that follow each other by HUP; runs under the original runner too.
use Test::Nginx::Socket::Lua;

use_hup();
no_shuffle();
workers(2);
log_level('notice');
plan tests => 21;
run_tests();

__DATA__

=== TEST 1: first
--- http_config
init_by_lua_block { package.loaded.epoch = "one" }
--- config
location /t { content_by_lua_block { ngx.say(package.loaded.epoch) } }
--- request
GET /t
--- response_body
one
--- no_error_log
[alert]



=== TEST 2: second
--- http_config
init_by_lua_block { package.loaded.epoch = "two" }
--- config
location /t { content_by_lua_block { ngx.say(package.loaded.epoch) } }
--- request eval
["GET /t", "GET /t", "GET /t", "GET /t"]
--- error_code eval
[200, 200, 200, 200]
--- response_body eval
["two\n", "two\n", "two\n", "two\n"]
--- response_headers_like eval
["Server: nginx.*", "Server: nginx.*", "Server: nginx.*", "Server: nginx.*"]



=== TEST 3: refused
--- config
location /t { bogus; }
--- reload_fails
--- request
GET /t
--- response_body
two
--- error_log
unknown directive "bogus"



=== TEST 4: does not start at all
--- config
location /t { bogus; }
--- must_die
--- suppress_stderr



=== TEST 5: and on from scratch
--- config
location /t { return 200 "again"; }
--- request
GET /t
--- response_body: again
