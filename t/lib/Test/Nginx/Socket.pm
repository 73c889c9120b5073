package Test::Nginx::Socket;

# The declarative test runner: the format and the functions of OpenResty's
# Test::Nginx::Socket, so that a test file runs under either. The format is
# described there; what differs is in t/README.md.

use v5.36;
use Carp ();
use File::Path ();
use List::Util ();
use Test::More ();
use Test::Nginx::Util;
use CC::Block::Filter;
use CC::Block::Run;
use CC::Block::Sections;
use CC::Block::Spec;

our $VERSION = '0.33';

my @MORE = qw(ok is isnt like unlike is_deeply cmp_ok skip todo_skip pass fail
    eq_array eq_hash eq_set plan can_ok isa_ok diag use_ok);
my @OWN  = qw(run_tests blocks filters is_str spec_string);

my ($spec, @blocks, $parsed, %filter_map, $ran);

# Arguments are a plan, as for Test::More; -Base makes the caller a runner
# with the same exports.
sub import ($class, @plan) {
    my $caller = caller;
    strict->import;
    warnings->import;
    my $base = grep { /^-base$/i } @plan;
    @plan = grep { !/^-base$/i } @plan;
    no strict 'refs';
    @{"${caller}::ISA"} = ($class, @{"${caller}::ISA"}) if $base;
    export_to($caller);
    Test::More::plan(@plan) if @plan;
    return;
}

sub export_to ($caller) {
    no strict 'refs';
    *{"${caller}::$_"} = \&{"Test::More::$_"} for grep { defined &{"Test::More::$_"} } @MORE;
    *{"${caller}::TODO"} = \$Test::More::TODO;
    *{"${caller}::$_"} = \&{"Test::Nginx::Util::$_"} for @Test::Nginx::Util::EXPORT;
    *{"${caller}::$_"} = \&$_ for @OWN;
    *{"${caller}::$_"} = \&{"Carp::$_"} for qw(croak carp confess);
    return;
}

# -- what a test file calls -----------------------------------------------

sub spec_string { $spec = $_[-1] }

# { section => filter or [filters] }, applied wherever the section stands.
sub filters { %filter_map = (%filter_map, %{ $_[0] }) }

# Their number in scalar context, which is what plans are made of.
sub blocks {
    parse_spec();
    my @list = defined $_[0] ? grep { $_->has($_[0]) } @blocks : @blocks;
    return scalar @list if !wantarray;
    $_->run_filters(\%filter_map) for @list;
    return @list;
}

sub is_str { goto &CC::Block::Checks::is_str }

sub run_tests {
    $ENV{TEST_NGINX_SERVER_PORT} //= $Test::Nginx::Util::ServerPort;
    my @list = blocks();
    # a section that the file's own code reads may bear any name; where no
    # such code can come later, a wrong name is told before anything runs
    my $late = @Test::Nginx::Util::ResponseBodyChecks
        + @Test::Nginx::Util::TestCleanupHandlers;
    for my $block (@list) {
        $_->($block) for @Test::Nginx::Util::BlockPreprocessors;
        check_names($block) if !$late;
    }

    @list = List::Util::shuffle(@list) if !$Test::Nginx::Util::NoShuffle;
    $ran  = 1;
    for my $block (@list) {
        $block->set_value(name => "$0 " . $block->name);
        CC::Block::Run::block($block);
        $_->($block) for @Test::Nginx::Util::TestCleanupHandlers;
        check_names($block) if $late;
    }
    Test::Nginx::Util::run_cleanup();
    return;
}

sub parse_spec () {
    return if $parsed++;
    if (!defined $spec) {
        no warnings 'once';
        local $/;
        $spec = readline main::DATA;
    }
    @blocks = CC::Block::Spec::parse($spec);
    return;
}

sub check_names ($block) {
    my %unasked = map { $_ => 1 } $block->unasked;
    my @unknown = grep { $unasked{$_} } CC::Block::Sections::unknown($block->sections);
    die $block->name . ': unknown section ' . join(', ', map { "--- $_" } @unknown) . "\n"
        if @unknown;
    return;
}

# As in the original, the last shutdown belongs to the end of the program;
# it still counts as a test, this END running before that of Test::More.
my $owner = $$;

END {
    if ($$ == $owner) {
        my $status = $?;
        Test::Nginx::Util::run_cleanup();
        CC::Block::Run::finish() if $ran && !$ENV{TEST_NGINX_NO_CLEAN} && !$status;
        tell_log() if $ran && !Test::More->builder->is_passing;
        CC::Block::Nginx::kill_now() if !$ENV{TEST_NGINX_NO_CLEAN};
        File::Path::remove_tree($Test::Nginx::Util::ServRoot)
            if $Test::Nginx::Util::DisposeRoot && !$ENV{TEST_NGINX_NO_CLEAN}
            && !$ENV{TEST_NGINX_KEEP} && !$status && Test::More->builder->is_passing;
        $? = $status;
    }
}

# The log of the last block only; the others are overwritten.
sub tell_log () {
    my $lines = CC::Block::Log::lines_from($Test::Nginx::Util::ErrLogFile);
    my @tell  = grep { /^\S+ \S+ \[(?:warn|error|crit|alert|emerg)\]/ } @$lines;
    splice @tell, 0, -30 if @tell > 30;
    Test::More::diag("of $Test::Nginx::Util::ErrLogFile:\n", map { "  $_" } @tell) if @tell;
    return;
}

1;
