package CC::Wait;

# Waiting by condition: everything that would be a fixed sleep elsewhere
# is a short poll with a deadline here.

use v5.36;
use Exporter 'import';
use Time::HiRes ();

our @EXPORT_OK = qw(now nap until_true wait_for DEADLINE SLOW);

use constant DEADLINE => $ENV{TEST_NGINX_DEADLINE} || 20;
# How many times longer than usual everything may take; the waits below allow for it by themselves, a
# test that measures does it with this.
use constant SLOW => $ENV{TEST_NGINX_SLOW}
    || ($ENV{TEST_NGINX_USE_VALGRIND} ? 8 : $ENV{TEST_NGINX_USE_ASAN} ? 3 : 1);

sub now () { Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC()) }

sub nap ($seconds = 0.005) {
    select undef, undef, undef, $seconds;
}

# A signal that comes just before sigsuspend(2), where nginx's master waits for signals, memcheck keeps to
# itself until the next one comes: SIGIO, which says nothing to a master.
my $roused = 0;

sub rouse_masters () {
    return if !$ENV{TEST_NGINX_USE_VALGRIND} || now() - $roused < 1;
    $roused = now();
    for my $path (glob '/proc/[0-9]*/wchan') {
        open my $wchan, '<', $path or next;
        kill IO => $path =~ m{(\d+)/wchan} if (readline($wchan) // '') =~ /^sigsuspend/;
    }
    return;
}

# Polls until the sub returns a true value, which is returned; false after
# the deadline. Says nothing.
sub until_true ($cond, $seconds = DEADLINE) {
    my $end  = now() + $seconds * SLOW;
    my $step = 0.002;
    while (1) {
        my $got = $cond->();
        return $got if $got;
        return      if now() >= $end;
        rouse_masters();
        nap($step);
        $step *= 1.5 if $step < 0.02;
    }
}

# The same for tests: a miss is told with diag, so that the failing
# assertion around it has its reason beside it.
sub wait_for ($cond, $what = 'condition', $seconds = DEADLINE) {
    my $got = until_true($cond, $seconds);
    if (!$got) {
        require Test::More;
        Test::More::diag("gave up waiting for $what after @{[ $seconds * SLOW ]}s");
    }
    return $got;
}

1;
