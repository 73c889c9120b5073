package Soak::Plan;

# What is done when, and to whom: the same for the same seed and options. Each step carries a seed of
# its own, so that what it chooses does not depend on what came before.

use v5.36;

# How often each thing is done, beside the others.
our %WEIGHT = (
    # to workers
    kill => 16, stop => 12, reload => 9, ambush => 7, storm => 4,
    # to nodes
    upgrade => 2, die => 2, move => 4,
    # what is denied
    files => 5, fewfiles => 2, memory => 3, disk => 3,
    # load
    long => 12, flood => 12, requests => 60,
);
# These need more than messages between workers.
our @NOT_MESSAGES = qw(move die upgrade files fewfiles memory disk);

use constant MEAN => 0.15;      # seconds between two steps

# seconds, seed, calm (seconds between accounts), nodes (how many), without => [names],
# first => [names]: done once each before chance decides.
sub make (%o) {
    srand $o{seed};
    my %weight = %WEIGHT;
    delete @weight{ @{ $o{without} // [] } };
    my @names = map { ($_) x $weight{$_} } sort keys %weight;
    my @first = grep { $weight{$_} } @{ $o{first} // [] };
    my ($at, $calm, @plan) = (0, $o{calm});
    while (1) {
        $at += -log(1 - rand) * MEAN;
        if ($at > $calm) {
            push @plan, { at => $calm, do => 'account' };
            $calm += $o{calm};
        }
        last if $at > $o{seconds};
        # the root has most of it
        my $node = rand() < 0.5 ? 0 : int rand $o{nodes};
        push @plan, { at => $at, node => $node, do => $names[ rand @names ], seed => int rand 2**31 };
    }
    # spread over the time
    for my $n (0 .. $#first) {
        my @free = grep { $plan[$_]{do} ne 'account' } 0 .. $#plan;
        my $step = $plan[ $free[ @free * ($n + 1) / (@first + 1) ] // next ];
        $step->{do} = $first[$n];
    }
    return @plan;
}

1;
