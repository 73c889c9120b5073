-- ngx.cc.balancer: chooses peers, tries and timeouts of the request for upstreams with cc_balancer,
-- from any phase before they connect; afterwards tells how each try went. Inside balancer_by_lua*
-- it asks ngx.balancer.

local ffi = require "ffi"
local base = require "resty.core.base"

local C = ffi.C
local ffi_string = ffi.string
local get_request = base.get_request
local get_phase = ngx.get_phase
local error, type, tonumber, setmetatable = error, type, tonumber, setmetatable
local floor, max = math.floor, math.max

ffi.cdef [[
typedef struct {
    const char *address;
    size_t address_len;
    int state;
    int status;
    int64_t connect;
    int64_t header;
} ngx_cc_balancer_try_t;

int ngx_cc_balancer_add(void *r, int first, const char *host, size_t len, int has_port, int port);
int ngx_cc_balancer_commit(void *r);
int ngx_cc_balancer_more_tries(void *r, unsigned int more);
int ngx_cc_balancer_timeouts(void *r, int connect, int send, int read);
int ngx_cc_balancer_tries(void *r);
int ngx_cc_balancer_try(void *r, size_t index, ngx_cc_balancer_try_t *row);
]]

-- AddressError of proto/upstream/address.rs, then those of modules/upstream/api.rs
local ERRORS = {
    [-1] = "no host",
    [-2] = "no host allowed",
    [-3] = "invalid host",
    [-4] = "invalid IPv6 address",
    [-5] = "invalid port",
    [-6] = "no path in the unix domain socket",
    [-7] = "too long path in the unix domain socket",
    [-8] = "invalid path in the unix domain socket",
    [-20] = "no memory",
    [-21] = "internal error",
}

local DISABLED = "API disabled in the current context"
local CUT = "reduced tries due to limit"
-- proxy_connect_timeout and the like have the same
local TIMEOUT_MAX = 2147483647
local TRIES_MAX = 2147483647

local STATES = { [1] = "ok", [2] = "next", [4] = "failed" }
local BEFORE = {
    set = true, rewrite = true, server_rewrite = true, access = true, content = true, balancer = true,
}
local AFTER = {
    set = true, rewrite = true, server_rewrite = true, access = true, content = true, balancer = true,
    header_filter = true, body_filter = true, log = true,
}

local balancer = {}

-- The request and, inside balancer_by_lua*, the package to ask; nothing where `phases` has not the
-- current one.
local function context(phases)
    local phase = get_phase()
    if not phases[phase] then
        return nil
    end
    return get_request(), phase == "balancer" and require "ngx.balancer" or nil
end

-- The host, whether there is a port beside it, and that; what is no port becomes 0.
local function split(peer, port, n, name)
    if type(peer) == "table" then
        peer, port = peer[1] or peer.host, peer[2] or peer.port
    end
    if type(peer) ~= "string" then
        error("bad argument #" .. n .. " to '" .. name .. "' (string expected, got "
              .. (peer == nil and "no value" or type(peer)) .. ")", 3)
    elseif port == nil then
        return peer, 0, 0
    end
    port = tonumber(port)
    if port == nil or port ~= floor(port) or port < 1 or port > 65535 then
        port = 0
    end
    return peer, 1, port
end

local function checked(code)
    if code < 0 then
        return nil, ERRORS[code]
    end
    return true
end

-- The request goes to this peer, "1.2.3.4" and a port, "1.2.3.4:80", "[::1]:80" or "unix:/path".
function balancer.set_current_peer(host, port)
    local host, has_port, port = split(host, port, 1, "set_current_peer")
    local r, inside = context(BEFORE)
    if not r then
        return nil, DISABLED
    end
    local code = C.ngx_cc_balancer_add(r, 1, host, #host, has_port, port)
    if code < 0 then
        return nil, ERRORS[code]
    elseif inside then
        return inside.set_current_peer(host, has_port == 1 and port or nil)
    end
    return checked(C.ngx_cc_balancer_commit(r))
end

-- How often balancer_by_lua* has come to its list, per request.
local rounds = setmetatable({}, { __mode = "k" })

-- The request goes to these peers, in turn and from the first again when there are more tries: each
-- "1.2.3.4:80" or { "1.2.3.4", 80 }.
function balancer.set_peers(peers)
    if type(peers) ~= "table" then
        error("bad argument #1 to 'set_peers' (table expected, got "
              .. (peers == nil and "no value" or type(peers)) .. ")", 2)
    end
    local r, inside = context(BEFORE)
    if not r then
        return nil, DISABLED
    elseif #peers == 0 then
        return nil, "no host"
    end
    for i = 1, #peers do
        local host, has_port, port = split(peers[i], nil, 1, "set_peers")
        local code = C.ngx_cc_balancer_add(r, i == 1 and 1 or 0, host, #host, has_port, port)
        if code < 0 then
            return nil, ERRORS[code], i
        end
    end
    if not inside then
        return checked(C.ngx_cc_balancer_commit(r))
    end
    local ctx = ngx.ctx
    local round = rounds[ctx] or 0
    rounds[ctx] = round + 1
    local host, has_port, port = split(peers[round % #peers + 1], nil, 1, "set_peers")
    return inside.set_current_peer(host, has_port == 1 and port or nil)
end

-- So many more tries than there would be. True, and a warning where there cannot be so many.
function balancer.set_more_tries(count)
    if type(count) ~= "number" then
        error("bad argument #1 to 'set_more_tries' (number expected, got "
              .. (count == nil and "no value" or type(count)) .. ")", 2)
    elseif not (count >= 0 and count <= TRIES_MAX) or count ~= floor(count) then
        return nil, "invalid number of tries"
    end
    local r, inside = context(BEFORE)
    if not r then
        return nil, DISABLED
    elseif inside then
        return inside.set_more_tries(count)
    end
    local code = C.ngx_cc_balancer_more_tries(r, count)
    if code == 1 then
        return true, CUT
    end
    return checked(code)
end

-- Seconds to whole milliseconds; -1 where there is no timeout, nothing where it is none.
local function milliseconds(timeout)
    if timeout == nil then
        return -1
    elseif type(timeout) ~= "number" or not (timeout > 0) then
        return nil
    end
    -- what is asked for is never taken for none
    timeout = max(floor(timeout * 1000 + 0.5), 1)
    return timeout <= TIMEOUT_MAX and timeout or nil
end

-- Seconds to connect, send and read for this request only; each nil keeps the location's.
function balancer.set_timeouts(connect, send, read)
    local connect_ms = milliseconds(connect) or error("bad connect timeout", 2)
    local send_ms = milliseconds(send) or error("bad send timeout", 2)
    local read_ms = milliseconds(read) or error("bad read timeout", 2)
    local r, inside = context(BEFORE)
    if not r then
        return nil, DISABLED
    elseif inside then
        return inside.set_timeouts(connect, send, read)
    end
    return checked(C.ngx_cc_balancer_timeouts(r, connect_ms, send_ms, read_ms))
end

local row = ffi.new "ngx_cc_balancer_try_t"

local function seconds(ms)
    ms = tonumber(ms)
    return ms >= 0 and ms / 1000 or nil
end

-- All tries so far: { address =, state =, status =, connect_time =, header_time = }, ...
function balancer.tries()
    local r = context(AFTER)
    if not r then
        return nil, DISABLED
    end
    local count = C.ngx_cc_balancer_tries(r)
    if count < 0 then
        return nil, ERRORS[count]
    end
    local tries = {}
    for i = 1, count do
        if C.ngx_cc_balancer_try(r, i - 1, row) ~= 1 then
            break
        end
        tries[i] = {
            address = ffi_string(row.address, row.address_len),
            state = STATES[row.state],
            status = row.status > 0 and row.status or nil,
            connect_time = seconds(row.connect),
            header_time = seconds(row.header),
        }
    end
    return tries
end

-- State and status of the last try that did not go well: "next" or "failed", and a number; nil
-- where none did.
function balancer.get_last_failure()
    local r, inside = context(AFTER)
    if not r then
        return nil, nil, DISABLED
    elseif inside then
        return inside.get_last_failure()
    end
    local tries = balancer.tries() or {}
    for i = #tries, 1, -1 do
        local try = tries[i]
        if try.state == "next" or try.state == "failed" then
            return try.state, try.status
        end
    end
    return nil
end

return balancer
