package CC::Block::Run;

# Runs one block: brings nginx up, sends what is to be sent, has it judged.

use v5.36;
use Test::More ();
use CC::Block::Checks;
use CC::Block::Client;
use CC::Block::Conf;
use CC::Block::Log;
use CC::Block::Mock;
use CC::Block::Nginx;
use CC::Block::Request;
use CC::Block::Response;
use CC::Block::Skip;
use CC::Wait qw(nap);
use Test::Nginx::Util qw(parse_time);

my $previous;      # whose shutdown is still to be looked at

sub block ($block) {
    my $name = $block->name;
    $Test::Nginx::Util::RandPorts = {};
    local $Test::Nginx::Util::LogLevel =
        $block->get('log_level') || $Test::Nginx::Util::LogLevel;
    Test::More::diag("run $name") if $Test::Nginx::Util::Verbose;

    stream_answers($block);
    my ($kind, $count, $why) = CC::Block::Skip::verdict($block);
    if (!$kind) {
        my $up = CC::Block::Nginx::bring_up($block, \&judge_shutdown);
        $previous = $block;
        return if !$up;
        CC::Block::Nginx::evaluate($block, 'init');
        CC::Block::Log::restart();
    }

    for my $repeat (0 .. $Test::Nginx::Util::RepeatEach - 1) {
        if ($kind) {
            leave_out($kind, $count, "$name - $why");
            next;
        }
        CC::Block::Nginx::user_files($block) if $repeat;
        my $mock = CC::Block::Mock::start($block);
        requests($block, $repeat);
        $mock->end;
    }
    return;
}

sub leave_out ($kind, $count, $why) {
    my $tb = Test::More->builder;
    for (1 .. $count) {
        $kind eq 'skip' ? $tb->skip($why) : $tb->todo_skip($why);
    }
    return;
}

# stream_response is response_body under another name.
sub stream_answers ($block) {
    for my $way ('', '_like') {
        next if !$block->has("stream_response$way");
        die $block->name . ": stream_response$way and response_body$way are one\n"
            if $block->has("response_body$way");
        $block->set_value("response_body$way", $block->get("stream_response$way"));
    }
    return;
}

sub requests ($block, $repeat) {
    my @stream = grep { !defined $block->get('request') }
        CC::Block::Conf::stream_ports($block);
    my @requests = @stream ? [] : CC::Block::Request::list($block);
    my $pipelined = $block->get('pipelined_requests');
    my $answers   = $pipelined ? @$pipelined : @requests;
    my $many      = $answers > 1 || $pipelined;
    my ($raw, $is_head);

    for my $i (0 .. $answers - 1) {
        if (!$pipelined || !$i) {
            my $request = $requests[$i];
            $is_head = join('', map { $_->{value} } @$request) =~ /^\s*HEAD\s/;
            $raw = @stream ? CC::Block::Client::stream_exchange($block, @stream)
                : CC::Block::Client::exchange($block, $request);
            Test::More::diag("response: [$raw]") if $Test::Nginx::Util::Verbose;
        }
        $raw = judge($block, $raw, $is_head, $i, $repeat, $many)
            if !$block->has('ignore_response');
        if (length $raw && !$pipelined && !$block->has('ignore_response')) {
            Test::More::diag($block->name . ' - extra bytes after the response: '
                . CC::Block::Checks::excerpt($raw, 0));
        }
        nap(parse_time($block->get('wait'))) if $block->get('wait');
        CC::Block::Log::error_log($block, $repeat);
        CC::Block::Log::access_log($block, $repeat)
            if !$block->has('ignore_response');
    }
    if ($block->has('stap')) {
        Test::More->builder->skip($block->name . ' - stap_out - no SystemTap here');
    }
    return;
}

# Returns what is left behind the response.
sub judge ($block, $raw, $is_head, $i, $repeat, $many) {
    my ($res, $headers, $left) = $block->has('http09')
        ? (CC::Block::Response::plain($raw), '', '')
        : CC::Block::Response::parse($block->name, $raw, $is_head);
    CC::Block::Checks::response($block, $res, $headers, $i, $repeat, $many);
    return $left;
}

sub judge_shutdown () {
    my $block = $previous // return;
    undef $previous;
    CC::Block::Log::shutdown_log($block,
        $Test::Nginx::Util::UseHup ? 'nginx stays up in HUP mode' : undef);
    return;
}

# The end of the file: the last nginx goes, and its shutdown is judged.
sub finish () {
    CC::Block::Nginx::shut_down('end');
    judge_shutdown();
    return;
}

1;
