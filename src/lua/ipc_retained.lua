-- ngx.ipc.retained: what the zone keeps, and what of it this worker's handlers have been told.

local ffi = require "ffi"

local C = ffi.C
local ffi_string = ffi.string
local tonumber, ipairs, pairs = tonumber, ipairs, pairs

ffi.cdef [[
typedef struct {
    const char *key; size_t key_len;
    const char *value; size_t value_len;
    uint64_t sequence;
} ngx_cc_ipc_item_t;
int ngx_cc_ipc_retained(const char *name, size_t name_len, const char *key, size_t key_len,
    ngx_cc_ipc_item_t *item);
int ngx_cc_ipc_retained_all(const char *name, size_t name_len);
uint32_t ngx_cc_ipc_retained_visited(void);
int ngx_cc_ipc_retained_item(size_t index, ngx_cc_ipc_item_t *item);
void ngx_cc_ipc_untold(void);
void ngx_cc_life_saw(const char *name, size_t name_len, uint32_t sequence);
]]

local item = ffi.new "ngx_cc_ipc_item_t"
local told = {}     -- name -> key -> the sequence number of the value that its handler had last

local _M = {}

-- The value of a key and its sequence number; where there is none nil and 0, else nil and a code.
function _M.get(name, key)
    local code = C.ngx_cc_ipc_retained(name, #name, key, #key, item)
    if code == 1 then
        return ffi_string(item.value, item.value_len), tonumber(item.sequence)
    end
    return nil, code
end

-- All values of a name, { { key =, value =, sequence = }, ... }, those set earlier first, and the low
-- half of the number up to which that is all; or nil and a code.
function _M.all(name)
    local count = C.ngx_cc_ipc_retained_all(name, #name)
    if count < 0 then
        return nil, count
    end
    local visited, list = C.ngx_cc_ipc_retained_visited(), {}
    while C.ngx_cc_ipc_retained_item(#list, item) == 1 do
        list[#list + 1] = {
            key = ffi_string(item.key, item.key_len),
            value = ffi_string(item.value, item.value_len),
            sequence = tonumber(item.sequence),
        }
    end
    return list, visited
end

-- The value for the name's handler, which is told of it now. True as the second one: somebody keeps it
-- locked, and there will be a review.
function _M.tell(name, key)
    local value, sequence = _M.get(name, key)
    if not value and sequence ~= 0 then
        C.ngx_cc_ipc_untold()
        return nil, true
    end
    local keys = told[name]
    if not keys then
        keys = {}
        told[name] = keys
    end
    keys[key] = value and sequence
    return value
end

-- A new handler has been told nothing.
function _M.forget(name)
    told[name] = nil
end

-- The keys of which the name's handler does not have the end, or the last value, in this order.
local function untold(name, list)
    local keys, kept, keys_untold = told[name] or {}, {}, {}
    for _, one in ipairs(list) do
        kept[one.key] = true
    end
    for key, sequence in pairs(keys) do
        if not kept[key] then
            keys_untold[#keys_untold + 1] = { key = key, sequence = sequence }
        end
    end
    for _, one in ipairs(list) do
        if keys[one.key] ~= one.sequence then
            keys_untold[#keys_untold + 1] = one
        end
    end
    return keys_untold
end

-- Calls fn(name, key, sequence) for what the name's handler was not told; the sequence number's low
-- half is what the handler has then seen.
function _M.each_untold(name, fn)
    local list, visited = _M.all(name)
    if not list then
        return C.ngx_cc_ipc_untold()
    end
    local keys = untold(name, list)
    for i, one in ipairs(keys) do
        fn(name, one.key, i == #keys and visited or one.sequence % 0x100000000)
    end
    if #keys == 0 then
        C.ngx_cc_life_saw(name, #name, visited)
    end
end

return _M
