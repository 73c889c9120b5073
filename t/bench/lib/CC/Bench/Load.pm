package CC::Bench::Load;

# HTTP load for the works that need it: wrk where it is installed, else a
# loop in Perl, which takes more of the processors than it should.

use v5.36;
use IO::Select;
use CC::HTTP;
use CC::Bench::Table ();
use POSIX ();
use Time::HiRes qw(sleep time);

sub driver () {
    state $wrk = grep { -x "$_/wrk" } split /:/, $ENV{PATH} // '';
    return $wrk ? 'wrk' : 'perl';
}

sub run ($nginx, $case, $args) {
    return at($nginx->port, '/run', $case->{connections}, $args->{seconds});
}

sub at ($port, $path, $connections, $seconds) {
    my $run = driver() eq 'wrk' ? \&by_wrk : \&by_perl;
    return $run->($port, $path, $connections, $seconds);
}

# Seconds that a flood takes to be at its rate, and lasts beyond the requests.
my $MARGIN = 0.3;

# Worker 1 serves: idle, then beside a process that computes, then flooded by worker 0. The second
# has as many processes as the third to share the cores with: where these are few and the clients
# take what they can get of them, that alone is most of the difference. Clients that pause between
# their requests need no core of their own.
sub flooded ($nginx, $case, $args) {
    my $run = $case->{pause} ? paced($case->{pause}) : driver() eq 'wrk' ? \&by_wrk : \&by_perl;
    my @load = ($nginx->port_of(1), '/plain', $case->{connections}, 1);
    my $idle = $run->(@load);
    return $idle if $idle->{error};
    my $busy = beside_a_busy_process(sub { $run->(@load) });
    return $busy if $busy->{error};
    pipe my $out, my $in or return { error => "pipe: $!" };
    my $pid = fork // return { error => "fork: $!" };
    if (!$pid) {
        my $c = $nginx->server->connect($nginx->port_of(0), timeout => 20);
        my $answer = $nginx->run({ %$args, seconds => 1 + 2 * $MARGIN }, $c);
        print {$in} "$_\t$answer->{$_}\n" for grep { defined $answer->{$_} } qw(rate error);
        close $in;
        # the server is the parent's to stop
        POSIX::_exit(0);
    }
    close $in;
    sleep $MARGIN;
    my $flooded = $run->(@load);
    my %flood = map { chomp; split /\t/, $_, 2 } <$out>;
    waitpid $pid, 0;
    my $error = $flooded->{error} // $flood{error};
    return { error => $error } if $error;
    return {
        idle => $idle->{p99}, busy => $busy->{p99}, p99 => $flooded->{p99},
        times => $flooded->{p99} / $idle->{p99}, beside => $flooded->{p99} / $busy->{p99},
        http => $flooded->{rate}, rate => $flood{rate},
    };
}

my %US = (us => 1, ms => 1000, s => 1_000_000);

sub beside_a_busy_process ($do) {
    my $pid = fork // return { error => "fork: $!" };
    if (!$pid) {
        # until its parent ends it, or has gone
        my $parent = getppid;
        while (getppid == $parent) { my $n = 0; $n++ while $n < 1_000_000 }
        POSIX::_exit(0);
    }
    my $answer = $do->();
    kill KILL => $pid;
    waitpid $pid, 0;
    return $answer;
}

sub by_wrk ($port, $path, $connections, $seconds) {
    # whole seconds are all it knows
    my $whole = int $seconds < 1 ? 1 : $seconds;
    my $out = qx(wrk -t1 -c$connections -d${whole}s --latency 'http://127.0.0.1:$port$path' 2>&1);
    my ($rate) = $out =~ m{^Requests/sec:\s+([\d.]+)}m or return { error => "wrk says: $out" };
    return { error => "not all answered: $1" } if $out =~ /^\s*((?:Non-2xx|Socket errors).*)$/m;
    return { error => 'no answers' } if $rate == 0;
    my %at = map { /^\s+(50|99)%\s+([\d.]+)(us|ms|s)/ ? ($1 => $2 * $US{$3}) : () } split /\n/, $out;
    return { rate => $rate, p50 => $at{50}, p99 => $at{99} };
}

# One that waits $pause seconds before each of its requests. Before all others, where it may be: what
# it measures is when the worker answers, not when it gets a core itself.
sub paced ($pause) {
    return sub ($port, $path, $, $seconds) {
        my $c = CC::HTTP->connect($port);
        return { error => $c->error } if $c->error;
        my $sock  = $c->{sock};
        my $ready = IO::Select->new($sock);
        my (@took, $error);
        setpriority 0, 0, -20 if $> == 0;
        my $began = time;
        while (!$error && time < $began + $seconds) {
            sleep $pause;
            my $since = time;
            syswrite $sock, "GET $path HTTP/1.1\r\nHost: bench\r\n\r\n";
            my $length = $ready->can_read(1) ? sysread $sock, my $answer, 4096 : 0;
            $error = 'not all answered' if !$length || $answer !~ m{^HTTP/1.1 200 };
            push @took, time - $since;
        }
        setpriority 0, 0, 0 if $> == 0;
        return $error ? { error => $error } : of(\@took, time - $began);
    };
}

sub of ($took, $seconds) {
    my @sorted = sort { $a <=> $b } @$took;
    return {
        rate => @$took / $seconds,
        p50  => 1e6 * $sorted[ 0.5 * @sorted ],
        p99  => 1e6 * $sorted[ 0.99 * @sorted ],
    };
}

sub by_perl ($port, $path, $connections, $seconds) {
    my $select = IO::Select->new;
    my (%since, @took);
    for (1 .. $connections) {
        my $c = CC::HTTP->connect($port);
        return { error => $c->error } if $c->error;
        $select->add($c->{sock});
    }
    my $request = "GET $path HTTP/1.1\r\nHost: bench\r\n\r\n";
    my $began = time;
    for my $sock ($select->handles) {
        syswrite $sock, $request;
        $since{$sock} = time;
    }
    while (time < $began + $seconds) {
        for my $sock ($select->can_read(1)) {
            # a short answer comes whole
            sysread $sock, my $answer, 4096 or return { error => 'a connection was closed' };
            return { error => 'not all answered' } if $answer !~ m{^HTTP/1.1 200 };
            push @took, time - $since{$sock};
            syswrite $sock, $request;
            $since{$sock} = time;
        }
    }
    return { error => 'no answer' } if !@took;
    return of(\@took, time - $began);
}

1;
