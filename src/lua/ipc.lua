-- ngx.ipc: messages between the workers of one nginx. Checks arguments, turns answers into words,
-- and runs the handlers: in order, in one light thread per worker, each under xpcall.

local ffi = require "ffi"
local semaphore = require "ngx.semaphore"
local get_request = require("resty.core.base").get_request

local C = ffi.C
local ffi_string = ffi.string
local co_running = coroutine.running
local get_phase = ngx.get_phase
local timer_at = ngx.timer.at
local traceback = debug.traceback
local type, tostring, tonumber, select, error, pairs = type, tostring, tonumber, select, error, pairs
local xpcall, setmetatable = xpcall, setmetatable

ffi.cdef [[
typedef struct {
    const char *name; size_t name_len;
    const char *data; size_t data_len;
    uint32_t sender, worker, kind, call;
} ngx_cc_ipc_mail_t;
typedef struct { uint32_t id, pid, generation, state; } ngx_cc_ipc_row_t;
typedef struct { uint32_t id, generation; int32_t code; } ngx_cc_ipc_missed_t;
typedef struct {
    uint64_t sent, received, full, unhandled, stranger, lost, failed, late, queued, queued_bytes;
} ngx_cc_ipc_stats_t;

int ngx_cc_ipc_send(uint32_t pid, const char *name, size_t name_len, const char *data, size_t data_len);
int ngx_cc_ipc_send_worker(uint32_t id, const char *name, size_t name_len, const char *data, size_t data_len);
int ngx_cc_ipc_broadcast(int own, const char *name, size_t name_len, const char *data, size_t data_len,
    ngx_cc_ipc_missed_t *missed, size_t room);
int ngx_cc_ipc_take(ngx_cc_ipc_mail_t *mail);
void ngx_cc_ipc_unhappy(int failed);
int ngx_cc_ipc_attach(void *sema, void *post);
void *ngx_cc_ipc_guard(void *request, void *sema, void *post);
void ngx_cc_ipc_pass(void *guard);
void ngx_cc_ipc_detach(void *sema, void *post);
int ngx_cc_ipc_workers(ngx_cc_ipc_row_t *rows, size_t room);
int ngx_cc_ipc_generation(void);
int ngx_cc_ipc_stats(ngx_cc_ipc_stats_t *stats);
int ngx_http_lua_ffi_sema_post(void *sem, int n);
]]

local NAME_MAX = 254
local WORKERS_MAX = 1024
-- A light thread's request never frees what it has allocated, so the receiver starts afresh in a
-- new one now and then.
local RENEW = 5000
-- Long, since the semaphore is posted for every reason to wake; ngx.semaphore wants a limit.
local WAIT = 86400

local STATES = { "starting", "live", "retiring" }
local ERRORS = {
    [-1] = "not a worker process",
    [-3] = "full",
    [-4] = "message too long",
    [-6] = "internal error, see the error log",
}

local mail = ffi.new "ngx_cc_ipc_mail_t"
local post = ffi.cast("void *", C.ngx_http_lua_ffi_sema_post)

local handlers = {}
local receiver      -- the light thread that runs handlers
local sender        -- of the message whose handler runs
local running       -- the name of that message

-- `sender` is the handler's alone: another light thread that runs while the handler yields has none.
local ipc = setmetatable({}, {
    __index = function(_, key)
        if key == "sender" and sender and co_running() == receiver then
            return sender
        end
    end,
})

local function bad_argument(n, fname, expected, value)
    error("bad argument #" .. n .. " to '" .. fname .. "' (" .. expected .. " expected, got "
          .. type(value) .. ")", 3)
end

local function name_of(value, n, fname)
    if type(value) == "number" then
        value = tostring(value)
    elseif type(value) ~= "string" then
        bad_argument(n, fname, "string", value)
    end
    if #value > NAME_MAX then
        return nil, "alert name length cannot exceed " .. NAME_MAX .. ", was " .. #value
    end
    return value
end

-- Absent is "", an explicit nil is a mistake.
local function data_of(given, value, n, fname)
    if type(value) == "string" then
        return value
    elseif type(value) == "number" then
        return tostring(value)
    elseif not given then
        return ""
    end
    bad_argument(n, fname, "string", value)
end

local function integer_of(value, n, fname)
    local number = type(value) == "string" and tonumber(value) or value
    if type(number) ~= "number" then
        bad_argument(n, fname, "number", value)
    end
    return number
end

-- What FFI would wrap around is nobody's id.
local function is_id(number, max)
    return number >= 0 and number <= max and number % 1 == 0
end

function ipc.send(pid, name, ...)
    pid = integer_of(pid, 1, "send")
    local name, err = name_of(name, 2, "send")
    local data = data_of(select("#", ...) > 0, (...), 3, "send")
    if not name then
        return nil, err
    end
    local code = is_id(pid, 0x7fffffff) and C.ngx_cc_ipc_send(pid, name, #name, data, #data) or -2
    if code == 0 then
        return true
    end
    return nil, ERRORS[code] or "No worker process with PID " .. tostring(pid)
end

function ipc.send_worker(id, name, ...)
    id = integer_of(id, 1, "send_worker")
    local name, err = name_of(name, 2, "send_worker")
    local data = data_of(select("#", ...) > 0, (...), 3, "send_worker")
    if not name then
        return nil, err
    end
    local code = is_id(id, WORKERS_MAX) and C.ngx_cc_ipc_send_worker(id, name, #name, data, #data) or -2
    if code == 0 then
        return true
    end
    return nil, ERRORS[code] or "No worker with id " .. tostring(id)
end

local missed

-- options: generation = "own" keeps it from the workers of newer configurations. On failure the
-- third value lists the workers not reached: { id =, generation =, err = }.
function ipc.broadcast(name, ...)
    local name, err = name_of(name, 1, "broadcast")
    local data, options = ...
    data = data_of(select("#", ...) > 0, data, 2, "broadcast")
    if options ~= nil and type(options) ~= "table" then
        bad_argument(3, "broadcast", "table", options)
    end
    if not name then
        return nil, err
    end
    missed = missed or ffi.new("ngx_cc_ipc_missed_t[?]", WORKERS_MAX)
    local own = options and options.generation == "own" and 1 or 0
    local count = C.ngx_cc_ipc_broadcast(own, name, #name, data, #data, missed, WORKERS_MAX)
    if count == 0 then
        return true
    elseif count < 0 then
        return nil, ERRORS[count]
    end
    local list = {}
    for i = 0, (count < WORKERS_MAX and count or WORKERS_MAX) - 1 do
        local row = missed[i]
        list[i + 1] = { id = row.id, generation = row.generation, err = ERRORS[row.code] or "gone" }
    end
    return nil, list[1].err, list
end

function ipc.reply(name, ...)
    local to = ipc.sender
    if not to then
        error("Can't reply: there is no sender outside of a receive handler", 2)
    end
    return ipc.send(to, name, ...)
end

local function trace(err)
    return traceback(tostring(err), 2)
end

local function dispatch(name, data)
    local handler = handlers[name]
    if not handler then
        C.ngx_cc_ipc_unhappy(0)
        return
    end
    local ok, err = xpcall(handler, trace, data)
    if not ok then
        C.ngx_cc_ipc_unhappy(1)
        ngx.log(ngx.ERR, "ipc handler \"", name, "\" failed: ", err)
    end
end

local sema          -- posted when there is mail
local turn          -- posted when the receiver has ended: its heir's turn
local heirs = 0     -- light threads that wait for it
local in_order      -- whether the last receiver has said that it ends

-- The body of each receiver: it waits until the one before it has ended, however that ended
-- (ngx.exit in a handler ends a light thread, and nothing in it can prevent that), and sees to it
-- that another one waits for its own end.
local function run()
    local guard = C.ngx_cc_ipc_guard(get_request(), turn.sem, post)
    if guard == nil then
        return
    end
    heirs = heirs + 1
    repeat until turn:wait(WAIT)
    heirs = heirs - 1
    receiver = co_running()
    if not in_order then
        local what = running and 'ipc handler "' .. running .. '"' or "a light thread of an ipc handler"
        ngx.log(ngx.ERR, what, " has ended the receiver, by ngx.exit() or for want of memory; ",
                "the next one takes over")
        if running then
            C.ngx_cc_ipc_unhappy(1)
        end
    end
    in_order, running, sender = false, nil, nil
    local handled = 0
    while true do
        local taken = C.ngx_cc_ipc_take(mail)
        if heirs == 0 and handled % RENEW == 0 and taken ~= 2 then
            timer_at(0, run)
        end
        if taken == 1 then
            sender, running = mail.sender, ffi_string(mail.name, mail.name_len)
            dispatch(running, ffi_string(mail.data, mail.data_len))
            sender, running = nil, nil
            handled = handled + 1
            if handled >= RENEW and heirs > 0 then
                break
            end
        elseif taken == 0 then
            sema:wait(WAIT)
        else
            C.ngx_cc_ipc_detach(sema.sem, post)
            break
        end
    end
    receiver, in_order = nil, true
    C.ngx_cc_ipc_pass(guard)
end

-- Starts the receiver unless it runs. Nothing, or why it cannot.
local function start()
    if sema then
        return
    end
    local new = semaphore.new(0)
    local code = C.ngx_cc_ipc_attach(new.sem, post)
    if code == 0 then
        return "another Lua VM of this worker receives (lua_code_cache is off): "
               .. "call receive in init_worker_by_lua*"
    elseif code < 0 then
        return ERRORS[code]
    end
    sema, turn, in_order = new, semaphore.new(1), true
    local ok, err = timer_at(0, run)
    if not ok then
        C.ngx_cc_ipc_detach(sema.sem, post)
        sema = nil
        return "cannot start the receiver: " .. err
    end
end

-- receive(name, fn), receive(name, nil) or receive{ name = fn, ... }
function ipc.receive(name, ...)
    if get_phase() == "init" then
        error("ngx.ipc: receive cannot be used in init_by_lua*: workers do not exist yet, "
              .. "call it in init_worker_by_lua*", 2)
    end
    local new = {}
    if type(name) == "table" then
        for key, fn in pairs(name) do
            if type(key) ~= "string" then
                error("bad argument #1 to 'receive' (a name is a string, got " .. type(key) .. ")", 2)
            elseif type(fn) ~= "function" then
                error("bad argument #1 to 'receive' (function expected for '" .. key .. "', got "
                      .. type(fn) .. ")", 2)
            end
            new[key] = fn
        end
    else
        local fn = ...
        if type(name) ~= "string" then
            bad_argument(1, "receive", "string or table", name)
        elseif select("#", ...) == 0 or fn ~= nil and type(fn) ~= "function" then
            bad_argument(2, "receive", "function or nil", fn)
        end
        new[name] = fn or false
    end
    for key, fn in pairs(new) do
        local _, err = name_of(key, 1, "receive")
        if err then
            return nil, err
        end
    end
    for key, fn in pairs(new) do
        handlers[key] = fn or nil
    end
    local err = start()
    if err then
        return nil, err
    end
    return true
end

local rows

local function each_row()
    rows = rows or ffi.new("ngx_cc_ipc_row_t[?]", WORKERS_MAX)
    local count = C.ngx_cc_ipc_workers(rows, WORKERS_MAX)
    if count < 0 then
        return nil, ERRORS[count]
    end
    local i = -1
    return function()
        i = i + 1
        if i < count then
            return rows[i]
        end
    end
end

-- The workers that messages reach, without this one.
function ipc.get_other_worker_pids()
    local next_row, err = each_row()
    if not next_row then
        return nil, err
    end
    local mine, pids = ngx.worker.pid(), {}
    for row in next_row do
        if row.pid ~= mine and STATES[row.state] ~= "retiring" then
            pids[#pids + 1] = row.pid
        end
    end
    return pids
end

function ipc.workers()
    local next_row, err = each_row()
    if not next_row then
        return nil, err
    end
    local list = {}
    for row in next_row do
        list[#list + 1] = {
            id = row.id,
            pid = row.pid,
            generation = row.generation,
            state = STATES[row.state],
        }
    end
    return list
end

function ipc.generation()
    local generation = C.ngx_cc_ipc_generation()
    if generation < 0 then
        return nil, ERRORS[generation]
    end
    return generation
end

local COUNTERS = {
    "sent", "received", "full", "unhandled", "stranger", "lost", "failed", "late",
    "queued", "queued_bytes",
}

function ipc.stats()
    local stats = ffi.new "ngx_cc_ipc_stats_t"
    local code = C.ngx_cc_ipc_stats(stats)
    if code < 0 then
        return nil, ERRORS[code]
    end
    local result = {}
    for _, key in pairs(COUNTERS) do
        result[key] = tonumber(stats[key])
    end
    return result
end

return ipc
