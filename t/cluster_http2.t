# Clients of cc_hub, cc_cast and cc_invoke that speak HTTP/2: many requests on one connection, bodies,
# and streams that are given up.
use v5.36;
use Test::More;
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use CC::H2;
use CC::Modules;
use CC::Server;

plan skip_all => 'this nginx has no HTTP/2' if CC::Modules::build_info() !~ /http_v2_module/;
my ($version) = CC::Modules::build_info() =~ m{nginx/1\.(\d+)\.};
my ($on, $word) = $version >= 25 ? ('http2 on;', '') : ('', 'http2');

my $s = CC::Server->new(module => 1, lua => 0, workers => 3, http => 'cc_channel test; client_max_body_size 2m;', server => <<"CONF")->start;
    listen 127.0.0.1:%PORT+1% per_worker;
    location ~ ^/([^/]+)/invoke { cc_invoke; cc_action who /who; cc_action size /size; cc_action long /long; cc_action hang /hang; }
    location ~ ^/([^/]+)/hub { cc_hub; cc_action who /who; cc_action size /size; cc_action long /long; cc_action bad /bad; }
    location ~ ^/([^/]+)/cast { cc_cast; }
    location = /who { internal; return 200 "\$cc_worker_id \$request_method \$server_protocol \$http_x_mine \$args"; }
    location = /size { internal; proxy_pass http://127.0.0.1:%PORT+8%; }
    location = /long { internal; return 200 "${\('0123456789' x 300)}"; }
    location = /bad { internal; return 409 "no"; }
    location = /hang { internal; proxy_pass http://127.0.0.1:%PORT+9%; }
    }
    server {
        listen 127.0.0.1:%PORT+8%;
        location / { return 200 "\$request_method \$content_length"; }
    }
    server {
        $on
        listen 127.0.0.1:%PORT+4% $word per_worker;
        location ~ ^/([^/]+)/invoke { cc_invoke; cc_action who /who; }
        location ~ ^/([^/]+)/hub { cc_hub; }
        location ~ ^/([^/]+)/cast { cc_cast; cc_read_timeout 20s; }
        location = /who { internal; return 200 "\$cc_worker_id \$request_method \$server_protocol"; }
CONF
# a worker that is not the router
my $c = CC::H2->connect($s->port(6));
my $said = sub (@request) { my $r = $c->request(@request); ($r->{error} // $r->{status}) . " $r->{body}" };

is $said->(GET => '/test/invoke?who'), '200 2 GET HTTP/2.0', 'cc_invoke';
is $said->(GET => '/test/hub?who&x=%20', headers => { 'X-Mine' => 'a' }), '200 0 GET HTTP/1.1 a who&x=%20', 'cc_hub, at a worker that is not the router';
is $said->(GET => '/test/hub?bad'), '409 no', 'a status';
is $said->(GET => '/test/hub?none'), qq{404 unknown action "none"\n}, 'and a refusal';
is $said->(POST => '/test/hub?size', body => 'x' x 5), '200 POST 5', 'a body';
is $said->(PUT => '/test/hub?size', body => 'x' x 60_000), '200 PUT 60000', 'a long one';
is $said->(HEAD => '/test/hub?who'), '200 ', 'HEAD';
is $said->(GET => '/test/hub?long'), '200 ' . '0123456789' x 300, 'a longer answer';
is $said->(GET => '/none/hub?who'), "403 URL include unknow channel.\n", 'an unknown channel';

my $cast = sub ($r) { ($r->{error} // $r->{status}) . ' ' . join ' ', map { "$_->{worker}=$_->{body}" } decode_json($r->{body})->{replies}->@* };
is $cast->($c->request(GET => '/test/cast?who')), '200 0=0 GET HTTP/1.1  who 1=1 GET HTTP/1.1  who 2=2 GET HTTP/1.1  who', 'cc_cast, over http';
like $cast->($c->request(GET => '/test/cast?getServiceStat&selfOnly=1')), qr/^200 0=\{.*"service".*\} 1=\{.*\} 2=\{/, 'and over the rings';
is $cast->($c->request(POST => '/test/cast?size', body => 'x' x 50_000)), '200 0=POST 50000 1=POST 50000 2=POST 50000', 'with a body';

# -- many at a time, on one connection
my @streams = map { $c->ask(GET => $_ % 2 ? "/test/cast?who&n=$_" : "/test/hub?who&n=$_") } 1 .. 60;
my @answers = map { $c->answer($_) } reverse @streams;
is_deeply [ map { $_->{status} } @answers ], [ (200) x 60 ], 'sixty at a time';
is scalar(grep { $answers[ 60 - $_ ]{body} =~ /who&n=$_\b/ } 1 .. 60), 60, 'each has its own answer';

# -- streams that are given up while others wait for them: nobody answers at that port
my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $s->port(9), Listen => 128, ReuseAddr => 1, Blocking => 0) or die $!;
my @given_up = map { $c->ask(GET => '/test/cast?hang') } 1 .. 20;
my @waiting;
$s->wait_for(sub { my $w = $silent->accept; push @waiting, $w if $w; @waiting == 60 }, 'all workers ask', 20);
is scalar(@waiting), 60, 'twenty casts are under way';
$c->reset($_) for @given_up;
is $cast->($c->request(GET => '/test/cast?who')), '200 0=0 GET HTTP/1.1  who 1=1 GET HTTP/1.1  who 2=2 GET HTTP/1.1  who', 'given up, they harm nobody';
my $gone = CC::H2->connect($s->port(5));
$gone->ask(GET => '/test/cast?hang') for 1 .. 5;
$s->wait_for(sub { my $w = $silent->accept; push @waiting, $w if $w; @waiting == 75 }, 'all workers ask', 20);
$gone->{http}->close;
is $said->(GET => '/test/hub?who'), '200 0 GET HTTP/1.1  who', 'nor does a connection that is closed';
undef @waiting;
$c->{http}->close;
ok $s->quit, 'quits';
$s->log_is_clean(qr/\[warn\]/, qr/(?:prematurely closed connection|recv\(\) failed \(104: .*) while reading response header/);
done_testing;
