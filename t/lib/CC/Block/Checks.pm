package CC::Block::Checks;

# The assertions on one response. How many there are per block is part of
# the format: plans count on it.

use v5.36;
use Encode ();
use Test::More ();
use Test::Nginx::Util ();

# Answers for request $i of many when $many, else for the only one.
sub pick ($name, $value, $i, $many) {
    return $value->[$i] if ref $value eq 'ARRAY';
    die "$name - many requests need their expectations in an array\n" if $many;
    return $value;
}

# Everything on one response, in the original's order.
sub response ($block, $res, $raw_headers, $i, $repeat, $many) {
    my $name = $block->name;
    my $want = sub ($section) { pick($name, $block->get($section), $i, $many) };
    status($block, $res, $want);
    raw_headers($block, $raw_headers, $want);
    headers($block, $res, $raw_headers, $want);
    $res->content(filtered($block, $res->content, $i))
        if $block->has('response_body_filters');
    body($block, $res, $want, "(repeated req $repeat, req $i)");
    $_->($block, $res->content, $i, $repeat, undef)
        for @Test::Nginx::Util::ResponseBodyChecks;
    return;
}

sub status ($block, $res, $want) {
    my $what = $block->name . ' - status code ok';
    if ($block->has('error_code_like')) {
        my $pattern = $want->('error_code_like');
        return Test::More::like($res->code, qr/$pattern/sm, $what);
    }
    return Test::More::is($res->code,
        $block->has('error_code') ? $want->('error_code') : 200, $what);
}

sub raw_headers ($block, $raw, $want) {
    my $name = $block->name;
    if ($block->has('raw_response_headers_like')) {
        my $pattern = $want->('raw_response_headers_like');
        Test::More::like($raw, qr/$pattern/s, "$name - raw resp headers like");
    }
    if ($block->has('raw_response_headers_unlike')) {
        my $pattern = $want->('raw_response_headers_unlike');
        Test::More::unlike($raw, qr/$pattern/s, "$name - raw resp headers unlike");
    }
    return;
}

# { name => value, or undef for "! Name" }
sub wanted_headers ($text) {
    my %want;
    for (split /\n/, $text // '') {
        s/^\s+|\s+$//g;
        if (s/^!\s*//) { $want{$_} = undef; next }
        my ($key, $value) = split /\s*:\s*/, $_, 2;
        $want{$key} = $value if defined $key;
    }
    return \%want;
}

sub headers ($block, $res, $raw, $want) {
    my $name = $block->name;
    if ($block->has('response_headers')) {
        my $headers = wanted_headers($want->('response_headers'));
        for my $key (sort keys %$headers) {
            if (!defined $headers->{$key}) {
                Test::More::unlike($raw, qr/^\s*\Q$key\E\s*:/ms,
                    "$name - header $key not present in the raw headers");
                next;
            }
            Test::More::is($res->header($key) // '', ports($headers->{$key}),
                "$name - header $key ok");
        }
    }
    elsif ($block->has('response_headers_like')) {
        my $headers = wanted_headers($want->('response_headers_like'));
        for my $key (sort keys %$headers) {
            my $pattern = $headers->{$key} // '';
            Test::More::like($res->header($key) // '', qr/^$pattern$/,
                "$name - header $key like ok");
        }
    }
    return;
}

sub ports ($text) {
    $text =~ s/\$ServerPort\b/$Test::Nginx::Util::ServerPort/g;
    $text =~ s/\$ServerPortForClient\b/$Test::Nginx::Util::ServerPortForClient/g;
    return $text;
}

sub body ($block, $res, $want, $which) {
    my $name = $block->name;
    my $got  = $res->content;
    if (defined(my $path = $block->get('write_resp_body_file'))) {
        open my $fh, '>:raw', $path or die "$name - $path: $!\n";
        print $fh $got;
        close $fh;
    }
    if ($block->has('response_body') || $block->has('response_body_eval')) {
        $got = sorted_json($got) if $block->has('response_body_json_sort');
        my $expected = $block->has('response_body_eval')
            ? CC::Block::Filter::evaluate(undef, $want->('response_body_eval'))
            : $want->('response_body');
        Encode::from_to($expected, 'UTF-8', $block->get('charset')) if $block->get('charset');
        return Test::More::like($got, $expected, "$name - response_body - like $which")
            if ref $expected;
        $expected = Test::Nginx::Util::expand_env_in_text(ports($expected), $name)
            if defined $expected;
        return is_str($got, $expected, "$name - response_body - response is expected $which");
    }
    for my $way (qw(like unlike)) {
        my $section = "response_body_$way";
        next if !$block->has($section);
        my $pattern = ports($want->($section));
        my $brief   = substr Test::Nginx::Util::trim($got), 0, 200;
        return Test::More->can($way)->($got, qr/$pattern/s,
            "$name - $section - response is expected ($brief)");
    }
    return;
}

sub sorted_json ($text) {
    require JSON::PP;
    my $json = JSON::PP->new->canonical(1)->loose(1);
    my $data = eval { $json->decode($text) } // return $text;
    return $json->encode($data) . "\n";
}

# -- response_body_filters ------------------------------------------------

my %BODY_FILTER = (
    md5_hex  => sub { require Digest::MD5; Digest::MD5::md5_hex($_[0]) },
    sha1_hex => sub { require Digest::SHA; Digest::SHA::sha1_hex($_[0]) },
    uc       => sub { uc $_[0] },
    lc       => sub { lc $_[0] },
    ucfirst  => sub { ucfirst $_[0] },
    lcfirst  => sub { lcfirst $_[0] },
    length   => sub { length $_[0] },
);

# Names or subs in a row; an array of arrays gives each request its own row.
sub filtered ($block, $text, $i) {
    my $filters = $block->get('response_body_filters');
    $filters = [ split ' ', $filters ] if !ref $filters;
    $filters = [$filters]              if ref $filters ne 'ARRAY';
    $filters = $filters->[$i] // die $block->name . " - no response_body_filters for request $i\n"
        if ref $filters->[0] eq 'ARRAY';
    for my $f (@$filters) {
        my $code = ref $f eq 'CODE' ? $f : $BODY_FILTER{$f}
            // die $block->name . " - there is no response body filter '$f'\n";
        $text = $code->($text);
    }
    return $text;
}

# -- strings --------------------------------------------------------------

# Long strings that differ are shown around the first difference.
sub is_str ($got, $expected, $what) {
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    return Test::More::like($got, $expected, $what) if ref $expected eq 'Regexp';
    return Test::More::is($got, $expected, $what)
        if $Test::Nginx::Util::NoLongString || !defined $got || !defined $expected
        || length $got < 200 && length $expected < 200;
    my $ok = Test::More::ok($got eq $expected, $what);
    if (!$ok) {
        my $same = 0;
        # the length of the common prefix, without a loop over bytes
        if (($got ^ $expected) =~ /^(\0*)/) { $same = length $1 }
        my $from = $same > 30 ? $same - 30 : 0;
        Test::More::diag(sprintf "         got: %s\n      length: %d\n"
            . "    expected: %s\n      length: %d\n    strings begin to differ at char %d",
            excerpt($got, $from), length $got, excerpt($expected, $from),
            length $expected, $same + 1);
    }
    return $ok;
}

sub excerpt ($text, $from) {
    my $part = substr $text, $from, 120;
    $part =~ s/([^\x20-\x7e])/sprintf '\x{%02x}', ord $1/ge;
    return ($from ? '...' : '') . "\"$part\"" . ($from + 120 < length $text ? '...' : '');
}

1;
