# What a checker of memory writes fails a suite, and only what is an error does.
use v5.36;
use Test::More;
use FindBin;

# A suite in which one test holds, and the checker has written that: its exit code, and what it shows.
sub suite ($checker, $text) {
    my $code = <<~'PERL';
        use v5.36;
        use Test::More;
        use CC::Memory;
        my ($dir) = join(' ', CC::Memory::command(), CC::Memory::environment()) =~ m{log[-_](?:file|path)=(/[^ :]+)/} or die "no place for reports";
        for my $pid (7, 8) {
            open my $fh, '>', "$dir/$pid" or die "$dir: $!";
            print $fh $ENV{CC_REPORT} =~ s/PID/$pid/gr;
            close $fh;
        }
        pass 'holds';
        done_testing;
        PERL
    local %ENV = (%ENV, CC_REPORT => $text);
    delete @ENV{qw(TEST_NGINX_USE_VALGRIND TEST_NGINX_USE_ASAN TEST_NGINX_KEEP)};
    $ENV{$checker} = 1;
    open my $from, '-|', 'sh', '-c', 'exec "$@" 2>&1', 'sh', $^X, '-It/lib', "-I$FindBin::Bin/lib", '-e', $code or die $!;
    my $out = do { local $/; readline $from };
    close $from;
    return ($? >> 8, $out);
}

my $UNKNOWN = "--PID-- WARNING: unhandled amd64-linux syscall: 434\n--PID-- You may be able to write your own handler.\n";
my $READ    = "==PID== Invalid read of size 8\n==PID==    at 0x1: ngx_f (in /usr/sbin/nginx)\n==PID== \n";
my $KILLED  = "==PID== \n==PID== Process terminating with default action of signal 15 (SIGTERM)\n==PID==    at 0x1: epoll_wait\n";
my $FAULT   = "==PID== \n==PID== Process terminating with default action of signal 11 (SIGSEGV)\n"
    . "==PID==  Access not within mapped region at address 0x0\n==PID==    at 0x1: ngx_f\n";
for (
    [ 'nothing',                         '',                        0 ],
    [ 'a system call that is not known', $UNKNOWN,                  0 ],
    [ 'a signal from outside',           $KILLED,                   0 ],
    [ 'a read outside',                  $READ,                     1 ],
    [ 'a fault',                         $FAULT,                    1 ],
    [ 'a read among others',             "$UNKNOWN$UNKNOWN$READ$KILLED", 1 ],
) {
    my ($what, $text, $wrong) = @$_;
    my ($code, $out) = suite(TEST_NGINX_USE_VALGRIND => $text);
    is $code, $wrong, "memcheck: $what";
    is scalar(() = $out =~ /Invalid read|Access not within/g), 2 * $wrong, 'shown, of each process';
    is scalar(() = $out =~ /unhandled/g), $text =~ /unhandled/ ? 1 : 0, 'what it does not know is shown once';
}
my ($code, $out) = suite(TEST_NGINX_USE_ASAN => "==PID==ERROR: AddressSanitizer: heap-use-after-free on address 0x1\n    #0 0x1 in f f.rs:1\n");
is $code, 1, 'address sanitizer: a report';
like $out, qr/heap-use-after-free.*\n.*f\.rs:1/, 'with where it was';
done_testing;
