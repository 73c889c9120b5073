package Soak::World;

# The nodes of a soak, a tree with one secret: what is asked of all of them, how they come to rest,
# and whether everything works when they have.

use v5.36;
use Carp qw(croak);
use CC::HTTP;
use CC::Proc ();
use CC::Wait qw(nap now until_true);
use JSON::PP ();
use Soak::Account;
use Soak::Conf;
use Soak::Load;
use Soak::Node;

# Who is below whom, and where else it may turn to.
my @TREE = ([ 'root' ], [ 'mid', 0 ], [ 'leaf', 1, 0 ]);

# transport, workers, seed, nodes, rate, only.
sub new ($class, %opt) {
    my $self = bless { %opt, load => Soak::Load->new, nodes => [], quiet => 0 }, $class;
    for my $n (0 .. $opt{nodes} - 1) {
        my ($name, @super) = @{ $TREE[$n] };
        my $node = Soak::Node->new(name => $name, transport => $opt{transport}, seed => $opt{seed} + 7 * $n,
            workers => $n ? 2 : $opt{workers}, super => [ map { $self->{nodes}[$_]->address } @super ]);
        push @{ $self->{nodes} }, $node;
        $node->{secret} = $self->{nodes}[0]->s->path('secret');
        $node->{idle} = sub { $self->idle };
        $node->{casts} = sub { $self->{load}->casts };
    }
    my $root = $self->{nodes}[0];
    $root->s->write('secret', join('', map { sprintf '%08x', rand 2**32 } 1 .. 8) . "\n");
    chmod 0600, $root->{secret};
    $self->orders(quiet => ++$self->{quiet});
    $_->start for @{ $self->{nodes} };
    return $self;
}

sub nodes ($self) { @{ $self->{nodes} } }
sub load ($self) { $self->{load} }

# A moment between two acts.
sub idle ($self) {
    $self->{load}->hear;
    $_->tend for $self->nodes;
    nap();
    return;
}

sub orders ($self, %say) {
    $_->control(mixed => $self->{only} ? 0 : 1, rate => $self->{rate}, %say) for $self->nodes;
    return;
}

sub noisy ($self, %say) {
    $self->orders(quiet => 0, touch => 0, modest => 0, %say);
    return;
}

# Nobody sends any more, nobody is stopped, dead or leaving, every request has its answer.
sub calm ($self) {
    $_->tend(1) for $self->nodes;
    $self->{load}->hear;
    $_->calm for $self->nodes;
    $_->control(quiet => $self->{quiet} + 1, touch => %{ $_->{denied}{memory} // {} } ? 1 : 0) for $self->nodes;
    $self->{quiet}++;
    until_true(sub { !$self->{load}->hear }, 30) or croak 'requests are not answered';
    $_->calm, $_->note_deaths for $self->nodes;
    return;
}

# The accounts of all lives, in quiet: what is wrong.
sub account ($self, $when) {
    my @wrong;
    for my $node ($self->nodes) {
        for my $life ($node->lives) {
            my $account = Soak::Account->give($node, $life, $self->{quiet}, $self->{only});
            printf "%-7s %s\n", $when, $account->line;
            push @wrong, map { "$when: $_" } $account->wrong;
        }
    }
    push @wrong, map { "$when: $_" } splice @{ $self->{load}{wrong} };
    return @wrong;
}

# -- whether everything works, in quiet ----------------------------------------------

# What does not, when it has had the time that nodes need to find each other again.
sub probe ($self) {
    my @wrong;
    my $began = now();
    my $fine = sub ($seconds, $look) { until_true(sub { !(@wrong = $look->()) }, $seconds) };
    $fine->(40, sub { $self->wrong_tree }) or return @wrong;
    $self->{found} = now() - $began;
    for my $node ($self->nodes) {
        # peers that failed are passed over for a second
        $fine->(5, sub { $self->wrong_node($node) }) or return @wrong;
    }
    return;
}

# All workers of all nodes answer a cast of the root, once each.
sub wrong_tree ($self) {
    my $root = $self->{nodes}[0];
    my $r = $root->s->get($root->port, '/soak/cast?who&direction=tree');
    my $cast = $r->json;
    return 'cast to the tree: ' . ($r->error // $r->status) if $r->status != 200 || ref $cast ne 'HASH';
    my @got = sort map { $_->{body} =~ s/ \d+$//r } @{ $cast->{replies} };
    my @want = sort map { my $node = $_; map { $node->address . " $_" } 0 .. $node->want - 1 } $self->nodes;
    return "@got" eq "@want" ? () : "cast to the tree: @got, not @want";
}

sub wrong_node ($self, $node) {
    my ($load, @wrong) = ($self->{load});
    for my $kind (qw(hub hubring invoke ring cast tree cc keyed listed chosen status ready stat)) {
        push @wrong, $load->try($node, $kind);
    }
    for my $id (0 .. $node->want - 1) {
        my $got = $node->s->get($node->port(Soak::Conf::WORKER + $id), '/id')->body;
        push @wrong, "port of worker $id: $got" if $got !~ /^\Q${\$node->address}\E $id \d+$/;
        my $port = $node->port(Soak::Conf::STREAM + $id);
        my $c = CC::HTTP->connect($port);
        my $said = $c->ok ? $c->read_all : $c->error;
        $c->close;
        push @wrong, "stream port of worker $id: $said" if $said !~ /^$port \d+$/;
    }
    return map({ $node->name . ": $_" } @wrong), $self->wrong_status($node);
}

# What cc_status tells of it is what there is.
sub wrong_status ($self, $node) {
    my $status = $node->s->get($node->port, '/status?format=json')->json;
    return $node->name . ': no status' if ref $status ne 'HASH';
    my @wrong;
    my $workers = $status->{workers};
    push @wrong, 'workers: ' . JSON::PP->new->canonical->encode($workers)
        if @$workers != $node->want || grep { $_->{state} ne 'live' || !$_->{ready} } @$workers;
    push @wrong, "$status->{ipc}{queued} messages are held" if $status->{ipc}{queued};
    my $zone = $status->{zone};
    push @wrong, "the zone has $zone->{used} of $zone->{size}" if $zone->{used} > $zone->{size};
    my %here = map { $_->address => 1 } $self->nodes;
    push @wrong, map { "a client $_->{address}, $_->{state}" } grep { !$here{ $_->{address} } || $_->{state} ne 'alive' } @{ $status->{nodes}{clients} };
    push @wrong, 'a root has a super' if !@{ $node->{super} } && grep { $_->{state} eq 'joined' } @{ $status->{nodes}{super} };
    return map { $node->name . ": status: $_" } @wrong;
}

1;
