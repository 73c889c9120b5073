# Every command of nginx-conf/demo/try.txt, run as it is printed, does what the text says.
use v5.36;
use Test::More;
use FindBin;
use CC::Proc;
use CC::Server;

plan skip_all => 'the demo is tried with curl' if !grep { -x "$_/curl" } split /:/, $ENV{PATH};

my $dir = "$FindBin::Bin/../nginx-conf/demo";
my $s = CC::Server->new(ports => 32, module => 1);

# 80NN becomes a free port, in the configuration and in the commands
sub moved ($text) { $text =~ s{(?<=127\.0\.0\.1:)(\[?)80(\d\d)(?:-80(\d\d))?}
    {$1 . $s->port($2) . (defined $3 ? '-' . $s->port($3) : '')}ger }

my $conf = CC::Proc::slurp("$dir/nginx.conf");
$conf =~ s/^include .*modules\.conf;.*$//m or fail 'no include of the modules';
$conf =~ s/^\s*(?:access_log|default_type|\w+_temp_path)\s[^;]*;//mg;
like $conf, qr{^pid\s+logs/nginx\.pid;$}m, 'the pid file is where try.txt looks for it';
$s->start(moved($conf));

my $text = moved(CC::Proc::slurp("$dir/try.txt"));
$text =~ s{\@root\@/objs/demo/nginx/}{$s->prefix . '/'}ge;
unlike $text, qr/\@root\@|\@nginx\@/, 'nothing else is filled in';
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

my $LINE = qr/asked on port (\d+): worker (\d), pid (\d+), own port (\d+)\n/;
sub each_on_its_own ($output, $name) {
    my @workers = $s->workers;
    is $output, join('', map {
        my $port = $s->port(10 + $_);
        "asked on port $port: worker $_, pid $workers[$_], own port $port\n"
    } 0 .. 3), $name;
}
sub all_answered ($output, $text, $name) {
    my @workers = $s->workers;
    my $rows = join '', map {
        "  worker $_  pid " . sprintf('%-7d', $workers[$_]) . '  port ' . $s->port(10 + $_)
            . "  answered after TIME microseconds\n"
    } 0 .. 3;
    is $output =~ s/after \d+ micro/after TIME micro/gr
        =~ s/^worker \d \(pid \d+\)/SENDER/r,
        qq{SENDER sends "$text": ok\n${rows}4 of 4 answered\n}, $name;
}
sub wait_generation ($number) {
    return $s->wait_for(sub {
        my @rows = grep { /pid/ } split /\n/, $s->get($s->port, '/workers')->body;
        return @rows == 4 && !grep { !/generation $number  live$/ } @rows;
    }, "generation $number");
}

like paste(qr{/$}), qr/^$LINE$/, 'one worker answers on the shared port';
each_on_its_own(paste(qr{\[\d+-\d+\]/'$}), 'each answers on its own port');
all_answered(paste(qr/broadcast\?hello'/), 'hello', 'all answer a broadcast');

my $one = qr/^worker \d \(pid \d+\) sends "hello": ok\n  worker (\d)  pid (\d+).*\n1 of 1 answered\n$/;
my ($id) = paste(qr/worker=3/) =~ $one;
is $id, 3, 'one answers to its id';
my (undef, $pid) = paste(qr/send\?pid=\$/) =~ $one;
is $pid, $s->worker_pid(1), 'and to its pid';
like paste(qr/pid=1'$/), qr/No worker process with PID 1\n0 of 1 answered\n$/, 'init is no worker';

my $who = paste(qr{/workers$});
is_deeply [ $who =~ /^worker (\d)  pid \d+ +generation 1  live$/mg ], [ 0 .. 3 ], 'the workers are listed';
like $who, qr/\breceived 12, sent 12\b/, 'and what was counted';

my $victim = $s->worker_pid(2);
paste(qr/^kill -9/);
my ($port, $worker, $heir) = paste(qr{/$}) =~ $LINE;
is $port, $s->port(12), 'the port answers at once';
is $worker, 2, 'worker 2 again';
isnt $heir, $victim, 'another process';
$s->wait_for(sub { $s->worker_pids == 4 }, 'the successor');
all_answered(paste(qr/broadcast/), 'hello again', 'all four hear the next message');

paste(qr/^kill -HUP/);
ok wait_generation(2), 'a reload';
each_on_its_own(paste(qr{\[}), 'the same ports');
is_deeply [ paste(qr{/workers$}) =~ /^worker (\d)  pid \d+ +generation 2  live$/mg ], [ 0 .. 3 ], 'new workers';

my $leaving = $s->worker_pid(0);
like paste(qr/later.*kill -HUP/), qr/^pid $leaving of generation 2, told to leave meanwhile, has sent it$/,
    'a worker sends while it leaves';
ok wait_generation(3), 'which it has done';
is paste(qr/heard/), join('', map { qq{worker $_, generation 3, heard "goodbye" from pid $leaving\n} } 0 .. 3),
    'its successors hear it';

is_deeply \@commands, [], 'all commands were tried';
like $s->get($s->port, '/send')->body, qr/^say /, 'what to say to /send';
ok $s->quit, 'quit';
$s->log_is_clean(qr/exited on signal 9/);

done_testing;
