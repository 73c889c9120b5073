package CC::Bench::Rounds;

# Runs a work: every case by every peer in turn, round after round, so that
# whatever the machine does besides hits all of them alike.

use v5.36;
use CC::Bench::Balance;
use CC::Bench::Cluster;
use CC::Bench::Floor;
use CC::Bench::Hurt;
use CC::Bench::Load;
use CC::Bench::Nginx;
use CC::Bench::Status;

my %RUN = (
    request => sub ($nginx, $case, $args) { $nginx->run($args) },
    load    => \&CC::Bench::Load::run,
    proxied => \&CC::Bench::Balance::run,
    cluster => \&CC::Bench::Cluster::run,
    flooded => \&CC::Bench::Load::flooded,
    status  => \&CC::Bench::Status::run,
    stopped => \&CC::Bench::Hurt::stopped,
    reload  => \&CC::Bench::Hurt::reload,
);

# { case name => { peer name => [ answers ] } }. $tell is called with what
# is being done.
sub run ($work, $peers, $opt, $tell) {
    my (%result, %group);
    # cases of one number of workers share their nginxes
    for my $case (@{ $work->{cases} }) {
        push @{ $group{ $case->{workers} // $work->{workers} } }, $case;
    }
    for my $workers (sort { $a <=> $b } keys %group) {
        run_group($work, $workers, $group{$workers}, $peers, $opt, $tell, \%result);
    }
    return \%result;
}

sub takes_part ($peer, $case) {
    my %kind = map { $_ => 1 } @{ $case->{kinds} };
    return $case->{floor} && $kind{floor} if $peer->{kind} eq 'floor';
    my $busy = ($peer->{options} // '') eq 'interval = 0';
    return $kind{ $busy ? 'list_busy' : $peer->{kind} };
}

sub run_group ($work, $workers, $cases, $peers, $opt, $tell, $result) {
    my %nginx;
    my $rounds = min($opt->{rounds}, $work->{rounds} // $opt->{rounds});
    for my $round (1 .. $rounds) {
        for my $case (@$cases) {
            my @turn = grep { takes_part($_, $case) } @$peers;
            # who follows whom changes
            push @turn, splice @turn, 0, ($round - 1) % @turn if @turn;
            for my $peer (@turn) {
                $tell->("$work->{name}, $case->{name}, round $round of $rounds: $peer->{name}");
                my $answer = $peer->{kind} eq 'floor'
                    ? CC::Bench::Floor::run($peer, $case->{floor}, $case->{args}{size}, $opt->{seconds})
                    : turn($work, $workers, $case, $peer, \%nginx, $opt, $round);
                push @{ $result->{ $case->{name} }{ $peer->{name} } }, $answer
                    if !$answer->{absent};
            }
        }
    }
    $_->stop for grep { defined } values %nginx;
    return;
}

sub turn ($work, $workers, $case, $peer, $nginx, $opt, $round) {
    my $slot = \$nginx->{ $peer->{name} };
    my %args = (seconds => $opt->{seconds}, %{ $case->{args} });
    my $by   = $work->{by} // 'request';
    my $answer = eval {
        if ($$slot) {
            $$slot->wake;
        }
        else {
            $$slot = CC::Bench::Nginx->start($peer, $work->{lua} // $work->{name}, $workers);
        }
        # traces are compiled and buffers have grown before anything counts
        if ($by eq 'request' && $round == 1) {
            $$slot->run({ %args, seconds => 0.1, %{ $case->{warm} // {} } });
        }
        $RUN{$by}->($$slot, $case, \%args);
    } // { error => "$@" =~ s/\n.*//sr };
    if ($answer->{error} || $by eq 'reload' || $by eq 'stopped') {
        # nothing of it may reach the next case
        $$slot->stop if $$slot;
        $$slot = undef;
    }
    else {
        $$slot->hold;
    }
    return $answer;
}

sub min ($one, $other) { $one < $other ? $one : $other }

1;
