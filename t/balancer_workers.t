# cc_balancer workers: consistent hashing over this node's workers, who is left out, and failures that
# all workers share.
use v5.36;
use Test::More;
use CC::Server;

my $refuser = CC::Server->new(module => 1, http => '');
my $s = CC::Server->new(module => 1, ports => 64, workers => 4, http => <<'E');
upstream keyed { cc_balancer workers key=$arg_k; keepalive 8; }
upstream even { cc_balancer workers; }
upstream strict { cc_balancer workers key=$arg_k max_fails=1 fail_timeout=60s; }
upstream lenient { cc_balancer workers key=$arg_k max_fails=2 fail_timeout=60s; }
upstream never { cc_balancer workers key=$arg_k max_fails=0; }
init_worker_by_lua_block {
    local life = require "ngx.cc.lifecycle"
    require("ngx.ipc").receive("ready", function(yes) life.ready(yes == "true", "its cache") end)
}
server {
    listen 127.0.0.1:%PORT+16% per_worker;
    location / { return 200 "$cc_worker_id"; }
    location /break { set $n "$cc_worker_id$arg_bad"; if ($n ~ "^(.)\1") { return 503; } return 200 "$cc_worker_id"; }
    location /always { return 503; }
}
server {
    # one port for each worker of the gateway, too: the test can choose who asks
    listen 127.0.0.1:%PORT% per_worker;
    proxy_http_version 1.1;
    proxy_set_header Connection '';
    proxy_next_upstream error timeout http_503;
    add_header X-Tries $cc_balancer_tries always;
    add_header X-Addr $upstream_addr always;
    location / { proxy_pass http://$arg_u; }
    location /tell { content_by_lua_block {
        assert(require("ngx.ipc").send_worker(tonumber(ngx.var.arg_worker), "ready", ngx.var.arg_ready))
    } }
    location /one { proxy_next_upstream off; proxy_pass http://$arg_u; }
}
E
$s->start;

sub ask ($from, $u, $key, $uri = '/') { $s->get($s->port($from), "$uri?u=$u&k=$key") }
sub picks ($from = 0) { return [ map { ask($from, 'keyed', "key$_")->body } 1 .. 60 ] }
sub counts ($list) { my %n; $n{$_}++ for @$list; return \%n }

# in the first moments not all workers may live
$s->wait_for(sub { keys %{ counts(picks()) } == 4 }, 'all four to be picked');
my $picks = picks();
is keys %{ counts($picks) }, 4, 'keys are spread over all workers';
is_deeply picks($_), $picks, "worker $_ picks the same" for 1 .. 3;
ok !(grep { $_ < 4 } values %{ counts($picks) }), 'nobody is left with a few';
is keys %{ counts([ map { ask(0, 'even', '')->body } 1 .. 60 ]) }, 4, 'without a key by turns';

# -- who comes and goes
$s->kill_worker(2);
$s->wait_for(sub { ask(0, 'keyed', 'key1')->status == 200 && keys %{ counts(picks()) } == 4 }, 'the successor');
is_deeply picks(), $picks, 'a successor has the keys of its predecessor';
ok $s->reload(workers => 3), 'a reload to three workers';
$s->wait_for(sub { keys %{ counts(picks()) } == 3 }, 'three to be picked');
my $fewer = picks();
is_deeply [ map { $picks->[$_] == 3 ? '-' : $fewer->[$_] } 0 .. 59 ], [ map { $_ == 3 ? '-' : $_ } @$picks ],
    'only the keys of the one that went have moved';
ok $s->reload(workers => 4), 'back to four';
$s->wait_for(sub { keys %{ counts(picks()) } == 4 }, 'four to be picked');
is_deeply picks(), $picks, 'and the keys are back';

# -- who is not ready
sub ready ($worker, $yes) { is $s->get($s->port(0), "/tell?worker=$worker&ready=$yes")->status, 200, "worker $worker: ready($yes)" }
ready(1, 'false');
$s->wait_for(sub { !counts(picks())->{1} }, 'nothing for worker 1');
my $without = picks();
is_deeply [ map { $picks->[$_] == 1 ? '-' : $without->[$_] } 0 .. 59 ], [ map { $_ == 1 ? '-' : $_ } @$picks ],
    'only the keys of the one that is not ready have moved';
is_deeply picks($_), $without, "worker $_ passes over it, too" for 1 .. 3;
is keys %{ counts([ map { ask(0, 'even', '')->body } 1 .. 60 ]) }, 3, 'so it is by turns';
ready($_, 'false') for 0, 2, 3;
$s->wait_for(sub { ask(0, 'keyed', 'key1')->status == 502 }, 'nobody to be left');
is ask(1, 'even', '')->status, 502, 'nobody is ready: nobody is asked';
ready($_, 'true') for 0 .. 3;
$s->wait_for(sub { keys %{ counts(picks()) } == 4 }, 'four to be picked');
is_deeply picks(), $picks, 'ready again, and the keys are back';

# -- failures
sub at ($worker) { '127.0.0.1:' . $s->port(16 + $worker) }
my ($key) = grep { ask(0, 'strict', $_)->body eq '1' } map { "key$_" } 1 .. 100;
my $log = $s->log_size;
my $r = $s->get($s->port, "/break?u=strict&k=$key&bad=1");
is $r->status, 200, 'another worker has answered';
my ($second) = $r->body;
is $r->header('X-Addr'), join(', ', at(1), at($second)), 'after the one that failed';
ok $s->wait_log(qr/\[warn\].*cc: upstream peer \Q${\at(1)}\E temporarily disabled/, $log), 'the log tells it';
for my $from (0 .. 3) {
    $r = ask($from, 'strict', $key);
    is $r->header('X-Addr'), at($second), "worker $from passes over it";
}
my ($mine) = grep { ask(0, 'keyed', $_)->body eq '0' } map { "key$_" } 1 .. 100;
is ask(1, 'strict', $mine)->body, 0, 'other keys stay where they were';
is ask(2, 'keyed', $key)->body, 1, 'another upstream has its own failures';
ok $s->reload, 'reload';
$s->wait_for(sub { keys %{ counts(picks()) } == 4 }, 'four to be picked');
is ask(0, 'strict', $key)->body, $second, 'a failure outlives a reload';

($key) = grep { ask(0, 'lenient', $_)->body eq '2' } map { "key$_" } 1 .. 100;
is $s->get($s->port(0), "/break?u=lenient&k=$key&bad=2")->body =~ /^\d$/, 1, 'a first failure in one worker';
is ask(0, 'lenient', $key)->body, 2, 'is not enough';
$s->get($s->port(3), "/break?u=lenient&k=$key&bad=2");
isnt ask($_, 'lenient', $key)->body, 2, "a second in another is, for worker $_" for 0 .. 3;

$r = $s->get($s->port, "/always?u=strict&k=$key");
is $r->status, 502, 'nobody is left';
like $r->header('X-Tries'), qr/, strict failed 502 - -$/, 'which is told';
is ask(0, 'strict', $key)->status, 502, 'nor for the next request';
$r = $s->get($s->port, "/always?u=never&k=$key");
is $r->status, 503, 'max_fails=0 tries them all';
is @{ [ split /, /, $r->header('X-Addr') ] }, 4, 'once';
is ask(0, 'never', $key)->status, 200, 'and passes nobody over';

# -- what is refused
for my $case (
    [ 'workers', qr/"cc_balancer workers" without a "listen ... per_worker" in http\{\}/ ],
    [ 'workers key', qr/invalid parameter "key"/ ], [ 'workers key=', qr/invalid parameter "key="/ ],
    [ 'workers key=$uri key=$uri', qr/invalid parameter "key=\$uri"/ ],
    [ 'workers channel=x', qr/"cc_balancer" directive takes "channel" for "clients" only/ ],
    [ 'workers weight=2', qr/invalid parameter "weight=2"/ ], [ 'workers max_fails=-1', qr/invalid parameter "max_fails=-1"/ ],
    [ 'workers max_fails=70000', qr/invalid parameter "max_fails=70000"/ ],
    [ 'workers fail_timeout=x', qr/invalid parameter "fail_timeout=x"/ ],
    [ 'clients key=$uri', qr/"cc_balancer" directive needs "channel=" for "clients"/ ],
    [ '""', qr/no peer in "cc_balancer"/ ],
    [ 'workers; cc_balancer workers', qr/"cc_balancer" directive is duplicate/ ],
    [ '; least_conn', qr/load balancing method must stand before "cc_balancer"/ ],
    map { [ "; cc_balancer_tries $_", qr/invalid value "$_": 1 to 100 tries/ ] } qw(0 -1 101 x 1.5),
) {
    my ($words, $why) = @$case;
    my ($code, $output) = $refuser->try_conf("events {}\nhttp {\nupstream u {\n\nserver 127.0.0.1:1; cc_balancer $words;\n}\n}\n");
    isnt $code, 0, "cc_balancer $words; is refused";
    like $output, qr/\[emerg\] .*$why.* in \S+:5$/m, 'where';
}
my ($code, $output) = $refuser->try_conf("events {}\nhttp {\nserver { cc_balancer workers; }\n}\n");
like $output, qr/"cc_balancer" directive is not allowed here in \S+:3/, 'in upstream{} only';

ok $s->quit, 'quit';
$s->log_is_clean(qr/exited on signal 9|no live upstreams/);
done_testing;
