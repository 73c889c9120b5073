# t/lib/CC/sandbox, with namespaces where they are to be had, and without.
use v5.36;
use Test::More;
use CC::Ports;
use CC::Proc;
use CC::Wait qw(until_true);
use FindBin;
use Socket;

my $sandbox = "$FindBin::Bin/lib/CC/sandbox";
delete local $ENV{TEST_NGINX_SERVROOT};
delete local $ENV{CC_SANDBOX};

sub run (@cmd) {
    open my $fh, '-|', 'sh', '-c', 'exec "$@" 2>&1', 'sh', $sandbox, @cmd or die $!;
    my $out = join '', readline $fh;
    close $fh;
    return ($? >> 8, $out);
}

# /proc/PID/cmdline holds the marker as long as the straggler lives
sub stragglers ($marker) {
    opendir my $dir, '/proc' or die $!;
    return grep { CC::Proc::title($_) =~ /sleep $marker$/ } grep { /^\d+$/ } readdir $dir;
}

my (undef, $note) = run('true');
my $apart = $note !~ /running plainly/;
diag $note if !$apart;

for my $mode ($apart ? '' : (), 'off') {
    local $ENV{CC_SANDBOX} = $mode;
    my $how = $mode eq 'off' ? 'plainly' : 'apart';

    is +(run('sh', '-c', 'exit 7'))[0], 7, "$how: the exit code passes through";
    is +(run('sh', '-c', 'kill -9 $$'))[0], 137, "$how: death by signal too";
    is +(run('/no/such/command'))[0], 127, "$how: no such command";

    my $marker = 1000 + $$ % 1000 + rand;
    run('sh', '-c', "setsid sleep $marker & sleep $marker & exit 0");
    ok until_true(sub { !stragglers($marker) }, 5), "$how: nothing survives";

    my ($first, $second) = map { (run('sh', '-c', 'echo "$TEST_NGINX_SERVROOT"'))[1] } 1, 2;
    s/^# .*\n//m for $first, $second;
    like $first, qr{^/\S+/servroot$}, "$how: a server root is given";
    isnt $first, $second, "$how: to each its own";
}

SKIP: {
    skip 'no namespaces here', 3 if !$apart;
    socket my $s, AF_INET, SOCK_STREAM, 0 or die $!;
    my $port = CC::Ports::port();
    bind $s, pack_sockaddr_in($port, INADDR_ANY) or die $!;
    listen $s, 1;
    my $lib = "$FindBin::Bin/lib";
    is +(run($^X, "-I$lib", '-MCC::Ports', '-e', "exit !CC::Ports::is_free($port)"))[0], 0,
        'ports taken outside are free inside';
    my (undef, $out) = run('cat', '/proc/net/if_inet6');
    like $out, qr/^0{31}1 .* lo$/m, 'loopback is up, with IPv6';
    (undef, $out) = run('sh', '-c', 'echo $$; ls -d /proc/[0-9]* | wc -l');
    my ($pid, $count) = $out =~ /\d+/g;
    ok $pid < 10 && $count < 10, '/proc shows the processes inside only';
}

done_testing;
