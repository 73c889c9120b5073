//! SPEAKS. The Lua packages, embedded. They call `modules` through the exported functions; what is
//! Rust here is a table of texts that `modules::lua` preloads.

use std::ffi::CStr;

use crate::ngx::lua::Package;

/// Names that `cc_lua_preload` takes, and the package each stands for; a package may stand under
/// several.
pub static PACKAGES: [(&str, Package); 10] = [
    ("ngx.ipc", package(c"ngx.ipc", c"=ngx.ipc", include_str!("ipc.lua"))),
    (
        "ngx.ipc",
        package(c"ngx.ipc.arguments", c"=ngx.ipc.arguments", include_str!("ipc_arguments.lua")),
    ),
    (
        "ngx.ipc",
        package(c"ngx.ipc.receiver", c"=ngx.ipc.receiver", include_str!("ipc_receiver.lua")),
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
    // needs the other
    (
        "resty.worker.manager",
        package(c"ngx.cc.lifecycle", c"=ngx.cc.lifecycle", include_str!("lifecycle.lua")),
    ),
    (
        "resty.worker.manager",
        package(c"resty.worker.manager", c"=resty.worker.manager", include_str!("manager.lua")),
    ),
    ("ngx.worker", package(c"resty.core.worker", c"=ngx.cc.worker", include_str!("worker.lua"))),
];

const fn package(name: &'static CStr, chunk: &'static CStr, source: &'static str) -> Package {
    Package { name, chunk, source }
}
