package Soak::Load;

# Requests to the nodes, many under way at a time: whatever is done to the nodes meanwhile, an answer
# of 200 must be the right one, and one of another status must be one that a fault explains.

use v5.36;
use Compress::Raw::Zlib ();
use JSON::PP ();
use CC::HTTP;
use CC::Wait qw(now);
use Soak::Conf;

use constant { REQUESTS_MAX => 40, PATIENCE => 8 };

my $JSON = JSON::PP->new->utf8;
my @DIRECTIONS = qw(workers clients super master tree);
# what nginx and the module answer when somebody does not
my %FAULT = map { $_ => 1 } 207, 500, 502, 503, 504;

# How a request is made, and what is wrong with an answer of 200 to it. Each gets the load, the node,
# and gives: method, uri, body, sub ($body) { nothing, or what is wrong }.
my %KIND = (
    work  => sub ($l, $n) { (GET => '/work') },
    long  => sub ($l, $n) { (GET => sprintf '/long?s=%.2f', 0.2 + rand 4) },
    flood => sub ($l, $n) {
        (GET => sprintf '/flood?id=%d&size=%d', rand 64, (1, 100, 2000, 60_000)[ rand 4 ]);
    },
    hub   => \&hub,
    hubring => sub ($l, $n) { hub($l, $n, 'ring') },
    invoke  => sub ($l, $n) { (GET => '/soak/invoke?who', undef, \&is_identity) },
    ring  => sub ($l, $n) { cast($l, 'ring', 'workers') },
    cast  => sub ($l, $n) { cast($l, 'echo', $DIRECTIONS[ rand @DIRECTIONS ]) },
    tree  => sub ($l, $n) { cast($l, 'ring', 'tree') },
    cc    => sub ($l, $n) {
        my $direction = (qw(workers clients super master))[ rand 4 ];
        my $body = $l->body(20_000);
        (POST => "/cc?direction=$direction&n=" . $l->number, $body, sub ($got, @) {
            $got =~ /^(?:true (\d+) \1|false \d+ \d+)\n$/ ? undef : 'no such answer'
        });
    },
    keyed  => sub ($l, $n) { (GET => '/keyed?k=' . int rand 1000, undef, \&is_identity) },
    below  => sub ($l, $n) { (GET => '/below?k=' . int rand 1000, undef, \&is_identity) },
    listed => sub ($l, $n) { (GET => '/listed', undef, \&is_identity) },
    chosen => sub ($l, $n) {
        (GET => sprintf('/chosen?refused=%d&port=%d', $n->port(Soak::Conf::REFUSED), $n->port), undef, \&is_identity);
    },
    status => sub ($l, $n) {
        my $format = (qw(json prometheus html))[ rand 3 ];
        (GET => "/status?format=$format", undef, sub ($got, @) {
            return ref(eval { $JSON->decode($got) }) eq 'HASH' ? undef : 'no JSON' if $format eq 'json';
            return $got =~ /^nginx_ready [01]$/m ? undef : 'no metrics' if $format eq 'prometheus';
            return $got =~ m{</script>\s*\z} ? undef : 'no page';
        });
    },
    ready  => sub ($l, $n) { (GET => '/ready', undef, sub ($got, @) { $got eq '{"ready":true}' || $got eq "{\"ready\":true}\n" ? undef : 'not so' }) },
    stat   => sub ($l, $n) {
        (GET => '/soak/hub?getServiceStat', undef, sub ($got, @) { ref(eval { $JSON->decode($got) }) eq 'HASH' ? undef : 'no JSON' });
    },
);

sub kinds () { sort keys %KIND }

sub new ($class) {
    return bless { waiting => [], number => 0, wrong => [], count => {}, upgrade => 0 }, $class;
}

# A node begins an upgrade, or has ended it.
sub upgrade ($self, $goes_on) { $self->{upgrade} = $goes_on ? 'inf' : now() }

sub number ($self) { "s" . ++$self->{number} }

# A text that no other request has.
sub body ($self, $most) {
    my $line = sprintf "%d %s\n", ++$self->{number}, rand;
    return substr $line x (1 + rand($most) / length $line), 0, rand $most;
}

sub is_identity ($got, @) { $got =~ /^127\.0\.0\.1:\d+ \d+ \d+$/ ? undef : 'not who answered' }

sub is_echo ($got, $n, $body) {
    my ($said, undef, $size, $crc) = $got =~ /^(\S+) (\d+) (\d+) (\d+)$/ or return 'no echo';
    return $said eq $n && $size == length $body && $crc == Compress::Raw::Zlib::crc32($body) ? undef : 'the echo of something else';
}

sub hub ($l, $node, $action = 'echo') {
    my ($n, $body) = ($l->number, $l->body(rand() < 0.1 ? 200_000 : 2000));
    return (POST => "/soak/hub?$action&n=$n", $body, sub ($got, @) { is_echo($got, $n, $body) });
}

sub cast ($l, $action, $direction) {
    my ($n, $body, $began) = ($l->number, $l->body(2000), now());
    return (POST => "/soak/cast?$action&n=$n&direction=$direction", $body, sub ($got, $status) {
        return is_cast($got, $status, $n, $body, $l->{upgrade} < $began);
    });
}

# Each worker that was asked is told once, as one that has answered, rightly, or as one that is missing.
# A node on its way from one super to another is below both for a moment, and may be missed by both. While
# two binaries of it run, each may take the cast for a new one, so then it is not told $once.
sub is_cast ($got, $status, $n, $body, $once) {
    my $cast = eval { $JSON->decode($got) } // return $status == 200 || $status == 207 ? 'no JSON' : undef;
    return 'no cast' if ref $cast ne 'HASH' || grep { ref $cast->{$_} ne 'ARRAY' } qw(replies missing);
    my ($replies, $missing) = @$cast{qw(replies missing)};
    return "asked $cast->{asked}, told of " . (@$replies + @$missing) if $cast->{asked} != @$replies + @$missing;
    return "answered $cast->{answered}, told of " . @$replies if $cast->{answered} != @$replies;
    my %seen;
    for (@$replies, @$missing) {
        my $who = join ' ', $_->{node} // '?', $_->{worker} // '-';
        return "$who is there twice" if $seen{$who}++ && defined $_->{worker} && $once;
    }
    for my $reply (grep { $_->{status} == 200 } @$replies) {
        my $wrong = is_echo($reply->{body} // '', $n, $body);
        return $wrong if $wrong;
    }
    return 'not all have answered 200' if $status == 200 && grep { $_->{status} !~ /^2/ } @$replies;
    return;
}

# A request whose answer is looked for later: its worker may be stopped, or die.
sub ask ($self, $node, $kind, $port = $node->port) {
    return if @{ $self->{waiting} } >= REQUESTS_MAX;
    my ($method, $uri, $body, $check) = $KIND{$kind}->($self, $node);
    my $c = CC::HTTP->connect($port, timeout => PATIENCE);
    $c->send_request($method => $uri, body => $body);
    push @{ $self->{waiting} }, { c => $c, kind => $kind, check => $check, what => $node->name . " $uri", until => now() + PATIENCE };
    $self->{count}{$kind}{asked}++;
    return 1;
}

# A node is told to move to another super; it may be refused.
sub move ($self, $node, $to) {
    my $c = CC::HTTP->connect($node->port, timeout => PATIENCE);
    $c->send_request(GET => "/move?to=$to");
    push @{ $self->{waiting} }, { c => $c, kind => 'move', what => $node->name . " /move?to=$to", until => now() + PATIENCE };
    $self->{count}{move}{asked}++;
    return;
}

# Casts that wait for workers over the rings.
sub casts ($self) { scalar grep { $_->{kind} =~ /ring|tree/ } @{ $self->{waiting} } }

# Takes in the answers that have come; how many have not.
sub hear ($self) {
    my @waiting;
    for my $w (@{ $self->{waiting} }) {
        my $c = $w->{c};
        if ($c->ok && now() < $w->{until} && !$c->ready(0, 0.00001)) {
            push @waiting, $w;
            next;
        }
        $self->judge($w, $c->read_response(timeout => 2));
        $c->close;
    }
    $self->{waiting} = \@waiting;
    return scalar @waiting;
}

# Of one answer: counted as good, as a fault's, or wrong.
sub judge ($self, $w, $r) {
    my ($status, $count) = ($r->status, $self->{count}{ $w->{kind} });
    if ($r->error) {
        # whatever broke it: its worker was killed, or stopped for too long
        $count->{broken}++;
        return;
    }
    my $wrong = $w->{check} && $status =~ /^20[07]$/ ? $w->{check}->($r->body, $status) : undef;
    $wrong //= "status $status" if $status != 200 && !$FAULT{$status} && !($w->{kind} eq 'move' && $status == 409);
    $count->{ $status == 200 ? 'good' : 'fault' }++;
    $self->{faults}{"$w->{kind} $status"}++ if $status != 200;
    push @{ $self->{wrong} }, "$w->{what}: $wrong: $status " . substr $r->body, 0, 300 if defined $wrong;
    return $wrong;
}

# A request now, in quiet: what is wrong, or nothing.
sub try ($self, $node, $kind, $port = $node->port) {
    my ($method, $uri, $body, $check) = $KIND{$kind}->($self, $node);
    my $c = CC::HTTP->connect($port, timeout => PATIENCE);
    my $r = $c->request($method => $uri, body => $body);
    $c->close;
    my $wrong = $r->error // ($r->status != 200 ? 'status ' . $r->status : undef);
    $wrong //= $check->($r->body, 200) if $check;
    return defined $wrong ? $node->name . " $uri: $wrong: " . substr $r->body, 0, 200 : ();
}

# Kinds of which none was ever answered well, though many were asked.
sub vain ($self) {
    my $count = $self->{count};
    return grep { ($count->{$_}{asked} // 0) >= 20 && !$count->{$_}{good} } sort keys %$count;
}

# What was answered instead, and how often.
sub faults ($self) {
    my $faults = $self->{faults} // {};
    my %by;
    push @{ $by{ (split)[0] } }, (split)[1] . " $faults->{$_} times" for sort keys %$faults;
    return map { "$_: " . join ', ', @{ $by{$_} } } sort keys %by;
}

sub summary ($self) {
    my %sum;
    for my $count (values %{ $self->{count} }) { $sum{$_} += $count->{$_} for keys %$count }
    return sprintf '%d requests: %d good, %d with a fault\'s status, %d broken',
        map { $_ // 0 } @sum{qw(asked good fault broken)};
}

1;
