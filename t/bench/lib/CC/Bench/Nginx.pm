package CC::Bench::Nginx;

# One nginx of one competitor for one work. All that take part in a case
# live at once and take turns; who is not at turn is stopped by signal, so
# that even one who polls costs the others nothing.

use v5.36;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use POSIX ();
use Time::HiRes qw(sleep);
use CC::Proc;
use CC::Server;

my $LUA = abs_path(dirname(__FILE__) . '/../../../lua');
my $COMMON = "access_log off;\nkeepalive_requests 1000000000;\n";
my $TICKS = POSIX::sysconf(POSIX::_SC_CLK_TCK());

sub start ($class, $peer, $work, $workers) {
    my $options = $peer->{options} // '';
    # a port for each worker, too, where nginx can
    my $own = $peer->{kind} eq 'ours' ? 'listen 127.0.0.1:%PORT+1% per_worker;' : '';
    my $server = CC::Server->new(
        workers => $workers,
        ports   => $peer->{ports} // 1 + $workers,
        log_level => 'error',
        modules => $peer->{modules},
        main    => $peer->{main},
        events  => 'worker_connections 512;',
        http    => $peer->{http} ? "$COMMON$peer->{http}" : <<"CONF",
$COMMON
lua_package_path "$LUA/?.lua;;";
lua_shared_dict bench_bus 128m;
lua_shared_dict bench_counts 1m;
init_by_lua_block { ngx.shared.bench_counts:incr("generation", 1, 0) }
init_worker_by_lua_block { require("bench").setup("$peer->{bus}", { $options }, "$work") }
CONF
        server => $peer->{server} // <<"CONF",
$own
location = /run { content_by_lua_block { require("bench").run() } }
location = /plain { return 200 "plain"; }
CONF
    );
    $server->start;
    my $self = bless { server => $server, peer => $peer, stopped => 0 }, $class;
    $self->{pids} = [ $server->worker_pids ];
    return $self;
}

sub server ($self) { $self->{server} }
sub peer ($self)   { $self->{peer} }
sub port ($self)   { $self->{server}->port }
sub port_of ($self, $worker) { $self->{server}->port(1 + $worker) }

sub hold ($self) {
    # what is under way arrives first
    sleep 0.02;
    $self->signal('STOP');
    return;
}

sub wake ($self) {
    $self->signal('CONT');
    # timers that are overdue come first
    sleep 0.02;
    return;
}

sub signal ($self, $name) {
    kill $name, @{ $self->{pids} };
    return;
}

# Runs one case: its answer, with the cores it took, or {error}. All requests
# over one connection reach one worker.
sub run ($self, $args, $connection = undef) {
    my $query = join '&', map { "$_=$args->{$_}" } sort keys %$args;
    my $before = $self->cpu;
    my $began  = Time::HiRes::time();
    my $c = $connection // $self->connection;
    my $r = $c->request(GET => "/run?$query", keepalive => 1);
    $c->close if !$connection;
    my $took = Time::HiRes::time() - $began;
    return { error => $r->error || 'status ' . $r->status } if $r->status != 200;
    my %answer = $r->body =~ /^(\w+) (.*)$/mg;
    $answer{cores} = ($self->cpu - $before) / $took;
    $answer{error} //= "$answer{bad} messages were not what they should be" if ($answer{bad} // 0) > 0;
    return \%answer;
}

sub connection ($self) { $self->{server}->connect($self->port, timeout => 20) }

# Seconds of processor time of all workers.
sub cpu ($self) {
    my $ticks = 0;
    for my $pid (@{ $self->{pids} }) {
        my $stat = CC::Proc::slurp("/proc/$pid/stat") // next;
        # behind the name, which may hold anything
        my @field = split ' ', $stat =~ s/^.*\) //sr;
        $ticks += $field[11] + $field[12];
    }
    return $ticks / $TICKS;
}

sub stop ($self) {
    $self->signal('CONT');
    $self->{server}->remove;
    return;
}

1;
