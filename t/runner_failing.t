# A runner that cannot fail proves nothing: each of these blocks must be
# reported, by a child prove.
use v5.36;
use Test::More;
use CC::Proc;
use CC::Server;
use File::Temp ();
use FindBin;

my $dir = File::Temp::tempdir('ngx-cc-XXXXXX', TMPDIR => 1, CLEANUP => 1);
local $ENV{TEST_NGINX_SERVROOT} = "$dir/servroot";
# what is never logged is waited for; here that is most of the blocks
local $ENV{TEST_NGINX_TIMEOUT} = 0.3;
delete local $ENV{TEST_NGINX_USE_HUP};

my %bad = (
    'wrong status'       => "--- error_code: 201",
    'wrong body'         => "--- response_body: other",
    'wrong pattern'      => "--- response_body_like: other",
    'unlike'             => "--- response_body_unlike: fi.e",
    'wrong header'       => "--- response_headers\nX-A: 2",
    'header not absent'  => "--- response_headers\n! X-A",
    'header like'        => "--- response_headers_like\nX-A: \\d\\d",
    'raw headers'        => "--- raw_response_headers_like: chunked",
    'log lacks'          => "--- error_log\nnever said",
    'log has'            => "--- no_error_log\n[error]",
    'grep'               => "--- grep_error_log: nowhere\n--- grep_error_log_out\nelsewhere",
    'access log has'     => "--- no_access_log\nGET /t",
    'shutdown log'       => "--- shutdown_error_log\nnever said",
    'must die but lives' => "--- must_die",
    'client times out'   => "--- config\nlocation /t { content_by_lua_block { ngx.sleep(2) } }\n--- ignore_response",
    'does not start'     => "--- config\nbogus;",
    'unknown section'    => "--- response_boddy: fine",
    'section twice'      => "--- request\nGET /t",
    'eval fails'         => "--- response_body eval\n1 +* 2",
    'plan too long'      => "--- PLAN",
);
plan tests => 2 + keys(%bad) + 4;

my $good = run_child('all is well', '--- response_body: fine');
is $good->{code}, 0, 'a passing block passes' or diag $good->{out};
unlike $good->{out}, qr/^not ok/m, 'and says so';

for my $why (sort keys %bad) {
    my $r = run_child($why, $bad{$why});
    ok $r->{code} != 0 && $r->{out} !~ /^Result: PASS/m, "reported: $why" or diag $r->{out};
}

# -- CC::Server: assertions and cleanup --------------------------------------

my $r = run_text(<<'EOT');
use v5.36; use Test::More; use CC::Server;
my $s = CC::Server->new(module => 0, http => 'server { listen 127.0.0.1:%PORT%; location /x { alias /nowhere/; } }')->start;
$s->get($s->port, '/x/y');
$s->log_is_clean;
done_testing;
EOT
like $r->{out}, qr/^not ok 1 - the error log is clean/m, 'an unexpected error in the log';
like $r->{out}, qr/the end of .*error\.log/, 'the end of the log is shown';

for my $end ('die "mid-test\n"', 'kill INT => $$; sleep 5') {
    $r = run_text(<<"EOT");
use v5.36; use Test::More; use CC::Server;
\$| = 1;
my \$s = CC::Server->new(module => 0, http => '')->start;
print STDERR "left: ", join(' ', \$s->prefix, \$s->master_pid, \$s->workers), "\\n";
$end;
EOT
    my ($prefix, @pids) = split ' ', $r->{out} =~ /^left: (.*)/m ? $1 : '';
    ok @pids && !-e $prefix && !(grep { CC::Proc::alive($_) } @pids),
        "nothing is left after: $end" or diag $r->{out};
}

sub run_child ($why, $sections) {
    my $plan  = $sections =~ s/--- PLAN// ? 'tests => 99' : q('no_plan');
    my $config = $sections =~ /--- config/ ? '' : <<'EOT';
--- config
location /t { root /nowhere; error_page 404 =200 @fine; }
location @fine { add_header X-A 1; return 200 "fine"; }
EOT
    return run_text("use Test::Nginx::Socket;\nplan $plan;\nrun_tests();\n__DATA__\n\n"
        . "=== TEST 1: $why\n$config--- request\nGET /t\n$sections\n");
}

# Exit code of prove, and what it said.
sub run_text ($text) {
    open my $fh, '>', "$dir/child.t" or die $!;
    print $fh $text;
    close $fh;
    my $out = capture('prove', '-v', "-I$FindBin::Bin/lib", "$dir/child.t");
    return { code => $?, out => $out };
}

sub capture (@cmd) {
    open my $fh, '-|', 'sh', '-c', 'exec "$@" 2>&1', 'sh', @cmd or die $!;
    local $/;
    my $out = readline $fh;
    close $fh;
    return $out;
}
