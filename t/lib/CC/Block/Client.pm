package CC::Block::Client;

# Sends the packets of one request, each at its time, while it reads until
# the server closes. What came is returned raw.

use v5.36;
use Errno qw(EAGAIN EINTR);
use Test::More ();
use CC::HTTP;
use CC::Wait qw(now until_true SLOW);
use Test::Nginx::Util qw(parse_time);

# nginx may still be opening its sockets: a refusal is asked again, so long.
use constant CONNECT_DEADLINE => 10;

sub exchange ($block, $packets) {
    my $name = $block->name;
    my $addr = $block->get('server_addr_for_client') // $Test::Nginx::Util::ServerAddr;
    my $peer = ($addr =~ /:/ ? "[$addr]" : $addr) . ":$Test::Nginx::Util::ServerPortForClient";
    my $c;
    until_true(sub { $c = CC::HTTP->connect($peer); $c->ok }, CONNECT_DEADLINE);
    if (!$c->ok) {
        Test::More::fail("$name - " . $c->error);
        return '';
    }
    my $got = converse($block, $c->{sock}, map { +{%$_} } @$packets);
    $c->close;
    return $got;
}

sub converse ($block, $sock, @packets) {
    local $SIG{PIPE} = 'IGNORE';
    my $name    = $block->name;
    my $timeout = SLOW * (parse_time($block->get('timeout')) // Test::Nginx::Util::timeout());
    my $middle  = parse_time($block->get('raw_request_middle_delay')) // 0;
    my ($got, $off, $written) = ('', 0, 0);
    my $send_at = now();
    my $idle    = now() + $timeout;

    while (1) {
        my $writing = !$written && @packets && now() >= $send_at;
        my ($r, $w) = ('', '');
        vec($r, fileno $sock, 1) = 1;
        vec($w, fileno $sock, 1) = 1 if $writing;
        my $wake = !$written && !$writing && $send_at < $idle ? $send_at : $idle;
        my $wait = $wake - now();
        my $n = select $r, $w, undef, $wait > 0 ? $wait : 0;
        next if $n < 0;
        if (!$n) {
            next if now() < $idle || $send_at > now();
            Test::More::fail("ERROR: client socket timed out - $name")
                if !$block->has('abort');
            return $got;
        }
        $idle = now() + $timeout;

        if (vec $r, fileno $sock, 1) {
            my $bytes = sysread $sock, $got, 65536, length $got;
            if (!defined $bytes) {
                next if $! == EAGAIN || $! == EINTR;
                Test::More::diag("$name - read: $!");
                return $got;
            }
            return $got if !$bytes;
        }
        next if !$writing || !vec $w, fileno $sock, 1;

        my $bytes = syswrite $sock, $packets[0]{value}, length($packets[0]{value}) - $off, $off;
        if (!defined $bytes) {
            next if $! == EAGAIN || $! == EINTR;
            # what the server said before it closed is still to be read
            $got = "write failed: $!" if !length $got && !drain($sock, \$got);
            return $got;
        }
        $off += $bytes;
        next if $off < length $packets[0]{value};
        shift @packets;
        $off = 0;
        if (@packets) {
            $send_at = now() + ($packets[0]{delay_before} // $middle);
            $idle    = $send_at + $timeout;
            next;
        }
        $written = 1;
        if ($block->has('shutdown')) {
            my $how = $block->get('shutdown');
            shutdown $sock, $how =~ /\d/ ? $how : 1;
        }
    }
}

sub drain ($sock, $into) {
    1 while sysread $sock, $$into, 65536, length $$into;
    return length $$into;
}

# A stream block without a request talks to its stream servers itself; what
# they answer is taken for the body of a 200.
sub stream_exchange ($block, @ports) {
    my $timeout = SLOW * (parse_time($block->get('timeout')) // Test::Nginx::Util::timeout());
    my $body = '';
    for my $i (1 .. @ports) {
        my $nth = $i == 1 ? '' : $i;
        my $c = CC::HTTP->connect("$Test::Nginx::Util::ServerAddr:$ports[$i - 1]");
        if (!$c->ok) {
            $body .= 'connect to stream server error: ' . lc($c->error =~ s/.*: //r) . "\n";
            last;
        }
        my $data = $block->get("stream_request$nth");
        $c->send(Test::Nginx::Util::expand_env_in_text($data, $block->name)) if defined $data;
        my $got = $c->read_all($timeout);
        $body .= $block->has('log_stream_response')
            ? 'received ' . length($got) . " bytes of response data.\n" : $got;
        $c->close;
    }
    return "HTTP/1.1 200 OK\r\n\r\n$body";
}

1;
