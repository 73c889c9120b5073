-- What is sent, and how the other end checks it.
--
-- constant: one string for all messages, as a benchmark likes it; interned, so comparing is free.
-- unique: a new Lua string for each, with its number stamped at the head, each 4 KB and at the end.
-- That finds a message lost, twice, out of order, cut or mixed with another, for a few ns a stamp.

local ffi = require "ffi"

local cast, ffi_string = ffi.cast, ffi.string
local STAMP = 8         -- bytes: a double, which Lua reads without making an object of it
local APART = 4096
-- A message holds fewer stamps than this, so number * STAMPS + position is no other stamp.
local STAMPS = 4096

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
            for i = 1, count do
                cast("double *", buffer + at[i])[0] = number * STAMPS + i
            end
            return ffi_string(buffer, size)
        end,
        check = function(data, number)
            if #data ~= size then
                return false
            end
            local head = cast("const char *", data)
            for i = 1, count do
                if cast("const double *", head + at[i])[0] ~= number * STAMPS + i then
                    return false
                end
            end
            return true
        end,
        number = function(data)
            return #data < STAMP and 0 or (cast("const double *", cast("const char *", data))[0] - 1) / STAMPS
        end,
    }
end

-- make(number) is message `number`; check(data, number) whether data is it; number(data), of unique
-- ones only, which one it says it is.
return function(content, size)
    return (content == "unique" and unique or constant)(size)
end
