-- ngx.ipc.calls: who in this worker waits for replies. Sending is the caller's, taking replies in is
-- the receiver's and its deputy's.

local ffi = require "ffi"
local semaphore = require "ngx.semaphore"

local C = ffi.C
local now_of = ngx.now
local pairs = pairs

ffi.cdef [[
void ngx_cc_ipc_calls(uint32_t calls);
]]

-- Calls of a worker that may wait at a time.
local CALLS_MAX = 10000
-- How long after its time a call is taken for forgotten, and how often such ones are looked for, in
-- seconds.
local GRACE, SWEEP = 1, 10

local _M = {}

local pending = {}      -- call number -> { sema =, left =, ... }
local count = 0
local last = 0
local swept = 0         -- when they were last looked at
local idle = {}         -- semaphores for reuse

-- How many wait.
function _M.count()
    return count
end

local function forget(number)
    if pending[number] then
        pending[number] = nil
        count = count - 1
        C.ngx_cc_ipc_calls(count)
    end
end

-- A caller whose light thread was killed never ends its call: that is done here once its time is
-- over.
function _M.end_forgotten()
    local now = now_of()
    swept = now
    for number, waiter in pairs(pending) do
        if waiter.deadline < now then
            forget(number)
        end
    end
end

-- The same, now and then.
function _M.sweep()
    local now = now_of()
    if now - swept >= SWEEP or now < swept then
        _M.end_forgotten()
    end
end

-- A reply of worker `from`; false where nobody waits for it any more.
function _M.resolve(number, from, ok, data)
    local waiter = pending[number]
    if not waiter then
        return false
    end
    waiter.left = waiter.left - 1
    waiter.take(from, ok, data)
    if waiter.left <= 0 then
        -- here, for the light thread that waits may have been killed
        forget(number)
        waiter.sema:post(1)
    end
    return true
end

-- Makes a call by `send(number)`, which answers how many replies will come, or nil and a reason;
-- gives each to `take(worker, ok, data)`. True when all came, false when the time was over first,
-- nil and the reason when nothing was sent. `wait(semaphore, timeout)` waits.
function _M.make(timeout, send, take, wait)
    _M.sweep()
    if count >= CALLS_MAX then
        return nil, "too many calls wait"
    end
    last = last % 0xffffffff + 1
    local number = last
    local expected, err = send(number)
    if not expected then
        return nil, err
    elseif expected <= 0 then
        return true
    end
    local sema = table.remove(idle) or semaphore.new(0)
    local waiter = { sema = sema, left = expected, take = take, deadline = now_of() + timeout + GRACE }
    pending[number] = waiter
    count = count + 1
    C.ngx_cc_ipc_calls(count)
    local answered = wait(sema, timeout)
    forget(number)
    if sema:count() == 0 then
        idle[#idle + 1] = sema
    end
    -- the last reply may have come in the turn in which the time was over
    return answered and true or waiter.left <= 0
end

return _M
