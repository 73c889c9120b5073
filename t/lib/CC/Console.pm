package CC::Console;

# A CC::Server whose workers run Lua that the test sends them. Worker i
# listens on port(1 + i): run() asks it there; console() is a connection that
# stays with the process it reached, also while that process is retiring.
#
# The Lua sees `ipc` (ngx.ipc) and the table `t`:
#   t.catch(name...)   registers handlers that note "name|data|sender"
#   t.got, t.count(name), t.clear()    what was noted
#   t.wait(fn, what)   polls until fn() is true, which it returns; else raises
# Several values come back separated by tabs.
#
# Suites where it matters run on both transports. CC_IPC_TRANSPORT=socket asks the others, which leave
# it open, to run on that one.

use v5.36;
use Carp qw(croak);
use CC::Server;
use CC::Proc;
use CC::Wait qw(until_true SLOW);

my $PATIENCE = 10 * SLOW;
my $PRELUDE = <<"LUA";
    local found, ipc = pcall(require, "ngx.ipc")
    local t = { got = {}, keep = {} }
    package.loaded.cc_console = t
    local env = setmetatable({ t = t, ipc = found and ipc or nil },
        { __index = _G, __newindex = t.keep })
    function t.catch(...)
        for _, name in ipairs { ... } do
            assert(ipc.receive(name, function(data)
                t.got[#t.got + 1] = name .. "|" .. data .. "|" .. tostring(ipc.sender)
            end))
        end
    end
    function t.count(name)
        local n = 0
        for _, line in ipairs(t.got) do
            if line:sub(1, #name + 1) == name .. "|" then n = n + 1 end
        end
        return n
    end
    function t.clear() t.got = {} end
    function t.wait(fn, what)
        ngx.update_time()
        local deadline = ngx.now() + $PATIENCE
        while true do
            local got = fn()
            if got then return got end
            ngx.sleep(0.002)
            if ngx.now() > deadline then
                error("never came: " .. (what or "condition"), 2)
            end
        end
    end
    function t.run(code)
        local fn, err = loadstring(code, "=test")
        if not fn then return nil, err end
        setfenv(fn, env)
        local function pack(ok, ...)
            local list = {}
            for i = 1, select("#", ...) do list[i] = tostring((select(i, ...))) end
            return ok, table.concat(list, "\t")
        end
        return pack(pcall(fn))
    end
LUA

my $LOCATIONS = <<'CONF';
    location = /lua { client_body_buffer_size 1m; content_by_lua_block {
        ngx.req.read_body()
        local ok, text = require("cc_console").run(ngx.req.get_body_data())
        if not ok then ngx.status = 599 end
        ngx.print(text)
    } }
    location = /console { content_by_lua_block {
        local sock = ngx.req.socket(true)
        sock:settimeout(600000)
        sock:send("READY\n")
        while true do
            local size = sock:receive()
            if not size then break end
            local ok, text = require("cc_console").run(sock:receive(tonumber(size)))
            if not sock:send((ok and "+" or "-") .. #text .. "\n" .. text) then break end
        end
    } }
CONF

# start(%options): those of CC::Server, and
#   init    Lua that runs in init_worker_by_lua, after the prelude; sees t, ipc
#   server  more of the server's body
sub start ($class, %opt) {
    my $self = bless {}, $class;
    $self->{s} = CC::Server->new(ports => 40, workers => 2, module => 1, lua => 1,
        $self->options(main => '', %opt));
    $self->{s}->start;
    return $self;
}

# One that is not started, for try_start and the like.
sub new ($class, %opt) {
    my $self = bless {}, $class;
    $self->{s} = CC::Server->new(ports => 40, workers => 2, module => 1, lua => 1,
        $self->options(main => '', %opt));
    return $self;
}

sub options ($self, %opt) {
    my $init   = delete $opt{init}   // $self->{init}   // '';
    my $server = delete $opt{server} // $self->{server} // '';
    my $http   = delete $opt{http}   // $self->{http}   // '';
    @$self{qw(init server http)} = ($init, $server, $http);
    if ($ENV{CC_IPC_TRANSPORT} && defined $opt{main} && $opt{main} !~ /cc_ipc_transport/) {
        $opt{main} = "cc_ipc_transport $ENV{CC_IPC_TRANSPORT}; $opt{main}";
    }
    return (%opt, http => "$http
            init_worker_by_lua_block { $PRELUDE setfenv(1, env) $init }
            server {
                listen 127.0.0.1:%PORT%;
                listen 127.0.0.1:%PORT+1% per_worker;
                $LOCATIONS
                $server
            }");
}

sub s ($self) { $self->{s} }

# With other options; wait_old => 0 does not wait for the old workers.
sub reload ($self, %opt) {
    my %wait = exists $opt{wait_old} ? (wait_old => delete $opt{wait_old}) : ();
    return $self->{s}->reload($self->options(%opt), %wait);
}

# What the Lua code returns in worker $id; dies when it raises.
sub run ($self, $id, $code, %opt) {
    my $r = $self->{s}->request(POST => $self->{s}->port(1 + $id), '/lua',
        body => $code, timeout => 60, %opt);
    croak "worker $id: " . ($r->status ? $r->body : $r->error) if $r->status != 200;
    return $r->body;
}

# The text that it raises.
sub raises ($self, $id, $code) {
    my $r = $self->{s}->request(POST => $self->{s}->port(1 + $id), '/lua', body => $code);
    return $r->status == 599 ? $r->body : 'status ' . $r->status . ': ' . $r->body;
}

# In all workers.
sub each ($self, $code) {
    return map { $self->run($_, $code) } 0 .. $self->{s}->worker_count - 1;
}

sub pid ($self, $id) { $self->run($id, 'return ngx.worker.pid()') }

# Waits until the code returns what is wanted in that worker; the last answer.
sub until ($self, $id, $code, $want) {
    my $got;
    until_true(sub {
        $got = eval { $self->run($id, $code) } // "died: $@";
        return ref $want ? $got =~ $want : $got eq $want;
    });
    return $got;
}

sub console ($self, $id) {
    my $c = $self->{s}->connect($self->{s}->port(1 + $id), timeout => 60);
    $c->send("GET /console HTTP/1.1\r\nHost: localhost\r\n\r\n");
    my $console = bless { c => $c }, 'CC::Console::Line';
    $console->line eq 'READY' or croak "no console in worker $id";
    $console->{pid} = $console->run('return ngx.worker.pid()');
    return $console;
}

package CC::Console::Line;

use v5.36;
use Carp qw(croak);
use CC::Wait qw(until_true now);

sub pid ($self) { $self->{pid} }

# Sends the code without waiting for its answer.
sub ask ($self, $code) { $self->{c}->send(length($code) . "\n$code") }

sub answer ($self) {
    my ($sign, $size) = $self->line =~ /^([+-])(\d+)$/ or croak "the console of $self->{pid} is closed";
    my $text = $self->bytes($size);
    croak "process $self->{pid}: $text" if $sign eq '-';
    return $text;
}

sub run ($self, $code) {
    $self->ask($code);
    return $self->answer;
}

sub until ($self, $code, $want) {
    my $got;
    until_true(sub {
        $got = $self->run($code);
        return ref $want ? $got =~ $want : $got eq $want;
    });
    return $got;
}

sub close ($self) { $self->{c}->close }

sub line ($self) {
    my $c   = $self->{c};
    my $end = now() + $c->{timeout};
    until ($c->{buf} =~ /\n/) { $c->fill($end) or return '' }
    $c->{buf} =~ s/^(.*?)\n//;
    return $1;
}

sub bytes ($self, $size) {
    my $c   = $self->{c};
    my $end = now() + $c->{timeout};
    while (length $c->{buf} < $size) { $c->fill($end) or return '' }
    return substr $c->{buf}, 0, $size, '';
}

1;
