# The README describes what there is, all of it and nothing else: directives, variables, Lua
# functions, packages, counters, commands. What there is, is asked of the source's own tables and of
# a running nginx.
use v5.36;
use Test::More;
use File::Find qw(find);
use FindBin;
use CC::Modules;
use CC::Proc;
use CC::Server;

my $root = "$FindBin::Bin/..";
my $readme = CC::Proc::slurp("$root/README.md");

# { heading of the third level => its text }
my %section = $readme =~ /^### (\S+)\n(.*?)(?=^##|\z)/msg;
my $source = '';
find(sub { $source .= CC::Proc::slurp($_) if /\.rs$/ }, "$root/src/modules");
my $lua = CC::Proc::slurp("$root/src/lua/mod.rs");

sub same ($got, $want, $name) { is_deeply [ sort @$got ], [ sort @$want ], $name }

# -- directives: each table says how many rows it has, so that none can be overlooked here
my @directives;
my $tables = 0;
while ($source =~ /directives!\(.*?\bstatic mut \w+: \[(\d+)\] = \{(?:\}\);|\n(.*?)^\}\);)/msg) {
    my ($count, $rows) = ($1, $2 // '');
    $tables++;
    my @names = $rows =~ /^\s+"(\w+)"\s*\(/mg;
    is scalar(@names), $count, "a table of $count directives" or diag "@names";
    push @directives, @names;
}
is scalar(() = $source =~ /\bdirectives!\(/g), $tables, 'all tables were read';
my @wrapped = $source =~ /impl Before for \w+ \{\s*const NAME: &'static str = "(\w+)\\0";/g;
is scalar(@wrapped), scalar(() = $source =~ /\bdelegate::commands::</g), 'and those of nginx that we stand before';
cmp_ok scalar(@directives), '>=', 4, 'there are some';

my @described = grep { $section{$_} =~ /^    Syntax:/m } keys %section;
same \@described, [ @directives, @wrapped ], 'each directive has a section, each section a directive';
my $server = CC::Server->new(module => 1);
for my $name (@directives) {
    my $text = $section{$name} // next;
    like $text, qr/^\n    Syntax:  \Q$name\E\b.*;\n(?:   .*\n)*?    Default: (?:-|\Q$name\E .+;)\n    Context: \w/,
        "$name: Syntax, Default, Context" or next;
    my ($default) = $text =~ /^    Default: (.+)$/m;
    my ($context) = $text =~ /^    Context: (\w+)/m;
    next if $default eq '-';
    my %block = (main => '%s http { }', http => 'http { %s }', server => 'http { server { %s } }',
        location => 'http { server { location / { %s } } }', upstream => 'http { upstream u { server 127.0.0.1:1; %s } }');
    my ($code, $output) = $server->try_conf(sprintf $block{$context}, "\n$default\n");
    is $code, 0, "$name: the default is accepted" or diag $output;
    if ($context eq 'main') {
        ($code, $output) = $server->try_conf("http {\n$default\n}");
        like $output, qr/"$name" directive is not allowed here/, "$name: in main only";
    }
    ($code, $output) = $server->try_conf(sprintf $block{$context}, "\n$default\n$default\n");
    like $output, qr/"$name" directive is duplicate in \S+:3\b/, "$name: once";
}
like $section{listen} // '', qr/^\n    Syntax:  listen .*per_worker.*;\n(?:   .*\n)*    Default: -\n    Context: server/, 'listen';

# -- variables
my @variables = map { "\$$_" } $source =~ /const NAME: &'static str = "(\w+)";/g;
is scalar(@variables), scalar(() = $source =~ /\bvariable::add::</g), 'each variable is registered';
same [ grep { /^\$/ } keys %section ], \@variables, 'each variable has a section';

# -- the Lua packages: cc_lua_preload's names, and what the packages contain
my ($count, $table) = $lua =~ /PACKAGES: \[\(&str, Package\); (\d+)\] = \[(.*?)\];/s;
my @packages = $table =~ /^\s+\(\s*"([\w.]+)",\s+package\(/mg;
is scalar(@packages), $count, "a table of $count packages";
@packages = do { my %seen; grep { !$seen{$_}++ } @packages };     # a name may stand for several
same [ ($section{cc_lua_preload} // '') =~ /^\| `(.+?)` \|/mg ], \@packages, 'cc_lua_preload: each package';

$server = CC::Server->new(module => 1, http => 'lua_shared_dict ngxcc_dict 1m;', server => 'location / { content_by_lua_block {
    for name in pairs(require "ngx.ipc") do ngx.say("ipc.", name) end
    for name in pairs(require "ngx.cc.lifecycle") do
        if not name:find "^_" then ngx.say("lifecycle.", name) end
    end
    for name in pairs(require "resty.worker.manager") do ngx.say("manager.", name) end
    ngx.say("ipc.sender")      -- made when it is asked for
    for name in pairs(require "ngx.cc") do ngx.say("cc.", name) end
    for name in pairs(require "ngx.cc.balancer") do ngx.say("balancer.", name) end
    for name, value in pairs(require "ngx_cc") do if type(value) == "function" then ngx.say("ngx_cc.", name) end end
    for name, value in pairs(require "ngx_cc":new "test") do if type(value) == "function" then ngx.say("route.", name) end end
} } location /stats { content_by_lua_block {
    for name in pairs(require "ngx.ipc".stats()) do ngx.say(name) end
} }')->start;
my @functions = (split(/\n/, $server->get($server->port)->body), 'ngx.worker.port');
cmp_ok scalar(@functions), '>=', 11, 'ngx.ipc has functions';
my @headed = grep { /^(?:ipc|cc|balancer|lifecycle|manager|ngx_cc|route|ngx\.worker)\./ } keys %section;
same \@headed, \@functions, 'each Lua function has a section';
for my $name (@headed) {
    like $section{$name}, qr/^\n\*\*syntax:\*\* \*.*\Q$name\E.*\*\n/, "$name: syntax";
    like $section{$name}, qr/^\*\*context:\*\* \*.*\*$/m, "$name: context";
}
my @counters = split /\n/, $server->get($server->port, '/stats')->body;
my ($stats) = $section{'ipc.stats'} // '';
same [ $stats =~ /^\| `(\w+)` \|/mg, $stats =~ /: `(queued)`,/, $stats =~ /and `(queued_bytes)`/ ], \@counters,
    'each counter is explained';
ok $server->quit, 'quit';
$server->log_is_clean;

# -- commands, links and anchors
my $makefile = CC::Proc::slurp("$root/Makefile");
my %target = map { $_ => 1 } map { split } $makefile =~ /^([a-z][a-z -]*):/mg;
my @made = $readme =~ /(?:`|^    )make ([a-z-]+)/mg;
cmp_ok scalar(@made), '>=', 4, 'commands are named';
is_deeply [ grep { !$target{$_} } @made ], [], 'each make command exists';
my @docs = qw(README.md CONTRIBUTING.md SECURITY.md CHANGELOG.md patches/README.md src/README.md t/README.md
    t/bench/README.md t/soak/README.md);
for my $doc (map { "$root/$_" } @docs) {
    my $text = CC::Proc::slurp($doc);
    my $name = substr $doc, length "$root/";
    my ($dir) = $doc =~ m{^(.*)/};
    my %anchor = map { my $a = lc; $a =~ tr/ /-/; $a =~ tr/a-z0-9_-//cd; ("#$a" => 1) } $text =~ /^#+ (.+)$/mg;
    my @links = grep { !/^https?:/ } $text =~ /\]\(([^)\s]+)\)/g;
    is_deeply [ grep { /^#/ ? !$anchor{$_} : !-e "$dir/" . s/#.*//r } @links ], [], "$name: every link leads somewhere";
}

# -- what was measured is quoted from the last benchmark
my $results = CC::Proc::slurp("$root/t/bench/RESULTS.md");
my ($rows) = $section{Measured} =~ /^\| what \| \|\n\| ?---.*\n((?:\|.*\n)+)/m;
my @figures = map { (split / \| /)[1] =~ /(?<![\d.])(\d+(?:\.\d+)?(?: [kM](?=\/s| deliveries)| k\b)?)(?=\/s| deliveries| us| MB|$|[,; |])/g } split /\n/, $rows;
cmp_ok scalar(@figures), '>=', 15, 'figures are quoted';
is_deeply [ grep { $results !~ /\| *\Q$_\E(?: \(| *\|)/ } grep { !/^(?:0|99)$/ } @figures ], [], 'all are medians of t/bench/RESULTS.md';

# -- the map of the source names files that exist
my $map = CC::Proc::slurp("$root/src/README.md");
my @named = $map =~ m{\b((?:proto|shm|ngx|modules|lua)/[\w/]*(?:\.\w+)?)}g;
while ($map =~ m{^\| `(\w+/)` \|(.*)}mg) {
    my ($floor, $cells) = ($1, $2);
    push @named, map { "$floor$_" } $cells =~ m{`(\w+(?:/|\.\w+))`}g;
}
cmp_ok scalar(@named), '>=', 40, 'the map names files';
is_deeply [ grep { !-e "$root/src/$_" } @named ], [], 'all of which exist';
my %named = map { $_ => 1 } @named;
my @files;
find({ no_chdir => 1, wanted => sub { push @files, s{^\Q$root\E/src/}{}r if /\.(?:rs|lua|c)$/ && !/(?:lib|mod|_tests)\.rs$/ } }, "$root/src");
is_deeply [ grep { my $file = $_; !$named{$file} && !grep { m{/$} && index($file, $_) == 0 && m{/.+/} } @named } @files ], [],
    'and every file has its place';

done_testing;
