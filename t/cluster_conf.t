# What nginx -t says of the cluster's directives that cannot work. Nothing here binds a socket.
use v5.36;
use Test::More;
use CC::Server;

my $s = CC::Server->new(module => 1, lua => 0);
$s->write('good', 'x' x 32 . "\n" . 'y' x 40 . "\n");
$s->write('short', 'x' x 31 . "\n");
$s->write('three', join "\n", map { $_ x 32 } 'x' .. 'z');
$s->write('empty', "\n");
my $dir = $s->prefix;
chmod 0600, "$dir/good" or die $!;

# [ in http{}, in server{}, what it says, the line in the file that must be named ]
my @bad = (
    [ "cc_channel a;\ncc_channel a;", '', qr/duplicate channel "a"/, 2 ],
    [ 'cc_channel a/b;', '', qr/channel name "a\/b" may only have letters, digits and "-\._~"/, 1 ],
    [ 'cc_channel _;', '', qr/channel name "_" must not be/, 1 ],
    [ 'cc_channel a colour=red;', '', qr/invalid parameter "colour=red"/, 1 ],
    [ 'cc_channel a super;', '', qr/invalid parameter "super"/, 1 ],
    [ 'cc_channel a timeout=0;', '', qr/invalid parameter "timeout=0"/, 1 ],
    [ 'cc_channel a timeout=1s timeout=2s;', '', qr/duplicate parameter "timeout=2s"/, 1 ],
    [ 'cc_channel a heartbeat=x;', '', qr/invalid parameter "heartbeat=x"/, 1 ],
    [ 'cc_channel a heartbeat=49ms;', '', qr/"heartbeat=49ms" is not from 50ms to 60000ms/, 1 ],
    [ 'cc_channel a heartbeat=61s;', '', qr/"heartbeat=61s" is not from 50ms to 60000ms/, 1 ],
    [ 'cc_channel a super=10.0.0.1;', '', qr/not an address of the form HOST:PORT in "10\.0\.0\.1" of the "cc_channel" directive/, 1 ],
    [ 'cc_node 10.0.0.1;', '', qr/not an address of the form HOST:PORT in "10\.0\.0\.1" of the "cc_node" directive/, 1 ],
    [ 'cc_node 10.0.0.1:99999;', '', qr/the port must be between 1 and 65535 in "10\.0\.0\.1:99999" of the "cc_node"/, 1 ],
    [ 'cc_node unix:/x;', '', qr/not an address of the form HOST:PORT in "unix:\/x" of the "cc_node"/, 1 ],
    [ 'cc_node name.invalid:80;', '', qr/host not found in "name\.invalid:80" of the "cc_node"/, 1 ],
    [ "cc_node 10.0.0.1:80;\ncc_node 10.0.0.1:80;", '', qr/"cc_node" directive is duplicate/, 2 ],
    [ 'cc_super 10.0.0.1:80 10.0.0.1:80;', '', qr/duplicate super "10\.0\.0\.1:80"/, 1 ],
    [ "cc_super 10.0.0.1:80;\ncc_super 10.0.0.2:80;", '', qr/"cc_super" directive is duplicate/, 2 ],
    [ 'cc_allow_node 10.0.0.0/8 x;', '', qr/invalid network "x"/, 1 ],
    [ "cc_cluster a;\ncc_cluster b;", '', qr/"cc_cluster" directive is duplicate/, 2 ],
    [ 'cc_cluster "a b";', '', qr/invalid value "a b"/, 1 ],
    [ "cc_secret_file $dir/none;", '', qr/open\(\) "\Q$dir\E\/none" failed \(2: No such file or directory\)/, 1 ],
    [ "cc_secret_file $dir/short;", '', qr/secret file "\Q$dir\E\/short" line 1 has 31 bytes, at least 32 are needed/, 1 ],
    [ "cc_secret_file $dir/three;", '', qr/secret file "\Q$dir\E\/three" has more than two lines/, 1 ],
    [ "cc_secret_file $dir/empty;", '', qr/secret file "\Q$dir\E\/empty" has no secret/, 1 ],
    [ 'cc_read_timeout 0;', '', qr/invalid value "0"/, 1 ],
    [ "cc_send_timeout 1s;\ncc_send_timeout 1s;", '', qr/"cc_send_timeout" directive is duplicate/, 2 ],
    [ 'cc_connect_timeout soon;', '', qr/invalid value "soon"/, 1 ],
    [ 'cc_orders nobody-of-that-name;', '', qr/getpwnam\("nobody-of-that-name"\) failed/, 1 ],
    [ "cc_orders root;\ncc_orders off;", '', qr/"cc_orders" directive is duplicate/, 2 ],
    [ '', 'cc_orders off root;', qr/getpwnam\("off"\) failed/, 1 ],
    [ '', 'cc_orders;', qr/invalid number of arguments in "cc_orders" directive/, 1 ],
    [ '', 'location /a { cc_invoke nobody; }', qr/unknown channel "nobody" in "cc_invoke"/, 1 ],
    [ '', 'location /a { cc_invoke a/b; }', qr/channel name "a\/b" may only have/, 1 ],
    [ '', "location /a { cc_hub;\ncc_hub; }", qr/"cc_hub" directive is duplicate/, 2 ],
    [ '', "location /a { cc_hub;\ncc_invoke; }", qr/"cc_invoke" and "cc_hub" in the same location/, 2 ],
    [ '', "location /a { proxy_pass http://127.0.0.1:1;\ncc_cast; }", qr/"cc_cast" in a location that has a content handler/, 2 ],
    [ '', "location /a { cc_cast;\nproxy_pass http://127.0.0.1:1; }", qr/"cc_cast" and another content handler in the same location/, 1 ],
    [ '', 'location /a { cc_cast sideways; }', qr/unknown direction "sideways"/, 1 ],
    [ '', 'location /a { cc_action who /who; }', qr/"cc_action" without "cc_invoke" or "cc_hub" in its location/, 1 ],
    [ '', 'location /a { cc_cast; cc_action who /who; }', qr/"cc_action" without "cc_invoke" or "cc_hub"/, 1 ],
    [ '', "location /a { cc_invoke; cc_action who /who;\ncc_action who /x; }", qr/duplicate action "who"/, 2 ],
    [ '', 'location /a { cc_invoke; cc_action getServiceStat /x; }', qr/action "getServiceStat" is built in/, 1 ],
    [ '', 'location /a { cc_invoke; cc_action who who; }', qr/invalid URI "who"/, 1 ],
    [ '', 'cc_invoke;', qr/"cc_invoke" directive is not allowed here/, 1 ],
    [ '', 'cc_channel a;', qr/"cc_channel" directive is not allowed here/, 1 ],
    [ '', 'location /a { cc_invoke $nothing; }', qr/unknown "nothing" variable/, undef ],
);
for my $bad (@bad) {
    my ($http, $server, $says, $line) = @$bad;
    my ($first, $text) = $http ne '' ? (2, "http {\n$http\nserver { }\n}")
        : (3, "http {\nserver {\n$server\n}\n}");
    my ($code, $output) = $s->try_conf($text);
    my $where = $http || $server;
    isnt $code, 0, "refused: $where" or next;
    like $output, qr/\[emerg\] .*$says/, '... with the reason';
    like $output, qr/ in \S+:${\($first + $line - 1)}$/m, '... and the line' or diag $output if $line;
}

my ($code, $output) = $s->try_conf(<<"CONF");
worker_processes 4;
http {
cc_channel a super=10.0.0.1:80 timeout=500ms heartbeat=1s;
cc_channel b;
cc_node localhost:8080;
cc_super 10.0.0.1:80 [::1]:81;
cc_allow_node 10.0.0.0/8 ::1;
cc_secret_file $dir/good;
cc_cluster prod;
cc_read_timeout 1s;
server {
    listen 127.0.0.1:1 per_worker;
    cc_send_timeout 1s;
    location /a { cc_invoke b; cc_action who /who?x=\$arg_y; cc_connect_timeout 1s; location /a/b { cc_hub \$host; } }
    location /b { cc_cast \$arg_d \$arg_c; }
}
}
CONF
is $code, 0, 'all of them' or diag $output;
unlike $output, qr/\[warn\]/, 'with nothing to say';

($code, $output) = $s->try_conf("worker_processes 2;\nhttp {\nserver { listen 127.0.0.1:1;\nlocation /a { cc_hub; } } }");
is $code, 0, 'a hub without per_worker listener is accepted';
like $output, qr/\[warn\] .*"cc_hub" cannot reach the router: several workers, and no "listen \.\.\. per_worker" for http in \S+:4$/m, 'with a word';
($code, $output) = $s->try_conf("http {\nserver { listen 127.0.0.1:1;\nlocation /a { cc_hub; } } }");
unlike $output, qr/\[warn\]/, 'of which one worker needs none';
($code, $output) = $s->try_conf("http {\ncc_secret_file $dir/good;\nserver { listen 127.0.0.1:1;\nlocation /a { cc_hub; } } }");
like $output, qr/\[warn\] .*"cc_hub" cannot answer signed calls: no "listen \.\.\. per_worker" for http in \S+:4$/m, 'unless there is a secret';


# -- who may read the secret
sub secret_of ($mode) {
    chmod $mode, "$dir/good" or die $!;
    return $s->try_conf("http {\n\ncc_secret_file $dir/good;\nserver { listen 127.0.0.1:1; } }");
}
for my $mode (0644, 0604, 0666) {
    ($code, $output) = secret_of($mode);
    is $code, 0, sprintf '%04o is taken', $mode;
    my $why = sprintf 'secret file "%s/good" has mode %04o: all users of this machine can read it', $dir, $mode;
    like $output, qr/\[warn\] .*\Q$why\E in \S+:3$/m, '... with a warning';
}
for my $mode (0600, 0400, 0640, 0440) {
    ($code, $output) = secret_of($mode);
    unlike $output, qr/secret file/, sprintf '%04o is nobody else\'s business', $mode;
}
done_testing;
