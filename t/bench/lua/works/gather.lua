-- A request is answered when all workers have said something: a broadcast with the request's number,
-- one answer from each, a semaphore. A worker answers itself without a message, for every bus.

local semaphore = require "ngx.semaphore"

local work = {}
local bus
local waiting, number = {}, 0

local function answered(id, pid)
    local request = waiting[id]
    if not request or request.from[pid] then
        return
    end
    request.from[pid] = true
    request.left = request.left - 1
    if request.left == 0 then
        request.done:post(1)
    end
end

function work.setup(to)
    bus = to
    bus.receive {
        ["gather?"] = function(data)
            if bus.sender == ngx.worker.pid() then
                return answered(tonumber(data), bus.sender)
            end
            bus.reply("gathered?", data)
        end,
        ["gathered?"] = function(data)
            answered(tonumber(data), bus.sender)
        end,
    }
end

function work.run()
    number = number + 1
    local id = number
    local request = { left = ngx.worker.count(), from = {}, done = semaphore.new(0) }
    waiting[id] = request
    local ok = bus.broadcast("gather?", tostring(id)) and request.done:wait(2)
    waiting[id] = nil
    if not ok then
        ngx.status = 500
    end
    return {}
end

return work
