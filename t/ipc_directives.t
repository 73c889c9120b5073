# The directives of the bus: what nginx -t refuses, with file and line, and what it takes.
use v5.36;
use Test::More;
use FindBin;
use CC::Console;
use CC::Proc;

my $s = CC::Server->new(module => 1, http => '');

sub refused ($directives, $pattern, $line = $directives =~ tr/\n// + 1) {
    my ($code, $output) = $s->try_conf("$directives\nevents {}\nhttp {}\n");
    my $name = $directives =~ s/\n/ /gr;
    isnt $code, 0, "$name is refused";
    like $output, qr/\[emerg\].*$pattern.* in \S+:$line\b/, "$name: why and where";
    unlike $output, qr/\[alert\]|panic/, "$name: nothing else";
}

sub taken ($directives) {
    my ($code, $output) = $s->try_conf("$directives\nevents {}\nhttp {}\n");
    is $code, 0, ($directives =~ s/\n/ /gr) . ' is taken' or diag $output;
    unlike $output, qr/\[(?:warn|alert|emerg)\]/, 'without a word';
}

for my $name (qw(cc_zone cc_ipc_queue cc_ipc_max_message cc_ipc_retain)) {
    refused("$name;", qr/invalid number of arguments in "$name" directive/);
    refused("$name 32m 1m;", qr/invalid number of arguments in "$name" directive/);
    refused("$name $_;", qr/invalid value "\Q$_\E"/) for qw(0 -1 1x m 99999999999999999999g x);
    refused(qq{$name "";}, qr/invalid value ""/);
    refused("$name 32m;\n$name 32m;", qr/"$name" directive is duplicate/);
    my ($code, $output) = $s->try_conf("events {}\nhttp {\n$name 32m;\n}\n");
    like $output, qr/"$name" directive is not allowed here in \S+:3/, "$name inside http {}";
}
refused("\ncc_zone 4k;", qr/"cc_zone" is too small: at least \d+k are needed/);
refused("cc_ipc_queue 1m;", qr/"cc_ipc_queue" must not be less than "cc_ipc_max_message"/);
refused("cc_ipc_max_message 2m;\n\ncc_ipc_queue 1m;", qr/"cc_ipc_queue" must not be less than "cc_ipc_max_message"/);
refused("cc_ipc_queue 1m;\ncc_ipc_max_message 2m;", qr/"cc_ipc_queue" must not be less than "cc_ipc_max_message"/, 1);
refused("cc_ipc_max_message 2g;", qr/"cc_ipc_max_message" must not exceed 1024m|invalid value/);
refused("\ncc_ipc_retain 1k;", qr/"cc_ipc_retain" is too small: at least \d+k are needed/);
refused("cc_ipc_retain 1m;\ncc_zone 512k;", qr/"cc_zone" is too small: at least \d+k are needed/);
refused("cc_zone 512k;\ncc_ipc_retain 1m;", qr/"cc_zone" is too small: at least \d+k are needed/, 1);
for my $case ([ cc_ipc_transport => 'ring', qw(pigeon RING rings auto 1) ], [ cc_ipc_spin => '20us', qw(1s 2ms 1001us -1us 1.5us 20 us on 1m ms) ]) {
    my ($name, $good, @bad) = @$case;
    refused("$name $_;", qr/invalid value "\Q$_\E"/) for @bad;
    refused(qq{$name "";}, qr/invalid value ""/);
    refused("$name;", qr/invalid number of arguments in "$name" directive/);
    refused("$name $good $good;", qr/invalid number of arguments in "$name" directive/);
    refused("$name $good;\n\n$name $good;", qr/"$name" directive is duplicate/);
    my ($code, $output) = $s->try_conf("events {}\nhttp {\nserver {\n$name $good;\n}\n}\n");
    like $output, qr/"$name" directive is not allowed here in \S+:4/, "$name inside server {}";
}

taken('cc_zone 2m;');
taken('cc_zone 2m; cc_ipc_queue 64k; cc_ipc_max_message 64k;');
taken('cc_ipc_max_message 64m;');
taken('cc_ipc_max_message 1; cc_ipc_queue 1;');
taken("cc_ipc_transport $_;") for qw(ring socket);
taken("cc_ipc_spin $_;") for qw(off 0 0us 20us 1000us 1ms);
taken("cc_ipc_retain $_;") for qw(6k 64k 8192 16m);
taken('cc_zone 4m; cc_ipc_retain 2m;');
taken('worker_processes 512;');

# the least that is said to be needed is enough, and what the README has for the default
my ($default) = ($s->try_conf("cc_zone 4k; cc_ipc_retain 1m;\nevents {}\n"))[1] =~ /at least (\d+)k/;
taken("cc_zone ${default}k; cc_ipc_retain 1m;");
like CC::Proc::slurp("$FindBin::Bin/../README.md"), qr/^    Default: cc_zone ${default}k;$/m, 'the default of cc_zone';
my ($room) = ($s->try_conf("cc_ipc_retain 1k;\nevents {}\n"))[1] =~ /at least (\d+)k/;
taken("cc_ipc_retain ${room}k;");
my $small = CC::Console->start(main => "cc_ipc_retain ${room}k;");
is $small->run(0, 'return ipc.retain("n", "k", "v")'), 'true', 'a value in the smallest room';
is $small->run(1, 'return ipc.retained("n", "k")'), "v\t1", 'is kept';
ok $small->s->quit, 'quit';
$small->s->log_is_clean;

# the smallest zone that is taken works
my ($least) = ($s->try_conf("cc_zone 4k;\nevents {}\n"))[1] =~ /at least (\d+)k/;
my $c = CC::Console->start(init => 't.catch("news")', main => "cc_zone ${least}k; cc_ipc_max_message 1k; cc_ipc_queue 4k;");
is $c->run(0, 'return ipc.broadcast("news", ("x"):rep(1024))'), 'true', 'the smallest zone, and the longest message';
is $c->until($_, 'return t.count("news")', 1), 1, "worker $_ hears" for 0, 1;
is $c->run(0, 'return ipc.send_worker(1, "news", ("x"):rep(1025))'), "nil\tmessage too long", 'cc_ipc_max_message is kept';
ok $c->reload(main => 'cc_ipc_max_message 2k;'), 'reload with another bound';
is $c->run(0, 'return ipc.send_worker(1, "news", ("x"):rep(2048))'), 'true', 'which is in force';
ok $c->s->quit, 'quit';
$c->s->log_is_clean;
done_testing;
