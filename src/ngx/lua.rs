//! The Lua module, found at run time: preloading packages into its VMs, waking its coroutines, and
//! the types of functions that Lua calls through FFI. Nothing here runs Lua code.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem;

use ngx::ffi;

use crate::ngx::conf::Conf;
use crate::ngx::request::Request;

/// A Lua package that is part of this library.
pub struct Package {
    /// What `require` is called with.
    pub name: &'static CStr,
    /// The name in tracebacks, `=NAME`.
    pub chunk: &'static CStr,
    /// Its text.
    pub source: &'static str,
}

type Loader = unsafe extern "C" fn(*mut c_void) -> c_int;

unsafe extern "C" {
    /// In the shim: a loader that may raise.
    fn cc_lua_package(
        n: u32,
        chunk: *const c_char,
        source: *const c_char,
        size: usize,
    ) -> Option<Loader>;
}

/// Lets `require` find `packages` in every VM of the Lua module. From preconfiguration: the module
/// keeps the names until it makes its first VM. False where the Lua module is not loaded.
pub fn preload<'p>(
    cf: &Conf<'_>,
    packages: impl Iterator<Item = &'p Package>,
) -> Result<bool, String> {
    type Add = unsafe extern "C" fn(*mut ffi::ngx_conf_t, *const c_char, Loader) -> ffi::ngx_int_t;

    // a library that only the previous cycle loaded still has its symbols
    if !cf.cycle().has_module("ngx_http_lua_module") {
        return Ok(false);
    }
    // SAFETY: nginx loads modules with RTLD_GLOBAL; the name is the documented C API of the Lua
    // module, of this very signature since it exists.
    let add = unsafe {
        let add = libc::dlsym(libc::RTLD_DEFAULT, c"ngx_http_lua_add_package_preload".as_ptr());
        mem::transmute::<*mut c_void, Option<Add>>(add)
    };
    let add =
        add.ok_or("the Lua module is too old: it has no ngx_http_lua_add_package_preload()")?;
    for (package, n) in packages.zip(0..) {
        let Package { name, chunk, source } = package;
        // SAFETY: the texts are static.
        let loader =
            unsafe { cc_lua_package(n, chunk.as_ptr(), source.as_ptr().cast(), source.len()) };
        let loader = loader.ok_or("more Lua packages than the shim has loaders")?;
        // SAFETY: cf is the conf of ngx_http_block, the name is static.
        if unsafe { add(cf.as_raw(), name.as_ptr(), loader) } != ffi::NGX_OK as ffi::ngx_int_t {
            return Err(format!("cannot preload Lua package {name:?}"));
        }
    }
    Ok(true)
}

/// A semaphore of lua-resty-core that a coroutine waits on, and the Lua module's function that
/// posts to it; both were given by Lua, which keeps the semaphore until it detaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Semaphore {
    sema: Address,
    post: Address,
}

/// An address that Lua hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Address(*mut c_void);

// SAFETY: an address is only used in the single-threaded process that it belongs to.
unsafe impl Send for Address {}

impl Address {
    /// No address.
    pub const NULL: Address = Address(std::ptr::null_mut());

    /// The running request, where Lua handed over that, as lua-resty-core does for its own calls.
    pub fn request(&self) -> Option<Request<'_>> {
        let raw = self.0.cast::<ffi::ngx_http_request_t>();
        // SAFETY: the address is the running request's or null; it lives while the call runs.
        (!raw.is_null()).then(|| unsafe { Request::from_raw(raw) })
    }
}

impl Semaphore {
    /// From `sem.sem` and `ngx_http_lua_ffi_sema_post`; None where one is NULL.
    pub fn new(sema: Address, post: Address) -> Option<Semaphore> {
        (!sema.0.is_null() && !post.0.is_null()).then_some(Semaphore { sema, post })
    }

    /// Wakes one waiting coroutine from a posted event; runs no Lua now.
    pub fn post(&self) {
        type Post = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
        // SAFETY: checked not to be NULL; the signature has not changed since 0.10.14.
        unsafe { mem::transmute::<*mut c_void, Post>(self.post.0)(self.sema.0, 1) };
    }
}

/// Tells once that a light thread is no longer at its work: when it says so itself, or when its
/// request ends in whatever way, `ngx.exit` included. It lives in that request's pool.
pub struct Guard {
    semaphore: Semaphore,
    ended: fn(u32),
    tag: u32,
    armed: bool,
}

impl Guard {
    /// Over the timer whose request is at `request`; posts to `semaphore` and calls `ended` with
    /// `tag`. None when memory ran out.
    pub fn over(
        request: Address,
        semaphore: Semaphore,
        ended: fn(u32),
        tag: u32,
    ) -> Option<Address> {
        // SAFETY: Lua hands over the running request, as lua-resty-core does for its own calls.
        let request = unsafe { request.0.cast::<ffi::ngx_http_request_t>().as_ref() }?;
        // SAFETY: the pool of a live request; the cleanup's data has the size asked for.
        unsafe {
            let cleanup = ffi::ngx_pool_cleanup_add(request.pool, size_of::<Guard>()).as_mut()?;
            cleanup.data.cast::<Guard>().write(Guard { semaphore, ended, tag, armed: true });
            cleanup.handler = Some(on_thread_end);
            Some(Address(cleanup.data))
        }
    }

    /// The light thread that `guard` was made for says that it is done.
    pub fn pass(guard: Address) {
        // SAFETY: Lua calls this in the light thread itself, so its request's pool still lives.
        if let Some(guard) = unsafe { guard.0.cast::<Guard>().as_mut() } {
            if mem::take(&mut guard.armed) {
                (guard.ended)(guard.tag);
                guard.semaphore.post();
            }
        }
    }
}

unsafe extern "C" fn on_thread_end(guard: *mut c_void) {
    crate::ngx::guard::guard("ipc receiver", (), || Guard::pass(Address(guard)));
}

/// Bytes that Lua may read until the next call of the function that handed them out.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Bytes {
    at: *const u8,
    len: usize,
}

// SAFETY: only read by Lua, in the single-threaded process that it belongs to.
unsafe impl Send for Bytes {}

impl Bytes {
    /// These.
    pub fn of(bytes: &[u8]) -> Bytes {
        Bytes { at: bytes.as_ptr(), len: bytes.len() }
    }

    /// How many.
    pub fn size(&self) -> usize {
        self.len
    }
}

/// Looks at the request that Lua runs for; None where that is none.
pub fn with_request<R>(request: Address, look: impl FnOnce(&Request<'_>) -> R) -> Option<R> {
    let r = request.0.cast::<ffi::ngx_http_request_t>();
    // SAFETY: Lua hands over the running request, as lua-resty-core does for its own calls.
    (!r.is_null()).then(|| look(&unsafe { Request::from_raw(r) }))
}

struct AtEnd {
    number: u32,
    end: fn(u32),
}

/// Calls `end(number)` when `request`, a timer's too, has ended. False when memory ran out.
pub fn on_request_end(request: Address, number: u32, end: fn(u32)) -> bool {
    // SAFETY: as in with_request; the cleanup's data has the size asked for, and nginx calls the
    // handler once, when the pool is destroyed.
    unsafe {
        let Some(r) = request.0.cast::<ffi::ngx_http_request_t>().as_ref() else { return false };
        let cleanup = ffi::ngx_pool_cleanup_add(r.pool, size_of::<AtEnd>());
        let Some(cleanup) = cleanup.as_mut() else { return false };
        cleanup.data.cast::<AtEnd>().write(AtEnd { number, end });
        cleanup.handler = Some(on_end);
    }
    true
}

unsafe extern "C" fn on_end(data: *mut c_void) {
    crate::ngx::guard::guard("request", (), || {
        // SAFETY: on_request_end wrote it; the pool calls once.
        let AtEnd { number, end } = unsafe { data.cast::<AtEnd>().read() };
        end(number);
    });
}

/// The bytes of a Lua string that an exported function was called with.
#[repr(transparent)]
pub struct Text(*const u8);

impl Text {
    /// All `len` of them, for as long as the call runs.
    pub fn bytes(&self, len: usize) -> &[u8] {
        if self.0.is_null() || len == 0 {
            return &[];
        }
        // SAFETY: only Lua makes one, from a string and its length, which the caller's stack keeps.
        unsafe { std::slice::from_raw_parts(self.0, len) }
    }
}

/// A C array that an exported function fills for Lua.
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T: Copy> Out<T> {
    /// Writes what `values` gives, at most `room`; how many that were.
    pub fn fill(&mut self, room: usize, values: impl Iterator<Item = T>) -> usize {
        if self.0.is_null() {
            return 0;
        }
        let mut filled = 0;
        for value in values.take(room) {
            // SAFETY: Lua allocated `room` elements; filled < room.
            unsafe { self.0.add(filled).write(value) };
            filled += 1;
        }
        filled
    }
}

/// A function that Lua calls through FFI: exported under its name, a panic becomes `failed`.
macro_rules! exported {
    ($( $(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $ret:ty, $failed:expr, $body:block )*) => {
        $(
            $(#[$doc])*
            #[allow(unsafe_code, unused_mut)]
            #[unsafe(no_mangle)]
            pub extern "C" fn $name($(mut $arg: $type),*) -> $ret {
                $crate::ngx::guard::guard(stringify!($name), $failed, move || $body)
            }
        )*
    };
}
pub(crate) use exported;
