//! A safe view of `ngx_http_request_t` for as long as one callback runs.

use std::fmt;
use std::marker::PhantomData;
use std::ptr;

use ngx::ffi;

use crate::ngx::client;
use crate::ngx::http::{HttpModule, conf_of};
use crate::ngx::log::{self, Level};
use crate::ngx::peer::{self, Peer};

/// A request of the running callback.
pub struct Request<'a> {
    raw: *mut ffi::ngx_http_request_t,
    scope: PhantomData<&'a mut ffi::ngx_http_request_t>,
}

impl<'a> Request<'a> {
    /// # Safety
    /// `raw` is a request that nginx keeps for `'a`.
    pub(crate) unsafe fn from_raw(raw: *mut ffi::ngx_http_request_t) -> Self {
        Request { raw, scope: PhantomData }
    }

    pub(crate) fn as_raw(&self) -> *mut ffi::ngx_http_request_t {
        self.raw
    }

    pub(crate) fn get(&self) -> &ffi::ngx_http_request_t {
        // SAFETY: from_raw's contract.
        unsafe { &*self.raw }
    }

    /// `M`'s conf of the location that serves the request.
    pub fn location<M: HttpModule>(&self) -> Option<&'a M::Location> {
        // SAFETY: loc_conf is nginx's array of the location's confs.
        unsafe { conf_of::<M, M::Location>(self.get().loc_conf) }
    }

    /// `M`'s conf of the server that serves the request.
    pub fn server<M: HttpModule>(&self) -> Option<&'a M::Server> {
        // SAFETY: srv_conf is nginx's array of the server's confs.
        unsafe { conf_of::<M, M::Server>(self.get().srv_conf) }
    }

    /// `M`'s conf of http{}.
    pub fn main<M: HttpModule>(&self) -> Option<&'a M::Main> {
        // SAFETY: main_conf is nginx's array of the confs of http{}.
        unsafe { conf_of::<M, M::Main>(self.get().main_conf) }
    }

    /// Logs at `level`, with the request's connection and client as nginx adds them.
    pub fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        // SAFETY: a request has a connection, whose log lives as long.
        let log = unsafe { (*self.get().connection).log };
        log::write(log, level, 0, message);
    }

    /// The method as the client wrote it.
    pub fn method(&self) -> &[u8] {
        self.get().method_name.as_bytes()
    }

    /// The path, decoded and normalised.
    pub fn path(&self) -> &[u8] {
        self.get().uri.as_bytes()
    }

    /// The query, without `?`.
    pub fn query(&self) -> &[u8] {
        self.get().args.as_bytes()
    }

    /// Path and query as the client sent them, or, after a redirect and in a subrequest, encoded
    /// anew.
    pub fn target(&self) -> Vec<u8> {
        let r = self.get();
        if r.valid_unparsed_uri() != 0 && self.is_main() && !r.unparsed_uri.is_empty() {
            return r.unparsed_uri.as_bytes().to_vec();
        }
        let mut target = escaped(self.path());
        if r.args.len > 0 {
            target.push(b'?');
            target.extend_from_slice(self.query());
        }
        target
    }

    /// Whether it is no subrequest.
    pub fn is_main(&self) -> bool {
        ptr::eq(self.get().main, self.raw)
    }

    /// The headers that the client sent, in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut part = Some(&self.get().headers_in.headers.part);
        let mut next = 0;
        std::iter::from_fn(move || {
            loop {
                let here = part?;
                if next < here.nelts {
                    // SAFETY: a list's part has nelts elements, here headers whose texts lie in
                    // the request's buffers.
                    let header = unsafe { &*here.elts.cast::<ffi::ngx_table_elt_t>().add(next) };
                    next += 1;
                    return Some((header.key.as_bytes(), header.value.as_bytes()));
                }
                // SAFETY: the next part or null.
                (part, next) = (unsafe { here.next.as_ref() }, 0);
            }
        })
    }

    /// The first header of that name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let same = |(key, _): &(&[u8], &[u8])| key.eq_ignore_ascii_case(name.as_bytes());
        self.headers().find(same).map(|(_, value)| value)
    }

    /// Whether no client has sent it: what the Lua module makes for its timers has no connection.
    pub fn is_own(&self) -> bool {
        // SAFETY: a request has a connection.
        unsafe { (*self.get().connection).fd == -1 }
    }

    /// The process at the other end of the connection, as the kernel knows it. None where that is
    /// not who asks: a proxy named somebody else, and nginx took its word.
    pub fn peer(&self) -> Option<Peer> {
        // SAFETY: a request has a connection; its fd is open, or that of a listening UDP socket,
        // which has no peer.
        let connection = unsafe { &*self.get().connection };
        let caller = client::caller_of(connection);
        let peer = caller.or_else(|| peer::of_connection(connection.fd))?;
        if !connection.proxy_protocol.is_null() {
            return None;
        }
        // what the realip module changed
        // SAFETY: accept() filled in sockaddr of socklen bytes, or that module an ngx_addr_t.
        let said = unsafe { peer::of_sockaddr(connection.sockaddr.cast(), connection.socklen) };
        (said == Some(peer)).then_some(peer)
    }

    /// The user of this machine who has made the connection, by a Unix socket.
    pub fn user(&self) -> Option<u32> {
        let here = self.peer() == Some(Peer::Unix);
        // SAFETY: as in peer().
        here.then(|| peer::user_of_connection(unsafe { (*self.get().connection).fd }))?
    }

    /// What the client has sent as its body; None where it cannot be read any more.
    pub fn body(&self) -> Option<Vec<u8>> {
        // SAFETY: null or the request's, once ngx_http_read_client_request_body was called.
        let Some(body) = (unsafe { self.get().request_body.as_ref() }) else {
            return Some(Vec::new());
        };
        let mut bytes = Vec::new();
        let mut link = body.bufs;
        // SAFETY: bufs is a chain that ends in null.
        while let Some(chain) = unsafe { link.as_ref() } {
            // SAFETY: in memory a buffer's bytes lie from pos to last, in a file from file_pos to
            // file_last, and the file stays open as long as the request.
            unsafe {
                let buffer = &*chain.buf;
                if buffer.in_file() != 0 {
                    let length = usize::try_from(buffer.file_last - buffer.file_pos).ok()?;
                    let start = bytes.len();
                    bytes.resize(start + length, 0);
                    let rest = bytes.get_mut(start..)?;
                    peer::read_at((*buffer.file).fd, rest, buffer.file_pos)?;
                } else if !buffer.pos.is_null() && buffer.last > buffer.pos {
                    let length = buffer.last.offset_from(buffer.pos) as usize;
                    bytes.extend_from_slice(std::slice::from_raw_parts(buffer.pos, length));
                }
            }
            link = chain.next;
        }
        Some(bytes)
    }

    /// A copy of `bytes` in the request's pool; None when memory ran out.
    pub(crate) fn copied(&self, bytes: &[u8]) -> Option<ffi::ngx_str_t> {
        // SAFETY: the request's pool lives as long as the request.
        let data = unsafe { ffi::ngx_pnalloc(self.get().pool, bytes.len()) }.cast::<u8>();
        if data.is_null() {
            return None;
        }
        // SAFETY: data has room for bytes.len() bytes and is new.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len()) };
        Some(ffi::ngx_str_t { len: bytes.len(), data })
    }
}

/// A decoded path as it stands in a request line.
fn escaped(path: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(byte);
    let mut text = Vec::with_capacity(path.len());
    for byte in path {
        if plain(byte) {
            text.push(*byte);
        } else {
            text.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    text
}
