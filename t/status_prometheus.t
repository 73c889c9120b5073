# cc_status prometheus: what a strict reader of the text format 0.0.4 finds, over reloads and crashes.
use v5.36;
use Test::More;
use CC::Console;

my $c = CC::Console->start(workers => 3, http => 'cc_channel test; upstream u { cc_balancer workers key=$uri; server 127.0.0.1:1; }',
    server => 'location = /metrics { cc_status prometheus; } location = /json { cc_status json; } location ~ ^/([^/]+)/hub { cc_hub; }');
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
        if (my ($name, $kind) = $line =~ /^# TYPE ([a-zA-Z_:][\w:]*) (counter|gauge)$/) {
            push @wrong, "$name twice" if $kind{$name};
            push @wrong, "$name without HELP before it" if $help ne $name;
            push @wrong, "$name is a $kind" if ($name =~ /_total$/ ? 'counter' : 'gauge') ne $kind;
            push @wrong, "$name is not ours" if $name !~ /^nginx_/;
            ($family, $kind{$name}) = ($name, $kind);
            next;
        }
        my $label = qr/[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*"/;
        if ($line =~ /^([a-zA-Z_:][\w:]*)(\{$label(?:,$label)*\})? (-?\d+(?:\.\d+)?)$/) {
            my ($name, $labels, $value) = ($1, $2 // '', $3);
            push @wrong, "$line: below $family" if $name ne $family;
            push @wrong, "$name$labels twice" if exists $value{"$name$labels"};
            push @wrong, "$line: a label twice" if do { my %n; grep { $n{$_}++ } $labels =~ /[{,](\w+)=/g };
            push @wrong, "$line: negative" if $value < 0;
            $value{"$name$labels"} = $value;
            next;
        }
        push @wrong, "cannot be read: $line";
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
$elder->close;
ok $s->quit, 'quit';
$s->log_is_clean(qr/exited on signal 9/);
done_testing;
