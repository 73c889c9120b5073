# cc_status prometheus: what a strict reader of the text format 0.0.4 finds, over reloads and crashes;
# what is timed and counted beside messages.
use v5.36;
use Test::More;
use CC::Console;

use CC::Ports;
use IO::Socket::INET;

my $dead = CC::Ports::port();
my $c = CC::Console->start(workers => 3, http => 'cc_channel test; upstream u { cc_balancer workers key=$uri; server 127.0.0.1:1; }
    cc_channel orphan super=127.0.0.1:' . $dead . ';
    upstream t { cc_balancer $arg_to; cc_balancer_tries 3; server 127.0.0.1:1; }
    # says to be the node that it was taken for
    server { listen 127.0.1.1:%PORT+1%; location / { content_by_lua_block {
        ngx.req.read_body()
        local nonce = ngx.req.get_body_data():match([["nonce":(%d+)]])
        ngx.print([[{"type":"DIAL_OK","epoch":1,"id":"]], ngx.var.server_addr, ":", ngx.var.server_port, [[","nonce":]], nonce, "}")
    } } }
    server { listen 127.0.1.1:%PORT%; location = /ok { return 200; } location = /404 { return 404; } }',
    server => 'location = /metrics { cc_status prometheus; } location = /json { cc_status json; } location ~ ^/([^/]+)/hub { cc_hub; }
        location / { proxy_pass http://t; proxy_next_upstream error http_404; }');
my $s = $c->s;

# { "name{labels}" => value }; complains about whatever the format does not allow.
sub scrape ($worker = 0) {
    my $r = $s->get($s->port(1 + $worker), '/metrics');
    is $r->header('Content-Type'), 'text/plain; version=0.0.4; charset=utf-8', 'the content type';
    my $text = $r->body;
    my (%value, %kind, @wrong);
    my ($family, $help) = ('', '');
    push @wrong, 'no line feed at the end' if $text !~ /\n\z/;
    for my $line (split /\n/, $text) {
        if ($line =~ /^# HELP ([a-zA-Z_:][\w:]*) (?:[^\\]|\\[\\n])+$/) { $help = $1; next }
        if (my ($name, $kind) = $line =~ /^# TYPE ([a-zA-Z_:][\w:]*) (counter|gauge|histogram)$/) {
            push @wrong, "$name twice" if $kind{$name};
            push @wrong, "$name without HELP before it" if $help ne $name;
            push @wrong, "$name is a $kind" if ($name =~ /_total$/) != ($kind eq 'counter') || ($kind eq 'histogram' && $name !~ /_seconds$/);
            push @wrong, "$name is not ours" if $name !~ /^nginx_/;
            ($family, $kind{$name}) = ($name, $kind);
            next;
        }
        my $label = qr/[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*"/;
        if ($line =~ /^([a-zA-Z_:][\w:]*)(\{$label(?:,$label)*\})? (-?\d+(?:\.\d+)?)$/) {
            my ($name, $labels, $value) = ($1, $2 // '', $3);
            my $part = $kind{$family} eq 'histogram' ? qr/_(?:bucket|sum|count)/ : qr//;
            push @wrong, "$line: below $family" if $name !~ /^\Q$family\E$part$/;
            push @wrong, "$name$labels twice" if exists $value{"$name$labels"};
            push @wrong, "$line: a label twice" if do { my %n; grep { $n{$_}++ } $labels =~ /[{,](\w+)=/g };
            push @wrong, "$line: negative" if $value < 0;
            $value{"$name$labels"} = $value;
            next;
        }
        push @wrong, "cannot be read: $line";
    }
    for my $name (grep { $kind{$_} eq 'histogram' } keys %kind) {
        my @le  = grep { defined } map { /^${name}_bucket\{le="(.*)"\}$/ ? $1 : undef } keys %value;
        my @sorted = (sort({ $a <=> $b } grep { $_ ne '+Inf' } @le), '+Inf');
        my $last = 0;
        for my $le (@sorted) {
            my $count = $value{qq(${name}_bucket{le="$le"})} // push(@wrong, "$name has no bucket $le") && next;
            push @wrong, "$name: $le holds less than the one before" if $count < $last;
            $last = $count;
        }
        push @wrong, "$name: not all are in the last bucket" if $last != ($value{"${name}_count"} // -1);
        push @wrong, "$name has no sum" if !defined $value{"${name}_sum"};
    }
    is_deeply \@wrong, [], 'the text is in the format';
    return \%value;
}

$c->each('t.catch("a") return 1');
$c->run(0, 'return ipc.broadcast("a", "x")') for 1 .. 4;
$c->until($_, 'return t.count("a")', 4) for 0 .. 2;
$c->run(1, 'return ipc.send_worker(2, "nobody", "x")');
ok $s->wait_for(sub { $s->get($s->port, '/json')->json->{ipc}{unhandled} }, 'it'), 'one is dropped';
my $m = scrape(1);
is $m->{'nginx_ipc_messages_sent_total'}, 13, 'sent';
is $m->{'nginx_ipc_messages_received_total'}, 13, 'received';
is $m->{'nginx_ipc_messages_dropped_total{reason="unhandled"}'}, 1, 'dropped';
is $m->{'nginx_ipc_messages_dropped_total{reason="full"}'}, 0, '... for other reasons: none';
is $m->{"nginx_worker_messages_sent_total{worker=\"0\"}"}, 12, 'sent by worker';
is_deeply [ map { $m->{"nginx_worker_up{worker=\"$_\"}"} } 0 .. 2 ], [ 1, 1, 1 ], 'up';
is_deeply [ map { $m->{"nginx_worker_router{worker=\"$_\"}"} } 0 .. 2 ], [ 1, 0, 0 ], 'the router';
is $m->{'nginx_ipc_queue_length{worker="2"}'}, 0, 'queues';
is $m->{'nginx_upstream_peer_up{upstream="u",peer="127.0.0.1:' . $s->port(2) . '"}'}, 1, 'peers';
cmp_ok abs($m->{'nginx_worker_start_time_seconds{worker="1"}'} - time), '<', 60, 'times in seconds';
ok exists $m->{'nginx_cluster_nodes_below{channel="test"}'}, 'channels';

# -- how long messages take: of the first to each receiver in a millisecond, and no shorter than it took
is $m->{nginx_ipc_delivery_seconds_count} >= 3, 1, 'messages are timed';
cmp_ok $m->{nginx_ipc_delivery_seconds_count}, '<=', 13, '... none twice';
my ($victim) = ($s->workers)[2];
kill STOP => $victim;
$c->run(0, 'return ipc.send(' . $victim . ', "a", "x")');
$c->run(0, 'ngx.sleep(0.3) return 1');
kill CONT => $victim;
$c->until(2, 'return t.count("a")', 5);
my $late = scrape();
my $sum  = $late->{nginx_ipc_delivery_seconds_sum} - $m->{nginx_ipc_delivery_seconds_sum};
cmp_ok $sum, '>', 0.29, 'one that waits 0.3 s is told of';
cmp_ok $sum, '<', 20, '... in seconds';
is $late->{'nginx_ipc_delivery_seconds_bucket{le="+Inf"}'} - $late->{'nginx_ipc_delivery_seconds_bucket{le="0.1"}'}
    - $m->{'nginx_ipc_delivery_seconds_bucket{le="+Inf"}'} + $m->{'nginx_ipc_delivery_seconds_bucket{le="0.1"}'}, 1, '... in its bucket';

# -- tries, whose states are those of $cc_balancer_tries
my $origin = '127.0.1.1:' . $s->port;
sub tries () { my $now = scrape(); map { $now->{qq(nginx_upstream_tries_total{state="$_"})} } qw(ok next failed unfinished) }
is_deeply [ tries() ], [ 0, 0, 0, 0 ], 'no tries yet';
$s->get($s->port, "/ok?to=$origin");
$s->get($s->port, "/ok?to=127.0.0.1:$dead,$origin");
$s->get($s->port, "/404?to=$origin,$origin,$origin");
# somebody who never answers
my $silent = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die $!;
my $client = $s->connect($s->port);
$client->send('GET /?to=127.0.0.1:' . $silent->sockport . " HTTP/1.0\r\n\r\n");
ok my $held = $silent->accept, 'one is under way';
$client->close;
ok $s->wait_for(sub { (tries())[3] }, 'it is given up'), 'a client goes away';
is_deeply [ tries() ], [ 2, 3, 1, 1 ], 'each try by its state';

# -- calls to other nodes: a dial-back that is answered, a super that is not there
is $s->request(GET => $s->port(1), '/test/hub?reportHubPort=' . $s->port(1), from => '127.0.1.1')->status, 200, 'a client is reported';
ok $s->wait_for(sub { scrape()->{'nginx_cluster_rpc_failed_total{reason="unreachable"}'} }, 'it'), 'the super is not there';
$late = scrape();
is $late->{nginx_cluster_rpc_seconds_count}, 1, 'the dial-back is timed';
cmp_ok $late->{nginx_cluster_rpc_seconds_sum}, '>', 0, '... with its time';
is $late->{'nginx_cluster_rpc_failed_total{reason="untrusted"}'}, 0, 'nobody has lied';

$s->kill_worker(1);
$c->run(2, 'return require "ngx.cc.lifecycle".ready(false)');
my $elder = $c->console(0);
ok $s->reload(wait_old => 0), 'a reload';
ok $s->wait_for(sub { my $j = $s->get($s->port, '/json')->json; $j->{generation} == 2 && $j->{workers}->@* == 4 && $j->{ready} }, 'both'), 'with an elder';
my $later = scrape(2);
is $later->{nginx_workers_retiring}, 1, 'the elder';
is $later->{nginx_generation}, 2, 'the generation';
is $later->{nginx_reloads_total}, 1, 'reloads';
is $later->{'nginx_worker_crashes_total{reason="signal"}'}, 1, 'crashes';
is $later->{'nginx_worker_respawns_total{reason="signal"}'}, 1, 'respawns';
is $later->{nginx_ready}, 1, 'ready';
is_deeply [ grep { /_total(?!.*worker=)/ && $later->{$_} < $m->{$_} } keys %$m ], [], 'no counter of the node went back';
is_deeply [ grep { !exists $later->{$_} } keys %$m ], [], 'and no series has gone';
is $later->{'nginx_upstream_tries_total{state="next"}'}, 3, 'tries stay';
$elder->close;
ok $s->quit, 'quit';
$s->log_is_clean(qr/exited on signal 9/, qr/connect\(\) failed .* while connecting to upstream/);
done_testing;
