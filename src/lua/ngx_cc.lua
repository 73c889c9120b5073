-- ngx_cc: channels, and calls to the workers of this node and to the nodes around it. The functions
-- that aimingoo's ngx_cc has, by its document; the calls themselves are made by ngx_cc.calls.

local actions = require "ngx_cc.actions"
local calls = require "ngx_cc.calls"
local cluster_of = require "ngx_cc.cluster"
local options = require "ngx_cc.options"
local tasks = require "ngx_cc.tasks"

local type, tostring, error, ipairs, unpack = type, tostring, error, ipairs, unpack
local rawget, setmetatable = rawget, setmetatable
local ngx = ngx
local get_phase = ngx.get_phase

local DIRECTIONS = { master = true, workers = true, clients = true, super = true }
-- What a route does not take from ngx_cc.
local NOT_INHERITED = { channels = true, invokes = true, new = true }

local _M = {
    channels = {},
    cluster = cluster_of.node(),
    optionAgain = options.again,
}
_M.tasks = tasks.new(_M.cluster.dict)

local function is_success(status)
    return status >= 200 and status < 300
end

-- Whether all were answered with 2xx, and the answers.
local function judged(responses)
    for _, response in ipairs(responses) do
        if not is_success(response.status) then
            return false, responses
        end
    end
    return true, responses
end

-- What is sent, from the options of a call.
local function request_of(uri, opt, headers_default)
    local method = options.method_of(opt)
    return {
        method = method,
        target = options.target_of(uri, opt),
        body = options.body_of(opt, method),
        forwards_headers = options.forwards_headers(opt, headers_default),
        headers = opt.headers,
    }
end

local function options_of(opt)
    if opt == nil then
        return options.again()
    elseif type(opt) == "string" then
        return { direction = opt }
    elseif type(opt) ~= "table" then
        error("bad options (table or string expected, got " .. type(opt) .. ")", 3)
    end
    return opt
end

local function cc(route, channel, url, opt)
    opt = options_of(opt)
    local direction = opt.direction or "master"
    if not DIRECTIONS[direction] then
        error("bad direction \"" .. tostring(direction) .. "\"", 2)
    end
    local uri = options.uri_of(channel, url)
    if direction == "super" and route.isRoot() then
        return true, {}
    end
    local request = request_of(uri, opt, direction == "super" and "OFF" or nil)
    return judged(calls.perform(channel, direction, request))
end

local function new_route(channel, given, shared)
    local cluster = cluster_of.channel(channel, given)
    local route = { tasks = tasks.new(shared), shared = shared, cluster = cluster, invoke = actions.builtins() }

    function route.cc(url, opt)
        return cc(route, channel, url, opt)
    end

    function route.cast(url, opt)
        return cc(route, channel, url, options.again("workers", opt))
    end

    function route.self(url, opt)
        return _M.self(options.uri_of(channel, url), opt)
    end

    function route.isRoot()
        local super, master = cluster.super, cluster.master
        return super.host == nil or (super.host == master.host and tostring(super.port) == tostring(master.port))
    end

    -- true in the router; elsewhere false and the router's answer to the current request.
    function route.isInvokeAtMaster()
        if cluster_of.is_router() then
            return true
        end
        return false, route.cc("/_/_" .. ngx.var.uri, options.again("master"))
    end

    -- true where the request came to this very worker, by its own port; elsewhere false and the
    -- answers of all workers to the current request.
    function route.isInvokeAtPer()
        -- what comes by a hub came to the node: its own port is only how the router was reached
        local uri, of_hub = ngx.var.uri:gsub("^(/[^/]+)/hub", "%1/invoke", 1)
        if of_hub == 0 and cluster_of.is_own_port(ngx.var.server_port) then
            return true
        end
        return false, route.cc("/_/_" .. uri, options.again("workers"))
    end

    -- super: "HOST:PORT"; moves this node.
    function route.transfer(super)
        return cluster_of.transfer(channel, super)
    end

    return setmetatable(route, {
        __index = function(_, key)
            return not NOT_INHERITED[key] and _M[key] or nil
        end,
    })
end

-- options: host and port (of this node's hub), dict, initializer (accepted; nothing depends on it).
-- A channel that exists already is returned as it is.
function _M.new(_, channel, given)
    if type(channel) ~= "string" then
        error("bad channel (string expected, got " .. type(channel) .. ")", 2)
    elseif get_phase() == "init" then
        error("initiating ngx_cc channel [" .. channel .. "] in init_by_lua*", 2)
    end
    given = given or {}
    local dict = given.dict or _M.cluster.dict
    local shared = ngx.shared[dict] or error("access shared dictionary: " .. tostring(dict), 2)
    if not rawget(_M.channels, channel) then
        local ok, err = cluster_of.open(channel, _M.cluster, given)
        if not ok then
            error(err, 2)
        end
        _M.channels[channel] = new_route(channel, given, shared)
    end
    return _M.channels[channel]
end

function _M.optionAgain2(direction, opt, force_mix_into_current)
    if force_mix_into_current then
        opt = options.again(opt)
    end
    return options.again(direction, opt)
end

-- A subrequest of the current request; only where there is one.
function _M.self(url, opt)
    local response = ngx.location.capture(url, opt)
    return is_success(response.status), { response }
end

function _M.remote(url, opt)
    if type(url) ~= "string" then
        error("need full remote url", 2)
    end
    local scheme, address, uri = url:match "^([^:/]*):?//([^/?]+)(.*)$"
    if not address then
        error("need full remote url", 2)
    elseif scheme ~= "http" and scheme ~= "" then
        error("cannot call \"" .. url .. "\": only http is spoken to other nodes", 2)
    elseif uri:find "[#%c ]" then
        error("bad url \"" .. url .. "\": it holds a \"#\", a space or a control character", 2)
    elseif uri:sub(1, 1) ~= "/" then
        uri = "/" .. uri
    end
    opt = opt == nil and {} or options_of(opt)
    return judged(calls.remote(address, request_of(uri, opt, "OFF")))
end

-- The 2xx bodies of what cc() or all() returned, a line each.
function _M.say(status, responses)
    for _, response in ipairs(responses) do
        if type(response) == "table" then
            if response.status and is_success(response.status) and type(response.body) == "string"
                and response.body ~= "" then
                ngx.say(response.body)
            end
            if #response > 0 then
                _M.say(status, response)
            end
        end
    end
end

-- requests: { function, arg1, arg2, ... } each, of functions that return what cc() does. All run at
-- the same time; a result is one response, a list where there were several, false where it failed.
function _M.all(requests)
    if type(requests) ~= "table" then
        error("bad argument #1 to 'all' (table expected, got " .. type(requests) .. ")", 2)
    end
    for i, request in ipairs(requests) do
        if type(request) ~= "table" or type(request[1]) ~= "function" then
            error("bad request " .. i .. " (a table that begins with a function expected)", 2)
        end
    end
    local threads, results, some = {}, {}, false
    for i, request in ipairs(requests) do
        threads[i] = ngx.thread.spawn(function()
            return request[1](unpack(request, 2))
        end)
    end
    for i, thread in ipairs(threads) do
        local ok, status, responses = ngx.thread.wait(thread)
        results[i] = ok and status and type(responses) == "table"
            and (#responses > 1 and responses or responses[1]) or false
        some = some or results[i] ~= false
    end
    return some, results
end

-- super: "HOST:PORT"; channels and clients: names and addresses separated by commas, or "*".
-- Tells those child nodes to move; true when all that were told agreed, and the answers.
function _M.transfer(super, channels, clients)
    return cluster_of.transfer_clients(super, channels, clients, _M.channels)
end

local function unknown_channel()
    ngx.status = 403
    ngx.say "URL include unknow channel."
end

-- Serves the current request: the action that its query names, in this worker or (master_only) in
-- the router.
function _M.invokes(channel, master_only)
    local route = channel and _M.channels[channel]
    if not route then
        return unknown_channel()
    end
    if master_only and not cluster_of.is_router() then
        return calls.forward_to_router(channel)
    end
    return actions.run(route, channel)
end

return _M
