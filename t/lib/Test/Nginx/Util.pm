package Test::Nginx::Util;

# The settings of a test file, under the names the original gives them, for
# files (and skip_eval code) that look at $Test::Nginx::Util::NginxVersion
# and its kin. Set by the functions below or by the environment.

use v5.36;
use Carp qw(croak);
use Exporter 'import';
use File::Basename ();
use File::Spec ();
use CC::Modules;
use CC::Ports;

our @EXPORT_OK = qw($ServerPort $ServerPortForClient $ServerAddr $ServerName
    $NginxVersion $OpenSSLVersion $PcreVersion $ServRoot $HtmlDir $ConfFile
    $PidFile $RepeatEach $NoLongString is_running parse_time trim expand_env_in_text);
our @EXPORT = qw(env_to_nginx config_preamble repeat_each worker_connections
    workers master_on master_off master_process_enabled log_level
    no_long_string no_diff no_shuffle no_root_location use_hup
    server_addr server_name server_root server_port server_port_for_client
    html_dir timeout check_accum_error_log add_block_preprocessor
    add_response_body_check add_cleanup_handler add_test_cleanup_handler
    bail_out);

for (qw(CHECK_LEAK BENCHMARK USE_STAP USE_RR USE_HTTP2 USE_HTTP3 NO_NGINX_MANAGER)) {
    die "TEST_NGINX_$_ works under the original Test::Nginx only\n" if $ENV{"TEST_NGINX_$_"};
}

our $RepeatEach        = 1;
our $Workers           = 1;
our $WorkerConnections = 64;
our $LogLevel          = $ENV{TEST_NGINX_LOG_LEVEL} || 'debug';
our $MasterProcessEnabled = $ENV{TEST_NGINX_MASTER_PROCESS} || 'off';
our $Timeout           = $ENV{TEST_NGINX_TIMEOUT} || 3;
our $NoShuffle         = $ENV{TEST_NGINX_NO_SHUFFLE} || 0;
our $UseHup            = $ENV{TEST_NGINX_USE_HUP} || 0;
our $UseValgrind       = $ENV{TEST_NGINX_USE_VALGRIND} || 0;
our $Verbose           = $ENV{TEST_NGINX_VERBOSE} || 0;
our $Randomize         = $ENV{TEST_NGINX_RANDOMIZE} || 0;
our $CheckAccumErrLog  = $ENV{TEST_NGINX_CHECK_ACCUM_ERR_LOG} || 0;
our $ServerAddr        = '127.0.0.1';
our $ServerName        = 'localhost';
our $NoRootLocation    = 0;
our $NoLongString      = 0;
our $NoDiff            = 0;
our $ConfigPreamble    = '';
our $FilterHttpConfig;
our (@EnvToNginx, @BlockPreprocessors, @ResponseBodyChecks,
    @CleanupHandlers, @TestCleanupHandlers);

our $ServerPort = $Randomize ? CC::Ports::port()
    : $ENV{TEST_NGINX_SERVER_PORT} || $ENV{TEST_NGINX_PORT} || default_port();
our $ServerPortForClient = $Randomize ? $ServerPort
    : $ENV{TEST_NGINX_CLIENT_PORT} || $ServerPort;

our $ServRoot = $Randomize ? File::Spec->rel2abs("t/servroot_$ServerPort")
    : $ENV{TEST_NGINX_SERVROOT} || default_root();
# A root of our own choosing goes when all went well.
our $DisposeRoot = $Randomize || !$ENV{TEST_NGINX_SERVROOT};
our $LogDir     = "$ServRoot/logs";
our $ErrLogFile = "$LogDir/error.log";
our $AccLogFile = "$LogDir/access.log";
our $PidFile    = "$LogDir/nginx.pid";
our $HtmlDir    = "$ServRoot/html";
our $ConfFile   = "$ServRoot/conf/nginx.conf";

$ENV{TEST_NGINX_SERVER_ROOT} = $ServRoot;
$ENV{TEST_NGINX_HTML_DIR} //= $HtmlDir;

our ($NginxVersion, $OpenSSLVersion, $PcreVersion);
for (CC::Modules::build_info()) {
    $NginxVersion   = canon($1, $2, $3) if m{^nginx version: \S+?/(\d+)\.(\d+)\.(\d+)}m;
    $OpenSSLVersion = canon($1, $2, $3)
        . ($4 ? sprintf '%03d', ord($4) - ord 'a' : '')
        if /built with OpenSSL (\d+)\.(\d+)\.(\d+)([a-z])?/;
    $PcreVersion = $NginxVersion >= 1.025 && !/--without-pcre2/ ? 2 : /pcre/ ? 1 : 0;
}

# Port 1984 as in the original, or any other while 1984 is somebody else's.
sub default_port () {
    return CC::Ports::reserve(1984) && CC::Ports::is_free(1985) ? 1984 : CC::Ports::block(8);
}

sub default_root () {
    my $suite = File::Basename::basename($0, '.t');
    return File::Spec->rel2abs("t/servroot_$suite");
}

sub canon ($major, $minor, $patch) { sprintf '%d.%03d%03d', $major, $minor, $patch }

# Getter without an argument, setter with one.
sub setting ($ref, @new) {
    $$ref = $new[0] if @new;
    return $$ref;
}

sub repeat_each        { setting(\$RepeatEach, @_) }
sub worker_connections { setting(\$WorkerConnections, @_) }
sub workers            { setting(\$Workers, @_) }
sub log_level          { setting(\$LogLevel, @_) }
sub timeout            { setting(\$Timeout, @_) }
sub server_addr        { setting(\$ServerAddr, @_) }
sub server_name        { setting(\$ServerName, @_) }
sub server_port        { setting(\$ServerPort, @_) }
sub server_port_for_client { setting(\$ServerPortForClient, @_) }
sub config_preamble :prototype($) { setting(\$ConfigPreamble, @_) }

sub master_on  { $MasterProcessEnabled = 'on' }
sub master_off { $MasterProcessEnabled = 'off' }

sub master_process_enabled {
    $MasterProcessEnabled = $_[0] ? 'on' : 'off' if @_;
    return $MasterProcessEnabled;
}

sub no_long_string :prototype() { $NoLongString = 1 }
sub no_diff        :prototype() { $NoDiff = 1 }
sub no_shuffle     :prototype() { $NoShuffle = 1 }
sub use_hup        :prototype() { $UseHup = 1 }
sub no_root_location      :prototype() { $NoRootLocation = 1 }
sub check_accum_error_log :prototype() { $CheckAccumErrLog = 1 }
sub html_dir    :prototype() { $HtmlDir }
sub server_root :prototype() { $ServRoot }

sub env_to_nginx {
    croak 'env_to_nginx: no arguments specified' if !@_;
    for (@_) {
        croak "env_to_nginx: bad argument value: $_" if !/^[A-Za-z_]/ || /\n/;
    }
    push @EnvToNginx, @_;
}

sub add_block_preprocessor  :prototype(&) { unshift @BlockPreprocessors, $_[0] }
sub add_response_body_check :prototype($) { push @ResponseBodyChecks, $_[0] }
sub add_cleanup_handler     :prototype($) { unshift @CleanupHandlers, $_[0] }
sub add_test_cleanup_handler :prototype($) { unshift @TestCleanupHandlers, $_[0] }

sub set_http_config_filter :prototype($) { $FilterHttpConfig = $_[0] }

sub bail_out {
    run_cleanup();
    require Test::More;
    Test::More::BAIL_OUT(join '', @_);
}

sub run_cleanup { $_->() for splice @CleanupHandlers }

sub is_running { kill 0, $_[0] }

# "100ms", "2s", "0.5" in seconds.
sub parse_time ($time) {
    return if !defined $time;
    return $1 / 1000 if $time =~ /^\s*([\d.]+)ms\s*$/;
    return $1        if $time =~ /^\s*([\d.]+)s?\s*$/;
    croak "bad time '$time'";
}

sub trim ($s) {
    return if !defined $s;
    return $s =~ s/^\s+|\s+$//gr =~ s/\s+/ /gr;
}

our $RandPorts = {};      # of the block being run

# $TEST_NGINX_NAME from the environment; TEST_NGINX_RAND_PORT_n is a free
# port, the same all through one block.
sub expand_env_in_text ($text, $name, $ports = $RandPorts) {
    return $text if !defined $text || ref $text;
    $text =~ s{\$(TEST_NGINX_[_A-Z0-9]+)}{
        my $var = $1;
        $var =~ /^TEST_NGINX_RAND_PORT_\d+$/
            ? $ports->{$var} //= CC::Ports::port()
            : $ENV{$var} // bail_out("$name - No environment $var defined.")
    }ge;
    return $text;
}

1;
