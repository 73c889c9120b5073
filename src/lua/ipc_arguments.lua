-- ngx.ipc.arguments: what the functions of ngx.ipc and ngx.cc take, and what they say of anything
-- else. A wrong type raises, in the name of the caller's caller; a value out of bounds is nil and a reason.

local get_phase = ngx.get_phase
local type, tostring, tonumber, error, math = type, tostring, tonumber, error, math

local NAME_MAX = 254
-- Seconds to wait for a reply, and the least and most that a semaphore waits.
local CALL_TIMEOUT, TIMEOUT_MIN, TIMEOUT_MAX = 5, 0.001, 86400
-- Where waiting is legal.
local MAY_WAIT = {
    rewrite = true, server_rewrite = true, access = true, content = true, timer = true,
    ssl_cert = true, ssl_session_fetch = true, ssl_client_hello = true,
}

local _M = {}

-- Blames the caller of the function that calls this, or of the one `deeper` levels above.
function _M.bad_argument(n, fname, expected, value, deeper)
    error("bad argument #" .. n .. " to '" .. fname .. "' (" .. expected .. " expected, got "
          .. type(value) .. ")", 3 + (deeper or 0))
end

function _M.name_of(value, n, fname)
    if type(value) == "number" then
        value = tostring(value)
    elseif type(value) ~= "string" then
        _M.bad_argument(n, fname, "string", value, 1)
    end
    if #value > NAME_MAX then
        return nil, "alert name length cannot exceed " .. NAME_MAX .. ", was " .. #value
    end
    return value
end

-- Absent is "", an explicit nil is a mistake.
function _M.data_of(given, value, n, fname)
    if type(value) == "string" then
        return value
    elseif type(value) == "number" then
        return tostring(value)
    elseif not given then
        return ""
    end
    _M.bad_argument(n, fname, "string", value, 1)
end

function _M.integer_of(value, n, fname)
    local number = type(value) == "string" and tonumber(value) or value
    if type(number) ~= "number" then
        _M.bad_argument(n, fname, "number", value, 1)
    end
    return number
end

-- What FFI would wrap around is nobody's id.
function _M.is_id(number, max)
    return number >= 0 and number <= max and number % 1 == 0
end

-- Seconds to wait for a reply, or why the caller cannot wait.
function _M.timeout_of(options, n, fname)
    if options ~= nil and type(options) ~= "table" then
        _M.bad_argument(n, fname, "table", options, 1)
    end
    local timeout = options and options.timeout or CALL_TIMEOUT
    if type(timeout) ~= "number" or not (timeout > 0) then
        error("bad timeout to '" .. fname .. "' (a positive number of seconds expected)", 3)
    end
    local phase = get_phase()
    if not MAY_WAIT[phase] then
        return nil, fname .. " cannot wait in the context of " .. phase
    end
    return math.max(TIMEOUT_MIN, math.min(timeout, TIMEOUT_MAX))
end

return _M
