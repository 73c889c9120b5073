//! The cycle (one loaded configuration) and the process that runs it.

use std::marker::PhantomData;
use std::ptr;
use std::sync::OnceLock;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

use ngx::ffi;

use crate::ngx::log::{self, Level};

/// What this process is, as far as hooks care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// `master_process off`: configuration and requests in one process.
    Single,
    /// Owns the listening sockets, forks the workers.
    Master,
    /// Serves requests.
    Worker,
    /// Cache manager, cache loader, or a signalling command; its `ngx_worker` means nothing.
    Other,
}

/// The kind of the running process.
pub fn process() -> Process {
    // SAFETY: written once by main() or ngx_spawn_process before hooks of this process run.
    match unsafe { ffi::ngx_process } as u32 {
        ffi::NGX_PROCESS_SINGLE => Process::Single,
        ffi::NGX_PROCESS_MASTER => Process::Master,
        ffi::NGX_PROCESS_WORKER => Process::Worker,
        _ => Process::Other,
    }
}

/// nginx's worker number of this process, 0..N-1 in its generation; 0 in a single process.
pub fn worker_number() -> usize {
    // SAFETY: set by ngx_worker_process_init's caller before any init_process hook.
    unsafe { ffi::ngx_worker }
}

/// This process's id.
pub fn pid() -> i32 {
    // SAFETY: set by main() and again by ngx_spawn_process in the child.
    unsafe { ffi::ngx_pid }
}

/// Cores that this process may run on.
pub fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// The cycle whose configuration is in force; None before main() has made its stand-in.
pub fn current() -> Option<Cycle<'static>> {
    // SAFETY: ngx_cycle is set by main() before any module's callback runs; a worker never replaces
    // it, and callers of other processes use the answer within one callback.
    let raw = unsafe { ffi::ngx_cycle };
    // SAFETY: as above.
    (!raw.is_null()).then(|| unsafe { Cycle::from_raw(raw) })
}

/// The monotonic clock, in nanoseconds.
pub fn nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or(TimeSpec::new(0, 0));
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// The event loop's clock, in milliseconds: the time when this turn began.
pub fn milliseconds() -> usize {
    // SAFETY: updated by ngx_time_update in this single-threaded process.
    unsafe { ffi::ngx_current_msec }
}

/// Whether this worker was told to finish (quit or reload).
pub fn exiting() -> bool {
    // SAFETY: a plain flag of this single-threaded process.
    unsafe { ffi::ngx_exiting != 0 || ffi::ngx_quit != 0 || ffi::ngx_terminate != 0 }
}

/// Whether this run is `nginx -t`.
pub fn testing() -> bool {
    // SAFETY: set once while main() reads its options.
    unsafe { ffi::ngx_test_config != 0 }
}

/// `ngx_cycle_t` for as long as one callback runs.
#[derive(Clone, Copy)]
pub struct Cycle<'a> {
    raw: *mut ffi::ngx_cycle_t,
    scope: PhantomData<&'a ffi::ngx_cycle_t>,
}

impl<'a> Cycle<'a> {
    /// # Safety
    /// `raw` is a cycle that nginx keeps for `'a`.
    pub(crate) unsafe fn from_raw(raw: *mut ffi::ngx_cycle_t) -> Self {
        Cycle { raw, scope: PhantomData }
    }

    pub(crate) fn as_raw(self) -> *mut ffi::ngx_cycle_t {
        self.raw
    }

    pub(crate) fn get(self) -> &'a ffi::ngx_cycle_t {
        // SAFETY: from_raw's contract.
        unsafe { &*self.raw }
    }

    /// The cycle that this one replaces, where this very library is loaded there.
    pub fn old(self) -> Option<Cycle<'a>> {
        // SAFETY: old_cycle is kept until the new cycle is in force; null in the first cycle's
        // stand-in made by main().
        let old = unsafe { self.get().old_cycle.as_ref() }?;
        (!old.conf_ctx.is_null() && !old.modules.is_null())
            .then(|| Cycle { raw: self.get().old_cycle, scope: PhantomData })
    }

    /// The modules of this cycle, in the order their hooks run.
    pub(crate) fn modules(self) -> impl Iterator<Item = &'a ffi::ngx_module_t> {
        let mut next = self.get().modules;
        std::iter::from_fn(move || {
            // SAFETY: cycle->modules is a null-terminated array of module pointers
            // (ngx_cycle_modules).
            let module = unsafe { (*next).as_ref() }?;
            // SAFETY: the terminator was not reached, so the next element exists.
            next = unsafe { next.add(1) };
            Some(module)
        })
    }

    /// That module, where it is part of this cycle.
    pub(crate) fn module(self, table: *const ffi::ngx_module_t) -> Option<&'a ffi::ngx_module_t> {
        // its index is where it stands, unless modules were put in front of it: this is asked often
        // SAFETY: a module's table is a static of this library; while the cycle is made, modules may
        // not be there yet.
        let (index, modules) = unsafe { ((*table).index, self.get().modules) };
        if index < self.get().modules_n && !modules.is_null() {
            // SAFETY: modules_n of them are there (ngx_cycle_modules, ngx_add_module).
            let there = unsafe { *modules.add(index) };
            if ptr::eq(there, table) {
                // SAFETY: not null, for it is the table.
                return unsafe { there.as_ref() };
            }
        }
        self.modules().find(|module| ptr::eq(*module, table))
    }

    /// Whether a module of that name is part of this cycle.
    pub fn has_module(self, name: &str) -> bool {
        self.modules().any(|module| {
            // SAFETY: ngx_add_module and ngx_preinit_modules set each name to a C string.
            !module.name.is_null()
                && unsafe { std::ffi::CStr::from_ptr(module.name) }.to_bytes() == name.as_bytes()
        })
    }

    /// Whether http{} was read, or is being read.
    pub fn has_http(self) -> bool {
        // SAFETY: conf_ctx has room for every module; ngx_http_block fills its place first.
        unsafe { !(*self.get().conf_ctx.add(ffi::ngx_http_module.index)).is_null() }
    }

    /// How many workers this cycle will have: `worker_processes`, or 1 with `master_process off`.
    /// Final only after the core module's init_conf.
    pub fn workers(self) -> usize {
        // SAFETY: the core module's conf is created before any directive is read.
        let core = unsafe {
            (*self.get().conf_ctx.add(ffi::ngx_core_module.index))
                .cast::<ffi::ngx_core_conf_t>()
                .as_ref()
        };
        core.map_or(
            1,
            |core| if core.master == 0 { 1 } else { core.worker_processes.max(1) as usize },
        )
    }

    /// Logs at `level`.
    pub fn log(self, level: Level, message: std::fmt::Arguments<'_>) {
        log::write(self.get().log, level, 0, message);
    }

    /// Logs at `level` with the text of `errno` appended.
    pub fn log_errno(self, level: Level, errno: i32, message: std::fmt::Arguments<'_>) {
        log::write(self.get().log, level, errno, message);
    }
}
