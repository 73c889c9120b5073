package CC::Block::Response;

# Takes one response off the raw bytes of a connection.

use v5.36;
use Test::More ();

# (response, raw header, what is left behind it)
sub parse ($name, $raw, $is_head) {
    my $self = bless { code => '', headers => {}, content => '' }, __PACKAGE__;
    my $raw_headers = $raw =~ /\A(.*?\r\n)\r\n/s ? $1 : '';

    my ($head, $rest) = $raw =~ /\A(.*?\n)\r?\n(.*)\z/s ? ($1, $2) : ($raw, '');
    my ($first, @lines) = split /\r?\n/, $head;
    ($self->{code}) = ($first // '') =~ /^\S+ +(\d{3})(?: |$)/;
    $self->{code} //= '';
    for (@lines) {
        my ($key, $value) = /^([^:\s]+)\s*:\s*(.*?)\s*$/ or next;
        push @{ $self->{headers}{ lc $key } }, $value;
    }
    $self->{content} = $rest;
    return ($self, $raw_headers, '') if $self->{code} =~ /^(?:304|101)$/;

    my $left = '';
    my $length = $self->header('Content-Length');
    if (!$is_head && ($self->header('Transfer-Encoding') // '') eq 'chunked') {
        (my $body, $left, my $error) = dechunk($rest, scalar $self->header('Trailer'));
        Test::More::fail("$name - $error") if $error;
        $self->{content} = $body;
    }
    elsif (defined $length && $length =~ /^\d+$/) {
        if (length $rest < $length) {
            Test::More::diag("$name - response body truncated: $length expected, got "
                . length $rest) if !$is_head;
        }
        else {
            $self->{content} = substr $rest, 0, $length;
            $left = substr $rest, $length;
        }
    }
    return ($self, $raw_headers, $left);
}

sub dechunk ($raw, $trailer) {
    my $body = '';
    pos($raw) = 0;
    while (1) {
        $raw =~ /\G[ \t]*([0-9a-fA-F]+)[ \t]*\r\n/gc
            or return ($body, '', pos $raw < length $raw
                ? 'invalid chunked body received' : 'no last chunk found');
        my $size = hex $1;
        if (!$size) {
            if (defined $trailer) {
                $raw =~ /\G[^\r\n:]+:[^\n]*\r\n/gc
                    or return ($body, '', "no trailer received (expected $trailer)")
                    for split /\s*,\s*/, $trailer;
            }
            $raw =~ /\G\r\n/gc or return ($body, '', 'invalid chunked data received (expected CRLF)');
            return ($body, substr $raw, pos $raw);
        }
        return ($body, '', 'invalid chunked data received (too few octets in a chunk)')
            if length($raw) - pos($raw) < $size;
        $body .= substr $raw, pos $raw, $size;
        pos($raw) += $size;
        $raw =~ /\G\r\n/gc or return ($body, '', 'invalid chunked data received (expected CRLF)');
    }
}

# --- http09: all that came is the body.
sub plain ($raw) {
    return bless { code => 200, headers => {}, content => $raw }, __PACKAGE__;
}

sub code ($self) { $self->{code} }

sub content ($self, @new) {
    $self->{content} = $new[0] if @new;
    return $self->{content};
}

sub header ($self, $name) {
    my $values = $self->{headers}{ lc $name } // return;
    return join ', ', @$values;
}

1;
