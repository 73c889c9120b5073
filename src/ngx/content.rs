//! Content handlers: a location's own, nginx's answers to them, and a request that is parked while
//! its body arrives or others are asked.

use std::cell::{Cell, RefCell};
use std::mem::size_of;
use std::ptr;
use std::rc::Rc;

use ngx::ffi;

use crate::ngx::conf::{Conf, ConfError};
use crate::ngx::guard::guard;
use crate::ngx::http::{HttpModule, park, unpark};
use crate::ngx::request::Request;
use crate::ngx::respond::{Response, send};

/// Serves the requests of a location.
pub trait ContentHandler: 'static {
    /// Answers, or says who will.
    fn handle(request: &Request<'_>) -> Outcome;
}

/// What a content handler hands back to nginx.
#[must_use]
pub struct Outcome(ffi::ngx_int_t);

/// A content handler that nginx calls.
#[derive(Clone, Copy)]
pub struct Handler(unsafe extern "C" fn(*mut ffi::ngx_http_request_t) -> ffi::ngx_int_t);

const OK: ffi::ngx_int_t = ffi::NGX_OK as ffi::ngx_int_t;
const DONE: ffi::ngx_int_t = ffi::NGX_DONE as ffi::ngx_int_t;
const SPECIAL: ffi::ngx_int_t = ffi::NGX_HTTP_SPECIAL_RESPONSE as ffi::ngx_int_t;
const FAILED: ffi::ngx_int_t = ffi::NGX_HTTP_INTERNAL_SERVER_ERROR as ffi::ngx_int_t;

unsafe extern "C" fn content<H: ContentHandler>(r: *mut ffi::ngx_http_request_t) -> ffi::ngx_int_t {
    guard("content", FAILED, || {
        // SAFETY: ngx_http_core_content_phase passes the request that it serves.
        let request = unsafe { Request::from_raw(r) };
        H::handle(&request).0
    })
}

impl Conf<'_> {
    /// The core's conf of the location that is read.
    fn core_location(&mut self) -> Option<&mut ffi::ngx_http_core_loc_conf_t> {
        // SAFETY: in http{} ctx is a ngx_http_conf_ctx_t with loc_conf of every http module
        // (ngx_http_core_location), among them the core's.
        unsafe {
            let context = (*self.as_raw()).ctx.cast::<ffi::ngx_http_conf_ctx_t>().as_ref()?;
            let index = ffi::ngx_http_core_module.ctx_index;
            (*context.loc_conf.add(index)).cast::<ffi::ngx_http_core_loc_conf_t>().as_mut()
        }
    }

    /// Makes `H` serve the location.
    pub fn serve<H: ContentHandler>(&mut self) -> Result<Handler, ConfError> {
        let core = self.core_location().ok_or(ConfError::Logged)?;
        core.handler = Some(content::<H>);
        Ok(Handler(content::<H>))
    }

    /// Whether somebody serves the location that is read: `by` where that is given.
    pub fn is_served(&mut self, by: Option<Handler>) -> bool {
        let Some(handler) = self.core_location().and_then(|core| core.handler) else {
            return false;
        };
        by.is_none_or(|by| ptr::fn_addr_eq(by.0, handler))
    }

    /// Runs `name TEXT` of another module as if it stood here, and takes the content handler that
    /// it has set. The location has none before and none after.
    pub fn borrowed_handler(
        &mut self,
        name: &'static std::ffi::CStr,
        text: &'static std::ffi::CStr,
    ) -> Result<Option<Handler>, ConfError> {
        self.delegate_to(name, text)?;
        let core = self.core_location().ok_or(ConfError::Logged)?;
        Ok(core.handler.take().map(Handler))
    }

    /// Tells one server{} from another, for as long as the configuration is read.
    pub fn server_key(&self) -> usize {
        // SAFETY: as in core_location; a location's context has its server's srv_conf.
        let context = unsafe { (*self.as_raw()).ctx.cast::<ffi::ngx_http_conf_ctx_t>().as_ref() };
        context.map_or(0, |context| context.srv_conf as usize)
    }
}

impl Request<'_> {
    /// Sends `response`; a body that the client sends is not read.
    pub fn respond(&self, response: Response) -> Outcome {
        let r = self.as_raw();
        // SAFETY: a live request in its content phase.
        let rc = unsafe { ffi::ngx_http_discard_request_body(r) };
        if rc != OK {
            return Outcome(rc);
        }
        // SAFETY: as above; nothing was sent yet.
        Outcome(unsafe { send(r, response) })
    }

    /// nginx's own page for that status.
    pub fn refuse(&self, status: u16) -> Outcome {
        Outcome(ffi::ngx_int_t::from(status as i16))
    }

    /// Starts over at `uri` of this server; `@name` is a named location. The arguments are that
    /// one's, too, but for a named location, which has the request's own.
    pub fn redirect(&self, uri: &[u8], args: &[u8]) -> Outcome {
        let (Some(mut uri), Some(mut args)) = (self.copied(uri), self.copied(args)) else {
            return Outcome(FAILED);
        };
        let named = uri.as_bytes().starts_with(b"@");
        // SAFETY: a live request in its content phase, the texts are in its pool.
        Outcome(unsafe {
            if named {
                ffi::ngx_http_named_location(self.as_raw(), &mut uri)
            } else {
                ffi::ngx_http_internal_redirect(self.as_raw(), &mut uri, &mut args)
            }
        })
    }

    /// Lets another module's content handler serve the request.
    pub fn hand_over(&self, handler: Handler) -> Outcome {
        // SAFETY: a content handler of the running cycle, called as ngx_http_core_content_phase
        // would.
        Outcome(unsafe { (handler.0)(self.as_raw()) })
    }

    /// Parks the request, reads what the client sends as its body, and goes on with `then`.
    /// client_max_body_size bounds the body.
    pub fn read_body<M: HttpModule>(
        &self,
        then: impl FnOnce(Parked, Vec<u8>) + 'static,
    ) -> Outcome {
        let r = self.as_raw();
        let Some(seat) = Seat::new(r) else { return Outcome(FAILED) };
        let parked = Parked(Rc::clone(&seat));
        let ready = move |body: Option<Vec<u8>>| match body {
            Some(body) => then(parked, body),
            None => parked.respond(Response::status(500)),
        };
        if !park::<M>(self, Box::new(ready)) {
            return Outcome(FAILED);
        }
        seat.inside.set(true);
        // SAFETY: a live request in its content phase. The handler is called once, now or later.
        let rc = unsafe { ffi::ngx_http_read_client_request_body(r, Some(body_is_there::<M>)) };
        seat.inside.set(false);
        if rc >= SPECIAL {
            // never called; what waits must not answer in nginx's place
            seat.request.set(ptr::null_mut());
            drop(unpark::<M>(self));
            return Outcome(rc);
        }
        Outcome(DONE)
    }
}

unsafe extern "C" fn body_is_there<M: HttpModule>(r: *mut ffi::ngx_http_request_t) {
    guard("request body", (), || {
        // SAFETY: nginx passes the request whose body was read; it holds a reference for us.
        let request = unsafe { Request::from_raw(r) };
        // SAFETY: as above. From now on only the client's going is of interest on the connection.
        unsafe {
            if r == (*r).main {
                (*r).read_event_handler = Some(ffi::ngx_http_test_reading);
            }
            (*r).write_event_handler = Some(ffi::ngx_http_request_empty_handler);
        }
        if let Some(then) = unpark::<M>(&request) {
            then(request.body());
        }
    });
}

/// Where a parked request is, until it is answered or its client has gone.
struct Seat {
    request: Cell<*mut ffi::ngx_http_request_t>,
    /// Its content handler still runs: nginx goes on by itself afterwards.
    inside: Cell<bool>,
    gone: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl Seat {
    fn new(r: *mut ffi::ngx_http_request_t) -> Option<Rc<Seat>> {
        let seat = Rc::new(Seat {
            request: Cell::new(r),
            inside: Cell::new(false),
            gone: RefCell::default(),
        });
        // SAFETY: a live request. ngx_http_cleanup_add gives room for a pointer in its pool; nginx
        // calls the handler once, when the (main) request is freed or terminated.
        unsafe {
            let cleanup = ffi::ngx_http_cleanup_add(r, size_of::<*const Seat>()).as_mut()?;
            cleanup.data.cast::<*const Seat>().write(Rc::into_raw(Rc::clone(&seat)));
            cleanup.handler = Some(on_gone);
        }
        Some(seat)
    }

    fn with<R>(&self, look: impl FnOnce(&Request<'_>) -> R) -> Option<R> {
        let r = self.request.get();
        // SAFETY: set to null before nginx frees it.
        (!r.is_null()).then(|| look(&unsafe { Request::from_raw(r) }))
    }
}

unsafe extern "C" fn on_gone(data: *mut std::ffi::c_void) {
    guard("request", (), || {
        // SAFETY: Seat::new wrote it; nginx calls once.
        let seat = unsafe { Rc::from_raw(data.cast::<*const Seat>().read()) };
        seat.request.set(ptr::null_mut());
        let gone = seat.gone.borrow_mut().take();
        if let Some(gone) = gone {
            gone();
        }
    });
}

/// A request that waits for its answer. Dropped without one it is answered with 500.
pub struct Parked(Rc<Seat>);

impl Parked {
    /// For what shall end when nobody waits for the answer any more.
    pub fn wait(&self) -> Wait {
        Wait(Rc::clone(&self.0))
    }

    /// Looks at the request; None when it is no more.
    pub fn with<R>(&self, look: impl FnOnce(&Request<'_>) -> R) -> Option<R> {
        self.0.with(look)
    }

    /// Answers.
    pub fn respond(self, response: Response) {
        self.finish(|r| {
            // SAFETY: finish() passes a live request; nothing was sent yet.
            unsafe { send(r, response) }
        });
    }

    /// Serves it as a content handler would, from its beginning.
    pub fn serve(self, handler: impl FnOnce(&Request<'_>) -> Outcome) {
        self.finish(|r| {
            // SAFETY: as above.
            handler(&unsafe { Request::from_raw(r) }).0
        });
    }

    fn finish(&self, end: impl FnOnce(*mut ffi::ngx_http_request_t) -> ffi::ngx_int_t) {
        let r = self.0.request.replace(ptr::null_mut());
        let gone = self.0.gone.borrow_mut().take();
        if r.is_null() {
            return;
        }
        // SAFETY: the request lives: its cleanup would have set null. It and its connection are
        // left alone once nginx is told of the end, but for ngx_http_run_posted_requests, which
        // looks first whether the connection was destroyed.
        unsafe {
            let connection = (*r).connection;
            let rc = end(r);
            ffi::ngx_http_finalize_request(r, rc);
            if !self.0.inside.get() {
                ffi::ngx_http_run_posted_requests(connection);
            }
        }
        drop(gone);
    }
}

/// That somebody waits for the answer to a parked request.
pub struct Wait(Rc<Seat>);

impl Wait {
    /// Looks at the request; None when it is no more.
    pub fn with<R>(&self, look: impl FnOnce(&Request<'_>) -> R) -> Option<R> {
        self.0.with(look)
    }

    /// Drops `held` when the request is answered or gone.
    pub fn hold(self, held: impl Sized + 'static) {
        if !self.0.request.get().is_null() {
            *self.0.gone.borrow_mut() = Some(Box::new(move || drop(held)));
        }
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.finish(|_| FAILED);
    }
}
