package CC::Ports;

# The one place that hands out ports: blocks of consecutive ports that no
# socket of this network namespace uses, below the range the kernel takes
# for outgoing connections. A block stays ours until the process ends.

use v5.36;
use Exporter 'import';
use Socket qw(:all);
use Carp qw(croak);

our @EXPORT_OK = qw(block port reserve is_free);

use constant {
    FIRST => 10_000,
    LAST  => 31_000,
    SLOT  => 8,
};

my @held;          # abstract sockets that keep other test processes away
my $have_ipv6;

# First port of a block of $n consecutive free ports.
sub block ($n = SLOT) {
    croak "a block has 1 to 1024 ports, not $n" if $n < 1 || $n > 1024;

    my $slots = int(($n + SLOT - 1) / SLOT);
    my $total = int((LAST - FIRST) / SLOT) - $slots;
    my $start = int rand $total;

    for my $try (0 .. $total - 1) {
        my $slot  = ($start + $try) % $total;
        my $base  = FIRST + $slot * SLOT;
        my @locks = lock_slots($slot, $slots) or next;
        next if grep { !is_free($base + $_) } 0 .. $n - 1;
        push @held, @locks;
        return $base;
    }
    croak "no block of $n free ports";
}

sub port () { block(1) }

# Takes this very port if it can be had; false when somebody else has it.
sub reserve ($port) {
    my $lock = lock_name("port-$port") or return 0;
    return 0 if !is_free($port);
    push @held, $lock;
    return 1;
}

# Bindable for TCP and UDP on the wildcard address, IPv4 and IPv6: then a
# listen on any local address will do.
sub is_free ($port) {
    $have_ipv6 //= can_bind(AF_INET6, SOCK_STREAM, 0) ? 1 : 0;
    for my $type (SOCK_STREAM, SOCK_DGRAM) {
        return 0 if !can_bind(AF_INET, $type, $port);
        return 0 if $have_ipv6 && !can_bind(AF_INET6, $type, $port);
    }
    return 1;
}

# A bound socket on ::1, not merely a kernel that knows the family.
sub has_ipv6 () {
    socket(my $s, AF_INET6, SOCK_STREAM, 0) or return 0;
    return bind($s, pack_sockaddr_in6(0, inet_pton(AF_INET6, '::1'))) ? 1 : 0;
}

sub can_bind ($family, $type, $port) {
    socket(my $s, $family, $type, 0) or return 0;
    if ($type == SOCK_STREAM) {
        setsockopt $s, SOL_SOCKET, SO_REUSEADDR, 1;
    }
    if ($family == AF_INET6) {
        setsockopt $s, IPPROTO_IPV6, IPV6_V6ONLY, 1;
        return bind $s, pack_sockaddr_in6($port, IN6ADDR_ANY);
    }
    return bind $s, pack_sockaddr_in($port, INADDR_ANY);
}

sub lock_slots ($first, $count) {
    my @locks;
    for my $slot ($first .. $first + $count - 1) {
        my $lock = lock_name("slot-$slot") or return;
        push @locks, $lock;
    }
    return @locks;
}

# An abstract Unix address belongs to the network namespace, as ports do,
# and vanishes with its owner: a lock that cannot go stale.
sub lock_name ($name) {
    socket(my $s, AF_UNIX, SOCK_STREAM, 0) or return;
    bind($s, pack_sockaddr_un("\0ngx-cc-$name")) or return;
    return $s;
}

1;
