-- ngx.ipc: messages between the workers of one nginx. Checks arguments and turns answers into
-- words; ngx.ipc.receiver runs the handlers.

local ffi = require "ffi"
local arguments = require "ngx.ipc.arguments"
local receiver = require "ngx.ipc.receiver"
local retained = require "ngx.ipc.retained"

local C = ffi.C
local ffi_string = ffi.string
local bad_argument, name_of, data_of = arguments.bad_argument, arguments.name_of, arguments.data_of
local integer_of, is_id, timeout_of = arguments.integer_of, arguments.is_id, arguments.timeout_of
local get_phase = ngx.get_phase
local type, tostring, tonumber, select, error = type, tostring, tonumber, select, error
local pairs, ipairs = pairs, ipairs

ffi.cdef [[
typedef struct { uint32_t id, pid, generation, state; } ngx_cc_ipc_row_t;
typedef struct { uint32_t id, generation; int32_t code; } ngx_cc_ipc_missed_t;
typedef struct {
    uint64_t sent, received, full, unhandled, stranger, lost, failed, late, queued, queued_bytes;
} ngx_cc_ipc_stats_t;

int ngx_cc_ipc_send_worker(uint32_t id, uint32_t kind, uint32_t call,
    const char *name, size_t name_len, const char *data, size_t data_len);
int ngx_cc_ipc_broadcast(int reach, uint32_t kind, uint32_t call,
    const char *name, size_t name_len, const char *data, size_t data_len,
    ngx_cc_ipc_missed_t *missed, size_t room);
int ngx_cc_ipc_retain(int keep, const char *name, size_t name_len, const char *key, size_t key_len,
    const char *value, size_t value_len, ngx_cc_ipc_missed_t *missed, size_t room);
int ngx_cc_ipc_workers(ngx_cc_ipc_row_t *rows, size_t room);
int ngx_cc_ipc_generation(void);
int ngx_cc_ipc_stats(ngx_cc_ipc_stats_t *stats);
]]

local MESSAGE, CALL = 1, 3
local WORKERS_MAX = 1024
-- Whom a broadcast reaches: this generation and newer ones, this one, this one without this worker.
local NEWER, OWN, OTHERS = 0, 1, 2

local STATES = { "starting", "live", "retiring" }
local ERRORS = {
    [-1] = "not a worker process",
    [-3] = "full",
    [-4] = "message too long",
    [-6] = "internal error, see the error log",
    [-7] = "no room",
    [-8] = "busy",
    [-9] = "key too long",
}
local OWN_WORKER = "a handler cannot call its own worker, where handlers run in order"

local ipc = setmetatable({}, {
    __index = function(_, key)
        if key == "sender" then
            return receiver.sender()
        end
    end,
})

function ipc.send(pid, name, ...)
    pid = integer_of(pid, 1, "send")
    local name, err = name_of(name, 2, "send")
    local data = data_of(select("#", ...) > 0, (...), 3, "send")
    if not name then
        return nil, err
    end
    local code = is_id(pid, 0x7fffffff) and C.ngx_cc_ipc_send(pid, MESSAGE, 0, name, #name, data, #data) or -2
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
    local code = is_id(id, WORKERS_MAX) and C.ngx_cc_ipc_send_worker(id, MESSAGE, 0, name, #name, data, #data) or -2
    if code == 0 then
        return true
    end
    return nil, ERRORS[code] or "No worker with id " .. tostring(id)
end

local missed = ffi.new("ngx_cc_ipc_missed_t[?]", WORKERS_MAX)

local function missed_workers(count)
    local list = {}
    for i = 0, (count < WORKERS_MAX and count or WORKERS_MAX) - 1 do
        local row = missed[i]
        list[i + 1] = { id = row.id, generation = row.generation, err = ERRORS[row.code] or "gone" }
    end
    return list
end

local function broadcast(reach, kind, call, name, data)
    return C.ngx_cc_ipc_broadcast(reach, kind, call, name, #name, data, #data, missed, WORKERS_MAX)
end

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
    local reach = options and options.generation == "own" and OWN or NEWER
    local count = broadcast(reach, MESSAGE, 0, name, data)
    if count == 0 then
        return true
    elseif count < 0 then
        return nil, ERRORS[count]
    end
    local list = missed_workers(count)
    return nil, list[1].err, list
end

function ipc.reply(name, ...)
    local to = ipc.sender
    if not to then
        error("Can't reply: there is no sender outside of a receive handler", 2)
    end
    return ipc.send(to, name, ...)
end

-- Keeps `value` (nil: ends it) as the last one of name and key, and tells all workers' handlers of
-- that name: handler(value, key). True once it is kept, then, where some could not be told, why and
-- who, as from broadcast.
function ipc.retain(name, key, value)
    local name, err = name_of(name, 1, "retain")
    key = data_of(true, key, 2, "retain")
    local keep = value ~= nil and 1 or 0
    value = data_of(value ~= nil, value, 3, "retain")
    if not name then
        return nil, err
    end
    local count = C.ngx_cc_ipc_retain(keep, name, #name, key, #key, value, #value, missed, WORKERS_MAX)
    if count == 0 then
        return true
    elseif count < 0 then
        return nil, ERRORS[count]
    end
    local list = missed_workers(count)
    return true, list[1].err, list
end

-- The retained value of a key and its sequence number, or without a key all of a name's.
function ipc.retained(name, ...)
    local name, err = name_of(name, 1, "retained")
    if not name then
        return nil, err
    elseif select("#", ...) == 0 then
        local list, code = retained.all(name)
        if list then
            return list
        end
        return nil, ERRORS[code]
    end
    local value, sequence = retained.get(name, data_of(true, (...), 2, "retained"))
    if value then
        return value, sequence
    end
    return nil, ERRORS[sequence]
end

-- receive(name, fn), receive(name, nil) or receive{ name = fn, ... }; then options:
-- concurrent = true runs each message in a light thread of its own.
function ipc.receive(name, ...)
    if get_phase() == "init" then
        error("ngx.ipc: receive cannot be used in init_by_lua*: workers do not exist yet, "
              .. "call it in init_worker_by_lua*", 2)
    end
    local new, options = {}, nil
    if type(name) == "table" then
        options = ...
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
        local fn
        fn, options = ...
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
    if options ~= nil and type(options) ~= "table" then
        bad_argument(type(name) == "table" and 2 or 3, "receive", "table", options)
    end
    for key, fn in pairs(new) do
        receiver.set(key, fn, options and options.concurrent)
    end
    local err = receiver.start()
    if err then
        return nil, err
    end
    for key, fn in pairs(new) do
        if fn then
            receiver.catch_up(key, get_phase() == "init_worker")
        end
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

-- Worker ids of this generation whose processes live; mail for one that is starting waits for it.
local function living_workers()
    local next_row, err = each_row()
    if not next_row then
        return nil, err
    end
    local generation, ids = C.ngx_cc_ipc_generation(), {}
    for row in next_row do
        if row.generation == generation then
            ids[#ids + 1] = row.id
        end
    end
    table.sort(ids)
    return ids
end

local turn = 0

local function target_of(target)
    local id = tonumber(target)
    if id then
        return id
    elseif target ~= "leader" and target ~= "any" then
        error("bad argument #1 to 'call' (a worker id, \"leader\" or \"any\" expected)", 3)
    end
    local ids, err = living_workers()
    if not ids then
        return nil, err
    elseif target == "leader" then
        return ids[1]
    end
    if #ids > 1 and receiver.in_order() then
        local own = ngx.worker.id()
        for i = 1, #ids do
            if ids[i] == own then
                table.remove(ids, i)
                break
            end
        end
    end
    turn = turn % #ids + 1
    return ids[turn]
end

-- The reply of one worker's handler: data, or nil and why there is none.
function ipc.call(target, name, data, options)
    local id, err = target_of(target)
    local name, name_err = name_of(name, 2, "call")
    data = data_of(data ~= nil, data, 3, "call")
    local timeout, wait_err = timeout_of(options, 4, "call")
    if not (id and name and timeout) then
        return nil, err or name_err or wait_err
    elseif not is_id(id, WORKERS_MAX) then
        return nil, "No worker with id " .. tostring(id)
    elseif id == ngx.worker.id() and receiver.in_order() then
        return nil, OWN_WORKER
    end
    err = receiver.start()
    if err then
        return nil, err
    end
    local ok, reply
    local answered, err = receiver.call(timeout, function(number)
        local code = C.ngx_cc_ipc_send_worker(id, CALL, number, name, #name, data, #data)
        if code == 0 then
            return 1
        end
        return nil, ERRORS[code] or "No worker with id " .. tostring(id)
    end, function(_, good, result)
        ok, reply = good, result
    end)
    if answered and ok then
        return reply
    elseif answered then
        return nil, reply
    end
    return nil, err or "timeout"
end

-- The replies of all workers of this generation: a list of { id =, data = } or { id =, err = }, by id.
function ipc.call_all(name, data, options)
    local name, err = name_of(name, 1, "call_all")
    data = data_of(data ~= nil, data, 2, "call_all")
    local timeout, wait_err = timeout_of(options, 3, "call_all")
    if not (name and timeout) then
        return nil, err or wait_err
    end
    err = receiver.start()
    if err then
        return nil, err
    end
    local results, workers = {}, ngx.worker.count()
    local own = receiver.in_order() and ngx.worker.id()
    if own then
        results[own] = { id = own, err = OWN_WORKER }
    end
    local _, err = receiver.call(timeout, function(number)
        local count = broadcast(own and OTHERS or OWN, CALL, number, name, data)
        if count < 0 then
            return nil, ERRORS[count]
        end
        for _, row in pairs(missed_workers(count)) do
            results[row.id] = { id = row.id, err = row.err }
        end
        local expected = workers
        for _ in pairs(results) do
            expected = expected - 1
        end
        return expected
    end, function(id, good, result)
        results[id] = good and { id = id, data = result } or { id = id, err = result }
    end)
    if err then
        return nil, err
    end
    local list = {}
    for id = 0, workers - 1 do
        list[id + 1] = results[id] or { id = id, err = "timeout" }
    end
    return list
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
