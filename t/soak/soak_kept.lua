-- Retained values in a soak: workers set them at random; when it is quiet, what each worker was told
-- must be what the zone holds. Each value says its own length and checksum.

local ipc = require "ngx.ipc"
local book = require "soak_ledger"
local pool = require "soak_pool"

local random, crc32 = math.random, ngx.crc32_long

local NAME, KEYS, LONGEST = "soak.kept", 16, 8192

local told = {}         -- key -> sum of the value that the handler was told last
local untold = {}       -- keys of which somebody could not be told

local function sum_of(key, value)
    return crc32(key .. ":" .. value)
end

local function value_of(key)
    local size = random(0, LONGEST)
    local from = random(#pool - size)
    local body = pool:sub(from, from + size - 1)
    return crc32(key .. body) .. " " .. size .. "\n" .. body
end

local function check(key, value)
    local _, last, crc, size = value:find("^(%d+) (%d+)\n")
    local body = last and value:sub(last + 1)
    if not body or #body ~= tonumber(size) or crc32(key .. body) ~= tonumber(crc) then
        book.alert("the retained value of ", key, ", ", #value, " bytes, is damaged")
    end
end

local function set(key, value)
    local ok, err, missed = ipc.retain(NAME, key, value)
    if not ok and err ~= "no room" and err ~= "busy" then
        book.alert("retain: ", err)
    end
    untold[key] = ok and missed and true or nil
end

local _M = {}

function _M.start()
    ipc.receive(NAME, function(value, key)
        if value then check(key, value) end
        told[key] = value and sum_of(key, value) or nil
    end)
end

function _M.change()
    local key = "key" .. random(KEYS)
    if random(6) == 1 then set(key, nil) else set(key, value_of(key)) end
end

-- Tells everybody again, or that nothing is kept: a handler without memory may not have noted what it was told.
function _M.touch(how)
    for n = 1, KEYS do
        local key = "key" .. n
        local value = ipc.retained(NAME, key)
        if not value and how ~= 2 then
            set(key, value_of(key))     -- the end of nothing is not told
        end
        -- 2: ends them
        set(key, how ~= 2 and value or nil)
    end
end

-- The sums of what is kept and of what was told; false while that cannot be said.
function _M.look(ledger)
    for key in pairs(untold) do
        set(key, (ipc.retained(NAME, key)))
    end
    local list = ipc.retained(NAME)
    if not list then
        return false
    end
    local zone, mine = 0, 0
    for _, one in ipairs(list) do
        check(one.key, one.value)
        zone = zone + sum_of(one.key, one.value)
    end
    for _, sum in pairs(told) do mine = mine + sum end
    ledger.kept, ledger.heard, ledger.values = zone, mine, #list
    return next(untold) == nil
end

return _M
