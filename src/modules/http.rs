//! `ngx_http_cc_module`: variables, and the Lua packages where the Lua module is loaded.

use ngx::ffi::{self, ngx_module_t};

use crate::modules::core::Core;
use crate::modules::{ipc, listen, lua};
use crate::ngx::conf::{Conf, ConfResult, directives};
use crate::ngx::cycle::{self, Process};
use crate::ngx::http::{HttpModule, Inherit, http_context, http_table};
use crate::ngx::module::core_conf;
use crate::ngx::request::Request;
use crate::ngx::variable::{self, Variable};

/// The module.
pub struct Http;

/// The conf of http{}.
#[derive(Default)]
pub struct Main {}

/// The conf of a server{} or an upstream{}.
#[derive(Default)]
pub struct Server {}

impl Inherit for Server {
    fn inherit(&mut self, _: &mut Conf<'_>, _: &Self) -> ConfResult {
        Ok(())
    }
}

/// The conf of a location{}.
#[derive(Default)]
pub struct Location {}

impl Inherit for Location {
    fn inherit(&mut self, _: &mut Conf<'_>, _: &Self) -> ConfResult {
        Ok(())
    }
}

/// What a request keeps.
#[derive(Default)]
pub struct Context {}

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
        lua::preload(cf, core_conf::<Core>(cf.cycle()).and_then(|conf| conf.lua.as_ref()))
    }

    fn init_process() -> Result<(), String> {
        ipc::start()
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

directives!(static mut COMMANDS: [0] = {});

static mut CONTEXT: ffi::ngx_http_module_t = http_context::<Http>();

/// The exported table.
#[allow(non_upper_case_globals)]
pub static mut ngx_http_cc_module: ngx_module_t =
    http_table::<Http>(&raw mut CONTEXT, &raw mut COMMANDS as *mut ffi::ngx_command_t);
