# The directives of the bus: what nginx -t refuses, with file and line, and what it takes.
use v5.36;
use Test::More;
use CC::Console;

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

for my $name (qw(cc_zone cc_ipc_queue cc_ipc_max_message)) {
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
refused('cc_ipc_transport pigeon;', qr/invalid value "pigeon"/);
refused("cc_ipc_transport ring;\ncc_ipc_transport ring;", qr/is duplicate/);
refused("cc_ipc_spin $_;", qr/invalid value "$_"/) for qw(1s 2ms -1us on);

taken('cc_zone 1m;');
taken('cc_zone 512k; cc_ipc_queue 64k; cc_ipc_max_message 64k;');
taken('cc_ipc_max_message 64m;');
taken('cc_ipc_max_message 1; cc_ipc_queue 1;');
taken("cc_ipc_transport $_;") for qw(ring socket);
taken("cc_ipc_spin $_;") for qw(off 0 20us 1ms);
taken('worker_processes 512;');

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
