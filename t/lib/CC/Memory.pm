package CC::Memory;

# nginx under a checker of memory, if the environment asks for one: TEST_NGINX_USE_VALGRIND for memcheck,
# TEST_NGINX_USE_ASAN with the path of the address sanitizer's runtime. How it is started, and what it
# found: a report fails the suite, whose exit code is then not 0. t/lib/valgrind.supp leaves nginx's own out.

use v5.36;
use File::Path qw(remove_tree);
use File::Temp ();
use Test::More ();
use CC::Proc;

my ($LIB) = __FILE__ =~ m{^(.*)/CC/Memory\.pm$};
my $owner   = $$;
my $reports = 0;

sub on () { $ENV{TEST_NGINX_USE_VALGRIND} || $ENV{TEST_NGINX_USE_ASAN} ? 1 : 0 }

# Where the reports go, one file for each process; workers of another user write there, too.
my $dir = on() && File::Temp::tempdir('ngx-cc-memory-XXXXXX', TMPDIR => 1);
chmod 0777, $dir if $dir;

# In front of nginx and its arguments. A value of the variable with a dash is valgrind's options.
sub command () {
    my $options = $ENV{TEST_NGINX_USE_VALGRIND} || return;
    return (
        # a daemon closes its stderr, so the reports go elsewhere; children: a binary upgrade
        qw(/usr/bin/valgrind -q --num-callers=40 --vgdb=no --trace-children=yes), "--log-file=$dir/%p",
        "--suppressions=$LIB/valgrind.supp",
        $options =~ /^-/ ? split(' ', $options)
            : qw(--leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite),
    );
}

# Into nginx's environment.
sub environment () {
    my $runtime = $ENV{TEST_NGINX_USE_ASAN} || return;
    return (
        LD_PRELOAD => $runtime,
        # Tests kill with signals of all kinds; a fault of the worker's own is an alert in the log. What
        # is lost is for memcheck to say: this one takes what nginx's pools hold for lost.
        ASAN_OPTIONS => join(':', "log_path=$dir/of", qw(handle_segv=0 handle_sigbus=0 handle_sigfpe=0
            handle_abort=0 handle_sigill=0 detect_leaks=0 detect_stack_use_after_return=1)),
    );
}

# What a configuration has to say so that a binary upgrade is checked, too.
sub directives () { map { "env $_;" } environment() ? qw(LD_PRELOAD ASAN_OPTIONS) : () }

# Shows what is new. What memcheck says of its own doing (a system call that it does not know) is no
# error, and told once.
sub collect () {
    return if !$dir || $$ != $owner;
    state (%told, %seen);
    for my $path (glob "$dir/*") {
        my $text = CC::Proc::slurp($path) // next;
        $text =~ s{^--\d+-- (.*)\n}{ $told{$1}++ or Test::More->builder->diag($1); '' }gme;
        for my $report (grep { length } split /\n?^==\d+== *\n/m, $text) {
            next if $seen{"$path $report"}++ || is_signal($report);
            $reports++;
            Test::More->builder->diag($report);
        }
    }
    return;
}

# A test that kills a worker gets told of it; a fault of the worker's own has an address, too.
sub is_signal ($part) {
    return $part =~ /== Process terminating with default action of signal/
        && $part !~ /Access not within|Bad permissions|General Protection|\babort \(/;
}

END {
    if ($dir && $$ == $owner) {
        collect();
        remove_tree($dir) if !$ENV{TEST_NGINX_KEEP};
        Test::More->builder->diag("$reports reports of memory errors") if $reports;
        $? ||= 1 if $reports;
    }
}

1;
