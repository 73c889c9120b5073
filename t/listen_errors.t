# What nginx -t says of a per_worker that cannot work (P3, P4). Nothing here
# lives long enough to bind a socket, so any port will do.
use Test::Nginx::Socket;

workers(4);
master_on();
plan tests => 2 * blocks();
run_tests();

__DATA__

=== TEST 1: a port above 65535
--- http_config
server { listen 127.0.0.1:65533 per_worker; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*invalid port 65536 of worker 3 of "listen 127\.0\.0\.1:65533 per_worker" in \S+nginx\.conf:\d+$/



=== TEST 2: the word twice
--- http_config
server { listen 127.0.0.1:8010 per_worker backlog=8 per_worker; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*"listen" directive has duplicate "per_worker" parameter in \S+nginx\.conf:\d+$/



=== TEST 3: with reuseport
--- http_config
server { listen 127.0.0.1:8010 reuseport per_worker; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*"listen" directive "reuseport" parameter is incompatible with "per_worker" in \S+nginx\.conf:\d+$/



=== TEST 4: a range of ports
--- http_config
server { listen 127.0.0.1:8010-8013 per_worker; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*port range is incompatible with "per_worker" in "127\.0\.0\.1:8010-8013" of the "listen" directive in \S+nginx\.conf:\d+$/



=== TEST 5: a value for it
--- http_config
server { listen 127.0.0.1:8010 per_worker=on; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*invalid parameter "per_worker=on" in \S+nginx\.conf:\d+$/



=== TEST 6: an address that is none
--- http_config
server { listen 127.0.0.1:80x per_worker; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*invalid port in "127\.0\.0\.1:80x" of the "listen" directive in \S+nginx\.conf:\d+$/



=== TEST 7: the word in the place of the address
--- http_config
server { listen per_worker; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*host not found in "per_worker" of the "listen" directive in \S+nginx\.conf:\d+$/



=== TEST 8: in a location
--- config
location / { listen 127.0.0.1:8010 per_worker; }
--- must_die
--- error_log eval
qr/\[emerg\] .*"listen" directive is not allowed here in \S+nginx\.conf:\d+$/



=== TEST 9: outside of server
--- http_config
listen 127.0.0.1:8010 per_worker;
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*"listen" directive is not allowed here in \S+nginx\.conf:\d+$/



=== TEST 10: outside of everything
--- main_config
listen 127.0.0.1:8010 per_worker;
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*"listen" directive is not allowed here in \S+nginx\.conf:\d+$/



=== TEST 11: no parameter at all
--- http_config
server { listen; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*invalid number of arguments in "listen" directive in \S+nginx\.conf:\d+$/



=== TEST 12: a range meets a plain listen
--- http_config
server { listen 127.0.0.1:8010 per_worker; }
server { listen 127.0.0.1:8013; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*127\.0\.0\.1:8013 of worker 3 of "listen 127\.0\.0\.1:8010 per_worker" in \S+nginx\.conf:\d+ conflicts with "listen 127\.0\.0\.1:8013" in \S+nginx\.conf:\d+$/



=== TEST 13: two ranges meet
--- http_config
server { listen 127.0.0.1:8013 per_worker; }
server { listen 127.0.0.1:8010 per_worker; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*127\.0\.0\.1:8013 of worker 0 of "listen 127\.0\.0\.1:8013 per_worker" in \S+nginx\.conf:\d+ conflicts with 127\.0\.0\.1:8013 of worker 3 of "listen 127\.0\.0\.1:8010 per_worker" in \S+nginx\.conf:\d+$/



=== TEST 14: two ranges meet within one server
--- http_config
server { listen 127.0.0.1:8010 per_worker; listen 127.0.0.1:8011 per_worker; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*127\.0\.0\.1:8011 of worker 1 of .* conflicts with 127\.0\.0\.1:8011 of worker 0 of "listen 127\.0\.0\.1:8011 per_worker" in/



=== TEST 15: a wildcard meets a specific range
--- http_config
server { listen 127.0.0.1:8010 per_worker; }
server { listen 8012; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*127\.0\.0\.1:8012 of worker 2 of .* conflicts with "listen 8012" in \S+nginx\.conf:\d+$/



=== TEST 16: a specific address meets a wildcard's range
--- http_config
server { listen *:8010 per_worker; }
server { listen 127.0.0.1:8011; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*0\.0\.0\.0:8011 of worker 1 of "listen \*:8010 per_worker" in .* conflicts with "listen 127\.0\.0\.1:8011" in/



=== TEST 17: a specific address on the wildcard's own port, which nginx would merge
--- http_config
server { listen *:8010 per_worker; }
server { listen 127.0.0.1:8010; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*0\.0\.0\.0:8010 of worker 0 of "listen \*:8010 per_worker" in .* conflicts with "listen 127\.0\.0\.1:8010" in/



=== TEST 18: the same for IPv6
--- http_config
server { listen [::1]:8010 per_worker; }
server { listen [::]:8011; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*\[::1\]:8011 of worker 1 of "listen \[::1\]:8010 per_worker" in .* conflicts with "listen \[::\]:8011" in/



=== TEST 19: an IPv6 wildcard that takes IPv4 too
--- http_config
server { listen [::]:8010 ipv6only=off per_worker; }
server { listen 127.0.0.1:8012; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*\[::\]:8012 of worker 2 of "listen \[::\]:8010 per_worker" in .* conflicts with "listen 127\.0\.0\.1:8012" in/



=== TEST 20: a range of ports elsewhere
--- http_config
server { listen 127.0.0.1:8010 per_worker; }
server { listen 127.0.0.1:8004-8011; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*127\.0\.0\.1:8011 of worker 1 of .* conflicts with "listen 127\.0\.0\.1:8004-8011" in/



=== TEST 21: a name elsewhere
--- http_config
server { listen 127.0.0.1:8010 per_worker; }
server { listen localhost:8011; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*127\.0\.0\.1:8011 of worker 1 of .* conflicts with "listen localhost:8011" in/



=== TEST 22: a server without listen
--- http_config
server { listen 127.0.0.1:78 per_worker; }
server { listen 127.0.0.1:7998 per_worker; }
server { server_name the.default; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*127\.0\.0\.1:(80|8000) of worker 2 of .* conflicts with 0\.0\.0\.0:\1, the default of a server without "listen"$/



=== TEST 23: a path that another listen has
--- http_config
server { listen unix:/nowhere/s per_worker; }
server { listen unix:/nowhere/s.2; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*unix:\/nowhere\/s\.2 of worker 2 of "listen unix:\/nowhere\/s per_worker" in .* conflicts with "listen unix:\/nowhere\/s\.2" in/



=== TEST 24: a path too long for the kernel
--- http_config eval
'server { listen unix:/' . ('p' x 106) . ' per_worker; }'
--- config
--- must_die
--- error_log eval
qr/\[emerg\] .*too long path in the unix domain socket of worker 0 of "listen unix:\/p+ per_worker" in \S+nginx\.conf:\d+$/
