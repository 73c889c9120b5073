package CC::Server::Look;

# The half of CC::Server that looks: processes, sockets, log, and requests.

use v5.36;
use CC::HTTP;
use CC::Proc qw(alive children title);
use CC::Wait ();

sub pid_in_file ($self, $file = $self->{pid}) {
    my $text = CC::Proc::slurp($file) // return 0;
    my ($pid) = $text =~ /^(\d+)\s*$/ or return 0;
    return alive($pid) ? $pid : 0;
}

sub master_pid ($self) { $self->pid_in_file }

# During an upgrade, the one that was there before.
sub old_master_pid ($self) { $self->pid_in_file("$self->{pid}.oldbin") }

sub is_running ($self) { $self->pid_in_file ? 1 : 0 }

sub has_master ($self) {
    my $on = $self->written =~ /\bmaster_process\s+(on|off)/ ? $1 : 'on';
    return $on eq 'on';
}

# How many workers the configuration asks for.
sub worker_count ($self) {
    return 0 if !$self->has_master;
    my $text = $self->written =~ s/#[^\n]*//gr;
    my ($n) = $text =~ /(?:^|[;{}\s])worker_processes\s+(\w+)/;
    $n //= 1;
    return $n eq 'auto' ? CC::Proc::cpu_count() : $n;
}

# Workers get their title when init_process of all modules is done, and lose
# it when they begin to shut down: the title is the state.
sub worker_pids ($self, $master = $self->master_pid) {
    return if !$master;
    return grep { title($_) eq 'nginx: worker process' } children($master);
}

sub retiring_pids ($self, $master = $self->master_pid) {
    return if !$master;
    return grep { title($_) eq 'nginx: worker process is shutting down' }
        children($master);
}

sub is_complete ($self) {
    my $want = $self->worker_count or return $self->is_running;
    my @now  = $self->worker_pids;
    return @now == $want ? 1 : 0;
}

# Pids by worker id: nginx forks them in that order, and a successor takes
# the place of the one that died. Exact as long as each death is looked at
# (by kill_worker or this) before the next; a gap is undef.
sub workers ($self) {
    my @now  = $self->worker_pids;
    my %now  = map { $_ => 1 } @now;
    my $ids  = $self->{slots};
    my $same = grep { defined && $now{$_} } @$ids;
    if (!$same) {
        @$ids = @now;
        return @$ids;
    }
    $_ = defined && $now{$_} ? $_ : undef for @$ids;
    my %placed = map { $_ => 1 } grep { defined } @$ids;
    for my $pid (grep { !$placed{$_} } @now) {
        my ($gap) = grep { !defined $ids->[$_] } 0 .. $#$ids;
        $ids->[ $gap // @$ids ] = $pid;
    }
    return @$ids;
}

sub worker_pid ($self, $id) { ($self->workers)[$id] }

# Of any pid: { fd => target }, and one hash for each socket (CC::Proc).
sub fds ($self, $pid = $self->master_pid)     { CC::Proc::fds($pid) }
sub sockets ($self, $pid = $self->master_pid) { CC::Proc::sockets($pid) }

# Addresses the process listens on, sorted; UDP ones as "udp:ADDR".
sub listening ($self, $pid = $self->master_pid) {
    my %seen;
    for my $s (CC::Proc::sockets($pid)) {
        $seen{ $s->{local} } = 1       if $s->{state} eq 'LISTEN';
        $seen{"udp:$s->{local}"} = 1   if $s->{proto} =~ /^udp/;
    }
    return sort keys %seen;
}

# -- requests -------------------------------------------------------------

# get($port, $uri, Header => value ...); the peer may be host:port or unix:.
sub get ($self, $peer, $uri = '/', %headers) {
    return $self->request(GET => $peer, $uri, headers => \%headers);
}

# request(METHOD, peer, uri, headers =>, body =>, timeout =>, version =>)
sub request ($self, $method, $peer, $uri, %opt) {
    my $c = CC::HTTP->connect($peer, %opt{grep { exists $opt{$_} } qw(timeout from)});
    my $r = $c->request($method, $uri, %opt);
    $c->close;
    return $r;
}

# An open connection, for keepalive, pipelining, or many at once.
sub connect ($self, $peer = $self->port, %opt) {
    return CC::HTTP->connect($peer, %opt);
}

# -- waiting and the log --------------------------------------------------

sub wait_for ($self, $cond, $what = 'condition', $seconds = $self->{timeout}) {
    return CC::Wait::wait_for($cond, $what, $seconds);
}

# The log, or what was added to it since byte $from.
sub error_log ($self, $from = 0) {
    open my $fh, '<:raw', $self->{log} or return '';
    seek $fh, $from, 0;
    local $/;
    return readline($fh) // '';
}

sub log_size ($self) { -s $self->{log} // 0 }

sub log_tail ($self, $count = 20) {
    my @lines = split /\n/, $self->error_log;
    splice @lines, 0, -$count if @lines > $count;
    return join '', map { "\n  $_" } '', @lines;
}

# Waits until the log, from byte $from on, matches; returns $1 or 1.
sub wait_log ($self, $pattern, $from = 0, $seconds = $self->{timeout}) {
    return $self->wait_for(sub {
        return if $self->error_log($from) !~ $pattern;
        return defined $1 && length $1 ? $1 : 1;
    }, "the log to match $pattern", $seconds);
}

# Lines that no healthy run writes. "error" lines count too; tests allow
# those they provoke.
sub log_complaints ($self, @allowed) {
    my @bad;
    for my $line (split /\n/, $self->error_log) {
        next if $line !~ /\[(?:error|crit|alert|emerg)\]|open socket #|panicked at|Sanitizer:|double free|corrupt/;
        next if grep { $line =~ $_ } @allowed;
        push @bad, $line;
    }
    return @bad;
}

# One assertion.
sub log_is_clean ($self, @allowed) {
    require Test::More;
    my @bad = $self->log_complaints(@allowed);
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $ok = Test::More::ok(!@bad, 'the error log is clean');
    splice @bad, 20 if @bad > 20;
    Test::More::diag(map { "  $_\n" } @bad) if @bad;
    return $ok;
}

1;
