# The tree when nodes die hard: kill -9 of whole nodes, a fall-back and the way back to the preferred
# super, supers that name each other, reloads and dying routers meanwhile, addresses that are not
# allowed, ngx_cc.transfer (C50, C51, C54, C55, C57, C60 to C66).
use v5.36;
use Test::More;
use CC::Ports;
use CC::Proc;
use CC::Server;
use CC::Wait qw(now);

use constant { HEARTBEAT => 0.3, LEASE => 1.2 };

my $server = <<'CONF';
    listen 127.0.0.1:%PORT+1% per_worker;
    location ~ ^/([^/]+)/invoke { cc_invoke; cc_action who /who; }
    location ~ ^/([^/]+)/hub { cc_hub; cc_action who /who; }
    location ~ ^/([^/]+)/cast { cc_cast $arg_direction; }
    location = /who { internal; return 200 "$cc_node $cc_worker_id"; }
    LUA
CONF
my $run = <<'CONF';
    location = /run { content_by_lua_block {
        ngx.req.read_body()
        ngx.print(tostring(assert(loadstring(ngx.req.get_body_data()))()))
    } }
CONF
my $init = 'lua_shared_dict ngxcc_dict 1m;
    init_worker_by_lua_block { ngx_cc = require "ngx_cc" ngx_cc:new "test" ngx_cc:new "kada" }';

sub node (%o) {
    my $s = CC::Server->new(module => 1, lua => $o{lua} // 0, workers => 2);
    my @http = ('cc_channel test heartbeat=300ms', 'cc_channel kada heartbeat=300ms', @{ $o{http} // [] });
    push @http, "cc_super $o{super}" if $o{super};
    return $s->start(
        http   => join('', map { "$_;\n" } @http) . ($o{lua} ? $init : ''),
        server => $server =~ s/LUA/$o{lua} ? $run : ''/er . ($o{server} // ''));
}
sub name ($s) { '127.0.0.1:' . $s->port }
sub names (@s) { join ' ', map { name($_) } @s }
sub stat_of ($s, $channel = 'test') { $s->get($s->port, "/$channel/hub?getServiceStat")->json }
# the tree below, as "a(b() c())"
sub shape ($stat) {
    my $c = ref $stat eq 'HASH' ? $stat->{clients} : undef;
    return ref $c eq 'HASH' ? join ' ', map { "$_(" . shape($c->{$_}) . ')' } sort keys %$c : '';
}
sub below (@below) { join ' ', sort @below }
sub at ($s, @below) { name($s) . '(' . below(@below) . ')' }
sub becomes ($s, $want, $what, $seconds = 15, $channel = 'test') {
    my $got;
    $s->wait_for(sub { ($got = shape(stat_of($s, $channel))) eq $want }, $what, $seconds);
    is $got, $want, $what;
}
sub ask ($s, $what, $port = $s->port) { $s->get($port, "/test/$what") }
sub all_answer ($s, $what, @nodes) {
    is_deeply [ sort map { $_->{body} } ask($s, 'cast?who&direction=tree')->json->{replies}->@* ],
        [ sort map { my $n = name($_); "$n 0", "$n 1" } @nodes ], $what;
}
# kill -9 of all of it
sub murder ($s) {
    my @all = ($s->master_pid, $s->worker_pids);
    kill KILL => @all;
    return $s->wait_for(sub { !grep { CC::Proc::alive($_) } @all }, 'its death');
}
sub lua ($s, $code) { $s->request('POST', $s->port, '/run', body => $code)->body }

my $one = node(lua => 1);
my $two = node(lua => 1);
my $mid = node(super => names($one, $two));
my $x = node(super => name($mid));
my $y = node(super => name($mid));
my @five = ($one, $two, $mid, $x, $y);

becomes($one, at($mid, at($x), at($y)), 'a root, a node, two below it, on one address (C51)');
becomes($two, '', 'the fall-back has nobody');
all_answer($one, 'all workers of the tree answer', $one, $mid, $x, $y);

# -- a whole node is killed with -9
my $died = now();
ok murder($x), 'a leaf is killed, master and workers';
becomes($one, at($mid, at($y)), 'it is forgotten (C63)');
cmp_ok now() - $died, '<', LEASE + 2, 'soon after its lease has ended';
is ask($one, 'cast?who&direction=tree')->status, 200, 'nobody waits for it';
$x->start;
becomes($one, at($mid, at($x), at($y)), 'and taken back (C66)');

my @workers = $mid->worker_pids;
kill KILL => @workers;
becomes($one, at($mid, at($x), at($y)), 'all workers of a node are killed at once: its tree is there', 5);
$mid->wait_for(sub { my @now = $mid->worker_pids; @now == 2 && !grep { my $p = $_; grep { $_ == $p } @workers } @now }, 'successors');
all_answer($one, 'and so are its workers (C59, C60)', $one, $mid, $x, $y);

# -- reloads, and routers that die, while everybody looks
{
    my (%seen, $asked);
    my $look = sub { $seen{ shape(stat_of($one)) }++; $asked++ };
    $look->();
    for my $round (1 .. 3) {
        $one->reload(workers => 2 + $round % 2, wait_old => 0);
        $look->() for 1 .. 5;
        $one->kill_worker(0);
        $look->() for 1 .. 5;
    }
    is_deeply [ keys %seen ], [ at($mid, at($x), at($y)) ], "$asked times the same tree, over reloads and deaths of the router (C61, C62)";
    ok $one->reload(workers => 2), 'two workers again';
}

# -- the super dies; the next of the list takes over, until it is back
ok murder($one), 'the root is killed';
becomes($two, at($mid, at($x), at($y)), 'the fall-back takes its client, with all below (C64)');
is stat_of($mid)->{super}, name($two), 'who knows it';
ok $mid->wait_log(qr/\[warn\] .*cc: channel "test": the super \Q${\name($one)}\E is lost/), 'and has logged it';
all_answer($two, 'all answer there', $two, $mid, $x, $y);
$one->start;
becomes($one, at($mid, at($x), at($y)), 'the preferred one is back, and so is its client', 25);
becomes($two, '', 'the fall-back lets it go');

# -- ngx_cc.transfer (C55)
sub transfer ($to, $channels, $clients) { lua($one, "return select(1, ngx_cc.transfer('$to', '$channels', '$clients'))") }
my $more = node(super => name($one));
becomes($one, below(at($mid, at($x), at($y)), at($more)), 'two clients');
becomes($one, below(at($mid, at($x), at($y)), at($more)), 'in the other channel, too', 15, 'kada');
is transfer(name($two), 'test', name($more)), 'true', 'transfer of one client in one channel';
is shape(stat_of($one)), at($mid, at($x), at($y)), 'it leaves the registry, others stay';
is shape(stat_of($two)), at($more), 'the new super knows it';
is shape(stat_of($one, 'kada')), below(at($mid, at($x), at($y)), at($more)), 'the other channel is as it was';
is transfer(name($two), '*', '*'), 'true', 'transfer of all';
is shape(stat_of($one, $_)), '', "$_: nobody is left" for qw(test kada);
is shape(stat_of($two, $_)), below(at($mid, at($x), at($y)), at($more)), "$_: all are there" for qw(test kada);
is transfer(name($two), '*', '10.1.1.1:80'), 'true', 'of nobody';
is transfer(name($mid), 'test', name($mid)), 'true', 'of who is not a client here: nobody';
is lua($two, "return select(1, ngx_cc.transfer('${\name($x)}', 'test', '${\name($mid)}'))"), 'false', 'below its own client: no';
like lua($one, q{return select(2, pcall(ngx_cc.transfer, "127.0.0.1:1", "none", "*"))}), qr/no channel "none"/, 'an unknown channel';
is lua($two, "return select(1, ngx_cc.transfer('${\name($one)}', 'test,kada', '127.0.0.1'))"), 'true', 'by a host, back';
is shape(stat_of($one)), below(at($mid, at($x), at($y)), at($more)), 'all are back';
is shape(stat_of($two)), '', 'and gone there';
ok $more->quit, 'one leaves';
becomes($one, at($mid, at($x), at($y)), 'and is forgotten');

# -- reports of others
ask($mid, 'hub?invalidClient=' . name($x)) for 1 .. 4;
is shape(stat_of($mid)), below(at($x), at($y)), 'four say that a client cannot be reached';
ask($mid, 'hub?invalidClient=' . name($x), $mid->port(2));
ok $mid->wait_log(qr/client \Q${\name($x)}\E could not be reached/), 'five: it is none any more (C57)';
becomes($mid, below(at($x), at($y)), 'but it lives, and is back (C65)');
for my $bad (0, -1, 65536, 'abc', '1x', '%00', '1%0d%0aX:1', '10.1.2.3:80', '8' x 50) {
    is ask($mid, "hub?$_=$bad", $mid->port(2))->status, 400, "$_=$bad" for qw(reportHubPort reportClient);
}
for my $bad ('', 'localhost:80', '1.2.3', '0x7f.1:80', '127.0.0.1:0', '127.0.0.1:99999', '127.0.0.1:1%0d%0aX:1', 'http://127.0.0.1/', '8' x 80) {
    is ask($mid, "hub?$_=$bad")->status, 400, "$_=$bad" for qw(transferServer invalidClient);
}
is shape(stat_of($mid)), below(at($x), at($y)), 'nothing has come of it';
is stat_of($mid)->{super}, name($one), 'nothing at all';

# -- addresses that are not allowed
my $strict = node(http => [ 'cc_allow_node 10.0.0.0/8 0.0.0.0/0' ]);
my $lost = node(super => name($strict));
ok $strict->wait_log(qr/\[warn\] .*cc: channel "test": node \Q${\name($lost)}\E is refused: /), 'who comes from elsewhere is refused';
ok $lost->wait_log(qr/\[warn\] .*cc: channel "test": \Q${\name($strict)}\E refuses this node: /), 'and knows';
is ask($strict, 'hub?reportHubPort=' . $lost->port)->status, 403, 'nor is it taken by a report';
is shape(stat_of($strict)), '', 'it is no client';
is ask($lost, 'hub?who')->body, name($lost) . ' 0', 'who goes on, with workers of its own';
is ask($lost, 'cast?who&direction=tree')->status, 200, 'it is the root of itself';
is stat_of($lost)->{super}, name($strict), 'but shows the super that it wants';
is ask($lost, 'cast?who&direction=super')->json->{replies}[0]{node}, name($strict), 'and casts go there';
ok $strict->reload(http => "cc_channel test heartbeat=300ms; cc_channel kada; cc_allow_node 127.0.0.1;"), 'its address is allowed by a reload';
becomes($strict, at($lost), 'now it is taken');
$_->quit for $lost, $strict;

# -- two that name each other
{
    my ($a, $b) = (CC::Ports::block(16), CC::Ports::block(16));
    my @two = map {
        CC::Server->new(module => 1, lua => 0, workers => 2, port => $_->[0], server => $server =~ s/LUA//r,
            http => "cc_channel test heartbeat=300ms; cc_super 127.0.0.1:$_->[1];")->start;
    } [$a, $b], [$b, $a];
    my @shapes;
    $two[0]->wait_for(sub { 1 == grep { $_ ne '' } @shapes = map { shape(stat_of($_)) } @two }, 'one of them is the root');
    my ($root) = grep { $shapes[$_] ne '' } 0, 1;
    is $shapes[$root // 0], at($two[ 1 - ($root // 0) ]), 'two that are each other\'s super: one is the root, the other its client';
    all_answer($two[ $root // 0 ], 'a cast reaches each once', @two);
    $_->quit for @two;
}

becomes($one, at($mid, at($x), at($y)), 'in the end all is as it was');
ok $_->quit, 'quit' for reverse @five;
$_->log_is_clean(qr/exited on signal 9/, qr/connect\(\) failed/) for @five;
done_testing;
