# Every command of nginx-conf/demo/try.txt, run as it is printed, does what the text says.
use v5.36;
use Test::More;
use FindBin;
use JSON::PP ();
use CC::Proc;
use CC::Server;

plan skip_all => 'the demo is tried with curl' if !grep { -x "$_/curl" } split /:/, $ENV{PATH};

my $dir = "$FindBin::Bin/../nginx-conf/demo";
my @NAMES = qw(root east west);
my %node = map { $_ => CC::Server->new(ports => 32, module => 1) } @NAMES;
my $s = $node{root};

# 80NN, 81NN and 82NN become free ports of root, east and west, in configurations and commands
sub port_at ($at) { $node{ $NAMES[ int($at / 100) - 80 ] }->port($at % 100) }
sub moved ($text) { $text =~ s{(?<=127\.0\.0\.1:)(\[?)(8[012]\d\d)(?:-(8[012]\d\d))?}
    {$1 . port_at($2) . (defined $3 ? '-' . port_at($3) : '')}ger }
sub address ($name) { '127.0.0.1:' . $node{$name}->port }

is_deeply [ sort map { m{(\w+)\.conf$} } glob "$dir/*.conf" ], [ sort @NAMES ], 'these nodes are started';
my $secret = join '', map { sprintf '%02x', rand 256 } 1 .. 32;
for my $name (@NAMES) {
    my $conf = CC::Proc::slurp("$dir/$name.conf");
    $conf =~ s/^include .*modules\.conf;.*$//m or fail 'no include of the modules';
    like $conf, qr{^pid\s+logs/nginx\.pid;$}m, "$name: the pid file is where try.txt looks for it";
    for my $file (glob "$dir/shared/*.conf") {
        my $text = moved(CC::Proc::slurp($file));
        $text =~ s/^\s*(?:access_log|default_type|\w+_temp_path)\s[^;]*;//mg;
        $text =~ s{(?<=cc_secret_file )\S+objs/demo/secret;}{secret;};
        $node{$name}->write('conf/shared/' . $file =~ s{.*/}{}r, $text);
    }
    chmod 0600, $node{$name}->write('conf/secret', "$secret\n");
    $node{$name}->start(moved($conf));
}

my $text = moved(CC::Proc::slurp("$dir/try.txt"));
$text =~ s{\@root\@/objs/demo/(\w+)/}{$node{$1}->prefix . '/'}ge;
$text =~ s{\@root\@/nginx-conf/demo/(\w+)\.conf}{$node{$1}->path('conf/nginx.conf')}ge;
$text =~ s{\@nginx\@}{$s->command}ge;
unlike $text, qr/\@/, 'nothing else is filled in';
my @commands = $text =~ /^    (.+)$/mg;

# The output of the next command, which is like $what.
sub paste ($what) {
    my $command = shift @commands // return fail("no command is left: $what");
    like $command, $what, "next: $command" or return '';
    open my $out, '-|', 'sh', '-c', $command or die "sh: $!";
    local $/;
    my $output = readline $out // '';
    close $out;
    is $?, 0, 'it succeeds';
    return $output;
}

# -- the tree

sub tree ($stat) { my $c = $stat->{clients}; +{ map { $_ => tree($c->{$_}) } ref $c eq 'HASH' ? keys %$c : () } }
sub stat_now () { $s->get($s->port, '/demo/hub?getServiceStat')->json }
sub is_tree ($want) {
    my $json = JSON::PP->new->canonical;
    $s->wait_for(sub { $json->encode(tree(stat_now())) eq $json->encode($want) }, 'the tree', 15);
}
# every worker of these nodes has answered
sub all_of ($output, $name, @nodes) {
    my $got = JSON::PP::decode_json($output);
    my @want = map { my $at = address($_); my @pids = $node{$_}->workers; map { "worker $_ of $at, pid $pids[$_]" } 0, 1 } @nodes;
    is_deeply [ sort map { $_->{body} } $got->{replies}->@* ], [ sort @want ], $name;
    is_deeply $got->{missing}, [], '... and nobody is missing';
}

my $flat = { address('east') => {}, address('west') => {} };
ok is_tree($flat), 'the root is found';
my @sons = sort map { address($_) } qw(east west);
my $state = JSON::PP::decode_json(paste(qr/cc_status'$/));
is_deeply [ map { [ @$_{qw(address state)} ] } $state->{nodes}{clients}->@* ], [ map { [ $_, "alive" ] } @sons ],
    'the state of the root';
is paste(qr/prometheus/) =~ s/^#.*\n//mgr, join('', map { qq(nginx_cluster_node_up{channel="demo",node="$_",role="client"} 1\n) } @sons),
    'and as metrics';
is_deeply tree(JSON::PP::decode_json(paste(qr/getServiceStat/))), $flat, 'who is in the tree';
all_of(paste(qr/direction=tree/), 'every worker of every node', @NAMES);
all_of(paste(qr/direction=workers/), 'of one node', 'east');
is JSON::PP::decode_json(paste(qr/direction=super/))->{replies}[0]{node}, address('root'), 'the super';
is paste(qr/hub\?who/), 'worker 0 of ' . address('root') . ', pid ' . $s->worker_pid(0) . "\n", 'the router answers';
is paste(qr/transferServer/), "no proof of who asks\n", 'who does not sign is refused';

my $master = $node{east}->master_pid;
paste(qr/kill -9 .*children/);
ok !CC::Proc::alive($master), 'east is dead';
ok is_tree({ address('west') => {} }), 'which the root has noticed';
all_of(paste(qr/direction=tree/), 'all others', qw(root west));
paste(qr/east\.conf|nginx\.conf/);
is(($node{east}->adopt)[0], 0, 'east runs again');
ok is_tree($flat), 'and is back';
all_of(paste(qr/direction=tree/), 'all again', @NAMES);

is paste(qr/move/), "moved\n", 'a node moves';
is_deeply tree(JSON::PP::decode_json(paste(qr/getServiceStat/))), { address('east') => { address('west') => {} } }, 'below the other';
is paste(qr/move/), "moved\n", 'and back';
is_deeply tree(stat_now()), $flat, 'as it was';

# -- the workers of one node

my $LINE = qr/asked on port (\d+): worker (\d), pid (\d+), own port (\d+)\n/;
sub each_on_its_own ($output, $name) {
    my @workers = $s->workers;
    is $output, join('', map {
        my $port = $s->port(10 + $_);
        "asked on port $port: worker $_, pid $workers[$_], own port $port\n"
    } 0 .. 1), $name;
}
sub all_answered ($output, $text, $name) {
    my @workers = $s->workers;
    my $rows = join '', map {
        "  worker $_  pid " . sprintf('%-7d', $workers[$_]) . '  port ' . $s->port(10 + $_)
            . "  answered after TIME microseconds\n"
    } 0 .. 1;
    is $output =~ s/after \d+ micro/after TIME micro/gr
        =~ s/^worker \d \(pid \d+\)/SENDER/r,
        qq{SENDER sends "$text": ok\n${rows}2 of 2 answered\n}, $name;
}
sub wait_generation ($number) {
    return $s->wait_for(sub {
        my @rows = grep { /pid/ } split /\n/, $s->get($s->port, '/workers')->body;
        return @rows == 2 && !grep { !/generation $number  live$/ } @rows;
    }, "generation $number");
}

like paste(qr{/$}), qr/^$LINE$/, 'one worker answers on the shared port';
each_on_its_own(paste(qr{\[\d+-\d+\]/'$}), 'each answers on its own port');
all_answered(paste(qr/broadcast\?hello'/), 'hello', 'all answer a broadcast');

my $one = qr/^worker \d \(pid \d+\) sends "hello": ok\n  worker (\d)  pid (\d+).*\n1 of 1 answered\n$/;
my ($id) = paste(qr/worker=1/) =~ $one;
is $id, 1, 'one answers to its id';
my (undef, $pid) = paste(qr/send\?pid=\$/) =~ $one;
is $pid, $s->worker_pid(1), 'and to its pid';
like paste(qr/pid=1'$/), qr/No worker process with PID 1\n0 of 1 answered\n$/, 'init is no worker';

my $who = paste(qr{/workers$});
is_deeply [ $who =~ /^worker (\d)  pid \d+ +generation 1  live$/mg ], [ 0 .. 1 ], 'the workers are listed';
like $who, qr/\breceived 8, sent 8\b/, 'and what was counted';

my $victim = $s->worker_pid(0);
paste(qr/^kill -9/);
my ($port, $worker, $heir) = paste(qr{/$}) =~ $LINE;
is $port, $s->port(10), 'the port answers at once';
is $worker, 0, 'worker 0 again';
isnt $heir, $victim, 'another process';
$s->wait_for(sub { $s->worker_pids == 2 }, 'the successor');
like paste(qr/hub\?who/), qr/^worker [01] of \Q${\address('root')}\E, pid (?!$victim\b)\d+$/, 'there is a router';
all_answered(paste(qr/broadcast/), 'hello again', 'both hear the next message');

paste(qr/^kill -HUP/);
ok wait_generation(2), 'a reload';
each_on_its_own(paste(qr{\[}), 'the same ports');
is_deeply [ paste(qr{/workers$}) =~ /^worker (\d)  pid \d+ +generation 2  live$/mg ], [ 0 .. 1 ], 'new workers';

my $leaving = $s->worker_pid(0);
like paste(qr/later.*kill -HUP/), qr/^pid $leaving of generation 2, told to leave meanwhile, has sent it$/,
    'a worker sends while it leaves';
ok wait_generation(3), 'which it has done';
is paste(qr/heard/), join('', map { qq{worker $_, generation 3, heard "goodbye" from pid $leaving\n} } 0 .. 1),
    'its successors hear it';

is_deeply \@commands, [], 'all commands were tried';
like $s->get($s->port, '/send')->body, qr/^say /, 'what to say to /send';
like $s->get($s->port, '/move?to=nonsense')->body, qr/^not moved: /, 'nor does it move to nonsense';
ok is_tree($flat), 'the tree is as it was';
ok $node{$_}->quit, "$_: quit" for reverse @NAMES;
$node{$_}->log_is_clean(qr/exited on signal 9/, qr/connect\(\) failed/) for @NAMES;

done_testing;
