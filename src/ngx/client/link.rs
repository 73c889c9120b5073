//! A non-blocking socket in nginx's event loop. Readiness is nginx's flags on the connection's
//! events, so a call costs one write and one read.

use std::cell::{Cell, OnceCell};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::rc::Rc;
use std::task::Poll;

use ngx::ffi;
use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrIn6, UnixAddr, sockopt,
};

use super::Endpoint;
use super::circuit::{self, Circuit};
use crate::ngx::event;

/// Why there is no connection, known at once.
pub(super) enum NoLink {
    /// worker_connections or file descriptors are used up.
    Full,
    /// The kernel refuses.
    Refused(io::Error),
}

/// One connection. Closed when it is told so, at the latest when it is dropped.
pub(super) struct Link {
    connection: Cell<*mut ffi::ngx_connection_t>,
    connected: Cell<bool>,
    blocked: Cell<bool>,
    moved: Cell<bool>,
    received: Cell<bool>,
    /// The peer no longer takes what is written; what it says may yet be read.
    deaf: Cell<bool>,
    reset: Cell<bool>,
    refused: Cell<i32>,
    /// Where the peer is this process.
    circuit: OnceCell<Rc<Circuit>>,
}

/// nginx's handlers, and what its connection carries for them.
pub(super) struct Wiring {
    pub(super) on_read: unsafe extern "C" fn(*mut ffi::ngx_event_t),
    pub(super) on_write: unsafe extern "C" fn(*mut ffi::ngx_event_t),
}

impl Link {
    /// Begins to connect; `own`: nobody but this process takes connections there. nginx may close idle
    /// connections of its own to make room, so nothing of ours may be borrowed meanwhile.
    pub(super) fn connect(to: &Endpoint, own: bool, wiring: &Wiring) -> Result<Rc<Link>, NoLink> {
        if let Some(link) = own.then(|| Link::within(to, wiring)).flatten() {
            return Ok(link);
        }
        let fd = socket_for(to)?;
        let raw = fd.as_raw_fd();
        let link = Link::over(fd, wiring)?;
        match connect(raw, to) {
            Ok(()) => link.connected.set(true),
            Err(Errno::EINPROGRESS | Errno::EINTR) => {}
            Err(errno) => return Err(NoLink::Refused(errno.into())),
        }
        // the first write finds out: on the same host it usually goes through at once
        link.with(|_, _, write| write.set_ready(1));
        Ok(link)
    }

    /// One that stays in this process. None where there can be none.
    fn within(to: &Endpoint, wiring: &Wiring) -> Option<Rc<Link>> {
        let bound = circuit::bound_to(to)?;
        let (ours, served) = circuit::pair().ok()?;
        let link = Link::over(ours, wiring).ok()?;
        // SAFETY: the connection is ours until close(), which tells the circuit.
        let circuit = unsafe { Circuit::serve(&bound, served, link.connection.get()) }?;
        let _ = link.circuit.set(circuit);
        link.connected.set(true);
        link.with(|_, _, write| write.set_ready(1));
        Some(link)
    }

    /// A connection in the event loop.
    fn over(fd: OwnedFd, wiring: &Wiring) -> Result<Rc<Link>, NoLink> {
        // SAFETY: called in a worker (or the single process) whose event module is initialised; the
        // cycle and its log outlive the connection. The descriptor becomes the connection's, which
        // closes it.
        let connection = unsafe {
            let log = (*ffi::ngx_cycle).log;
            let connection = ffi::ngx_get_connection(fd.as_raw_fd(), log);
            let Some(c) = connection.as_mut() else { return Err(NoLink::Full) };
            c.set_log_error(ffi::ngx_connection_log_error_e_NGX_ERROR_INFO);
            c.data = ptr::null_mut();
            (*c.read).log = log;
            (*c.write).log = log;
            (*c.read).handler = Some(wiring.on_read);
            (*c.write).handler = Some(wiring.on_write);
            connection
        };
        let _: RawFd = fd.into_raw_fd();
        let link = Rc::new(Link {
            connection: Cell::new(connection),
            connected: Cell::new(false),
            blocked: Cell::new(false),
            moved: Cell::new(false),
            received: Cell::new(false),
            deaf: Cell::new(false),
            reset: Cell::new(false),
            refused: Cell::new(0),
            circuit: OnceCell::new(),
        });
        // SAFETY: the connection is new and ours; its handlers are set.
        if !unsafe { event::watch_both(connection) } {
            return Err(NoLink::Full); // dropping the link closes it
        }
        Ok(link)
    }

    fn with<R>(
        &self,
        look: impl FnOnce(&mut ffi::ngx_connection_t, &mut ffi::ngx_event_t, &mut ffi::ngx_event_t) -> R,
    ) -> Option<R> {
        // SAFETY: null after close(); before it the connection is ours, with its two events, and
        // `look` calls nothing that touches it.
        unsafe {
            let c = self.connection.get().as_mut()?;
            let (read, write) = (c.read.as_mut()?, c.write.as_mut()?);
            Some(look(c, read, write))
        }
    }

    /// What the handlers find at `connection->data`.
    pub(super) fn set_number(&self, number: usize) {
        self.with(|c, _, _| c.data = ptr::without_provenance_mut(number));
    }

    /// An idle connection is closed when the worker leaves, and its timer does not hold the worker.
    pub(super) fn set_idle(&self, idle: bool) {
        self.with(|c, read, _| {
            c.set_idle(u32::from(idle));
            read.set_cancelable(u32::from(idle));
        });
        if let (true, Some(circuit)) = (idle, self.circuit.get()) {
            circuit.rest();
        }
    }

    /// Before a call: nothing of its answer has come.
    pub(super) fn begin(&self) {
        self.received.set(false);
        self.moved.set(true);
    }

    /// The connection stands.
    pub(super) fn connected(&self) -> bool {
        self.connected.get()
    }

    /// The kernel takes no more for now.
    pub(super) fn blocked(&self) -> bool {
        self.blocked.get()
    }

    /// Whether bytes went or came since the last time that it was asked.
    pub(super) fn moved(&self) -> bool {
        self.moved.replace(false)
    }

    /// Whether a byte came since [`Link::begin`].
    pub(super) fn received(&self) -> bool {
        self.received.get()
    }

    /// Why the connection was never made.
    pub(super) fn refused(&self) -> Option<io::Error> {
        let errno = self.refused.get();
        (errno != 0).then(|| io::Error::from_raw_os_error(errno))
    }

    /// Whether the peer closed before it read the whole call: its kernel has thrown it away, or had
    /// not acknowledged it when it sent the end, which acknowledges all that had come.
    pub(super) fn unread(&self) -> bool {
        self.reset.get()
            || self.deaf.get()
            || self.circuit.get().is_some_and(|circuit| circuit.unread())
            || self.with(|c, _, _| c.fd).is_some_and(|fd| unacknowledged(fd) || thrown_away(fd))
    }

    /// Whether more than was read has come, or the end is known to follow.
    pub(super) fn has_more(&self) -> bool {
        self.with(|_, read, _| read.ready() != 0).unwrap_or(false)
    }

    /// Whether an idle connection is as it was left: neither closed nor spoken to.
    pub(super) fn quiet(&self) -> bool {
        let mut byte = [0u8; 1];
        let peeked = self.with(|c, read, _| {
            let peeked = socket::recv(c.fd, &mut byte, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
            read.set_ready(0);
            peeked
        });
        let silent = self.circuit.get().is_none_or(|circuit| !circuit.has_more());
        silent && matches!(peeked, Some(Err(Errno::EAGAIN | Errno::EINTR)))
    }

    /// Sees to it that the timer goes off in `milliseconds` or earlier.
    pub(super) fn alarm(&self, now: usize, milliseconds: usize) {
        self.with(|_, read, _| {
            if read.timer_set() == 0 || read.timer.key > now.saturating_add(milliseconds) {
                // SAFETY: the event stays in place until close(), which takes it out of the tree.
                unsafe { ffi::ngx_add_timer(read, milliseconds) };
            }
        });
    }

    /// For event methods that report readiness again and again: what is to be reported now.
    pub(super) fn rearm(&self) -> bool {
        if !event::reports_level() {
            return true;
        }
        let ok = ffi::NGX_OK as ffi::ngx_int_t;
        self.with(|_, read, write| {
            // SAFETY: both are events of the live connection.
            unsafe {
                ffi::ngx_handle_read_event(read, 0) == ok
                    && ffi::ngx_handle_write_event(write, 0) == ok
            }
        })
        .unwrap_or(false)
    }

    /// Closes the socket and gives the connection back to nginx.
    pub(super) fn close(&self) {
        let connection = self.connection.replace(ptr::null_mut());
        if !connection.is_null() {
            if let Some(circuit) = self.circuit.get() {
                circuit.leave();
            }
            // SAFETY: it was ours until now; this takes its events out of the loop, the timers and
            // the posted queues, and closes the descriptor.
            unsafe { ffi::ngx_close_connection(connection) };
        }
    }

    /// Reads what has come; 0 is the end.
    pub(super) fn receive(&self, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let circuit = self.circuit.get();
        let received = self.with(|c, read, _| {
            if read.ready() == 0 {
                return Poll::Pending;
            }
            if let (Some(circuit), false) = (circuit, into.is_empty()) {
                let heard = circuit.hear(into);
                if heard > 0 {
                    if !circuit.has_more() && read.pending_eof() == 0 {
                        read.set_ready(0);
                    }
                    return Poll::Ready(Ok(heard));
                }
            }
            loop {
                let received = socket::recv(c.fd, into, MsgFlags::empty());
                match received {
                    Ok(n) => {
                        // less than asked for is all there is, unless the end is known to follow
                        if n < into.len() && all_was_read() && read.pending_eof() == 0 {
                            read.set_ready(0);
                        }
                        return Poll::Ready(Ok(n));
                    }
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => {
                        read.set_ready(0);
                        return Poll::Pending;
                    }
                    Err(errno) => return Poll::Ready(Err(errno)),
                }
            }
        });
        match received.unwrap_or(Poll::Ready(Err(Errno::ENOTCONN))) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(n)) => {
                if n > 0 {
                    self.moved.set(true);
                    self.received.set(true);
                }
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(errno)) => {
                self.reset.set(self.reset.get() || errno == Errno::ECONNRESET);
                Poll::Ready(Err(errno.into()))
            }
        }
    }

    /// Writes as much as goes.
    pub(super) fn transmit(&self, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length = parts.iter().map(|part| part.len()).sum();
        if self.deaf.get() {
            return Poll::Ready(Ok(length));
        }
        let circuit = self.circuit.get();
        let sent = self.with(|c, _, write| {
            if write.ready() == 0 {
                return Poll::Pending;
            }
            loop {
                let sent = match circuit {
                    Some(circuit) => match circuit.ask(parts) {
                        Some(0) => Err(Errno::EAGAIN),
                        written => written.ok_or(Errno::EPIPE),
                    },
                    None => transmit(c.fd, parts),
                };
                match sent {
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => {
                        write.set_ready(0);
                        return Poll::Pending;
                    }
                    // what did not go now goes when there is room
                    Ok(n) => {
                        if n < length {
                            write.set_ready(0);
                        }
                        return Poll::Ready(Ok(n));
                    }
                    Err(errno) => return Poll::Ready(Err(errno)),
                }
            }
        });
        let sent = sent.unwrap_or(Poll::Ready(Err(Errno::ENOTCONN)));
        self.blocked.set(sent.is_pending());
        match sent {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(n)) => {
                self.connected.set(true);
                self.moved.set(true);
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(errno)) if !self.connected.get() => {
                self.refused.set(errno as i32);
                Poll::Ready(Err(errno.into()))
            }
            // the peer may have answered before it stopped to listen: reading tells
            Poll::Ready(Err(Errno::EPIPE | Errno::ECONNRESET)) => {
                self.deaf.set(true);
                self.with(|_, read, _| read.set_ready(1));
                Poll::Ready(Ok(length))
            }
            Poll::Ready(Err(errno)) => Poll::Ready(Err(errno.into())),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

/// Asked before [`thrown_away`], for a reset empties the queue.
fn unacknowledged(fd: RawFd) -> bool {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which has TIOCOUTQ's number, writes one int.
    let rc = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    rc == 0 && bytes > 0
}

fn thrown_away(fd: RawFd) -> bool {
    // SAFETY: the descriptor is a live connection's.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let error = socket::getsockopt(&fd, sockopt::SocketError);
    matches!(error, Ok(libc::EPIPE | libc::ECONNRESET))
}

fn transmit(fd: RawFd, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
    match parts {
        [part] => socket::send(fd, part, MsgFlags::MSG_NOSIGNAL),
        _ => socket::sendmsg::<()>(fd, parts, &[], MsgFlags::MSG_NOSIGNAL, None),
    }
}

/// Whether a read of less than what was asked for leaves nothing unreported: a level is reported
/// again, and epoll reports an end on the side.
fn all_was_read() -> bool {
    // SAFETY: set when the event module was initialised in this process.
    event::reports_level() || unsafe { ffi::ngx_use_epoll_rdhup } != 0
}

fn socket_for(to: &Endpoint) -> Result<OwnedFd, NoLink> {
    let family = match to {
        Endpoint::Inet(address) if address.is_ipv4() => AddressFamily::Inet,
        Endpoint::Inet(_) => AddressFamily::Inet6,
        Endpoint::Unix(_) => AddressFamily::Unix,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd =
        socket::socket(family, SockType::Stream, flags, None).map_err(|errno| match errno {
            Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM => NoLink::Full,
            _ => NoLink::Refused(errno.into()),
        })?;
    if family != AddressFamily::Unix {
        // without it a call merely waits now and then
        let _ = socket::setsockopt(&fd, sockopt::TcpNoDelay, &true);
    }
    Ok(fd)
}

fn connect(fd: RawFd, to: &Endpoint) -> Result<(), Errno> {
    match to {
        Endpoint::Inet(SocketAddr::V4(address)) => socket::connect(fd, &SockaddrIn::from(*address)),
        Endpoint::Inet(SocketAddr::V6(address)) => {
            socket::connect(fd, &SockaddrIn6::from(*address))
        }
        Endpoint::Unix(path) => socket::connect(fd, &UnixAddr::new(path)?),
    }
}
