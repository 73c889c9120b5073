package CC::Block::Mock;

# --- tcp_listen, --- udp_listen: a peer for nginx to talk to, in a child
# process that answers one connection or one datagram.

use v5.36;
use POSIX ();
use Socket qw(:all);
use Test::More ();
use CC::Block::Checks;
use CC::Proc;
use CC::Wait qw(nap now until_true);
use Test::Nginx::Util qw(parse_time);

# Starts what the block asks for. What this returns has end(), which stops
# the peers and asserts what they were told.
sub start ($block) {
    my @peers;
    for my $kind (qw(tcp udp)) {
        my $target = $block->get("${kind}_listen") // next;
        $target = Test::Nginx::Util::expand_env_in_text($target, $block->name);
        die $block->name . " - --- ${kind}_listen needs --- ${kind}_reply\n"
            if !defined $block->get("${kind}_reply") && !$block->has("${kind}_shutdown");
        push @peers, peer($block, $kind, $target =~ s/^\s+|\s+$//gr);
    }
    return bless { block => $block, peers => \@peers }, __PACKAGE__;
}

sub peer ($block, $kind, $target) {
    my $sock = listen_on($block->name, $kind, $target);
    my ($from, $to);
    # the answers to tcp_query and udp_query come back through here
    pipe $from, $to or die "pipe: $!";
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        close $from;
        $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
        $SIG{PIPE} = 'IGNORE';
        eval { $kind eq 'tcp' ? serve_tcp($block, $sock, $to) : serve_udp($block, $sock, $to) };
        print STDERR "# mock $kind server: $@" if $@;
        POSIX::_exit(0);
    }
    close $to;
    return { kind => $kind, pid => $pid, from => $from, sock => $sock,
        path => $target =~ m{/} ? $target : undef };
}

sub listen_on ($name, $kind, $target) {
    my $type = $kind eq 'tcp' ? SOCK_STREAM : SOCK_DGRAM;
    my ($family, $addr) = $target =~ /^\d+$/
        ? (AF_INET, pack_sockaddr_in($target, INADDR_LOOPBACK))
        : (AF_UNIX, pack_sockaddr_un($target));
    die "$name - bad ${kind}_listen target: $target\n"
        if $target !~ /^\d+$/ && $target !~ /\.sock$/;
    unlink $target if $family == AF_UNIX;
    socket my $sock, $family, $type, 0 or die "socket: $!";
    setsockopt $sock, SOL_SOCKET, SO_REUSEADDR, 1 if $family == AF_INET;
    bind $sock, $addr or die "$name - ${kind}_listen $target: $!\n";
    listen $sock, 5 if $type == SOCK_STREAM;
    return $sock;
}

sub serve_tcp ($block, $sock, $to) {
    accept my $c, $sock or die "accept: $!\n";
    my $how = $block->get('tcp_shutdown');
    if (defined $how) {
        nap(parse_time($block->get('tcp_shutdown_delay')) || 0);
        shutdown $c, $how;
    }
    my $got = '';
    if (!defined $how || $how == 1) {
        my $need = $block->get('tcp_query_len')
            // length($block->get('tcp_query') // '') || 1;
        my $idle = $block->get('tcp_query_auto_timeout');
        $idle = 0.1 if defined $idle && !length $idle;
        while (defined $idle || length $got < $need) {
            last if defined $idle && !readable($c, $idle);
            my $n = sysread $c, $got, 65536, length $got;
            last if !$n;
            syswrite $to, substr $got, -$n;
        }
    }
    nap(parse_time($block->get('tcp_reply_delay')) || 0);
    if (!defined $how || $how == 0) {
        syswrite $c, $_ for replies($block->get('tcp_reply'), $got);
    }
    POSIX::pause() while $block->has('tcp_no_close');
    close $c;
    return;
}

sub readable ($c, $seconds) {
    my $bits = '';
    vec($bits, fileno $c, 1) = 1;
    return select($bits, undef, undef, $seconds) > 0;
}

sub serve_udp ($block, $sock, $to) {
    my $sender = recv $sock, my $got, 65536, 0;
    defined $sender or die "recv: $!\n";
    syswrite $to, $got;
    nap(parse_time($block->get('udp_reply_delay')) || 0);
    send $sock, $_, 0, $sender for replies($block->get('udp_reply'), $got);
    return;
}

# A string, several, or a sub that makes them out of the query.
sub replies ($reply, $query) {
    $reply = $reply->($query) if ref $reply eq 'CODE';
    return grep { defined } ref $reply eq 'ARRAY' ? @$reply : $reply;
}

sub end ($self) {
    my $block = $self->{block};
    for my $peer (@{ $self->{peers} }) {
        my $kind  = $peer->{kind};
        my $want  = $block->get("${kind}_query");
        my $bytes = $block->get("${kind}_query_len") // (defined $want ? length $want : 0);
        my $got   = heard($peer->{from}, $bytes);
        kill 'KILL', $peer->{pid};
        waitpid $peer->{pid}, 0;
        unlink $peer->{path} if defined $peer->{path};

        CC::Block::Checks::is_str($got, $want, $block->name . " - ${kind}_query ok")
            if defined $want;
        Test::More::is(length $got, $block->get('tcp_query_len'),
            $block->name . ' - TCP query length ok')
            if $kind eq 'tcp' && $block->has('tcp_query_len');
    }
    $self->{peers} = [];
    return;
}

# What the peer was told; all is there once it has as much as is expected,
# or has ended.
sub heard ($from, $bytes) {
    my $got = '';
    my $end = now() + Test::Nginx::Util::timeout();
    while (length $got < $bytes && now() < $end) {
        next if !readable($from, 0.05);
        sysread $from, $got, 65536, length $got or last;
    }
    1 while readable($from, 0) && sysread $from, $got, 65536, length $got;
    return $got;
}

sub DESTROY ($self) {
    kill 'KILL', map { $_->{pid} } @{ $self->{peers} };
    waitpid $_->{pid}, 0 for @{ $self->{peers} };
}

1;
