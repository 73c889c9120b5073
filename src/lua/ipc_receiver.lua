-- ngx.ipc.receiver: the receiving half of ngx.ipc. One light thread per worker takes messages and
-- runs their handlers in order, each under xpcall; a deputy takes in replies while a handler has
-- yielded, so that a handler may itself wait for one.

local ffi = require "ffi"
local calls = require "ngx.ipc.calls"
local retained = require "ngx.ipc.retained"
local semaphore = require "ngx.semaphore"
local get_request = require("resty.core.base").get_request

local C = ffi.C
local ffi_string = ffi.string
local co_running = coroutine.running
local timer_at = ngx.timer.at
local spawn = ngx.thread.spawn
local traceback = debug.traceback
local pairs, type, tostring, xpcall = pairs, type, tostring, xpcall
local getfenv, setfenv, setmetatable = getfenv, setfenv, setmetatable

ffi.cdef [[
typedef struct {
    const char *name; size_t name_len;
    const char *data; size_t data_len;
    uint32_t sender, worker, kind, call;
} ngx_cc_ipc_mail_t;

int ngx_cc_ipc_send(uint32_t pid, uint32_t kind, uint32_t call,
    const char *name, size_t name_len, const char *data, size_t data_len);
int ngx_cc_ipc_take(ngx_cc_ipc_mail_t *mail, int who);
void ngx_cc_ipc_goes_on(int aside);
void ngx_cc_life_saw(const char *name, size_t name_len, uint32_t sequence);
void ngx_cc_ipc_unhappy(int what, const char *name, size_t name_len,
    const char *why, size_t why_len);
void ngx_cc_say(int what, const char *name, size_t name_len, const char *why, size_t why_len);
int ngx_cc_ipc_attach(void *sema, void *deputy, void *post);
void ngx_cc_ipc_detach(void *sema, void *post);
void *ngx_cc_ipc_guard(void *request, void *sema, void *post);
void ngx_cc_ipc_pass(void *guard);
int ngx_cc_ipc_mourn(void *request, void *sema, void *post);
int ngx_http_lua_ffi_sema_post(void *sem, int n);
]]

local CALL, REPLY, FAILURE, RETAINED, REVIEW = 3, 4, 5, 6, 10
local NOBODY, TOO_LONG = -2, -4
local UNHANDLED, FAILED, LATE = 0, 1, 2
-- Who takes; the last one only says that it will wait.
local RECEIVER, DEPUTY, DEPUTY_WAITS = 0, 1, 2

-- A light thread's request never frees what it has allocated, so the receiver starts afresh in a
-- new one now and then.
local RENEW = 5000
-- Long, since the semaphore is posted for every reason to wake; ngx.semaphore wants a limit.
local WAIT = 86400
-- Messages between two looks whether a receiver has an heir; seconds until a timer that has not
-- brought one is asked for again, and between two looks where nothing is handled without one.
local ASK = 64
local ASK_AGAIN = 1
local AWAIT = 0.01
-- Handlers that may run beside each other; the next ones run in the receiver itself, which then
-- takes no more until they end.
local CONCURRENT_MAX = 256
-- What the deputy may put aside for the receiver, in bytes; then replies wait, too.
local BACKLOG_MAX = 4 * 1024 * 1024
local BACKLOG_OVERHEAD = 200

local post = ffi.cast("void *", C.ngx_http_lua_ffi_sema_post)

local _M = {}

local handlers = {}     -- name -> function
local concurrent = {}   -- name -> true
local running = 0       -- concurrent handlers under way
local crew              -- those of this receiver: { running =, over = }
local crews = {}        -- all of which some may run; over is posted when their receiver's request ends

local receiver          -- the light thread that runs handlers in order
local globals           -- its table of globals, which no other light thread has
local sender            -- of the message whose handler it runs
local current           -- the name of that message
local senders = setmetatable({}, { __mode = "k" })  -- concurrent handler's thread -> its sender

-- Messages put aside by the deputy (the seventh field), and retained values for later handlers, in order.
local backlog, first, last, backlog_bytes = {}, 1, 0, 0

-- Whether the receiver asks. Comparing tables of globals is compiled, asking for the running
-- coroutine ends a trace.
local function is_receiver()
    return globals ~= nil and getfenv(0) == globals or receiver ~= nil and co_running() == receiver
end

-- Gives this light thread globals of its own, which read and write those it had; nil where the
-- threads that it starts would have them, too.
local function own_globals()
    local theirs = getfenv(0)
    local own = setmetatable({}, { __index = theirs, __newindex = theirs })
    setfenv(0, own)
    local apart
    coroutine.wrap(function() apart = getfenv(0) ~= own end)()
    if apart then
        return own
    end
    setfenv(0, theirs)
end

-- The sender of the message whose handler asks; nil for anybody else, also for whoever runs while
-- a handler has yielded.
function _M.sender()
    if is_receiver() then
        return sender
    end
    return senders[co_running()]
end

-- Whether the caller is a handler that runs in order: then nothing else is handled until it ends.
function _M.in_order()
    return is_receiver()
end

local function trace(err)
    return traceback(tostring(err), 2)
end

local function answer(to, call, kind, data)
    local code = C.ngx_cc_ipc_send(to, kind, call, "", 0, data, #data)
    if code == TOO_LONG then
        return answer(to, call, FAILURE, "reply too long")
    elseif code ~= 0 and code ~= NOBODY then
        local what, why = "ipc: a reply", " to process " .. to .. " could not be sent, code " .. code
        C.ngx_cc_say(0, what, #what, why, #why)
    end
end

-- A notice says only that a value has changed: the handler gets it as it is now.
local function handle_retained(name, handler, key, sequence)
    local value, busy = retained.tell(name, key)
    if busy then
        return true     -- later
    end
    local ok, err = xpcall(handler, trace, value, key)
    C.ngx_cc_life_saw(name, #name, sequence)
    return ok, err
end

local function handle(name, handler, data, from, kind, call)
    local ok, result
    if kind == RETAINED then
        ok, result = handle_retained(name, handler, data, call)
    else
        ok, result = xpcall(handler, trace, data)
    end
    if not ok then
        C.ngx_cc_ipc_unhappy(FAILED, name, #name, result, #result)
    end
    if kind ~= CALL then
        return
    elseif not ok then
        answer(from, call, FAILURE, "handler failed: " .. (result:match("^[^\n]*") or ""))
    elseif result == nil then
        answer(from, call, REPLY, "")
    elseif type(result) == "string" or type(result) == "number" then
        answer(from, call, REPLY, tostring(result))
    else
        answer(from, call, FAILURE, "handler returned a " .. type(result) .. ", not a string")
    end
end

local function handle_beside(of, name, handler, data, from, kind, call)
    senders[co_running()] = from
    handle(name, handler, data, from, kind, call)
    of.running = of.running - 1
    running = running - 1
end

-- Those whose request has ended, as ngx.exit in one of them does to all, have not said so themselves.
local function forget_ended()
    for of in pairs(crews) do
        if of.over:count() > 0 then
            running = running - of.running
            crews[of] = nil
        end
    end
end

-- Whether another handler may run beside the others.
local function has_room()
    if running >= CONCURRENT_MAX then
        forget_ended()
    end
    return running < CONCURRENT_MAX
end

-- The concurrent handlers of a new receiver. Without memory for the guard they are not told apart
-- from later ones.
local function new_crew()
    forget_ended()
    local new = { running = 0, over = semaphore.new(0) }
    crews[new] = C.ngx_cc_ipc_mourn(get_request(), new.over.sem, post) == 1 or nil
    return new
end

local function resolve(call, from, kind, data)
    if not calls.resolve(call, from, kind == REPLY, data) then
        C.ngx_cc_ipc_unhappy(LATE, "", 0, "", 0)
    end
end

-- The receiver will tell the name's handler of that key.
local function tell_later(name, key, sequence)
    last = last + 1
    backlog[last] = { name, key, ngx.worker.pid(), ngx.worker.id(), RETAINED, sequence }
    backlog_bytes = backlog_bytes + #name + #key + BACKLOG_OVERHEAD
end

-- Somebody could not tell of a change, or was killed before it had.
local function review()
    for name in pairs(handlers) do
        retained.each_untold(name, tell_later)
    end
end

local function dispatch(name, data, from, worker, kind, call)
    if kind == REPLY or kind == FAILURE then
        return resolve(call, worker, kind, data)
    elseif kind == REVIEW then
        return review()
    end
    local handler = handlers[name]
    if not handler then
        C.ngx_cc_ipc_unhappy(UNHANDLED, name, #name, "", 0)
        if kind == CALL then
            answer(from, call, FAILURE, "no handler for \"" .. name .. "\"")
        end
    elseif concurrent[name] and has_room() then
        running = running + 1
        crew.running = crew.running + 1
        spawn(handle_beside, crew, name, handler, data, from, kind, call)
    else
        sender, current = from, name
        handle(name, handler, data, from, kind, call)
        sender, current = nil, nil
    end
end

local function from_backlog()
    local m = backlog[first]
    backlog[first] = nil
    first = first + 1
    backlog_bytes = backlog_bytes - #m[1] - #m[2] - BACKLOG_OVERHEAD
    C.ngx_cc_ipc_goes_on(m[7] and 1 or 0)
    return dispatch(m[1], m[2], m[3], m[4], m[5], m[6])
end

local mail = ffi.new "ngx_cc_ipc_mail_t"
local sema, deputy_sema
local turn          -- posted when the receiver has ended: its heir's turn
local heirs = 0     -- light threads that wait for it
local in_order      -- whether the last receiver has said that it ends
local asked = 0     -- when a timer was last asked for an heir
local begun         -- the first receiver has been there

local function mourn()
    local what = current and 'ipc handler "' .. current .. '"' or "a light thread of an ipc handler"
    local why = " has ended the receiver, by ngx.exit() or for want of memory; the next one takes over"
    C.ngx_cc_say(3, what, #what, why, #why)
    if current then
        C.ngx_cc_ipc_unhappy(FAILED, current, #current, "", 0)
    end
end

local run

-- Sees to it that an heir waits, or comes soon. nginx may have no timer free, and says so at once,
-- or only when the timer would run: then it is asked again.
local function ask_for_heir()
    local now = ngx.now()
    if heirs == 0 and (now < asked or now - asked >= ASK_AGAIN) and timer_at(0, run) then
        asked = now
    end
end

-- What has ended one receiver may end the next: no handler runs until there is an heir.
local function await_heir()
    while heirs == 0 and not ngx.worker.exiting() do
        ask_for_heir()
        ngx.sleep(AWAIT)
    end
end

-- The body of each receiver: it waits until the one before it has ended, however that ended
-- (ngx.exit in a handler ends a light thread, and nothing in it can prevent that), and sees to it
-- that another one waits for its own end.
function run()
    local guard = C.ngx_cc_ipc_guard(get_request(), turn.sem, post)
    if guard == nil then
        return
    end
    begun, heirs = true, heirs + 1
    repeat until turn:wait(WAIT)
    heirs = heirs - 1
    local theirs = getfenv(0)
    receiver, globals = co_running(), own_globals()
    crew, asked = new_crew(), 0
    if not in_order then
        mourn()
        current, sender = nil, nil
        await_heir()
    end
    in_order = false
    local handled = 0
    while true do
        local taken = first <= last and 3 or C.ngx_cc_ipc_take(mail, RECEIVER)
        if heirs == 0 and handled % ASK == 0 and taken ~= 2 then
            ask_for_heir()
        end
        if taken == 1 then
            dispatch(ffi_string(mail.name, mail.name_len), ffi_string(mail.data, mail.data_len),
                     mail.sender, mail.worker, mail.kind, mail.call)
            handled = handled + 1
        elseif taken == 3 then
            from_backlog()
            handled = handled + 1
        elseif taken == 4 then
            review()
        elseif taken == 0 then
            sema:wait(WAIT)
        else
            C.ngx_cc_ipc_detach(sema.sem, post)
            break
        end
        if handled >= RENEW and heirs > 0 then
            break
        end
    end
    receiver, globals, in_order = nil, nil, true
    setfenv(0, theirs)      -- the coroutine may be used again
    C.ngx_cc_ipc_pass(guard)
end

-- From the first call on: takes over while the receiver's handler has yielded and calls wait.
local deputy_runs, deputy_asked = false, 0
local deputy_mail = ffi.new "ngx_cc_ipc_mail_t"

local ask_for_deputy

local function deputy(premature)
    if deputy_runs then
        return      -- a timer that came late
    end
    local guard = C.ngx_cc_ipc_guard(get_request(), deputy_sema.sem, post)
    if guard == nil then
        return
    end
    deputy_runs = true
    local taken = 0
    while not premature and taken < RENEW and (calls.count() > 0 or not ngx.worker.exiting()) do
        local may_take = calls.count() > 0 and backlog_bytes < BACKLOG_MAX
        local code = C.ngx_cc_ipc_take(deputy_mail, may_take and DEPUTY or DEPUTY_WAITS)
        if code == 2 then
            break
        elseif code == 1 then
            local m = deputy_mail
            local name, data = ffi_string(m.name, m.name_len), ffi_string(m.data, m.data_len)
            if m.kind == REPLY or m.kind == FAILURE then
                resolve(m.call, m.worker, m.kind, data)
            else
                last = last + 1
                backlog[last] = { name, data, m.sender, m.worker, m.kind, m.call, true }
                backlog_bytes = backlog_bytes + #name + #data + BACKLOG_OVERHEAD
            end
            taken = taken + 1
            calls.sweep()
        else
            deputy_sema:wait(WAIT)
            if ngx.worker.exiting() then
                calls.end_forgotten()
            end
        end
    end
    deputy_runs, deputy_asked = false, 0
    if taken >= RENEW then
        ask_for_deputy()
    end
    C.ngx_cc_ipc_pass(guard)
end

-- As ask_for_heir.
function ask_for_deputy()
    local now = ngx.now()
    if not deputy_runs and (now < deputy_asked or now - deputy_asked >= ASK_AGAIN) and timer_at(0, deputy) then
        deputy_asked = now
    end
end

-- Starts the receiver unless it runs. Nothing, or why it cannot.
function _M.start()
    if sema then
        if not begun then
            ask_for_heir()
        end
        return
    end
    local new, new_deputy = semaphore.new(0), semaphore.new(0)
    local code = C.ngx_cc_ipc_attach(new.sem, new_deputy.sem, post)
    if code == 0 then
        return "another Lua VM of this worker receives (lua_code_cache is off): "
               .. "call receive in init_worker_by_lua*"
    elseif code < 0 then
        return "not a worker process"
    end
    sema, deputy_sema, turn, in_order = new, new_deputy, semaphore.new(1), true
    local ok, err = timer_at(0, run)
    asked = ngx.now()
    if not ok then
        C.ngx_cc_ipc_detach(sema.sem, post)
        sema = nil
        return "cannot start the receiver: " .. err
    end
end

-- Runs a handler for what is retained already. In init_worker, `now`, before any request; a handler
-- that wants to yield there, and any handler elsewhere, runs in the receiver.
function _M.catch_up(name, now)
    retained.each_untold(name, function(_, key, sequence)
        local handler = now and handlers[name]
        if not handler or not handle_retained(name, handler, key, sequence) then
            tell_later(name, key, sequence)
        end
    end)
    sema:post(1)
end

-- Sets or, with fn false, deletes a handler.
function _M.set(name, fn, beside)
    handlers[name] = fn or nil
    retained.forget(name)
    concurrent[name] = fn and beside or nil
end

-- Waits until a call is answered; until the deputy is there it may have to be asked for again.
local function wait(answer, timeout)
    while not deputy_runs and timeout > ASK_AGAIN do
        ask_for_deputy()
        if answer:wait(ASK_AGAIN) then
            return true
        end
        timeout = timeout - ASK_AGAIN
    end
    ask_for_deputy()
    return answer:wait(timeout)
end

-- As calls.make.
function _M.call(timeout, send, take)
    local answered, err = calls.make(timeout, send, take, wait)
    if calls.count() == 0 and ngx.worker.exiting() then
        deputy_sema:post(1)     -- so that it does not keep the leaving worker
    end
    return answered, err
end

return _M
