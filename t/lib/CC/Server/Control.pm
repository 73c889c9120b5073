package CC::Server::Control;

# The half of CC::Server that acts on nginx: start, reload, signals, upgrade.
# Each call returns when what it asked for is seen to have happened.

use v5.36;
use Carp qw(croak);
use CC::Proc qw(alive children);
use CC::Wait qw(until_true);

# Dies when nginx does not come up.
sub start ($self, @new) {
    my ($rc, $out) = $self->try_start(@new);
    croak "nginx did not start ($rc): $out" . $self->log_tail if $rc;
    return $self;
}

# The same, answering (exit code, output); 0 means it runs.
sub try_start ($self, @new) {
    croak 'already started' if $self->is_running;
    $self->configure(@new) if @new;
    $self->write_conf;
    unlink $self->{pid};
    $self->{slots} = [];
    my ($rc, $out) = $self->nginx(
        $self->{early_log} ? ('-e', $self->{log}) : (), '-c', $self->{file});
    return ($rc, $out) if $rc;

    return $self->adopt($out);
}

# Takes an nginx that was started otherwise, with this one's prefix, for its own: waits until it is
# up, and ends it with the rest. The answer is try_start's.
sub adopt ($self, $out = '') {
    my $pid = until_true(sub { $self->pid_in_file }, $self->{timeout})
        or return (-2, "$out\nno pid file came");
    # Debian's nginx writes the pid file before the child calls setsid
    until_true(sub { (CC::Proc::stat_of($pid) // return 1)->{session} == $pid }, 5);
    $self->{sessions}{$pid} = 1;
    until_true(sub { !alive($pid) || $self->is_complete }, $self->{timeout});
    return (-3, "$out\nthe master is gone") if !alive($pid);
    return (-4, "$out\nworkers are missing: " . join ' ', $self->worker_pids)
        if !$self->is_complete;
    return (0, $out);
}

# HUP with a new configuration or the present one. True when the new
# workers are up and the old are gone; false when nginx refused it.
# wait_old => 0 returns as soon as the new workers are up.
sub reload ($self, @new) {
    my $wait_old = 1;
    if (@new > 1 && @new % 2 == 0) {
        my %new = @new;
        $wait_old = delete $new{wait_old} if exists $new{wait_old};
        @new = %new;
    }
    $self->configure(@new) if @new;
    $self->write_conf;

    my $master = $self->master_pid or croak 'reload: no master is running';
    croak 'reload needs master_process on' if !$self->has_master;
    my @old    = $self->worker_pids;
    my %old    = map { $_ => 1 } @old;
    my $from   = $self->log_size;
    kill 'HUP', $master;

    my $refused;
    my $up = until_true(sub {
        return 1 if ($refused = $self->error_log($from) =~ /\[emerg\]/);
        return $self->is_complete && !grep { $old{$_} } $self->worker_pids;
    }, $self->{timeout});
    return 0 if $refused;
    croak 'reload: the new workers did not come up' . $self->log_tail if !$up;
    if ($wait_old) {
        until_true(sub { !grep { alive($_) } @old }, $self->{timeout})
            or croak "reload: old workers do not leave (@old)" . $self->log_tail;
    }
    return 1;
}

# The configuration goes back to what it was; true if nginx refused it.
sub reload_fails ($self, @new) {
    my %kept = map { $_ => $self->{$_} } qw(conf main events http server stream
        post_main raw workers lua module order modules log_level);
    my $ok = $self->reload(@new, @new == 1 ? () : (wait_old => 1));
    %$self = (%$self, %kept);
    $self->write_conf if !$ok;
    return !$ok;
}

sub quit ($self, $seconds = $self->{timeout}) { $self->leave('QUIT', $seconds) }
sub stop ($self, $seconds = $self->{timeout}) { $self->leave('TERM', $seconds) }

# True when all of it was gone in time.
sub leave ($self, $sig, $seconds) {
    my $pid = $self->master_pid or return 1;
    my @all = ($pid, children($pid));
    kill $sig, $pid;
    my $gone = until_true(sub { !grep { alive($_) } @all }, $seconds);
    $self->kill_all;
    $self->{slots} = [];
    return $gone ? 1 : 0;
}

# USR2, then WINCH and QUIT to the old master: (old pid, new pid).
# keep_old => 1 stops after USR2, with both masters serving.
sub upgrade ($self, %opt) {
    my $old = $self->master_pid or croak 'upgrade: no master is running';
    my @old_workers = $self->worker_pids;
    $self->{slots} = [];
    kill 'USR2', $old;
    my $new = until_true(sub {
        my $pid = $self->pid_in_file;
        return $pid && $pid != $old && $self->is_complete ? $pid : 0;
    }, $self->{timeout})
        or croak 'upgrade: no new master' . $self->log_tail;
    return ($old, $new) if $opt{keep_old};
    $self->retire($old, @old_workers);
    return ($old, $new);
}

# Ends an old master gently, as the nginx manual tells to.
sub retire ($self, $master, @workers) {
    @workers = children($master) if !@workers;
    kill 'WINCH', $master;
    until_true(sub { !grep { alive($_) } @workers }, $self->{timeout})
        or croak 'upgrade: old workers do not leave' . $self->log_tail;
    kill 'QUIT', $master;
    until_true(sub { !alive($master) }, $self->{timeout})
        or croak 'upgrade: the old master does not leave' . $self->log_tail;
    return;
}

# Sends the signal to worker $id. When it is a deadly one, waits for the
# successor and returns its pid; respawn => 0 waits for the death only.
# STOP and CONT return when they have taken effect.
sub kill_worker ($self, $id, $sig = 'KILL', %opt) {
    my $pid = $self->worker_pid($id) or croak "no worker $id";
    kill $sig, $pid or croak "kill $sig $pid: $!";
    if ($sig =~ /^(?:SIG)?(STOP|CONT)$/) {
        my $stopped = $1 eq 'STOP' ? 1 : 0;
        until_true(sub { is_stopped($pid) == $stopped }, $self->{timeout});
        return $pid;
    }
    return $pid if $sig !~ /^(?:SIG)?(?:KILL|TERM|QUIT|INT|SEGV|ABRT|BUS|ILL|FPE|9|15|3|2|11|6)$/;
    until_true(sub { !alive($pid) }, $self->{timeout})
        or croak "worker $id survives $sig";
    return if exists $opt{respawn} && !$opt{respawn};
    return until_true(sub {
        my $now = $self->worker_pid($id);
        return $now && $now != $pid ? $now : 0;
    }, $self->{timeout}) || croak "worker $id has no successor" . $self->log_tail;
}

sub is_stopped ($pid) {
    my $st = CC::Proc::stat_of($pid) or return 0;
    return $st->{state} =~ /^[tT]$/ ? 1 : 0;
}

sub signal ($self, $sig, $pid = $self->master_pid) {
    return kill $sig, $pid;
}

# USR1, awaited: logs are open again when the file at the old name is back.
sub reopen_logs ($self) {
    my $inode = (stat $self->{log})[1];
    kill 'USR1', $self->master_pid;
    return until_true(sub { -e $self->{log} && (stat _)[1] != ($inode // 0) }, 2);
}

1;
