package CC::Block::Log;

# The assertions on error.log and access.log. A check of error.log sees
# what was written since the check before it; one that expects a line waits
# for it, and only then is the rest judged.

use v5.36;
use List::Util qw(any);
use Test::More ();
use CC::Block::Checks;
use CC::Wait qw(now nap until_true SLOW);
use Test::Nginx::Util ();

my $pos = 0;      # where the last check of error.log ended

sub restart () { $pos = 0 }

sub lines_from ($path, $from = 0) {
    open my $fh, '<:raw', $path or return [];
    seek $fh, $from, 0;
    return [ readline $fh ];
}

# Reads on until $enough is content with the lines, then until nginx has
# been silent for a moment: lines of the log phase may trail the response.
sub settled ($path, $from, $enough = sub ($lines) { 1 }) {
    until_true(sub { $enough->(lines_from($path, $from)) },
        Test::Nginx::Util::timeout());
    my $quiet = 0;
    my $size  = -1;
    my $end   = now() + 0.5 * SLOW;
    while ($quiet < 4 && now() < $end) {
        my $new = -s $path // 0;
        $quiet = $new == $size ? $quiet + 1 : 0;
        $size  = $new;
        nap(0.004 * SLOW);
    }
    return lines_from($path, $from);
}

# A section of patterns as a list: lines of text, a regexp, or an array.
sub patterns ($value) {
    return if !defined $value;
    return grep { defined } @$value if ref $value eq 'ARRAY';
    return $value if ref $value;
    return grep { length } split /\n+/, $value;
}

sub matches ($line, $pattern) {
    return 1 if ref $pattern && $line =~ $pattern;
    return index($line, $pattern) >= 0;
}

sub any_line ($lines, $pattern) { any { matches($_, $pattern) } @$lines }

sub mentions ($block, $text) {
    return any { index($_, $text) >= 0 }
        map { patterns($block->get($_)) } qw(error_log no_error_log);
}

sub grepped ($lines, $pattern) {
    my $out = '';
    for my $line (@$lines) {
        next if !(ref $pattern ? $line =~ /($pattern)/ : $line =~ /(\Q$pattern\E)/);
        $out .= "$1\n" if $1 !~ /\n/;
    }
    return $out;
}

# grep_error_log(_out), error_log, no_error_log, and what no run should log.
sub error_log ($block, $repeat) {
    my $name = $block->name;
    my $grep = $block->get('grep_error_log');
    my $out  = $block->get('grep_error_log_out');
    die "$name - grep_error_log and grep_error_log_out need each other\n"
        if defined $grep != defined $out;
    $grep = $grep->[$repeat] if ref $grep eq 'ARRAY';
    $out  = $out->[$repeat]  if ref $out eq 'ARRAY';
    $out  = Test::Nginx::Util::expand_env_in_text($out, $name);
    my @must = patterns($block->get('error_log'));

    my $lines = settled($Test::Nginx::Util::ErrLogFile,
        $Test::Nginx::Util::CheckAccumErrLog ? 0 : $pos, sub ($lines) {
        return 0 if any { !any_line($lines, $_) } @must;
        return 1 if !defined $grep;
        my $got = grepped($lines, $grep);
        return ref $out ? $got =~ $out : $got eq ($out // '');
    });
    $pos += length for $Test::Nginx::Util::CheckAccumErrLog ? () : @$lines;

    CC::Block::Checks::is_str(grepped($lines, $grep), $out,
        "$name - grep_error_log_out (req $repeat)") if defined $grep;
    expect($lines, "$name -", 'error.log', " (req $repeat)", @must);
    forbid($lines, "$name -", 'error.log', " (req $repeat)",
        patterns($block->get('no_error_log')));
    complain($block, $lines);
    return;
}

# Serious lines the block says nothing about are shown; an abort fails it.
sub complain ($block, $lines) {
    my @show = grep { !mentions($block, "[$_") } qw(alert crit emerg);
    @show = grep { $_ ne 'emerg' } @show
        if $block->has('must_die') || $block->has('reload_fails');
    for my $line (@$lines) {
        Test::More::diag('WARNING: ' . $block->name . ' - ' . $line)
            if any { index($line, "[$_]") >= 0 } @show;
        Test::More::fail($block->name . " - $line")
            if $line =~ /\bAssertion .*?failed\b|\bpanicked at\b|Sanitizer:/;
    }
    return;
}

sub shutdown_log ($block, $skip) {
    my $name = $block->name;
    my @must = patterns($block->get('shutdown_error_log'));
    my @not  = patterns($block->get('no_shutdown_error_log'));
    return if !@must && !@not;
    if ($skip) {
        Test::More->builder->skip("$name - shutdown_error_log - $skip") for @must, @not;
        return;
    }
    my $lines = lines_from($Test::Nginx::Util::ErrLogFile,
        $Test::Nginx::Util::CheckAccumErrLog ? 0 : $pos);
    expect($lines, "$name -", 'error.log', '', @must);
    forbid($lines, "$name -", 'error.log', '', @not);
    return;
}

sub access_log ($block, $repeat) {
    my @must = patterns($block->get('access_log'));
    my @not  = patterns($block->get('no_access_log'));
    return if !@must && !@not;
    my $lines = settled($Test::Nginx::Util::AccLogFile, 0, sub ($lines) {
        return !any { !any_line($lines, $_) } @must;
    });
    my $name = $block->name;
    expect($lines, "$name -", 'access.log', " (req $repeat)", @must);
    forbid($lines, "$name -", 'access.log', " (req $repeat)", @not);
    return;
}

# One assertion for each pattern.
sub expect ($lines, $name, $file, $which, @patterns) {
    Test::More::ok(any_line($lines, $_),
        qq{$name pattern "$_" matches a line in $file$which}) for @patterns;
    return;
}

sub forbid ($lines, $name, $file, $which, @patterns) {
    for my $pattern (@patterns) {
        my ($at) = grep { matches($lines->[$_], $pattern) } 0 .. $#$lines;
        Test::More::ok(!defined $at,
            qq{$name pattern "$pattern" does not match a line in $file$which}) and next;
        my $last = $at + 9 < $#$lines ? $at + 9 : $#$lines;
        Test::More::diag(join '', map { "  $_" } @$lines[ $at .. $last ]);
    }
    return;
}

1;
