//! nginx's error log as safe functions. Floors below `modules` return errors and do not call this,
//! but for the guard.

use std::fmt::Arguments;
use std::mem::MaybeUninit;

use ngx::ffi;

/// A level of `error_log`, named as nginx names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The operator's configuration cannot work.
    Emerg = ffi::NGX_LOG_EMERG as isize,
    /// A bug of ours, or memory ran out.
    Alert = ffi::NGX_LOG_ALERT as isize,
    /// The operator's fault at run time.
    Err = ffi::NGX_LOG_ERR as isize,
    /// A peer's fault.
    Warn = ffi::NGX_LOG_WARN as isize,
    /// Rare, worth knowing.
    Notice = ffi::NGX_LOG_NOTICE as isize,
    /// Flow that an operator may want to follow.
    Info = ffi::NGX_LOG_INFO as isize,
}

/// Writes to the log of the running cycle; before there is one, nothing is written.
pub fn cycle(level: Level, message: Arguments<'_>) {
    // SAFETY: ngx_cycle is set in main() before any module callback runs and replaced only by
    // ngx_init_cycle's caller; its log lives as long as the cycle.
    let log = unsafe { ffi::ngx_cycle.as_ref() }.map_or(std::ptr::null_mut(), |c| c.log);
    write(log, level, 0, message);
}

/// Writes to `log` with the text of `errno` appended where it is not 0.
pub(crate) fn write(log: *mut ffi::ngx_log_t, level: Level, errno: i32, message: Arguments<'_>) {
    // SAFETY: callers pass nginx's own log pointers or null.
    let enabled = unsafe { log.as_ref() }.is_some_and(|l| level as usize <= l.log_level);
    if enabled {
        let mut buf = [MaybeUninit::<u8>::uninit(); ngx::log::LOG_BUFFER_SIZE];
        let text = ngx::log::write_fmt(&mut buf, message);
        // SAFETY: `log` was checked above, `text` outlives the call.
        unsafe { ngx::log::log_error(level as ffi::ngx_uint_t, log, errno, text) };
    }
}
