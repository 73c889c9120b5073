-- The receiver is stopped from outside: what does the sender make of it, and of its memory? Offers
-- `megabytes` in messages of `size`, a megabyte each millisecond at most.

local payload = require "payload"

local counts = ngx.shared.bench_counts

local work = {}
local bus
local check, number

function work.setup(to)
    bus = to
    number = 0
    bus.receive {
        ["stopped"] = function(data)
            number = number + 1
            check = check or payload("unique", #data).check
            counts:incr("received", 1, 0)
            if not check(data, number) then
                counts:incr("bad", 1, 0)
            end
        end,
    }
end

-- size, megabytes -> megabytes accepted and refused; counts -> what arrived, and who answers
function work.run(_, args)
    if args.counts then
        return {
            received = counts:get("received") or 0, bad = counts:get("bad") or 0,
            pid = tostring(ngx.worker.pid()),
        }
    end
    local size = tonumber(args.size)
    local receiver = bus.get_other_worker_pids()[1]
    local make = payload("unique", size).make
    local accepted, refused, failure = 0, 0, nil
    for _ = 1, tonumber(args.megabytes) do
        for _ = 1, 1048576 / size do
            local ok, err = bus.send(receiver, "stopped", make(accepted + 1))
            if ok then
                accepted = accepted + 1
            else
                refused = refused + 1
                failure = err
            end
        end
        ngx.sleep(0.001)
    end
    return { accepted = accepted, refused = refused, said = failure }
end

return work
