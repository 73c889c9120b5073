//! An http module: confs of the three levels, inherited inwards, and what a request keeps for the
//! module. One C trampoline per hook over a safe trait, as in `module.rs`.

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::mem::{align_of, offset_of, size_of};
use std::ptr;

use ngx::ffi;

use crate::ngx::conf::{Conf, ConfResult, failed};
use crate::ngx::cycle::Cycle;
use crate::ngx::guard::guard;
use crate::ngx::module::{in_pool, start};
use crate::ngx::request::Request;

/// Where the confs of http{}, server{} (and upstream{}) and location{} stand, for directive tables.
pub const MAIN: usize = offset_of!(ffi::ngx_http_conf_ctx_t, main_conf);
/// See [`MAIN`].
pub const SERVER: usize = offset_of!(ffi::ngx_http_conf_ctx_t, srv_conf);
/// See [`MAIN`].
pub const LOCATION: usize = offset_of!(ffi::ngx_http_conf_ctx_t, loc_conf);

/// A conf that takes what it does not set itself from the level around it.
pub trait Inherit: Default + 'static {
    /// Fills in what is not set.
    fn inherit(&mut self, cf: &mut Conf<'_>, outer: &Self) -> ConfResult;
}

impl Inherit for () {
    fn inherit(&mut self, _: &mut Conf<'_>, (): &Self) -> ConfResult {
        Ok(())
    }
}

/// An http module. Its confs are dropped with the cycle's pool.
pub trait HttpModule: 'static {
    /// One per http{}.
    type Main: Default + 'static;
    /// One per server{} and per upstream{}, which inherits nothing.
    type Server: Inherit;
    /// One per location{}.
    type Location: Inherit;
    /// One per request that asks for it; kept over internal redirects, not shared with subrequests.
    type Context: Default + 'static;

    /// The exported table.
    fn table() -> *mut ffi::ngx_module_t;

    /// Before http{} is read.
    fn preconfiguration(cf: &mut Conf<'_>) -> ConfResult;

    /// After http{} was read and the confs were merged.
    fn postconfiguration(_cf: &mut Conf<'_>, _conf: &mut Self::Main) -> ConfResult {
        Ok(())
    }

    /// In each worker (or the single process) once its event loop can be used; before or after the
    /// Lua module's init_worker, as the libraries were loaded.
    fn init_process() -> Result<(), String>;
}

/// The table's `ctx` for an http module.
pub const fn http_context<M: HttpModule>() -> ffi::ngx_http_module_t {
    ffi::ngx_http_module_t {
        preconfiguration: Some(preconfiguration::<M>),
        postconfiguration: Some(postconfiguration::<M>),
        create_main_conf: Some(create::<M::Main>),
        init_main_conf: None,
        create_srv_conf: Some(create::<M::Server>),
        merge_srv_conf: Some(merge::<M::Server>),
        create_loc_conf: Some(create::<M::Location>),
        merge_loc_conf: Some(merge::<M::Location>),
    }
}

/// The exported table of an http module.
pub const fn http_table<M: HttpModule>(
    context: *mut ffi::ngx_http_module_t,
    commands: *mut ffi::ngx_command_t,
) -> ffi::ngx_module_t {
    ffi::ngx_module_t {
        ctx: context.cast(),
        commands,
        type_: ffi::NGX_HTTP_MODULE as ffi::ngx_uint_t,
        init_process: Some(init_process::<M>),
        ..ffi::ngx_module_t::default()
    }
}

/// `M`'s conf of http{}; None where the cycle has no http{} or this very library is not part of it.
pub fn main_conf<'a, M: HttpModule>(cycle: Cycle<'a>) -> Option<&'a mut M::Main> {
    let mine = cycle.module(M::table())?;
    // SAFETY: conf_ctx has room for every module; ngx_http_block puts its context there before any
    // directive of http{} is read, and create_main_conf's result at ctx_index.
    unsafe {
        let context = (*cycle.get().conf_ctx.add(ffi::ngx_http_module.index))
            .cast::<ffi::ngx_http_conf_ctx_t>()
            .as_ref()?;
        (*context.main_conf.add(mine.ctx_index)).cast::<M::Main>().as_mut()
    }
}

/// `M`'s conf in an array of confs of one level.
///
/// # Safety
/// `confs` is null or nginx's array of that level, and `T` is `M`'s conf of that level.
pub(crate) unsafe fn conf_of<'a, M: HttpModule, T>(confs: *mut *mut c_void) -> Option<&'a T> {
    if confs.is_null() {
        return None;
    }
    // SAFETY: the caller's contract; ctx_index is set before any conf is made.
    unsafe { (*confs.add((*M::table()).ctx_index)).cast::<T>().as_ref() }
}

/// Goes on with a parked request: with its body, or None when that could not be read.
pub(crate) type Then = Box<dyn FnOnce(Option<Vec<u8>>)>;

/// In the request's pool, with the entry by which the pool drops it.
struct Kept<M: HttpModule> {
    cleanup: ffi::ngx_pool_cleanup_t,
    request: *mut ffi::ngx_http_request_t,
    value: M::Context,
    then: Cell<Option<Then>>,
}

/// What `request` keeps for `M`; made at the first call. None when memory ran out.
pub fn context<'r, M: HttpModule>(request: &'r Request<'_>) -> Option<&'r M::Context> {
    found::<M>(request).map(|kept| &kept.value)
}

/// Keeps `then` until the request's body is there. False when memory ran out.
pub(crate) fn park<M: HttpModule>(request: &Request<'_>, then: Then) -> bool {
    found::<M>(request).map(|kept| kept.then.set(Some(then))).is_some()
}

/// What was kept by [`park`].
pub(crate) fn unpark<M: HttpModule>(request: &Request<'_>) -> Option<Then> {
    found::<M>(request)?.then.take()
}

fn found<'r, M: HttpModule>(request: &'r Request<'_>) -> Option<&'r Kept<M>> {
    let r = request.as_raw();
    // SAFETY: ctx has room for every http module (ngx_http_create_request, ngx_http_subrequest);
    // what stands at our index is a Kept<M> that lives as long as the pool. The reference's life is
    // bound to the wrapper, which callers hold for one callback.
    unsafe {
        let slot = (*r).ctx.add((*M::table()).ctx_index);
        if (*slot).is_null() {
            // an internal redirect has emptied ctx; what was kept is still in the pool
            *slot = kept::<M>(r).unwrap_or_else(|| keep::<M>(r)).cast();
        }
        (*slot).cast::<Kept<M>>().as_ref()
    }
}

/// # Safety
/// `r` is a live request.
unsafe fn kept<M: HttpModule>(r: *mut ffi::ngx_http_request_t) -> Option<*mut Kept<M>> {
    // SAFETY: the pool's list of cleanups is null-terminated; those with our handler hold a Kept<M>.
    unsafe {
        let mut cleanup = (*(*r).pool).cleanup;
        while let Some(entry) = cleanup.as_ref() {
            let ours = entry.handler.is_some_and(|handler| {
                ptr::fn_addr_eq(handler, drop_kept::<M> as unsafe extern "C" fn(*mut c_void))
            });
            let data = entry.data.cast::<Kept<M>>();
            // subrequests share their parent's pool
            if ours && (*data).request == r {
                return Some(data);
            }
            cleanup = entry.next;
        }
    }
    None
}

/// # Safety
/// `r` is a live request.
unsafe fn keep<M: HttpModule>(r: *mut ffi::ngx_http_request_t) -> *mut Kept<M> {
    const { assert!(align_of::<Kept<M>>() <= align_of::<usize>()) };
    // SAFETY: ngx_palloc gives room of that size, aligned for any word. The entry goes into the pool's
    // list as ngx_pool_cleanup_add would put it, without an allocation of its own; nginx calls the
    // handler once, when the pool is destroyed.
    unsafe {
        let pool = &mut *(*r).pool;
        let data = ffi::ngx_palloc(pool, size_of::<Kept<M>>()).cast::<Kept<M>>();
        if !data.is_null() {
            let cleanup = ffi::ngx_pool_cleanup_t {
                handler: Some(drop_kept::<M>),
                data: data.cast(),
                next: pool.cleanup,
            };
            let (value, then) = (M::Context::default(), Cell::new(None));
            data.write(Kept { cleanup, request: r, value, then });
            pool.cleanup = &raw mut (*data).cleanup;
        }
        data
    }
}

unsafe extern "C" fn drop_kept<M: HttpModule>(data: *mut c_void) {
    guard("request", (), || {
        // SAFETY: keep() wrote a Kept<M> there; the pool calls once.
        unsafe { ptr::drop_in_place(data.cast::<Kept<M>>()) };
    });
}

unsafe extern "C" fn create<T: Default>(cf: *mut ffi::ngx_conf_t) -> *mut c_void {
    guard("configuration", ptr::null_mut(), || {
        // SAFETY: ngx_http_block and its kin pass their conf, with the cycle's pool.
        let pool = unsafe { (*cf).pool };
        in_pool(pool, T::default()).map_or(ptr::null_mut(), <*mut T>::cast)
    })
}

unsafe extern "C" fn merge<T: Inherit>(
    cf: *mut ffi::ngx_conf_t,
    outer: *mut c_void,
    inner: *mut c_void,
) -> *mut c_char {
    guard("configuration", failed(), || {
        // SAFETY: both were made by create::<T>; ngx_http_merge_servers and _locations pass two
        // different ones.
        let (mut cf, outer, inner) =
            unsafe { (Conf::from_raw(cf), outer.cast::<T>().as_ref(), inner.cast::<T>().as_mut()) };
        match (outer, inner) {
            (Some(outer), Some(inner)) => {
                let result = inner.inherit(&mut cf, outer);
                cf.answer(result)
            }
            _ => failed(),
        }
    })
}

fn configured(
    cf: *mut ffi::ngx_conf_t,
    hook: impl FnOnce(&mut Conf<'_>) -> ConfResult,
) -> ffi::ngx_int_t {
    guard("configuration", ffi::NGX_ERROR as ffi::ngx_int_t, || {
        // SAFETY: ngx_http_block passes its conf.
        let mut cf = unsafe { Conf::from_raw(cf) };
        match hook(&mut cf) {
            Ok(()) => ffi::NGX_OK as ffi::ngx_int_t,
            result => {
                cf.answer(result);
                ffi::NGX_ERROR as ffi::ngx_int_t
            }
        }
    })
}

unsafe extern "C" fn preconfiguration<M: HttpModule>(cf: *mut ffi::ngx_conf_t) -> ffi::ngx_int_t {
    configured(cf, M::preconfiguration)
}

unsafe extern "C" fn postconfiguration<M: HttpModule>(cf: *mut ffi::ngx_conf_t) -> ffi::ngx_int_t {
    configured(cf, |cf| match main_conf::<M>(cf.cycle()) {
        Some(conf) => M::postconfiguration(cf, conf),
        None => Ok(()),
    })
}

unsafe extern "C" fn init_process<M: HttpModule>(_: *mut ffi::ngx_cycle_t) -> ffi::ngx_int_t {
    start(M::init_process)
}
