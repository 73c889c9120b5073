-- A module that speaks for itself: ours, or another one of the same name and API.
--
-- All buses have send, broadcast, receive, reply, sender and get_other_worker_pids. A name that ends
-- in "?" is one whose handler wants to know its sender; the other buses save the rest that trouble.

return function()
    return require "ngx.ipc"
end
