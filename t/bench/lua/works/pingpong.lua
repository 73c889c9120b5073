-- One message there and back, one in flight, each new and checked at both ends. Percentiles are of
-- a histogram, as keeping all samples would exercise the collector.

local semaphore = require "ngx.semaphore"
local clock = require "clock"
local payload = require "payload"

local WIDTH = 0.05e-6   -- seconds a bucket
local BUCKETS = 200000  -- to 10 ms; the last one takes the rest

local work = {}
local bus
local there, here

local function percentile(histogram, count, share)
    local left = count * share
    for i = 0, BUCKETS - 1 do
        left = left - (histogram[i] or 0)
        if left <= 0 then
            return (i + 0.5) * WIDTH * 1e6
        end
    end
end

local function throw()
    here.count = here.count + 1
    here.thrown = clock()
    local ok, err = bus.send(here.peer, "ping", here.payload.make(here.count))
    if not ok then
        here.error = "send: " .. tostring(err)
        here.done:post(1)
    end
end

local function catch(data)
    local now = clock()
    local bucket = math.min(math.floor((now - here.thrown) / WIDTH), BUCKETS - 1)
    here.histogram[bucket] = (here.histogram[bucket] or 0) + 1
    if not here.payload.check(data, here.count) then
        here.bad = here.bad + 1
    end
    if now > here.deadline then
        here.ended = now
        here.done:post(1)
        return
    end
    throw()
end

function work.setup(to)
    bus = to
    bus.receive {
        ["ping_reset"] = function(data)
            local sender, size = data:match("^(%d+) (%d+)$")
            there = { peer = tonumber(sender), payload = payload("unique", tonumber(size)), count = 0, bad = 0 }
            bus.send(there.peer, "pong_ready", "")
        end,
        ["pong_ready"] = function() here.ready:post(1) end,
        ["ping"] = function(data)
            there.count = there.count + 1
            -- what does not fit is sent back as something that does not fit either
            local fits = there.payload.check(data, there.count)
            bus.send(there.peer, "pong", fits and data or "bad")
        end,
        ["pong"] = catch,
    }
end

-- size, seconds -> p50, p99, p999 in us, and round trips per second
function work.run(_, args)
    local size, seconds = tonumber(args.size), tonumber(args.seconds)
    here = {
        peer = bus.get_other_worker_pids()[1],
        payload = payload("unique", size),
        histogram = {}, count = 0, bad = 0,
        ready = semaphore.new(0), done = semaphore.new(0),
    }
    bus.send(here.peer, "ping_reset", ngx.worker.pid() .. " " .. size)
    if not here.ready:wait(5) then
        return { error = "the peer does not answer" }
    end
    local began = clock()
    here.deadline = began + seconds
    throw()
    if not here.done:wait(seconds + 5) then
        return { error = ("lost: number %d"):format(here.count) }
    end
    return {
        error = here.error,
        bad = here.bad > 0 and here.bad or nil,
        rate = here.ended and here.count / (here.ended - began),
        p50 = percentile(here.histogram, here.count, 0.5),
        p99 = percentile(here.histogram, here.count, 0.99),
        p999 = percentile(here.histogram, here.count, 0.999),
    }
end

return work
