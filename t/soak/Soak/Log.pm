package Soak::Log;

# Judges a node's error log: what the soak itself provokes may be there, nothing else.

use v5.36;

# Whatever a worker does that can get no more of it: nginx's words for the error, and what follows.
my %DENIED = (
    # then what one writes that is told of another worker; and nginx tries accept() again after a moment,
    # also when it has been told to leave and has closed the socket meanwhile
    files  => qr/\(24: |recvmsg\(\) returned (?:too small|invalid) ancillary data|accept4?\(\) failed \(9: /,
    memory => qr/\(12: |not enough memory|failed to (?:allocate|create)|no memory|out of memory|malloc|memory allocation/,
);

# Requests whose peer was killed, stopped or refused: of any upstream, and of Lua handlers that raise.
my @PROVOKED = (
    qr/ipc handler "soak\.(?:raise|call)" failed: .*on purpose/,
    qr/\[error\] .*(?:while connecting to upstream|while reading response header from upstream|while reading upstream|while sending request to upstream|no live upstreams|no peer set for upstream)/,
    # fewer workers, then more before the old ones have closed their ports: nginx tries again, and
    # then keeps the configuration that it has
    qr/\[emerg\] .*(?:bind\(\) to 127\.0\.0\.1:\d+ failed \(98:|still could not bind\(\))/,
);

# Lines that no healthy run writes.
sub complaints ($node) {
    my $s = $node->s;
    open my $log, '<:raw', $s->{log} or return "no log: $s->{log}: $!";
    my @bad;
    while (my $line = readline $log) {
        next if $line !~ /\[(?:error|crit|alert|emerg)\]|open socket #|panicked at|Sanitizer:|double free|corrupt/;
        chomp $line;
        push @bad, $line if !is_ours($node, $line);
    }
    return @bad;
}

sub is_ours ($node, $line) {
    if (my ($pid, $how) = $line =~ /\[alert\] \d+#\d+: worker process (\d+) (exited .*)/) {
        return 1 if $node->{killed}{$pid} && $how =~ /^exited on signal 9\b/;
        # without memory LuaJIT and ngx_lua end by one of these signals
        return 1 if $node->{denied}{memory}{$pid} && $how =~ /^exited (?:on signal (?:6|11)\b|with code)/;
        return 0;
    }
    return 1 if grep { $line =~ $_ } @PROVOKED;
    return 1 if $node->{was_full} && $line =~ m{/small/\S+" (?:failed|was incomplete)|\(28: };
    my ($pid) = $line =~ /\] (\d+)#\d+: /;
    # who gets no memory may fail to note what it has sent, or what it was sent
    return 1 if $line =~ /alert\(\): soak: from (\d+): .* (?:follows|is number)/ && grep { $_ && $node->{denied}{memory}{$_} } $pid, $1;
    for my $what (keys %DENIED) {
        return 1 if $pid && $line =~ $DENIED{$what} && ($node->{denied}{$what}{$pid} || $what eq 'files' && $node->{had_few_files});
    }
    return 0;
}

1;
