package CC::Sockopt;

# Options of a socket that another process holds: a copy of its descriptor
# is fetched with pidfd_getfd(), so it is the socket itself that is asked.

use v5.36;
use Exporter 'import';
use POSIX ();
use Socket qw(:all);
use CC::Proc ();

our @EXPORT_OK = qw(sockopt backlog may_look within);

# the same on all architectures
use constant { PIDFD_OPEN => 434, PIDFD_GETFD => 438 };

sub dup_from ($pid, $fd) {
    # syscall() would pass a string by its address
    my $pidfd = syscall PIDFD_OPEN, 0 + $pid, 0;
    return if $pidfd < 0;
    my $copy = syscall PIDFD_GETFD, $pidfd, 0 + $fd, 0;
    POSIX::close($pidfd);
    return if $copy < 0;
    open my $socket, '+<&=', $copy or return;
    return $socket;
}

# False where the kernel or its rules forbid it.
sub may_look () {
    state $may = do {
        socket my $s, AF_INET, SOCK_STREAM, 0;
        defined dup_from($$, fileno $s) ? 1 : 0;
    };
    return $may;
}

# An integer option, or undef when there is no such socket or option.
sub sockopt ($pid, $fd, $level, $name) {
    my $socket = dup_from($pid, $fd) // return undef;
    my $value = getsockopt $socket, $level, $name;
    return defined $value ? unpack 'i', $value : undef;
}

# Ends of socket pairs that the process has made itself: the kernel notes who made a pair. Those of its
# master are told apart by that.
sub within ($pid) {
    my @pairs = grep { $_->{proto} eq 'unix' && !$_->{local} } CC::Proc::sockets($pid);
    return grep { (sockopt($pid, $_->{fd}, SOL_SOCKET, SO_PEERCRED) // 0) == $pid } @pairs;
}

# Of a listening TCP socket: tcpi_sacked of its tcp_info.
sub backlog ($pid, $fd) {
    my $socket = dup_from($pid, $fd) // return undef;
    my $info = getsockopt($socket, IPPROTO_TCP, TCP_INFO) // return undef;
    return unpack 'x28 L', $info;
}

1;
