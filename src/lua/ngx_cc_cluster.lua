-- ngx_cc.cluster: this worker, the router, this node and its super, as tables that show what is so
-- at the moment they are read.

local ffi = require "ffi"
local calls = require "ngx_cc.calls"

local C = ffi.C
local ffi_string = ffi.string
local ngx = ngx
local get_master_pid = require("ngx.process").get_master_pid
local type, tostring, error, ipairs, pairs, select = type, tostring, error, ipairs, pairs, select
local setmetatable, rawget = setmetatable, rawget

ffi.cdef [[
typedef struct { ngx_cc_text_t node, super; int router, router_port, worker, port; } ngx_cc_facts_t;
int ngx_cc_cluster_facts(const char *channel, size_t len, ngx_cc_facts_t *facts);
int ngx_cc_cluster_channel(const char *name, size_t len);
int ngx_cc_cluster_supers(const char *channel, size_t len, const char *supers, size_t supers_len);
int ngx_cc_cluster_node(const char *address, size_t len);
int ngx_cc_cluster_is_configured(const char *channel, size_t len);
]]

-- Where a channel's super is, as long as nobody says another.
local SUPER_HOST, DEFAULT_PORT = "127.0.0.1", "80"

local _M = {}

local facts = ffi.new "ngx_cc_facts_t"

local function facts_of(channel)
    C.ngx_cc_cluster_facts(channel, #channel, facts)
    return facts
end

-- "HOST:PORT" in its parts.
local function split(address)
    return address:match "^(.*):(%d+)$"
end

local function port_of(port)
    return port >= 0 and tostring(port) or nil
end

-- A table whose fields are looked up; what is assigned stays.
local function view(fields)
    return setmetatable({}, {
        __index = function(_, key)
            local field = fields[key]
            if field then
                return field()
            end
        end,
    })
end

local function master(channel)
    return view {
        host = function()
            return (split(ffi_string(facts_of(channel).node.data, facts.node.len)))
        end,
        port = function()
            return (select(2, split(ffi_string(facts_of(channel).node.data, facts.node.len))))
        end,
        pid = function()
            return tostring(get_master_pid())
        end,
    }
end

local function worker(channel)
    return view {
        host = function()
            return "127.0.0.1"
        end,
        port = function()
            return port_of(facts_of(channel).port)
        end,
        pid = function()
            return tostring(ngx.worker.pid())
        end,
    }
end

local function router(channel)
    return view {
        host = function()
            return "127.0.0.1"
        end,
        port = function()
            return port_of(facts_of(channel).router_port)
        end,
        id = function()
            local id = facts_of(channel).router
            return id >= 0 and id or nil
        end,
    }
end

local function super(channel)
    local function part(n)
        return function()
            facts_of(channel)
            if facts.super.len > 0 then
                return (select(n, split(ffi_string(facts.super.data, facts.super.len))))
            end
        end
    end
    return view { host = part(1), port = part(2) }
end

-- What all channels share: the super that they have where none is given, and the dictionary.
function _M.node()
    return {
        super = { host = SUPER_HOST, port = DEFAULT_PORT },
        master = master "",
        worker = worker "",
        router = router "",
        dict = "ngxcc_dict",
        report_clients = false,
    }
end

-- A channel's own view.
function _M.channel(channel)
    return setmetatable({
        super = super(channel),
        master = master(channel),
        worker = worker(channel),
        router = router(channel),
    }, {
        __index = function(_, key)
            if key == "worker_initiated" then
                return facts_of(channel).router >= 0
            end
        end,
    })
end

-- "HOST:PORT" in numbers.
local function address_of(host, port)
    host = host == "localhost" and "127.0.0.1" or tostring(host)
    return host .. ":" .. tostring(port or DEFAULT_PORT)
end

-- Makes a channel known to this worker, with the super of `node`, where that is not just the default
-- and the configuration says another, or that there is none; `given` may say where this node's
-- hub is. false and the reason where something is no name or no address.
function _M.open(channel, node, given)
    if given.port then
        local address = address_of(given.host or SUPER_HOST, given.port)
        if C.ngx_cc_cluster_node(address, #address) ~= 1 then
            return false, "bad host or port \"" .. address .. "\""
        end
    end
    if C.ngx_cc_cluster_channel(channel, #channel) ~= 1 then
        return false, "bad channel name \"" .. channel .. "\""
    end
    local super = node.super
    if super and super.host then
        local address = address_of(super.host, super.port)
        local is_default = address == SUPER_HOST .. ":" .. DEFAULT_PORT
        if is_default and C.ngx_cc_cluster_is_configured(channel, #channel) == 1 then
            return true
        elseif C.ngx_cc_cluster_supers(channel, #channel, address, #address) ~= 1 then
            return false, "bad super \"" .. address .. "\""
        end
    end
    return true
end

function _M.is_router()
    facts_of ""
    return facts.router >= 0 and facts.router == facts.worker
end

-- Whether that is this worker's own port.
function _M.is_own_port(port)
    return tostring(facts_of("").port) == tostring(port)
end

local function transfer_request(channel, address)
    return {
        method = "POST",
        target = "/" .. channel .. "/hub?transferServer=" .. ngx.escape_uri(address),
        body = "",
        own = true,
    }
end

-- Moves this node to another super; true, or false and the answers.
function _M.transfer(channel, address)
    if type(address) ~= "string" then
        error("bad super (string expected, got " .. type(address) .. ")", 3)
    end
    local responses = calls.perform(channel, "master", transfer_request(channel, address))
    local first = responses[1]
    return first ~= nil and first.status == 200, responses
end

-- "a,b,c" as a set; nil for "*".
local function set_of(list, what)
    if list == "*" then
        return nil
    elseif type(list) ~= "string" then
        error("bad " .. what .. " (string expected, got " .. type(list) .. ")", 4)
    end
    local set = {}
    for word in list:gmatch "[^,%s]+" do
        set[word] = true
    end
    return set
end

-- Whether `names` has that node: by its address, or by its host, which means any port.
local function is_named(names, address)
    return names[address] or names[(split(address))]
end

function _M.transfer_clients(address, channels, clients, all)
    if type(address) ~= "string" then
        error("bad super (string expected, got " .. type(address) .. ")", 3)
    end
    local wanted, names = set_of(channels, "channels"), set_of(clients, "clients")
    for channel in pairs(wanted or {}) do
        if not rawget(all, channel) then
            error("no channel \"" .. channel .. "\"", 3)
        end
    end
    local good, responses = true, {}
    for channel in pairs(wanted or all) do
        local addresses = {}
        for _, client in ipairs(calls.clients(channel)) do
            if not names or is_named(names, client) then
                addresses[#addresses + 1] = client
            end
        end
        for i, response in ipairs(calls.nodes(channel, addresses, transfer_request(channel, address))) do
            response.client, response.channel = addresses[i], channel
            good = good and response.status == 200
            responses[#responses + 1] = response
        end
    end
    return good, responses
end

return _M
