package CC::Bench::Load;

# HTTP load for the works that need it: wrk where it is installed, else a
# loop in Perl, which takes more of the processors than it should.

use v5.36;
use IO::Select;
use CC::HTTP;
use CC::Bench::Table ();
use Time::HiRes qw(time);

sub driver () {
    state $wrk = grep { -x "$_/wrk" } split /:/, $ENV{PATH} // '';
    return $wrk ? 'wrk' : 'perl';
}

sub run ($nginx, $case, $args) {
    my $run = driver() eq 'wrk' ? \&by_wrk : \&by_perl;
    return $run->($nginx->port, $case->{connections}, $args->{seconds});
}

my %US = (us => 1, ms => 1000, s => 1_000_000);

sub by_wrk ($port, $connections, $seconds) {
    # whole seconds are all it knows
    my $whole = int $seconds < 1 ? 1 : $seconds;
    my $out = qx(wrk -t1 -c$connections -d${whole}s --latency http://127.0.0.1:$port/run 2>&1);
    my ($rate) = $out =~ m{^Requests/sec:\s+([\d.]+)}m or return { error => "wrk says: $out" };
    return { error => "not all answered: $1" } if $out =~ /^\s*((?:Non-2xx|Socket errors).*)$/m;
    return { error => 'no answers' } if $rate == 0;
    my %at = map { /^\s+(50|99)%\s+([\d.]+)(us|ms|s)/ ? ($1 => $2 * $US{$3}) : () } split /\n/, $out;
    return { rate => $rate, p50 => $at{50}, p99 => $at{99} };
}

sub by_perl ($port, $connections, $seconds) {
    my $select = IO::Select->new;
    my (%since, @took);
    for (1 .. $connections) {
        my $c = CC::HTTP->connect($port);
        return { error => $c->error } if $c->error;
        $select->add($c->{sock});
    }
    my $request = "GET /run HTTP/1.1\r\nHost: bench\r\n\r\n";
    my $began = time;
    for my $sock ($select->handles) {
        syswrite $sock, $request;
        $since{$sock} = time;
    }
    while (time < $began + $seconds) {
        for my $sock ($select->can_read(1)) {
            # an answer without a body comes whole
            sysread $sock, my $answer, 4096 or return { error => 'a connection was closed' };
            return { error => 'not all answered' } if $answer !~ m{^HTTP/1.1 200 };
            push @took, time - $since{$sock};
            syswrite $sock, $request;
            $since{$sock} = time;
        }
    }
    return { error => 'no answer' } if !@took;
    my @sorted = sort { $a <=> $b } @took;
    return {
        rate => @took / (time - $began),
        p50  => 1e6 * $sorted[ 0.5 * @sorted ],
        p99  => 1e6 * $sorted[ 0.99 * @sorted ],
    };
}

1;
