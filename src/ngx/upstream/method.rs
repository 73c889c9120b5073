//! The inner layer, in the place of the load balancing method: gives the picked addresses, or the
//! method's as often as was asked for.

use std::ffi::c_void;
use std::ptr;
use std::rc::Rc;

use ngx::ffi;

use super::layer::{
    BUSY, Below, ERROR, Inner, Layer, OK, PeerConnection, Run, Upstream, in_request, wrap,
};
use super::{Balancer, Target};
use crate::ngx::guard::guard;
use crate::ngx::http::context;
use crate::ngx::request::Request;

/// peer.init of the inner layer: the kept connections, or the outer layer, call it in the method's
/// place.
pub(super) unsafe extern "C" fn inner_init<M: Balancer>(
    r: *mut ffi::ngx_http_request_t,
    us: *mut Upstream,
) -> ffi::ngx_int_t {
    guard("upstream", ERROR, || {
        // SAFETY: as in begin(), which has made the run.
        let request = unsafe { Request::from_raw(r) };
        let Some(kept) = context::<M>(&request) else { return ERROR };
        let run = M::slot(kept).run.get();
        // SAFETY: begin() has put this request's run there; pc belongs to the request.
        let (Some(state), pc) = (unsafe { (run.as_ref(), &raw mut (*(*r).upstream).peer) }) else {
            return ERROR;
        };
        let hooks = M::hooks(state.conf());
        if let Some(peers) = state.chosen {
            // SAFETY: as above; nobody else holds it now.
            let pc = unsafe { &mut *pc };
            Below::NOTHING.put(pc);
            wrap::<M, Inner>(pc, run, inner_get::<M>, inner_free::<M>);
            pc.tries = state.wish.tries(hooks.servers.get().max(peers as usize));
            return OK;
        }
        if hooks.placeholder.get() {
            M::unset(&request, &shown(us));
            return ERROR;
        }
        // SAFETY: what would have been called without us.
        let result = hooks.inner.get().map_or(ERROR, |init| unsafe { init(r, us) });
        if result == OK && state.wish.any() {
            // SAFETY: as above; init has returned.
            let pc = unsafe { &mut *pc };
            state.method.set(in_request(r, Below::of(pc)));
            if state.method.get().is_null() {
                return ERROR;
            }
            wrap::<M, Inner>(pc, run, inner_get::<M>, inner_free::<M>);
            pc.tries = state.wish.tries(pc.tries);
        }
        result
    })
}

fn shown(us: *mut Upstream) -> String {
    // SAFETY: callers pass the upstream of the running hook.
    String::from_utf8_lossy(unsafe { (*us).host.as_bytes() }).into_owned()
}

/// get of the inner layer: the address.
unsafe extern "C" fn inner_get<M: Balancer>(
    pc: *mut PeerConnection,
    data: *mut c_void,
) -> ffi::ngx_int_t {
    guard("upstream", ERROR, || {
        // SAFETY: as in get.
        let run = unsafe { &*data.cast::<Run<M>>() };
        if run.chosen.is_none() {
            // SAFETY: as in get.
            return unsafe { of_method::<M>(run, pc) };
        }
        // SAFETY: as in get; no layer above holds a reference while it calls down.
        let pc = unsafe { &mut *pc };
        pc.set_cached(0);
        pc.connection = ptr::null_mut();
        let picked = if run.again.get() { last(run) } else { None };
        let Some(target) = picked.or_else(|| M::pick(run.conf(), run.context())) else {
            // SAFETY: the upstream lives as long as the cycle.
            pc.name = unsafe { &raw mut (*run.upstream).host };
            return BUSY;
        };
        target.give(pc);
        // held there until the outer layer's get has noted it for as long as the request lives
        M::slot(run.context()).picked.set(Some(target));
        OK
    })
}

/// The peer of the last try.
fn last<M: Balancer>(run: &Run<M>) -> Option<Rc<Target>> {
    M::slot(run.context()).attempts.try_borrow().ok()?.last()?.target.clone()
}

/// The method's peer; begins the method anew when it has no more while tries are left.
///
/// # Safety
/// `pc` is the peer connection of the run's request.
unsafe fn of_method<M: Balancer>(run: &Run<M>, pc: *mut PeerConnection) -> ffi::ngx_int_t {
    let method = run.method.get();
    if method.is_null() {
        return ERROR;
    }
    // SAFETY: the caller's contract; init may change all of what is put back. The method's hooks were
    // kept by inner_init(), in the pool that the run lies in.
    unsafe {
        let result = (*method).get(pc);
        if result != BUSY || run.tried.get() == 0 {
            run.tried.set(run.tried.get() + 1);
            return result;
        }
        let Some(init) = M::hooks(run.conf()).inner.get() else { return result };
        let (above, tries) = (Below::of(&*pc), (*pc).tries);
        // nginx's methods take what they left there before for their own
        (*pc).data = ptr::null_mut();
        let begun = init(run.request, run.upstream);
        *method = Below::of(&*pc);
        above.put(&mut *pc);
        (*pc).tries = tries;
        if begun != OK {
            return begun;
        }
        let result = (*method).get(pc);
        run.tried.set(u32::from(result != BUSY));
        result
    }
}

/// free of the inner layer.
unsafe extern "C" fn inner_free<M: Balancer>(
    pc: *mut PeerConnection,
    data: *mut c_void,
    state: ffi::ngx_uint_t,
) {
    guard("upstream", (), || {
        // SAFETY: as in get.
        let (run, left) = unsafe { (&*data.cast::<Run<M>>(), (*pc).tries.saturating_sub(1)) };
        if run.chosen.is_none() {
            // SAFETY: as in get.
            unsafe { Inner::below(run).free(pc, state) };
        } else if !run.stale.get() {
            // SAFETY: a live request.
            let request = unsafe { Request::from_raw(run.request) };
            let failed = state & ffi::NGX_PEER_FAILED as usize != 0;
            M::ended(&request, run.conf(), run.context(), failed);
        }
        // a method with one server would say that there are no tries
        // SAFETY: as in get.
        unsafe { (*pc).tries = left };
    });
}
