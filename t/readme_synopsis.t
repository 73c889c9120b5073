# The README's synopsis, its first message and its per-worker ports run as they stand, but for ports and
# the paths of modules.
use v5.36;
use Test::More;
use FindBin;
use CC::Proc;
use CC::Server;

my $readme = CC::Proc::slurp("$FindBin::Bin/../README.md");
my ($conf) = $readme =~ /^## Synopsis\n\n```nginx\n(.*?)^```$/ms;
ok $conf, 'there is one' or done_testing, exit;
my $s = CC::Server->new(module => 1, ports => 32);
is $conf =~ s/^load_module .*;$//mg, 3, 'it loads the modules';
is $conf =~ s/\blisten 80(\d\d)\b/'listen 127.0.0.1:' . $s->port($1)/ge, 2, 'it names two ports';
# for a look at the table of each worker
$conf =~ s/^( +)(?=location = \/who)/$1location = \/cache { content_by_lua_block {
    local c = require "cache" if ngx.var.arg_set then c[ngx.var.arg_set] = 1 end
    for key in pairs(c) do ngx.print(key, " ") end } }\n/m;
$s->start($conf);

my @workers = $s->workers;
is scalar(@workers), 4, 'four workers';
is_deeply [ map { $s->get($s->port(10 + $_), '/who')->body } 0 .. 3 ],
    [ map { "worker $_, pid $workers[$_], its port is " . $s->port(10 + $_) . "\n" } 0 .. 3 ], 'who they are';
like $s->get($s->port, '/who')->body, qr/^worker [0-3], /, 'and on the shared port';

sub caches { [ map { $s->get($s->port(10 + $_), '/cache')->body =~ s/\s+$//r } 0 .. 3 ] }
for my $port (map { $s->port(10 + $_) } 0 .. 3) {
    $s->get($port, "/cache?set=a");
}
is_deeply caches(), [ ('a') x 4 ], 'each worker has a cache';
is $s->get($s->port, '/forget?key=a')->body, "forgotten by all workers\n", 'a message to all';
ok $s->wait_for(sub { !grep { length } @{ caches() } }, 'all to forget'), 'they forget';
ok $s->quit, 'quit';
$s->log_is_clean;

# -- what is told to begin with, and what comes back
my ($chapter) = $readme =~ /^## First message in five minutes\n(.*?)^## /ms;
my ($file) = $chapter =~ m{-c \$PWD/(nginx-conf/\w+\.conf)$}m;
$conf = CC::Proc::slurp("$FindBin::Bin/../$file") =~ s/^include .*modules\.conf;.*$//mr;
my $first = CC::Server->new(module => 1);
$first->start($conf =~ s/127\.0\.0\.1:8000/'127.0.0.1:' . $first->port/ger);
my $commands = 0;
while ($chapter =~ /^    \$ (.*)\n((?:    [^\$].*\n)*)/mg) {
    my ($command, $said) = ($1, $2);
    $said =~ s/^    //mg;
    $commands++;
    if ($command =~ /^nginx .* -s reload$/) { ok $first->reload, $command; next }
    my ($uri) = $command =~ m{^curl '?http://127\.0\.0\.1:8000(/[^\s']+)'?$} or fail("not understood: $command"), next;
    # whichever worker is free
    my $like = quotemeta($said) =~ s/(?<=in\\ worker\\ )\d/[0-3]/r;
    like $first->get($first->port, $uri)->body, qr/\A$like\z/, $command;
}
is $commands, 6, 'so many commands';
ok $first->quit, 'quit';
$first->log_is_clean;

($conf) = $readme =~ /^## A port for each worker\n.*?^```nginx\n(.*?)^```$/ms;
my $ports = CC::Server->new(module => 1, lua => 0);
$ports->start($conf =~ s/127\.0\.0\.1:80(\d\d)/'127.0.0.1:' . $ports->port($1)/ger);
is $ports->get($ports->port(12))->body, 'worker 2, port ' . $ports->port(12) . "\n", 'worker 2 on its own port';
ok $ports->quit, 'quit';

done_testing;
