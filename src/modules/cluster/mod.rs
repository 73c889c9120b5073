//! The cluster: channels whose actions run in a worker, in the router, in all workers, in other
//! nodes. `settings` and `location` are the directives, `invoke`, `hub` and `cast` serve locations;
//! `proto::cluster` decides, `ngx::client` calls.

pub mod api;
pub mod api_calls;
pub mod builtin;
pub mod call;
pub mod cast;
pub mod casting;
pub mod channel;
pub mod driver;
pub mod function;
pub mod hub;
pub mod invoke;
pub mod jobs;
pub mod location;
pub mod lua;
pub mod nodes;
pub mod proof;
pub mod refuse;
pub mod remote;
pub mod ringed;
pub mod settings;
pub mod signed;
pub mod stat;
pub mod tell;
pub mod variables;
pub mod workers;

use crate::modules::core::Core;
use crate::modules::http::Http;
use crate::modules::listen;
use crate::ngx::conf::{Conf, ConfResult};
use crate::ngx::cycle::{self, Cycle};
use crate::ngx::http::main_conf;
use crate::ngx::log::Level;
use crate::ngx::module::core_conf;

use self::settings::Settings;

/// The directives' values in force; None without http{}.
pub fn settings() -> Option<&'static Settings> {
    Some(&main_conf::<Http>(cycle::current()?)?.cluster)
}

/// This node's name among nodes: the address of its hub.
pub fn node() -> String {
    let Some(settings) = settings() else { return String::new() };
    let lua = if settings.is_named() { None } else { lua::node() };
    lua.unwrap_or_else(|| settings.node().to_string())
}

/// The event loop can be used.
pub fn init_process() {
    ringed::init_process();
    driver::start();
}

/// The worker leaves: calls under way are dropped while everything is still there.
pub fn exit_process() {
    // first, or what the driver holds would settle them, and post semaphores of a VM that ends
    jobs::clear();
    driver::stop();
}

/// After http{} was read.
pub fn postconfiguration(cf: &Conf<'_>, settings: &mut Settings) -> ConfResult {
    let listens = core_conf::<Core>(cf.cycle()).map(|conf| &conf.listen);
    let servers = settings.seen.hubs.iter().map(|(server, _)| *server);
    let port = listens.and_then(|listens| {
        let mut servers = servers;
        // without a hub it is Lua that may serve one
        servers.find_map(|server| listens.plain_port(server)).or_else(|| listens.first_plain_port())
    });
    settings.finish(cf, port, cf.cycle().has_module("ngx_http_lua_module"))
}

/// After all of the configuration was read, and worker_processes is known.
pub fn init_conf(cycle: Cycle<'_>) {
    let Some(main) = main_conf::<Http>(cycle) else { return };
    let Some((_, line)) = main.cluster.seen.hubs.first() else { return };
    if listen::any_http_per_worker(cycle) {
        return;
    }
    if cycle.workers() > 1 {
        let why = "several workers, and no \"listen ... per_worker\" for http";
        let what = "\"cc_hub\" cannot reach the router";
        cycle.log(Level::Warn, format_args!("{what}: {why} in {line}"));
    } else if main.cluster.secrets().is_some() {
        let what = "\"cc_hub\" cannot answer signed calls: no \"listen ... per_worker\" for http";
        cycle.log(Level::Warn, format_args!("{what} in {line}"));
    }
}
