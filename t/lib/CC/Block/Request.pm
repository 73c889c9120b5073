package CC::Block::Request;

# From the sections of a block to bytes: a list of requests, each a list of
# packets { value, delay_before }.

use v5.36;
use Test::Nginx::Util ();

sub list ($block) {
    my $name = $block->name;
    if (defined(my $raw = $block->get('raw_request'))) {
        refuse_unexpanded($name, 'raw_request', $raw);
        return [ map { +{ value => $_ } } ref $raw eq 'ARRAY' ? @$raw : $raw ];
    }
    if (my $reqs = $block->get('pipelined_requests')) {
        return pipelined($block, $reqs);
    }

    my $request = $block->get('request');
    if (defined(my $code = $block->get('request_eval'))) {
        $request = CC::Block::Filter::evaluate(undef, $code);
    }
    refuse_unexpanded($name, 'request', $request);
    if (ref $request eq 'ARRAY') {
        my $i = 0;
        return map { one($block, $_, $i++) } @$request;
    }
    die "$name - --- request must be a string or an array\n" if ref $request;
    # comments may stand above the request line
    $request = ($request // '') =~ s/\A(?:\s*\#[^\n]*(?:\n|\z)|\s+)+//r;
    return one($block, $request, 0);
}

# Texts the original sends as they are. Who writes the variable there means
# its value, and would get it from "eval" and $ENV{...}.
sub refuse_unexpanded ($name, $section, $value) {
    for my $text (ref $value ? () : $value // '') {
        die "$name - \$TEST_NGINX_... is not expanded in --- $section; use eval and \$ENV{}\n"
            if $text =~ /\$TEST_NGINX_/;
    }
}

# One request: a string, or an array of packets.
sub one ($block, $request, $i) {
    my ($headers, $chunked) = more_headers($block, $i);
    my @packets = ref $request eq 'ARRAY' ? @$request : $request;
    my @built = build($block->name, $headers, $chunked, 'close',
        map { ref $_ eq 'HASH' ? $_->{value} : $_ } @packets);
    return [ map {
        my $p = $packets[$_];
        +{ (ref $p eq 'HASH' ? %$p : ()), value => $built[$_] };
    } 0 .. $#built ];
}

sub pipelined ($block, $reqs) {
    my $name = $block->name;
    die "$name - --- pipelined_requests must be an array\n" if ref $reqs ne 'ARRAY';
    my $all = '';
    for my $i (0 .. $#$reqs) {
        my ($headers, $chunked) = more_headers($block, $i);
        my $text = Test::Nginx::Util::expand_env_in_text($reqs->[$i], $name);
        $all .= join '', build($name, $headers, $chunked,
            $i == $#$reqs ? 'close' : 'keep-alive', $text);
    }
    return [ { value => $all } ];
}

# The header lines for request $i, and whether they announce chunks.
sub more_headers ($block, $i) {
    my $text = $block->get('more_headers') // '';
    if (ref $text eq 'ARRAY') {
        $text = $text->[$i]
            // die $block->name . " - --- more_headers has nothing for request $i\n";
    }
    refuse_unexpanded($block->name, 'more_headers', $text);
    my ($lines, $chunked) = ('', 0);
    for my $line (split /\n+/, $text) {
        next if $line =~ /^\s*#/;
        my ($key, $value) = split /:\s*/, $line, 2;
        $value //= '';
        $chunked = 1 if lc $key eq 'transfer-encoding' && $value eq 'chunked';
        $lines .= "$key: $value\r\n";
    }
    return ($lines, $chunked);
}

# Completes the request line, puts the headers behind it, and cuts the
# result where the packets were cut.
sub build ($name, $more, $chunked, $connection, @packets) {
    my $text = join '', map { $_ // '' } @packets;
    my ($line, $body) = $text =~ /\A([^\n]*\n?)(.*)\z/s;
    my ($lead, $method, $url, $version) =
        $line =~ /^(\s*)(\S+)(?: +(\S+))?(?: +(\S+))? *\s*$/
        or die "$name - no request line 'METHOD [URL [VERSION]]' in \"$line\"\n";
    $url     //= '/';
    $version //= 'HTTP/1.1';

    my $length = '';
    my $cut_front = 0;
    if (!$chunked && length $body && $more !~ /(?:^|\n)Content-Length:/) {
        $cut_front = length($body) - length($body =~ s/^\s+//r);
        $body =~ s/^\s+|\s+$//g;
        $length = 'Content-Length: ' . length($body) . "\r\n";
    }
    my $first = "$method $url $version\r\n";
    my $head  = $first
        . ($more =~ /^Host:/im      ? '' : "Host: $Test::Nginx::Util::ServerName\r\n")
        . ($more =~ /^Connection/im ? '' : "Connection: $connection\r\n")
        . "$more$length\r\n";
    my $all = $head . $body;
    return $all if @packets == 1;

    my @out;
    my ($from, $old) = (0, 0);
    for my $packet (@packets[ 0 .. $#packets - 1 ]) {
        $old += length $packet;
        my $to = $old < length $line
            ? $old - length $lead
            : length($head) + $old - length($line) - $cut_front;
        $to = $from        if $to < $from;
        $to = length $all  if $to > length $all;
        push @out, substr $all, $from, $to - $from;
        $from = $to;
    }
    return @out, substr $all, $from;
}

1;
