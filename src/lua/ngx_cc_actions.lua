-- ngx_cc.actions: finds the action that a request names and runs it. An action is a function of
-- route.invoke, the built-in ones among them, or what nginx.conf names by cc_action.

local ffi = require "ffi"
local calls = require "ngx_cc.calls"
local get_request = require("resty.core.base").get_request

local C = ffi.C
local type, ipairs = type, ipairs
local ngx = ngx

ffi.cdef [[
typedef struct { ngx_cc_text_t name, value; int has_value, kind; } ngx_cc_arg_t;
int ngx_cc_cluster_args(void *request, ngx_cc_arg_t *rows, size_t room);
int ngx_cc_cluster_action(void *request, const char *name, size_t len, ngx_cc_text_t *uri);
]]

local CC_ACTION = 2
local ARGS_MAX = 100

local BUILTINS = {
    "getServiceStat", "transferServer", "heartbeat", "reportHubPort", "reportClient", "registerWorker",
    "invalidWorker", "invalidClient",
}

local _M = {}

-- What route.invoke holds from the start; an application may put its own in the place of each.
function _M.builtins()
    local invoke = {}
    for _, name in ipairs(BUILTINS) do
        invoke[name] = function(_, channel)
            return calls.builtin(channel, name)
        end
    end
    return invoke
end

local args = ffi.new("ngx_cc_arg_t[?]", ARGS_MAX)

-- The names in the query, in order, and of what kind each is.
local function names()
    local list = {}
    for i = 0, C.ngx_cc_cluster_args(get_request(), args, ARGS_MAX) - 1 do
        local row = args[i]
        list[i + 1] = { name = ffi.string(row.name.data, row.name.len), kind = row.kind }
    end
    return list
end

-- Goes on where a cc_action leads.
local function follow(name)
    local uri = ffi.new "ngx_cc_text_t"
    if C.ngx_cc_cluster_action(get_request(), name, #name, uri) ~= 1 then
        return ngx.exit(500)
    end
    return ngx.exec(ffi.string(uri.data, uri.len))
end

function _M.run(route, channel)
    local invoke = route.invoke
    if type(invoke) == "function" then
        return invoke(route, channel, ngx.req.get_uri_args())
    end
    for _, arg in ipairs(names()) do
        local action = type(invoke) == "table" and invoke[arg.name]
        if type(action) == "function" then
            return action(route, channel, ngx.req.get_uri_args())
        elseif arg.kind == CC_ACTION then
            return follow(arg.name)
        end
    end
    ngx.status = 404
    ngx.say(ngx.var.args and "unknown action" or "no action in the query")
end

return _M
