//! The peer hooks of http upstreams, in two layers around what an upstream{} has.
//!
//! The inner layer stands in the place of the load balancing method, below the kept connections
//! whatever the order of the directives, and picks the address (`method`). The outer one stands above
//! all and sees every try, on new connections and on kept ones (`peer`). `conf` puts both in at
//! configuration time; `modules::upstream` decides.

mod conf;
mod layer;
mod method;
mod peer;
mod target;

use std::cell::{Cell, RefCell};
use std::ptr;
use std::rc::Rc;

use ngx::ffi;

use crate::ngx::http::HttpModule;
use crate::ngx::request::Request;
use crate::proto::upstream::tries::{End, State, Try, Wish};

pub use conf::{ask, below_keepalive, each, finish, limit, proxies};
use layer::Run;
use smallvec::SmallVec;
pub use target::{Target, Targets};

/// A module that balances http upstreams.
pub trait Balancer: HttpModule {
    /// What its conf of an upstream{} keeps for the hooks.
    fn hooks(conf: &Self::Server) -> &Hooks;

    /// What its part of a request keeps for the hooks.
    fn slot(context: &Self::Context) -> &Slot<Self>
    where
        Self: Sized;

    /// A request comes to the upstream. None, once the reason was logged, answers 500.
    fn begin(request: &Request<'_>, conf: &Self::Server, context: &Self::Context) -> Option<Begin>;

    /// The next address, for a request that chose; None when no peer is live.
    fn pick(conf: &Self::Server, context: &Self::Context) -> Option<Rc<Target>>;

    /// The peer that was picked last failed, or did not.
    fn ended(request: &Request<'_>, conf: &Self::Server, context: &Self::Context, failed: bool);

    /// Nobody has chosen a peer for a request in that upstream{}, which has no servers.
    fn unset(request: &Request<'_>, name: &str);

    /// A try is over, whoever picked its peer.
    fn tried(state: State);
}

/// What was decided when a request came.
pub struct Begin {
    /// How many addresses can be picked; none leaves it to the upstream's own method.
    pub chosen: Option<u32>,
    /// The tries asked for.
    pub wish: Wish,
    /// Where not all are the location's.
    pub timeouts: Option<Timeouts>,
}

/// Milliseconds to connect, send, read; none is the location's.
pub type Timeouts = [Option<usize>; 3];

/// A module's hooks in an upstream{}.
#[derive(Default)]
pub struct Hooks {
    /// A directive of the module stands there.
    asked: Cell<bool>,
    /// The load balancing method; none is round robin.
    method: Cell<ffi::ngx_http_upstream_init_pt>,
    /// What `keepalive` put above ours.
    above: Cell<ffi::ngx_http_upstream_init_pt>,
    /// peer.init of the method.
    inner: Cell<ffi::ngx_http_upstream_init_peer_pt>,
    /// peer.init of all below the outer layer.
    outer: Cell<ffi::ngx_http_upstream_init_peer_pt>,
    /// A stand-in where there may be no `server`.
    placeholder: Cell<bool>,
    /// Addresses of the `server` lines that are not down.
    servers: Cell<usize>,
}

impl Hooks {
    /// Whether the upstream has servers of its own.
    pub fn has_servers(&self) -> bool {
        !self.placeholder.get()
    }
}

/// The hooks' part of a request.
pub struct Slot<M: Balancer> {
    /// Of the upstream that the request is in, or was last.
    run: Cell<*mut Run<M>>,
    /// The peer that was picked, until its try is noted.
    picked: Cell<Option<Rc<Target>>>,
    /// Most requests have one.
    attempts: RefCell<SmallVec<[Attempt; 1]>>,
}

impl<M: Balancer> Default for Slot<M> {
    fn default() -> Self {
        Slot {
            run: Cell::new(ptr::null_mut()),
            picked: Cell::default(),
            attempts: RefCell::default(),
        }
    }
}

/// A try as it is noted while it runs.
struct Attempt {
    /// The method's, or the target's.
    name: *const ffi::ngx_str_t,
    /// Held while the request lives: nginx, too, keeps the name.
    target: Option<Rc<Target>>,
    /// In r->upstream_states.
    state: Option<u32>,
    /// `proxy_next_upstream`.
    listed: u32,
    end: Option<End>,
}

impl<M: Balancer> Slot<M> {
    /// The tries of `request`, whose slot this is, from the first.
    pub fn tries(&self, request: &Request<'_>) -> Vec<Try> {
        let Ok(attempts) = self.attempts.try_borrow() else { return Vec::new() };
        attempts.iter().map(|attempt| attempt.told(request)).collect()
    }
}

impl Attempt {
    fn told(&self, request: &Request<'_>) -> Try {
        // SAFETY: a target is held; a method's names live as long as the cycle or the request.
        let address = unsafe { self.name.as_ref() }
            .map_or_else(String::new, |name| String::from_utf8_lossy(name.as_bytes()).into_owned());
        let noted = self.noted(request);
        // nginx's own mark for "did not come so far"
        let time =
            |ms: Option<ffi::ngx_msec_t>| ms.filter(|ms| *ms != usize::MAX).map(|ms| ms as u64);
        Try {
            address,
            state: self.went(request),
            status: status(noted),
            connect: time(noted.map(|state| state.connect_time)),
            header: time(noted.map(|state| state.header_time)),
        }
    }

    /// How it went, as far as it has come.
    fn went(&self, request: &Request<'_>) -> State {
        let status = status(self.noted(request));
        Try::state(self.end, status, self.listed & mask(status) != 0)
    }

    /// What nginx notes of it.
    fn noted<'r>(&self, request: &'r Request<'_>) -> Option<&'r ffi::ngx_http_upstream_state_t> {
        // SAFETY: upstream_states is null or an array of ngx_http_upstream_state_t.
        let states = unsafe { request.get().upstream_states.as_ref()?.as_slice() };
        states.get(self.state? as usize)
    }
}

fn status(noted: Option<&ffi::ngx_http_upstream_state_t>) -> u16 {
    noted.and_then(|state| u16::try_from(state.status).ok()).unwrap_or(0)
}

/// The bit of a status in `proxy_next_upstream`.
fn mask(status: u16) -> u32 {
    match status {
        500 => ffi::NGX_HTTP_UPSTREAM_FT_HTTP_500,
        502 => ffi::NGX_HTTP_UPSTREAM_FT_HTTP_502,
        503 => ffi::NGX_HTTP_UPSTREAM_FT_HTTP_503,
        504 => ffi::NGX_HTTP_UPSTREAM_FT_HTTP_504,
        403 => ffi::NGX_HTTP_UPSTREAM_FT_HTTP_403,
        404 => ffi::NGX_HTTP_UPSTREAM_FT_HTTP_404,
        429 => ffi::NGX_HTTP_UPSTREAM_FT_HTTP_429,
        _ => 0,
    }
}
