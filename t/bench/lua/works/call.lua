-- A call whose handler's return value is the reply, from one light thread or several at once.

local clock = require "clock"
local payload = require "payload"

local work = {}
local bus

function work.setup(to)
    bus = to
    if bus.call then
        bus.receive { ["echo"] = function(data) return data end }
    end
end

-- size, threads, seconds -> calls per second, p50 and p99 in us
function work.run(_, args)
    if not bus.call then
        return { absent = 1 }
    end
    local size, seconds = tonumber(args.size), tonumber(args.seconds)
    local peer = 1 - ngx.worker.id()
    local began = clock()
    local times, bad, failure = {}, 0, nil

    local function caller(thread)
        local p = payload("unique", size)
        local i = thread * 1e6
        while not failure and clock() < began + seconds do
            i = i + 1
            local start = clock()
            local reply, err = bus.call(peer, "echo", p.make(i), { timeout = 2 })
            if not reply then
                failure = "call: " .. tostring(err)
            elseif not p.check(reply, i) then
                bad = bad + 1
            end
            times[#times + 1] = clock() - start
        end
    end

    local threads = {}
    for t = 1, tonumber(args.threads) do
        threads[t] = ngx.thread.spawn(caller, t)
    end
    for _, thread in ipairs(threads) do
        ngx.thread.wait(thread)
    end
    local took = clock() - began
    table.sort(times)
    local function percentile(share)
        return times[math.max(1, math.floor(#times * share))] * 1e6
    end
    return {
        rate = #times / took, p50 = percentile(0.5), p99 = percentile(0.99),
        bad = bad > 0 and bad or nil, error = failure,
    }
end

return work
