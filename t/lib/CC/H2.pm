package CC::H2;

# A minimal HTTP/2 client without TLS, over CC::HTTP's connections: several streams at a time, bodies
# both ways. It writes header fields as literals and reads of the answer's what nginx writes for
# :status, and nothing else.

use v5.36;
use CC::HTTP;
use CC::Wait qw(now DEADLINE);

my ($DATA, $HEADERS, $RESET, $SETTINGS, $PING, $GOAWAY, $WINDOW) = (0, 1, 3, 4, 6, 7, 8);
my ($END_STREAM, $END_HEADERS, $PADDED, $PRIORITY, $ACK) = (1, 4, 8, 32, 1);
my %STATUS = (8 => 200, 9 => 204, 10 => 206, 11 => 304, 12 => 400, 13 => 404, 14 => 500);

sub connect ($class, $peer, %opt) {
    my $self = bless { http => CC::HTTP->connect($peer), buf => '', next => 1, streams => {} }, $class;
    # window of streams: all that may come
    $self->{http}->send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" . frame($SETTINGS, 0, 0, pack 'nN', 4, 0x7fffffff)
        . frame($WINDOW, 0, 0, pack 'N', 0x7fff0000 - 65535));
    return $self;
}

sub frame ($type, $flags, $stream, $payload = '') {
    my $length = length $payload;
    return pack('CnCCN', $length >> 16, $length & 0xffff, $type, $flags, $stream) . $payload;
}

sub literal ($name, $value) { "\0" . text(lc $name) . text($value) }

sub text ($text) {
    my $length = length $text;
    die "too long for this client\n" if $length > 16_000;
    return chr($length) . $text if $length < 127;
    my $rest = $length - 127;
    my $bytes = "\x7f";
    while ($rest >= 128) { $bytes .= chr($rest % 128 + 128); $rest >>= 7 }
    return $bytes . chr($rest) . $text;
}

# Sends a request without waiting; its stream's number. Bodies up to the window that nginx gives: 64K.
sub ask ($self, $method, $uri, %opt) {
    my $stream = $self->{next};
    $self->{next} += 2;
    my $body = $opt{body} // '';
    my %headers = (($opt{headers} // {})->%*, length $body ? ('content-length' => length $body) : ());
    my $block = join '', literal(':method', $method), literal(':scheme', 'http'), literal(':path', $uri),
        literal(':authority', 'localhost'), map { literal($_, $headers{$_}) } sort keys %headers;
    my $end = length $body ? 0 : $END_STREAM;
    my $bytes = frame($HEADERS, $END_HEADERS | $end, $stream, $block);
    while (length $body) {
        my $piece = substr $body, 0, 16384, '';
        $bytes .= frame($DATA, length $body ? 0 : $END_STREAM, $stream, $piece);
    }
    $self->{streams}{$stream} = { body => '' };
    $self->{http}->send($bytes);
    return $stream;
}

# Gives a stream up.
sub reset ($self, $stream) { $self->{http}->send(frame($RESET, 0, $stream, pack 'N', 8)) }

# Waits for a stream's end: { status, body }, or { error }.
sub answer ($self, $stream) {
    my $end = now() + DEADLINE;
    my $s = $self->{streams}{$stream};
    until ($s->{over} || $self->{error}) {
        $self->{error} = 'no answer' if !$self->one_frame($end);
    }
    return { error => $self->{error} } if !$s->{over};
    return delete $self->{streams}{$stream};
}

sub request ($self, @request) { $self->answer($self->ask(@request)) }

sub bytes ($self, $count, $end) {
    while (length $self->{http}{buf} < $count) {
        return if now() >= $end || !$self->{http}->fill($end);
    }
    return substr $self->{http}{buf}, 0, $count, '';
}

sub one_frame ($self, $end) {
    my $head = $self->bytes(9, $end) // return 0;
    my ($high, $low, $type, $flags, $number) = unpack 'CnCCN', $head;
    my $payload = $self->bytes($high << 16 | $low, $end) // return 0;
    my $http = $self->{http};
    my $stream = $self->{streams}{$number} // {};
    if ($type == $SETTINGS || $type == $PING) {
        $http->send(frame($type, $ACK, 0, $type == $PING ? $payload : '')) if !($flags & $ACK);
    } elsif ($type == $GOAWAY) {
        $self->{error} = 'GOAWAY';
    } elsif ($type == $RESET) {
        @$stream{qw(over error)} = (1, 'RST_STREAM');
    } elsif ($type == $HEADERS || $type == $DATA) {
        if ($flags & $PADDED) { my $pad = unpack 'C', substr $payload, 0, 1, ''; substr $payload, -$pad, $pad, '' if $pad }
        substr $payload, 0, 5, '' if $type == $HEADERS && $flags & $PRIORITY;
        $stream->{status} = status($payload) if $type == $HEADERS;
        $stream->{body} .= $payload if $type == $DATA;
        $stream->{over} = 1 if $flags & $END_STREAM;
    }
    return 1;
}

# nginx writes :status first: a number of the static table, or three digits as they are.
sub status ($block) {
    $block =~ s/^[\x20-\x3f]//;    # the table's size
    my $first = ord $block;
    return $STATUS{ $first & 0x7f } // 0 if $first & 0x80;
    return $block =~ /^[\x48\x08]\x03(\d{3})/ ? $1 : 0;
}

1;
