# A few seconds of the soak (t/soak/run), on both transports. The seeds have found something once.
use v5.36;
use Test::More;
use FindBin;

# transport, seed, minutes
for my $case ([ 'ring', 12, 0.05 ], [ 'socket', 11, 0.05 ]) {
    my ($transport, $seed, $minutes) = @$case;
    my @command = ($^X, "$FindBin::Bin/soak/run", '--transport', $transport, '--seed', $seed, '--minutes', $minutes,
        '--calm', 3);
    open my $out, '-|', @command or die "@command: $!\n";
    my $told = do { local $/; <$out> };
    ok close $out, "$transport, seed $seed" or diag $told;
}
done_testing;
