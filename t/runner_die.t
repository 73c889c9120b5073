# Configurations that must be refused; runs under the original runner too.
use Test::Nginx::Socket;

repeat_each(2);
plan tests => repeat_each() * 10;
run_tests();

__DATA__

=== TEST 1: a broken configuration
--- config
    bogus on;
--- must_die
--- error_log
[emerg]
unknown directive "bogus"
--- suppress_stderr



=== TEST 2: the exit code
--- config
    root;
--- must_die: 1
--- error_log eval
qr/\[emerg\] .*invalid number of arguments in "root" directive in \S+nginx\.conf:\d+/
--- suppress_stderr



=== TEST 3: a good one between them
--- config
location /t { return 200 "fine"; }
--- request
GET /t
--- response_body: fine



=== TEST 4: grep in what it said
--- main_config
worker_rlimit_nofile many;
--- config
--- must_die
--- grep_error_log eval
qr/invalid number|invalid value/
--- grep_error_log_out
invalid number
--- no_error_log
[alert]
--- suppress_stderr
