//! What both layers share: the request's state in an upstream, hooks that stand upon others, and those
//! that only pass on.

use std::cell::Cell;
use std::ffi::c_void;
use std::{mem, ptr};

use ngx::ffi;

use super::Balancer;
use crate::proto::upstream::tries::Wish;

pub(super) type Upstream = ffi::ngx_http_upstream_srv_conf_t;
pub(super) type PeerConnection = ffi::ngx_peer_connection_t;

pub(super) const OK: ffi::ngx_int_t = ffi::NGX_OK as ffi::ngx_int_t;
pub(super) const ERROR: ffi::ngx_int_t = ffi::NGX_ERROR as ffi::ngx_int_t;
pub(super) const BUSY: ffi::ngx_int_t = ffi::NGX_BUSY as ffi::ngx_int_t;
pub(super) const DONE: ffi::ngx_int_t = ffi::NGX_DONE as ffi::ngx_int_t;

/// A request in an upstream; lives in the request's pool, and is small, for most requests need no
/// more of that than one block.
pub struct Run<M: Balancer> {
    pub(super) request: *mut ffi::ngx_http_request_t,
    pub(super) upstream: *mut Upstream,
    /// What the module keeps of the request, in the same pool.
    pub(super) context: *const M::Context,
    /// The module's conf of the upstream, which lives as long as the cycle.
    pub(super) conf: *const M::Server,
    /// Addresses are picked; otherwise the method's.
    pub(super) chosen: Option<u32>,
    pub(super) wish: Wish,
    /// What the outer layer stands on.
    pub(super) below: Cell<Below>,
    /// The load balancing method, where it is wrapped, else null.
    pub(super) method: Cell<*mut Below>,
    /// Null where the timeouts are the location's.
    pub(super) confs: Cell<*mut Confs>,
    /// How many tries were left after a kept connection had turned out to be broken: one more at the
    /// next is nginx's free retry. [`usize::MAX`] if it was not broken.
    pub(super) left: Cell<usize>,
    /// Tries since the method was begun.
    pub(super) tried: Cell<u32>,
    /// Its kept connection turned out to be broken.
    pub(super) stale: Cell<bool>,
    /// This try is the free one: the same peer, on a new connection.
    pub(super) again: Cell<bool>,
    /// There was a free one.
    pub(super) spent: Cell<bool>,
}

/// The location's conf, and the one with this request's timeouts.
pub(super) struct Confs {
    pub(super) own: *mut ffi::ngx_http_upstream_conf_t,
    pub(super) copy: ffi::ngx_http_upstream_conf_t,
}

/// A layer's hooks as they were before they were wrapped.
#[derive(Clone, Copy)]
pub(super) struct Below {
    data: *mut c_void,
    get: ffi::ngx_event_get_peer_pt,
    free: ffi::ngx_event_free_peer_pt,
    notify: ffi::ngx_event_notify_peer_pt,
    #[cfg(any(ngx_feature = "ssl", ngx_feature = "compat"))]
    set_session: ffi::ngx_event_set_peer_session_pt,
    #[cfg(any(ngx_feature = "ssl", ngx_feature = "compat"))]
    save_session: ffi::ngx_event_save_peer_session_pt,
}

impl Below {
    pub(super) const NOTHING: Below = Below {
        data: ptr::null_mut(),
        get: None,
        free: None,
        notify: None,
        #[cfg(any(ngx_feature = "ssl", ngx_feature = "compat"))]
        set_session: None,
        #[cfg(any(ngx_feature = "ssl", ngx_feature = "compat"))]
        save_session: None,
    };

    pub(super) fn of(pc: &PeerConnection) -> Below {
        Below {
            data: pc.data,
            get: pc.get,
            free: pc.free,
            notify: pc.notify,
            #[cfg(any(ngx_feature = "ssl", ngx_feature = "compat"))]
            set_session: pc.set_session,
            #[cfg(any(ngx_feature = "ssl", ngx_feature = "compat"))]
            save_session: pc.save_session,
        }
    }

    pub(super) fn put(self, pc: &mut PeerConnection) {
        pc.data = self.data;
        pc.get = self.get;
        pc.free = self.free;
        pc.notify = self.notify;
        #[cfg(any(ngx_feature = "ssl", ngx_feature = "compat"))]
        {
            pc.set_session = self.set_session;
            pc.save_session = self.save_session;
        }
    }

    /// # Safety
    /// `pc` is the peer connection of the request that the layer was made for.
    pub(super) unsafe fn get(&self, pc: *mut PeerConnection) -> ffi::ngx_int_t {
        // SAFETY: the caller's contract; each layer set data for its own get.
        self.get.map_or(ERROR, |get| unsafe { get(pc, self.data) })
    }

    /// # Safety
    /// As for `get`.
    pub(super) unsafe fn free(&self, pc: *mut PeerConnection, state: ffi::ngx_uint_t) {
        if let Some(free) = self.free {
            // SAFETY: as in get.
            unsafe { free(pc, self.data, state) };
        }
    }
}

/// Which of a run's layers a hook belongs to.
pub(super) trait Layer: 'static {
    fn below<M: Balancer>(run: &Run<M>) -> Below;
}
pub(super) struct Outer;
pub(super) struct Inner;
impl Layer for Outer {
    fn below<M: Balancer>(run: &Run<M>) -> Below {
        run.below.get()
    }
}
impl Layer for Inner {
    fn below<M: Balancer>(run: &Run<M>) -> Below {
        // SAFETY: null, or made by inner_init() in the pool that the run lies in.
        unsafe { run.method.get().as_ref() }.map_or(Below::NOTHING, |method| *method)
    }
}

/// Puts a layer's hooks in the place of `below`.
pub(super) fn wrap<M: Balancer, L: Layer>(
    pc: &mut PeerConnection,
    run: *mut Run<M>,
    get: unsafe extern "C" fn(*mut PeerConnection, *mut c_void) -> ffi::ngx_int_t,
    free: unsafe extern "C" fn(*mut PeerConnection, *mut c_void, ffi::ngx_uint_t),
) {
    pc.data = run.cast();
    pc.get = Some(get);
    pc.free = Some(free);
    // nginx asks whether there is one
    pc.notify = pc.notify.map(|_| notify::<M, L> as _);
    #[cfg(any(ngx_feature = "ssl", ngx_feature = "compat"))]
    {
        pc.set_session = Some(set_session::<M, L>);
        pc.save_session = Some(save_session::<M, L>);
    }
}
/// Moves plain data into the request's pool; null when memory ran out.
pub(super) fn in_request<T>(r: *mut ffi::ngx_http_request_t, value: T) -> *mut T {
    const { assert!(!mem::needs_drop::<T>() && align_of::<T>() <= align_of::<usize>()) };
    // SAFETY: the request's pool lives as long as the request; ngx_palloc aligns for any word.
    unsafe {
        let place = ffi::ngx_palloc((*r).pool, size_of::<T>()).cast::<T>();
        if !place.is_null() {
            place.write(value);
        }
        place
    }
}
impl<M: Balancer> Run<M> {
    /// What the module keeps of the request.
    pub(super) fn context(&self) -> &M::Context {
        // SAFETY: begin() put it there; it lives as long as the pool that the run lies in.
        unsafe { &*self.context }
    }

    /// The module's conf of the upstream.
    pub(super) fn conf(&self) -> &M::Server {
        // SAFETY: begin() put it there; a cycle outlives its requests.
        unsafe { &*self.conf }
    }

    /// Gives the location's conf to the layers below, which know it by its address.
    ///
    /// # Safety
    /// The request is in the run's upstream.
    pub(super) unsafe fn use_own_conf(&self) {
        // SAFETY: null, or in the pool that the run lies in.
        if let Some(confs) = unsafe { self.confs.get().as_ref() } {
            // SAFETY: the caller's contract.
            unsafe { (*(*self.request).upstream).conf = confs.own };
        }
    }

    /// Gives nginx this request's, whose timeouts it reads.
    ///
    /// # Safety
    /// As for `use_own_conf`.
    pub(super) unsafe fn use_request_conf(&self) {
        let confs = self.confs.get();
        if !confs.is_null() {
            // SAFETY: the caller's contract; confs lies in the pool that the run lies in.
            unsafe { (*(*self.request).upstream).conf = &raw mut (*confs).copy };
        }
    }
}
unsafe extern "C" fn notify<M: Balancer, L: Layer>(
    pc: *mut PeerConnection,
    data: *mut c_void,
    kind: ffi::ngx_uint_t,
) {
    // SAFETY: as in get; the layer below had one, see wrap().
    unsafe {
        let below = L::below(&*data.cast::<Run<M>>());
        if let Some(notify) = below.notify {
            notify(pc, below.data, kind);
        }
    }
}

#[cfg(any(ngx_feature = "ssl", ngx_feature = "compat"))]
unsafe extern "C" fn set_session<M: Balancer, L: Layer>(
    pc: *mut PeerConnection,
    data: *mut c_void,
) -> ffi::ngx_int_t {
    // SAFETY: as in get. A picked peer has no session to resume.
    unsafe {
        let below = L::below(&*data.cast::<Run<M>>());
        below.set_session.map_or(OK, |set_session| set_session(pc, below.data))
    }
}

#[cfg(any(ngx_feature = "ssl", ngx_feature = "compat"))]
unsafe extern "C" fn save_session<M: Balancer, L: Layer>(
    pc: *mut PeerConnection,
    data: *mut c_void,
) {
    // SAFETY: as in get.
    unsafe {
        let below = L::below(&*data.cast::<Run<M>>());
        if let Some(save_session) = below.save_session {
            save_session(pc, below.data);
        }
    }
}
