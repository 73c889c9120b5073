package CC::Bench::Floor;

# The floor: a program without nginx and Lua (floor/), one peer for each
# transport that it knows.

use v5.36;
use Cwd qw(abs_path);
use File::Basename qw(dirname);

my $ROOT = abs_path(dirname(__FILE__) . '/../../../../..');

# A folder of its own: without the nginx feature the module builds to the
# same file name as with it.
sub program () { ($ENV{CARGO_TARGET_DIR} // "$ROOT/target") . '/floor' }

# Builds it and asks it for its transports: ([ peers ], reason).
sub peers () {
    my $dir = program();
    my $out = qx(cd '$ROOT' && cargo build --quiet --release --no-default-features --example floor --target-dir '$dir' 2>&1);
    return ([], 'it does not build: ' . ($out =~ /^(error.*)$/m ? $1 : $out)) if $?;
    my $path  = "$dir/release/examples/floor";
    my @peers = map { chomp; my ($key, $name) = split /\t/;
        +{ name => $name, kind => 'floor', key => $key, path => $path } } qx('$path' list);
    return (\@peers, undef);
}

sub run ($peer, $work, $size, $seconds) {
    my $out = qx('$peer->{path}' '$peer->{key}' '$work' '$size' '$seconds' 2>&1);
    return { error => $out =~ s/\n.*//sr } if $?;
    return { $out =~ /^(\w+) (.*)$/mg };
}

1;
