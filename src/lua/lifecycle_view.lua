-- ngx.cc.lifecycle.view: what is asked of the lives of workers, for ngx.cc.lifecycle: who is ready, who is there,
-- what was counted, what each has seen.

local ffi = require "ffi"

local C = ffi.C
local type, tostring, tonumber, error, ipairs = type, tostring, tonumber, error, ipairs

ffi.cdef [[
typedef struct {
    uint32_t id, pid, generation, why, other, ready;
    int32_t signal, code;
    uint64_t deaths, time;
    char state[16];
    char reason[96];
} ngx_cc_life_seat_t;
typedef struct { uint64_t number, time; } ngx_cc_life_counter_t;
typedef struct { uint32_t id, pid, generation; uint64_t sequence; } ngx_cc_life_seen_t;
int ngx_cc_life_set_ready(int ready, const char *reason, size_t len);
int ngx_cc_life_ready(char *reason);
int ngx_cc_life_seen(const char *name, size_t len, uint64_t *last, ngx_cc_life_seen_t *rows, size_t room);
int ngx_cc_life_counters(ngx_cc_life_counter_t *counters, size_t room);
int ngx_cc_life_workers(ngx_cc_life_seat_t *rows, size_t room);
]]

local ROOM = 1024
local WHY = { "start", "reload", "upgrade", "respawn", "return", "stop", "rollback" }
local COUNTERS = {
    "starts", "upgrades", "reloads", "worker_starts", "worker_exits", "crashes", "crashes_signal",
    "crashes_code", "crashes_unknown", "given_up", "respawns", "respawns_signal", "respawns_code",
    "respawns_unknown", "returns",
}
local ERRORS = {
    [-1] = "not a worker process",
    [-6] = "internal error, see the error log",
}

local _M = {}

local function known(number)
    return number >= 0 and number or nil
end

local reason = ffi.new "char[96]"

-- ready() asks whether the node is: true, or false and why not. ready(true) and ready(false, why)
-- say it of this worker.
function _M.ready(is, why)
    if is == nil then
        local code = C.ngx_cc_life_ready(reason)
        if code < 0 then
            return nil, ERRORS[code]
        end
        return code == 1, code == 0 and ffi.string(reason) or nil
    elseif type(is) ~= "boolean" then
        error("bad argument #1 to 'ready' (boolean expected, got " .. type(is) .. ")", 2)
    end
    why = is and "" or tostring(why or "")
    local code = C.ngx_cc_life_set_ready(is and 1 or 0, why, #why)
    if code < 0 then
        return nil, ERRORS[code]
    end
    return true
end

-- How often and when last (seconds since 1970): { starts = { count =, time = }, ... }.
function _M.counters()
    local counters = ffi.new("ngx_cc_life_counter_t[?]", #COUNTERS)
    local code = C.ngx_cc_life_counters(counters, #COUNTERS)
    if code < 0 then
        return nil, ERRORS[code]
    end
    local result = {}
    for i, name in ipairs(COUNTERS) do
        local c = counters[i - 1]
        result[name] = {
            count = tonumber(c.number),
            time = c.time > 0 and tonumber(c.time) / 1000 or nil,
        }
    end
    return result
end

-- What the workers have seen of a retained name: the number of its last change, and for each that
-- listens to it { id =, pid =, generation =, sequence = }. One that stays behind is stale.
function _M.seen(name)
    name = tostring(name)
    local last, rows = ffi.new "uint64_t[1]", ffi.new("ngx_cc_life_seen_t[?]", ROOM)
    local count = C.ngx_cc_life_seen(name, #name, last, rows, ROOM)
    if count < 0 then
        return nil, ERRORS[count]
    end
    local list = {}
    for i = 0, count - 1 do
        local r = rows[i]
        list[i + 1] = { id = r.id, pid = r.pid, generation = r.generation, sequence = tonumber(r.sequence) }
    end
    return tonumber(last[0]), list
end

local seats

-- The workers of the generation in force, gone ones without a successor included, and older ones
-- that still run.
function _M.workers()
    seats = seats or ffi.new("ngx_cc_life_seat_t[?]", ROOM)
    local count = C.ngx_cc_life_workers(seats, ROOM)
    if count < 0 then
        return nil, ERRORS[count]
    end
    local list = {}
    for i = 0, count - 1 do
        local s = seats[i]
        list[i + 1] = {
            id = s.id,
            pid = s.pid,
            generation = s.generation,
            state = ffi.string(s.state),
            ready = s.ready == 1,
            reason = s.reason[0] ~= 0 and ffi.string(s.reason) or nil,
            why = WHY[s.why],
            predecessor = s.other > 0 and s.other or nil,
            signal = known(s.signal),
            code = known(s.code),
            deaths = tonumber(s.deaths),
            since = tonumber(s.time) / 1000,
        }
    end
    return list
end

return _M
