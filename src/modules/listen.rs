//! `ngx_cc_listen_module`: the word `per_worker` in `listen`, for http{} and stream{} alike.

use ngx::ffi::ngx_module_t;

use crate::ngx::conf::ConfResult;
use crate::ngx::cycle::Cycle;
use crate::ngx::variable::Variable;

/// What the directives noted.
#[derive(Default)]
pub struct Conf {}

/// One address per worker for each noted `listen`.
pub fn init_conf(_cycle: Cycle<'_>, _conf: &mut Conf) -> ConfResult {
    Ok(())
}

/// Leaves this worker its own sockets only.
pub fn init_process(_cycle: Cycle<'_>, _conf: &Conf) {}

/// `$cc_worker_port`: this worker's first per_worker port.
pub struct WorkerPort;

impl Variable for WorkerPort {
    const NAME: &'static str = "cc_worker_port";

    fn get() -> Option<String> {
        None
    }
}

/// The exported table.
#[allow(non_upper_case_globals)]
pub static mut ngx_cc_listen_module: ngx_module_t = ngx_module_t {
    ctx_index: 0,
    type_: ngx::ffi::NGX_CONF_MODULE as ngx::ffi::ngx_uint_t,
    ..ngx_module_t::default()
};
