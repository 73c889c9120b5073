# The page of cc_status in a real browser: the right numbers, kept up to date; on a phone, in the
# dark; what names say is never markup; what it says when nobody answers.
use v5.36;
use Test::More;
use CC::Browser;
use CC::Console;

plan skip_all => 'there is no chromium to look at the page with' if !CC::Browser::program();

my $evil = '<img src=x onerror=alert(1)>';
my $c = CC::Console->start(workers => 3, http => 'cc_channel test; cc_channel other;',
    server => 'location = /cc_status { cc_status; allow 127.0.0.1; deny all; } location ~ ^/([^/]+)/hub { cc_hub; }');
my $s = $c->s;
$c->each('t.catch("a") return 1');
$c->run(0, qq{return ipc.retain("$evil", "k", "v")});

my $b = CC::Browser->start;
$b->size(1200, 900);
$b->scheme('light');
$b->go('http://127.0.0.1:' . $s->port . '/cc_status');
ok $b->until('document.querySelectorAll("[data-worker]").length === 3'), 'three workers' or diag $b->log;
sub pids () { join ' ', $b->value('[...document.querySelectorAll("[data-pid]")].map(e => e.dataset.pid)')->@* }
is pids(), join(' ', $s->workers), 'which are these processes';
is $b->value('document.getElementById("node").textContent'), '127.0.0.1:' . $s->port, 'of this node';
is $b->value('document.getElementById("ready").textContent'), 'ready', 'which is ready';
like $b->value('document.getElementById("about").textContent'), qr/^generation 1, up \d+ s, nginx \d/, 'the generation';
like $b->value('document.querySelector("[data-worker=\'0\']").textContent'), qr/^Worker 0router/, 'the router';
ok $b->until('document.querySelectorAll("#tree svg").length === 2'), 'a tree for each channel';
like $b->value('document.getElementById("tree").textContent'), qr/\Q127.0.0.1:${\ $s->port}\Ethis node, root/, 'with this node in it';

# -- it keeps up
$c->run(1, 'for i = 1, 7 do ipc.broadcast("a", "x") end return 1');
sub tile ($key) { "document.querySelector('[data-tile=$key]').textContent" }
$c->until($_, 'return t.count("a")', 7) for 0 .. 2;
my $received = $s->get($s->port, '/cc_status')->json->{ipc}{received};
cmp_ok $received, '>=', 21, 'messages are received';
ok $b->until(tile('rate') . qq{.includes("$received received")}), '... and shown';
is $b->value(tile('crashes')), '0', 'no crash';
my ($old, $heir) = (($s->workers)[1], $s->kill_worker(1));
ok $b->until(qq{document.querySelector("[data-worker='1'] [data-pid='$heir']") !== null}), 'a successor is shown';
unlike pids(), qr/\b$old\b/, '... in the place of the dead';
ok $b->until(tile('crashes') . '.startsWith("1last ")'), 'the crash is shown';
$c->run(2, 'return require "ngx.cc.lifecycle".ready(false, "<b>cold</b>")');
ok $b->until('document.getElementById("ready").textContent === "not ready: worker 2 is not ready: <b>cold</b>"'), 'who is not ready';
like $b->value('document.querySelector("[data-worker=\'2\']").textContent'), qr/not ready<b>cold<\/b>/, 'and why';
$c->run(2, 'return require "ngx.cc.lifecycle".ready(true)');
ok $b->until('document.getElementById("ready").textContent === "ready"'), 'ready again';
ok $s->reload, 'a reload';
ok $b->until('document.getElementById("about").textContent.startsWith("generation 2")'), 'the next generation';
ok $b->until(sprintf '[...document.querySelectorAll("[data-pid]")].map(e => e.dataset.pid).join(" ") === "%s"', join ' ', $s->workers), 'with its workers';

# -- nothing in it becomes markup
ok $b->value(qq{document.getElementById("retained").textContent.includes("$evil")}), 'a name is text';
is $b->value('document.querySelectorAll("img, main b").length'), 0, 'whatever it says';

# -- wide, narrow, light, dark
is $b->value('document.documentElement.scrollWidth - innerWidth'), 0, 'it fits';
my $light = $b->value('getComputedStyle(document.body).backgroundColor');
$b->size(360, 740);
$b->scheme('dark');
ok $b->until(qq{getComputedStyle(document.body).backgroundColor !== "$light"}), 'dark';
is $b->value('document.documentElement.scrollWidth'), 360, 'it fits a phone';
is $b->value('getComputedStyle(document.querySelector("#workers tr[data-worker]")).display'), 'grid', '... with a card for each worker';
is_deeply [ $b->errors ], [], 'and the console has nothing to say';

# -- nobody answers
ok $s->quit, 'quit';
ok $b->until('!document.getElementById("lost").hidden && document.body.classList.contains("lost")'), 'the page tells';
like $b->value('document.getElementById("lost").textContent'), qr/^No answer since \d/, 'since when';
is $b->value('document.querySelectorAll("[data-worker]").length'), 3, 'and what was known last is there';
$s->log_is_clean(qr/exited on signal 9/);
$s->start;
ok $b->until('document.getElementById("lost").hidden && document.getElementById("about").textContent.startsWith("generation 1")'), 'and back';
$b->quit;
ok $s->quit, 'quit';
done_testing;
