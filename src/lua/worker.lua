-- Stands in for resty.core.worker, which every VM loads before any user code: loads the real one
-- and adds ngx.worker.port() to it. There is no other moment that comes early enough in each of
-- the VMs that lua_code_cache off makes.

local name = ...
local ffi = require "ffi"

ffi.cdef [[
int ngx_cc_worker_port(void);
]]

local C = ffi.C
local reasons = {}
local module

-- the first loader is the one that found this file
for i = 2, #package.loaders do
    local loader = package.loaders[i](name)
    if type(loader) == "function" then
        module = loader(name)
        break
    end
    reasons[#reasons + 1] = loader
end

if module == nil then
    error("module '" .. name .. "' not found:" .. table.concat(reasons), 0)
end

-- The first per_worker port of this worker, nil where it has none.
function ngx.worker.port()
    local port = C.ngx_cc_worker_port()
    return port >= 0 and port or nil
end

return module
