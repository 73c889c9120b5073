package Soak::World;

# The nginx of a soak and what is done to it: load, kills, stops, reloads. Nothing here judges,
# but for waits that never end.

use v5.36;
use Carp qw(croak);
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use List::Util qw(max);
use CC::Proc qw(alive children title);
use CC::Server;
use CC::Wait qw(now until_true);

use constant WORKERS_MAX => 12;     # of one generation: as many ports are taken
use constant RETIRING_MAX => 12;    # more make no reload harder, only the machine slower
use constant REQUESTS_MAX => 24;

my $HERE = abs_path(dirname(__FILE__) . '/..');

sub new ($class, %opt) {
    my $self = bless { %opt, requests => [], stopped => {}, killed => {}, broken => 0, answered => 0 }, $class;
    $self->{s} = CC::Server->new(module => 1, lua => 1, ports => WORKERS_MAX + 4,
        timeout => 60, workers => $opt{workers}, $self->conf);
    $self->{ledgers} = $self->{s}->path('ledgers');
    mkdir $self->{ledgers} or croak "$self->{ledgers}: $!";
    $self->control(quiet => 1);
    $self->{s}->start;
    return $self;
}

sub conf ($self) {
    # small enough to be filled in a moment
    return (main => "cc_ipc_transport $self->{transport}; cc_ipc_max_message 3m; cc_ipc_queue 6m;", http => <<~CONF);
        access_log off;
        lua_package_path "$HERE/?.lua;;";
        lua_max_running_timers 1024;
        init_by_lua_block { require "soak_pool" }
        init_worker_by_lua_block {
            local soak = require "soak"
            soak.folder, soak.seed = "%PREFIX%/ledgers", $self->{seed}
            soak.start()
        }
        server {
            listen 127.0.0.1:%PORT%;
            listen 127.0.0.1:%PORT+1% per_worker;
            location = /work  { content_by_lua_block { require("soak").work() } }
            location = /long  { content_by_lua_block { require("soak").long() } }
            location = /flood { content_by_lua_block { require("soak").flood() } }
            location = /look  { content_by_lua_block { require("soak").look() } }
        }
        CONF
}

sub s ($self) { $self->{s} }

# What the workers obey: a file that they have mapped.
sub control ($self, %say) {
    my $path = "$self->{ledgers}/control";
    $self->{control} = { quiet => 0, rate => 4, %{ $self->{control} // {} }, %say };
    open my $fh, (-e $path ? '+<:raw' : '>:raw'), $path or croak "$path: $!";
    print $fh pack 'L4', @{ $self->{control} }{qw(quiet rate)}, 0, 0;
    close $fh or croak "$path: $!";
    return;
}

# Every worker process, also those that are leaving or stopped.
sub processes ($self) {
    return grep { title($_) =~ /^nginx: worker process/ } children($self->{s}->master_pid);
}

# -- load -----------------------------------------------------------------------

# A request whose answer is looked for later: its worker may be stopped, or die.
sub ask ($self, $uri) {
    $self->hear;
    return if @{ $self->{requests} } >= REQUESTS_MAX;
    my $c = $self->{s}->connect($self->{s}->port, timeout => 5);
    $c->send_request(GET => $uri);
    push @{ $self->{requests} }, $c;
    return;
}

# Takes in the answers that have come.
sub hear ($self) {
    my @waiting;
    for my $c (@{ $self->{requests} }) {
        if ($c->ok && !$c->ready(0, 0.0001)) {
            push @waiting, $c;
            next;
        }
        my $r = $c->read_response;
        $self->{ $r->status == 200 ? 'answered' : 'broken' }++;
        push @{ $self->{refusals} }, $r->status . ' ' . substr $r->body, 0, 200 if $r->status > 200;
        $c->close;
    }
    $self->{requests} = \@waiting;
    return scalar @waiting;
}

# -- what is done to it -----------------------------------------------------------

# $which in [0, 1) chooses among the processes there are.
sub pick ($self, $which, @of) {
    return $of[ int $which * @of ];
}

sub kill ($self, $which) {
    my $pid = $self->pick($which, $self->processes) or return;
    $self->{killed}{$pid} = now();
    delete $self->{stopped}{$pid};
    CORE::kill 'KILL', $pid;
    return $pid;
}

sub stop ($self, $which, $seconds) {
    my $pid = $self->pick($which, grep { !$self->{stopped}{$_} } $self->processes) or return;
    CORE::kill 'STOP', $pid;
    $self->{stopped}{$pid} = now() + $seconds;
    return $pid;
}

# Lets run on whose time is over, or everybody.
sub cont ($self, $all = 0) {
    my $stopped = $self->{stopped};
    for my $pid (grep { $all || $stopped->{$_} <= now() } sort keys %$stopped) {
        delete $stopped->{$pid};
        CORE::kill 'CONT', $pid;
    }
    return;
}

sub hup ($self, $workers) {
    my $s = $self->{s}->configure(workers => $workers);
    # in one go, for the master may be reading it because of the HUP before
    $s->write('conf/next', $s->{written} = $s->conf_text);
    rename $s->path('conf/next'), $s->{file} or croak "$s->{file}: $!";
    CORE::kill 'HUP', $s->master_pid;
    return;
}

# HUP with so many workers; does not wait for anything.
sub reload ($self, $workers) {
    return if $self->processes > $workers + RETIRING_MAX;
    # an old worker that is stopped keeps ports that fewer workers gave up, and more need again
    $workers = $self->{s}{workers} if %{ $self->{stopped} };
    $self->hup($workers);
    return 1;
}

# The new workers of a reload, awaited.
sub reload_and_wait ($self, $workers) {
    my %old = map { $_ => 1 } $self->processes;
    $self->hup($workers);
    until_true(sub { !grep { $old{$_} } $self->processes }, 30)
        && until_true(sub { $self->{s}->is_complete }, 30)
        or croak 'a reload was not completed';
    return;
}

# -- quiet ----------------------------------------------------------------------

# Nobody sends any more, nobody is stopped or leaving, every request has its answer.
sub calm ($self) {
    $self->control(quiet => 1);
    $self->cont(1);
    until_true(sub { !$self->hear }, 30) or croak 'requests are not answered';
    my $settled = sub {
        return $self->{s}->is_complete && !$self->{s}->retiring_pids
            && $self->processes == $self->{s}->worker_count;
    };
    # nginx refuses a reload whose ports an old worker has not yet closed
    until_true($settled, 10) || $self->hup($self->{s}{workers});
    until_true($settled, 30)
        or croak 'workers are missing, or do not leave: ' . join ', ', map { "$_ " . title($_) } $self->processes;
    return;
}

# What each worker says of itself: a list of { key => value, workers => [...] } by worker id.
sub look ($self) {
    my @found;
    for my $id (0 .. $self->{s}->worker_count - 1) {
        my $r = $self->{s}->request(GET => $self->{s}->port(1 + $id), '/look', timeout => 20);
        croak "worker $id does not answer: " . ($r->error // $r->status) if $r->status != 200;
        my %row = (workers => []);
        for (split /\n/, $r->body) {
            my ($key, $value) = /^(\w+)=(.*)$/ or next;
            if ($key eq 'worker') { push @{ $row{workers} }, $value } else { $row{$key} = $value }
        }
        push @found, \%row;
    }
    return @found;
}

# Descriptors and kB of own memory, of the master and of the worker that has most.
sub resources ($self) {
    my $fds = sub (@pids) { max map { scalar keys %{ CC::Proc::fds($_) } } @pids };
    my $rss = sub (@pids) {
        max map { (CC::Proc::slurp("/proc/$_/status") // '') =~ /^RssAnon:\s+(\d+)/m ? $1 : 0 } @pids;
    };
    my ($master, @workers) = ($self->{s}->master_pid, $self->processes);
    return {
        master_fds => $fds->($master), worker_fds => $fds->(@workers),
        master_rss => $rss->($master), worker_rss => $rss->(@workers),
    };
}

1;
