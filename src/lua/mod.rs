//! SPEAKS. The Lua packages, embedded. They call `modules` through the exported functions; what is
//! Rust here is a table of texts that `modules::lua` preloads.

use std::ffi::CStr;

use crate::ngx::lua::Package;

/// Names that `cc_lua_preload` takes, and the package each stands for; a package may stand under
/// several.
pub static PACKAGES: [(&str, Package); 24] = [
    ("ngx.ipc", package(c"ngx.ipc", c"=ngx.ipc", include_str!("ipc.lua"))),
    (
        "ngx.ipc",
        package(c"ngx.ipc.arguments", c"=ngx.ipc.arguments", include_str!("ipc_arguments.lua")),
    ),
    ("ngx.ipc", package(c"ngx.ipc.calls", c"=ngx.ipc.calls", include_str!("ipc_calls.lua"))),
    (
        "ngx.ipc",
        package(c"ngx.ipc.receiver", c"=ngx.ipc.receiver", include_str!("ipc_receiver.lua")),
    ),
    (
        "ngx.ipc",
        package(c"ngx.ipc.retained", c"=ngx.ipc.retained", include_str!("ipc_retained.lua")),
    ),
    ("ngx.cc", package(c"ngx.cc", c"=ngx.cc", include_str!("cc.lua"))),
    (
        "ngx.cc",
        package(c"ngx.ipc.arguments", c"=ngx.ipc.arguments", include_str!("ipc_arguments.lua")),
    ),
    (
        "ngx.cc.balancer",
        package(c"ngx.cc.balancer", c"=ngx.cc.balancer", include_str!("balancer.lua")),
    ),
    (
        "ngx.cc.lifecycle",
        package(c"ngx.cc.lifecycle", c"=ngx.cc.lifecycle", include_str!("lifecycle.lua")),
    ),
    (
        "ngx.cc.lifecycle",
        package(
            c"ngx.cc.lifecycle.view",
            c"=ngx.cc.lifecycle.view",
            include_str!("lifecycle_view.lua"),
        ),
    ),
    // needs the other
    (
        "resty.worker.manager",
        package(c"ngx.cc.lifecycle", c"=ngx.cc.lifecycle", include_str!("lifecycle.lua")),
    ),
    (
        "resty.worker.manager",
        package(
            c"ngx.cc.lifecycle.view",
            c"=ngx.cc.lifecycle.view",
            include_str!("lifecycle_view.lua"),
        ),
    ),
    (
        "resty.worker.manager",
        package(c"resty.worker.manager", c"=resty.worker.manager", include_str!("manager.lua")),
    ),
    ("ngx_cc", package(c"ngx_cc", c"=ngx_cc", include_str!("ngx_cc.lua"))),
    ("ngx_cc", package(c"ngx_cc.actions", c"=ngx_cc.actions", include_str!("ngx_cc_actions.lua"))),
    ("ngx_cc", package(c"ngx_cc.calls", c"=ngx_cc.calls", include_str!("ngx_cc_calls.lua"))),
    ("ngx_cc", package(c"ngx_cc.cluster", c"=ngx_cc.cluster", include_str!("ngx_cc_cluster.lua"))),
    ("ngx_cc", package(c"ngx_cc.content", c"=ngx_cc.content", include_str!("ngx_cc_content.lua"))),
    ("ngx_cc", package(c"ngx_cc.options", c"=ngx_cc.options", include_str!("ngx_cc_options.lua"))),
    ("ngx_cc", package(c"ngx_cc.tasks", c"=ngx_cc.tasks", include_str!("ngx_cc_tasks.lua"))),
    ("ngx_cc", package(c"module.invoke", c"=ngx_cc.module", include_str!("ngx_cc_module.lua"))),
    ("ngx_cc", package(c"module.heartbeat", c"=ngx_cc.module", include_str!("ngx_cc_module.lua"))),
    ("ngx_cc", package(c"module.invalid", c"=ngx_cc.module", include_str!("ngx_cc_module.lua"))),
    ("ngx.worker", package(c"resty.core.worker", c"=ngx.cc.worker", include_str!("worker.lua"))),
];

const fn package(name: &'static CStr, chunk: &'static CStr, source: &'static str) -> Package {
    Package { name, chunk, source }
}
