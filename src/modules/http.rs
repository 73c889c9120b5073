//! `ngx_http_cc_module`: variables, and the Lua packages where the Lua module is loaded.

use ngx::ffi::{self, ngx_module_t};

use crate::modules::cluster::{self, location, settings};
use crate::modules::core::Core;
use crate::modules::{ipc, lifecycle, listen, lua, status, upstream};
use crate::ngx::conf::{self, Conf, ConfResult, directives};
use crate::ngx::cycle::{self, Process};
use crate::ngx::http::{HttpModule, Inherit, LOCATION, MAIN, SERVER, http_context, http_table};
use crate::ngx::module::core_conf;
use crate::ngx::request::Request;
use crate::ngx::variable::{self, Variable};

/// The module.
pub struct Http;

/// The conf of http{}.
#[derive(Default)]
pub struct Main {
    /// Channels and nodes.
    pub cluster: cluster::settings::Settings,
    /// The balancer's.
    pub upstream: upstream::Main,
}

/// The conf of a server{} or an upstream{}.
#[derive(Default)]
pub struct Server {
    /// The balancer's, of an upstream{}.
    pub upstream: upstream::settings::Conf,
}

impl Inherit for Server {
    fn inherit(&mut self, _: &mut Conf<'_>, _: &Self) -> ConfResult {
        Ok(())
    }
}

/// The conf of a location{}.
#[derive(Default)]
pub struct Location {
    /// What it serves of the cluster.
    pub cluster: cluster::location::Location,
    /// `cc_status`.
    pub status: status::Location,
}

impl Inherit for Location {
    fn inherit(&mut self, cf: &mut Conf<'_>, outer: &Self) -> ConfResult {
        self.cluster.inherit(cf, &outer.cluster)?;
        self.status.inherit(cf, &outer.status)
    }
}

/// What a request keeps.
#[derive(Default)]
pub struct Context {
    /// The channel that it is for.
    pub channel: cluster::channel::Noted,
    /// The balancer's.
    pub upstream: upstream::choice::Kept,
}

impl HttpModule for Http {
    type Main = Main;
    type Server = Server;
    type Location = Location;
    type Context = Context;

    fn table() -> *mut ngx_module_t {
        &raw mut ngx_http_cc_module
    }

    fn preconfiguration(cf: &mut Conf<'_>) -> ConfResult {
        variable::add::<WorkerId>(cf)?;
        variable::add::<listen::WorkerPort>(cf)?;
        cluster::variables::add(cf)?;
        variable::add::<upstream::Tries>(cf)?;
        variable::add::<upstream::LastFailure>(cf)?;
        lifecycle::loading::begin(cf.cycle());
        lua::preload(cf, core_conf::<Core>(cf.cycle()).and_then(|conf| conf.lua.as_ref()))
    }

    fn postconfiguration(cf: &mut Conf<'_>, conf: &mut Main) -> ConfResult {
        cluster::postconfiguration(cf, &mut conf.cluster)?;
        upstream::postconfiguration(cf, &mut conf.upstream)
    }

    fn init_process() -> Result<(), String> {
        ipc::start()?;
        cluster::init_process();
        lifecycle::start()
    }
}

/// `$cc_worker_id`: nginx's worker number of the process that runs the request.
pub struct WorkerId;

impl Variable for WorkerId {
    const NAME: &'static str = "cc_worker_id";

    fn get(_: &Request<'_>) -> Option<String> {
        matches!(cycle::process(), Process::Worker | Process::Single)
            .then(|| cycle::worker_number().to_string())
    }
}

const HTTP: u32 = conf::NGX_HTTP_MAIN_CONF;
const ANY: u32 = conf::NGX_HTTP_MAIN_CONF | conf::NGX_HTTP_SRV_CONF | conf::NGX_HTTP_LOC_CONF;
const IN_LOCATION: u32 = conf::NGX_HTTP_LOC_CONF;
const UP_TO_1: u32 = conf::NGX_CONF_NOARGS | conf::NGX_CONF_TAKE1;
const UP_TO_2: u32 = UP_TO_1 | conf::NGX_CONF_TAKE2;

const UPSTREAM: u32 = conf::NGX_HTTP_UPS_CONF;

directives!(static mut COMMANDS: [18] = {
    "cc_channel" (Main: HTTP | conf::NGX_CONF_1MORE, MAIN) => |cf, conf| settings::cc_channel(cf, &mut conf.cluster),
    "cc_node" (Main: HTTP | conf::NGX_CONF_TAKE1, MAIN) => |cf, conf| settings::cc_node(cf, &mut conf.cluster),
    "cc_super" (Main: HTTP | conf::NGX_CONF_1MORE, MAIN) => |cf, conf| settings::cc_super(cf, &mut conf.cluster),
    "cc_allow_node" (Main: HTTP | conf::NGX_CONF_1MORE, MAIN) => |cf, conf| settings::cc_allow_node(cf, &mut conf.cluster),
    "cc_secret_file" (Main: HTTP | conf::NGX_CONF_TAKE1, MAIN) => |cf, conf| settings::cc_secret_file(cf, &mut conf.cluster),
    "cc_cluster" (Main: HTTP | conf::NGX_CONF_TAKE1, MAIN) => |cf, conf| settings::cc_cluster(cf, &mut conf.cluster),
    "cc_invoke" (Location: IN_LOCATION | UP_TO_1, LOCATION) => |cf, conf| location::cc_invoke(cf, &mut conf.cluster),
    "cc_hub" (Location: IN_LOCATION | UP_TO_1, LOCATION) => |cf, conf| location::cc_hub(cf, &mut conf.cluster),
    "cc_cast" (Location: IN_LOCATION | UP_TO_2, LOCATION) => |cf, conf| location::cc_cast(cf, &mut conf.cluster),
    "cc_action" (Location: IN_LOCATION | conf::NGX_CONF_TAKE2, LOCATION) => |cf, conf| location::cc_action(cf, &mut conf.cluster),
    "cc_orders" (Location: ANY | conf::NGX_CONF_1MORE, LOCATION) => |cf, conf| location::cc_orders(cf, &mut conf.cluster),
    "cc_connect_timeout" (Location: ANY | conf::NGX_CONF_TAKE1, LOCATION) => |cf, conf| location::cc_connect_timeout(cf, &mut conf.cluster),
    "cc_send_timeout" (Location: ANY | conf::NGX_CONF_TAKE1, LOCATION) => |cf, conf| location::cc_send_timeout(cf, &mut conf.cluster),
    "cc_read_timeout" (Location: ANY | conf::NGX_CONF_TAKE1, LOCATION) => |cf, conf| location::cc_read_timeout(cf, &mut conf.cluster),
    "cc_status" (Location: IN_LOCATION | UP_TO_1, LOCATION) => |cf, conf| status::cc_status(cf, &mut conf.status),
    "cc_balancer" (Server: UPSTREAM | conf::NGX_CONF_ANY, SERVER) => |cf, conf| upstream::settings::cc_balancer(cf, &mut conf.upstream),
    "cc_balancer_tries" (Server: UPSTREAM | conf::NGX_CONF_TAKE1, SERVER) => |cf, conf| upstream::settings::cc_balancer_tries(cf, &mut conf.upstream),
    "cc_balancer_timeouts" (Server: UPSTREAM | conf::NGX_CONF_TAKE3, SERVER) => |cf, conf| upstream::settings::cc_balancer_timeouts(cf, &mut conf.upstream),
});

static mut CONTEXT: ffi::ngx_http_module_t = http_context::<Http>();

/// The exported table.
#[allow(non_upper_case_globals)]
pub static mut ngx_http_cc_module: ngx_module_t =
    http_table::<Http>(&raw mut CONTEXT, &raw mut COMMANDS as *mut ffi::ngx_command_t);
