# CC::Server itself: what lifecycle tests rely on.
use v5.36;
use Test::More;
use CC::Server;
use CC::Ports;

my $s = CC::Server->new(
    workers => 2, module => 0,
    http => 'server { listen 127.0.0.1:%PORT%; listen unix:%PREFIX%/s.sock;
        location / { return 200 "$pid\n"; }
        location /chunked { content_by_lua_block { ngx.say("a") ngx.flush(true) ngx.say("b") } }
        location /echo { content_by_lua_block {
            ngx.req.read_body() ngx.print(ngx.req.get_body_data()) } }
    }',
);

# -- start and look
$s->start;
my @first = $s->workers;
is scalar @first, 2, 'two workers';
is $s->get($s->port, '/')->status, 200, 'answers over TCP';
like $s->get("unix:" . $s->path('s.sock'), '/')->body, qr/^\d+$/, 'answers over a Unix socket';
is $s->get($s->port, '/chunked')->body, "a\nb\n", 'chunked body';
is $s->request(POST => $s->port, '/echo', body => 'hello')->body, 'hello', 'body sent';
is $s->get($s->port + 1, '/')->status, 0, 'nobody there: status 0';
is_deeply [ $s->listening ],
    [ '127.0.0.1:' . $s->port, 'unix:' . $s->path('s.sock') ], 'listening sockets';
my ($accepting) = grep { $_->{state} eq 'LISTEN' && $_->{proto} eq 'tcp' } $s->sockets;
like $s->fds->{ $accepting->{fd} }, qr/^socket:\[$accepting->{inode}\]/, 'fds and sockets agree';

my $c = $s->connect;
is $c->request(GET => '/', keepalive => 1)->status, 200, 'first on a kept connection';
is $c->request(GET => '/')->status, 200, 'second on it';

# -- trial configurations
my ($rc, $out) = $s->try_conf("worker_processes 1;\nbogus;\n");
is $rc, 1, 'nginx -t refuses';
like $out, qr/unknown directive "bogus" in \S+:2\b/, 'line numbers are those of the text';
($rc, $out) = $s->try_conf("http {\n}\n");
is $rc, 0, 'nginx -t accepts' or diag $out;

# -- reload
ok $s->reload, 'reload';
my @second = $s->workers;
is scalar(grep { my $p = $_; grep { $_ == $p } @first } @second), 0, 'all workers are new';
ok $s->reload(workers => 3), 'reload with another count';
is scalar($s->workers), 3, 'three workers';
ok $s->reload_fails(http => 'bogus;'), 'a broken configuration is refused';
is $s->get($s->port)->status, 200, 'and the old one serves on';

# -- death of a worker
my ($w0, $w1, $w2) = $s->workers;
my $heir = $s->kill_worker(1);
isnt $heir, $w1, 'a successor came';
is_deeply [ $s->workers ], [ $w0, $heir, $w2 ], 'in the same place';
isnt $s->kill_worker(2, 'TERM'), $w2, 'one that is told to leave has a successor too';

# -- binary upgrade
my ($old, $new) = $s->upgrade;
isnt $old, $new, 'another master';
is $s->master_pid, $new, 'which is the one in the pid file';
is $s->get($s->port)->status, 200, 'and serves';

my ($tried, $newest) = $s->upgrade(keep_old => 1);
is $s->old_master_pid, $tried, 'two masters';
is $s->get($s->port)->status, 200, 'serving both';
$s->signal(QUIT => $newest);
ok $s->wait_for(sub { $s->master_pid == $tried }, 'the old master to be alone'), 'rolled back';
is $s->get($s->port)->status, 200, 'and serves on';

# -- signals that do not kill, the master's death
$s->kill_worker(0, 'STOP');
like CC::Proc::stat_of($s->worker_pid(0))->{state}, qr/^[tT]$/, 'a stopped worker';
$s->kill_worker(0, 'CONT');
unlike CC::Proc::stat_of($s->worker_pid(0))->{state}, qr/^[tT]$/, 'a worker that goes on';
ok $s->wait_log(qr/exited on signal (9)/), 'the log is searched';

ok $s->quit, 'quit';
ok !$s->is_running, 'nothing runs';
is $s->get($s->port)->status, 0, 'nothing listens';
ok $s->start->stop, 'starts again, stops';
$s->log_is_clean(qr/exited on signal 9/, qr/unknown directive/);

# -- a whole configuration, several addresses, a lone process
my $whole = CC::Server->new(conf => 'worker_processes auto;
http { server { listen %PORT%; listen [::1]:%PORT%; return 200 "$server_addr"; } }')->start;
is scalar($whole->workers), CC::Proc::cpu_count(), 'worker_processes auto';
is $whole->get('[::1]:' . $whole->port)->body, '::1', 'over IPv6';
is $whole->get($whole->port)->body, '127.0.0.1', 'over IPv4';
is $whole->line_of('return 200'), 2, 'line_of';
ok $whole->reload("master_process on;\nhttp { }\n"), 'another text';
is scalar($whole->workers), 1, 'is in force';
$whole->stop;
$whole->start(conf => undef, master_process => 'off', server => 'return 204;');
is $whole->get($whole->port)->status, 204, 'master_process off';
$whole->quit;

# -- many requests at once, unfinished ones
$s->start(server => 'location / { return 200 $request_uri; }', http => undef);
my @open = map { $s->connect } 1 .. 20;
$_->send_request(GET => '/' . $_->fileno) for @open;
is scalar(grep { $_->read_response->body eq '/' . $_->fileno } @open), 20, 'many connections';
my $half = $s->connect($s->port, timeout => 0.1);
$half->send("GET / HT");
like $half->read_response->error, qr/timed out/, 'no answer to half a request';
$s->stop;

# -- which modules in which order
{
    local $ENV{TEST_NGINX_LOAD_MODULES} =
        '/m/ndk_http_module.so /m/ngx_http_lua_module.so /m/ngx_stream_module.so /o/ngx_http_cc_module.so';
    my $list = sub { join ' ', map { m{(\w+)_module} } CC::Modules::pick(@_) };
    is $list->(), 'ndk_http ngx_http_lua ngx_stream ngx_http_cc', 'as listed';
    is $list->(order => 'module-first'), 'ngx_http_cc ndk_http ngx_http_lua ngx_stream', 'ours first';
    is $list->(lua => 0, stream => 0), 'ngx_http_cc', 'without Lua and stream';
    is $list->(module => 0), 'ndk_http ngx_http_lua ngx_stream', 'without ours';
}

# -- ports
my $base = CC::Ports::block(20);
ok !(grep { !CC::Ports::is_free($base + $_) } 0 .. 19), 'a block is free';

# -- an abandoned server leaves nothing, however early it is abandoned
my @gone;
for (1 .. 20) {
    my $left = CC::Server->new(http => '')->start;
    push @gone, [ $left->prefix, $left->master_pid, $left->workers ];
}
ok !(grep { -e $_->[0] } @gone), 'the directories are gone';
ok !(grep { kill 0, @$_[ 1, 2 ] } @gone), 'the processes are gone';

done_testing;
