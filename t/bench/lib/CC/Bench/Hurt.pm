package CC::Bench::Hurt;

# The works that need signals from outside: a receiver that is stopped, and
# reloads. lua/works/stopped.lua and reload.lua are their other halves.

use v5.36;
use Time::HiRes qw(sleep);
use CC::Proc;
use CC::Wait qw(until_true);

my $MB = 1048576;

# Resident MB: (its own, shared).
sub resident ($pid) {
    my $status = CC::Proc::slurp("/proc/$pid/status") // '';
    return map { $status =~ /^$_:\s+(\d+) kB/m ? $1 / 1024 : 0 } qw(RssAnon RssShmem);
}

sub stopped ($nginx, $case, $args) {
    # the worker that answers is the sender, and remains so
    my $connection = $nginx->connection;
    my $sender = $nginx->run({ counts => 1 }, $connection)->{pid};
    my ($receiver) = grep { $_ != $sender } @{ $nginx->{pids} };
    # what a first message allocates is no growth
    sleep 0.2;
    my ($before, $shared) = resident($sender);
    my $server = $nginx->server;
    $server->signal('STOP', $receiver);
    my $answer = $nginx->run($args, $connection);
    my ($after, $shared_after) = resident($sender);
    $server->signal('CONT', $receiver);
    return $answer if $answer->{error};

    my $accepted = $answer->{accepted};
    my $counts;
    until_true(sub {
        $counts = $nginx->run({ counts => 1 });
        return ($counts->{received} // 0) >= $accepted;
    }, 3);
    sleep 1;
    return {
        accepted => $accepted * $args->{size} / $MB,
        grown    => $after - $before,
        kept     => (resident($sender))[0] - $before,
        shared   => $shared_after - $shared,
        lost     => $accepted - ($counts->{received} // 0),
        said     => $answer->{said} // 'nothing',
        error    => $counts->{error},
    };
}

sub reload ($nginx, $case, $args) {
    my $server = $nginx->server;
    for (1 .. $case->{reloads}) {
        sleep 0.4;
        $server->reload or return { error => 'the reload was refused' };
    }
    sleep 0.4;
    $nginx->{pids} = [ $server->worker_pids ];
    $nginx->run({ stop => 1 });
    my ($counts, $last);
    # the rest is under way; it has arrived when the sum stands still
    until_true(sub {
        sleep 0.1;
        $counts = $nginx->run({});
        my $same = defined $last && $counts->{received} == $last;
        $last = $counts->{received};
        return $counts->{received} == $counts->{accepted} || $same;
    }, 5);
    # here a torn message is a figure of the table
    delete $counts->{error};
    $counts->{lost} = $counts->{accepted} - $counts->{received};
    return $counts;
}

1;
