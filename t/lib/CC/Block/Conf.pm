package CC::Block::Conf;

# The nginx.conf of one block, laid out as the original lays it out, so that
# a block means the same to both.

use v5.36;
use CC::Modules;
use Test::Nginx::Util ();

sub text ($block) {
    my $name   = $block->name;
    my $expand = sub ($section) {
        return Test::Nginx::Util::expand_env_in_text($block->get($section) // '', $name);
    };
    my $http = $expand->('http_config');
    $http = $Test::Nginx::Util::FilterHttpConfig->($http)
        if $Test::Nginx::Util::FilterHttpConfig;
    my $log = $expand->('error_log_file') || $Test::Nginx::Util::ErrLogFile;

    return join "\n",
        head($log), modules(), $expand->('main_config'), stream($block),
        'http {', http_head($http), $http,
        server($block, $expand->('config')), '}',
        $expand->('post_main_config'),
        'events {', '    accept_mutex off;',
        "    worker_connections $Test::Nginx::Util::WorkerConnections;",
        $ENV{TEST_NGINX_EVENT_TYPE} ? "    use $ENV{TEST_NGINX_EVENT_TYPE};" : (),
        '}', '';
}

sub head ($log) {
    my @lines = (
        "worker_processes $Test::Nginx::Util::Workers;",
        'daemon on;',
        # a lone process reloads in ways no production nginx does
        'master_process ' . ($Test::Nginx::Util::UseHup ? 'on'
            : $Test::Nginx::Util::MasterProcessEnabled) . ';',
        "error_log $log $Test::Nginx::Util::LogLevel;",
        "pid $Test::Nginx::Util::PidFile;",
    );
    if (my $user = $ENV{TEST_NGINX_WORKER_USER} // ($> == 0 ? 'root' : undef)) {
        push @lines, "user $user;";
    }
    for my $var (qw(LD_PRELOAD LD_LIBRARY_PATH ASAN_OPTIONS), @Test::Nginx::Util::EnvToNginx) {
        push @lines, 'env ' . ($var =~ /\s/ ? "'$var'" : $var) . ';';
    }
    return @lines;
}

sub modules () { map { "load_module $_;" } CC::Modules::available() }

sub http_head ($http) {
    my $root  = $Test::Nginx::Util::ServRoot;
    my $built = CC::Modules::build_info();
    my @lines = (
        "    access_log $Test::Nginx::Util::AccLogFile;",
        '    default_type text/plain;',
        '    keepalive_timeout 68000ms;',
    );
    for my $kind (qw(client_body proxy fastcgi uwsgi scgi)) {
        next if $built =~ /--without-http_${kind}_module/;
        next if $http  =~ /\b${kind}_temp_path\b/;
        push @lines, "    ${kind}_temp_path $root/${kind}_temp;";
    }
    if (my $bytes = $ENV{TEST_NGINX_POSTPONE_OUTPUT}) {
        push @lines, "    postpone_output $bytes;" if $http !~ /\bpostpone_output\b/;
    }
    return @lines;
}

sub server ($block, $config) {
    my $name = $block->get('server_name') // $Test::Nginx::Util::ServerName;
    $name =~ s/([\\'])/\\$1/g;
    my @lines = (
        '    server {',
        "        listen $Test::Nginx::Util::ServerPort"
            . ($ENV{TEST_NGINX_REUSE_PORT} ? ' reuseport' : '') . ';',
        "        server_name '$name';",
        '        client_max_body_size 30M;',
        $Test::Nginx::Util::ConfigPreamble,
        $config,
    );
    push @lines, '        location / {',
        "            root $Test::Nginx::Util::HtmlDir;",
        '            index index.html index.htm;',
        '        }' if !$Test::Nginx::Util::NoRootLocation;
    return @lines, '    }';
}

# -- stream ---------------------------------------------------------------

# Ports of the stream servers of the block, in order.
sub stream_ports ($block) {
    return if !$block->has('stream_config') && !$block->has('stream_server_config');
    my $first = $ENV{TEST_NGINX_STREAM_PORT} // $Test::Nginx::Util::ServerPort + 1;
    my $more  = grep { $block->has("stream_server_config$_") } 2, 3;
    return map { $first + $_ } 0 .. $more;
}

sub stream ($block) {
    my @ports = stream_ports($block) or return;
    my $get = sub ($section) {
        return Test::Nginx::Util::expand_env_in_text($block->get($section) // '', $block->name);
    };
    my @lines = ('stream {', $get->('stream_config'));
    for my $i (1 .. @ports) {
        my $nth = $i == 1 ? '' : $i;
        my $opt = $get->("steam_listen_option$nth") =~ s/\s+\z//r;
        push @lines, '    server {', "        listen $ports[$i - 1] $opt;",
            $get->("stream_server_config$nth"), '    }';
    }
    return @lines, '}';
}

1;
