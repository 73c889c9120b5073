//! A safe view of `ngx_http_request_t` for as long as one callback runs.

use std::fmt;
use std::marker::PhantomData;

use ngx::ffi;

use crate::ngx::http::{HttpModule, conf_of};
use crate::ngx::log::{self, Level};

/// A request of the running callback.
pub struct Request<'a> {
    raw: *mut ffi::ngx_http_request_t,
    scope: PhantomData<&'a mut ffi::ngx_http_request_t>,
}

impl<'a> Request<'a> {
    /// # Safety
    /// `raw` is a request that nginx keeps for `'a`.
    pub(crate) unsafe fn from_raw(raw: *mut ffi::ngx_http_request_t) -> Self {
        Request { raw, scope: PhantomData }
    }

    pub(crate) fn as_raw(&self) -> *mut ffi::ngx_http_request_t {
        self.raw
    }

    pub(crate) fn get(&self) -> &ffi::ngx_http_request_t {
        // SAFETY: from_raw's contract.
        unsafe { &*self.raw }
    }

    /// `M`'s conf of the location that serves the request.
    pub fn location<M: HttpModule>(&self) -> Option<&'a M::Location> {
        // SAFETY: loc_conf is nginx's array of the location's confs.
        unsafe { conf_of::<M, M::Location>(self.get().loc_conf) }
    }

    /// `M`'s conf of the server that serves the request.
    pub fn server<M: HttpModule>(&self) -> Option<&'a M::Server> {
        // SAFETY: srv_conf is nginx's array of the server's confs.
        unsafe { conf_of::<M, M::Server>(self.get().srv_conf) }
    }

    /// `M`'s conf of http{}.
    pub fn main<M: HttpModule>(&self) -> Option<&'a M::Main> {
        // SAFETY: main_conf is nginx's array of the confs of http{}.
        unsafe { conf_of::<M, M::Main>(self.get().main_conf) }
    }

    /// Logs at `level`, with the request's connection and client as nginx adds them.
    pub fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        // SAFETY: a request has a connection, whose log lives as long.
        let log = unsafe { (*self.get().connection).log };
        log::write(log, level, 0, message);
    }

    /// A copy of `bytes` in the request's pool; None when memory ran out.
    pub(crate) fn copied(&self, bytes: &[u8]) -> Option<ffi::ngx_str_t> {
        // SAFETY: the request's pool lives as long as the request.
        let data = unsafe { ffi::ngx_pnalloc(self.get().pool, bytes.len()) }.cast::<u8>();
        if data.is_null() {
            return None;
        }
        // SAFETY: data has room for bytes.len() bytes and is new.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len()) };
        Some(ffi::ngx_str_t { len: bytes.len(), data })
    }
}
