package Soak::Ledger;

# Reads what the workers have noted (t/soak/soak_ledger.lua) and finds each message that was accepted
# and not handled. Order, duplicates and content were judged by the receivers, at once.

use v5.36;
use CC::Proc ();

# after pid, generation, id and the count of rows
my @HEAD = qw(handled answered unnamed refused expected acted looked looks sent received stranger lost full late
    unhandled queued queued_bytes calls workers others kept heard starts exits crashes values);

use constant {
    HEAD => 16 + 32 * 8, ROW => 40,
    UNNOTED => 10,      # messages of one kind to one receiver
    TO_PROCESS => 1, TO_SEAT => 2, BY_BROADCAST => 3, EMPTY => 4, TO_ALL => 5, HANDLED => 10,
};

# $folder; killed => { pid => }, live => { pid => }, denied => { pid => }: who got no memory for a while, and
# may have failed to note what it did.
sub read ($class, $folder, %about) {
    my $self = bless { %about, of => {}, seats => {}, wrong => [] }, $class;
    for my $path (glob "$folder/[0-9]*") {
        my $bytes = CC::Proc::slurp($path) // next;
        my ($pid, $generation, $id, $rows, @head) = unpack 'L4 Q' . @HEAD, $bytes;
        # killed before it had written its name
        next if !$pid;
        my $p = $self->{of}{$pid} = { pid => $pid, id => $id, seat => "$generation.$id", generation => $generation };
        @$p{@HEAD} = @head;
        for my $n (0 .. $rows - 1) {
            my ($kind, $a, $b, undef, $count, $first, $last) = unpack 'L4 Q3', substr $bytes, HEAD + $n * ROW, ROW;
            if ($kind > HANDLED) {
                $p->{got}{ $kind - HANDLED }{$a} = { count => $count, first => $first, last => $last, pid => $pid };
            }
            else {
                $p->{gave}{$kind}{ $kind == TO_PROCESS ? $a : "$a.$b" } = $count;
            }
        }
        push @{ $self->{seats}{ $p->{seat} } }, $p;
    }
    return $self;
}

# Of the workers that live, by worker id: what they have seen since it is quiet.
sub live ($self) {
    return sort { $a->{id} <=> $b->{id} } grep { $self->{live}{ $_->{pid} } } values %{ $self->{of} };
}

sub total ($self, $key) {
    my $sum = 0;
    $sum += $_->{$key} for values %{ $self->{of} };
    return $sum;
}

# Replies that killed workers were waiting for.
sub unanswered ($self) {
    my $sum = 0;
    $sum += $_->{expected} for grep { $self->{killed}{ $_->{pid} } } values %{ $self->{of} };
    return $sum;
}

sub fate ($self, $pid) {
    return $self->{live}{$pid} ? 'live' : $self->{killed}{$pid} ? 'killed' : 'left';
}

# Of all messages accepted by somebody: { what became of the receiver => how many it did not
# handle }. Whatever cannot be is in `wrong`.
sub balance ($self) {
    $self->{missing} = { left => 0, killed => 0, sender => 0, denied => 0 };
    $self->{unread} = 0;
    $self->{accepted} = 0;
    for my $from (sort { $a <=> $b } keys %{ $self->{of} }) {
        my $sent = $self->{of}{$from}{gave};
        for my $to (sort keys %{ $sent->{ +TO_PROCESS } }) {
            my $r = $self->{of}{$to};
            $self->compare($from, "process $to", TO_PROCESS, $sent->{ +TO_PROCESS }{$to}, $r ? [$r] : [], 0);
        }
        for my $kind (TO_SEAT, BY_BROADCAST, EMPTY, TO_ALL) {
            for my $seat (sort keys %{ $sent->{$kind} }) {
                $self->compare($from, "worker $seat", $kind, $sent->{$kind}{$seat}, $self->{seats}{$seat} // [], 1);
            }
        }
    }
    return $self->{missing};
}

# The messages of one kind that $from had accepted for one process, or for the holders of one seat.
sub compare ($self, $from, $whom, $kind, $accepted, $holders, $inherits) {
    my $live     = grep { $self->fate($_->{pid}) eq 'live' } @$holders;
    my $killed   = grep { $self->fate($_->{pid}) eq 'killed' } @$holders;
    my $denied   = grep { $self->{denied}{ $_->{pid} } } @$holders;
    my @got      = grep { defined } map { $_->{got}{$kind}{$from} } @$holders;
    my $handled  = 0;
    $handled    += $_->{count} for @got;
    my $fate     = $self->fate($from);
    my $where    = "from $from ($fate) to $whom, kind $kind: $accepted accepted, $handled handled";

    # a sender killed between the acceptance and its note has one more accepted than it says; one
    # without memory may also have noted what it could not send then
    my $unnoted = $self->{denied}{$from} ? UNNOTED : $fate eq 'killed' ? 1 : 0;
    push @{ $self->{wrong} }, "$where: too many" if $handled > $accepted + $unnoted;

    my $behind = 0;
    if ($kind < EMPTY && !$denied && !$self->{denied}{$from}) {
        @got = sort { $a->{first} <=> $b->{first} } @got;
        for my $got (@got) {
            push @{ $self->{wrong} }, "$where: $got->{first} twice" if $got->{first} <= $behind;
            # what a killed predecessor had in hand is gone with it, nothing else
            push @{ $self->{wrong} }, "$where: from $behind to $got->{first}"
                if $got->{first} != $behind + 1 && !$killed;
            $behind = $got->{last};
        }
    }
    my $missing = $accepted > $handled ? $accepted - $handled : 0;
    # what was sent to one who was killed when nobody was to follow it: whoever counts it may be killed
    # meanwhile, so it may be missing in the counters, too
    $self->{unread} += $missing if $killed && !$live;
    return if $kind == TO_ALL;
    # who left an old generation is not sent broadcasts, which their sender cannot know
    return if $kind == BY_BROADCAST && !$live;
    $self->{accepted} += $accepted;
    return if !$missing;

    if ($denied || $self->{denied}{$from} && $missing <= UNNOTED) {
        $self->{missing}{denied} += $missing;
        return;
    }
    if ($live && $fate eq 'live') {
        my $inherited = $inherits && $killed;
        push @{ $self->{wrong} }, "$where: missing" if !$inherited;
        push @{ $self->{wrong} }, "$where: the last ones are missing"
            if $inherited && $kind < EMPTY && @got && !$self->{denied}{$from} && $behind != $accepted
            && $self->{live}{ $got[-1]{pid} };
    }
    $self->{missing}{ $killed ? 'killed' : $live ? 'sender' : 'left' } += $missing;
    return;
}

1;
