package CC::Wire;

# Hosts on one wire: network namespaces, each with an interface whose other end is held by a process
# that passes frames on, later, not at all, or not to everybody. It needs root and /dev/net/tun, no
# tools, and no netem in the kernel.
#
#     my $wire = CC::Wire->new(3) // plan skip_all => CC::Wire::why_not();
#     $wire->set(delay => 0.02, jitter => 0.005, loss => 0.02);
#     $wire->in(2, sub { ... });      # runs on host 2, which has the address $wire->ip(2)
#     $wire->cut(3);                  # nobody reaches host 3
#     $wire->cut(1, 2);               # 1 and 2 do not reach each other
#     $wire->heal;

use v5.36;
use Fcntl qw(O_RDWR);
use POSIX ();
use Socket;
use CC::Wait qw(now);

use constant {
    CLONE_NEWNET => 0x40000000,
    TUNSETIFF => 0x400454ca,
    IFF_TAP => 0x2, IFF_NO_PI => 0x1000, IFF_UP => 0x1, IFF_RUNNING => 0x40,
    SIOCSIFFLAGS => 0x8914, SIOCSIFADDR => 0x8916, SIOCSIFNETMASK => 0x891c,
    NET => '10.77.0', FRAME_MAX => 2048,
};

my $nr = {
    x86_64  => { unshare => 272, setns => 308 },
    aarch64 => { unshare => 97,  setns => 268 },
}->{ (POSIX::uname())[4] };
my $why = '';

# A wire with that many hosts, numbered from 1; nothing where it is not permitted.
sub new ($class, $hosts) {
    my $self = bless { owner => $$, home => undef, hosts => [] }, $class;
    eval { $self->lay($hosts); 1 } and return $self;
    $why = $@ =~ s/ at \S+ line.*//sr;
    enter($self->{home}) if $self->{home};
    return;
}

sub why_not () { "hosts on a wire cannot be made: $why" }

sub ip ($self, $host) { NET . ".$host" }

# Runs the code on a host: what it starts stays there.
sub in ($self, $host, $code) {
    enter($self->{hosts}[ $host - 1 ]{space});
    my @got = eval { wantarray ? $code->() : scalar $code->() };
    my $error = $@;
    enter($self->{home});
    die $error if $error;
    return wantarray ? @got : $got[0];
}

# delay and jitter in seconds, one way; loss as a part of 1.
sub set ($self, %what) { $self->say(map { "$_ $what{$_}" } sort keys %what) }

# Between two hosts, or between one and all others.
sub cut ($self, $one, $other = 0) { $self->say("cut $one $other") }

sub heal ($self) { $self->say('heal 0') }

sub say ($self, @lines) {
    for (@lines) {
        syswrite $self->{to}, "$_\n" or die "the wire is gone: $!";
        # it has heard it when it answers
        sysread $self->{to}, my $answer, 1 or die "the wire is gone: $!";
    }
    return;
}

sub DESTROY ($self) {
    return if !$self->{pid} || $self->{owner} != $$;
    local ($?, $!);
    kill KILL => $self->{pid};
    waitpid $self->{pid}, 0;
    return;
}

# -- making it --------------------------------------------------------------

sub lay ($self, $hosts) {
    die "unknown machine\n" if !$nr;
    die "not root\n" if $> != 0;
    open $self->{home}, '<', '/proc/self/ns/net' or die "/proc/self/ns/net: $!\n";
    for my $host (1 .. $hosts) {
        syscall($nr->{unshare}, CLONE_NEWNET) == 0 or die "unshare: $!\n";
        open my $space, '<', '/proc/self/ns/net' or die "/proc/self/ns/net: $!\n";
        up('lo');
        push $self->{hosts}->@*, { space => $space, tap => tap('wire0', $self->ip($host)) };
    }
    enter($self->{home});

    socketpair $self->{to}, my $from, AF_UNIX, SOCK_STREAM, 0 or die "socketpair: $!\n";
    $self->{pid} = fork // die "fork: $!\n";
    if (!$self->{pid}) {
        close $self->{to};
        eval { carry($from, map { $_->{tap} } $self->{hosts}->@*) };
        print STDERR "# the wire: $@" if $@;
        POSIX::_exit(0);
    }
    close $_->{tap} for $self->{hosts}->@*;
    return;
}

sub enter ($space) {
    syscall($nr->{setns}, fileno $space, CLONE_NEWNET) == 0 or die "setns: $!\n";
    return;
}

# The interface belongs to the namespace in which it was made, its other end to who has made it.
sub tap ($name, $ip) {
    sysopen my $tap, '/dev/net/tun', O_RDWR or die "/dev/net/tun: $!\n";
    ioctl $tap, TUNSETIFF, pack 'a16 s x22', $name, IFF_TAP | IFF_NO_PI or die "TUNSETIFF: $!\n";
    control(SIOCSIFADDR, $name, pack_sockaddr_in(0, inet_aton($ip)));
    control(SIOCSIFNETMASK, $name, pack_sockaddr_in(0, inet_aton('255.255.255.0')));
    up($name);
    return $tap;
}

sub up ($name) { control(SIOCSIFFLAGS, $name, pack 's', IFF_UP | IFF_RUNNING) }

sub control ($request, $name, $value) {
    socket my $s, AF_INET, SOCK_DGRAM, 0 or die "socket: $!\n";
    ioctl $s, $request, pack 'a16 a24', $name, $value or die "$name: $!\n";
    return;
}

# -- carrying frames --------------------------------------------------------

# All hosts hear what one says, as on a hub; frames of one host to another keep their order.
sub carry ($from, @taps) {
    my (%set, %cut, @late, %last);
    my %host = map { fileno $taps[$_] => $_ + 1 } 0 .. $#taps;
    while (1) {
        my $wait = @late ? $late[0][0] - now() : undef;
        my $bits = '';
        vec($bits, fileno $_, 1) = 1 for $from, @taps;
        select $bits, undef, undef, defined $wait && $wait < 0 ? 0 : $wait;
        while (@late && $late[0][0] <= now()) {
            my (undef, $to, $frame) = @{ shift @late };
            syswrite $taps[ $to - 1 ], $frame;
        }
        if (vec($bits, fileno $from, 1)) {
            sysread $from, my $line, 64 or return;
            my ($what, $one, $other) = split ' ', $line;
            if    ($what eq 'cut')  { $cut{"$one $other"} = $cut{"$other $one"} = 1 }
            elsif ($what eq 'heal') { %cut = () }
            else                    { $set{$what} = $one }
            syswrite $from, '.';
        }
        for my $tap (grep { vec($bits, fileno $_, 1) } @taps) {
            sysread $tap, my $frame, FRAME_MAX or next;
            my $sender = $host{ fileno $tap };
            for my $to (grep { $_ != $sender } values %host) {
                next if $cut{"$sender $to"} || $cut{"$sender 0"} || $cut{"$to 0"};
                next if rand() < ($set{loss} // 0);
                my $at = now() + ($set{delay} // 0) + rand($set{jitter} // 0);
                my $before = $last{"$sender $to"} // 0;
                $last{"$sender $to"} = $at = $at < $before ? $before : $at;
                push @late, [ $at, $to, $frame ];
            }
            @late = sort { $a->[0] <=> $b->[0] } @late;
        }
    }
}

1;
