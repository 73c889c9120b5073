package CC::Bench::Status;

# The work of the status: what a scrape costs the worker that answers it. A
# node with as many workers as the case says, all of whom listen to retained
# names; a client below it for each worker, channels, and upstreams with a
# hash over the workers, over the clients, and a list.

use v5.36;
use CC::Modules;
use CC::Proc;
use CC::Bench::Load;

my %PATH = (
    JSON => '/status?format=json', metrics => '/status?format=prometheus',
    page => '/status?format=html', ready => '/status?format=ready', 'return 200' => '/plain',
);
my @CHANNELS = map { "channel$_" } 1 .. 8;
my $NAMES    = 16;

sub formats () { return 'JSON', 'metrics', 'page', 'ready', 'return 200' }

sub peers () {
    my $channels = join "\n", map { "cc_channel $_;" } @CHANNELS;
    my $hubs     = join "\n    ", map { "listen 127.0.1.$_:%PORT+1%;" } 1 .. 64;
    my $list     = join ' ', map { "127.0.0.$_:9" } 1 .. 16;
    return {
        name => 'cc_status', kind => 'ours', ports => 1 + 64,
        modules => [ CC::Modules::pick(module => 1, lua => 1) ],
        # the rings of 64 workers have a descriptor each in every worker
        main => 'worker_rlimit_nofile 4096;',
        http => <<"CONF",
$channels
upstream hashed { cc_balancer workers key=\$uri; server 0.0.0.1; }
upstream below { cc_balancer clients channel=$CHANNELS[0] key=\$uri; server 0.0.0.1; }
upstream listed { cc_balancer $list; server 0.0.0.1; }
init_worker_by_lua_block {
    local ipc = require "ngx.ipc"
    for i = 1, $NAMES do ipc.receive("name" .. i, function() end) end
    if ngx.worker.id() == 0 then
        for i = 1, $NAMES do ipc.retain("name" .. i, "key", "value") end
    end
}
# the clients' hubs: each says to be who it was taken for
server {
    $hubs
    location / { content_by_lua_block {
        ngx.req.read_body()
        local nonce = ngx.req.get_body_data():match('"nonce":(%d+)')
        local me = ngx.var.server_addr .. ":" .. ngx.var.server_port
        ngx.print('{"type":"DIAL_OK","id":"', me, '","epoch":1,"nonce":', nonce, "}")
    } }
}
CONF
        server => <<'CONF',
listen 127.0.0.1:%PORT+1% per_worker;
location = /plain { return 200 "plain"; }
location = /status { cc_status; }
location ~ ^/[^/]+/hub$ { cc_hub; }
CONF
    };
}

# One round at worker 0, with what it cost that one alone.
sub run ($nginx, $case, $args) {
    my $wrong = prepare($nginx);
    return { error => $wrong } if $wrong;
    my ($port, $pid) = ($nginx->port_of(0), $nginx->server->worker_pid(0));
    my $path = $PATH{ $case->{format} };
    my $answer = $nginx->server->get($port, $path);
    return { error => 'status ' . ($answer->status || $answer->error) } if $answer->status != 200;
    my $before = nanoseconds($pid);
    my $began  = Time::HiRes::time();
    my $load   = CC::Bench::Load::at($port, $path, 1, $args->{seconds});
    my $took   = Time::HiRes::time() - $began;
    return $load if $load->{error};
    $load->{us}    = (nanoseconds($pid) - $before) / 1000 / ($load->{rate} * $took);
    $load->{rare}  = rare($nginx, $port, $pid, $path);
    $load->{bytes} = length $answer->body;
    return $load;
}

# The same of one now and then, as scrapes are: the processor has forgotten what it knew of the last.
sub rare ($nginx, $port, $pid, $path) {
    my $c      = $nginx->server->connect($port);
    my $times  = 25;
    my $before = nanoseconds($pid);
    for (1 .. $times) {
        $c->request(GET => $path, keepalive => 1);
        Time::HiRes::sleep(0.02);
    }
    my $us = (nanoseconds($pid) - $before) / 1000 / $times;
    $c->close;
    return $us;
}

# Processor time of a process.
sub nanoseconds ($pid) {
    my ($on_cpu) = split ' ', CC::Proc::slurp("/proc/$pid/schedstat") // '';
    return $on_cpu // die "no /proc/$pid/schedstat\n";
}

# Before each round: all are there that the figures are told of. What is missing, else nothing.
sub prepare ($nginx) {
    my $server  = $nginx->server;
    my $workers = $server->worker_count;
    my $port    = $nginx->port_of(0);
    my $missing = '';
    my $all     = sub {
        my $json  = $server->get($port, '/status?format=json')->json;
        my %there = map { $_->{address} => 1 } $json->{nodes}{clients}->@*;
        my @lost  = grep { !$there{"127.0.1.$_:$port"} } 1 .. $workers;
        for my $client (@lost) {
            $server->request(GET => $port, "/$CHANNELS[0]/hub?reportHubPort=$port", from => "127.0.1.$client");
        }
        my $seen = grep { keys $_->{seen}->%* == $NAMES } $json->{workers}->@*;
        my $root = grep { ($_->{state} // '') eq 'root' } $json->{channels}->@*;
        $missing = @lost . " clients and @{[ $workers - $seen ]} workers' names are missing, $root channels are there";
        return $json->{ready} && !@lost && $seen == $workers && $root == @CHANNELS;
    };
    return $server->wait_for($all, 'all of it', 10) ? undef : $missing;
}

1;
