//! `ngx_http_cc_module`: variables, and the Lua packages where the Lua module is loaded.

use ngx::ffi::{self, ngx_module_t};

use crate::modules::core::Core;
use crate::modules::{ipc, listen, lua};
use crate::ngx::conf::{Conf, ConfResult};
use crate::ngx::cycle::{self, Process};
use crate::ngx::module::{HttpModule, core_conf, http_context, http_table};
use crate::ngx::variable::{self, Variable};

/// The module.
pub struct Http;

impl HttpModule for Http {
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

    fn get() -> Option<String> {
        matches!(cycle::process(), Process::Worker | Process::Single)
            .then(|| cycle::worker_number().to_string())
    }
}

static mut CONTEXT: ffi::ngx_http_module_t = http_context::<Http>();

/// The exported table.
#[allow(non_upper_case_globals)]
pub static mut ngx_http_cc_module: ngx_module_t = http_table::<Http>(&raw mut CONTEXT);
