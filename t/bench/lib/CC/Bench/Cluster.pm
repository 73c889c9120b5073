package CC::Bench::Cluster;

# The works of the cluster: requests that are answered when all 4 workers have
# answered one, and a request that has to go to the router. The nginxes are all
# configured alike, down to the letter; a competitor is a path in it. All ask
# for the same answer, the number of the worker that gives it.

use v5.36;
use CC::HTTP;
use CC::Modules;
use CC::Bench::Load;
use CC::Proc;

my $WORKERS = 4;
my @WORKER = 0 .. $WORKERS - 1;

# name, path, and whether all workers are in the answer's JSON
my @CASTS = (
    [ 'cast, rings'         => '/test/cast?fn',             1 ],
    [ 'return 200'          => '/plain',                    0 ],
    [ 'cast, HTTP'          => '/test/cast?who',            1 ],
    [ 'cast, HTTP to Lua'   => '/lua/cast?who',             1 ],
    [ 'route.cc'            => '/route',                    1 ],
    [ 'capture_multi'       => '/capture?to=/once',         1 ],
    [ 'capture_multi, kept' => '/capture?to=/kept',         1 ],
);
# of a request to worker 1, of whom worker 0 is the router
my @HUBS = (
    [ 'cc_hub'            => '/test/hub?who' ],
    [ 'proxy_pass, kept'  => '/kept?n=0' ],
    [ 'in the worker'     => '/test/invoke?who' ],
);

# Pairs whose ratios are the work's point.
sub cast_ratios () {
    return (
        [ 'cast, rings', 'return 200' ], [ 'cast, rings', 'capture_multi' ],
        (map { my $ours = $_; map { [ $ours, $_ ] } 'capture_multi', 'capture_multi, kept' }
            'cast, HTTP', 'route.cc'),
    );
}

sub casts () { return map { peer($_->@*) } @CASTS }

sub hubs () {
    return map { { %{ peer($_->@*) }, at => 1, expect => $_->[0] eq 'in the worker' ? 1 : 0 } } @HUBS;
}

sub peer ($name, $path, $all = 0) {
    return {
        name => $name, path => $path, all => $all,
        kind => $name =~ /^(?:cast|cc_hub|route)/ ? 'ours' : 'cluster',
        modules => [ CC::Modules::pick(module => 1, lua => 1) ],
        ports   => 1 + $WORKERS,
        http    => http(),
        server  => server(),
    };
}

sub http () {
    my $kept = join "\n", map {
        "upstream worker_$_ { server 127.0.0.1:%PORT+@{[ 1 + $_ ]}%; keepalive 64; keepalive_requests 1000000000; }"
    } @WORKER;
    return <<"CONF";
cc_channel test;
lua_shared_dict ngxcc_dict 1m;
# what is not 200 is written down; those under way when the load ends are 499
map \$status \$not_all { 200 0; 499 0; default 1; }
$kept
init_worker_by_lua_block {
    ngx_cc = require "ngx_cc"
    route = ngx_cc:new "lua"
    local id = tostring(ngx.worker.id())
    function route.invoke.who() ngx.print(id) end
    assert(require("ngx.cc").action("test", "fn", function() return 200, id end))
    -- the answers, which are the workers' numbers, as one
    function say(list)
        local replies, answered = {}, 0
        for i, one in ipairs(list) do
            if one and one.status == 200 then
                answered = answered + 1
                replies[answered] = '{"body":"' .. one.body .. '"}'
            end
        end
        local json = '{"answered":' .. answered .. ',"replies":[' .. table.concat(replies, ",") .. ']}'
        ngx.status = answered == $WORKERS and 200 or 502
        ngx.header["Content-Length"] = #json
        ngx.print(json)
    end
}
CONF
}

sub server () {
    my $ports = join ', ', map { "'port=%PORT+@{[ 1 + $_ ]}%&n=$_'" } @WORKER;
    return <<"CONF";
listen 127.0.0.1:%PORT+1% per_worker;
access_log logs/not_all combined if=\$not_all;
location = /plain { return 200 "plain"; }
location = /who { internal; return 200 "\$cc_worker_id"; }
location = /lua/cast { cc_cast; }
location = /test/cast { cc_cast; }
location = /test/invoke { cc_invoke; cc_action who /who; }
location = /test/hub { cc_hub; cc_action who /who; }
location = /lua/invoke { content_by_lua_block { ngx_cc.invokes "lua" } }
location = /route { content_by_lua_block {
    local _, list = route.cc("/test/invoke?who", "workers")
    say(list)
} }
location = /capture { content_by_lua_block {
    local to, requests = ngx.var.arg_to, {}
    for i, args in ipairs { $ports } do
        requests[i] = { to, { args = args } }
    end
    say { ngx.location.capture_multi(requests) }
} }
location = /once { proxy_pass http://127.0.0.1:\$arg_port/test/invoke?who; }
location = /kept {
    proxy_pass http://worker_\$arg_n/test/invoke?who;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
}
CONF
}

# One round: everybody has answered before it and after it, and in it nothing
# but 200 was said, which no competitor does unless all have answered.
sub run ($nginx, $case, $args) {
    my $peer = $nginx->peer;
    my $port = $nginx->port_of($peer->{at} // -1);
    my $wrong = wrong($nginx, $port, $peer);
    return { error => $wrong } if $wrong;
    my $before = $nginx->cpu;
    my $began  = Time::HiRes::time();
    my $answer = CC::Bench::Load::at($port, $peer->{path}, $case->{connections}, $args->{seconds});
    my $took   = Time::HiRes::time() - $began;
    $wrong = $answer->{error} // wrong($nginx, $port, $peer);
    return { error => $wrong } if $wrong;
    $answer->{us} = 1e6 * ($nginx->cpu - $before) / ($answer->{rate} * $took);
    return $answer;
}

sub wrong ($nginx, $port, $peer) {
    my ($line) = split /\n/, CC::Proc::slurp($nginx->server->path('logs/not_all')) // '';
    return "not all answered: $line" if defined $line;
    my $r = $nginx->server->get($port, $peer->{path});
    my $said = 'status ' . ($r->status // $r->error) . ': ' . ($r->body // '');
    return $said if $r->status != 200;
    return $r->body eq $peer->{expect} ? undef : $said if defined $peer->{expect};
    return undef if !$peer->{all};
    my $json = $r->json;
    my $who  = join ',', map { $_->{body} } $json->{replies}->@*;
    return $json->{answered} == $WORKERS && $who eq join(',', @WORKER) ? undef : $said;
}

1;
