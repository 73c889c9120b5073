# What the log is told of what is refused or dropped: the first of a reason at once, then once in a
# second how many there were, and never what a message holds. All modes start, reload and stop
# without a word above notice.
use v5.36;
use Test::More;
use CC::Console;

my $SECRET = 'payload-that-nobody-may-see';

# Lines of that text since a place in the log, each without its time and process.
sub lines ($s, $from, $text) { grep { /\Q$text\E/ } split /\n/, $s->error_log($from) }

# What is done often is told at once, and with its count later: how many in all.
sub told ($s, $from, $text, $times, $level, $what) {
    my $sum = sub { my $n = 0; $n += /\((\d+) more\)/ ? $1 : 1 for lines($s, $from, $text); $n };
    ok $s->wait_for(sub { $sum->() >= $times }, $what), "$what: each is in a count";
    my @lines = lines($s, $from, $text);
    is $sum->(), $times, "$what: $times of them";
    cmp_ok scalar @lines, '<=', 1 + 8, "$what: in few lines";
    unlike $lines[0] // '', qr/more\)/, "$what: the first at once";
    is scalar(grep { !/\[$level\]/ } @lines), 0, "$what: at $level";
}

# -- messages
my $c = CC::Console->start(workers => 3, main => 'cc_ipc_queue 64k; cc_ipc_max_message 64k;',
    http => 'cc_channel test; map $arg_bad $peers { default "no;peer"; }
        upstream bad { cc_balancer $peers; server 127.0.0.1:1; }
        upstream none { cc_balancer; }',
    server => 'location = /bad { proxy_pass http://bad; } location = /none { proxy_pass http://none; }
        location ~ ^/([^/]+)/hub { cc_hub; } location ~ ^/([^/]+)/invoke { cc_invoke; } location ~ ^/([^/]+)/cast { cc_cast; }
        location = /status { cc_status; } location = /json { cc_status json; }');
my $s = $c->s;
$c->each('ipc.receive("bad", function(data) error("handler: no") end) ipc.receive("ok", function() end) return 1');
my $from = $s->log_size;

my ($victim) = ($s->workers)[2];
kill STOP => $victim;
my $refused = $c->run(0, 'local full = 0 for i = 1, 400 do
    local ok, why = ipc.send(' . $victim . ', "ok", ("' . $SECRET . '"):rep(2000)) full = full + (why == "full" and 1 or 0) end return full');
cmp_ok $refused, '>', 10, 'a queue is full';
kill CONT => $victim;
told($s, $from, 'ipc: a message to worker 2 is refused: the queue is full', $refused, 'warn', 'full');
is $s->get($s->port(1), '/json')->json->{ipc}{full}, $refused, 'as many as are counted';

$c->run(0, 'for i = 1, 30 do ipc.send_worker(1, "ok", ("' . $SECRET . '"):rep(3000)) end return 1');
told($s, $from, 'ipc: a message to worker 1 is refused: it is too long', 30, 'warn', 'too long');
$c->run(0, 'for i = 1, 30 do ipc.send(999999, "ok", "' . $SECRET . '") end return 1');
told($s, $from, 'ipc: a message to process 999999 is refused: nobody is there', 30, 'info', 'nobody');
is_deeply $s->get($s->port(1), '/json')->json->{ipc}{refused}, { nobody => 30, 'too long' => 30, 'name too long' => 0 }, 'and counted';

$c->run(0, 'for i = 1, 100 do ipc.send_worker(1, "nobody", "' . $SECRET . '") end return 1');
told($s, $from, 'ipc: a message "nobody" is dropped: no handler', 100, 'info', 'no handler');
$c->run(0, 'for i = 1, 100 do ipc.send_worker(1, "bad", "' . $SECRET . '") end return 1');
told($s, $from, 'ipc handler "bad" failed: ', 100, 'error', 'a handler that fails');

# -- requests
sub many ($times, @request) { $s->request(@request) for 1 .. $times }
many(20, GET => $s->port(1), '/nosuch/invoke?x');
told($s, $from, 'cc: unknown channel: 403', 20, 'warn', 'a channel that is none');
many(20, GET => $s->port(1), '/test/invoke?nothing');
told($s, $from, 'cc: unknown action: 404', 20, 'info', 'an action that is none');
many(20, POST => $s->port(1), '/json', body => $SECRET);
told($s, $from, 'cc: status: 405', 20, 'info', 'a method that is not taken');
many(20, GET => $s->port(1), "/status?format=$SECRET");
told($s, $from, 'cc: status: 400', 20, 'info', 'a format that is none');
many(20, GET => $s->port(1), '/bad');
told($s, $from, '"$peers", which is "no;peer"', 20, 'error', 'peers that are none');
many(20, GET => $s->port(1), '/none');
told($s, $from, 'cc: no peer set for upstream "none"', 20, 'error', 'no peer set');
is_deeply { map { $_ => $s->get($s->port(1), '/json')->json->{refused}{$_} } 'unknown channel', 'unknown action', 'hub' },
    { 'unknown channel' => 20, 'unknown action' => 20, hub => 0 }, 'and counted';

# reasons that a client makes up: no line for each
my $made_up = $s->log_size;
$s->get($s->port(1), "/test/invoke?made_up_$_") for 1 .. 60;
ok $s->wait_for(sub { $s->error_log($made_up) =~ /unknown action: other reasons \(\d+ more\)/ }, 'the others'), 'of many reasons the rest is one';
cmp_ok scalar(lines($s, $made_up, 'cc: unknown action')), '<', 40, '... in few lines';
unlike $s->error_log($from) =~ s/, client: .*//gr, qr/\Q$SECRET\E/, 'no line tells what a message holds';
ok $s->quit, 'quit';

# -- a worker that leaves tells what it has not yet told
$s->start;
$from = $s->log_size;
$c->run(0, 'for i = 1, 5 do ipc.send(999999, "ok", "") end return 1');
ok $s->quit, 'quit';
my @left = lines($s, $from, 'nobody is there');
is_deeply [ scalar @left, $left[-1] =~ /\((\d+) more\)/ ], [ 2, 4 ], 'counts are not lost with a worker';

# -- orders without proof, signatures that are none, what cannot be cast
my $file = $s->write('secret', 'x' x 32 . "\n");
chmod 0600, $file;
my $signed = CC::Console->start(workers => 2, http => "cc_channel test; cc_secret_file $file;",
    server => 'location ~ ^/([^/]+)/hub { cc_hub; } location ~ ^/([^/]+)/cast { cc_cast; }
        location ~ ^/([^/]+)/fan { cc_cast $arg_to; }');
$s = $signed->s;
$from = $s->log_size;
my $worker = $s->port(1);
many(20, GET => $worker, '/test/hub?transferServer=127.0.0.1:1');
told($s, $from, 'cc: transferServer: 403, no proof of who asks', 20, 'warn', 'no proof');
many(20, GET => $worker, '/test/hub?heartbeat', headers => { 'CC-Auth' => "v1 $SECRET" });
told($s, $from, 'cc: signed call: 403, invalid CC-Auth header', 20, 'warn', 'a signature that is none');
many(20, GET => $worker, '/test/cast?heartbeat');
told($s, $from, 'cc: heartbeat: 400, this action cannot be cast', 20, 'warn', 'what cannot be cast');
many(20, GET => $worker, '/test/fan?to=nowhere');
told($s, $from, 'cc: cast: 400', 20, 'warn', 'a direction that is none');
many(20, GET => $s->port(2), '/test/hub?x', headers => { 'CC-Hop' => 'nonsense' });
told($s, $from, 'cc: hub: 400, invalid CC-Hop header', 20, 'warn', 'a hop of nobody\'s');
unlike $s->error_log($from) =~ s/, client: .*//gr, qr/\Q$SECRET\E|nonsense/, 'no line tells what came';
ok $s->quit, 'quit';

# -- nothing above notice in any mode
for my $mode (
    [ 'rings', {} ], [ 'sockets', { main => 'cc_ipc_transport socket;' } ], [ 'one worker', { workers => 1 } ],
    [ 'a single process', { workers => 1, master_process => 'off' } ],
    [ 'no Lua', { lua => 0 } ], [ 'accept_mutex', { events => 'accept_mutex on;' } ],
) {
    my ($name, $opt) = @$mode;
    my $server = 'listen 127.0.0.1:%PORT+1% per_worker; location ~ ^/([^/]+)/hub { cc_hub; } location = /json { cc_status json; }
        location /up { proxy_pass http://u; }';
    my $quiet = CC::Server->new(ports => 16, workers => 3, module => 1, %$opt, server => $server,
        http => 'cc_channel test; upstream u { cc_balancer workers key=$uri; server 127.0.0.1:1; }');
    $quiet->start;
    ok $quiet->wait_for(sub { $quiet->get($quiet->port, '/json')->json->{ready} }, 'all'), "$name: starts";
    if (($opt->{master_process} // '') ne 'off') {
        ok $quiet->reload, "$name: reloads" for 1 .. 2;
    }
    ok $quiet->quit, "$name: stops";
    is_deeply [ grep { /\[(?:warn|error|crit|alert|emerg)\]/ } split /\n/, $quiet->error_log ], [], "$name: nothing above notice";
}
done_testing;
