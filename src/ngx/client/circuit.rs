//! A worker's connection to the socket that it listens on itself. nginx's half is a connection as
//! accept() makes them, but what one half writes the other reads from memory: a call that stays in
//! the process costs no write and no read. A socket pair stands behind it, over which nothing is
//! sent: it tells each half that the other has closed, and answers whoever asks the descriptor.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::rc::Rc;

use ngx::ffi;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::Endpoint;
use super::half::{self, Half};
use crate::ngx::listening::{self, Bound};
use crate::ngx::peer::{self, Peer};
use crate::ngx::{cycle, event};

/// The most that waits in one direction, in bytes; whoever writes more waits for the reader.
pub(super) const ROOM: usize = 64 * 1024;
/// Calls that are begun in one millisecond before the event loop looks at all else: it might never,
/// where each answer makes another call.
const CALLS_A_TURN: usize = 64;
/// What is kept of it while no call is on the way, in bytes.
const KEPT: usize = 4 * 1024;

/// What nginx takes for a failure.
pub(super) const ERROR: isize = ffi::NGX_ERROR as isize;

thread_local! {
    /// Calls that were begun in the millisecond in which the last one was; the clock stands still within
    /// a turn.
    static BEGUN: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    /// Where something else than plain requests is expected.
    static REFUSED: RefCell<Vec<*mut ffi::ngx_listening_t>> = const { RefCell::new(Vec::new()) };
}

/// Both directions, and who is at the ends; null once it has closed.
pub(super) struct Circuit {
    from: Option<Peer>,
    call: RefCell<VecDeque<u8>>,
    answer: RefCell<VecDeque<u8>>,
    caller: Cell<*mut ffi::ngx_connection_t>,
    server: Cell<*mut ffi::ngx_connection_t>,
}

/// The socket that `to` reaches, where it is this process's, and this process is sure to be told when
/// the other half closes.
pub(super) fn bound_to(to: &Endpoint) -> Option<Bound> {
    // SAFETY: set when the event module was initialised in this process.
    if event::reports_level() || unsafe { ffi::ngx_use_epoll_rdhup } == 0 {
        return None;
    }
    let bound = listening::bound_to(&to.into())?;
    let refused = REFUSED.with_borrow(|refused| refused.contains(&bound.as_raw()));
    (!refused).then_some(bound)
}

/// The caller's descriptor and the server's.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::Stream, None, flags)
}

impl Circuit {
    /// Lets nginx serve the half of `fd` like a connection that it accepted from `bound`. None: it
    /// has no room for it, or expects something else than plain requests there. nginx may close idle
    /// connections to make room, so nothing of ours may be borrowed meanwhile.
    ///
    /// # Safety
    /// `caller` is live and ours, with its handlers set.
    pub(super) unsafe fn serve(
        bound: &Bound,
        fd: OwnedFd,
        caller: *mut ffi::ngx_connection_t,
    ) -> Option<Rc<Circuit>> {
        let (from, at) = bound.ends();
        let circuit = Rc::new(Circuit {
            // SAFETY: it is a socket address of that length.
            from: unsafe { peer::of_sockaddr(from.as_ptr().cast(), from.len() as u32) },
            call: RefCell::default(),
            answer: RefCell::default(),
            caller: Cell::new(caller),
            server: Cell::new(ptr::null_mut()),
        });
        let listening = bound.as_raw();
        // SAFETY: as ngx_event_accept() does it, in a worker whose event module is initialised; the
        // listening socket is the cycle's and outlives the connection. What is allocated is the
        // connection's pool's, which is destroyed with it.
        unsafe {
            let raw = fd.as_raw_fd();
            let connection = ffi::ngx_get_connection(raw, &raw mut (*listening).log);
            let c = connection.as_mut()?;
            let _: RawFd = fd.into_raw_fd();
            let pool = ffi::ngx_create_pool((*listening).pool_size, &raw mut (*listening).log);
            c.pool = pool;
            if pool.is_null() || half::prepare(c, listening, (&from, &at), &circuit).is_none() {
                ffi::ngx_close_connection(connection);
                if !pool.is_null() {
                    ffi::ngx_destroy_pool(pool);
                }
                return None;
            }
            circuit.server.set(connection);
            listening::count_accepted();
            if let Some(handler) = (*listening).handler {
                handler(connection);
            }
        }
        // the pool's cleanup has taken it out if the handler closed it
        let server = circuit.server.get();
        // SAFETY: it is live then.
        if !server.is_null() && !unsafe { half::waits_for_request(server) } {
            circuit.leave();
            REFUSED.with_borrow_mut(|refused| refused.push(listening));
            // SAFETY: as ngx_http_init_connection() ends one that it cannot serve.
            unsafe { ffi::ngx_http_close_connection(server) };
            return None;
        }
        (!server.is_null()).then_some(circuit)
    }

    /// The caller closes its half.
    pub(super) fn leave(&self) {
        self.caller.set(ptr::null_mut());
    }

    /// Writes what there is room for; None: the other half is closed.
    pub(super) fn ask(&self, parts: &[IoSlice<'_>]) -> Option<usize> {
        // SAFETY: null, or live until its pool's cleanup.
        let server = unsafe { self.server.get().as_mut() }?;
        let mut call = self.call.borrow_mut();
        let written = parts.iter().map(|part| put(&mut call, part)).sum();
        if written > 0 {
            // SAFETY: the connection's own event.
            unsafe { wake(server.read, is_one_too_many()) };
        }
        Some(written)
    }

    /// Reads what has come.
    pub(super) fn hear(&self, into: &mut [u8]) -> usize {
        let mut answer = self.answer.borrow_mut();
        let read = take(&mut answer, into);
        // SAFETY: as in ask; the event is the connection's own.
        unsafe {
            if let (1.., Some(server)) = (read, self.server.get().as_mut()) {
                resume(server.write);
            }
        }
        read
    }

    /// Whether something of the answer has not been read.
    pub(super) fn has_more(&self) -> bool {
        !self.answer.borrow().is_empty()
    }

    /// Whether something of the call has not been read.
    pub(super) fn unread(&self) -> bool {
        !self.call.borrow().is_empty()
    }

    /// Keeps less room, for nothing goes on.
    pub(super) fn rest(&self) {
        self.call.borrow_mut().shrink_to(KEPT);
        self.answer.borrow_mut().shrink_to(KEPT);
    }
}

/// Whether so many calls were begun in this turn that the next one waits for the next one.
fn is_one_too_many() -> bool {
    let now = cycle::milliseconds();
    let (at, calls) = BEGUN.get();
    let calls = if at == now { calls + 1 } else { 1 };
    BEGUN.set((now, calls));
    calls > CALLS_A_TURN
}

/// As much as there is room for.
pub(super) fn put(queue: &mut VecDeque<u8>, bytes: &[u8]) -> usize {
    let length = bytes.len().min(ROOM.saturating_sub(queue.len()));
    queue.extend(bytes.get(..length).unwrap_or_default());
    length
}

/// As much as there is.
fn take(queue: &mut VecDeque<u8>, into: &mut [u8]) -> usize {
    let mut read = 0;
    // a queue that has gone round is read in two pieces
    while let Ok(n @ 1..) = queue.read(into.get_mut(read..).unwrap_or_default()) {
        read += n;
    }
    read
}

/// Something is to be read at `event`'s connection, or written after all: `later`, after the loop has
/// looked at the others, or in this turn.
///
/// # Safety
/// `event` is a live connection's.
unsafe fn wake(event: *mut ffi::ngx_event_t, later: bool) {
    // SAFETY: the caller's contract; the queues are statics of nginx, and ngx_close_connection()
    // takes the event out of them.
    unsafe {
        (*event).set_ready(1);
        let queue = if later {
            &raw mut ffi::ngx_posted_next_events
        } else {
            &raw mut ffi::ngx_posted_events
        };
        ffi::ngx_post_event(event, queue);
    }
}

/// There is room again for who waited for it.
///
/// # Safety
/// As for [`wake`].
unsafe fn resume(write: *mut ffi::ngx_event_t) {
    // SAFETY: the caller's contract.
    unsafe {
        if (*write).ready() == 0 {
            wake(write, true);
        }
    }
}

impl Circuit {
    /// Whom nginx takes the call's connection to come from.
    pub(super) fn from(&self) -> Option<Peer> {
        self.from
    }

    /// nginx has closed its half.
    pub(super) fn server_left(&self) {
        self.server.set(ptr::null_mut());
    }

    /// Where the answer is put.
    pub(super) fn answers(&self) -> RefMut<'_, VecDeque<u8>> {
        self.answer.borrow_mut()
    }

    /// For nginx: bytes of the call, 0 at its end, or AGAIN.
    ///
    /// # Safety
    /// `c` is the live half of this circuit.
    pub(super) unsafe fn read(&self, c: &mut Half, into: &mut [u8]) -> isize {
        let read = take(&mut self.call.borrow_mut(), into);
        // SAFETY: the events are the connections' own; the caller is null or live.
        unsafe {
            let event = &mut *c.read;
            let ended = self.caller.get().is_null() || event.pending_eof() != 0;
            if read < into.len() && !(ended && read > 0) {
                event.set_ready(0);
            }
            if read == 0 && !into.is_empty() {
                event.set_eof(u32::from(ended));
                return if ended { 0 } else { ffi::NGX_AGAIN as isize };
            }
            if let Some(caller) = self.caller.get().as_mut() {
                resume(caller.write);
            }
        }
        read as isize
    }

    /// For nginx: so much of the answer was written, and no more goes where it is `full`. None: nobody
    /// is there to read it.
    ///
    /// # Safety
    /// As for [`Circuit::read`].
    pub(super) unsafe fn wrote(&self, c: &mut Half, sent: usize, full: bool) -> Option<()> {
        // SAFETY: as in read.
        unsafe {
            let Some(caller) = self.caller.get().as_mut() else {
                (*c.write).set_error(1);
                return None;
            };
            c.sent += sent as i64;
            if full {
                (*c.write).set_ready(0);
            }
            if sent > 0 {
                wake(caller.read, false);
            }
        }
        Some(())
    }
}
