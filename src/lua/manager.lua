-- resty.worker.manager: the two calls of Kong's lua-resty-worker-manager, over ngx.cc.lifecycle. The
-- callbacks take turns over all workers and the master; who dies in one is passed over.

local ffi = require "ffi"
local lifecycle = require "ngx.cc.lifecycle"

local C = ffi.C
local traceback = debug.traceback
local type, tostring, assert, xpcall = type, tostring, assert, xpcall

ffi.cdef [[
typedef struct { int32_t id, previous, mine, next; } ngx_cc_life_numbers_t;
int ngx_cc_life_lock(uint32_t milliseconds);
void ngx_cc_life_unlock(void);
int ngx_cc_life_counts(int leaving, ngx_cc_life_numbers_t *numbers);
void ngx_cc_life_said(int farewell);
int ngx_cc_life_load(ngx_cc_life_numbers_t *numbers);
void ngx_cc_life_loaded(void);
]]

-- Longest wait for others' callbacks: of a worker that starts or is terminated, which can do nothing
-- else meanwhile, and of one that leaves, which serves on. In ms and s.
local BLOCK, LINGER = 30000, 30
local LAST_WORDS = 1000

local _M = {}

local initialized, master_id, worker_id
local master_exit_cb, worker_exit_cb

local numbers = ffi.new "ngx_cc_life_numbers_t"

local function or_nil(number)
    return number >= 0 and number or nil
end

local function trace(err)
    return traceback(tostring(err), 2)
end

-- A callback that fails harms nobody else.
local function call(what, cb, ...)
    if cb then
        local ok, err = xpcall(cb, trace, ...)
        if not ok then
            ngx.log(ngx.ERR, "worker manager: the callback for ", what, " failed: ", err)
        end
    end
end

local function function_or_nil(fn, n, fname)
    if fn ~= nil and type(fn) ~= "function" then
        error("bad argument #" .. n .. " to '" .. fname .. "' (function expected, got " .. type(fn) .. ")", 3)
    end
    return fn
end

-- opts: shm, interval, failed, as the original takes them; none of them is needed.
function _M.on_init_by_lua(opts, master_start, master_exit)
    assert(ngx.get_phase() == "init", "This must be called in the `init_by_lua` phase")
    assert(not initialized, "Already initialized, only call once")
    if opts ~= nil and type(opts) ~= "table" then
        error("bad argument #1 to 'on_init_by_lua' (table expected, got " .. type(opts) .. ")", 2)
    end
    local shm = opts and opts.shm
    assert(shm == nil or ngx.shared[shm], "unknown shm `" .. tostring(shm) .. "'")
    function_or_nil(master_start, 2, "on_init_by_lua")
    master_exit_cb = function_or_nil(master_exit, 3, "on_init_by_lua")
    initialized = true

    local code = C.ngx_cc_life_load(numbers)
    if code == 0 then
        return true     -- a test of the configuration, or a signal: nothing starts
    elseif code == -8 then
        return nil, "Error starting master: a callback of another process does not end"
    elseif code < 0 then
        return nil, "Error starting master: no configuration is being loaded"
    end
    master_id = numbers.id
    call("the master's start", master_start, master_id, or_nil(numbers.previous), numbers.mine,
         or_nil(numbers.next))
    C.ngx_cc_life_loaded()
    return true
end

-- Runs fn alone. `wait(seconds)` is for who may do other things meanwhile.
local function locked(wait, limit, fn)
    local deadline = ngx.now() + LINGER
    local got = C.ngx_cc_life_lock(wait and 0 or limit)
    while got == 0 and wait and ngx.now() < deadline do
        lifecycle._wants()
        wait(1)     -- woken when the lock is free or a worker dies
        ngx.update_time()
        got = C.ngx_cc_life_lock(0)
    end
    if got ~= 1 then
        return nil, "a callback of another process does not end"
    end
    fn()
    C.ngx_cc_life_unlock()
    return true
end

local function exiting(wait)
    local ok, err = locked(wait, LAST_WORDS, function()
        if C.ngx_cc_life_counts(1, numbers) ~= 1 then
            return
        end
        local previous, mine, next = or_nil(numbers.previous), numbers.mine, or_nil(numbers.next)
        call("a worker's exit", worker_exit_cb, worker_id, previous, mine, next)
        C.ngx_cc_life_said(1)
        if mine == 1 then
            call("the master's exit", master_exit_cb, master_id, previous, 0, next)
        end
    end)
    if not ok then
        ngx.log(ngx.ERR, "worker manager: error exiting worker: ", err)
    end
end

function _M.on_init_worker_by_lua(worker_start, worker_exit)
    assert(ngx.get_phase() == "init_worker", "This must be called in the `init_worker_by_lua` phase")
    assert(master_id ~= nil, "You must first call 'on_init_by_lua' to initialize")
    assert(worker_id == nil, "This function can only be called once")
    function_or_nil(worker_start, 1, "on_init_worker_by_lua")
    worker_exit_cb = function_or_nil(worker_exit, 2, "on_init_worker_by_lua")
    worker_id = master_id .. "-" .. ngx.worker.pid()

    if C.ngx_cc_life_counts(0, numbers) ~= 1 then
        return true     -- a cache manager or loader, which is no worker
    end
    local ok, err = locked(nil, BLOCK, function()
        C.ngx_cc_life_said(0)
        C.ngx_cc_life_counts(0, numbers)
        call("a worker's start", worker_start, worker_id, or_nil(numbers.previous), numbers.mine,
             or_nil(numbers.next))
    end)
    if not ok then
        return nil, "Error starting worker: " .. err
    end
    ok, err = lifecycle._on_leaving(exiting)
    if not ok then
        return nil, "Error starting worker: " .. err
    end
    return true
end

return _M
