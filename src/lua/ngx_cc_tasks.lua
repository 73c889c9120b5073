-- ngx_cc.tasks: work done by the way, at most once per interval: whoever calls run() does what is
-- due, in this worker (type "normal") or in one worker of the node (type "preemption").

local ipairs, type, error, setmetatable = ipairs, type, error, setmetatable
local now = ngx.now

local _M = {}
local mt = { __index = _M }

-- Whether this worker is the one to do `task` in this interval: the first to add the key.
local function preempts(self, task)
    local dict = type(self.dict) == "string" and ngx.shared[self.dict] or self.dict
    if not dict then
        error("access shared dictionary: " .. tostring(self.dict), 3)
    end
    return (dict:add("ngx_cc.task." .. tostring(task.identifier), true, task.interval))
end

-- rule: { name =, identifier =, interval = SECONDS, typ = "normal" | "preemption", callback = function,
-- filter = function that may say no }
function _M:push(rule)
    if type(rule) ~= "table" or type(rule.callback) ~= "function" or type(rule.interval) ~= "number" then
        error("bad task (a table with callback and interval expected)", 2)
    end
    self[#self + 1] = rule
end

function _M:remove(identifier)
    for i = #self, 1, -1 do
        if self[i].identifier == identifier then
            table.remove(self, i)
        end
    end
end

function _M:run()
    local time = now()
    for _, task in ipairs(self) do
        if not task.last_execute or task.last_execute + task.interval <= time then
            task.last_execute = time
            if (task.typ ~= "preemption" or preempts(self, task)) and (not task.filter or task:filter()) then
                task:callback()
            end
        end
    end
end

-- dict: the shared dictionary, or its name, in which workers agree on who does a preemption task.
function _M.new(dict)
    return setmetatable({ dict = dict }, mt)
end

return _M
