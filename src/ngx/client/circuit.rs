//! A worker's connection to the socket that it listens on itself. nginx's half is a connection as
//! accept() makes them, but what one half writes the other reads from memory: a call that stays in
//! the process costs no write and no read. A socket pair stands behind it, over which nothing is
//! sent: it tells each half that the other has closed, and answers whoever asks the descriptor.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::raw::c_void;
use std::rc::Rc;
use std::{mem, ptr, slice};

use ngx::ffi;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::uio::pread;

use super::Endpoint;
use crate::ngx::event;
use crate::ngx::guard::guard;
use crate::ngx::listening::{self, Bound};

/// The most that waits in one direction, in bytes; whoever writes more waits for the reader.
const ROOM: usize = 64 * 1024;
/// What is kept of it while no call is on the way, in bytes.
const KEPT: usize = 4 * 1024;

const AGAIN: isize = ffi::NGX_AGAIN as isize;
const ERROR: isize = ffi::NGX_ERROR as isize;

/// Both directions, and who is at the ends; null once it has closed.
pub(super) struct Circuit {
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
    listening::bound_to(&to.into())
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
    pub(super) unsafe fn close_at(
        bound: &Bound,
        fd: OwnedFd,
        caller: *mut ffi::ngx_connection_t,
    ) -> Option<Rc<Circuit>> {
        let circuit = Rc::new(Circuit {
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
            if pool.is_null() || prepare(c, listening, bound, &circuit).is_none() {
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
        if !server.is_null() && !unsafe { waits_for_request(server) } {
            // SAFETY: as ngx_http_init_connection() ends one that it cannot serve.
            unsafe { ffi::ngx_http_close_connection(server) };
        }
        (!circuit.server.get().is_null()).then_some(circuit)
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
        // SAFETY: the connection's own event.
        unsafe { wake(server.read, false) };
        Some(written)
    }

    /// Reads what has come.
    pub(super) fn hear(&self, into: &mut [u8]) -> usize {
        let mut answer = self.answer.borrow_mut();
        let read = take(&mut answer, into);
        // SAFETY: as in ask; the event is the connection's own.
        if let (1.., Some(server)) = (read, unsafe { self.server.get().as_mut() }) {
            unsafe { resume(server.write) };
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

/// As much as there is room for.
fn put(queue: &mut VecDeque<u8>, bytes: &[u8]) -> usize {
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

/// Gives the connection what accept() would: where it comes from, where it has arrived, how it reads
/// and writes.
///
/// # Safety
/// `c` is new, with a pool; `listening` is what it shall have arrived at.
unsafe fn prepare(
    c: &mut ffi::ngx_connection_t,
    listening: *mut ffi::ngx_listening_t,
    bound: &Bound,
    circuit: &Rc<Circuit>,
) -> Option<()> {
    // SAFETY: the caller's contract; each allocation is checked before it is written.
    unsafe {
        let log = ffi::ngx_palloc(c.pool, mem::size_of::<ffi::ngx_log_t>());
        let log = log.cast::<ffi::ngx_log_t>();
        if log.is_null() {
            return None;
        }
        ptr::write(log, (*listening).log);
        (*log).data = ptr::null_mut();
        (*log).handler = None;
        c.log = log;
        (*c.pool).log = log;
        (*c.read).log = log;
        (*c.write).log = log;
        (*c.write).set_ready(1);

        c.type_ = libc::SOCK_STREAM;
        c.listening = listening;
        let (from, at) = bound.ends();
        (c.sockaddr, c.socklen) = copied(c.pool, &from)?;
        (c.local_sockaddr, c.local_socklen) = copied(c.pool, &at)?;
        if (*listening).addr_ntop() != 0 {
            let room = (*listening).addr_text_max_len;
            let text = ffi::ngx_pnalloc(c.pool, room).cast::<u8>();
            if text.is_null() {
                return None;
            }
            let len = ffi::ngx_sock_ntop(c.sockaddr, c.socklen, text, room, 0);
            c.addr_text = ffi::ngx_str_t { len, data: text };
        }
        // the options of TCP
        c.set_tcp_nodelay(ffi::ngx_connection_tcp_nodelay_e_NGX_TCP_NODELAY_DISABLED);
        c.set_tcp_nopush(ffi::ngx_connection_tcp_nopush_e_NGX_TCP_NOPUSH_DISABLED);
        c.number = listening::next_number();
        c.start_time = ffi::ngx_current_msec;

        c.recv = Some(recv);
        c.recv_chain = Some(recv_chain);
        c.send = Some(send);
        c.send_chain = Some(send_chain);
        let cleanup = ffi::ngx_pool_cleanup_add(c.pool, 0).as_mut()?;
        cleanup.handler = Some(ON_CLOSE);
        cleanup.data = Rc::into_raw(Rc::clone(circuit)).cast_mut().cast();
    }
    Some(())
}

/// # Safety
/// `pool` is live.
unsafe fn copied(
    pool: *mut ffi::ngx_pool_t,
    address: &[u8],
) -> Option<(*mut ffi::sockaddr, ffi::socklen_t)> {
    // SAFETY: ngx_palloc aligns for any type, and what it gives has room.
    unsafe {
        let to = ffi::ngx_palloc(pool, address.len()).cast::<u8>();
        if to.is_null() {
            return None;
        }
        ptr::copy_nonoverlapping(address.as_ptr(), to, address.len());
        Some((to.cast(), address.len() as ffi::socklen_t))
    }
}

/// Whether a request is all that nginx expects: neither TLS nor the PROXY protocol comes first.
///
/// # Safety
/// `c` is live; its handler has been called.
unsafe fn waits_for_request(c: *mut ffi::ngx_connection_t) -> bool {
    // SAFETY: the caller's contract; `action` is a C string or null.
    unsafe {
        let action = (*(*c).log).action.cast::<std::ffi::c_char>();
        !action.is_null() && std::ffi::CStr::from_ptr(action) == c"waiting for request"
    }
}

/// By it a circuit is found in the pool of nginx's half.
const ON_CLOSE: unsafe extern "C" fn(*mut c_void) = on_close;

unsafe extern "C" fn on_close(data: *mut c_void) {
    // SAFETY: prepare() made it of an Rc, for this one call.
    let circuit = unsafe { Rc::from_raw(data.cast::<Circuit>()) };
    circuit.server.set(ptr::null_mut());
}

/// The circuit of nginx's half.
///
/// # Safety
/// `c` is a live connection that [`prepare`] has made.
unsafe fn of<'a>(c: *mut ffi::ngx_connection_t) -> Option<(&'a Circuit, &'a mut Half)> {
    // SAFETY: the caller's contract: the cleanup is in its pool, and what it has is alive until it ran.
    unsafe {
        let c = c.as_mut()?;
        let mut cleanup = (*c.pool).cleanup;
        while let Some(entry) = cleanup.as_ref() {
            if entry.handler.is_some_and(|handler| ptr::fn_addr_eq(handler, ON_CLOSE)) {
                return Some((entry.data.cast::<Circuit>().as_ref()?, c));
            }
            cleanup = entry.next;
        }
        None
    }
}

type Half = ffi::ngx_connection_t;

/// As ngx_unix_recv().
unsafe extern "C" fn recv(c: *mut Half, buffer: *mut u8, size: usize) -> isize {
    guard("call", ERROR, || {
        // SAFETY: nginx calls it with its connection, and a buffer of that size.
        unsafe {
            let Some((circuit, c)) = of(c) else { return ERROR };
            circuit.read(c, slice::from_raw_parts_mut(buffer, size))
        }
    })
}

/// As ngx_readv_chain(): into the free room of each buffer, without moving its end.
unsafe extern "C" fn recv_chain(c: *mut Half, chain: *mut ffi::ngx_chain_t, limit: i64) -> isize {
    guard("call", ERROR, || {
        // SAFETY: as for recv(); a chain of buffers whose room from `last` to `end` is free.
        unsafe {
            let Some((circuit, c)) = of(c) else { return ERROR };
            let mut left = if limit > 0 { limit as usize } else { usize::MAX };
            let (mut total, mut link) = (0, chain);
            while let (Some(entry), 1..) = (link.as_ref(), left) {
                let buffer = &*entry.buf;
                let room = buffer.end.offset_from(buffer.last).unsigned_abs().min(left);
                let read = circuit.read(c, slice::from_raw_parts_mut(buffer.last, room));
                if read <= 0 {
                    return if total > 0 { total } else { read };
                }
                total += read;
                left -= read.unsigned_abs();
                if read.unsigned_abs() < room {
                    break;
                }
                link = entry.next;
            }
            total
        }
    })
}

/// As ngx_unix_send().
unsafe extern "C" fn send(c: *mut Half, buffer: *mut u8, size: usize) -> isize {
    guard("call", ERROR, || {
        // SAFETY: as for recv().
        unsafe {
            let Some((circuit, c)) = of(c) else { return ERROR };
            let mut answer = circuit.answer.borrow_mut();
            let sent = put(&mut answer, slice::from_raw_parts(buffer, size));
            drop(answer);
            match circuit.wrote(c, sent, sent < size) {
                None => ERROR,
                Some(()) if sent == 0 && size > 0 => AGAIN,
                Some(()) => sent as isize,
            }
        }
    })
}

/// As ngx_linux_sendfile_chain(): what is left is returned; files are read, for there is no socket to
/// send them to.
unsafe extern "C" fn send_chain(
    c: *mut Half,
    chain: *mut ffi::ngx_chain_t,
    limit: i64,
) -> *mut ffi::ngx_chain_t {
    let failed = ptr::without_provenance_mut(ERROR as usize);
    guard("call", failed, || {
        // SAFETY: as for recv(); a chain of buffers that are in memory or in a file.
        unsafe {
            let Some((circuit, c)) = of(c) else { return failed };
            if (*c.write).ready() == 0 {
                return chain;
            }
            let mut answer = circuit.answer.borrow_mut();
            let mut left = if limit > 0 { limit as usize } else { usize::MAX };
            let (mut sent, mut full, mut link) = (0, false, chain);
            while let (Some(entry), 1.., false) = (link.as_ref(), left, full) {
                let buffer = &*entry.buf;
                let Ok((length, n)) = put_buffer(&mut answer, buffer, left) else { return failed };
                sent += n;
                left -= n;
                full = n < length;
                link = entry.next;
            }
            drop(answer);
            match circuit.wrote(c, sent, full) {
                None => failed,
                Some(()) => ffi::ngx_chain_update_sent(chain, sent as i64),
            }
        }
    })
}

/// How much of `buffer` there is to send, at most `limit`, and how much of it was put into `queue`.
///
/// # Safety
/// `buffer` is one of nginx's output chain.
unsafe fn put_buffer(
    queue: &mut VecDeque<u8>,
    buffer: &ffi::ngx_buf_t,
    limit: usize,
) -> Result<(usize, usize), Errno> {
    if buffer.temporary() != 0 || buffer.memory() != 0 || buffer.mmap() != 0 {
        // SAFETY: what such a buffer has to send stands between pos and last.
        let bytes = unsafe {
            let length = buffer.last.offset_from(buffer.pos).unsigned_abs().min(limit);
            slice::from_raw_parts(buffer.pos, length)
        };
        return Ok((bytes.len(), put(queue, bytes)));
    }
    if buffer.in_file() == 0 {
        return Ok((0, 0));
    }
    let length = usize::try_from(buffer.file_last - buffer.file_pos).unwrap_or(0).min(limit);
    let mut piece = vec![0; length.min(ROOM.saturating_sub(queue.len()))];
    // SAFETY: the file is open while it is in a chain.
    let file = unsafe { BorrowedFd::borrow_raw((*buffer.file).fd) };
    let read = if piece.is_empty() { 0 } else { pread(file, &mut piece, buffer.file_pos)? };
    if read < piece.len() {
        // the file has become shorter than what was promised
        return Err(Errno::EIO);
    }
    Ok((length, put(queue, &piece)))
}

impl Circuit {
    /// For nginx: bytes of the call, 0 at its end, or AGAIN.
    unsafe fn read(&self, c: &mut Half, into: &mut [u8]) -> isize {
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
                return if ended { 0 } else { AGAIN };
            }
            if let Some(caller) = self.caller.get().as_mut() {
                resume(caller.write);
            }
        }
        read as isize
    }

    /// For nginx: so much of the answer was written, and no more goes where it is `full`. None: nobody
    /// is there to read it.
    unsafe fn wrote(&self, c: &mut Half, sent: usize, full: bool) -> Option<()> {
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
