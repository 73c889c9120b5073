-- ngx_cc.options: what the functions of ngx_cc take: the options of a call, mixed with the current
-- request, and the parts of an HTTP request that come out of them.

local type, tostring, error, pairs, setmetatable = type, tostring, error, pairs, setmetatable
local find, sub, upper = string.find, string.sub, string.upper
local ngx = ngx
local get_phase = ngx.get_phase

local _M = {}

-- Phases in which there is a request to take method, arguments, headers and body from.
local REQUEST_PHASES = {
    set = true, rewrite = true, server_rewrite = true, access = true, content = true, balancer = true,
    header_filter = true, body_filter = true, log = true,
}

local METHODS = {
    GET = true, HEAD = true, POST = true, PUT = true, DELETE = true, OPTIONS = true, PATCH = true,
    MKCOL = true, COPY = true, MOVE = true, PROPFIND = true, PROPPATCH = true, LOCK = true,
    UNLOCK = true, TRACE = true,
}
-- ngx.HTTP_POST and its kin, by their value.
local METHOD_OF_CONSTANT = {}
for name in pairs(METHODS) do
    local constant = ngx["HTTP_" .. name]
    if constant then
        METHOD_OF_CONSTANT[constant] = name
    end
end

function _M.in_request()
    return REQUEST_PHASES[get_phase()] == true
end

local function of_current_request()
    if not _M.in_request() then
        return { method = "GET", args = {} }
    end
    return { always_forward_body = true, method = ngx.req.get_method(), args = ngx.req.get_uri_args() }
end

-- `own` wins, key by key; what it does not say is taken from `base`, their args likewise.
local function mixed(own, base)
    local result = {}
    for key, value in pairs(own) do
        result[key] = value
    end
    for key, value in pairs(base) do
        if result[key] == nil then
            result[key] = value
        end
    end
    if own.args ~= nil and base.args ~= nil then
        if type(own.args) ~= "table" or type(base.args) ~= "table" then
            error("cannot mix args that are no table", 4)
        end
        local args = {}
        for key, value in pairs(base.args) do
            args[key] = value
        end
        for key, value in pairs(own.args) do
            args[key] = value
        end
        result.args = args
    end
    return result
end

-- direction: a word or a table of options; opt: what stands in for the current request.
function _M.again(direction, opt)
    if opt ~= nil and type(opt) ~= "table" then
        error("bad argument #2 to 'optionAgain' (table expected, got " .. type(opt) .. ")", 3)
    end
    local base = opt or of_current_request()
    if direction == nil then
        return base
    elseif type(direction) == "string" then
        direction = { direction = direction }
    elseif type(direction) ~= "table" then
        error("bad argument #1 to 'optionAgain' (string or table expected, got " .. type(direction) .. ")", 3)
    end
    return mixed(direction, base)
end

function _M.method_of(opt)
    local method = opt.method
    if method == nil then
        return "GET"
    end
    local name = METHOD_OF_CONSTANT[method] or (type(method) == "string" and upper(method))
    if not METHODS[name] then
        error("bad method " .. tostring(method), 3)
    end
    return name
end

-- `uri` with the args of `opt` behind its own; an argument that is false is not sent.
function _M.target_of(uri, opt)
    local args = opt.args
    if type(args) == "table" then
        args = ngx.encode_args(args)
    elseif args ~= nil and type(args) ~= "string" then
        error("bad args (table or string expected, got " .. type(args) .. ")", 3)
    end
    if args == nil or args == "" then
        return uri
    end
    local mark = find(uri, "?", 1, true)
    if not mark then
        return uri .. "?" .. args
    end
    return uri .. (mark == #uri and "" or "&") .. args
end

local function body_of_request()
    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    local path = not body and ngx.req.get_body_file()
    if not path then
        return body or ""
    end
    local file, err = io.open(path, "rb")
    if not file then
        error("cannot read the request's body: " .. err, 0)
    end
    body = file:read("*a")
    file:close()
    return body
end

-- The body that `opt` gives, or where it says so that of the current request.
function _M.body_of(opt, method)
    local body = opt.body
    if body ~= nil then
        if type(body) ~= "string" and type(body) ~= "number" then
            error("bad body (string expected, got " .. type(body) .. ")", 3)
        end
        return tostring(body)
    end
    local forwards = opt.always_forward_body and method ~= "GET" and method ~= "HEAD"
    return forwards and _M.in_request() and body_of_request() or ""
end

-- Whether the headers of the current request go along: as `ctx.cc_headers` says, or `default`.
function _M.forwards_headers(opt, default)
    local says = opt.ctx and opt.ctx.cc_headers
    if says == nil then
        says = default
    end
    return says ~= "OFF" and says ~= false and _M.in_request()
end

-- The uri that a call from `channel` means, as the README's table says; raises where it means none.
function _M.uri_of(channel, url)
    if type(url) ~= "string" or url == "" then
        error("bad url (string expected, got " .. (url == "" and "an empty one" or type(url)) .. ")", 3)
    elseif find(url, "^[^/?]*//") then
        error("bad url \"" .. url .. "\": another host is called with remote()", 3)
    elseif find(url, "[#%c ]") then
        error("bad url \"" .. url .. "\": it holds a \"#\", a space or a control character", 3)
    end
    local rest = url:match "^/_/_(/.*)$"
    if rest then
        return rest
    end
    local own = "/" .. channel .. "/"
    local path = (sub(url, 1, 3) == "/_/" and sub(url, 4)) or (sub(url, 1, #own) == own and sub(url, #own + 1))
    if not path then
        if sub(url, 1, 1) ~= "/" then
            error("bad url \"" .. url .. "\": it does not begin with \"/\"", 3)
        end
        -- another channel's location, or any other uri of the target
        return url
    end
    local word, tail = path:match "^([^/?]+)(.*)$"
    if not word then
        error("bad url \"" .. url .. "\": nothing is named behind the channel", 3)
    end
    if sub(tail, 1, 1) == "/" then
        return tail
    end
    return "/" .. channel .. "/invoke" .. tail
end

return _M
