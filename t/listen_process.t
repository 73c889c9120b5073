# How many workers there are, and what is not a worker (P9, P10, P11).
use v5.36;
use Test::More;
use CC::Modules;
use CC::Proc;
use CC::Server;

my $answer = 'location / { return 200 "$pid $cc_worker_id $cc_worker_port\n"; }';
my $http = "server { listen 127.0.0.1:%PORT% per_worker; $answer }
    server { listen unix:%PREFIX%/s per_worker; $answer }";

sub ask ($s, $plus) { $s->get($s->port($plus))->body =~ s/\n//r || 'nobody' }

sub expected ($s) {
    my @workers = $s->workers;
    return [ map { "$workers[$_] $_ " . $s->port($_) } 0 .. $#workers ];
}

# -- without a master
{
    my $s = CC::Server->new(module => 1, master_process => 'off', workers => 3, http => $http);
    $s->start;
    my $pid = $s->master_pid;
    is ask($s, 0), "$pid 0 " . $s->port, 'master_process off: the base port';
    is ask($s, 1), 'nobody', 'and no other';
    is $s->get('unix:' . $s->path('s.0'))->status, 200, 'the first path';
    is_deeply [ glob $s->path('s*') ], [ $s->path('s.0') ], 'and no other';
    ok $s->stop, 'leaves';
    is_deeply [ glob $s->path('s*') ], [], 'without a file';
    $s->log_is_clean;
}

# -- one worker
{
    my $s = CC::Server->new(module => 1, workers => 1, http => $http)->start;
    is_deeply [ ask($s, 0), ask($s, 1) ], [ expected($s)->[0], 'nobody' ], 'one worker: the base port';
    ok $s->reload, 'reload';
    is ask($s, 0), expected($s)->[0], 'the same';
    ok $s->reload(workers => 3), 'three workers';
    is_deeply [ map { ask($s, $_) } 0 .. 2 ], expected($s), 'three ports';
    ok $s->quit;
    $s->log_is_clean;
}

# -- auto
{
    my $n = CC::Proc::cpu_count();
    my $s = CC::Server->new(module => 1, workers => 'auto', ports => $n + 1, http => $http)->start;
    is_deeply [ map { ask($s, $_) } 0 .. $n - 1 ], expected($s), "worker_processes auto: $n";
    is ask($s, $n), 'nobody', 'and no more';
    ok $s->quit;
    $s->log_is_clean;
}

# -- worker_processes behind http{}, and the modules in either order
for my $order (qw(module-first module-last)) {
    my $s = CC::Server->new(module => 1, order => $order,
        conf => "http {\n$http\n}\nworker_processes 3;\n")->start;
    is_deeply [ map { ask($s, $_) } 0 .. 2 ], expected($s), "worker_processes behind http, $order";
    is ask($s, 3), 'nobody', 'three ports';
    ok $s->quit;
    $s->log_is_clean;
}

# -- more workers than one would think of
{
    my $s = CC::Server->new(module => 1, workers => 24, ports => 32, http => $http)->start;
    is_deeply [ map { ask($s, $_) } 0 .. 23 ], expected($s), '24 workers';
    ok $s->quit;
    $s->log_is_clean;
}

# -- cache manager and loader have worker number 0, too
SKIP: {
    skip 'no proxy module', 1 if CC::Modules::build_info() =~ /--without-http_proxy_module/;
    my $s = CC::Server->new(module => 1, workers => 2,
        http => "proxy_cache_path %PREFIX%/cache keys_zone=z:1m loader_sleep=10ms;\n$http")->start;
    my $helper = $s->wait_for(sub {
        (grep { CC::Proc::title($_) =~ /cache manager/ } CC::Proc::children($s->master_pid))[0];
    }, 'the cache manager');
    is_deeply [ map { ask($s, $_) } 0, 1 ], expected($s), 'beside a cache manager';
    is_deeply [ grep { $_->{state} eq 'LISTEN' } $s->sockets($helper) ], [],
        'which has no listening socket';
    $s->reload;
    $s->kill_worker(0);
    is_deeply [ map { ask($s, $_) } 0, 1 ], expected($s), 'after reload and crash, too';
    ok $s->quit;
    $s->log_is_clean(qr/exited on signal 9/);
}

# -- a low port: the master opens it
SKIP: {
    skip 'not root', 1 if $> != 0;
    my $base = (grep { CC::Ports::reserve($_) && CC::Ports::reserve($_ + 1) } 910, 930, 950)[0]
        or skip 'no low ports', 1;
    my $group = getgrgid((getpwnam 'nobody')[3] // -1) // skip 'no user nobody', 1;
    my $s = CC::Server->new(module => 1, conf => "user nobody $group; worker_processes 2;
        http { server { listen 127.0.0.1:$base per_worker; $answer } }")->start;
    my @workers = $s->workers;
    is_deeply [ map { $s->get($base + $_)->body } 0, 1 ],
        [ map { "$workers[$_] $_ " . ($base + $_) . "\n" } 0, 1 ], 'ports below 1024, workers without rights';
    ok $s->quit;
    $s->log_is_clean;
}

done_testing;
