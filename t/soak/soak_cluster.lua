-- The cluster's part of a worker in a soak: actions that others call by the rings and by HTTP, calls
-- of them, and the lives of workers as the node has counted them.

local cc = require "ngx.cc"
local lifecycle = require "ngx.cc.lifecycle"
local ngx_cc = require "ngx_cc"
local balancer = require "ngx.cc.balancer"
local book = require "soak_ledger"

local random, format, crc32 = math.random, string.format, ngx.crc32_long

local CHANNEL = "soak"
local DIRECTIONS = { master = true, workers = true, clients = true, super = true }

local _M = {}
local route

-- What every action answers: who it is, and what it was asked.
local function reply(n, body)
    return format("%s %d %d %d", n or "-", ngx.worker.id(), #body, crc32(body))
end

local function wanted(n, body, answer)
    local said, _, size, crc = answer:match("^(%S+) (%d+) (%d+) (%d+)$")
    return said == n and tonumber(size) == #body and tonumber(crc) == crc32(body)
end

local function body_of_request()
    ngx.req.read_body()
    local body, file = ngx.req.get_body_data(), ngx.req.get_body_file()
    if file then
        local from = assert(io.open(file, "rb"))
        body = from:read("*a")
        from:close()
    end
    return body or ""
end

function _M.start()
    route = ngx_cc:new(CHANNEL)
    -- by HTTP
    function route.invoke.echo(_, _, args)
        ngx.print(reply(args.n, body_of_request()))
    end
    -- by the rings
    cc.action(CHANNEL, "ring", function(args, body)
        book.ledger.acted = book.ledger.acted + 1
        if random(10) == 1 then ngx.sleep(random(1, 5) / 1000) end
        return 200, reply(args.n, body)
    end)
end

local number = 0

-- Calls the function action in one worker, or in "all".
function _M.call(whom, body)
    number = number + 1
    local n = ngx.worker.pid() .. "." .. number
    local status, answer = cc.call(whom, CHANNEL, "ring", { n = n }, body, { timeout = 2 })
    local list = whom == "all" and status or { { status = status, body = answer } }
    for _, one in ipairs(list or {}) do
        if one.status and (one.status ~= 200 or not wanted(n, body, one.body)) then
            book.alert("an action answered ", one.status, ", ", tostring(one.body):sub(1, 100))
        end
    end
end

-- What the node has counted of its workers.
function _M.look(ledger)
    local counters = lifecycle.counters()
    if counters then
        ledger.starts = counters.worker_starts.count
        ledger.exits = counters.worker_exits.count
        ledger.crashes = counters.crashes.count
    end
end

-- route.cc as a request asks for: answers who answered, and how many did not.
function _M.cc()
    local direction, n = ngx.var.arg_direction, ngx.var.arg_n
    if not DIRECTIONS[direction] then return ngx.exit(400) end
    local body = body_of_request()
    local ok, answers = route.cc("/_/invoke?echo&n=" .. n, { direction = direction, method = "POST", body = body })
    local good = 0
    for _, one in ipairs(answers) do
        if one.status == 200 then
            good = good + 1
            if not wanted(n, body, one.body) then
                book.alert("route.cc ", direction, ": ", one.body:sub(1, 100), " is not the answer to ", n)
            end
        end
    end
    if ok ~= (good == #answers) then
        book.alert("route.cc ", direction, ": ", tostring(ok), " with ", good, " good answers of ", #answers)
    end
    ngx.say(tostring(ok), " ", #answers, " ", good)
end

-- This node moves to another super.
function _M.move()
    local ok, answers = route.transfer(ngx.var.arg_to)
    ngx.status = ok and 200 or 409
    ngx.say(ok and "moved" or answers[1] and answers[1].body or "no answer")
end

-- access_by_lua: a peer that refuses, then one that does not.
function _M.choose()
    assert(balancer.set_peers { "127.0.0.1:" .. ngx.var.arg_refused, "127.0.0.1:" .. ngx.var.arg_port })
    assert(balancer.set_timeouts(0.5, 1, 1))
end

return _M
