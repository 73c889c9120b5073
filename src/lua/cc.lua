-- ngx.cc: function actions, which answer calls of other workers over the rings, and calls of them.
-- Light threads take asks one after another and run the functions; while one has yielded, the next
-- goes on, so that a slow action stops nobody.

local ffi = require "ffi"
local semaphore = require "ngx.semaphore"
local get_request = require("resty.core.base").get_request
local arguments = require "ngx.ipc.arguments"

local C = ffi.C
local ffi_string = ffi.string
local bad_argument, data_of, timeout_of = arguments.bad_argument, arguments.data_of, arguments.timeout_of
local get_phase = ngx.get_phase
local timer_at = ngx.timer.at
local decode_args, encode_args = ngx.decode_args, ngx.encode_args
local traceback = debug.traceback
local type, tostring, tonumber, error, pairs, xpcall = type, tostring, tonumber, error, pairs, xpcall

ffi.cdef [[
typedef struct {
    const char *args; size_t args_len;
    const char *body; size_t body_len;
    const char *node; size_t node_len;
    uint32_t fn, worker, bare;
} ngx_cc_asked_t;
typedef struct { uint32_t worker, status; const char *body; size_t body_len; } ngx_cc_answered_t;

int ngx_cc_action_set(const char *channel, size_t channel_len, const char *name, size_t name_len,
    uint32_t fn);
void ngx_cc_say(int what, const char *name, size_t name_len, const char *why, size_t why_len);
int ngx_cc_action_attach(void *sema, void *post);
void ngx_cc_action_starting(int threads);
uint32_t ngx_cc_action_begin(void *request, void *sema, void *post);
void ngx_cc_action_end(uint32_t thread);
int ngx_cc_action_take(uint32_t thread, int woke, ngx_cc_asked_t *asked);
int ngx_cc_action_answer(uint32_t thread, uint32_t status, const char *body, size_t body_len,
    int failed);
int ngx_cc_action_call(int worker, const char *channel, size_t channel_len,
    const char *name, size_t name_len, const char *args, size_t args_len,
    const char *body, size_t body_len, uint32_t timeout, void *sema, void *post);
int ngx_cc_action_outcome(int call, size_t index, ngx_cc_answered_t *row);
void ngx_cc_action_drop(int call);
int ngx_http_lua_ffi_sema_post(void *sem, int n);
]]

local post = ffi.cast("void *", C.ngx_http_lua_ffi_sema_post)

local WAIT, OVER, AND_START = 0, 2, 3
-- A light thread's request never frees what it has allocated, so it makes way for a new one.
local RENEW = 5000
-- Long, since the semaphore is posted for every reason to wake; ngx.semaphore wants a limit.
local LONG = 86400
-- How long after its time a call is taken for one whose light thread was killed, and how often such ones
-- are looked for, in seconds.
local GRACE, SWEEP = 1, 10

local ERRORS = {
    [-1] = "not a worker process",
    [-3] = "too many calls wait",
}

local _M = {}

local functions = {}    -- by number
local names = {}        -- "CHANNEL action NAME" by number
local numbers = {}      -- by channel and name
local last = 0
local sema

local function trace(err)
    return traceback(tostring(err), 2)
end

-- What a function has returned, as status and body; a third value says what is wrong with it.
local function outcome_of(ok, status, body)
    if not ok then
        return 500, "action failed: " .. (status:match("^[^\n]*") or ""), status
    elseif status == nil and body ~= nil then
        return 500, tostring(body), tostring(body)
    elseif type(status) == "string" and body == nil then
        return 200, status
    end
    status = status or 200
    if type(status) ~= "number" or not (status >= 100 and status <= 599) or status % 1 ~= 0 then
        return 500, "action returned a bad status", "a bad status: " .. tostring(status)
    elseif body == nil then
        return status, ""
    elseif type(body) ~= "string" and type(body) ~= "number" then
        return 500, "action returned a " .. type(body), "a " .. type(body) .. " for a body"
    end
    return status, tostring(body)
end

local asked = ffi.new "ngx_cc_asked_t"

local function run(thread)
    local a = asked
    local fn, name = functions[a.fn], names[a.fn]
    local args
    if a.bare == 1 then
        -- as decode_args has it, which takes its time
        args = { [ffi_string(a.args, a.args_len)] = true }
    else
        args = a.args_len > 0 and decode_args(ffi_string(a.args, a.args_len)) or {}
    end
    local body = ffi_string(a.body, a.body_len)
    local from = {
        node = a.node_len > 0 and ffi_string(a.node, a.node_len) or nil,
        worker = a.worker,
    }
    local status, reply, wrong = outcome_of(xpcall(fn, trace, args, body, from))
    if wrong then
        local why = " failed: " .. wrong
        C.ngx_cc_say(1, name, #name, why, #why)
    end
    if C.ngx_cc_action_answer(thread, status, reply, #reply, wrong and 1 or 0) == 0 then
        local why = ": the answer could not be sent"
        C.ngx_cc_say(2, name, #name, why, #why)
    end
end

local start

local function loop()
    local thread = C.ngx_cc_action_begin(get_request(), sema.sem, post)
    if thread == 0 then
        return
    end
    local handled, woke = 0, 0
    while true do
        local code = C.ngx_cc_action_take(thread, woke, asked)
        woke = 0
        if code == WAIT then
            sema:wait(LONG)
            woke = 1
        elseif code == OVER or code < 0 then
            break
        else
            if code == AND_START then
                start()
            end
            run(thread)
            handled = handled + 1
            if handled >= RENEW then
                C.ngx_cc_action_starting(1)
                start()
                break
            end
        end
    end
    C.ngx_cc_action_end(thread)
end

-- Another light thread; it has been counted.
function start()
    local ok, err = timer_at(0, loop)
    if not ok then
        C.ngx_cc_action_starting(-1)
    end
    return ok, err
end

local function attach()
    if sema then
        return true
    end
    local new = semaphore.new(0)
    local code = C.ngx_cc_action_attach(new.sem, post)
    if code ~= 1 then
        return nil, ERRORS[code] or "another Lua VM of this worker answers actions (lua_code_cache is off): "
                                    .. "call action in init_worker_by_lua*"
    end
    sema = new
    C.ngx_cc_action_starting(1)
    local ok, err = start()
    if not ok then
        return nil, "cannot start a light thread: " .. err
    end
    return true
end

-- `fn(args, body, from)` answers the calls of an action of that name: status and body, where the
-- status may be left out. nil ends it.
function _M.action(channel, name, fn)
    if type(channel) ~= "string" then
        bad_argument(1, "action", "string", channel)
    elseif type(name) ~= "string" then
        bad_argument(2, "action", "string", name)
    elseif fn ~= nil and type(fn) ~= "function" then
        bad_argument(3, "action", "function or nil", fn)
    elseif get_phase() == "init" then
        error("ngx.cc: action cannot be used in init_by_lua*: workers do not exist yet, "
              .. "call it in init_worker_by_lua*", 2)
    end
    local ok, err = attach()
    if not ok then
        return nil, err
    end
    local key = channel .. "\0" .. name
    local number = numbers[key]
    if fn and not number then
        number = last + 1
    end
    local code = C.ngx_cc_action_set(channel, #channel, name, #name, fn and number or 0)
    if code < 0 then
        return nil, ERRORS[code] or "bad channel or action name"
    end
    -- an ask that has been taken in runs even after its action was removed
    if fn then
        last = number > last and number or last
        numbers[key], functions[number], names[number] = number, fn, 'action "' .. name .. '" of "' .. channel .. '"'
    end
    return true
end

local idle = {}         -- semaphores for reuse
local waiting = {}      -- by call: its semaphore and when it must be over
local swept = 0         -- when they were last looked at

local function drop(call)
    C.ngx_cc_action_drop(call)
    waiting[call] = nil
end

-- Whose light thread was killed does not ask for the outcome.
local function drop_forgotten()
    local now = ngx.now()
    if now >= swept and now - swept < SWEEP then
        return
    end
    swept = now
    for call, waiter in pairs(waiting) do
        if waiter.deadline < now then
            drop(call)
        end
    end
end

local row = ffi.new "ngx_cc_answered_t"

local function query_of(args)
    if args == nil then
        return ""
    elseif type(args) == "table" then
        return encode_args(args)
    end
    return data_of(true, args, 4, "call")
end

-- Calls an action in a worker: its status and body, or nil and why there is none. In "all": a list
-- of { worker =, status =, body = } or { worker =, err = }.
function _M.call(target, channel, name, args, body, options)
    local id = target == "all" and -1 or tonumber(target)
    if not id then
        error("bad argument #1 to 'call' (a worker id or \"all\" expected)", 2)
    elseif type(channel) ~= "string" then
        bad_argument(2, "call", "string", channel)
    elseif type(name) ~= "string" then
        bad_argument(3, "call", "string", name)
    end
    args = query_of(args)
    body = data_of(body ~= nil, body, 5, "call")
    local timeout, err = timeout_of(options, 6, "call")
    if not timeout then
        return nil, err
    elseif target ~= "all" and not arguments.is_id(id, 1023) then
        return nil, "no such worker"
    end
    drop_forgotten()
    local sem = table.remove(idle) or semaphore.new(0)
    local call = C.ngx_cc_action_call(id, channel, #channel, name, #name, args, #args, body, #body,
                                      timeout * 1000, sem.sem, post)
    if call < 0 then
        return nil, ERRORS[call] or "internal error, see the error log"
    end
    waiting[call] = { sema = sem, deadline = ngx.now() + timeout + GRACE }
    -- the call itself ends in time
    sem:wait(timeout + GRACE)
    local list, n = {}, 0
    while C.ngx_cc_action_outcome(call, n, row) == 1 do
        local text = ffi_string(row.body, row.body_len)
        n = n + 1
        if row.status == 0 then
            list[n] = { worker = row.worker, err = text }
        else
            list[n] = { worker = row.worker, status = row.status, body = text }
        end
    end
    drop(call)
    if sem:count() == 0 then
        idle[#idle + 1] = sem
    end
    if target == "all" then
        return list
    end
    local one = list[1]
    if not one then
        return nil, "timeout"
    elseif one.err then
        return nil, one.err
    end
    return one.status, one.body
end

return _M
