package CC::Life;

# Lua for init_worker that notes each lifecycle event as a line of words, in the log as
# "life: worker ID: LINE" and in t.events; t.life is ngx.cc.lifecycle.

use v5.36;
use Exporter 'import';

our @EXPORT_OK = qw($NOTES heard);

our $NOTES = <<'LUA';
    t.life = require "ngx.cc.lifecycle"
    t.events = {}
    for _, event in ipairs { "start", "reload", "stop", "worker_start", "worker_exit", "worker_crash", "leader" } do
        assert(t.life.on(event, function(...)
            local words = { event }
            for i = 1, select("#", ...) do
                local value = select(i, ...)
                words[#words + 1] = type(value) ~= "table" and tostring(value) or nil
            end
            local line = table.concat(words, " ")
            t.events[#t.events + 1] = line
            t.last = select(select("#", ...), ...)
            ngx.log(ngx.NOTICE, "life: worker ", ngx.worker.id(), ": ", line, ".")
        end))
    end
    function t.heard(line)
        local n = 0
        for _, event in ipairs(t.events) do
            if event == line then n = n + 1 end
        end
        return n
    end
LUA

# What that worker noted since the log had that length.
sub heard ($s, $id, $from = 0) {
    return [ $s->error_log($from) =~ /life: worker $id: (.*?)\./g ];
}

1;
