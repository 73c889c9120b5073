//! `ngx_cc_module`: the main-level directives and the life of the process, handed to the nouns.

use ngx::ffi::{self, ngx_module_t};

use crate::modules::ipc::{self, settings};
use crate::modules::{cluster, lifecycle, listen, lua, say};
use crate::ngx::conf::{self, ConfResult, directives};
use crate::ngx::cycle::Cycle;
use crate::ngx::module::{CoreModule, core_context, core_table};
use crate::proto::preload::Preload;

/// The main conf of a cycle.
#[derive(Default)]
pub struct Conf {
    /// What `listen ... per_worker` noted.
    pub listen: listen::Conf,
    /// The lives of its workers. It goes before what it uses.
    pub lifecycle: lifecycle::Conf,
    /// The cc_ipc_* and cc_zone settings and this generation's descriptors.
    pub ipc: ipc::Conf,
    /// `cc_lua_preload`, where it is set.
    pub lua: Option<Preload>,
}

/// The module.
pub struct Core;

impl CoreModule for Core {
    type Conf = Conf;

    fn table() -> *mut ngx_module_t {
        &raw mut ngx_cc_module
    }

    fn init_conf(cycle: Cycle<'_>, conf: &mut Conf) -> ConfResult {
        listen::init_conf(cycle, &mut conf.listen)?;
        cluster::init_conf(cycle);
        ipc::init_conf(cycle, &mut conf.ipc)?;
        lifecycle::init_conf(cycle, &mut conf.lifecycle)
    }

    fn init_module(cycle: Cycle<'_>, conf: &mut Conf) {
        listen::init_module(&mut conf.listen);
        lifecycle::leave_single();
        ipc::init_module(cycle, &mut conf.ipc);
        lifecycle::init_module(cycle, &conf.ipc, &mut conf.lifecycle);
    }

    fn init_process(cycle: Cycle<'_>, conf: &mut Conf) -> Result<(), String> {
        listen::init_process(&conf.listen);
        ipc::init_process(cycle, &mut conf.ipc)?;
        lifecycle::init_process(&conf.ipc, &conf.lifecycle)
    }

    fn exit_process(cycle: Cycle<'_>, conf: &mut Conf) {
        say::end();
        cluster::exit_process();
        lifecycle::exit_process(&mut conf.lifecycle);
        ipc::exit_process(cycle, &mut conf.ipc);
    }
}

const MAIN: u32 = conf::NGX_MAIN_CONF | conf::NGX_DIRECT_CONF;
const ONE: u32 = MAIN | conf::NGX_CONF_TAKE1;

directives!(static mut COMMANDS: [7] = {
    "cc_zone" (Conf: ONE, 0) => |cf, conf| settings::cc_zone(cf, &mut conf.ipc.settings),
    "cc_ipc_queue" (Conf: ONE, 0) => |cf, conf| settings::cc_ipc_queue(cf, &mut conf.ipc.settings),
    "cc_ipc_max_message" (Conf: ONE, 0) => |cf, conf| settings::cc_ipc_max_message(cf, &mut conf.ipc.settings),
    "cc_ipc_transport" (Conf: ONE, 0) => |cf, conf| settings::cc_ipc_transport(cf, &mut conf.ipc.settings),
    "cc_ipc_spin" (Conf: ONE, 0) => |cf, conf| settings::cc_ipc_spin(cf, &mut conf.ipc.settings),
    "cc_ipc_retain" (Conf: ONE, 0) => |cf, conf| settings::cc_ipc_retain(cf, &mut conf.ipc.settings),
    "cc_lua_preload" (Conf: MAIN | conf::NGX_CONF_1MORE, 0) => |cf, conf| lua::directive(cf, &mut conf.lua),
});

static mut CONTEXT: ffi::ngx_core_module_t = core_context::<Core>("cc\0");

/// The exported table.
#[allow(non_upper_case_globals)]
pub static mut ngx_cc_module: ngx_module_t =
    core_table::<Core>(&raw mut CONTEXT, &raw mut COMMANDS as *mut ffi::ngx_command_t);
