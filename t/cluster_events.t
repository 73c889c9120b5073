# The calls between workers and nodes on each of nginx's event methods that this nginx has: kept
# connections, long bodies both ways, slow and dead peers.
use v5.36;
use IO::Socket::INET;
use Test::More;
use CC::Server;

my $server = <<'CONF';
    listen 127.0.0.1:%PORT+1% per_worker;
    location ~ ^/([^/]+)/invoke { cc_invoke; cc_action who /who; cc_action long /long; cc_action size /size; cc_action hang /hang; }
    location ~ ^/([^/]+)/hub { cc_hub; cc_action who /who; cc_action long /long; cc_action size /size; cc_action hang /hang; }
    location ~ ^/([^/]+)/cast { cc_cast $arg_direction; cc_read_timeout 300ms; }
    location = /who { internal; return 200 "$cc_worker_id $args"; }
    location = /long { internal; rewrite ^ /long.txt break; root %PREFIX%; }
    location = /size { internal; proxy_pass http://127.0.0.1:%PORT+8%; }
    location = /hang { internal; proxy_pass http://127.0.0.1:%PORT+9%; }
    location = /status { cc_status json; }
    }
    server {
        listen 127.0.0.1:%PORT+8%;
        location / { return 200 "$request_method $content_length"; }
CONF
my $long = join '', map { sprintf "%08d\n", $_ } 1 .. 200_000;

for my $method (qw(epoll poll select)) {
    subtest $method => sub {
        my $one = CC::Server->new(module => 1, lua => 0, workers => 3, events => "use $method;", server => $server,
            http => 'cc_channel test heartbeat=300ms; client_max_body_size 4m;');
        my ($code, $says) = $one->try_conf;
        plan skip_all => "this nginx has no $method" if $says =~ /invalid event type/;
        $one->write('long.txt', $long);
        $one->start;
        my $two = CC::Server->new(module => 1, lua => 0, workers => 2, events => "use $method;", server => $server,
            http => 'cc_channel test heartbeat=300ms; cc_super 127.0.0.1:' . $one->port . ';')->start;
        my $clients = sub { my $c = $one->get($one->port, '/test/hub?getServiceStat')->json->{clients}; ref $c eq 'HASH' ? join ' ', keys %$c : '' };
        my $name = '127.0.0.1:' . $two->port;
        ok $one->wait_for(sub { $clients->() eq $name }, 'a tree of two', 15), 'a tree of two';

        my $bodies = sub ($r) { join ', ', map { $_->{body} } $r->json->{replies}->@* };
        for my $round (1 .. 3) {
            is $one->get($one->port(3), "/test/hub?who&n=$round")->body, "0 who&n=$round", "$round: by the hub";
            is $bodies->($one->get($one->port(2), "/test/cast?who&n=$round")), join(', ', map { "$_ who&n=$round" } 0 .. 2), "$round: a cast over http";
            is scalar($one->get($one->port(2), '/test/cast?getServiceStat')->json->{replies}->@*), 3, "$round: and over the rings";
            is scalar($one->get($one->port(1), '/test/cast?who&direction=tree')->json->{replies}->@*), 5, "$round: and down the tree";
        }
        ok $one->get($one->port(2), '/test/hub?long')->body eq $long, 'a long answer, through the hub';
        is $one->request(POST => $one->port(3), '/test/hub?size', body => 'x' x 3_000_000)->body, 'POST 3000000', 'a long body';
        my $r = $one->request(PUT => $one->port(3), '/test/cast?size', body => 'x' x 1_000_000);
        is $bodies->($r), join(', ', ('PUT 1000000') x 3), 'and one to all';

        # -- who is slow costs its time
        my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $one->port(9), Listen => 9, ReuseAddr => 1) or die $!;
        $r = $one->get($one->port(1), '/test/cast?hang');
        is $r->status, 504, 'nobody answers';
        close $silent;

        # -- a peer that was killed, with a call on it and with kept connections
        my $heir = $one->kill_worker(2);
        is $bodies->($one->get($one->port(1), '/test/cast?who')), '0 who, 1 who, 2 who', "the successor of worker 2, $heir, answers";
        $one->kill_worker(0);
        $one->wait_for(sub { $one->get($one->port(2), '/test/hub?who')->body eq '0 who' }, 'the next router', 15);
        is $one->get($one->port(2), '/test/hub?who')->body, '0 who', 'so does that of the router';
        kill KILL => $two->master_pid, $two->worker_pids;
        ok $one->wait_for(sub { $clients->() eq '' }, 'the dead node is forgotten', 15), 'a dead node is forgotten';
        ok $one->reload(workers => 2), 'reload';
        is $bodies->($one->get($one->port(1), '/test/cast?who')), '0 who, 1 who', 'the new workers answer';
        ok $one->quit, 'quits';
        done_testing;
    };
}
done_testing;
