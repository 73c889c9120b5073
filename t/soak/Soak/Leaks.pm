package Soak::Leaks;

# Whether anything is held that was not held before: descriptors and memory of master and workers,
# room in the zone. Judged after a rest, and once more over a time in which nothing is done but work.

use v5.36;
use CC::Proc ();
use CC::Wait qw(now until_true);
use Soak::Deed;

use constant {
    MASTER_KB => 3 * 1024,              # growth of a master, beside what each reload may cost it
    RELOAD_KB => 2,
    WORKER_KB => 3 * 1024,              # growth of a worker while it works
};

# How it is at the beginning: after one reload, as it will be after the last.
sub before ($class, $w) {
    my $self = bless { w => $w }, $class;
    $self->rest;
    $self->{resources} = { map { $_->name => $_->resources } $w->nodes };
    $self->{zone} = $self->zone;
    return $self;
}

# Everybody has reloaded and is quiet; nothing is retained.
sub rest ($self) {
    my $w = $self->{w};
    # twice, since each generation also holds lines to the one before
    for (1 .. 2) {
        $_->reload_and_wait($_->{workers}) for $w->nodes;
        $w->calm;
    }
    $w->orders(quiet => ++$w->{quiet}, touch => 2);
    return;
}

sub zone ($self) {
    my %zone;
    for my $node ($self->{w}->nodes) {
        until_true(sub {
            my $status = $node->s->get($node->port, '/status?format=json')->json // return;
            $zone{ $node->name } = { used => $status->{zone}{used}, values => $status->{retained}{values} };
            return !$status->{retained}{values};
        }, 10);
    }
    return \%zone;
}

sub after ($self, $reloads) {
    $self->rest;
    my $w = $self->{w};
    my @wrong;
    my $zone = $self->zone;
    for my $node ($w->nodes) {
        my ($name, $now) = ($node->name);
        my $had = $self->{resources}{$name};
        my $more = sub {
            $now = $node->resources;
            return map { "$name: $_ has $now->{$_}, had $had->{$_}" } grep { $now->{$_} > $had->{$_} } qw(master_fds worker_fds);
        };
        # old lines are closed by and by
        until_true(sub { !$more->() }, 10) or push @wrong, $more->();
        my $most = $had->{master_rss} + MASTER_KB + RELOAD_KB * $reloads->{$name};
        push @wrong, "$name: the master has $now->{master_rss} kB, had $had->{master_rss} kB $reloads->{$name} reloads ago" if $now->{master_rss} > $most;
        push @wrong, "$name: $_ of the zone is $zone->{$name}{$_}, was $self->{zone}{$name}{$_}"
            for grep { $zone->{$name}{$_} != $self->{zone}{$name}{$_} } qw(used values);
        printf "%-7s %s: master %d kB and %d files, was %d and %d; worker %d kB and %d files, was %d and %d; zone %d, was %d\n", 'leaks', $name,
            map({ ($now->{$_->[0]}, $now->{$_->[1]}, $had->{$_->[0]}, $had->{$_->[1]}) } [qw(master_rss master_fds)], [qw(worker_rss worker_fds)]),
            map { $_->{$name}{used} } $zone, $self->{zone};
    }
    return @wrong;
}

# -- at work --------------------------------------------------------------------------

# The same workers, first for some time until they have what they need, then for longer.
sub at_work ($self, $seconds) {
    my $w = $self->{w};
    $self->work($seconds / 2);
    my %first = $self->workers;
    $self->work($seconds);
    my (%second, @wrong);
    # the last connections of requests close after their answers
    until_true(sub {
        %second = $self->workers;
        return !grep { $first{$_} && $second{$_}{fds} > $first{$_}{fds} } keys %second;
    }, 5);
    for my $pid (sort keys %second) {
        my ($was, $is) = ($first{$pid} // next, $second{$pid});
        push @wrong, "$is->{name}: worker $pid holds $is->{fds} files, $was->{fds} before" if $is->{fds} > $was->{fds};
        push @wrong, "$is->{name}: worker $pid has $is->{rss} kB, $was->{rss} kB before" if $is->{rss} > $was->{rss} + WORKER_KB;
    }
    printf "%-7s %s\n", 'work', join '; ', map { sprintf '%s: %+d kB, %+d files', $second{$_}{name}, $second{$_}{rss} - $first{$_}{rss},
        $second{$_}{fds} - $first{$_}{fds} } grep { $first{$_} } sort keys %second;
    push @wrong, 'workers died though nobody killed them' if keys(%first) != grep { $first{$_} } keys %second;
    return @wrong;
}

sub work ($self, $seconds) {
    my $w = $self->{w};
    $w->noisy(modest => 1);
    my $until = now() + $seconds;
    while (now() < $until) {
        Soak::Deed::requests($w) if rand() < 0.3;
        $w->idle;
    }
    $w->calm;
    return;
}

sub workers ($self) {
    my %of;
    for my $node ($self->{w}->nodes) {
        for my $pid ($node->processes) {
            my ($rss) = (CC::Proc::slurp("/proc/$pid/status") // '') =~ /^RssAnon:\s+(\d+)/m;
            $of{$pid} = { name => $node->name, fds => Soak::Node::kept_open($pid), rss => $rss // 0 };
        }
    }
    return %of;
}

1;
