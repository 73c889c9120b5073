-- What each worker does in a soak: sends at random, receives, and keeps a ledger of both
-- (soak_ledger.lua). What only the receiver itself can see (order, duplicates, content) it logs at
-- alert.

local ipc = require "ngx.ipc"
local book = require "soak_ledger"
local cluster = require "soak_cluster"
local kept = require "soak_kept"
local pool = require "soak_pool"

local random, format = math.random, string.format
local crc32 = ngx.crc32_long
local alert, row_of = book.alert, book.row

-- Rows of the ledger: what was accepted from us, by receiver; and what was handled, by sender.
local TO_PROCESS, TO_SEAT, BY_BROADCAST, EMPTY, TO_ALL = 1, 2, 3, 4, 5
local HANDLED = 10
local KINDS = { p = TO_PROCESS, s = TO_SEAT, b = BY_BROADCAST }
local CALLS_MAX = 20
local NAMES = { "soak.slow", "soak.raise", "soak.yield", "soak.beside" }

local ledger, control
local me, seat_key          -- { pid =, generation =, id = }, ",GENERATION.ID:"
local heard = {}            -- sender -> number of its last message, of all kinds
local number = 0            -- of our last message
local calls = 0             -- under way

local function quiet()
    return control.quiet ~= 0
end

-- -- receiving ---------------------------------------------------------------

-- The first act of each handler: the message's body, once it was found to be the next one of its
-- sender and whole.
local function take(data)
    ledger.handled = ledger.handled + 1
    local from = ipc.sender
    local _, last, pid, n, kind, seq, crc, len = data:find("^(%d+) (%d+) (%a) (%S+) (%d+) (%d+)\n")
    if not last or tonumber(pid) ~= from then
        alert("from ", from, ": not a message of its: ", data:sub(1, 100))
        return ""
    end
    n = tonumber(n)
    local body = data:sub(last + 1)
    if #body ~= tonumber(len) or crc32(body) ~= tonumber(crc) then
        alert("from ", from, ": message ", n, " of ", len, " bytes is damaged, has ", #body)
    end
    if n <= (heard[from] or 0) then
        alert("from ", from, ": message ", n, " (", kind, ") after ", heard[from])
    end
    heard[from] = n
    if not KINDS[kind] then
        -- which workers a call of all did not reach its sender hears late, so it has no number
        local row = row_of(HANDLED + TO_ALL, from, 0)
        row.count = row.count + 1
        return body
    elseif kind == "b" then
        local _, at = seq:find(seat_key, 1, true)
        seq = at and seq:match("^%d+", at + 1)
        if not seq then
            return body -- the sender had not heard of this worker yet
        end
    end
    seq = tonumber(seq)
    local row = row_of(HANDLED + KINDS[kind], from, 0)
    local last_seq = tonumber(row.last)
    if row.count == 0 then
        row.first = seq
        if kind == "p" and seq ~= 1 then
            alert("from ", from, ": first message to this process is number ", seq)
        end
    elseif seq ~= last_seq + 1 then
        alert("from ", from, ": ", kind, " ", seq, " follows ", last_seq)
    end
    row.count, row.last = row.count + 1, seq
    return body
end

local function receive()
    ipc.receive {
        ["soak"] = function(data) take(data) end,
        ["soak.slow"] = function(data) take(data) ngx.sleep(random(1, 10) / 1000) end,
        ["soak.raise"] = function(data) take(data) error("on purpose") end,
        ["soak.yield"] = function(data) take(data) ngx.sleep(0) end,
        ["soak.empty"] = function(data)
            ledger.handled = ledger.handled + 1
            local row = row_of(HANDLED + EMPTY, ipc.sender, 0)
            row.count = row.count + 1
            if data ~= "" then
                alert("from ", ipc.sender, ": ", #data, " bytes instead of none")
            end
        end,
        ["soak.call"] = function(data)
            local body = take(data)
            local how = random(20)
            if how == 1 then error("on purpose") end
            if how < 5 then ngx.sleep(random(1, 5) / 1000) end
            return crc32(body) .. ":" .. body
        end,
    }
    ipc.receive("soak.beside", function(data) take(data) ngx.sleep(random(1, 10) / 1000) end,
                { concurrent = true })
end

-- -- sending -----------------------------------------------------------------

local function body_of()
    local r, size = random(1000), 0
    if control.modest ~= 0 then
        -- so that memory tells of leaks, not of the longest message that there was
        size = random(0, 1000)
    elseif r <= 3 then
        size = random(2 * 1024 * 1024)
    elseif r <= 20 then
        size = random(100 * 1024)
    elseif r <= 300 then
        size = random(4096)
    elseif r <= 950 then
        size = random(100)
    end
    local from = random(#pool - size)
    return pool:sub(from, from + size - 1)
end

local function letter(kind, seq, body)
    number = number + 1
    return format("%d %d %s %s %d %d\n", me.pid, number, kind, seq, crc32(body), #body) .. body
end

local function name_of()
    return random(20) == 1 and NAMES[random(#NAMES)] or "soak"
end

local function refused(err)
    ledger.refused = ledger.refused + 1
    if err ~= "full" and not err:find("^No worker") and err ~= "gone" then
        alert("refused: ", err)
    end
    return nil, err
end

local function to_process(pid, body)
    local row = row_of(TO_PROCESS, pid, 0)
    local ok, err = ipc.send(pid, name_of(), letter("p", tostring(row.count + 1):match("%d+"), body or body_of()))
    if not ok then
        return refused(err)
    end
    row.count = row.count + 1
    return true
end

local function to_seat(id, body)
    local row = row_of(TO_SEAT, me.generation, id)
    local ok, err = ipc.send_worker(id, name_of(), letter("s", tostring(row.count + 1):match("%d+"), body or body_of()))
    if not ok then
        return refused(err)
    end
    row.count = row.count + 1
    return true
end

local function broadcast(own)
    local reach, vector = {}, {}
    for _, w in ipairs(ipc.workers()) do
        -- others may be reached, too: who is not in the table yet, and who is leaving, unless it is
        -- about to go, which its sender is not told
        if w.state ~= "retiring"
            and (w.generation == me.generation or w.generation > me.generation and not own) then
            local key, row = format(",%d.%d:", w.generation, w.id), row_of(BY_BROADCAST, w.generation, w.id)
            reach[key] = row
            vector[#vector + 1] = key .. tostring(row.count + 1):match("%d+")
        end
    end
    local data = letter("b", table.concat(vector) .. ",", body_of())
    local ok, err, missed = ipc.broadcast(name_of(), data, own and { generation = "own" } or nil)
    if not ok and not missed then
        return refused(err)
    end
    for _, w in ipairs(missed or {}) do
        refused(w.err)
        reach[format(",%d.%d:", w.generation, w.id)] = nil
    end
    for _, row in pairs(reach) do
        row.count = row.count + 1
    end
end

local function answered(result, err, body)
    if result then
        if result ~= crc32(body) .. ":" .. body then
            alert("a reply of ", #result, " bytes is not what was asked for")
        end
    elseif not err:find("^handler failed: ") then
        return
    end
    ledger.answered = ledger.answered + 1
end

local function call(id)
    local body = body_of()
    local row = row_of(TO_SEAT, me.generation, id)
    -- whoever runs while the call waits must find it counted
    row.count = row.count + 1
    local data = letter("s", tostring(row.count):match("%d+"), body)
    ledger.expected = ledger.expected + 1
    local result, err = ipc.call(id, "soak.call", data, { timeout = 2 })
    ledger.expected = ledger.expected - 1
    if not result and (err == "full" or err:find("^No worker") or err:find("^a handler")) then
        row.count = row.count - 1
        return refused(err)
    end
    answered(result, err, body)
end

local function call_all()
    local body, workers = body_of(), ngx.worker.count()
    for id = 0, workers - 1 do
        local row = row_of(TO_ALL, me.generation, id)
        row.count = row.count + 1
    end
    ledger.expected = ledger.expected + workers
    for _, r in ipairs(ipc.call_all("soak.call", letter("x", "-", body), { timeout = 2 }) or {}) do
        answered(r.data, r.err, body)
    end
    ledger.expected = ledger.expected - workers
end

local function beside(fn, ...)
    if calls >= CALLS_MAX then
        return
    end
    calls = calls + 1
    local ok = ngx.timer.at(0, function(_, ...)
        local fine, err = pcall(fn, ...)
        calls = calls - 1
        if not fine then alert("a call raised: ", err) end
    end, ...)
    if not ok then calls = calls - 1 end
end

local function anyone()
    local list = ipc.workers()
    return list[random(#list)]
end

local function act()
    local r, id = random(100), random(0, ngx.worker.count() - 1)
    if r <= 35 then
        to_process((anyone() or me).pid)
    elseif r <= 65 then
        to_seat(id)
    elseif r <= 75 then
        broadcast(random(2) == 1)
    elseif r <= 83 then
        beside(call, id)
    elseif r <= 85 then
        beside(call_all)
    elseif r <= 92 then
        local row = row_of(EMPTY, me.generation, id)
        local ok, err = ipc.send_worker(id, "soak.empty")
        if ok then row.count = row.count + 1 else refused(err) end
    elseif r <= 94 then
        -- nobody keeps a ledger of these, so they stay where they cannot get lost
        local ok, err = ipc.send_worker(me.id, "soak.nobody", "x")
        if ok then ledger.unnamed = ledger.unnamed + 1 else refused(err) end
    elseif control.mixed == 0 then
        to_seat(id)
    elseif r <= 98 then
        beside(cluster.call, random(4) == 1 and "all" or id, body_of())
    else
        kept.change()
    end
end

local quiet_since, looks = 0, 0

-- While nobody sends: what this worker and the zone hold.
local function look()
    if quiet_since ~= control.quiet then
        quiet_since, looks = control.quiet, 0
        if control.touch ~= 0 and me.id == 0 then
            kept.touch(control.touch)
        end
    end
    looks = looks + 1
    if looks < 4 then
        -- more than once, for what is freed by what is freed
        collectgarbage()
    end
    local others, workers = 0, ipc.workers()
    for _, w in ipairs(workers) do
        if w.generation ~= me.generation or w.state ~= "live" then
            others = others + 1
        end
    end
    ledger.workers, ledger.others, ledger.calls = #workers, others, calls
    for key, value in pairs(ipc.stats()) do
        if key ~= "failed" then ledger[key] = value end
    end
    cluster.look(ledger)
    if kept.look(ledger) then
        ledger.looks = ledger.looks + 1
        ledger.looked = quiet_since
    end
end

local function tick()
    if quiet() then
        return look()
    end
    for _ = 1, random(0, control.rate) do
        act()
    end
end

-- -- for t/soak/Soak/Node.pm ---------------------------------------------------

local _M = {}

-- In each worker, with the prefix of its nginx.
function _M.start(prefix, seed)
    me = book.open(prefix)
    ledger, control = book.ledger, book.control
    seat_key = format(",%d.%d:", me.generation, me.id)
    math.randomseed(seed * 7919 + me.generation * 64 + me.id)
    receive()
    kept.start()
    cluster.start()
    -- mail may be sent before the event loop runs
    for id = 0, ngx.worker.count() - 1 do to_seat(id, "early") end
    assert(ngx.timer.every(0.01, tick))
end

-- Some messages from a request.
function _M.work()
    for _ = 1, quiet() and 0 or random(10) do act() end
    ngx.say(me.pid)
end

-- A request that keeps its worker, also one that is told to leave, and lets it talk.
function _M.long()
    ngx.update_time()
    local last = ngx.now() + tonumber(ngx.var.arg_s)
    repeat
        for _ = 1, random(0, 3) do act() end
        ngx.sleep(0.02)
    until quiet() or ngx.now() > last
    ngx.say(me.pid)
end

-- As much as goes to one worker, until it is full.
function _M.flood()
    local id, size = tonumber(ngx.var.arg_id) % ngx.worker.count(), tonumber(ngx.var.arg_size)
    local at = random(#pool - size)
    local body, count = pool:sub(at, at + size - 1), 0
    local process
    for _, w in ipairs(ipc.workers()) do
        if w.generation == me.generation and w.id == id then process = w.pid end
    end
    repeat
        count = count + 1
        local ok
        if process and count % 2 == 0 then ok = to_process(process, body) else ok = to_seat(id, body) end
    until not ok or count >= 50000
    ngx.say(count)
end

return _M
