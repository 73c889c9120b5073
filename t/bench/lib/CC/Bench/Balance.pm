package CC::Bench::Balance;

# The work of the balancer: a gateway with one worker, over kept connections
# to another nginx that answers at once. All gateways are alike but for who
# chooses the peer, and all but round robin and the hash choose what the same
# variable says; the two hashes choose among the gateway's own workers.

use v5.36;
use CC::Modules;
use CC::Server;
use CC::Bench::Load;

my %CHOOSE = (
    'round robin'     => 'server ORIGIN;',
    'cc_balancer'     => 'cc_balancer $origin;',
    'cc_balancer list' => 'cc_balancer ORIGIN;',
    'cc_balancer workers' => 'cc_balancer workers key=$connection_requests;',
    'cc_balancer Lua' => 'cc_balancer;',
    'balancer_by_lua' => 'server 0.0.0.1; balancer_by_lua_block { choose(ngx.var.origin) }',
    'balancer_by_lua workers' => 'server 0.0.0.1; balancer_by_lua_block { choose(ngx.var.connection_requests) }',
);
# The hash in Lua: the heaviest peer for the key that has not failed, failures shared by all workers.
my $HASH = <<'LUA';
init_by_lua_block {
    local balancer, failures = require "ngx.balancer", ngx.shared.failures
    local peers = { { host = "127.0.0.1", port = %PORT+1%, name = "worker 0" } }
    function choose(key)
        local ctx, best, peer = ngx.ctx, -1, nil
        if ctx.peer and balancer.get_last_failure() then
            failures:incr(ctx.peer, 1, 0, 10)
        end
        for i = 1, #peers do
            local one = peers[i]
            local weight = ngx.crc32_short(key .. one.name)
            if weight > best and (#peers == 1 or (failures:get(one.name) or 0) < 1) then
                best, peer = weight, one
            end
        end
        ctx.peer = peer.name
        balancer.set_current_peer(peer.host, peer.port)
    end
}
lua_shared_dict failures 1m;
LUA
my %IN_LOCATION = ('cc_balancer Lua' => 'access_by_lua_block { choose(ngx.var.origin) }');
my %PACKAGE = ('cc_balancer Lua' => 'ngx.cc.balancer', 'balancer_by_lua' => 'ngx.balancer');
my @NAMES = ('cc_balancer', 'round robin', 'balancer_by_lua', 'cc_balancer list', 'cc_balancer Lua', 'cc_balancer workers', 'balancer_by_lua workers');

my $origin;

# Columns that ours is compared with.
sub others () { return 'round robin', 'balancer_by_lua' }

sub peers () {
    $origin //= CC::Server->new(
        ports => 1, log_level => 'error', modules => [],
        http  => 'access_log off; keepalive_requests 1000000000;',
        server => 'location / { return 200; }',
    )->start;
    return map { peer($_) } @NAMES;
}

sub peer ($name) {
    my $at = '127.0.0.1:' . $origin->port;
    my $choose = $CHOOSE{$name} =~ s/ORIGIN/$at/r;
    my $lua = $name eq 'balancer_by_lua workers' ? $HASH : $PACKAGE{$name} ? qq{init_by_lua_block { choose = require("$PACKAGE{$name}").set_current_peer }} : '';
    # the hash's peer is this worker itself
    my $workers = $name =~ /workers/ ? 'server { listen 127.0.0.1:%PORT+1% per_worker; location / { return 200; } }' : '';
    return {
        name    => $name,
        kind    => $name eq 'cc_balancer' ? 'ours' : 'balance',
        modules => [ CC::Modules::pick(module => 1) ],
        ports   => 2,
        http    => <<"CONF",
map \$uri \$origin { default "$at"; }
$lua
upstream origin { $choose keepalive 64; keepalive_requests 1000000000; }
$workers
CONF
        server => 'location = /run { ' . ($IN_LOCATION{$name} // '')
            . ' proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; }',
    };
}

# One round, with what it cost the gateway's worker.
sub run ($nginx, $case, $args) {
    my $before = $nginx->cpu;
    my $began  = Time::HiRes::time();
    my $answer = CC::Bench::Load::run($nginx, $case, $args);
    my $took   = Time::HiRes::time() - $began;
    $answer->{us} = 1e6 * ($nginx->cpu - $before) / ($answer->{rate} * $took) if $answer->{rate};
    return $answer;
}

1;
