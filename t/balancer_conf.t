# nginx-conf/balancer.conf does what its comments say.
use v5.36;
use Test::More;
use FindBin;
use CC::Proc;
use CC::Server;

my $s = CC::Server->new(module => 1, ports => 128);
my $conf = CC::Proc::slurp("$FindBin::Bin/../nginx-conf/balancer.conf");

# the harness brings modules, files and ports of its own
$conf =~ s/^include .*modules\.conf;.*$//m or fail 'no include of the modules';
$conf =~ s/^(?:pid|error_log)\s[^;]*;//mg;
$conf =~ s/^\s*(?:default_type|\w+_temp_path)\s[^;]*;//mg;
$conf =~ s{127\.0\.0\.1:8(\d\d\d)}{"127.0.0.1:%PORT" . ($1 ? '+' . (0 + $1) : '') . '%'}ge;
$s->start($conf);

sub ask ($uri, %headers) { $s->get($s->port, $uri, %headers) }

my $first;
ok $s->wait_for(sub { ($first = ask('/session', Cookie => 'session=anna')->body) =~ /^worker \d has session anna$/ }, 'all workers'), 'a session';
my %seen;
$seen{ ask('/session', Cookie => "session=$_")->body }++ for map { ("s$_") x 2 } 1 .. 30;
is scalar(grep { $_ == 2 } values %seen), 30, 'each session has its worker';
my %workers = map { /worker (\d)/ => 1 } keys %seen;
is keys %workers, 4, 'and each worker has some';

is ask('/app', 'X-Canary' => 'always')->body, 'canary, port ' . $s->port(23) . "\n", 'the canary';
like ask('/app', 'X-Canary' => 'never')->body, qr/^stable/, 'the others';
like ask('/any?peers=127.0.0.1:' . $s->port(29) . ',127.0.0.1:' . $s->port(21))->header('X-Tries'),
    qr/^\S+ failed 502 - -, \S+ ok 200 \S+ \S+$/, 'both tries';
is ask('/lua?' . $s->port(22))->body, 'stable, port ' . $s->port(22) . "\n", 'chosen by Lua';
is ask('/lua?0')->body, "invalid port\n", 'or refused';
is ask('/nodes')->body, "no node below answers\n", 'no node below';
ok $s->wait_for(sub { CC::Proc::slurp($s->path('logs/tries.log')) =~ m{^GET /any\S* HTTP/1.1 200 \S+ failed 502 - -, \S+ ok 200}m }, 'the log'),
    'the log has the tries';
ok $s->quit, 'quit';
$s->log_is_clean(qr/Connection refused|no live upstreams/);
done_testing;
