# per_worker is an option of the address: other servers share its sockets (P5).
use v5.36;
use Test::More;
use CC::Server;

my $s = CC::Server->new(module => 1, workers => 3);

sub server ($name, $words) {
    return qq[\nserver { listen $words; server_name $name; location / { return 200 "\$pid $name\n"; } }];
}

# Who answers for these names on each worker's port: "pid name", in a list.
sub answers (@names) {
    return [ map { my $k = $_;
        map { $s->get($s->port($k), '/', Host => $_)->body =~ s/\n//r } @names } 0 .. 2 ];
}

sub expected (@names) {
    my @workers = $s->workers;
    return [ map { my $k = $_; map { "$workers[$k] $_" } @names } 0 .. 2 ];
}

sub sockets () { return [ map { s/.*://r } $s->listening ] }

my $three = [ map { $s->port($_) } 0 .. 2 ];
my $up;

for (
    [ 'the word first',  server(a => '127.0.0.1:%PORT% per_worker') . server(b => '127.0.0.1:%PORT%') ],
    [ 'the word last',   server(a => '127.0.0.1:%PORT%') . server(b => '127.0.0.1:%PORT% per_worker') ],
    [ 'the word twice',  server(a => '127.0.0.1:%PORT% per_worker') . server(b => '127.0.0.1:%PORT% per_worker') ],
    [ 'with options, the word alone repeated',
        server(a => '127.0.0.1:%PORT% per_worker backlog=100') . server(b => '127.0.0.1:%PORT% per_worker') ],
    [ 'three servers', server(a => '127.0.0.1:%PORT%') . server(b => '127.0.0.1:%PORT% per_worker')
        . server(c => '127.0.0.1:%PORT%'), 'c' ],
) {
    my ($name, $http, @more) = @$_;
    my @names = ('a', 'b', @more);
    $up ? ok($s->reload(http => $http), $name) : ok($up = $s->start(http => $http), $name);
    is_deeply answers(@names), expected(@names), "$name: each name on each worker";
    is_deeply answers('nobody'), expected('a'), "$name: the first is the default";
    is_deeply sockets(), $three, "$name: the same sockets";
}

ok $s->reload(http => server(a => '127.0.0.1:%PORT%') . server(b => '127.0.0.1:%PORT% per_worker default_server'));
is_deeply answers('nobody'), expected('b'), 'default_server, with the word';
ok $s->reload(http => server(a => '127.0.0.1:%PORT% per_worker') . server(b => '127.0.0.1:%PORT% default_server'));
is_deeply answers('nobody'), expected('b'), 'default_server, without it';
ok $s->quit;
$s->start(http => server(a => '*:%PORT%') . server(b => '%PORT% per_worker') . server(c => '0.0.0.0:%PORT%'));
is_deeply answers(qw(a b c)), expected(qw(a b c)), 'three spellings of one address';
ok $s->quit;
$s->log_is_clean;

# -- options of one address stand in one listen, as in nginx
for (
    [ 'the word and an option', '%PORT% per_worker', '%PORT% backlog=5' ],
    [ 'an option and the word', '%PORT% backlog=5', '%PORT% per_worker' ],
    [ 'the second brings options', '%PORT% per_worker', '%PORT% per_worker backlog=5' ],
    [ 'both bring options', '%PORT% per_worker rcvbuf=8k', '%PORT% per_worker backlog=5' ],
    [ 'reuseport in the other', '%PORT% per_worker', '%PORT% reuseport' ],
) {
    my ($name, $first, $second) = @$_;
    my ($rc, $out) = $s->try_conf(http => server(a => "127.0.0.1:$first") . server(b => "127.0.0.1:$second"));
    is $rc, 1, "$name: refused";
    my $line = $s->line_of(qr/server_name b/);
    like $out, qr/\[emerg\] .*duplicate listen options for 127\.0\.0\.1:\d+ in \S+:$line$/m, "$name: why";
}

# -- a default server declared twice is still an error
my ($rc, $out) = $s->try_conf(http => server(a => '%PORT% per_worker default_server') . server(b => '%PORT% default_server'));
like $out, qr/duplicate default server for 0\.0\.0\.0:\d+ in/, 'two default servers';

# -- ssl in one, as nginx has it: an option of the whole address
SKIP: {
    skip 'no openssl', 1 if system('openssl version > /dev/null 2>&1') != 0;
    ($rc, $out) = $s->try_conf(http => server(a => '127.0.0.1:%PORT% per_worker') . server(b => '127.0.0.1:%PORT% ssl'));
    like $out, qr/no "ssl_certificate" is defined/, 'ssl reaches the other server';
}

done_testing;
