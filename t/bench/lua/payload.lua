-- What is sent, and how the other end checks it.
--
-- constant: one string for all messages, as a benchmark likes it; interned, so comparing is free.
-- unique: a new Lua string for each, with its number stamped at the head, each 4 KB and at the end.
-- That finds a message lost, twice, out of order, cut or mixed with another, for a few ns a stamp.

local ffi = require "ffi"

local cast, ffi_string = ffi.cast, ffi.string
-- Two words, which Lua reads without making an object of them: the number, and what is like no other
-- number's or position's. LuaJIT hashes a few bytes of a long string only, its first and last ones
-- among them; were these alike, interning would cost more than all else.
local STAMP = 8
local APART = 4096
local SPREAD, NUMBERS = 251, 2^24

local function offsets(size)
    local list = {}
    for at = 0, size - 2 * STAMP, APART do
        list[#list + 1] = at
    end
    list[#list + 1] = size - STAMP
    if size < 2 * STAMP then
        list = { 0 }
    end
    return list
end

local function constant(size)
    local text = ("c"):rep(size)
    return {
        make = function() return text end,
        check = function(data) return data == text end,
    }
end

local function unique(size)
    local buffer = ffi.new("char[?]", size, ("u"):byte())
    ffi.fill(buffer, size, ("u"):byte())
    local at = offsets(size)
    local count = #at
    return {
        make = function(number)
            local mixed = number % NUMBERS * SPREAD
            for i = 1, count do
                local stamp = cast("uint32_t *", buffer + at[i])
                stamp[0] = number
                stamp[1] = mixed + i
            end
            return ffi_string(buffer, size)
        end,
        check = function(data, number)
            if #data ~= size then
                return false
            end
            local head = cast("const char *", data)
            local mixed = number % NUMBERS * SPREAD
            for i = 1, count do
                local stamp = cast("const uint32_t *", head + at[i])
                if stamp[0] ~= number or stamp[1] ~= mixed + i then
                    return false
                end
            end
            return true
        end,
        number = function(data)
            return #data < STAMP and 0 or cast("const uint32_t *", cast("const char *", data))[0]
        end,
    }
end

-- make(number) is message `number`; check(data, number) whether data is it; number(data), of unique
-- ones only, which one it says it is.
return function(content, size)
    return (content == "unique" and unique or constant)(size)
end
