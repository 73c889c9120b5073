-- What every conf of the benchmark calls: setup() in each worker, run() for each request. A bus and
-- a work know nothing of each other, so all competitors run the same code.

local bench = {}

local bus, work

-- bus_name: a file of bus/; options are the bus's own. work_name: a file of works/.
function bench.setup(bus_name, options, work_name)
    bus = require("bus." .. bus_name)(options)
    work = require("works." .. work_name)
    work.setup(bus)
end

-- The request's arguments are the case to run; the answer is `key value` lines, of which `error`
-- says that the round does not count.
function bench.run()
    local ok, result = pcall(work.run, bus, ngx.req.get_uri_args())
    if not ok then
        -- without the path before the message
        result = { error = (tostring(result):gsub("\n.*", ""):gsub("^%S*/", "")) }
    end
    for key, value in pairs(result) do
        if type(value) == "number" then
            value = ("%.6f"):format(value)
        end
        ngx.say(key, " ", value)
    end
end

return bench
