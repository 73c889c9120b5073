package CC::HTTP;

# A minimal HTTP/1.1 client over TCP or a Unix socket. One object is one
# connection; sending and reading are apart, so that a test can have many
# requests under way. Nothing here dies on a bad peer: a response without
# an answer has status 0 and says why in {error}.

use v5.36;
use Errno qw(EAGAIN EINTR);
use Socket qw(:all);
use Time::HiRes ();
use CC::Wait qw(now DEADLINE SLOW);

# $peer: port, "host:port", "[::1]:port" or "unix:/path".
sub connect ($class, $peer, %opt) {
    my $self = bless {
        peer => $peer, buf => '', timeout => SLOW * ($opt{timeout} // DEADLINE),
    }, $class;
    $self->{error} = $self->dial($opt{from});
    return $self;
}

sub dial ($self, $from = undef) {
    my ($family, $addr) = peer_address($self->{peer});
    socket($self->{sock}, $family, SOCK_STREAM, 0) or return "socket: $!";
    if (defined $from) {
        my (undef, $local) = peer_address("$from:0");
        bind $self->{sock}, $local or return "bind $from: $!";
    }
    # blocking: on loopback a connect is at once done or refused, except
    # with a full backlog, where SO_SNDTIMEO bounds it
    setsockopt $self->{sock}, SOL_SOCKET, SO_SNDTIMEO,
        pack('l!l!', int($self->{timeout}) || 1, 0);
    CORE::connect $self->{sock}, $addr or return "connect $self->{peer}: $!";
    $self->{sock}->blocking(0);
    return;
}

sub peer_address ($peer) {
    if ($peer =~ /^unix:(.+)$/s) {
        return (AF_UNIX, pack_sockaddr_un($1 =~ s/^@/\0/r));
    }
    if ($peer =~ /^\[([^\]]+)\]:(\d+)$/) {
        return (AF_INET6, pack_sockaddr_in6($2, inet_pton(AF_INET6, $1)));
    }
    my ($host, $port) = $peer =~ /^(?:([^:]+):)?(\d+)$/
        or die "peer '$peer' is not a port, host:port or unix:path\n";
    return (AF_INET, pack_sockaddr_in($port, inet_aton($host // '127.0.0.1')));
}

sub ok ($self) { !defined $self->{error} }

sub error ($self) { $self->{error} }

sub fileno ($self) { CORE::fileno $self->{sock} }

# The local port, as the server sees it.
sub local_port ($self) {
    my (undef, $port) = eval { unpack_sockaddr_in(getsockname $self->{sock}) };
    return $port;
}

sub close ($self) {
    CORE::close(delete $self->{sock}) if $self->{sock};
    return;
}

# Half-closes: the server sees the end, we still read.
sub finish ($self) { shutdown $self->{sock}, 1 }

# Raw bytes; true when all are written.
sub send ($self, $bytes) {
    return 0 if $self->{error};
    local $SIG{PIPE} = 'IGNORE';
    my $end = now() + $self->{timeout};
    my $off = 0;
    while ($off < length $bytes) {
        my $n = syswrite $self->{sock}, $bytes, length($bytes) - $off, $off;
        if (defined $n) { $off += $n; next }
        next if $! == EINTR;
        return !($self->{error} = "send: $!") if $! != EAGAIN;
        return !($self->{error} = 'send: timed out')
            if !$self->ready(1, $end - now());
    }
    return 1;
}

sub ready ($self, $write, $seconds) {
    return 0 if $seconds <= 0;
    my $bits = '';
    vec($bits, CORE::fileno($self->{sock}), 1) = 1;
    my $n = $write ? select(undef, $bits, undef, $seconds)
                   : select($bits, undef, undef, $seconds);
    return $n > 0 || ($n < 0 && $! == EINTR);
}

# More bytes into the buffer: count, 0 at the end, undef when timed out.
sub fill ($self, $end) {
    return undef if !$self->{sock};
    while (1) {
        my $n = sysread $self->{sock}, $self->{buf}, 65536, length $self->{buf};
        return $n if defined $n;
        next if $! == EINTR;
        return 0 if $! != EAGAIN;
        return undef if !$self->ready(0, $end - now());
    }
}

# Everything until the peer closes (or the time is up).
sub read_all ($self, $timeout = $self->{timeout}) {
    my $end = now() + $timeout;
    1 while $self->fill($end);
    my $all = $self->{buf};
    $self->{buf} = '';
    return $all;
}

sub send_request ($self, $method, $uri, %opt) {
    return 0 if $self->{error};
    my %head;
    my @lines;
    my $given = $opt{headers} // {};
    my @pairs = ref $given eq 'ARRAY' ? @$given : map { $_ => $given->{$_} } sort keys %$given;
    while (my ($name, $value) = splice @pairs, 0, 2) {
        $head{ lc $name } = 1;
        push @lines, "$name: $value";
    }
    unshift @lines, 'Host: ' . ($opt{host} // 'localhost') if !$head{host};
    push @lines, 'Connection: close'
        if !$head{connection} && !$opt{keepalive};
    push @lines, 'Content-Length: ' . length $opt{body}
        if defined $opt{body} && !$head{'content-length'} && !$head{'transfer-encoding'};
    my $version = $opt{version} // '1.1';
    $self->{method} = $method;
    return $self->send(join("\r\n", "$method $uri HTTP/$version", @lines, '', '')
        . ($opt{body} // ''));
}

sub read_response ($self, %opt) {
    my $began = now();
    my $r = bless { status => 0, headers => {}, raw_headers => '', body => '' },
        'CC::HTTP::Response';
    $r->{error} = $self->{error} // $self->parse($r, $began + ($opt{timeout} ? SLOW * $opt{timeout} : $self->{timeout}));
    $r->{time}  = now() - $began;
    return $r;
}

sub parse ($self, $r, $end) {
    until ($self->{buf} =~ /\r?\n\r?\n/) {
        my $n = $self->fill($end);
        return 'timed out waiting for the header' if !defined $n;
        return length $self->{buf} ? 'closed within the header' : 'closed without an answer'
            if !$n;
    }
    $self->{buf} =~ s/^(.*?\n)\r?\n//s;
    my ($first, @lines) = split /\r?\n/, $r->{raw_headers} = $1;
    $first =~ m{^HTTP/\d\.\d (\d{3})} or return "not HTTP: $first";
    $r->{status}      = $1;
    $r->{status_line} = $first;
    for (@lines) {
        my ($name, $value) = /^([^:]+):\s*(.*?)\s*$/ or next;
        push @{ $r->{headers}{ lc $name } }, $value;
    }
    if ($r->{status} =~ /^1/) {
        push @{ $r->{interim} }, $r->{status};
        $r->{headers} = {};
        return $self->parse($r, $end);
    }
    return if ($self->{method} // '') eq 'HEAD' || $r->{status} =~ /^(?:204|304)$/;
    return $self->chunked($r, $end)
        if ($r->header('transfer-encoding') // '') =~ /chunked/i;
    my $length = $r->header('content-length');
    while (!defined $length || length $self->{buf} < $length) {
        my $n = $self->fill($end);
        last if !defined $length && defined $n && !$n;
        if (!$n) {
            $r->{body} = $self->{buf};
            return defined $n ? 'closed within the body' : 'timed out within the body';
        }
    }
    $r->{body} = substr $self->{buf}, 0, $length // length $self->{buf}, '';
    return;
}

sub chunked ($self, $r, $end) {
    while (1) {
        if ($self->{buf} =~ /^([0-9a-fA-F]+)[^\n]*\n/) {
            my ($size, $skip) = (hex $1, $+[0]);
            if ($size == 0 && substr($self->{buf}, $skip) =~ /^(?:[^\r\n]+\r?\n)*\r?\n/) {
                substr $self->{buf}, 0, $skip + $+[0], '';
                return;
            }
            if ($size && length $self->{buf} >= $skip + $size + 2) {
                $r->{body} .= substr $self->{buf}, $skip, $size;
                substr $self->{buf}, 0, $skip + $size + 2, '';
                next;
            }
        }
        my $n = $self->fill($end);
        return 'timed out within a chunked body' if !defined $n;
        return 'closed within a chunked body'    if !$n;
    }
}

sub request ($self, $method, $uri, %opt) {
    $self->send_request($method, $uri, %opt);
    return $self->read_response(%opt);
}

package CC::HTTP::Response;

use v5.36;

sub status ($self)  { $self->{status} }
sub body ($self)    { $self->{body} }
sub headers ($self) { $self->{headers} }
sub error ($self)   { $self->{error} }

# All values of the header joined with ", ", or undef.
sub header ($self, $name) {
    my $values = $self->{headers}{ lc $name } // return;
    return join ', ', @$values;
}

sub json ($self) {
    require JSON::PP;
    return eval { JSON::PP->new->utf8->allow_nonref->decode($self->{body}) };
}

1;
