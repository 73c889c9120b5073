-- module.invoke, module.heartbeat, module.invalid: what they added to a channel every channel has
-- now by itself: getServiceStat and transferServer, the heartbeat, and the removal of workers and
-- nodes that do not answer. So apply() has nothing left to do.

return {
    apply = function(route)
        return route.invoke
    end,
}
