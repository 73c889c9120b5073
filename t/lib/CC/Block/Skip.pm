package CC::Block::Skip;

# Whether a block is left out: skip_nginx, skip_nginx2, skip_openssl,
# skip_eval, todo, todo_nginx.

use v5.36;
use Test::Nginx::Util ();

my $COMPARE = qr/([<>]=?|==)\s*(\d+)\.(\d+)\.(\d+)([a-z])?/;
my $REASON  = qr/(?:\s*:\s*(.*))?/s;

# (kind, number of tests, reason), kind being "skip" or "todo"; or nothing.
sub verdict ($block) {
    my $name = $block->name;
    my @skip;

    if (defined(my $spec = $block->get('skip_eval'))) {
        my ($n, $code) = $spec =~ /^\s*(\d+)\s*:\s*(.*)/s
            or die "$name - bad --- skip_eval: $spec\n";
        # in the package whose variables such code looks at
        my $yes = eval "package Test::Nginx::Util; no strict; $code";
        die "$name - skip_eval - $@" if $@;
        @skip = ('skip', $n, 'skip_eval') if $yes;
    }
    if (defined(my $spec = $block->get('skip_nginx'))) {
        my ($n, $op, @v) = $spec =~ /^\s*(\d+)\s*:\s*$COMPARE$REASON\s*$/
            or die "$name - bad --- skip_nginx: $spec\n";
        @skip = ('skip', $n, $v[4] // "nginx version $op $v[0].$v[1].$v[2]")
            if compare($Test::Nginx::Util::NginxVersion, $op, @v);
    }
    if (defined(my $spec = $block->get('skip_nginx2'))) {
        my ($n, $op1, @v) =
            $spec =~ /^\s*(\d+)\s*:\s*$COMPARE\s*(or|and)\s*$COMPARE$REASON\s*$/
            or die "$name - bad --- skip_nginx2: $spec\n";
        my ($both, $op2, @w) = @v[ 4 .. $#v ];
        my $one = compare($Test::Nginx::Util::NginxVersion, $op1, @v);
        my $two = compare($Test::Nginx::Util::NginxVersion, $op2, @w);
        @skip = ('skip', $n, $w[4] // "nginx version")
            if $both eq 'or' ? $one || $two : $one && $two;
    }
    if (defined(my $spec = $block->get('skip_openssl'))) {
        my ($n, $op, @v) = $spec =~ /^\s*(\d+)\s*:\s*$COMPARE$REASON\s*$/
            or die "$name - bad --- skip_openssl: $spec\n";
        @skip = ('skip', $n, $v[4] // "OpenSSL version $op $v[0].$v[1].$v[2]")
            if !defined $Test::Nginx::Util::OpenSSLVersion
            || compare($Test::Nginx::Util::OpenSSLVersion, $op, @v);
    }
    return @skip if @skip;

    if (defined(my $spec = $block->get('todo'))) {
        my ($n, $why) = $spec =~ /^\s*(\d+)\s*:\s*(.*)/s
            or die "$name - bad --- todo: $spec\n";
        return ('todo', $n, $why);
    }
    if (defined(my $spec = $block->get('todo_nginx'))) {
        my ($op, @v) = $spec =~ /^\s*$COMPARE$REASON\s*$/
            or die "$name - bad --- todo_nginx: $spec\n";
        return ('todo', 1, $v[4] // 'various reasons')
            if compare($Test::Nginx::Util::NginxVersion, $op, @v);
    }
    return;
}

sub compare ($have, $op, $major, $minor, $patch, $letter = undef, @) {
    my $want = Test::Nginx::Util::canon($major, $minor, $patch)
        . (defined $letter ? sprintf '%03d', ord($letter) - ord 'a' : '');
    return $op eq '<' ? $have < $want : $op eq '<=' ? $have <= $want
         : $op eq '>' ? $have > $want : $op eq '>=' ? $have >= $want : $have == $want;
}

1;
