//! Who is at the other end of a client's connection, as the kernel knows it.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, RawFd};

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getpeername, getsockopt};
use nix::unistd::User;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An address and a port.
    Inet(SocketAddr),
    /// A process on this machine, by a Unix socket.
    Unix,
}

impl Peer {
    /// Whether it is on this machine.
    pub fn is_local(&self) -> bool {
        self.ip().is_none_or(|ip| ip.is_loopback())
    }

    /// Its IP address; none on a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Peer::Inet(address) => Some(address.ip().to_canonical()),
            Peer::Unix => None,
        }
    }

    fn of(storage: &SockaddrStorage) -> Option<Peer> {
        if let Some(v4) = storage.as_sockaddr_in() {
            return Some(Peer::Inet(SocketAddr::V4((*v4).into())));
        }
        if let Some(v6) = storage.as_sockaddr_in6() {
            return Some(Peer::Inet(SocketAddr::V6((*v6).into())));
        }
        (storage.family() == Some(AddressFamily::Unix)).then_some(Peer::Unix)
    }
}

/// The other end of the connection `fd`.
pub(crate) fn of_connection(fd: RawFd) -> Option<Peer> {
    Peer::of(&getpeername::<SockaddrStorage>(fd).ok()?)
}

/// The user id of the process that made the connection `fd`, by a Unix socket.
pub(crate) fn user_of_connection(fd: RawFd) -> Option<u32> {
    // SAFETY: the caller's descriptor, open for as long as the call runs.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    let credentials = getsockopt(&socket, PeerCredentials).ok()?;
    // of a TCP connection the kernel says that it knows none
    (credentials.pid() > 0).then(|| credentials.uid())
}

/// The id of the user of that name.
pub fn user_named(name: &[u8]) -> Option<u32> {
    let user = User::from_name(std::str::from_utf8(name).ok()?).ok()??;
    Some(user.uid.as_raw())
}

/// What nginx has in a sockaddr.
///
/// # Safety
/// `address` points at `length` bytes that are a socket address, or is null.
pub(crate) unsafe fn of_sockaddr(address: *const libc::sockaddr, length: u32) -> Option<Peer> {
    if address.is_null() {
        return None;
    }
    // SAFETY: the caller's contract; an unnamed Unix socket's has nothing but the family.
    unsafe {
        if i32::from((*address).sa_family) == libc::AF_UNIX {
            return Some(Peer::Unix);
        }
        Peer::of(&SockaddrStorage::from_raw(address, Some(length))?)
    }
}

/// Fills `bytes` from the file at `offset`; None where that fails or the file is shorter.
pub(crate) fn read_at(fd: RawFd, mut bytes: &mut [u8], offset: i64) -> Option<()> {
    // SAFETY: the caller's descriptor, open for as long as the call runs.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut offset = offset;
    while !bytes.is_empty() {
        let read = match nix::sys::uio::pread(file, bytes, offset) {
            Err(nix::errno::Errno::EINTR) => continue,
            read => read.ok().filter(|read| *read > 0)?,
        };
        bytes = bytes.get_mut(read..)?;
        offset += read as i64;
    }
    Some(())
}
