-- The bus over lists of ngx.shared: a list per receiver and name, lpush by senders, rpop by the
-- receiver, who has to look. As lean as it gets: a message is the bare data.

local clock = require "clock"

local dict = ngx.shared.bench_bus
-- Apart, since a full zone throws out what is old.
local workers = ngx.shared.bench_counts
-- A busy receiver looks without a pause for this long, then lets its event loop run once.
local SLICE = 0.02
local SENDER = 10       -- digits of the pid before the data of a name that ends in "?"

return function(options)
    local bus = {}
    local mine = ngx.worker.pid()
    local handlers, names = {}, {}
    local keys = {}     -- by pid and name, as making a string costs more than the push

    workers:set("worker:" .. ngx.worker.id(), mine)

    local function key_of(pid, name)
        local of_pid = keys[pid]
        if not of_pid then
            of_pid = {}
            keys[pid] = of_pid
        end
        local key = of_pid[name]
        if not key then
            key = pid .. ":" .. name
            of_pid[name] = key
        end
        return key
    end

    function bus.send(pid, name, data)
        if name:byte(-1) == 63 then
            data = ("%" .. SENDER .. "d"):format(mine) .. data
        end
        local length, err = dict:lpush(key_of(tonumber(pid), name), data)
        if length then
            return true
        end
        return nil, err == "no memory" and "full" or err
    end

    local function pids()
        local list = {}
        for id = 0, ngx.worker.count() - 1 do
            list[#list + 1] = workers:get("worker:" .. id)
        end
        return list
    end

    function bus.get_other_worker_pids()
        local others = {}
        for _, pid in ipairs(pids()) do
            if pid ~= mine then
                others[#others + 1] = pid
            end
        end
        return others
    end

    local all
    function bus.broadcast(name, data)
        all = all or pids()
        for i = 1, #all do
            local ok, err = bus.send(all[i], name, data)
            if not ok then
                return nil, i == 1 and err or "partly " .. err
            end
        end
        return true
    end

    function bus.reply(name, data)
        return bus.send(bus.sender, name, data)
    end

    -- How many it handled.
    local function drain(name, till)
        local key, handler = key_of(mine, name), handlers[name]
        local question = name:byte(-1) == 63
        for i = 1, math.huge do
            local data = dict:rpop(key)
            if not data then
                return i - 1
            end
            if question then
                bus.sender = tonumber(data:sub(1, SENDER))
                data = data:sub(SENDER + 1)
            end
            handler(data)
            if i % 64 == 0 and clock() > till then
                return i
            end
        end
    end

    -- A us or so: who looks again at once keeps the zone locked, and nobody gets to push.
    local function breathe()
        for _ = 1, 25 do
            clock()
        end
    end

    local function look(premature)
        while not premature and not ngx.worker.exiting() do
            local till = clock() + SLICE
            repeat
                local count = 0
                for i = 1, #names do
                    count = count + drain(names[i], till)
                end
                if count == 0 and options.interval == 0 then
                    breathe()
                end
            until options.interval > 0 or clock() > till
            ngx.sleep(0.001)
        end
    end

    function bus.receive(list)
        local first = #names == 0
        for name, handler in pairs(list) do
            names[#names + 1] = name
            handlers[name] = handler
        end
        if first then
            ngx.timer.at(0, look)
        end
        return true
    end

    return bus
end
