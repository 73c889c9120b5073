package CC::Browser;

# A headless Chromium, spoken to over its debugging pipe (DevTools protocol,
# JSON texts that end in NUL), with a profile of its own that is removed.
# It can reach loopback only, and only what the test asks for.

use v5.36;
use Carp qw(croak);
use File::Path qw(remove_tree);
use File::Temp ();
use JSON::PP ();
use POSIX ();
use CC::Wait qw(until_true now);

my $json = JSON::PP->new->utf8->allow_nonref;

# The program, or undef.
sub program () {
    for my $name ($ENV{CC_CHROMIUM} // (), qw(chromium chromium-browser google-chrome)) {
        for my $path ($name =~ m{/} ? $name : map { "$_/$name" } split /:/, $ENV{PATH}) {
            return $path if -f $path && -x _;
        }
    }
    return;
}

sub start ($class) {
    my $program = program() // croak 'there is no chromium';
    pipe my $their_in, my $to or croak "pipe: $!";
    pipe my $from, my $their_out or croak "pipe: $!";
    my $profile = File::Temp::tempdir('cc-browser-XXXXXX', TMPDIR => 1);
    my $pid = fork // croak "fork: $!";
    if (!$pid) {
        POSIX::setpgid(0, 0);
        # 3 and 4 are the numbers that it knows; not by way of each other
        my ($in, $out) = map { POSIX::dup(fileno $_) } $their_in, $their_out;
        POSIX::dup2($in, 3);
        POSIX::dup2($out, 4);
        open STDIN,  '<', '/dev/null';
        open STDOUT, '>', '/dev/null';
        open STDERR, '>', "$profile/log";
        $ENV{HOME} = $profile;
        exec { $program } $program, qw(--headless --no-sandbox --disable-gpu --disable-quic
            --no-first-run --disable-background-networking --disable-component-update --disable-sync
            --disable-dev-shm-usage --disable-extensions --no-proxy-server --remote-debugging-pipe),
            "--user-data-dir=$profile/profile", 'about:blank'
            or POSIX::_exit(127);
    }
    close $their_in;
    close $their_out;
    $from->blocking(0);
    my $self = bless { pid => $pid, to => $to, from => $from, profile => $profile, buf => '',
        last => 0, events => [], owner => $$ }, $class;
    my ($page) = grep { $_->{type} eq 'page' } $self->call('Target.getTargets')->{targetInfos}->@*;
    $self->{session} = $self->call('Target.attachToTarget', { targetId => $page->{targetId}, flatten => JSON::PP::true })->{sessionId};
    $self->call($_) for qw(Page.enable Runtime.enable Log.enable);
    return $self;
}

# The result of a command; dies when it is refused.
sub call ($self, $method, $params = {}) {
    my $id = ++$self->{last};
    my %command = (id => $id, method => $method, params => $params);
    $command{sessionId} = $self->{session} if $self->{session};
    local $SIG{PIPE} = 'IGNORE';
    my $text = $json->encode(\%command) . "\0";
    syswrite($self->{to}, $text) == length $text or croak "the browser is gone: $!";
    my $end = now() + 60;
    while (1) {
        my $message = $self->message($end) // croak "no answer to $method: " . $self->log;
        if (($message->{id} // 0) != $id) { push $self->{events}->@*, $message; next }
        croak "$method: $message->{error}{message}" if $message->{error};
        return $message->{result};
    }
}

sub message ($self, $end) {
    while ($self->{buf} !~ /\0/) {
        my $bits = '';
        vec($bits, fileno $self->{from}, 1) = 1;
        my $left = $end - now();
        return if $left <= 0;
        select $bits, undef, undef, $left;
        my $got = sysread $self->{from}, $self->{buf}, 65536, length $self->{buf};
        return if defined $got && !$got;
    }
    $self->{buf} =~ s/^([^\0]*)\0//;
    return $json->decode($1);
}

sub log ($self) {
    open my $fh, '<', "$self->{profile}/log" or return '';
    local $/;
    return readline $fh // '';
}

sub go ($self, $url) { $self->call('Page.navigate', { url => $url }) }

# The value of a JavaScript expression; dies when it throws.
sub value ($self, $expression) {
    my $got = $self->call('Runtime.evaluate', { expression => $expression, returnByValue => JSON::PP::true,
        awaitPromise => JSON::PP::true });
    croak $got->{exceptionDetails}{exception}{description} // 'it throws' if $got->{exceptionDetails};
    return $got->{result}{value};
}

# Waits until the expression is true; its value.
sub until ($self, $expression, $seconds = CC::Wait::DEADLINE) {
    return until_true(sub { eval { $self->value($expression) } }, $seconds);
}

# What went wrong in the page so far, as its console tells.
sub errors ($self) {
    $self->value('1');      # what was on its way is there
    my @errors;
    for my $event ($self->{events}->@*) {
        my ($method, $params) = @$event{qw(method params)};
        next if !defined $method;
        push @errors, $params->{exceptionDetails}{exception}{description} // $params->{exceptionDetails}{text}
            if $method eq 'Runtime.exceptionThrown';
        push @errors, join ' ', map { $_->{value} // $_->{description} // '' } $params->{args}->@*
            if $method eq 'Runtime.consoleAPICalled' && $params->{type} =~ /^(?:error|warning|assert)$/;
        push @errors, "$params->{entry}{text} $params->{entry}{url}"
            if $method eq 'Log.entryAdded' && $params->{entry}{level} =~ /^(?:error|warning)$/;
    }
    return @errors;
}

# As on a screen of that size.
sub size ($self, $width, $height) {
    return $self->call('Emulation.setDeviceMetricsOverride', { width => $width, height => $height,
        deviceScaleFactor => 1, mobile => $width < 600 ? JSON::PP::true : JSON::PP::false });
}

# `light` or `dark`.
sub scheme ($self, $scheme) {
    return $self->call('Emulation.setEmulatedMedia', { features => [ { name => 'prefers-color-scheme', value => $scheme } ] });
}

# A picture of the whole page, into that file.
sub picture ($self, $file) {
    require MIME::Base64;
    my $got = $self->call('Page.captureScreenshot', { format => 'png', captureBeyondViewport => JSON::PP::true });
    open my $fh, '>:raw', $file or croak "$file: $!";
    print $fh MIME::Base64::decode_base64($got->{data});
    close $fh or croak "$file: $!";
    return $file;
}

sub quit ($self) {
    return if !$self->{pid} || $self->{owner} != $$;
    my $pid = delete $self->{pid};
    local ($?, $!, $@);
    kill 'KILL', -$pid, $pid;
    waitpid $pid, 0;
    close $self->{$_} for qw(to from);
    # its children may still be writing
    until_true(sub { remove_tree($self->{profile}, { safe => 0, error => \my $ignored }); !-e $self->{profile} }, 5);
    return;
}

sub DESTROY ($self) { $self->quit }

1;
