//! Addresses of nodes: what the user may write, what may be learned from another node, and where a
//! learned one may point (`cc_allow_node`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str;

use crate::proto::upstream::address::unix_path;

use ipnet::IpNet;

/// Longest address of a node, in bytes.
pub const ADDRESS_MAX: usize = 64;
/// Longest path of a Unix socket: `sun_path` without its closing NUL.
const PATH_MAX: usize = 107;
/// Most networks of a list.
pub const NETWORKS_MAX: usize = 256;
/// The port of an address that has none; the original's.
pub const PORT: u16 = 80;

/// Where calls are sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port.
    Inet(SocketAddr),
    /// A name and a port; only the configuration has such.
    Name(String, u16),
    /// A Unix socket's path; a worker's listener.
    Unix(Vec<u8>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => write!(f, "{address}"),
            Address::Name(name, port) => write!(f, "{name}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", String::from_utf8_lossy(path)),
        }
    }
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Longer than any.
    #[error("the address is too long")]
    Long,
    /// Not of the form.
    #[error("not an address of the form HOST:PORT")]
    Form,
    /// Not 1 to 65535.
    #[error("the port must be between 1 and 65535")]
    Port,
    /// Not letters, digits, `-` and `.`.
    #[error("invalid host name")]
    Name,
    /// A name where only numbers are taken.
    #[error("the host must be an IP address")]
    NotNumeric,
    /// Not absolute, or too long for a socket.
    #[error("invalid path of a Unix socket")]
    Path,
}

/// Reads an address that the user wrote: `HOST:PORT` with an IPv4 address, an IPv6 address in
/// brackets or a name, or `unix:/PATH`.
pub fn configured(text: &[u8]) -> Result<Address, AddressError> {
    if let Some(path) = unix_path(text) {
        let fits = path.starts_with(b"/") && path.len() <= PATH_MAX && !path.contains(&0);
        return fits.then(|| Address::Unix(path.to_vec())).ok_or(AddressError::Path);
    }
    let (host, port) = split(text)?;
    let port = port.ok_or(AddressError::Form)?;
    match ip(host)? {
        Some(ip) => Ok(Address::Inet(SocketAddr::new(ip, port))),
        None if !is_name(host) => Err(AddressError::Name),
        None => Ok(Address::Name(host.to_ascii_lowercase(), port)),
    }
}

/// Reads an address that somebody else sent: numbers only. Without a port it is [`PORT`].
pub fn learned(text: &[u8]) -> Result<SocketAddr, AddressError> {
    let (host, port) = split(text)?;
    let ip = ip(host)?.ok_or(AddressError::NotNumeric)?;
    Ok(SocketAddr::new(ip.to_canonical(), port.unwrap_or(PORT)))
}

/// Reads a port: decimal digits, 1 to 65535.
pub fn port(text: &[u8]) -> Result<u16, AddressError> {
    let digits = !text.is_empty() && text.len() <= 5 && text.iter().all(u8::is_ascii_digit);
    let number = str::from_utf8(text).ok().filter(|_| digits).and_then(|text| text.parse().ok());
    number.filter(|port| *port != 0).ok_or(AddressError::Port)
}

/// Host, without brackets, and port.
fn split(text: &[u8]) -> Result<(&str, Option<u16>), AddressError> {
    if text.len() > ADDRESS_MAX {
        return Err(AddressError::Long);
    }
    let text = str::from_utf8(text).map_err(|_| AddressError::Form)?;
    let (host, rest) = if text.starts_with('[') {
        let end = text.find(']').ok_or(AddressError::Form)?;
        text.split_at_checked(end + 1).ok_or(AddressError::Form)?
    } else {
        text.split_at_checked(text.find(':').unwrap_or(text.len())).ok_or(AddressError::Form)?
    };
    if host.is_empty() {
        return Err(AddressError::Form);
    }
    match rest.strip_prefix(':') {
        Some(digits) if digits.contains(':') => Err(AddressError::Form), // IPv6 without brackets
        Some(digits) => Ok((host, Some(port(digits.as_bytes())?))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(AddressError::Form),
    }
}

/// None where it is a name.
fn ip(host: &str) -> Result<Option<IpAddr>, AddressError> {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse().map(|ip| Some(IpAddr::V6(ip))).map_err(|_| AddressError::Form),
        None => Ok(host.parse::<Ipv4Addr>().ok().map(IpAddr::V4)),
    }
}

/// A host name as DNS has it. One whose last label is a number, such as 127.1, is none: resolvers
/// take it for an address.
fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(inner)
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    host.split('.').all(label) && !last.bytes().next().is_none_or(|byte| byte.is_ascii_digit())
}

/// Why a learned address is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// No call can go there.
    #[error("the address is no place of a single node")]
    Nowhere,
    /// In none of the networks.
    #[error("the address is not in \"cc_allow_node\"")]
    Unlisted,
    /// Loopback and link-local addresses, the cloud's metadata among them, must be listed as such.
    #[error("the address is local and \"cc_allow_node\" does not name it as such")]
    Local,
}

/// Where learned addresses may point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Vec<IpNet>);

impl AllowList {
    /// What holds without `cc_allow_node`: the supers that are given as addresses, and loopback.
    pub fn usual(supers: impl IntoIterator<Item = IpAddr>) -> AllowList {
        let loopback = ["127.0.0.0/8", "::1/128"].into_iter().filter_map(|net| net.parse().ok());
        let supers = supers.into_iter().map(|ip| IpNet::from(ip.to_canonical()));
        AllowList(loopback.chain(supers).take(NETWORKS_MAX).collect())
    }

    /// Adds a network, `ADDRESS/BITS`, or a single address. False where it is neither, or one too
    /// many.
    pub fn add(&mut self, text: &[u8]) -> bool {
        let Ok(text) = str::from_utf8(text) else { return false };
        let single = || text.parse::<IpAddr>().ok().map(|ip| IpNet::from(ip.to_canonical()));
        let Some(net) = text.parse::<IpNet>().ok().or_else(single) else { return false };
        let room = self.0.len() < NETWORKS_MAX;
        if room {
            self.0.push(net.trunc());
        }
        room
    }

    /// Whether calls may go to an address that somebody else gave.
    pub fn check(&self, address: &SocketAddr) -> Result<(), NotAllowed> {
        let ip = address.ip().to_canonical();
        let nobody = match ip {
            IpAddr::V4(ip) => ip.is_broadcast() || ip.octets().first() == Some(&0),
            IpAddr::V6(ip) => ip.is_unspecified(),
        };
        if address.port() == 0 || ip.is_multicast() || nobody {
            return Err(NotAllowed::Nowhere);
        }
        let mut nets = self.0.iter().filter(|net| net.contains(&ip)).peekable();
        if nets.peek().is_none() {
            return Err(NotAllowed::Unlisted);
        }
        // a wide net, such as 0.0.0.0/0, does not open what only this machine should reach
        let local_only = |net: &IpNet| is_local(net.network()) && is_local(net.broadcast());
        let meant = !is_local(ip) || nets.any(local_only);
        if meant { Ok(()) } else { Err(NotAllowed::Local) }
    }
}

fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_user_may_write() {
        for (text, shown) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[::1]:8080", "[::1]:8080"),
            ("Node-1.Example:65535", "node-1.example:65535"),
            ("unix:/run/a b.sock", "unix:/run/a b.sock"),
            ("Unix:/run/a", "unix:/run/a"),
        ] {
            assert_eq!(configured(text.as_bytes()).unwrap().to_string(), shown);
        }
        for (text, error) in [
            ("10.0.0.1", AddressError::Form),
            ("10.0.0.1:", AddressError::Port),
            ("10.0.0.1:0", AddressError::Port),
            ("10.0.0.1:65536", AddressError::Port),
            ("10.0.0.1:+80", AddressError::Port),
            ("10.0.0.1:080x", AddressError::Port),
            ("::1:80", AddressError::Form),
            ("fe80::1:80", AddressError::Form),
            ("[::1]80", AddressError::Form),
            ("[::1:80", AddressError::Form),
            ("[::1%eth0]:80", AddressError::Form),
            (":80", AddressError::Form),
            ("", AddressError::Form),
            ("127.1:80", AddressError::Name),
            ("10.0.0.300:80", AddressError::Name),
            ("a_b:80", AddressError::Name),
            ("a..b:80", AddressError::Name),
            ("-a:80", AddressError::Name),
            ("http://a:80", AddressError::Form),
            ("user@a:80", AddressError::Name),
            ("unix:run", AddressError::Path),
            ("Unix:10", AddressError::Path),
        ] {
            assert_eq!(configured(text.as_bytes()), Err(error), "{text}");
        }
        assert_eq!(configured(&[b'a'; 65]), Err(AddressError::Long));
    }

    #[test]
    fn what_others_send_has_numbers_only() {
        assert_eq!(learned(b"10.0.0.1:90").unwrap().to_string(), "10.0.0.1:90");
        assert_eq!(learned(b"10.0.0.1").unwrap().to_string(), "10.0.0.1:80");
        assert_eq!(learned(b"[::ffff:127.0.0.1]:1").unwrap().to_string(), "127.0.0.1:1");
        assert_eq!(learned(b"localhost:80"), Err(AddressError::NotNumeric));
        assert_eq!(learned(b"unix:/x"), Err(AddressError::Port));
        for text in
            ["0x7f.1:80", "2130706433:80", "017700000001:80", "abc,1.2.3.4:5", "127.0.0.1\r\n:80"]
        {
            assert!(learned(text.as_bytes()).is_err(), "{text}");
        }
    }

    fn allows(list: &AllowList, address: &str) -> Result<(), NotAllowed> {
        list.check(&address.parse().unwrap())
    }

    #[test]
    fn local_addresses_are_allowed_by_name_only() {
        let mut all = AllowList::default();
        assert!(all.add(b"0.0.0.0/0") && all.add(b"::/0"));
        for good in ["10.0.0.1:80", "8.8.8.8:53", "[2001:db8::1]:80"] {
            assert_eq!(allows(&all, good), Ok(()), "{good}");
        }
        for local in [
            "127.0.0.1:80",
            "169.254.169.254:80",
            "[::1]:80",
            "[fe80::1]:80",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert_eq!(allows(&all, local), Err(NotAllowed::Local), "{local}");
        }
        for nowhere in [
            "0.0.0.0:80",
            "0.1.2.3:80",
            "[::]:80",
            "224.0.0.1:80",
            "[ff02::1]:80",
            "255.255.255.255:80",
            "10.0.0.1:0",
        ] {
            assert_eq!(allows(&all, nowhere), Err(NotAllowed::Nowhere), "{nowhere}");
        }
        assert!(all.add(b"0.0.0.0/1") && all.add(b"127.0.0.0/7"));
        assert_eq!(allows(&all, "127.0.0.5:80"), Err(NotAllowed::Local));
        assert!(all.add(b"127.0.0.0/8"));
        assert_eq!(allows(&all, "127.0.0.5:80"), Ok(()));
        assert_eq!(allows(&all, "169.254.169.254:80"), Err(NotAllowed::Local));
    }

    #[test]
    fn without_a_list_it_is_loopback_and_the_supers() {
        let list = AllowList::usual(["10.1.2.3".parse().unwrap()]);
        for good in ["127.0.0.1:1", "[::1]:1", "10.1.2.3:9", "[::ffff:10.1.2.3]:9"] {
            assert_eq!(allows(&list, good), Ok(()), "{good}");
        }
        for bad in ["10.1.2.4:9", "169.254.169.254:80", "192.168.0.1:1"] {
            assert_eq!(allows(&list, bad), Err(NotAllowed::Unlisted), "{bad}");
        }
    }

    #[test]
    fn networks_are_read_strictly() {
        let mut list = AllowList::default();
        for good in ["10.0.0.0/8", "10.1.1.1/8", "192.168.1.1", "2001:db8::/32", "::1"] {
            assert!(list.add(good.as_bytes()), "{good}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "all", "10.0.0.0/-1", "1.2.3.4/8/8", " 10.0.0.1"]
        {
            assert!(!list.add(bad.as_bytes()), "{bad}");
        }
        while list.add(b"10.0.0.1") {}
        assert_eq!(list.0.len(), NETWORKS_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_address_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (configured(&bytes), learned(&bytes), AllowList::default().add(&bytes));
        }

        #[test]
        fn what_is_shown_is_read(ip in any::<IpAddr>(), port in 1u16..) {
            let address = SocketAddr::new(ip.to_canonical(), port);
            prop_assert_eq!(learned(address.to_string().as_bytes()), Ok(address));
            prop_assert_eq!(configured(address.to_string().as_bytes()), Ok(Address::Inet(address)));
        }
    }
}
