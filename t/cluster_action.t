# Function actions: Lua functions that answer calls of other workers over the rings.
use v5.36;
use Test::More;
use CC::Console;

my $INIT = <<'LUA';
    cc = require "ngx.cc"
    local id = ngx.worker.id
    cc.action("ch", "who", function(args, body, from) return 200, id() .. ":" .. from.worker .. ":" .. body end)
    cc.action("ch", "args", function(args) return args.k .. "|" .. tostring(args.flag) end)
    cc.action("ch", "echo", function(args, body) return 201, body end)
    cc.action("ch", "slow", function(args) ngx.sleep(tonumber(args.s)) return 200, "slept" end)
    cc.action("ch", "fails", function(args, body) error("it broke: " .. body) end)
    cc.action("ch", "nothing", function() end)
    cc.action("ch", "status", function() return 404 end)
    cc.action("ch", "refuses", function() return nil, "no" end)
    cc.action("ch", "table", function() return 200, {} end)
    cc.action("ch", "bad", function() return 99, "x" end)
    cc.action("ch", "exits", function() ngx.exit(200) end)
    cc.action("ch", "dies", function() ffi.C.kill(ngx.worker.pid(), 9) ngx.sleep(5) end)
LUA
done_testing;
