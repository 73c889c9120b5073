-- ngx_cc.content: serves the requests of cc_invoke and cc_hub that are for a channel made by Lua.
-- The module has found the channel, and has brought the request to the router where it has to be.

local ffi = require "ffi"
local actions = require "ngx_cc.actions"
local ngx_cc = require "ngx_cc"
local get_request = require("resty.core.base").get_request

ffi.cdef [[
int ngx_cc_cluster_noted(void *request, ngx_cc_text_t *name);
]]

local name = ffi.new "ngx_cc_text_t"

local _M = {}

function _M.invoke()
    if ffi.C.ngx_cc_cluster_noted(get_request(), name) == 1 then
        local channel = ffi.string(name.data, name.len)
        local route = ngx_cc.channels[channel]
        if route then
            return actions.run(route, channel)
        end
    end
    return ngx.exit(403)
end

return _M
