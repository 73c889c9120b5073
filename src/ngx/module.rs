//! Module tables: one C trampoline per hook over a safe trait, so that `modules` holds no unsafe.

use std::ffi::{c_char, c_void};
use std::ptr;

use ngx::core::Pool;
use ngx::ffi;

use crate::ngx::conf::{ConfResult, failed};
use crate::ngx::cycle::{Cycle, Process, process};
use crate::ngx::guard::guard;
use crate::ngx::log::{self, Level};

/// A core module: its conf is of the main level, its hooks follow the life of the process.
pub trait CoreModule: 'static {
    /// The conf; one per cycle, dropped with the cycle's pool.
    type Conf: Default + 'static;

    /// The exported table.
    fn table() -> *mut ffi::ngx_module_t;

    /// After all directives were read. An error rolls the reload back.
    fn init_conf(_cycle: Cycle<'_>, _conf: &mut Self::Conf) -> ConfResult {
        Ok(())
    }

    /// In the master, once the new configuration is in force. nginx exits when this fails, so it
    /// cannot.
    fn init_module(_cycle: Cycle<'_>, _conf: &mut Self::Conf) {}

    /// In each worker (or the single process) before it serves. An error makes nginx give the
    /// worker up for good, so it is for what cannot heal.
    fn init_process(_cycle: Cycle<'_>, _conf: &mut Self::Conf) -> Result<(), String> {
        Ok(())
    }

    /// In each worker (or the single process) when it leaves in good order.
    fn exit_process(_cycle: Cycle<'_>, _conf: &mut Self::Conf) {}
}

/// `M`'s conf in `cycle`; None where this very library is not part of it. An old cycle may hold
/// another build of it, whose conf must not be touched.
pub fn core_conf<'a, M: CoreModule>(cycle: Cycle<'a>) -> Option<&'a mut M::Conf> {
    let mine = cycle.module(M::table())?;
    // SAFETY: index is set by ngx_count_modules/ngx_preinit_modules before create_conf, conf_ctx
    // has room for every module of the cycle, and what it holds there is create_conf's.
    unsafe { (*cycle.get().conf_ctx.add(mine.index)).cast::<M::Conf>().as_mut() }
}

/// The table's `ctx` for a core module named `name` (NUL-terminated).
pub const fn core_context<M: CoreModule>(name: &'static str) -> ffi::ngx_core_module_t {
    ffi::ngx_core_module_t {
        name: crate::ngx::conf::literal(name),
        create_conf: Some(create_conf::<M>),
        init_conf: Some(init_conf::<M>),
    }
}

/// The exported table of a core module.
pub const fn core_table<M: CoreModule>(
    context: *mut ffi::ngx_core_module_t,
    commands: *mut ffi::ngx_command_t,
) -> ffi::ngx_module_t {
    ffi::ngx_module_t {
        ctx: context.cast(),
        commands,
        type_: ffi::NGX_CORE_MODULE as ffi::ngx_uint_t,
        init_module: Some(init_module::<M>),
        init_process: Some(init_process::<M>),
        exit_process: Some(exit_process::<M>),
        ..ffi::ngx_module_t::default()
    }
}

/// Moves `value` into the pool; it is dropped when the pool is destroyed. None when memory ran out.
pub(crate) fn in_pool<T>(pool: *mut ffi::ngx_pool_t, value: T) -> Option<*mut T> {
    // SAFETY: callers pass the pool of a live cycle, conf or request.
    let pool = unsafe { Pool::from_ngx_pool(pool) };
    let value = pool.allocate(value);
    (!value.is_null()).then_some(value)
}

unsafe extern "C" fn create_conf<M: CoreModule>(cycle: *mut ffi::ngx_cycle_t) -> *mut c_void {
    guard("create_conf", ptr::null_mut(), || {
        // SAFETY: ngx_init_cycle passes the cycle it is building, with its pool.
        let pool = unsafe { (*cycle).pool };
        in_pool(pool, M::Conf::default()).map_or(ptr::null_mut(), <*mut M::Conf>::cast)
    })
}

unsafe extern "C" fn init_conf<M: CoreModule>(
    cycle: *mut ffi::ngx_cycle_t,
    conf: *mut c_void,
) -> *mut c_char {
    guard("init_conf", failed(), || {
        // SAFETY: as in create_conf; conf is what create_conf returned.
        let (cycle, conf) = unsafe { (Cycle::from_raw(cycle), conf.cast::<M::Conf>().as_mut()) };
        match conf.map(|conf| M::init_conf(cycle, conf)) {
            Some(Ok(())) => ptr::null_mut(),
            Some(Err(crate::ngx::conf::ConfError::Message(text))) => {
                cycle.log(Level::Emerg, format_args!("{text}"));
                failed()
            }
            _ => failed(),
        }
    })
}

fn with_conf<M: CoreModule, R>(
    cycle: *mut ffi::ngx_cycle_t,
    noun: &str,
    failed: R,
    hook: impl FnOnce(Cycle<'_>, &mut M::Conf) -> R,
) -> Option<R> {
    // SAFETY: nginx passes its current cycle to every hook.
    let cycle = unsafe { Cycle::from_raw(cycle) };
    core_conf::<M>(cycle).map(|conf| guard(noun, failed, || hook(cycle, conf)))
}

unsafe extern "C" fn init_module<M: CoreModule>(cycle: *mut ffi::ngx_cycle_t) -> ffi::ngx_int_t {
    with_conf::<M, _>(cycle, "init_module", (), M::init_module);
    ffi::NGX_OK as ffi::ngx_int_t
}

/// Runs `start` where requests are served; helper processes call the hooks too.
pub(crate) fn start(start: impl FnOnce() -> Result<(), String>) -> ffi::ngx_int_t {
    if !matches!(process(), Process::Worker | Process::Single) {
        return ffi::NGX_OK as ffi::ngx_int_t;
    }
    match guard("init_process", Err(String::from("panic, see above")), start) {
        Ok(()) => ffi::NGX_OK as ffi::ngx_int_t,
        Err(reason) => {
            log::cycle(Level::Emerg, format_args!("cc: worker cannot start: {reason}"));
            ffi::NGX_ERROR as ffi::ngx_int_t
        }
    }
}

unsafe extern "C" fn init_process<M: CoreModule>(cycle: *mut ffi::ngx_cycle_t) -> ffi::ngx_int_t {
    start(|| with_conf::<M, _>(cycle, "init_process", Ok(()), M::init_process).unwrap_or(Ok(())))
}

unsafe extern "C" fn exit_process<M: CoreModule>(cycle: *mut ffi::ngx_cycle_t) {
    if matches!(process(), Process::Worker | Process::Single) {
        with_conf::<M, _>(cycle, "exit_process", (), M::exit_process);
    }
}

/// The version of the nginx that runs.
pub fn nginx_version() -> String {
    let number = ffi::nginx_version as usize;
    format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000)
}
