package CC::Server;

# One nginx in a directory of its own, for tests that start, reload, upgrade
# and hurt it. Whatever happens to the test, nothing of it stays behind.
# See t/README.md for the ways to give a configuration.

use v5.36;
use Carp qw(croak);
use File::Path qw(make_path remove_tree);
use File::Temp ();
use POSIX ();
use Scalar::Util qw(weaken);
use CC::Conf;
use CC::HTTP;
use CC::Modules;
use CC::Ports;
use CC::Proc;
use CC::Memory;
use CC::Wait qw(until_true DEADLINE);
use parent -norequire, 'CC::Server::Control', 'CC::Server::Look';
use CC::Server::Control;
use CC::Server::Look;

my %live;      # every server of this process, weakly, for END
my $owner = $$;

my %KNOWN = map { $_ => 1 } qw(conf main events http server stream post_main
    raw workers lua module order modules log_level master_process ports port
    prefix env timeout early_log);

sub new ($class, %opt) {
    for (sort keys %opt) {
        croak "CC::Server has no option '$_'" if !$KNOWN{$_};
    }
    CC::Proc::become_subreaper();

    my $self = bless {
        log_level => 'info', workers => 1, ports => 16, env => {},
        timeout => DEADLINE, %opt, owner => $$, slots => [], marks => {},
    }, $class;
    $self->{own_prefix} = !defined $opt{prefix};
    $self->{prefix} //= File::Temp::tempdir('ngx-cc-XXXXXX', TMPDIR => 1);
    $self->{port}   //= CC::Ports::block($self->{ports}) if !defined $opt{raw};
    $self->{log}    = "$self->{prefix}/logs/error.log";
    $self->{pid}    = "$self->{prefix}/logs/nginx.pid";
    $self->{file}   = "$self->{prefix}/conf/nginx.conf";
    $self->{modules} //= [ CC::Modules::pick(
        lua => $opt{lua}, module => $opt{module}, order => $opt{order},
        stream => $opt{stream}) ];

    make_path(map { "$self->{prefix}/$_" } qw(conf logs html),
        defined $opt{raw} ? () : 'tmp');
    # workers of an nginx that runs as another user must reach html/
    chmod 0755, $self->{prefix};
    $self->{failures} = failures();
    weaken($live{ 0 + $self } = $self);
    return $self;
}

sub prefix ($self) { $self->{prefix} }
sub port ($self, $plus = 0) { $self->{port} + $plus }
sub path ($self, $name) { "$self->{prefix}/$name" }

# Writes a file below the prefix and returns its path.
sub write ($self, $name, $text) {
    my $path = $name =~ m{^/} ? $name : "$self->{prefix}/$name";
    make_path($1) if $path =~ m{^(.+)/};
    open my $fh, '>:raw', $path or croak "$path: $!";
    print $fh $text;
    close $fh or croak "$path: $!";
    return $path;
}

# Takes a new configuration: one text (a whole configuration), or some of
# the pieces and options of new().
sub configure ($self, @new) {
    my %new = @new == 1 ? (conf => $new[0]) : @new;
    for (sort keys %new) {
        croak "CC::Server has no option '$_'" if !$KNOWN{$_};
    }
    if (grep { defined $new{$_} } qw(main events http server post_main)) {
        delete $self->{conf} if !defined $new{conf};
    }
    if (grep { exists $new{$_} } qw(lua module order stream)) {
        $self->{modules} = undef;
    }
    %$self = (%$self, %new);
    $self->{modules} //= [ CC::Modules::pick(map { $_ => $self->{$_} }
        qw(lua module order stream)) ];
    return $self;
}

sub conf_text ($self) {
    return $self->{raw} // CC::Conf::text($self);
}

sub write_conf ($self) {
    $self->{written}   = $self->conf_text;
    $self->{last_file} = $self->write('conf/nginx.conf', $self->{written});
    return;
}

sub written ($self) { $self->{written} // $self->conf_text }

# The line of the configuration as last written that first matches.
sub line_of ($self, $pattern) {
    my $n = 0;
    for (split /\n/, CC::Proc::slurp($self->{last_file} // $self->{file}) // '') {
        $n++;
        return $n if ref $pattern ? $_ =~ $pattern : index($_, $pattern) >= 0;
    }
    return;
}

# nginx -t on a configuration (or on the present one): (exit code, output).
sub try_conf ($self, @new) {
    my %kept = %$self;
    $self->configure(@new) if @new;
    # its own log and pid, so that a trial leaves no trace in the real ones
    $self->{log} = "$kept{prefix}/logs/try.log";
    $self->{pid} = "$kept{prefix}/logs/try.pid";
    my $text = $self->conf_text;
    %$self = %kept;
    my $file = $self->{last_file} = $self->write('conf/try.conf', $text);
    return $self->nginx('-t', '-c', $file);
}

# Runs the binary with our prefix: (exit code, output).
sub nginx ($self, @args) {
    my $out = "$self->{prefix}/logs/out";
    my $pid = fork // croak "fork: $!";
    if (!$pid) {
        local %ENV = (%ENV, CC::Memory::environment(), %{ $self->{env} });
        # a make variable of that name would be taken for inherited sockets
        delete $ENV{NGINX} if !exists $self->{env}{NGINX};
        $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP PIPE);
        # not POSIX::_exit alone on failure: the caller must see the reason
        open STDIN,  '<', '/dev/null';
        open STDOUT, '>', $out;
        open STDERR, '>&', \*STDOUT;
        exec { $self->command } $self->command, '-p', "$self->{prefix}/", @args
            or do { print STDERR "exec: $!\n"; POSIX::_exit(127) };
    }
    my $rc;
    until_true(sub { waitpid($pid, POSIX::WNOHANG()) == $pid && defined($rc = $?) },
        $self->{timeout} * 3) or kill 'KILL', $pid;
    if (!defined $rc) {
        waitpid $pid, 0;
        return (-1, "nginx @args did not come back\n");
    }
    return ($rc & 127 ? 128 + ($rc & 127) : $rc >> 8, CC::Proc::slurp($out) // '');
}

sub command ($self) {
    my @cmd = (CC::Memory::command(), CC::Modules::binary());
    return wantarray ? @cmd : $cmd[0];
}

# -- ending ---------------------------------------------------------------

# A daemonized nginx leads a session, and all that it forks stays in it.
sub kill_all ($self) {
    for my $sid (keys %{ delete $self->{sessions} // {} }) {
        my $living = sub {
            my @left = CC::Proc::session_pids($sid);
            kill 'KILL', @left;
            return @left;
        };
        until_true(sub { !$living->() }, 10);
        # the dead become ours one after another, as their parents are reaped
        until_true(sub {
            my @dead = CC::Proc::session_zombies($sid);
            CC::Proc::reap($_) for @dead;
            return !@dead;
        }, 1);
    }
    return;
}

# Who is killed leaves no report of what it has lost.
sub end_gently ($self) {
    my @all = map { CC::Proc::session_pids($_) } keys %{ $self->{sessions} // {} };
    kill $_, @all for qw(CONT TERM);
    until_true(sub { !grep { CC::Proc::alive($_) } @all }, 3);
    return;
}

sub remove ($self) {
    return if !$self->{owner} || $self->{owner} != $$ || $self->{removed}++;
    delete $live{ 0 + $self };
    local ($?, $@, $!);
    $self->end_gently if CC::Memory::on();
    $self->kill_all;
    $self->tell if $self->{own_prefix};
    CC::Memory::collect();
    if ($self->{own_prefix} && !$ENV{TEST_NGINX_KEEP}) {
        remove_tree($self->{prefix}, { safe => 0, error => \my $ignored });
    }
    return;
}

sub failures () {
    my $tb = eval { Test::More->builder } or return 0;
    return scalar grep { !$_ } $tb->summary;
}

# After a failure the end of the error log is often all one needs: of the
# servers that lived when it happened.
sub tell ($self) {
    return if failures() == $self->{failures} && !$self->{dying};
    my $tb = eval { Test::More->builder } or return;
    my @lines = split /\n/, $self->error_log;
    splice @lines, 0, -40 if @lines > 40;
    $tb->diag("the end of $self->{log}:", map { "\n  $_" } @lines);
    return;
}

sub DESTROY ($self) { $self->remove }

sub remove_all () {
    return if $$ != $owner;
    for my $s (grep { defined } values %live) {
        $s->{dying} = 1 if $?;
        $s->remove;
    }
    return;
}

# A signal must run END, where the default action would skip it.
for my $sig (qw(INT TERM HUP)) {
    $SIG{$sig} //= sub { $$ == $owner ? exit 130 : POSIX::_exit(130) };
}

END { remove_all() }

1;
