package Soak::Node;

# One nginx of a soak and what is done to it: kills, stops, reloads, upgrades, its death and return,
# what it is denied (files, memory, room for logs). Nothing here judges, but for waits that never end.

use v5.36;
use Carp qw(croak);
use List::Util qw(max);
use CC::Proc qw(alive children title);
use CC::Server;
use CC::Sockopt ();
use CC::Wait qw(now until_true);
use Soak::Conf;
use CC::Limit;

use constant WORKERS_MAX => 12;     # of one generation: as many ports are taken
use constant RETIRING_MAX => 12;    # more make no reload harder, only the machine slower

# name, workers, transport, seed; super => [addresses], secret => path.
sub new ($class, %opt) {
    # killed: all workers and masters that were killed; denied: what of the log is ours, too
    my $self = bless { %opt, lives => [], ended => 0, stopped => {}, killed => {}, denied => {}, limits => {} }, $class;
    my $s = $self->{s} = CC::Server->new(module => 1, lua => 1, stream => 1, ports => Soak::Conf::PORTS,
        timeout => 60, workers => $opt{workers}, main => '', http => '');
    $s->{file} = $s->path('conf/nginx.conf');
    mkdir $s->path('small') or croak $s->path('small') . ": $!";
    $self->control(quiet => 1);
    return $self;
}

sub s ($self) { $self->{s} }
sub name ($self) { $self->{name} }
sub port ($self, $plus = 0) { $self->{s}->port($plus) }
sub address ($self) { '127.0.0.1:' . $self->port }
sub want ($self) { $self->life->{want} }

# A life is a master with its zone: { folder, master, want, kills => { pid => }, odd => { pid => },
# native }. `odd` are workers that ended since they were denied something.
sub life ($self) { $self->{lives}[-1] }
sub lives ($self) { @{ $self->{lives} } }
sub is_up ($self) { @{ $self->{lives} } > 0 }

sub new_life ($self) {
    push @{ $self->{lives} }, { want => $self->{s}{workers}, kills => {}, odd => {} };
    $self->configure;
    return;
}

# Its master is there: where its workers have their ledgers is told by that.
sub has_begun ($self, $master) {
    @{ $self->life }{qw(master folder)} = ($master, $self->{s}->path("ledgers.$master"));
    return;
}

# The configuration, in one go, for a master may be reading it.
sub configure ($self, %change) {
    my $s = $self->{s};
    $s->configure(Soak::Conf::pieces($self), %change);
    $s->write('conf/next', $s->{written} = $s->conf_text);
    rename $s->path('conf/next'), $s->{file} or croak "$s->{file}: $!";
    return;
}

sub start ($self) {
    $self->{s}{workers} = $self->{workers};
    $self->{files} = $self->{files_until} = undef;
    $self->new_life;
    $self->disk(0);
    $self->{s}->start;
    $self->has_begun($self->{s}->master_pid);
    return;
}

# What the workers obey: a file that they have mapped.
sub control ($self, %say) {
    my $path = $self->{s}->path('control');
    my $c = $self->{control} = { quiet => 0, rate => 4, modest => 0, touch => 0, mixed => 1, %{ $self->{control} // {} }, %say };
    open my $fh, (-e $path ? '+<:raw' : '>:raw'), $path or croak "$path: $!";
    print $fh pack 'L8', @$c{qw(quiet rate modest touch mixed)}, 0, 0, 0;
    close $fh or croak "$path: $!";
    return;
}

# Every worker process of a life, or of all, also those that are leaving or stopped.
sub processes ($self, @lives) {
    return grep { title($_) =~ /^nginx: worker process/ } map { children($_->{master}) } @lives ? @lives : $self->lives;
}

# $which in [0, 1) chooses among those that there are.
sub pick ($which, @of) {
    return $of[ int $which * @of ];
}

sub life_of ($self, $pid) {
    my $parent = (CC::Proc::stat_of($pid) // return)->{ppid};
    return (grep { $_->{master} == $parent } $self->lives)[0];
}

# -- what is done to it -----------------------------------------------------------

sub kill ($self, $which) {
    return if !$self->may_spawn;
    my $pid = pick($which, $self->processes) or return;
    my $life = $self->life_of($pid) or return;
    $self->note_kill($life, $pid);
    delete $self->{stopped}{$pid};
    CORE::kill 'KILL', $pid;
    return $pid;
}

sub note_kill ($self, $life, $pid) {
    $life->{kills}{$pid} = $self->{killed}{$pid} = now();
    # it may have written down that it leaves, and then it has left
    $life->{leaving}++ if title($pid) =~ /shutting down/;
    # what it was waited for, and waited for itself
    $life->{native} += $self->{casts} ? $self->{casts}->() * $life->{want} : 0;
    return;
}

sub stop ($self, $which, $seconds) {
    my $pid = pick($which, grep { !$self->{stopped}{$_} } $self->processes) or return;
    CORE::kill 'STOP', $pid;
    $self->{stopped}{$pid} = now() + $seconds;
    return $pid;
}

# Lets run on whose time is over, or everybody; gives back what is denied; starts what was dead for
# long enough.
sub tend ($self, $all = 0) {
    my $stopped = $self->{stopped};
    for my $pid (grep { $all || $stopped->{$_} <= now() } sort keys %$stopped) {
        delete $stopped->{$pid};
        CORE::kill 'CONT', $pid;
    }
    my $limits = $self->{limits};
    for my $pid (grep { $all || $limits->{$_}{until} <= now() } sort keys %$limits) {
        CC::Limit::give_back($pid, delete $limits->{$pid});
    }
    $self->end_few_files if $self->{files_until} && ($all || $self->{files_until} <= now());
    $self->disk(0) if $self->{full} && ($all || $self->{full} <= now());
    $self->start if defined $self->{dead} && ($all || $self->{dead} <= now()) && (delete $self->{dead}, 1);
    return;
}

sub end_few_files ($self) {
    $self->{files} = $self->{files_until} = undef;
    CC::Limit::lift($_, 'files') for $self->processes;
    $self->hup($self->{s}{workers});
    return;
}

sub hup ($self, $workers, %change) {
    $self->{s}{workers} = $workers;
    $self->configure(%change);
    $self->life->{want} = $workers;
    CORE::kill 'HUP', $self->life->{master};
    return;
}

# HUP with so many workers; does not wait for anything.
sub reload ($self, $workers) {
    return if !$self->may_spawn || $self->processes > $workers + RETIRING_MAX;
    # an old worker that is stopped keeps ports that fewer workers gave up, and more need again
    $workers = $self->{s}{workers} if %{ $self->{stopped} };
    $self->hup($workers);
    return 1;
}

# The next workers may have so many descriptors more than those now, for some seconds.
sub reload_with_few_files ($self, $more, $seconds) {
    return if !$self->may_spawn || !$self->may_starve || $self->processes > $self->{s}{workers} + RETIRING_MAX;
    my $have = max map { scalar keys %{ CC::Proc::fds($_) } } $self->life->{master}, $self->processes;
    $self->{files} = $have + $more;
    $self->hup($self->{s}{workers});
    $self->{files_until} = now() + $seconds;
    $self->{had_few_files} = 1;
    return $self->{files};
}

# A worker that has no descriptor left when the master tells it of a new one takes any number for that
# one's, and closes it later (ngx_read_channel): then nginx breaks by itself. So no worker is started
# while another one may have none.
sub may_spawn ($self) {
    return !$self->{files_until} && !grep { $_->{what} eq 'files' } values %{ $self->{limits} };
}

# Nor may one have none while another one may end of itself.
sub may_starve ($self) {
    return !grep { alive($_) } keys %{ $self->{denied}{memory} };
}

# Whether no worker has yet to be started, or to take notice of another one.
sub knows_all ($self) { !%{ $self->{stopped} } && $self->is_settled }

# The new workers of a reload, awaited.
sub reload_and_wait ($self, $workers) {
    my %old = map { $_ => 1 } $self->processes;
    $self->hup($workers);
    until_true(sub { !grep { $old{$_} } $self->processes }, 30) && until_true(sub { $self->is_settled }, 30)
        or croak "$self->{name}: a reload was not completed";
    return;
}

# A worker may open so many more files, or take so much more memory, for some seconds.
sub squeeze ($self, $what, $which, $more, $seconds) {
    return if $what eq 'files' ? !$self->may_starve || !$self->knows_all : !$self->may_spawn;
    my $pid = pick($which, grep { !$self->{limits}{$_} && alive($_) } $self->processes) or return;
    my $limit = CC::Limit::take($pid, $what, $more) or return;
    $self->{limits}{$pid} = { %$limit, what => $what, until => now() + $seconds };
    $self->{denied}{$what}{$pid} = 1;
    return "$pid $what +$more";
}

# The logs of `small` are on a full disk for some seconds, or no more.
sub disk ($self, $seconds) {
    my $small = $self->{s}->path('small');
    for my $log (qw(error.log access.log)) {
        unlink "$small/$log";
        symlink '/dev/full', "$small/$log" or croak "$small/$log: $!" if $seconds;
    }
    $self->{full} = $seconds ? now() + $seconds : undef;
    $self->{was_full} ||= $seconds;
    CORE::kill 'USR1', $_->{master} for grep { $_->{master} } $self->lives;
    return $seconds;
}

# kill -9 of everything, the master first; what it leaves lives on for so long.
sub die ($self, $orphans, $dead) {
    my @pids = map { $_->{master} } $self->lives;
    $self->{killed}{$_} = now() for @pids;
    CORE::kill 'KILL', @pids;
    # one that it was about to start is among them
    my $workers = sub { map { CC::Proc::session_pids($_) } keys %{ $self->{s}{sessions} } };
    for my $pid ($workers->()) {
        $self->note_kill($_, $pid) for $self->lives;
    }
    if ($orphans) {
        my $until = now() + $orphans;
        $self->{idle}->() while now() < $until;
    }
    until_true(sub { my @left = $workers->(); CORE::kill 'KILL', @left; !@left }, 20) or croak "$self->{name} survives kill -9";
    %{ $self->{stopped} } = %{ $self->{limits} } = ();
    $self->{files} = $self->{files_until} = undef;
    $self->{ended} += @{ $self->{lives} };
    my @ended = splice @{ $self->{lives} };
    $self->{dead} = now() + $dead;
    return @ended;
}

# -- upgrades ---------------------------------------------------------------------

# USR2: two lives from now on, both serving.
sub upgrade_begins ($self) {
    my $old = $self->life;
    my $pid = $self->{s}{pid};
    $self->{s}{workers} = $old->{want};
    $self->new_life;
    CORE::kill 'USR2', $old->{master};
    my $new = until_true(sub {
        $self->{idle}->();
        my $now = $self->{s}->pid_in_file;
        return $now && $now != $old->{master} ? $now : 0;
    }, 30);
    if (!$new) {
        pop @{ $self->{lives} };
        croak "$self->{name}: no new master";
    }
    $self->has_begun($new);
    $self->{s}{sessions}{ CC::Proc::stat_of($new)->{session} } = 1;
    return $old;
}

# WINCH and HUP to the old master: its workers leave, and others come in their places, at times before
# those have left.
sub old_workers_return ($self, $old) {
    until_true(sub { $self->{idle}->(); $self->is_settled }, 30) or croak "$self->{name}: workers are missing before WINCH";
    # one that has only just been started has no title yet
    my @all   = grep { $_ != $self->life->{master} } children($old->{master});
    my $early = rand() < 0.5;
    my $leave = sub {
        my $stay = grep { alive($_) && !($early && CC::Proc::title($_) =~ /shutting down/) } @all;
        return $early ? $stay < @all : !$stay;
    };
    CORE::kill 'WINCH', $old->{master};
    until_true(sub { $self->{idle}->(); $self->tend(1) if !$self->{dead}; $leave->() }, 30)
        or croak "$self->{name}: old workers do not leave after WINCH";
    CORE::kill 'HUP', $old->{master};
    return;
}

# One of two masters goes, with its life; the other one stays.
sub upgrade_ends ($self, $goes) {
    my ($stays) = grep { $_ != $goes } $self->lives;
    # the workers first: nginx's master forgets those that a HUP has brought back, and leaves without them
    CORE::kill 'WINCH', $goes->{master};
    until_true(sub { !$self->processes($goes) }, 30) or croak "$self->{name}: workers do not leave after WINCH";
    CORE::kill 'QUIT', $goes->{master};
    until_true(sub { !alive($goes->{master}) }, 30) or croak "$self->{name}: a master does not leave";
    @{ $self->{lives} } = $stays;
    $self->{ended}++;
    $self->{s}{workers} = $stays->{want};
    $self->configure;
    until_true(sub { $self->{s}->pid_in_file == $stays->{master} }, 10) or croak "$self->{name}: the pid file is another's";
    return;
}

# -- quiet ------------------------------------------------------------------------

# As many workers as there shall be, none of them leaving, in each life.
sub is_settled ($self) {
    for my $life ($self->lives) {
        my @workers = $self->processes($life);
        return 0 if @workers != $life->{want} || grep { title($_) ne 'nginx: worker process' } @workers;
    }
    return 1;
}

# Nobody is stopped, denied anything, dead or leaving.
sub calm ($self) {
    $self->tend(1);
    # nginx refuses a reload whose ports an old worker has not yet closed
    until_true(sub { $self->is_settled }, 10) || $self->lives > 1 || $self->hup($self->{s}{workers});
    until_true(sub { $self->is_settled }, 30)
        or croak "$self->{name}: workers are missing, or do not leave: "
        . join ', ', map { "$_ " . title($_) . (title($_) =~ /shutting down/ ? ' with ' . join ' ', held_by($_) : '') } $self->processes;
    return;
}

# What a worker has open that may keep it: its connections.
sub held_by ($pid) {
    return map { "$_->{proto}:$_->{state}:$_->{local}-$_->{remote}" } grep { $_->{state} ne 'LISTEN' && $_->{proto} ne 'unix' } CC::Proc::sockets($pid);
}

# Takes note of the workers that ended by themselves, where that is our doing: the log names them and
# their master. All others are for Soak::Log to tell.
sub note_deaths ($self) {
    my $from = $self->{read} // 0;
    my $text = $self->{s}->error_log($from);
    $text =~ s/[^\n]+\z//;
    $self->{read} = $from + length $text;
    while ($text =~ /\] (\d+)#\d+: worker process (\d+) exited (.*)/g) {
        my ($master, $pid, $how) = ($1, $2, $3);
        my ($life) = grep { $_->{master} == $master } $self->lives or next;
        next if $self->{killed}{$pid};
        $life->{odd}{$pid} = $how if $self->{denied}{memory}{$pid};
    }
    return;
}

# Descriptors and kB of own memory, of the master and of the worker that has most.
sub resources ($self) {
    my $rss = sub (@pids) {
        max map { (CC::Proc::slurp("/proc/$_/status") // '') =~ /^RssAnon:\s+(\d+)/m ? $1 : 0 } @pids;
    };
    my ($master, @workers) = ($self->life->{master}, $self->processes);
    return {
        master_fds => scalar(keys %{ CC::Proc::fds($master) }), worker_fds => max(map { kept_open($_) } @workers),
        master_rss => $rss->($master), worker_rss => $rss->(@workers),
    };
}

# Descriptors but those of connections that are kept for the next request: their number is bounded,
# and depends on what was asked last.
sub kept_open ($pid) {
    my $fds = CC::Proc::fds($pid);
    my $connections = grep { $_->{proto} =~ /^tcp/ && $_->{state} ne 'LISTEN' } CC::Proc::sockets($pid);
    return keys(%$fds) - $connections - (() = CC::Sockopt::within($pid));
}

1;
