-- The benchmark of ngx_lua_ipc, from its dev/nginx.conf: one worker broadcasts a ping; every other
-- worker replies a pong with the same data; each pong is answered with a ping to its sender, until
-- there were `enough` pongs (its million is 50000 here). So one message is in flight for each of the
-- other workers. Alerts are all pings and pongs; the clock runs from the broadcast to the last
-- counted pong.
--
-- Added: the data is compared at both ends, pings and pongs of each pair are counted at both ends
-- and must agree in the end, and after `cap` seconds a slow one is cut short and judged by what it
-- did until then.

local semaphore = require "ngx.semaphore"
local clock = require "clock"
local payload = require "payload"

local work = {}
local bus
local pinged = {}       -- by origin's pid: pings seen here and how many were not as expected
local origin

local texts = {}
local function expected(size)
    texts[size] = texts[size] or payload("constant", size).make()
    return texts[size]
end

local function ping(data)
    local from = bus.sender
    if from == ngx.worker.pid() then
        return
    end
    local of = pinged[from]
    if not of then
        of = { count = 0, bad = 0 }
        pinged[from] = of
    end
    of.count = of.count + 1
    if data ~= expected(#data) then
        of.bad = of.bad + 1
    end
    local ok, err = bus.reply("round_pong?", data)
    if not ok then
        -- one message is under way, so this is no matter of room
        error("round_pong was refused: " .. tostring(err))
    end
end

local function pong(data)
    local o = origin
    local of = o.peers[bus.sender]
    of.pongs = of.pongs + 1
    if data ~= o.data then
        o.bad = o.bad + 1
    end
    if o.ended then
        o.idle = o.idle + 1
        if o.idle == o.width then
            o.done:post(1)
        end
        return
    end
    o.count = o.count + 1
    if o.count == o.enough or o.count % 64 == 0 and clock() > o.deadline then
        o.ended = clock()
        o.idle = 1
        if o.width == 1 then
            o.done:post(1)
        end
        return
    end
    of.pings = of.pings + 1
    local ok, err = bus.reply("round_ping?", data)
    if not ok then
        o.error = "reply: " .. tostring(err)
    end
end

function work.setup(to)
    bus = to
    bus.receive {
        ["round_ping?"] = ping,
        ["round_pong?"] = pong,
        ["round_sum?"] = function()
            local of = pinged[bus.sender] or { count = 0, bad = 0 }
            bus.reply("round_total?", of.count .. " " .. of.bad)
            pinged[bus.sender] = nil
        end,
        ["round_total?"] = function(data)
            local count, bad = data:match("^(%d+) (%d+)$")
            local of = origin.peers[bus.sender]
            if tonumber(count) ~= of.pings or of.pongs ~= of.pings then
                origin.error = ("lost: %d pings sent, %s seen, %d pongs"):format(of.pings, count, of.pongs)
            end
            origin.bad = origin.bad + tonumber(bad)
            origin.summed:post(1)
        end,
    }
end

-- size, enough, cap -> alerts per second; cut is set when `cap` seconds were not enough
function work.run(_, args)
    local cap = tonumber(args.cap)
    local o = {
        data = expected(tonumber(args.size)), enough = tonumber(args.enough),
        peers = {}, width = 0, count = 0, bad = 0,
        done = semaphore.new(0), summed = semaphore.new(0),
    }
    origin = o
    for _, pid in ipairs(bus.get_other_worker_pids()) do
        o.peers[pid] = { pings = 1, pongs = 0 }
        o.width = o.width + 1
    end
    local began = clock()
    o.deadline = began + cap
    local ok, err = bus.broadcast("round_ping?", o.data)
    if not ok then
        return { error = "broadcast: " .. tostring(err) }
    end
    if not o.done:wait(cap + 5) then
        return { error = o.error or ("lost: stuck after %d pongs"):format(o.count) }
    end
    for pid in pairs(o.peers) do
        bus.send(pid, "round_sum?", "")
    end
    for _ in pairs(o.peers) do
        if not o.summed:wait(5) then
            return { error = "lost: a worker does not tell its count" }
        end
    end
    return {
        rate = 2 * o.count / (o.ended - began),
        cut = o.count < o.enough and 1 or nil,
        bad = o.bad > 0 and o.bad or nil,
        error = o.error,
    }
end

return work
