//! nginx's half of a circuit: a connection as accept() makes them, whose functions read and write the
//! circuit's buffers. nginx calls them as it calls its own of os/unix.

use std::collections::VecDeque;
use std::os::raw::c_void;
use std::rc::Rc;
use std::{mem, ptr, slice};

use ngx::ffi;

use super::circuit::{Circuit, ERROR, ROOM, put};
use crate::ngx::guard::guard;
use crate::ngx::listening;
use crate::ngx::log::{self, Level};
use crate::ngx::peer::{self, Peer};

const AGAIN: isize = ffi::NGX_AGAIN as isize;

/// What nginx serves.
pub(super) type Half = ffi::ngx_connection_t;

/// Gives the connection what accept() would: where it comes from, where it has arrived, how it reads
/// and writes.
///
/// # Safety
/// `c` is new, with a pool; `listening` is what it shall have arrived at.
pub(super) unsafe fn prepare(
    c: &mut ffi::ngx_connection_t,
    listening: *mut ffi::ngx_listening_t,
    (from, at): (&[u8], &[u8]),
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
        (c.sockaddr, c.socklen) = copied(c.pool, from)?;
        (c.local_sockaddr, c.local_socklen) = copied(c.pool, at)?;
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

        c.recv = Some(RECV);
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
pub(super) unsafe fn waits_for_request(c: *mut ffi::ngx_connection_t) -> bool {
    // SAFETY: the caller's contract; `action` is a C string or null.
    unsafe {
        let action = (*(*c).log).action.cast::<std::ffi::c_char>();
        !action.is_null() && std::ffi::CStr::from_ptr(action) == c"waiting for request"
    }
}

/// Whom a connection that nginx serves comes from, where it is this process.
pub(super) fn caller_of(c: &ffi::ngx_connection_t) -> Option<Peer> {
    let is_ours = c.recv.is_some_and(|function| ptr::fn_addr_eq(function, RECV));
    // SAFETY: prepare() has made it, and its pool is there as long as it is.
    is_ours.then(|| unsafe { circuit_of(c) })??.from()
}

/// By it a circuit is found in the pool of nginx's half.
const ON_CLOSE: unsafe extern "C" fn(*mut c_void) = on_close;

unsafe extern "C" fn on_close(data: *mut c_void) {
    // SAFETY: prepare() made it of an Rc, for this one call.
    let circuit = unsafe { Rc::from_raw(data.cast::<Circuit>()) };
    circuit.server_left();
}

/// The circuit of nginx's half.
///
/// # Safety
/// `c` is a live connection that [`prepare`] has made.
unsafe fn circuit_of<'a>(c: &Half) -> Option<&'a Circuit> {
    // SAFETY: the caller's contract: the cleanup is in its pool, and what it has is alive until it ran.
    unsafe {
        let mut cleanup = (*c.pool).cleanup;
        while let Some(entry) = cleanup.as_ref() {
            if entry.handler.is_some_and(|handler| ptr::fn_addr_eq(handler, ON_CLOSE)) {
                return entry.data.cast::<Circuit>().as_ref();
            }
            cleanup = entry.next;
        }
        None
    }
}

/// The same, and the half.
///
/// # Safety
/// As for [`circuit_of`].
unsafe fn of<'a>(c: *mut Half) -> Option<(&'a Circuit, &'a mut Half)> {
    // SAFETY: the caller's contract.
    unsafe {
        let c = c.as_mut()?;
        Some((circuit_of(c)?, c))
    }
}

/// By it one is told from nginx's other connections.
const RECV: unsafe extern "C" fn(*mut Half, *mut u8, usize) -> isize = recv;

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
            let mut answer = circuit.answers();
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
            let mut answer = circuit.answers();
            let mut left = if limit > 0 { limit as usize } else { usize::MAX };
            let (mut sent, mut full, mut link) = (0, false, chain);
            while let (Some(entry), 1.., false) = (link.as_ref(), left, full) {
                let buffer = &*entry.buf;
                let Some((length, n)) = put_buffer(&mut answer, buffer, left) else {
                    return failed;
                };
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

/// How much of `buffer` there is to send, at most `limit`, and how much of it was put into `queue`. A
/// file is read at once, as nginx does without `aio threads`.
///
/// # Safety
/// `buffer` is one of nginx's output chain.
unsafe fn put_buffer(
    queue: &mut VecDeque<u8>,
    buffer: &ffi::ngx_buf_t,
    limit: usize,
) -> Option<(usize, usize)> {
    if buffer.temporary() != 0 || buffer.memory() != 0 || buffer.mmap() != 0 {
        // SAFETY: what such a buffer has to send stands between pos and last.
        let bytes = unsafe {
            let length = buffer.last.offset_from(buffer.pos).unsigned_abs().min(limit);
            slice::from_raw_parts(buffer.pos, length)
        };
        return Some((bytes.len(), put(queue, bytes)));
    }
    if buffer.in_file() == 0 {
        return Some((0, 0));
    }
    let length = usize::try_from(buffer.file_last - buffer.file_pos).unwrap_or(0).min(limit);
    let mut piece = vec![0; length.min(ROOM.saturating_sub(queue.len()))];
    // SAFETY: the file is open while it is in a chain.
    let fd = unsafe { (*buffer.file).fd };
    let Some(()) = peer::read_at(fd, &mut piece, buffer.file_pos) else {
        let text = format_args!("cc: call: a file became shorter while it was sent");
        log::cycle(Level::Alert, text);
        return None;
    };
    Some((length, put(queue, &piece)))
}
