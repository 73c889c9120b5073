-- Worker 0 of each generation sends to worker 1 of the same generation, a batch each millisecond, from
-- its first moment until it is refused; told to leave, it goes on a little, as one with a request
-- under way does. Reloads come from outside. What was accepted and what arrived is counted in a zone
-- that survives them.

local clock = require "clock"
local payload = require "payload"

local counts = ngx.shared.bench_counts
local SIZE = 1024
local BATCH = 50
local LINGER = 0.3      -- seconds

local work = {}
local bus
local p = payload("unique", SIZE)

local function send_batch(to)
    for _ = 1, BATCH do
        local number = to.number + 1
        local ok, err = bus.send(to.pid, "reload", p.make(number))
        if not ok then
            counts:incr(err == "full" and "full" or "refused", 1, 0)
            return err == "full"
        end
        to.number = number
        counts:incr("accepted", 1, 0)
    end
    return true
end

local function run(_, pid_key)
    local to = { number = 0 }
    local till
    while not counts:get("stop") and not (till and clock() > till) do
        till = till or ngx.worker.exiting() and clock() + LINGER
        to.pid = to.pid or counts:get(pid_key)
        if to.pid and not send_batch(to) then
            return
        end
        ngx.sleep(0.001)
    end
end

function work.setup(with)
    bus = with
    local pid_key = "receiver:" .. counts:get("generation")
    local last = 0
    bus.receive {
        ["reload"] = function(data)
            -- a gap is a loss and shows in the sums; going back or being torn is worse
            local this = p.number(data)
            if this <= last or not p.check(data, this) then
                counts:incr("bad", 1, 0)
            end
            last = this
            counts:incr("received", 1, 0)
        end,
    }
    if ngx.worker.id() == 1 then
        counts:set(pid_key, ngx.worker.pid())
    elseif ngx.worker.id() == 0 then
        ngx.timer.at(0, run, pid_key)
    end
end

function work.run(_, args)
    if args.stop then
        counts:set("stop", true)
    end
    local result = {}
    for _, key in ipairs { "accepted", "received", "refused", "full", "bad" } do
        result[key] = counts:get(key) or 0
    end
    -- who counts what it loses
    result.told = bus.stats and bus.stats().lost
    return result
end

return work
