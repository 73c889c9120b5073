package CC::Proc;

# What /proc says of processes and their sockets.

use v5.36;
use Exporter 'import';
use POSIX ':sys_wait_h';
use Socket qw(AF_INET AF_INET6 inet_ntop);

our @EXPORT_OK = qw(alive children title stat_of session_pids descendants
    fds sockets cpu_count become_subreaper reap slurp);

sub slurp ($path) {
    open my $fh, '<', $path or return;
    local $/;
    my $text = readline $fh;
    return $text;
}

# { ppid, pgrp, session, state, start } or nothing once the process is gone.
sub stat_of ($pid) {
    my $line = slurp("/proc/$pid/stat") // return;
    # the command may hold blanks and parentheses, so cut after the last one
    $line =~ /^(\d+) \((.*)\) (.*)$/s or return;
    my @f = split ' ', $3;
    return {
        pid => $1, comm => $2, state => $f[0], ppid => $f[1],
        pgrp => $f[2], session => $f[3], start => $f[19],
    };
}

sub all_stats () {
    opendir my $dir, '/proc' or return;
    return grep { defined } map { stat_of($_) } grep { /^\d+$/ } readdir $dir;
}

sub reap ($pid) {
    return waitpid($pid, WNOHANG) == $pid;
}

# A zombie counts as dead, and is reaped if it is ours.
sub alive ($pid) {
    my $st = stat_of($pid) or return 0;
    return 1 if $st->{state} !~ /[ZX]/;
    reap($pid);
    return 0;
}

sub by_birth {
    return sort { $a->{start} <=> $b->{start} || $a->{pid} <=> $b->{pid} } @_;
}

sub children ($pid) {
    return map { $_->{pid} }
        by_birth(grep { $_->{ppid} == $pid && $_->{state} !~ /[ZX]/ } all_stats());
}

sub session_pids ($sid) {
    return map { $_->{pid} }
        by_birth(grep { $_->{session} == $sid && $_->{state} !~ /[ZX]/ } all_stats());
}

sub session_zombies ($sid) {
    return map { $_->{pid} }
        grep { $_->{session} == $sid && $_->{state} eq 'Z' } all_stats();
}

sub descendants ($pid) {
    my %kids;
    push @{ $kids{ $_->{ppid} } }, $_->{pid} for all_stats();
    my @todo = ($pid);
    my @found;
    while (@todo) {
        my $p = shift @todo;
        push @found, @{ $kids{$p} // [] };
        push @todo,  @{ $kids{$p} // [] };
    }
    return @found;
}

sub title ($pid) {
    my $cmd = slurp("/proc/$pid/cmdline") // return '';
    $cmd =~ s/\0/ /g;
    $cmd =~ s/\s+$//;
    return $cmd =~ m{^(?:\S*/)?valgrind\b} ? title_inside($pid) // $cmd : $cmd;
}

# Under valgrind a process writes its title into the stack that valgrind has made for it, where the
# kernel does not look for it: the last mapping that can be written before valgrind's own stack.
sub title_inside ($pid) {
    my ($before) = (slurp("/proc/$pid/maps") // '') =~ /^(.*)\[stack\]/s or return;
    my ($from, $to);
    ($from, $to) = ($1, $2) while $before =~ /^([0-9a-f]+)-([0-9a-f]+) rw.*\n/mg;
    return if !defined $from;
    open my $fh, '<:raw', "/proc/$pid/mem" or return;
    no warnings 'portable';
    sysseek $fh, hex $from, 0;
    sysread $fh, my $stack, hex($to) - hex $from or return;
    return $stack =~ /.*\0(nginx: (?:worker|master|cache) [ -~]*)\0/s ? $1 =~ s/\s+$//r : undef;
}

# { fd => what it points to }
sub fds ($pid) {
    opendir my $dir, "/proc/$pid/fd" or return {};
    my %fds;
    for my $fd (grep { /^\d+$/ } readdir $dir) {
        my $to = readlink "/proc/$pid/fd/$fd";
        $fds{$fd} = $to if defined $to;
    }
    return \%fds;
}

my @TCP_STATES = qw(? ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT1 FIN_WAIT2
    TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN CLOSING);

# One hash for each socket of the process: fd, inode, proto, state, local
# and remote ("127.0.0.1:80", "[::1]:80", "unix:/path", "unix:@name", "").
sub sockets ($pid) {
    my $fds = fds($pid);
    my %by_inode;
    for my $fd (keys %$fds) {
        push @{ $by_inode{$1} }, $fd if $fds->{$fd} =~ /^socket:\[(\d+)\]$/;
    }

    my @found;
    my $note = sub ($inode, %about) {
        my $held = delete $by_inode{$inode} or return;
        push @found, map { { fd => $_, inode => $inode, %about } } @$held;
    };

    for my $proto (qw(tcp tcp6 udp udp6)) {
        my $table = slurp("/proc/$pid/net/$proto") // next;
        for my $line (split /\n/, $table) {
            my @f = split ' ', $line;
            next if @f < 10 || $f[0] !~ /^\d+:$/;
            my $state = $proto =~ /^tcp/ ? $TCP_STATES[ hex $f[3] ] // '?' : '';
            $note->($f[9], proto => $proto, state => $state,
                local => address($f[1]), remote => address($f[2]));
        }
    }

    for my $line (split /\n/, slurp("/proc/$pid/net/unix") // '') {
        my @f = split ' ', $line, 8;
        next if @f < 7 || $f[6] !~ /^\d+$/;
        # flag 0x10000 is __SO_ACCEPTCON, set on listening sockets only
        my $state = hex($f[3]) & 0x10000 ? 'LISTEN' : '';
        $note->($f[6], proto => 'unix', state => $state,
            local => defined $f[7] ? "unix:$f[7]" : '', remote => '');
    }

    $note->($_, proto => '?', state => '', local => '', remote => '')
        for keys %by_inode;
    return sort { $a->{fd} <=> $b->{fd} } @found;
}

# The kernel prints addresses as host-order words in hex.
sub address ($hex) {
    my ($ip, $port) = split /:/, $hex;
    $port = hex $port;
    my $bytes = pack 'L*', map { hex } $ip =~ /(.{8})/g;
    return length $bytes == 4
        ? inet_ntop(AF_INET, $bytes) . ":$port"
        : '[' . inet_ntop(AF_INET6, $bytes) . "]:$port";
}

sub cpu_count () {
    my $n = `getconf _NPROCESSORS_ONLN 2>/dev/null` || 1;
    return int $n;
}

# Daemons that lose their parent become our children, so that they can be
# found and reaped; without it a dead nginx may stay a zombie for ever.
sub become_subreaper () {
    state $done;
    return if $done++;
    my $nr = { x86_64 => 157, aarch64 => 167 }->{ (POSIX::uname())[4] } // return;
    my $PR_SET_CHILD_SUBREAPER = 36;
    syscall $nr, $PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0;
    return;
}

1;
