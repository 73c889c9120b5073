package Soak::Account;

# The account of one life of a node while it is quiet: each message that was accepted was handled, or
# is counted as dropped; tables and counters say what is the case.

use v5.36;
use CC::Wait qw(now until_true);
use Soak::Ledger;

# $quiet: the number of the order to be quiet, which workers repeat when they have looked.
sub give ($class, $node, $life, $quiet, $pure) {
    my $self = bless { node => $node, life => $life, quiet => $quiet, pure => $pure, wrong => [] }, $class;
    my $began = now();
    # what is under way takes its time; the account itself is what is waited for
    until_true(sub { !$self->look }, 15);
    # what killed workers held is counted by those who look after them, once a second
    until_true(sub { !$self->look && abs $self->{gap} <= $self->kills }, 2.5);
    push @{ $self->{wrong} }, @{ $self->{ledger}{wrong} }, @{ $self->{open} };
    $self->{took} = now() - $began;
    return $self;
}

# Deaths that are our doing.
sub deaths ($life) { return { %{ $life->{kills} }, %{ $life->{odd} } } }
sub kills ($self) { scalar keys %{ deaths($self->{life}) } }

sub wrong ($self) {
    my $name = $self->{node}->name;
    return map { "$name: $_" } @{ $self->{wrong} };
}

# How much is not as it must be, yet.
sub look ($self) {
    # one that was denied something may end later
    $self->{node}->note_deaths;
    my %live = map { $_ => 1 } $self->{node}->processes($self->{life});
    my $ledger = $self->{ledger} = Soak::Ledger->read($self->{life}{folder}, killed => deaths($self->{life}), live => \%live,
        denied => $self->{node}{denied}{memory} // {});
    $ledger->balance;
    $self->{open} = [];
    my @rows = $ledger->live;
    my @late = grep { $_->{looked} != $self->{quiet} } @rows;
    if (@late || @rows != keys %live) {
        push @{ $self->{open} }, @late ? 'not quiet: ' . join(' ', map { $_->{pid} } @late) : 'workers without a ledger';
        $self->{gap} = 0;
        return 1;
    }
    $self->settle(@rows);
    return @{ $self->{open} } + @{ $ledger->{wrong} };
}

# What the counters say: the gap between what was accepted and what is accounted for, and everything
# that is not as it must be.
sub settle ($self, @rows) {
    my ($ledger, $kills, $open) = ($self->{ledger}, $self->kills, $self->{open});
    my $worker = $self->{worker} = $rows[0];
    my $gap = $self->{gap} = $worker->{sent} - $worker->{received} - $worker->{stranger} - $worker->{lost};
    # A worker killed in the middle of one operation has done half of it: one message each. What a
    # killed worker without a successor had not read, replies included, is counted by the workers of
    # the next configuration, unless one of them is killed in the middle of that.
    my $most = $kills + $ledger->{unread} + $ledger->unanswered + ($self->{life}{native} // 0);
    push @$open, "the counters do not add up: $gap, not within -$kills .. $most" if $gap < -$kills || $gap > $most;
    for my $row (@rows) {
        push @$open, "worker $row->{id}: $_ is $row->{$_}" for grep { $row->{$_} } qw(queued queued_bytes calls others);
        push @$open, "worker $row->{id} sees $row->{workers} workers" if $row->{workers} != @rows;
        push @$open, "worker $row->{id}: what is kept and what it was told differ" if $row->{kept} != $row->{heard};
        push @$open, "worker $row->{id} keeps other values than worker $rows[0]{id}" if $row->{kept} != $rows[0]{kept};
        my $started = $row->{exits} + $row->{crashes} + @rows;
        push @$open, "$row->{starts} workers started, of which $row->{exits} left, $row->{crashes} crashed" if $row->{starts} != $started;
    }
    # who is killed before it has come to itself, and before the next one looks, is not seen by anybody
    my $certain = keys %{ $self->{life}{kills} };
    my $unborn = grep { !$ledger->{of}{$_} } keys %{ $self->{life}{kills} };
    $unborn += $self->{life}{leaving} // 0;
    push @$open, "$worker->{crashes} crashes, of $certain killed" . join ', ', '', map({ "$_ $self->{life}{odd}{$_}" } sort keys %{ $self->{life}{odd} }) if $worker->{crashes} > $kills || $worker->{crashes} < $certain - $unborn;
    # what handlers saw is what the counter says; actions and notices are received, too
    my $seen = $ledger->total('handled') + $ledger->total('answered') + $worker->{unhandled} + $worker->{late};
    push @$open, "received $worker->{received}, of which handlers saw $seen"
        if !$kills && ($self->{pure} ? $seen != $worker->{received} : $seen > $worker->{received});
    my $unnamed = $ledger->total('unnamed');
    push @$open, "$worker->{unhandled} unhandled, of $unnamed without a handler" if $worker->{unhandled} > $unnamed + $kills;
    # The two accounts agree: what the ledgers miss is counted as dropped, but for the message that a
    # killed worker was about to hand to its handler.
    my $missing = 0;
    $missing += $_ for @{ $ledger->{missing} }{qw(killed left sender)};
    push @$open, "$missing are missing, $worker->{lost} lost, $worker->{stranger} for strangers, $gap"
        if $missing > $worker->{lost} + $worker->{stranger} + $gap + $kills;
    return;
}

# Of a life that ended with kill -9 of everything: nobody has anything twice, or what nobody sent.
sub bury ($class, $node, $life) {
    my $ledger = Soak::Ledger->read($life->{folder}, killed => deaths($life), live => {}, denied => $node->{denied}{memory} // {});
    $ledger->balance;
    return map { $node->name . ", killed: $_" } @{ $ledger->{wrong} };
}

sub line ($self) {
    my ($w, $ledger) = ($self->{worker} // {}, $self->{ledger});
    my $missing = $ledger->{missing};
    return sprintf '%s: %d generations, %d killed; sent %d = received %d + stranger %d + lost %d%+d; full %d, late %d; '
        . 'ledger: %d, without %d to killed, %d to left, %d by dead senders, %d unread, %d unanswered; %d values, %d actions; %.1f s',
        $self->{node}->name, $w->{generation} // 0, $self->kills, (map { $_ // 0 } @$w{qw(sent received stranger lost)}), $self->{gap} // 0,
        (map { $_ // 0 } @$w{qw(full late)}), $ledger->{accepted}, @$missing{qw(killed left sender)}, $ledger->{unread}, $ledger->unanswered,
        $w->{values} // 0, $ledger->total('acted'), $self->{took};
}

1;
