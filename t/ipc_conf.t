# nginx-conf/ipc.conf does what its comments say.
use v5.36;
use Test::More;
use FindBin;
use CC::Proc;
use CC::Server;

my $s = CC::Server->new(log_level => 'notice');
my $conf = CC::Proc::slurp("$FindBin::Bin/../nginx-conf/ipc.conf");

# the harness brings modules, files and ports of its own
$conf =~ s/^include .*modules\.conf;.*$//m or fail 'no include of the modules';
$conf =~ s/^(?:pid|error_log)\s[^;]*;//mg;
$conf =~ s/^\s*(?:access_log|default_type|\w+_temp_path)\s[^;]*;//mg;
$conf =~ s{(?<=listen 127\.0\.0\.1:)8000}{%PORT%} or fail 'no port';
$s->start($conf);

sub body ($uri) { $s->get($s->port, $uri)->body }

is body('/set?colour=blue'), "ok\n", 'a change';
my %seen;
ok $s->wait_for(sub {
    my ($value, $worker) = body('/get?colour') =~ /^(\w+) in worker (\d)$/ or return;
    $seen{$worker} = $value if $value eq 'blue';
    return %seen;
}, 'a worker to know it'), 'a worker knows it';
unlike body('/get?shape'), qr/blue/, 'another key has nothing';
is $s->get($s->port, '/set?colour=red')->status, 200, 'a second change';
for my $worker (0 .. 3) {
    # what another worker asks may come before what the first one has said
    ok $s->wait_for(sub { body("/ask?$worker") eq "worker $worker has 1\n" }, "worker $worker to have it"),
        "worker $worker has the entry";
}
is body('/ask?4'), "No worker with id 4\n", 'a worker that does not exist';
is body('/keep?shape=round'), "ok\n", 'a change that is kept';
my $all = join '', map { "worker $_ has 2\n" } 0 .. 3;
ok $s->wait_for(sub { body('/ask') eq $all }, 'all to know it'), 'all have it';
ok $s->reload, 'reload';
is body('/ask'), join('', map { "worker $_ has 1\n" } 0 .. 3), 'all new workers have what was kept';
like body('/get?shape'), qr/^round in worker/, 'which it is';
ok $s->quit, 'quit';
$s->log_is_clean;

done_testing;
