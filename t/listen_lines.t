# Errors name the lines of both directives, wherever they stand (P4).
use v5.36;
use Test::More;
use CC::Ports;
use CC::Server;

my $s = CC::Server->new(module => 1, workers => 4);
my ($rc, $out);

sub refused ($text, $name, %more) {
    ($rc, $out) = $s->try_conf(%more, conf => $text);
    is $rc, 1, "$name: refused" or diag $out;
    return $out =~ /^.*\[emerg\].*$/m ? $& : '';
}

sub accepted ($text, $name) {
    ($rc, $out) = $s->try_conf(conf => $text);
    is $rc, 0, "$name: accepted" or diag $out;
    return;
}

like refused("worker_processes 4;\nhttp {\n server {\n  listen 127.0.0.1:%PORT%\n    backlog=9\n    per_worker;\n }\n"
        . " server {\n  listen %PORT+2%;\n }\n}", 'two lines'),
    qr/per_worker" in \S+try\.conf:6 conflicts with "listen \d+" in \S+try\.conf:9$/, 'each at its end, as nginx counts';

like refused("worker_processes 4;\nhttp {\n server {\n  listen 127.0.0.1:%PORT+2%; }\n"
        . " server {\n  listen 127.0.0.1:%PORT+2%; }\n server {\n  listen 127.0.0.1:%PORT% per_worker; }\n}", 'plain first'),
    qr/try\.conf:8 conflicts with "listen \S+" in \S+try\.conf:4$/, 'the first of those that share';

like refused("worker_processes 4;\nhttp {\n server {\n  listen 127.0.0.1:%PORT%; }\n server {\n"
        . "  listen 127.0.0.1:%PORT% per_worker; }\n server {\n  listen 127.0.0.1:%PORT+1%; }\n}", 'shared'),
    qr/try\.conf:6 conflicts with .*try\.conf:8$/, 'the one with the word';

my $one = $s->write('conf/one.conf', "\n\nserver { listen 127.0.0.1:" . $s->port . " per_worker; }\n");
my $two = $s->write('conf/two.conf', "server {\n listen 127.0.0.1:" . $s->port(3) . "; }\n");
like refused("worker_processes 4;\nhttp {\n include $one;\n include $two;\n}", 'included'),
    qr/\Q$one\E:3 conflicts with .*\Q$two\E:2$/, 'the files';

# worker_processes is final only at the end
like refused("http {\n server { listen 127.0.0.1:%PORT% per_worker; }\n server { listen 127.0.0.1:%PORT+5%; }\n}\n"
        . 'worker_processes 6;', 'counted later'), qr/:\d+ of worker 5 of .*try\.conf:2 conflicts with .*try\.conf:3$/, 'by the last worker';
accepted("http {\n server { listen 127.0.0.1:%PORT% per_worker; }\n server { listen 127.0.0.1:%PORT+5%; }\n}\n"
        . 'worker_processes 5;', 'one worker less');
accepted("master_process off; http {\n server { listen 127.0.0.1:65535 per_worker; }\n}\n worker_processes 5;", 'master_process off');

# what does not clash
for (
    [ 'neighbours',           '127.0.0.1:%PORT% per_worker', '127.0.0.1:%PORT+4% per_worker' ],
    [ 'different addresses',  '127.0.0.1:%PORT% per_worker', '127.0.0.2:%PORT+1% per_worker' ],
    [ 'IPv6 and IPv4',        '[::]:%PORT% per_worker', '*:%PORT% per_worker' ],
    [ 'IPv6 and IPv4, alone', '[::1]:%PORT% per_worker', '127.0.0.1:%PORT+1%' ],
    [ 'paths',                'unix:%PREFIX%/s per_worker', 'unix:%PREFIX%/s.4' ],
    [ 'path and its base',    'unix:%PREFIX%/s per_worker', 'unix:%PREFIX%/s.d' ],
) {
    my ($name, @listen) = @$_;
    next if $name =~ /IPv6/ && !CC::Ports::has_ipv6();
    accepted('worker_processes 4; http {' . (join '', map { "server { listen $_; }" } @listen) . '}', $name);
}
is_deeply [ glob $s->path('s*') ], [], 'nginx -t leaves no socket file';

done_testing;
