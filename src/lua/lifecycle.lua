-- ngx.cc.lifecycle: what happens to the workers of this nginx. One light thread per worker waits for
-- news and hands events to handlers, in order, in a light thread of their own; src/modules/lifecycle
-- knows what happened.

local ffi = require "ffi"
local semaphore = require "ngx.semaphore"
local get_request = require("resty.core.base").get_request

local C = ffi.C
local timer_at = ngx.timer.at
local get_phase = ngx.get_phase
local traceback = debug.traceback
local type, tostring, tonumber, xpcall, error, pairs, ipairs = type, tostring, tonumber, xpcall, error, pairs, ipairs

ffi.cdef [[
typedef struct {
    uint32_t what, why, id, pid, generation, other;
    int32_t signal, code;
    uint64_t sequence, time;
} ngx_cc_life_row_t;

int ngx_cc_life_attach(void *sema, void *post);
void ngx_cc_life_detach(void);
int ngx_cc_life_next(ngx_cc_life_row_t *row);
int ngx_cc_life_leaving(int now);
int ngx_cc_life_me(ngx_cc_life_row_t *row);
int ngx_cc_life_leader(ngx_cc_life_row_t *row);
int ngx_cc_life_claim(const char *key, size_t len);
int ngx_cc_life_release(const char *key, size_t len);
int ngx_cc_life_holder(const char *key, size_t len, ngx_cc_life_row_t *row);
void ngx_cc_life_wants(int wants);
void *ngx_cc_life_guard(void *request, void *sema, void *post);
int ngx_cc_life_runner_ended(void);
int ngx_http_lua_ffi_sema_post(void *sem, int n);
]]

local post = ffi.cast("void *", C.ngx_http_lua_ffi_sema_post)

local WAIT = 86400
-- nginx may have no timer free, and says so at once, or only when the timer would run: seconds until
-- one is asked for again.
local ASK_AGAIN = 1
-- A light thread's request never frees what it has allocated, so the waiter starts afresh now and then.
local RENEW = 1000
-- Events that wait for handlers which do not keep up, as many as the zone's journal has.
local QUEUE_MAX = 1024

local WHAT = { "start", "reload", "worker_start", "worker_exit", "worker_crash" }
local WHY = { "start", "reload", "upgrade", "respawn", "return", "stop", "rollback" }
local EVENTS = {
    start = true, reload = true, stop = true, worker_start = true, worker_exit = true,
    worker_crash = true, leader = true,
}
local ERRORS = {
    [-1] = "not a worker process",
    [-6] = "internal error, see the error log",
    [-7] = "too many keys are held",
    [-8] = "busy",
    [-9] = "a key has 1 to 64 bytes",
}

local _M = {}

local handlers = {}     -- event -> list of functions
local keys = {}         -- key -> { fn =, state = "waiting" | "asked" | "running" | "held", asked = }
local leavers = {}      -- functions that run once this worker is told to leave
local queue, first, last = {}, 1, 0
local only = {}         -- by place in the queue: the one handler that is told
local missed = 0        -- events that found it full
local sema              -- what the waiter waits on
local running           -- a light thread runs handlers
local asked = 0         -- when one was asked for
local waiters = 0       -- light threads that have begun to wait; the last one does
local renewed = 0       -- when one was asked for
local leader_pid

local row = ffi.new "ngx_cc_life_row_t"

local function trace(err)
    return traceback(tostring(err), 2)
end

local function known(number)
    return number >= 0 and number or nil
end

local function info_of(r)
    return {
        event = WHAT[r.what],
        why = WHY[r.why],
        id = r.id,
        pid = r.pid,
        generation = r.generation,
        predecessor = r.other > 0 and r.other or nil,
        signal = known(r.signal),
        code = known(r.code),
        sequence = tonumber(r.sequence),
        time = tonumber(r.time) / 1000,
    }
end

local function call(event, fn, ...)
    local ok, err = xpcall(fn, trace, ...)
    if not ok then
        ngx.log(ngx.ERR, "lifecycle handler of \"", event, "\" failed: ", err)
    end
end

local function may_ask(before)
    local now = ngx.now()
    return now < before or now - before >= ASK_AGAIN
end

local function fire(info, to)
    local event = info.event
    for _, fn in ipairs(to and { to } or handlers[event] or {}) do
        if event == "worker_crash" then
            call(event, fn, info.id, info.pid, info.signal, info.code, info)
        elseif event == "leader" then
            call(event, fn, info.id, info.pid, info.mine, info)
        elseif info.id then
            call(event, fn, info.id, info.pid, info.why, info)
        else
            call(event, fn, info.generation, info.why, info)
        end
    end
end

local function from_queue()
    while first <= last do
        local info, to = queue[first], only[first]
        queue[first], only[first] = nil, nil
        first = first + 1
        if missed > 0 then
            ngx.log(ngx.WARN, "lifecycle: ", missed, " events were missed: a handler does not keep up")
            missed = 0
        end
        fire(info, to)
    end
end

local function push(info, to)
    if not handlers[info.event] then
        return
    elseif last - first + 1 >= QUEUE_MAX then
        missed = missed + 1
        return
    end
    last = last + 1
    queue[last], only[last] = info, to
end

-- Tells all handlers of another leader, or a new one of the present one.
local function see_leader(to)
    local code = C.ngx_cc_life_leader(row)
    local pid = code > 0 and row.pid or nil
    if pid and (to or pid ~= leader_pid) then
        leader_pid = to and leader_pid or pid
        push({ event = "leader", id = row.id, pid = pid, generation = row.generation, mine = code == 1 }, to)
    end
end

local function collect()
    while true do
        local code = C.ngx_cc_life_next(row)
        if code == 0 then
            break
        elseif code == 1 then
            local info = info_of(row)
            if info.event == "start" or info.event == "reload" then
                info.id, info.pid = nil, nil
            end
            if info.event then
                push(info)
            end
        elseif code < -1 then
            ngx.log(ngx.WARN, "lifecycle: ", -1 - code, " events came too fast and were missed")
        else
            break
        end
    end
    see_leader()
end

-- Runs what is in the queue. Should a handler end this light thread, the next one goes on.
local function run(premature)
    if not running and not premature and C.ngx_cc_life_guard(get_request(), sema.sem, post) ~= nil then
        running, asked = true, 0
        from_queue()
    end
end

-- Whether somebody has been asked for and is not there yet.
local function dispatch()
    if C.ngx_cc_life_runner_ended() == 1 then
        running = false
    end
    local wanted = not running and first <= last
    if wanted and may_ask(asked) and timer_at(0, run) then
        asked = ngx.now()
    end
    return wanted
end

-- The key is this worker's: runs its function.
local function run_key(premature, key, entry)
    if entry.state ~= "asked" then
        return      -- a timer that came late
    end
    entry.state = "running"
    local ok, err = false, nil
    if not premature then
        ok, err = xpcall(entry.fn, trace, key)
    end
    entry.state = "held"
    if not ok and err then
        ngx.log(ngx.ERR, "lifecycle: the function of \"", key, "\" failed, another worker may have it: ", err)
    end
    if (not ok or ngx.worker.exiting()) and keys[key] == entry then
        keys[key] = nil
        C.ngx_cc_life_release(key, #key)
    end
end

local function ask_for_key(key, entry)
    entry.state, entry.asked = "asked", ngx.now()
    timer_at(0, run_key, key, entry)
end

local function try_key(key, entry)
    local code = C.ngx_cc_life_claim(key, #key)
    if code == 1 then
        ask_for_key(key, entry)
    end
    return code
end

-- Whether somebody has been asked for and is not there yet.
local function try_keys()
    local waiting, wanted = false, false
    for key, entry in pairs(keys) do
        if entry.state == "waiting" and try_key(key, entry) ~= 1 then
            waiting = true
        elseif entry.state == "asked" then
            wanted = true
            if may_ask(entry.asked) then
                ask_for_key(key, entry)
            end
        end
    end
    C.ngx_cc_life_wants(waiting and 1 or 0)
    return wanted
end

-- What remains to be done by a worker that leaves; once. Where it may wait, for whom to take turns
-- with.
local function leave(wait)
    for key, entry in pairs(keys) do
        if entry.state ~= "running" then
            keys[key] = nil
            C.ngx_cc_life_release(key, #key)
        end
    end
    from_queue()
    local why = WHY[C.ngx_cc_life_leaving(1)]
    C.ngx_cc_life_me(row)
    local me = info_of(row)
    if why ~= "reload" then
        fire { event = "stop", why = why, generation = me.generation, time = ngx.now() }
    end
    fire { event = "worker_exit", why = why, id = me.id, pid = me.pid, generation = me.generation,
           time = ngx.now(), own = true }
    local list = leavers
    leavers = {}
    for _, fn in ipairs(list) do
        call("worker_exit", fn, wait)
    end
end

local left = false

local function waiter(premature)
    if left or premature and waiters > 0 then
        return
    end
    waiters = waiters + 1
    sema:post(1)        -- for the one before
    local me, turns = waiters, 0
    while not premature do
        local leaving = C.ngx_cc_life_leaving(0) ~= 0
        collect()
        local wanted = dispatch()
        if leaving and not running then
            break
        end
        if not leaving then
            wanted = try_keys() or wanted
        end
        turns = turns + 1
        if turns >= RENEW and not leaving and may_ask(renewed) and timer_at(0, waiter) then
            renewed = ngx.now()
        end
        sema:wait(wanted and ASK_AGAIN or WAIT)
        if waiters > me then
            return sema:post(1)     -- what it was woken for is the next one's
        end
    end
    if not left then
        left = true
        leave(function(seconds) return sema:wait(seconds) end)
    end
    C.ngx_cc_life_detach()
end

local function start_waiter(fname)
    if sema then
        if waiters == 0 and may_ask(renewed) and timer_at(0, waiter) then
            renewed = ngx.now()
        end
        return
    elseif get_phase() == "init" then
        error("ngx.cc.lifecycle: " .. fname .. " cannot be used in init_by_lua*: workers do not exist yet, "
              .. "call it in init_worker_by_lua*", 3)
    end
    local new = semaphore.new(0)
    local code = C.ngx_cc_life_attach(new.sem, post)
    if code == 0 then
        return "another Lua VM of this worker listens (lua_code_cache is off): "
               .. "call " .. fname .. " in init_worker_by_lua*"
    elseif code < 0 then
        return ERRORS[code]
    end
    sema = new
    local ok, err = timer_at(0, waiter)
    renewed = ngx.now()
    if not ok then
        C.ngx_cc_life_detach()
        sema = nil
        return err
    end
end

-- Calls fn whenever that happens; true, or nil and why not.
function _M.on(event, fn)
    if type(event) ~= "string" or not EVENTS[event] then
        error("bad argument #1 to 'on' (unknown event " .. tostring(event) .. ")", 2)
    elseif type(fn) ~= "function" then
        error("bad argument #2 to 'on' (function expected, got " .. type(fn) .. ")", 2)
    end
    local err = start_waiter "on"
    if err then
        return nil, err
    end
    handlers[event] = handlers[event] or {}
    table.insert(handlers[event], fn)
    if event == "leader" and leader_pid then
        see_leader(fn)
        sema:post(1)
    end
    return true
end

-- For resty.worker.manager: fn(wait) runs when this worker leaves.
function _M._on_leaving(fn)
    local err = start_waiter "on_init_worker_by_lua"
    if err then
        return nil, err
    end
    leavers[#leavers + 1] = fn
    return true
end

function _M._wants()
    C.ngx_cc_life_wants(1)
end

-- For exit_worker_by_lua: a worker that is terminated, not told to finish, has had no time for it.
function _M.exit_worker()
    if not left and sema then
        left = true
        collect()
        leave()
    end
end

-- Who leads: its worker id and pid; nil where nobody does.
function _M.leader()
    local code = C.ngx_cc_life_leader(row)
    if code > 0 then
        return row.id, row.pid
    end
    return nil, ERRORS[code]
end

function _M.is_leader()
    return C.ngx_cc_life_leader(row) == 1
end

-- Runs fn(key) in one of the workers that ask for it. True where it is this one, false where this
-- one waits, nil and why not.
function _M.once(key, fn)
    if type(key) == "number" then
        key = tostring(key)
    elseif type(key) ~= "string" then
        error("bad argument #1 to 'once' (string expected, got " .. type(key) .. ")", 2)
    end
    if type(fn) ~= "function" then
        error("bad argument #2 to 'once' (function expected, got " .. type(fn) .. ")", 2)
    end
    local err = start_waiter "once"
    if err then
        return nil, err
    elseif ngx.worker.exiting() then
        return nil, "the worker is leaving"
    elseif keys[key] then
        return nil, "this worker has asked for that key"
    end
    local entry = { fn = fn, state = "waiting" }
    keys[key] = entry
    local code = try_key(key, entry)
    if code < 0 and code ~= -8 then
        keys[key] = nil
        return nil, ERRORS[code]
    elseif code ~= 1 then
        C.ngx_cc_life_wants(1)
    else
        sema:post(1)        -- the waiter sees to it that the function runs
    end
    return code == 1
end

-- This worker no longer asks for the key; whoever does gets it.
function _M.release(key)
    key = tostring(key)
    if not keys[key] then
        return false
    end
    keys[key] = nil
    C.ngx_cc_life_release(key, #key)
    return true
end

-- Who holds a key: worker id and pid; nil where nobody does.
function _M.holder(key)
    key = tostring(key)
    if C.ngx_cc_life_holder(key, #key, row) == 1 then
        return row.id, row.pid
    end
end

-- Why this worker was started: "start", "reload", "upgrade", "respawn" or "return"; then more.
function _M.reason()
    local code = C.ngx_cc_life_me(row)
    if code < 0 then
        return nil, ERRORS[code]
    end
    local info = info_of(row)
    return info.why, info
end

for name, fn in pairs(require "ngx.cc.lifecycle.view") do
    _M[name] = fn
end

return _M
