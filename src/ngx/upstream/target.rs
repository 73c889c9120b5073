//! A peer as nginx wants it: made once, shared by the requests that go there.

use std::net::SocketAddr;
use std::rc::Rc;
use std::{fmt, mem, ptr};

use ngx::ffi;
use nix::sys::socket::{SockaddrIn, SockaddrIn6, SockaddrLike, UnixAddr};

use super::layer::PeerConnection;
use crate::ngx::conf::borrowed;
use crate::proto::listen::Address;

/// An address and its text. It does not move while a request points to it, which holds it for that.
pub struct Target {
    sockaddr: libc::sockaddr_storage,
    socklen: ffi::socklen_t,
    /// Points into `text`.
    name: ffi::ngx_str_t,
    text: Vec<u8>,
}

/// Peers in an order.
pub type Targets = Rc<[Rc<Target>]>;

impl Target {
    /// None for a path that does not fit.
    pub fn new(address: &Address) -> Option<Rc<Target>> {
        let text = address.text();
        // SAFETY: all-zero is a sockaddr_storage.
        let sockaddr = unsafe { mem::zeroed() };
        let mut target = Target { sockaddr, socklen: 0, name: borrowed(&text), text };
        let fits = match address {
            Address::Inet(SocketAddr::V4(v4)) => target.set(&SockaddrIn::from(*v4)),
            Address::Inet(SocketAddr::V6(v6)) => target.set(&SockaddrIn6::from(*v6)),
            Address::Unix(path) => {
                UnixAddr::new(path.as_slice()).is_ok_and(|unix| target.set(&unix))
            }
        };
        fits.then(|| Rc::new(target))
    }

    /// Of all these addresses.
    pub fn all(addresses: &[Address]) -> Targets {
        addresses.iter().filter_map(Target::new).collect()
    }

    fn set(&mut self, address: &impl SockaddrLike) -> bool {
        let len = address.len() as usize;
        if len > size_of_val(&self.sockaddr) {
            return false;
        }
        // SAFETY: the address has that many bytes, and there is room for them.
        unsafe {
            let to = (&raw mut self.sockaddr).cast::<u8>();
            ptr::copy_nonoverlapping(address.as_ptr().cast::<u8>(), to, len);
        }
        self.socklen = address.len();
        true
    }

    /// The text, as `$upstream_addr` keeps it.
    pub(super) fn name(&self) -> *const ffi::ngx_str_t {
        &raw const self.name
    }

    /// Sends the connection there. nginx only reads what it is given.
    pub(super) fn give(&self, pc: &mut PeerConnection) {
        pc.sockaddr = (&raw const self.sockaddr).cast_mut().cast();
        pc.socklen = self.socklen;
        pc.name = self.name().cast_mut();
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text))
    }
}
