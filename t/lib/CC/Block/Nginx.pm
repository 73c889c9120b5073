package CC::Block::Nginx;

# The one nginx of a test file: its server root, and how each block gets its
# configuration running -- by a fresh start, or by HUP.

use v5.36;
use File::Find ();
use File::Path qw(make_path remove_tree);
use Test::More ();
use CC::Block::Conf;
use CC::Block::Log;
use CC::Proc;
use CC::Server;
use CC::Wait qw(until_true);
use Test::Nginx::Util ();

my $server;
my $has_config;      # some block has brought one up

sub server () {
    return $server //= CC::Server->new(
        prefix => $Test::Nginx::Util::ServRoot, raw => '', modules => [],
        early_log => 1);
}

# Runs nginx as the block wants it. True when requests may be sent.
sub bring_up ($block, $before_start) {
    my $name = $block->name;
    if (!$block->has('config') && !CC::Block::Conf::stream_ports($block)) {
        die "$name - No '--- config' section specified and no previous one\n"
            if !$has_config;
        return 1;
    }
    $has_config = 1;

    if ($Test::Nginx::Util::UseHup && $server && $server->is_running
        && !$block->has('must_die'))
    {
        return by_reload($block, $before_start);
    }
    shut_down($name);
    $before_start->();
    prepare($block, 0);
    my $s = server();
    $s->{raw} = CC::Block::Conf::text($block);
    CC::Block::Log::restart();
    return must_die($block, $s) if $block->has('must_die');

    my ($rc, $out) = $s->try_start;
    Test::More::diag($out) if length $out && $Test::Nginx::Util::Verbose;
    return 1 if !$rc;
    Test::More::fail("$name - nginx does not start ($rc)");
    Test::More::diag($out . $s->log_tail);
    return 0;
}

sub by_reload ($block, $before_start) {
    my $name = $block->name;
    my $s    = server();
    my @old  = $s->worker_pids;
    prepare($block, 1);
    $s->reopen_logs or Test::More::diag("$name - the logs were not reopened");
    CC::Block::Log::restart();
    my $ok = eval { $s->reload(raw => CC::Block::Conf::text($block), wait_old => 0) };
    if (!$ok) {
        return 1 if $block->has('reload_fails') && !$@;
        Test::More::fail("$name - failed to reload configuration");
        Test::More::diag(($@ || '') . $s->log_tail);
        return 0;
    }
    # a leftover that serves on would answer with the old configuration
    until_true(sub { !grep { CC::Proc::alive($_) } @old }, 10)
        or Test::More::diag("$name - old workers are still there: @old");
    $before_start->();
    return 1;
}

# Asserts that it does not start; as many times as requests would repeat.
sub must_die ($block, $s) {
    my $name = $block->name;
    my $want = $block->get('must_die');
    for my $i (0 .. $Test::Nginx::Util::RepeatEach - 1) {
        my ($rc, $out) = $s->try_start;
        if ($want =~ /^\d+$/) {
            Test::More::is($rc, $want, "$name - die with the expected exit code");
        }
        else {
            Test::More::isnt($rc, 0, "$name - die as expected");
        }
        CC::Block::Log::error_log($block, $i);
        if ($s->is_running) {
            Test::More::diag("$name - nginx must die but runs; ended");
            $s->stop;
        }
    }
    return 0;
}

sub shut_down ($name) {
    return if !$server || !$server->is_running;
    my $seconds = Test::Nginx::Util::timeout();
    $seconds = 5 if $seconds < 5;
    my $gone = $ENV{TEST_NGINX_FAST_SHUTDOWN} ? $server->stop($seconds) : $server->quit($seconds);
    Test::More::diag("$name - nginx had to be killed: it did not leave in ${seconds}s") if !$gone;
    return;
}

sub kill_now () { $server->remove if $server }

# -- the server root ------------------------------------------------------

# Only what we and nginx make there is removed: the variable may point
# anywhere. A running nginx keeps its pid file and its sockets.
sub prepare ($block, $running) {
    my $root = $Test::Nginx::Util::ServRoot;
    if ($running) {
        File::Find::find({ no_chdir => 1, wanted => sub {
            unlink if !-d && !/(?:\bnginx\.pid|\.sock|\.crt|\.key)$/;
        } }, grep { -d } map { "$root/$_" } qw(logs html conf));
    }
    else {
        remove_tree(map { "$root/$_" } qw(logs html conf));
    }
    remove_tree(glob("$root/*_temp"), glob("$root/*_cache"));
    make_path(map { "$root/$_" } qw(conf logs html));
    server()->write('html/index.html',
        '<html><head><title>It works!</title></head><body>It works!</body></html>');
    evaluate($block, 'post_setup_server_root');
    user_files($block);
    return;
}

sub user_files ($block) {
    my $files = $block->get('user_files') // return;
    my $name  = $block->name;
    $files = [ parse_files($files) ] if !ref $files;
    for my $file (@$files) {
        my ($path, $text, $date) = @$file;
        $path = "$Test::Nginx::Util::HtmlDir/$path" if $path !~ m{^/};
        server()->write($path, Test::Nginx::Util::expand_env_in_text($text // '', $name));
        next if !defined $date;
        system('env', 'TZ=GMT', 'touch', '-t', $date, $path) == 0
            or die "$name - --- user_files: touch -t $date failed\n";
    }
    return;
}

# ">>> name [date]" opens a file.
sub parse_files ($text) {
    my @files;
    for my $line ($text =~ /^(.*\n?)/gm) {
        if ($line =~ /^>>> (\S+)(?:\s+(\S.*?))?\s*$/) { push @files, [ $1, '', $2 ] }
        elsif (@files)                               { $files[-1][1] .= $line }
    }
    return @files;
}

sub evaluate ($block, $section) {
    my $code = $block->get($section) // return;
    CC::Block::Filter::Sandbox::evaluate($code);
    die $block->name . " - $section failed: $@" if $@;
    return;
}

1;
