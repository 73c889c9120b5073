package CC::Limit;

# What a running process may have: prlimit(2). Only the soft limits are changed, so no right is needed
# to give back what was taken.

use v5.36;
use POSIX ();
use CC::Proc ();

my $NR = { x86_64 => 302, aarch64 => 261 }->{ (POSIX::uname())[4] };

my %RESOURCE = (
    files  => { number => 7, used => sub ($pid) { 1 + (sort { $b <=> $a } keys %{ CC::Proc::fds($pid) })[0] } },
    memory => { number => 9, used => sub ($pid) { 1024 * ((CC::Proc::slurp("/proc/$pid/status") // '') =~ /^VmSize:\s+(\d+)/m ? $1 : 0) } },
);

sub is_possible () { defined $NR }

# So much above what it uses now, and no more: what give_back needs, or nothing if that cannot be.
sub take ($pid, $what, $more) {
    # syscall takes a text for an address
    $pid += 0;
    my $resource = $RESOURCE{$what};
    my $used = eval { no warnings; $resource->{used}->($pid) } or return;
    my $old = "\0" x 16;
    return if !$NR || syscall($NR, $pid, $resource->{number}, 0, $old) != 0;
    my ($soft, $hard) = unpack 'Q2', $old;
    my $new = pack 'Q2', $used + $more, $hard;
    return if $used + $more > $hard || syscall($NR, $pid, $resource->{number}, $new, 0) != 0;
    return { number => $resource->{number}, old => $old };
}

# What its configuration has denied a process, root can give it.
sub lift ($pid, $what) {
    my $most = pack 'Q2', 4096, 4096;
    syscall $NR, 0 + $pid, $RESOURCE{$what}{number}, $most, 0;
    return;
}

# The process may be gone.
sub give_back ($pid, $limit) {
    my $old = $limit->{old};
    syscall $NR, 0 + $pid, $limit->{number}, $old, 0;
    return;
}

1;
