//! `cycle->listening`: which sockets nginx is about to open, giving each worker one of its own, and
//! keeping a worker off the others'. Opening, inheriting and closing stay nginx's: it matches old
//! and new sockets by address.

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::raw::c_int;
use std::os::unix::ffi::OsStringExt;
use std::{mem, ptr, slice};

use ngx::ffi;
use nix::sys::socket::{SockaddrLike, SockaddrStorage};

use crate::ngx::conf::Conf;
use crate::ngx::cycle::{self, Cycle};
use crate::proto::listen::{Address, SUN_PATH, Transport};

// what depends on how nginx was configured, from the shim
unsafe extern "C" {
    fn cc_next_connection() -> ffi::ngx_atomic_uint_t;
    fn cc_count_accepted();
}

/// The sockets of a cycle that belong to one worker each.
#[derive(Debug)]
pub struct Owned {
    cycle: *mut ffi::ngx_cycle_t,
    /// Index in `cycle->listening`, and the worker.
    sockets: Vec<(usize, usize)>,
    in_force: bool,
}

/// One entry of `cycle->listening`.
#[derive(Debug)]
pub struct Entry {
    index: usize,
    /// TCP or UDP.
    pub transport: Transport,
    /// What it will be bound to.
    pub address: Address,
    /// Whether IPv4 stays out of an IPv6 socket.
    pub ipv6only: bool,
}

/// The addresses that `text` names to nginx, and whether it names a range of ports; None where
/// nginx would not take it.
pub fn parse(cf: &Conf<'_>, text: &[u8], default_port: u16) -> Option<(Vec<Address>, bool)> {
    // SAFETY: all-zero is what ngx_http_core_listen starts from.
    let mut url: ffi::ngx_url_t = unsafe { mem::zeroed() };
    url.url = crate::ngx::conf::borrowed(text);
    url.set_listen(1);
    url.default_port = default_port;
    // SAFETY: ngx_parse_url reads url.url and allocates from temp_pool, which ngx_init_cycle keeps
    // until all directives are read.
    let rc = unsafe { ffi::ngx_parse_url((*cf.as_raw()).temp_pool, &mut url) };
    if rc != ffi::NGX_OK as ffi::ngx_int_t || url.addrs.is_null() {
        return None;
    }
    // SAFETY: ngx_parse_url left naddrs addresses at addrs.
    let found = unsafe { slice::from_raw_parts(url.addrs, url.naddrs) };
    let mut addresses = Vec::with_capacity(found.len());
    for found in found {
        // SAFETY: each has a sockaddr of socklen bytes.
        let address = unsafe { read(found.sockaddr, found.socklen) }?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Some((addresses, url.last_port != 0))
}

/// What the cycle will listen on.
pub fn entries(cycle: Cycle<'_>) -> Vec<Entry> {
    let listening = listening(cycle).iter().enumerate();
    let entry = |(index, ls): (usize, &ffi::ngx_listening_t)| {
        // SAFETY: ngx_create_listening gave it a sockaddr of socklen bytes.
        let address = unsafe { read(ls.sockaddr, ls.socklen) }?;
        let datagram = ls.type_ == libc::SOCK_DGRAM;
        let transport = if datagram { Transport::Datagram } else { Transport::Stream };
        Some(Entry { index, transport, address, ipv6only: ls.ipv6only() != 0 })
    };
    listening.filter_map(entry).collect()
}

impl Owned {
    /// None yet. Must live in the conf of `cycle`, so that it goes when the cycle does.
    pub fn new(cycle: Cycle<'_>) -> Self {
        Owned { cycle: cycle.as_raw(), sockets: Vec::new(), in_force: false }
    }

    fn cycle(&self) -> Cycle<'_> {
        // SAFETY: the cycle is part of its own pool, with which new()'s contract ties self.
        unsafe { Cycle::from_raw(self.cycle) }
    }

    /// Turns an entry into one per worker: itself gets the first address, copies the others.
    /// None when memory ran out.
    pub fn spread(&mut self, entry: &Entry, addresses: &[Address]) -> Option<()> {
        for (worker, address) in addresses.iter().enumerate() {
            let index = if worker == 0 { entry.index } else { copy(self.cycle(), entry.index)? };
            // SAFETY: the pool of a cycle lives as long as it.
            let pool = unsafe { (*self.cycle).pool };
            let ls = listening_mut(self.cycle()).get_mut(index)?;
            // SAFETY: ngx_create_listening gave ls a sockaddr of socklen bytes.
            unsafe { rename(pool, ls, address)? };
            self.sockets.push((index, worker));
        }
        settle(self.cycle());
        Some(())
    }

    /// The cycle is the running one now.
    pub fn in_force(&mut self) {
        self.in_force = true;
    }

    /// In a worker, before ngx_event_process_init: makes it skip what belongs to another one.
    ///
    /// It does so for sockets with the reuseport flag and another worker's number. The flag is set
    /// here only: set earlier, the master would open them with SO_REUSEPORT.
    pub fn keep_own(&self) {
        let listening = listening_mut(self.cycle());
        for (index, worker) in &self.sockets {
            if let Some(ls) = listening.get_mut(*index) {
                ls.worker = *worker;
                ls.set_reuseport(1);
            }
        }
    }
}

impl Drop for Owned {
    /// ngx_init_cycle closes the sockets of a configuration that it gives up, but leaves the files
    /// of Unix ones, on which the next try would fail.
    fn drop(&mut self) {
        if self.in_force || cycle::testing() {
            return;
        }
        let listening = listening(self.cycle());
        for ls in self.sockets.iter().filter_map(|(index, _)| listening.get(*index)) {
            // SAFETY: as in spread; cleanups run before the pool's memory is freed.
            let address = unsafe { read(ls.sockaddr, ls.socklen) };
            if let (Some(Address::Unix(path)), 1) = (address, ls.open()) {
                // gone already is as good
                let _ = std::fs::remove_file(OsString::from_vec(path));
            }
        }
    }
}

/// An open socket of this process, and the address by which it is reached.
pub(crate) struct Bound {
    listening: *mut ffi::ngx_listening_t,
    address: Address,
}

/// The socket that takes TCP connections to `address`, or those to its Unix socket, in this process.
/// Whether others take them, too, the caller knows.
pub(crate) fn bound_to(address: &Address) -> Option<Bound> {
    let own = |ls: &&mut ffi::ngx_listening_t| {
        // SAFETY: set before any init_process hook.
        let other = ls.reuseport() != 0 && ls.worker != unsafe { ffi::ngx_worker };
        ls.type_ == libc::SOCK_STREAM && ls.fd != -1 && !other
    };
    let takes = |ls: &mut ffi::ngx_listening_t, by: &Address| {
        // SAFETY: ngx_create_listening gave it a sockaddr of socklen bytes.
        unsafe { read(ls.sockaddr, ls.socklen) }.is_some_and(|address| address == *by)
    };
    let mut wildcard = address.clone();
    if let Address::Inet(address) = &mut wildcard {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        });
    }
    // as the kernel looks: an address of its own comes first
    [address, &wildcard].into_iter().find_map(|by| {
        let mut open = listening_mut(cycle::current()?).iter_mut().filter(own);
        let listening = &raw mut *open.find_map(|ls| takes(ls, by).then_some(ls))?;
        Some(Bound { listening, address: address.clone() })
    })
}

impl Bound {
    /// nginx's own.
    pub(crate) fn as_raw(&self) -> *mut ffi::ngx_listening_t {
        self.listening
    }

    /// The socket addresses of a connection within this process: where it comes from, without a port,
    /// and where it arrives.
    pub(crate) fn ends(&self) -> (Vec<u8>, Vec<u8>) {
        let Address::Inet(at) = self.address else {
            // SAFETY: as in bound_to.
            let at = unsafe {
                slice::from_raw_parts(
                    (*self.listening).sockaddr.cast::<u8>(),
                    (*self.listening).socklen as usize,
                )
            };
            // of a socket without a name the kernel tells the family alone
            let family = mem::size_of::<libc::sa_family_t>();
            return (at.get(..family).unwrap_or_default().to_vec(), at.to_vec());
        };
        let bytes = |address: SocketAddr| {
            let address = SockaddrStorage::from(address);
            // SAFETY: it is len() bytes long.
            unsafe { slice::from_raw_parts(address.as_ptr().cast::<u8>(), address.len() as usize) }
                .to_vec()
        };
        (bytes(SocketAddr::new(at.ip(), 0)), bytes(at))
    }
}

/// Counts a connection among those that were accepted, as stub_status shows them; whoever closes it
/// takes it off the active ones.
pub(crate) fn count_accepted() {
    // SAFETY: counters in nginx's shared memory, or, without stub_status, absent.
    unsafe { cc_count_accepted() };
}

/// The next `$connection`.
pub(crate) fn next_number() -> ffi::ngx_atomic_uint_t {
    // SAFETY: the counter is in nginx's shared memory, aligned, and changed by atomic steps only.
    unsafe { cc_next_connection() }
}

fn listening<'a>(cycle: Cycle<'a>) -> &'a [ffi::ngx_listening_t] {
    // SAFETY: ngx_init_cycle made it an array of ngx_listening_t; nothing changes it while the
    // slice is in use (one thread, and callers do not push).
    unsafe { cycle.get().listening.as_slice() }
}

fn listening_mut<'a>(cycle: Cycle<'a>) -> &'a mut [ffi::ngx_listening_t] {
    // SAFETY: as above, and callers hold no other reference to an element.
    unsafe {
        let array = &raw mut (*cycle.as_raw()).listening;
        if (*array).nelts == 0 {
            return &mut [];
        }
        slice::from_raw_parts_mut((*array).elts.cast(), (*array).nelts)
    }
}

/// A copy of entry `index` at the end of the array: handler, servers and options are shared, as
/// ngx_clone_listening does for reuseport.
fn copy(cycle: Cycle<'_>, index: usize) -> Option<usize> {
    // SAFETY: the array belongs to the cycle that is being built. The element is read before the
    // push, which may move the array, and ngx_listening_t is plain data.
    unsafe {
        let array = &raw mut (*cycle.as_raw()).listening;
        let original = ptr::read(listening(cycle).get(index)?);
        let slot = ffi::ngx_array_push(array).cast::<ffi::ngx_listening_t>();
        if slot.is_null() {
            return None;
        }
        ptr::write(slot, original);
        Some((*array).nelts - 1)
    }
}

/// Where an entry refers to itself, it must refer to its present place: pushes move the array.
fn settle(cycle: Cycle<'_>) {
    for ls in listening_mut(cycle) {
        ls.log.data = (&raw mut ls.addr_text).cast();
        ls.rbtree.root = &raw mut ls.sentinel;
        ls.rbtree.sentinel = &raw mut ls.sentinel;
    }
}

/// Gives `ls` a sockaddr and a text of its own, for `address` of the same family.
///
/// # Safety
/// `ls.sockaddr` points to `ls.socklen` bytes; `pool` is the cycle's.
unsafe fn rename(
    pool: *mut ffi::ngx_pool_t,
    ls: &mut ffi::ngx_listening_t,
    address: &Address,
) -> Option<()> {
    let mut text = address.text();
    let len = text.len();
    // nginx unlinks a Unix socket by this text as a C string
    text.push(0);
    let socklen = ls.socklen as usize;
    // SAFETY: the new sockaddr has room for any family and is aligned for it (ngx_palloc); the old
    // one is copied for the scope of an IPv6 address; data has room for the text.
    unsafe {
        let room = mem::size_of::<libc::sockaddr_storage>().max(socklen);
        let sockaddr = ffi::ngx_pcalloc(pool, room);
        let data = ffi::ngx_pnalloc(pool, text.len()).cast::<u8>();
        if sockaddr.is_null() || data.is_null() {
            return None;
        }
        ptr::copy_nonoverlapping(ls.sockaddr.cast::<u8>(), sockaddr.cast::<u8>(), socklen);
        ptr::copy_nonoverlapping(text.as_ptr(), data, text.len());
        ls.sockaddr = sockaddr.cast();
        ls.addr_text = ffi::ngx_str_t { len, data };
        write(ls.sockaddr, address);
    }
    Some(())
}

/// # Safety
/// `sa` points to `len` bytes of a socket address.
unsafe fn read(sa: *const ffi::sockaddr, len: ffi::socklen_t) -> Option<Address> {
    let sa = sa.cast::<libc::sockaddr>();
    // SAFETY: the caller's contract; each family's structure is as long as its addresses are
    // (ngx_create_listening, ngx_parse_url), a path may be shorter and ends by NUL or by len.
    unsafe {
        match c_int::from((*sa).sa_family) {
            libc::AF_INET => {
                let sin = ptr::read_unaligned(sa.cast::<libc::sockaddr_in>());
                let ip = Ipv4Addr::from(u32::from_be(sin.sin_addr.s_addr));
                Some(Address::Inet(SocketAddrV4::new(ip, u16::from_be(sin.sin_port)).into()))
            }
            libc::AF_INET6 => {
                let sin6 = ptr::read_unaligned(sa.cast::<libc::sockaddr_in6>());
                let ip = Ipv6Addr::from(sin6.sin6_addr.s6_addr);
                let port = u16::from_be(sin6.sin6_port);
                Some(Address::Inet(SocketAddrV6::new(ip, port, 0, 0).into()))
            }
            libc::AF_UNIX => {
                let start = mem::offset_of!(libc::sockaddr_un, sun_path);
                let room = (len as usize).saturating_sub(start).min(SUN_PATH);
                let path = slice::from_raw_parts(sa.cast::<u8>().add(start), room);
                Some(Address::Unix(path.split(|byte| *byte == 0).next()?.to_vec()))
            }
            _ => None,
        }
    }
}

/// # Safety
/// `sa` points to a sockaddr of `address`'s family with room for any, zero behind its end.
unsafe fn write(sa: *mut ffi::sockaddr, address: &Address) {
    // SAFETY: the caller's contract; plan() kept paths shorter than SUN_PATH.
    unsafe {
        match address {
            Address::Inet(SocketAddr::V4(to)) => {
                (*sa.cast::<libc::sockaddr_in>()).sin_port = to.port().to_be();
            }
            Address::Inet(SocketAddr::V6(to)) => {
                (*sa.cast::<libc::sockaddr_in6>()).sin6_port = to.port().to_be();
            }
            Address::Unix(path) => {
                let to = &raw mut (*sa.cast::<libc::sockaddr_un>()).sun_path;
                let len = path.len().min(SUN_PATH - 1);
                ptr::write_bytes(to.cast::<u8>(), 0, SUN_PATH);
                ptr::copy_nonoverlapping(path.as_ptr(), to.cast::<u8>(), len);
            }
        }
    }
}
