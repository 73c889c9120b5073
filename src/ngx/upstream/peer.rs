//! The outer layer of a request in an upstream: `begin` when it comes, then `get` and `free` for every
//! try, on a new connection or a kept one.

use std::cell::Cell;
use std::ffi::c_void;
use std::rc::Rc;
use std::{mem, ptr};

use ngx::ffi;

use super::layer::{
    BUSY, Below, Confs, DONE, ERROR, OK, Outer, PeerConnection, Run, Upstream, in_request, wrap,
};
use super::{Attempt, Balancer, Target, Timeouts};
use crate::ngx::guard::guard;
use crate::ngx::http::{conf_of, context};
use crate::ngx::request::Request;
use crate::proto::upstream::tries::End;

/// peer.init of the outer layer: nginx calls it when a request comes to the upstream.
pub(super) unsafe extern "C" fn begin<M: Balancer>(
    r: *mut ffi::ngx_http_request_t,
    us: *mut Upstream,
) -> ffi::ngx_int_t {
    guard("upstream", ERROR, || {
        // SAFETY: ngx_http_upstream_init_request passes the request and the upstream{}, whose conf
        // lives as long as the cycle.
        let (request, conf) =
            unsafe { (Request::from_raw(r), conf_of::<M, M::Server>((*us).srv_conf)) };
        let (Some(conf), Some(kept)) = (conf, context::<M>(&request)) else { return ERROR };
        let Some(begin) = M::begin(&request, conf, kept) else { return ERROR };
        let run = Run::<M> {
            request: r,
            upstream: us,
            context: kept,
            conf,
            chosen: begin.chosen,
            wish: begin.wish,
            below: Cell::new(Below::NOTHING),
            method: Cell::new(ptr::null_mut()),
            confs: Cell::new(ptr::null_mut()),
            left: Cell::new(usize::MAX),
            tried: Cell::new(0),
            stale: Cell::new(false),
            again: Cell::new(false),
            spent: Cell::new(false),
        };
        let run = in_request(r, run);
        if run.is_null() {
            return ERROR;
        }
        M::slot(kept).run.set(run);
        M::slot(kept).picked.take();
        let Some(outer) = M::hooks(conf).outer.get() else { return ERROR };
        // SAFETY: what nginx would have called without us.
        let result = unsafe { outer(r, us) };
        if result != OK {
            return result;
        }
        // SAFETY: the request is in an upstream; run was made above, and nothing else holds it.
        unsafe {
            if let Some(timeouts) = begin.timeouts {
                (*run).confs.set(with_timeouts(r, timeouts));
                if (*run).confs.get().is_null() {
                    return ERROR;
                }
            }
            let pc = &mut (*(*r).upstream).peer;
            (*run).below.set(Below::of(pc));
            wrap::<M, Outer>(pc, run, get::<M>, free::<M>);
        }
        OK
    })
}

/// The location's conf and a copy of it with other timeouts: nginx reads them there, and a
/// location's conf is that of all its requests. Null when memory ran out.
///
/// # Safety
/// `r` is in an upstream.
unsafe fn with_timeouts(r: *mut ffi::ngx_http_request_t, timeouts: Timeouts) -> *mut Confs {
    let [connect, send, read] = timeouts;
    // SAFETY: the caller's contract; conf is the location's, plain data.
    unsafe {
        let own = (*(*r).upstream).conf;
        let mut copy = ptr::read(own);
        copy.connect_timeout = connect.unwrap_or(copy.connect_timeout);
        copy.send_timeout = send.unwrap_or(copy.send_timeout);
        copy.read_timeout = read.unwrap_or(copy.read_timeout);
        in_request(r, Confs { own, copy })
    }
}

/// get of the outer layer: a try begins.
unsafe extern "C" fn get<M: Balancer>(
    pc: *mut PeerConnection,
    data: *mut c_void,
) -> ffi::ngx_int_t {
    guard("upstream", ERROR, || {
        // SAFETY: ngx_event_connect_peer passes the peer connection and the data that begin() set.
        let (run, tries) = unsafe { (&*data.cast::<Run<M>>(), (*pc).tries) };
        let again = tries > run.left.replace(usize::MAX);
        run.again.set(again);
        run.spent.set(run.spent.get() || again);
        run.stale.set(false);
        // SAFETY: the run's request is in the upstream that pc belongs to.
        let mut result = unsafe {
            run.use_own_conf();
            let result = run.below.get().get(pc);
            run.use_request_conf();
            result
        };
        // SAFETY: as above; the layers below have returned.
        let peer = unsafe { &mut *pc };
        if again && result == DONE {
            // the other kept ones may be as broken; only a new one tells whether the peer lives
            close_kept(peer);
            result = OK;
        }
        // SAFETY: a live request.
        let request = unsafe { Request::from_raw(run.request) };
        let slot = M::slot(run.context());
        let attempt = Attempt::begun(run, peer, result, slot.picked.take());
        if attempt.end.is_some() {
            M::tried(attempt.went(&request));
        }
        if let Ok(mut attempts) = slot.attempts.try_borrow_mut() {
            attempts.push(attempt);
        }
        result
    })
}

/// Closes the connection that the kept ones gave, as they close theirs.
fn close_kept(pc: &mut PeerConnection) {
    let connection = mem::replace(&mut pc.connection, ptr::null_mut());
    pc.set_cached(0);
    // SAFETY: ngx_http_upstream_get_keepalive_peer has let go of it and nginx has not seen it; its
    // pool holds nothing of the request.
    unsafe {
        let Some(c) = connection.as_mut() else { return };
        #[cfg(ngx_feature = "ssl")]
        if let Some(ssl) = c.ssl.as_mut() {
            ssl.set_no_wait_shutdown(1);
            ssl.set_no_send_shutdown(1);
            ffi::ngx_ssl_shutdown(c);
        }
        if !c.pool.is_null() {
            ffi::ngx_destroy_pool(c.pool);
        }
        ffi::ngx_close_connection(c);
    }
}

impl Attempt {
    fn begun<M: Balancer>(
        run: &Run<M>,
        pc: &PeerConnection,
        result: ffi::ngx_int_t,
        target: Option<Rc<Target>>,
    ) -> Attempt {
        // SAFETY: ngx_http_upstream_connect has pushed this try's state; conf is the upstream
        // request's, and host that of the upstream{}.
        unsafe {
            let r = &*run.request;
            let states = r.upstream_states.as_ref();
            let state = states.and_then(|states| (states.nelts as u32).checked_sub(1));
            let name = if pc.name.is_null() { &raw const (*run.upstream).host } else { pc.name };
            let end = (result == BUSY || result == ERROR).then_some(End::Failed);
            Attempt {
                name,
                target,
                state,
                // its bits are those of NGX_HTTP_UPSTREAM_FT_*, which all fit
                listed: (*(*r.upstream).conf).next_upstream as u32,
                end,
            }
        }
    }
}

/// free of the outer layer: a try is over.
unsafe extern "C" fn free<M: Balancer>(
    pc: *mut PeerConnection,
    data: *mut c_void,
    state: ffi::ngx_uint_t,
) {
    guard("upstream", (), || {
        // SAFETY: as in get.
        let (run, end, stale) = unsafe {
            let run = &*data.cast::<Run<M>>();
            (run, end(run, &*pc, state), is_stale(run, &*pc, state))
        };
        run.stale.set(stale);
        // SAFETY: as in get.
        let peer = unsafe {
            run.use_own_conf();
            run.below.get().free(pc, state);
            run.use_request_conf();
            &mut *pc
        };
        if stale && run.spent.get() {
            // nginx gives a free retry for each kept connection that is broken: one is enough
            peer.set_cached(0);
        }
        run.left.set(if stale { peer.tries } else { usize::MAX });
        // SAFETY: a live request.
        let request = unsafe { Request::from_raw(run.request) };
        if let Ok(mut attempts) = M::slot(run.context()).attempts.try_borrow_mut() {
            if let Some(attempt) = attempts.last_mut() {
                // one that found no peer was over at once
                let over = attempt.end.replace(end).is_some();
                if !over {
                    M::tried(attempt.went(&request));
                }
            }
        }
    });
}

/// What nginx says of a try, and what it does not say: a response that broke off.
fn end<M: Balancer>(run: &Run<M>, pc: &PeerConnection, state: ffi::ngx_uint_t) -> End {
    if state & ffi::NGX_PEER_FAILED as usize != 0 {
        return End::Failed;
    }
    if state & ffi::NGX_PEER_NEXT as usize != 0 {
        return End::Next;
    }
    // SAFETY: the request is in an upstream until free has returned; a connection has both events,
    // a pipe belongs to the upstream.
    let broken = unsafe {
        let Some(c) = pc.connection.as_ref() else { return End::Failed };
        let u = &*(*run.request).upstream;
        let (read, write) = (&*c.read, &*c.write);
        let failed = read.error() + read.timedout() + write.error() + write.timedout() > 0;
        let cut = match u.pipe.as_ref() {
            Some(pipe) => {
                let early =
                    pipe.upstream_eof() != 0 && pipe.upstream_done() == 0 && pipe.length > 0;
                pipe.upstream_error() != 0 || early
            }
            None => u.headers_in.status_n > 0 && read.eof() != 0 && u.length > 0,
        };
        failed || cut
    };
    if broken { End::Failed } else { End::Left }
}

/// Whether a kept connection was closed by the peer before it answered, as far as can be known.
fn is_stale<M: Balancer>(run: &Run<M>, pc: &PeerConnection, state: ffi::ngx_uint_t) -> bool {
    if state & ffi::NGX_PEER_FAILED as usize == 0 || pc.cached() == 0 {
        return false;
    }
    // SAFETY: as in end().
    unsafe {
        let timedout = pc
            .connection
            .as_ref()
            .is_some_and(|c| (*c.read).timedout() != 0 || (*c.write).timedout() != 0);
        !timedout && (*(*run.request).upstream).headers_in.status_n == 0
    }
}
