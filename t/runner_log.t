# What the logs must and must not say; runs under the original runner too.
use Test::Nginx::Socket::Lua;

repeat_each(2);
no_shuffle();
log_level('info');
plan tests => repeat_each() * 28 + 4;
run_tests();

__DATA__

=== TEST 1: text, one pattern a line
--- config
location /t { content_by_lua_block { ngx.log(ngx.WARN, "first [x]") ngx.log(ngx.WARN, "second") } }
--- request
GET /t
--- error_log
first [x]
second
--- no_error_log
third
[error]



=== TEST 2: patterns by eval
--- config
location /t { content_by_lua_block { ngx.log(ngx.WARN, "count 42") } }
--- request
GET /t
--- error_log eval
[qr/count \d+/, "[warn]"]
--- no_error_log eval
qr/count [a-z]/



=== TEST 3: each check sees only what is new
--- config
location /t { content_by_lua_block { ngx.log(ngx.WARN, "arg " .. ngx.var.arg_a) } }
--- request eval
["GET /t?a=1", "GET /t?a=1"]
--- error_code eval
[200, 200]
--- grep_error_log eval
qr/arg \d/
--- grep_error_log_out
arg 1



=== TEST 4: grep_error_log_out for each repetition
--- config
location /t { content_by_lua_block {

    package.loaded.n = (package.loaded.n or 0) + 1
    ngx.log(ngx.WARN, "seen ", package.loaded.n, " times")
    ngx.log(ngx.WARN, "seen again")
} }
--- request
GET /t
--- grep_error_log: seen again
--- grep_error_log_out eval
["seen again\n", qr/^seen again$/]
--- no_error_log
[alert]



=== TEST 5: access_log
--- config
location /t { return 200; }
--- request
GET /t?find=me
--- access_log
find=me
--- no_access_log
find=you



=== TEST 6: what a timer writes, awaited
--- config
location /t { content_by_lua_block {
    ngx.timer.at(0.01, function() ngx.log(ngx.WARN, "from the timer") end)
} }
--- request
GET /t
--- wait: 0.05
--- error_log
from the timer



=== TEST 7: another log level
--- config
location /t { content_by_lua_block { ngx.log(ngx.WARN, "quiet") ngx.log(ngx.ERR, "loud") } }
--- log_level: error
--- request
GET /t
--- error_log
loud
--- no_error_log
quiet



=== TEST 8: ignore_response leaves the logs to be judged
--- config
location /t { content_by_lua_block { ngx.log(ngx.WARN, "reached") ngx.exit(444) } }
--- request
GET /t
--- ignore_response
--- error_log
reached



=== TEST 9: the log of the shutdown
--- config
location /t { return 200; }
--- request
GET /t
--- no_error_log
SIGQUIT
--- shutdown_error_log
SIGQUIT
--- no_shutdown_error_log
[alert]



=== TEST 10: and of the last block
--- config
location /t { return 200; }
--- request
GET /t
--- no_shutdown_error_log
[alert]
[emerg]
