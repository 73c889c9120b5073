-- One worker sends to another as fast as it may, for a while.
--
-- At most a window of messages is under way; the receiver confirms each quarter of it, and the
-- confirmation's handler sends on. So nobody needs a timer or a sleep to get back to the event loop,
-- and a bus without back-pressure does not hide its backlog in the sender's memory. A sender that is
-- told "full" tries again at the next confirmation, or after 1 ms. The clock stops when the last
-- message is confirmed: what counts is what has arrived and was looked at.

local semaphore = require "ngx.semaphore"
local clock = require "clock"
local payload = require "payload"

local WINDOW = 4096             -- messages
local WINDOW_BYTES = 2097152    -- but no more than this

local work = {}
local bus
local receiving, sending

local function batch_of(size)
    return math.floor(math.max(4, math.min(WINDOW, WINDOW_BYTES / size)) / 4)
end

local function receive_one(data)
    local to = receiving
    local count = to.count + 1
    to.count = count
    if not to.check(data, count) then
        to.bad = to.bad + 1
    end
    if count % to.batch == 0 then
        bus.send(to.sender, "flood_seen", count .. " " .. to.bad)
    end
end

local function finish(error)
    sending.error = sending.error or error
    sending.ended = clock()
    sending.done:post(1)
end

local pump

local function retry(premature)
    sending.retrying = false
    if not premature then
        pump()
    end
end

function pump()
    local s = sending
    if s.ended then
        return
    end
    while s.count - s.seen <= 3 * s.batch do
        if s.count % s.batch == 0 and clock() > s.deadline then
            if s.seen == s.count then
                finish()
            end
            return
        end
        repeat
            local ok, err = bus.send(s.receiver, "flood", s.make(s.count + 1))
            if ok then
                s.count = s.count + 1
            elseif err == "full" then
                s.full = s.full + 1
                if not s.retrying then
                    s.retrying = ngx.timer.at(0.001, retry)
                end
                return
            else
                return finish("send: " .. tostring(err))
            end
        until s.count % s.batch == 0
    end
end

local function confirmed(data)
    local count, bad = data:match("^(%d+) (%d+)$")
    sending.seen = tonumber(count)
    sending.bad = tonumber(bad)
    pump()
end

function work.setup(to)
    bus = to
    bus.receive {
        ["flood_reset"] = function(data)
            local sender, content, size = data:match("^(%d+) (%a+) (%d+)$")
            local p = payload(content, tonumber(size))
            receiving = {
                sender = tonumber(sender), check = p.check, batch = batch_of(tonumber(size)),
                count = 0, bad = 0,
            }
            bus.send(receiving.sender, "flood_ready", "")
        end,
        ["flood_ready"] = function() sending.ready:post(1) end,
        ["flood"] = receive_one,
        ["flood_seen"] = confirmed,
    }
end

-- size, content, seconds -> rate and full per second, bad
function work.run(_, args)
    local size, seconds = tonumber(args.size), tonumber(args.seconds)
    local s = {
        receiver = bus.get_other_worker_pids()[1],
        make = payload(args.content, size).make,
        batch = batch_of(size),
        count = 0, seen = 0, bad = 0, full = 0,
        ready = semaphore.new(0), done = semaphore.new(0),
    }
    sending = s
    bus.send(s.receiver, "flood_reset", table.concat({ ngx.worker.pid(), args.content, size }, " "))
    if not s.ready:wait(5) then
        return { error = "the receiver does not answer" }
    end
    local began = clock()
    s.deadline = began + seconds
    pump()
    if not s.done:wait(seconds + 5) then
        s.ended = clock()
        return { error = ("lost: %d sent, %d seen"):format(s.count, s.seen) }
    end
    local took = s.ended - began
    return {
        rate = s.count / took, full = s.full / took, error = s.error,
        bad = s.bad > 0 and s.bad or nil,
    }
end

return work
