# A few seconds of the soak (t/soak/run): all of it with rings, then messages alone with sockets. The
# seeds have found something once.
use v5.36;
use Test::More;
use FindBin;

for my $case (
    [ '0.05 --seed 12 --transport ring --calm 3 --first kill --first die --first upgrade --first files', 'all nouns' ],
    [ '0.03 --seed 11 --transport socket --calm 2 --only messages', 'messages, socket' ],
) {
    my ($options, $what) = @$case;
    my @command = ($^X, "$FindBin::Bin/soak/run", split ' ', $options);
    open my $out, '-|', @command or die "@command: $!\n";
    my $told = do { local $/; <$out> };
    ok close $out, $what or diag $told;
}
done_testing;
