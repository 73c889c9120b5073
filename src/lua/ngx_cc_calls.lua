-- ngx_cc.calls: makes the calls, and waits for all of them. Connections, timeouts and who is asked
-- are the module's own; here options become calls, and outcomes become responses.

local ffi = require "ffi"
local semaphore = require "ngx.semaphore"
local get_request = require("resty.core.base").get_request

local C = ffi.C
local ffi_string = ffi.string
local find, sub = string.find, string.sub
local ngx = ngx
local get_phase = ngx.get_phase
local new_table = require "table.new"
local type, tostring, error, ipairs, pairs = type, tostring, error, ipairs, pairs

ffi.cdef [[
typedef struct { const char *data; size_t len; } ngx_cc_text_t;
typedef struct { ngx_cc_text_t node; int worker, port, via; } ngx_cc_target_t;
typedef struct { int done, status; ngx_cc_text_t headers, body, error; } ngx_cc_outcome_t;
typedef struct { int job; } ngx_cc_job_t;

int ngx_cc_cluster_targets(const char *channel, size_t len, const char *direction,
    size_t direction_len, ngx_cc_target_t *rows, size_t room);
int ngx_cc_cluster_begin(void *request, void *sema, void *post);
int ngx_cc_cluster_call(int job, void *request, int kind, unsigned worker,
    const char *address, size_t address_len, const char *method, size_t method_len,
    const char *target, size_t target_len, const char *headers, size_t headers_len,
    const char *body, size_t body_len, unsigned flags, unsigned connect, unsigned send,
    unsigned read);
int ngx_cc_cluster_ask(int job, void *request, const char *channel, size_t channel_len,
    const char *address, size_t address_len, const char *method, size_t method_len,
    const char *target, size_t target_len, const char *body, size_t body_len, unsigned flags,
    unsigned time);
int ngx_cc_cluster_builtin(int job, void *request, const char *channel, size_t channel_len,
    const char *action, size_t action_len);
int ngx_cc_cluster_forward(int job, void *request, const char *channel, size_t channel_len);
int ngx_cc_cluster_seal(int job);
int ngx_cc_cluster_outcome(int job, size_t index, ngx_cc_outcome_t *row);
void ngx_cc_cluster_end(int job);
int ngx_http_lua_ffi_sema_post(void *sem, int n);
]]

local post = ffi.cast("void *", C.ngx_http_lua_ffi_sema_post)

local WORKER, NODE = 0, 1
local HEADERS_OF_REQUEST, OWN = 1, 4
-- Milliseconds of each step of a call, as the directives' default.
local TIMEOUT = 2000
-- Each step of a call has its own time; ngx.semaphore wants a limit.
local LONG = 86400
local TARGETS_MAX = 2048

local MAY_WAIT = {
    rewrite = true, server_rewrite = true, access = true, content = true, timer = true,
    ssl_cert = true, ssl_session_fetch = true, ssl_client_hello = true,
}
local ERRORS = {
    [-2] = { 404, "no such action" },
    [-3] = { 400, "the call cannot be sent" },
    [-4] = { 503, "too many calls" },
    [-5] = { 503, "nobody is there" },
}

local _M = {}

local targets = ffi.new("ngx_cc_target_t[?]", TARGETS_MAX)
local outcome = ffi.new "ngx_cc_outcome_t"

-- What a job posts lives as long as the job, also when the light thread that waits is ended.
local semaphore_of = {}
local idle, idle_count = {}, 0      -- semaphores of jobs that have ended
local IDLE_MAX = 64
local Job = ffi.metatype("ngx_cc_job_t", {
    __gc = function(job)
        C.ngx_cc_cluster_end(job.job)
        semaphore_of[job.job] = nil
    end,
})

local function begin()
    if not MAY_WAIT[get_phase()] then
        error("API disabled in the context of " .. get_phase(), 4)
    end
    local sema
    if idle_count > 0 then
        sema, idle[idle_count] = idle[idle_count], nil
        idle_count = idle_count - 1
    else
        sema = semaphore.new(0)
    end
    local number = C.ngx_cc_cluster_begin(get_request(), sema.sem, post)
    if number < 0 then
        return nil, ERRORS[number] or { 500, "internal error, see the error log" }
    end
    semaphore_of[number] = sema
    return Job(number)
end

local function wait(job)
    if C.ngx_cc_cluster_seal(job.job) > 0 then
        semaphore_of[job.job]:wait(LONG)
    end
end

local function end_job(job)
    local number = job.job
    C.ngx_cc_cluster_end(number)
    ffi.gc(job, nil)
    local sema = semaphore_of[number]
    semaphore_of[number] = nil
    -- one that was posted has been waited for
    if idle_count < IDLE_MAX and sema:count() == 0 then
        idle_count = idle_count + 1
        idle[idle_count] = sema
    end
end

local function text(row)
    return ffi_string(row.data, row.len)
end

-- Names that nearly every answer has: others are put together, which takes longer.
local NAMES = {
    connection = "Connection", date = "Date", server = "Server",
    ["content-length"] = "Content-Length", ["content-type"] = "Content-Type",
}

-- `name: value` lines as ngx.location.capture gives headers.
local function parsed(lines)
    local headers, from = {}, 1
    while true do
        local colon = find(lines, ": ", from, true)
        local line_end = colon and find(lines, "\n", colon, true)
        if not line_end then
            return headers
        end
        local name, value = sub(lines, from, colon - 1), sub(lines, colon + 2, line_end - 1)
        name = NAMES[name] or name:gsub("%f[%a]%a", string.upper)
        local first = headers[name]
        if first == nil then
            headers[name] = value
        elseif type(first) == "table" then
            first[#first + 1] = value
        else
            headers[name] = { first, value }
        end
        from = line_end + 1
    end
end

-- The last lines, and what was in them where no name came twice: answers to the same call, in the
-- same second, have the same.
local last_lines, last_names, last_values, last_count

local function remember(lines, headers)
    local names, values, count = {}, {}, 0
    for name, value in pairs(headers) do
        if type(value) == "table" then
            return
        end
        count = count + 1
        names[count], values[count] = name, value
    end
    last_lines, last_names, last_values, last_count = lines, names, values, count
end

local function headers_of(lines)
    if lines ~= last_lines then
        local headers = parsed(lines)
        remember(lines, headers)
        return headers
    end
    local headers = new_table(0, last_count)
    for i = 1, last_count do
        headers[last_names[i]] = last_values[i]
    end
    return headers
end

local function failed(why)
    return { status = why[1], header = {}, body = "", truncated = false, err = why[2] }
end

local function response_of(job, index)
    if index < 0 then
        return failed(ERRORS[index] or { 500, "internal error, see the error log" })
    end
    C.ngx_cc_cluster_outcome(job.job, index, outcome)
    if outcome.done ~= 1 then
        return failed { outcome.status == 0 and 504 or outcome.status, text(outcome.error) }
    end
    return {
        status = outcome.status,
        header = headers_of(text(outcome.headers)),
        body = text(outcome.body),
        truncated = false,
    }
end

local function call(job, target, request)
    local kind, worker, address, channel = target.kind, target.worker, target.address, target.channel
    local flags = (request.forwards_headers and HEADERS_OF_REQUEST or 0) + (request.own and OWN or 0)
    local body = request.body
    if channel then
        return C.ngx_cc_cluster_ask(job.job, get_request(), channel, #channel, address, #address,
            request.method, #request.method, request.target, #request.target, body, #body, flags,
            TIMEOUT)
    end
    return C.ngx_cc_cluster_call(job.job, get_request(), kind, worker, address, #address,
        request.method, #request.method, request.target, #request.target, "", 0, body, #body,
        flags, TIMEOUT, TIMEOUT, TIMEOUT)
end

-- Calls in a row, { kind =, worker =, address =, channel = (of a node in the cluster) } each, and
-- their responses in that order.
local function perform(wanted, request)
    local job, why = begin()
    local responses = {}
    if not job then
        for i = 1, #wanted do
            responses[i] = failed(why)
        end
        return responses
    end
    local indexes = {}
    for i, target in ipairs(wanted) do
        indexes[i] = call(job, target, request)
    end
    wait(job)
    for i = 1, #wanted do
        responses[i] = response_of(job, indexes[i])
    end
    end_job(job)
    return responses
end

-- As the original writes addresses: port 80 is left out.
local function client_name(address)
    return (address:gsub(":80$", ""))
end

-- The addresses of the nodes below in a channel.
function _M.clients(channel)
    local list = {}
    local count = C.ngx_cc_cluster_targets(channel, #channel, "clients", 7, targets, TARGETS_MAX)
    for i = 0, count - 1 do
        list[i + 1] = text(targets[i].node)
    end
    return list
end

-- Asks all that `direction` means; a response each, in their order.
function _M.perform(channel, direction, request)
    local count = C.ngx_cc_cluster_targets(channel, #channel, direction, #direction, targets, TARGETS_MAX)
    if count < 0 then
        return { failed(ERRORS[count] or { 500, "internal error, see the error log" }) }
    end
    local wanted = {}
    for i = 0, count - 1 do
        local row = targets[i]
        local is_worker = row.via == 0
        wanted[i + 1] = {
            kind = is_worker and WORKER or NODE,
            worker = is_worker and row.worker or 0,
            address = is_worker and "" or text(row.node),
            port = row.port >= 0 and tostring(row.port) or nil,
            channel = not is_worker and channel or nil,
        }
    end
    local responses = perform(wanted, request)
    for i, response in ipairs(responses) do
        local target = wanted[i]
        if target.kind == WORKER then
            response.port, response.worker = target.port, target.worker
        elseif direction == "clients" then
            response.client = client_name(target.address)
        end
    end
    return responses
end

-- "HOST:PORT" in numbers; the port is 80 where there is none.
local function address_of(address)
    address = address:gsub("^localhost%f[:%z]", "127.0.0.1")
    if not address:find "^%[.*%]:%d+$" and not address:find "^[^:]+:%d+$" then
        address = address .. ":80"
    end
    return address
end

-- Asks one node, wherever it is.
function _M.remote(address, request)
    return perform({ { kind = NODE, worker = 0, address = address_of(address) } }, request)
end

-- Asks several nodes of a channel the same.
function _M.nodes(channel, addresses, request)
    local wanted = {}
    for i, address in ipairs(addresses) do
        wanted[i] = { kind = NODE, worker = 0, address = address, channel = channel }
    end
    return perform(wanted, request)
end

-- What nginx writes by itself.
local OWN = {
    ["Content-Length"] = true, Connection = true, ["Transfer-Encoding"] = true, Date = true, Server = true,
}

local function answer(response)
    ngx.status = response.status
    for name, value in pairs(response.header) do
        if not OWN[name] then
            ngx.header[name] = value
        end
    end
    if response.err then
        ngx.say(response.err)
    elseif response.body ~= "" then
        ngx.print(response.body)
    end
end

-- Answers the current request with what becomes of it in a job of its own.
local function answered(start, channel, name)
    ngx.req.read_body()
    local job, why = begin()
    if not job then
        return answer(failed(why))
    end
    local index = start(job.job, channel, name)
    wait(job)
    local response = response_of(job, index)
    end_job(job)
    return answer(response)
end

local function forward(job, channel)
    return C.ngx_cc_cluster_forward(job, get_request(), channel, #channel)
end

-- Answers the current request with what the router answers to it.
function _M.forward_to_router(channel)
    return answered(forward, channel)
end

local function builtin(job, channel, name)
    return C.ngx_cc_cluster_builtin(job, get_request(), channel, #channel, name, #name)
end

-- Answers the current request with a built-in action.
function _M.builtin(channel, name)
    return answered(builtin, channel, name)
end

return _M
