-- Seconds of a clock that is never set, to the nanosecond; ngx.now() has milliseconds.

local ffi = require "ffi"

ffi.cdef [[
typedef struct { long sec, nsec; } bench_timespec_t;
int clock_gettime(int clock, bench_timespec_t *now);
]]

local C = ffi.C
local MONOTONIC = 1
local now = ffi.new "bench_timespec_t"

return function()
    C.clock_gettime(MONOTONIC, now)
    return tonumber(now.sec) + tonumber(now.nsec) * 1e-9
end
