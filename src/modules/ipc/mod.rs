//! Messages between workers: directives, the shared zone, the worker's part in it.


use crate::ngx::conf::{self, ConfError, ConfResult, directives};
use crate::ngx::cycle::Cycle;

/// The settings of one cycle.
#[derive(Default)]
pub struct Conf {
    zone: Option<usize>,
}

const MAIN: u32 = conf::NGX_MAIN_CONF | conf::NGX_DIRECT_CONF;

directives!(pub static mut COMMANDS: [super::core::Conf; 1] = {
    "cc_zone" (MAIN | conf::NGX_CONF_TAKE1, 0) => |cf, conf| size(cf, &mut conf.ipc.zone),
});

fn size(cf: &mut conf::Conf<'_>, value: &mut Option<usize>) -> ConfResult {
    if value.is_some() {
        return Err(ConfError::Directive(c"is duplicate"));
    }
    *value = cf.arg(1).and_then(conf::Conf::size);
    value.map(|_| ()).ok_or(ConfError::Directive(c"invalid value"))
}

/// x
pub fn init_conf(_cycle: Cycle<'_>, _conf: &mut Conf) -> ConfResult { Ok(()) }
/// x
pub fn init_module(_cycle: Cycle<'_>, _conf: &mut Conf) {}
/// x
pub fn init_process(_cycle: Cycle<'_>, _conf: &mut Conf) -> Result<(), String> { Ok(()) }
/// x
pub fn exit_process(_cycle: Cycle<'_>, _conf: &mut Conf) {}
