//! An HTTP/1.1 client on nginx's event loop: calls to workers and nodes over connections that are
//! kept alive. It follows no redirect, and reads no more of an answer than it is allowed to.
//!
//! hyper was measured and left: a call and its answer cost it 1.7 us in memory, where httparse for
//! the heads and a reader of our own for the rest cost 0.65 us; in a worker, 2.8 us of user time a
//! call became 1.8 us, which a cast to several workers spends several times over.
//!
//! `desk.rs` knows the connections and calls of the process, `peer.rs` one connection, `link.rs` the
//! socket, `circuit.rs` what stands in for it when a worker calls itself, `half.rs` what nginx serves then; `proto/cluster/wire.rs` writes and reads messages, `proto/cluster/pool.rs` keeps the account.

use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use ngx::ffi;
use nix::errno::Errno;

use crate::ngx::peer::Peer;
use crate::proto::cluster::wire::Wanted;
use crate::proto::listen::Address;

pub use crate::proto::cluster::pool::PoolLimits;

mod circuit;
mod desk;
mod half;
mod link;
mod peer;

/// Whom to call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// TCP.
    Inet(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl From<&Endpoint> for Address {
    fn from(endpoint: &Endpoint) -> Address {
        match endpoint {
            Endpoint::Inet(address) => Address::Inet(*address),
            Endpoint::Unix(path) => Address::Unix(path.as_os_str().as_bytes().to_vec()),
        }
    }
}

/// How long a call may wait, in milliseconds; as in nginx, between two steps forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the connection.
    pub connect: u64,
    /// For room to write.
    pub send: u64,
    /// For bytes of the answer.
    pub read: u64,
}

/// A request. What calls of several have in common they share.
#[derive(Clone, Debug)]
pub struct Call {
    /// Where it goes.
    pub endpoint: Endpoint,
    /// Whether this process alone takes connections there: then they need not leave it.
    pub own: bool,
    /// The `Host` header.
    pub host: Rc<str>,
    /// Any method but CONNECT.
    pub method: Method,
    /// Path and query as they are sent; `proto/cluster/headers.rs` makes them so.
    pub target: Rc<str>,
    /// Headers; those that belong to a connection or frame a message are the client's own.
    pub headers: Rc<HeaderMap>,
    /// The body; empty: none.
    pub body: Bytes,
    /// The waits.
    pub timeouts: Timeouts,
    /// The longest body of an answer, in bytes, with the coding taken off.
    pub max_body: usize,
    /// How its headers are wanted.
    pub wanted: Wanted,
}

/// What came back, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The final status.
    pub status: StatusCode,
    /// All headers as they came, where a map is wanted.
    pub headers: HeaderMap,
    /// The same, where lines are.
    pub lines: Vec<u8>,
    /// The body, with the chunked coding taken off.
    pub body: Bytes,
}

/// What a call waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stage {
    /// The connection.
    #[error("connect")]
    Connect,
    /// Room to write.
    #[error("send")]
    Send,
    /// The answer.
    #[error("read")]
    Read,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens there, or nobody can be reached.
    #[error("connect() failed ({})", words(.0))]
    Refused(io::Error),
    /// The peer is too slow, or gone without a word.
    #[error("{0} timed out")]
    TimedOut(Stage),
    /// The peer closed the connection.
    #[error("connection closed before the answer was complete")]
    Closed,
    /// The answer is longer than allowed.
    #[error("the answer's body is too large")]
    TooLarge,
    /// The peer does not speak HTTP/1, or the call cannot be put in its terms.
    #[error("malformed: {0}")]
    Malformed(String),
    /// All connections are in use.
    #[error("too many connections")]
    Busy,
    /// The worker had to leave.
    #[error("cancelled")]
    Cancelled,
}

impl CallError {
    /// The status that says so to a client.
    pub fn status(&self) -> u16 {
        match self {
            CallError::TimedOut(_) => 504,
            CallError::Busy | CallError::Cancelled => 503,
            _ => 502,
        }
    }
}

/// An error of the kernel as nginx prints it.
fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => format!("{code}: {}", Errno::from_raw(code).desc()),
        None => error.to_string(),
    }
}

/// Whom a connection that nginx serves comes from, where it is a call of this very process: then the
/// kernel does not know.
pub(crate) fn caller_of(connection: &ffi::ngx_connection_t) -> Option<Peer> {
    half::caller_of(connection)
}

type Done = Box<dyn FnOnce(Result<Answer, CallError>)>;

/// A call on its way. Dropping it cancels the call, whose `done` is then dropped uncalled.
#[derive(Debug)]
#[must_use = "dropping it cancels the call"]
pub struct Pending {
    serial: u64,
}

impl Pending {
    /// Lets the call go on without an owner.
    pub fn detach(self) {
        std::mem::forget(self);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        desk::cancel(self.serial);
    }
}

/// Sends `call`, at once where a connection is ready. `done` is called once, from the event loop,
/// never from within this function; it may call anything here. A kept-alive connection that turns
/// out to be closed before a byte of the answer came is replaced by a fresh one once; a method that is
/// not idempotent is sent again only when the kernel knows that the peer never read it whole.
///
/// Only in a worker or the single process, from its event loop.
pub fn send(call: Call, done: impl FnOnce(Result<Answer, CallError>) + 'static) -> Pending {
    Pending { serial: desk::send(call, Box::new(done)) }
}
