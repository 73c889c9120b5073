package Soak::Deed;

# The steps of a plan: what each does to a node, with its own random numbers.

use v5.36;
use CC::Wait qw(nap now until_true);
use Soak::Account;
use Soak::Load;
use Soak::Node;


# What was done, in words; what is wrong after it goes into @$wrong.
sub act ($w, $step, $wrong) {
    srand $step->{seed};
    my $node = ($w->nodes)[ $step->{node} ];
    my $do = __PACKAGE__->can("do_$step->{do}");
    return requests($w) if $step->{do} eq 'requests';
    return 'dead' if !$node->is_up;
    return $node->name . ' ' . ($do->($w, $node, $wrong) // '-');
}

sub requests ($w) {
    my @kinds = $w->{only} ? "work" : grep { !/^(?:long|flood|move)$/ } Soak::Load::kinds();
    my $count = 1 + int 12 * rand;
    for (1 .. $count) {
        my $node = ($w->nodes)[ rand $w->nodes ];
        # by the port that all share, or by one worker's
        my $port = rand() < 0.5 ? $node->port : $node->port(Soak::Conf::WORKER + int rand $node->{workers});
        $w->load->ask($node, $kinds[ rand @kinds ], $port);
    }
    return $count;
}

sub do_kill ($w, $node, $) { $node->kill(rand) }
sub do_stop ($w, $node, $) { $node->stop(rand, 0.05 + 2 * rand() ** 2) }

# The number of workers, or another one.
sub some_workers ($node) {
    my $most = 2 * $node->{workers} > Soak::Node::WORKERS_MAX ? Soak::Node::WORKERS_MAX : 2 * $node->{workers};
    return rand() < 0.5 ? $node->{workers} : 1 + int rand $most;
}

sub do_reload ($w, $node, $) {
    my $n = some_workers($node);
    return $node->reload($n) ? "$n workers" : undef;
}

# Who dies while the master is about to tell it to leave.
sub do_ambush ($w, $node, $) {
    $node->reload(some_workers($node));
    nap(0.05 * rand);
    return $node->kill(rand);
}

sub do_storm ($w, $node, $) {
    my ($count, $pause) = (2 + int 3 * rand, 0.15 * rand);
    for (1 .. $count) {
        $node->reload(some_workers($node));
        my $until = now() + $pause;
        $w->idle while now() < $until;
    }
    return "$count reloads";
}

sub do_flood ($w, $node, $) {
    $node->stop(rand, 0.3 + rand) if rand() < 0.3;
    return $w->load->ask($node, 'flood');
}

sub do_long ($w, $node, $) { $w->load->ask($node, 'long') }

# -- nodes --------------------------------------------------------------------------

# USR2 under load. One of the two masters stays; before the other one goes, its life gives account.
sub do_upgrade ($w, $node, $wrong) {
    $node->tend(1);
    return if !$node->may_spawn;
    $w->load->upgrade(1);
    my $old = $node->upgrade_begins;
    my $busy = sub ($seconds) {
        my $until = now() + $seconds;
        while (now() < $until) {
            requests($w) if rand() < 0.1;
            $w->idle;
        }
    };
    $busy->(0.2 + rand);
    my $did = '';
    $did .= ', one killed' if rand() < 0.4 && $node->kill(rand);
    if (rand() < 0.5) {
        $node->old_workers_return($old);
        $did .= ', old workers left and came';
        $busy->(0.2);
    }
    my $goes = rand() < 0.7 ? $old : $node->life;
    $w->calm;
    for my $life ($node->lives) {
        push @$wrong, map { "upgrade$did: $_" } Soak::Account->give($node, $life, $w->{quiet}, $w->{only})->wrong;
    }
    $node->upgrade_ends($goes);
    $w->load->upgrade(0);
    $w->noisy;
    return ($goes == $old ? 'upgraded' : 'rolled back') . $did;
}

# kill -9 of a whole node; it is started again a while later.
sub do_die ($w, $node, $wrong) {
    my ($orphans, $dead) = (rand() < 0.4 ? rand : 0, 0.2 + 3 * rand);
    push @$wrong, map { Soak::Account->bury($node, $_) } $node->die($orphans, $dead);
    return sprintf 'killed, for %.1f s', $dead;
}

# To any other node's super; whoever it is may refuse.
sub do_move ($w, $node, $) {
    my @nodes = $w->nodes;
    $node = $nodes[ 1 + rand $#nodes ] if $#nodes;
    my @to = grep { $_ != $node } @nodes or return;
    my $to = $to[ rand @to ];
    $w->load->move($node, $to->address);
    return $node->name . ' to ' . $to->name;
}

# -- what is denied -----------------------------------------------------------------

sub do_files ($w, $node, $)    { $node->squeeze(files => rand, int rand 6, 0.2 + 2 * rand) }
sub do_memory ($w, $node, $)   { $node->squeeze(memory => rand, 4096 * int rand 1024, 0.2 + 2 * rand) }
sub do_fewfiles ($w, $node, $) { $node->reload_with_few_files(20 + int rand 20, 0.5 + 2 * rand) }
sub do_disk ($w, $node, $)     { $node->disk(0.5 + 3 * rand) }

1;
