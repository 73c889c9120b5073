-- One worker broadcasts to all, itself included, as fast as it may. The window is that of the flood,
-- and the slowest receiver opens it. The sender runs in its request, woken by a semaphore, since a
-- broadcast from a handler would be a message to oneself there, and one competitor loses those.

local semaphore = require "ngx.semaphore"
local clock = require "clock"
local payload = require "payload"

local WINDOW = 4096
local WINDOW_BYTES = 2097152

local work = {}
local bus
local receiving, sending

local function batch_of(size)
    return math.floor(math.max(4, math.min(WINDOW, WINDOW_BYTES / size)) / 4)
end

local function behind()
    local least = math.huge
    for _, seen in pairs(sending.seen) do
        least = math.min(least, seen)
    end
    return sending.count - least
end

function work.setup(to)
    bus = to
    bus.receive {
        ["cast_reset"] = function(data)
            local sender, content, size = data:match("^(%d+) (%a+) (%d+)$")
            local p = payload(content, tonumber(size))
            receiving = {
                sender = tonumber(sender), check = p.check, batch = batch_of(tonumber(size)),
                count = 0, bad = 0,
            }
            if receiving.sender ~= ngx.worker.pid() then
                bus.send(receiving.sender, "cast_ready", "")
            end
        end,
        ["cast_ready"] = function() sending.ready:post(1) end,
        ["cast"] = function(data)
            local to = receiving
            to.count = to.count + 1
            if not to.check(data, to.count) then
                to.bad = to.bad + 1
            end
            if to.count % to.batch ~= 0 then
                return
            elseif to.sender == ngx.worker.pid() then
                sending.seen[to.sender] = to.count
                sending.bad = sending.bad + to.bad
                sending.wake:post(1)
            else
                bus.send(to.sender, "cast_seen", ngx.worker.pid() .. " " .. to.count .. " " .. to.bad)
            end
        end,
        ["cast_seen"] = function(data)
            local pid, count, bad = data:match("^(%d+) (%d+) (%d+)$")
            sending.seen[tonumber(pid)] = tonumber(count)
            sending.bad = sending.bad + tonumber(bad)
            sending.wake:post(1)
        end,
    }
end

-- Who was full gets it alone, later; where nobody is named, nobody got it.
local function broadcast(data)
    local ok, err, missed = bus.broadcast("cast", data)
    while err == "full" and not missed do
        sending.full = sending.full + 1
        sending.wake:wait(0.001)
        ok, err, missed = bus.broadcast("cast", data)
    end
    if not ok and not missed then
        error("broadcast: " .. tostring(err))
    end
    for _, one in ipairs(missed or {}) do
        repeat
            sending.full = sending.full + 1
            sending.wake:wait(0.001)
            ok, err = bus.send_worker(one.id, "cast", data)
        until ok or err ~= "full"
        if not ok then
            error("send_worker: " .. tostring(err))
        end
    end
end

-- Sends until the window is shut or the batch is the last one. Whether there is more to send.
local function pump()
    local s = sending
    while behind() <= 3 * s.batch do
        if s.count % s.batch == 0 and clock() > s.deadline then
            return false
        end
        repeat
            broadcast(s.make(s.count + 1))
            s.count = s.count + 1
        until s.count % s.batch == 0
    end
    return true
end

-- size, content, seconds -> deliveries and full per second, bad
function work.run(_, args)
    local size, seconds = tonumber(args.size), tonumber(args.seconds)
    local s = {
        make = payload(args.content, size).make,
        batch = batch_of(size),
        count = 0, seen = {}, bad = 0, full = 0,
        ready = semaphore.new(0), wake = semaphore.new(0),
    }
    sending = s
    local others = bus.get_other_worker_pids()
    bus.broadcast("cast_reset", table.concat({ ngx.worker.pid(), args.content, size }, " "))
    for _, pid in ipairs(others) do
        s.seen[pid] = 0
        if not s.ready:wait(5) then
            return { error = "a receiver does not answer" }
        end
    end
    s.seen[ngx.worker.pid()] = 0
    local began = clock()
    s.deadline = began + seconds
    local more = true
    while more or behind() > 0 do
        more = more and pump()
        if (more or behind() > 0) and not s.wake:wait(5) then
            return { error = ("lost: %d sent, %d not seen by some"):format(s.count, behind()) }
        end
    end
    local took = clock() - began
    return {
        rate = s.count * (#others + 1) / took, full = s.full / took,
        bad = s.bad > 0 and s.bad or nil,
    }
end

return work
