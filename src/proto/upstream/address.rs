//! Addresses of peers, one or a list, as variables and Lua give them. A name is refused: nothing
//! here ever waits for a resolver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use crate::proto::listen::{Address, SUN_PATH};

/// Why a text is no address of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[repr(i32)]
pub enum AddressError {
    /// Nothing, or nothing before the port.
    #[error("no host")]
    NoHost = -1,
    /// Not an IP address; a name would have to be resolved.
    #[error("no host allowed")]
    NotAnAddress = -2,
    /// More than an address, or an open bracket.
    #[error("invalid host")]
    InvalidHost = -3,
    /// Between the brackets.
    #[error("invalid IPv6 address")]
    InvalidIpv6 = -4,
    /// Missing, 0, above 65535, or not a number.
    #[error("invalid port")]
    InvalidPort = -5,
    /// `unix:` alone.
    #[error("no path in the unix domain socket")]
    NoPath = -6,
    /// Does not fit into a socket address.
    #[error("too long path in the unix domain socket")]
    LongPath = -7,
    /// A NUL would cut it short.
    #[error("invalid path in the unix domain socket")]
    InvalidPath = -8,
}

impl AddressError {
    /// All of them; each stands for its number where Lua asks.
    pub const ALL: [AddressError; 8] = [
        AddressError::NoHost,
        AddressError::NotAnAddress,
        AddressError::InvalidHost,
        AddressError::InvalidIpv6,
        AddressError::InvalidPort,
        AddressError::NoPath,
        AddressError::LongPath,
        AddressError::InvalidPath,
    ];
}

/// The port that comes beside an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// None is given: the address has it.
    Nothing,
    /// A number, whatever it is.
    Port(i64),
}

/// `host` as an address, with the port it has itself, else the one beside it.
pub fn peer(host: &[u8], beside: Beside) -> Result<Address, AddressError> {
    if let Some(path) = unix_path(host) {
        return unix(path);
    }
    let Ok(host) = std::str::from_utf8(host) else { return Err(AddressError::NotAnAddress) };
    let (name, port) = split(host)?;
    let port = port.map(number).transpose()?;
    let ip = ip(name);
    // what is wrong with the port matters less than that there is no address
    let port = match (port, beside) {
        (Some(port), _) => port,
        (None, Beside::Port(port)) => match u16::try_from(port) {
            Ok(port @ 1..) => port,
            _ => ip.and(Err(AddressError::InvalidPort))?,
        },
        (None, Beside::Nothing) => ip.and(Err(AddressError::InvalidPort))?,
    };
    Ok(Address::Inet(SocketAddr::new(ip?, port)))
}

/// The addresses of a list, separated by commas or blanks; on error the word that is none.
pub fn list(text: &[u8]) -> Result<Vec<Address>, (&[u8], AddressError)> {
    let words = text
        .split(|byte| matches!(byte, b',' | b' ' | b'\t' | b'\r' | b'\n'))
        .filter(|word| !word.is_empty());
    words.map(|word| peer(word, Beside::Nothing).map_err(|error| (word, error))).collect()
}

/// The path of a Unix socket. As nginx, which takes the word in any case.
pub fn unix_path(host: &[u8]) -> Option<&[u8]> {
    let (word, path) = host.split_at_checked(5)?;
    word.eq_ignore_ascii_case(b"unix:").then_some(path)
}

fn unix(path: &[u8]) -> Result<Address, AddressError> {
    match path {
        [] => Err(AddressError::NoPath),
        _ if path.len() >= SUN_PATH => Err(AddressError::LongPath),
        _ if path.contains(&0) => Err(AddressError::InvalidPath),
        _ => Ok(Address::Unix(path.to_vec())),
    }
}

/// The host, with its brackets, and the port's text.
fn split(host: &str) -> Result<(&str, Option<&str>), AddressError> {
    if host.is_empty() {
        return Err(AddressError::NoHost);
    }
    if host.contains(['/', '?', '#']) {
        return Err(AddressError::InvalidHost);
    }
    if !host.starts_with('[') {
        return match host.split_once(':') {
            Some(("", rest)) if !rest.contains(':') => Err(AddressError::NoHost),
            Some((name, port)) => Ok((name, Some(port))),
            None => Ok((host, None)),
        };
    }
    let end = host.find(']').ok_or(AddressError::InvalidHost)? + 1;
    let (name, rest) = host.split_at_checked(end).ok_or(AddressError::InvalidHost)?;
    match rest.strip_prefix(':') {
        Some(port) => Ok((name, Some(port))),
        None if rest.is_empty() => Ok((name, None)),
        None => Err(AddressError::InvalidHost),
    }
}

fn number(port: &str) -> Result<u16, AddressError> {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port @ 1..) if digits => Ok(port),
        _ => Err(AddressError::InvalidPort),
    }
}

fn ip(name: &str) -> Result<IpAddr, AddressError> {
    match name.strip_prefix('[') {
        Some(rest) => {
            let text = rest.strip_suffix(']').ok_or(AddressError::InvalidHost)?;
            text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| AddressError::InvalidIpv6)
        }
        None => name.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| AddressError::NotAnAddress),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(host: &str, beside: Beside) -> String {
        peer(host.as_bytes(), beside).map_or_else(|e| e.to_string(), |a| a.to_string())
    }

    fn alone(host: &str) -> String {
        told(host, Beside::Nothing)
    }

    fn with(host: &str, port: i64) -> String {
        told(host, Beside::Port(port))
    }

    #[test]
    fn addresses() {
        assert_eq!(with("127.0.0.1", 80), "127.0.0.1:80"); // B1
        assert_eq!(alone("127.0.0.1:81"), "127.0.0.1:81"); // B2
        assert_eq!(with("127.0.0.1:81", 80), "127.0.0.1:81");
        assert_eq!(with("[::1]", 80), "[::1]:80"); // B3
        assert_eq!(alone("[::1]:81"), "[::1]:81");
        assert_eq!(alone("unix:/run/a b"), "unix:/run/a b"); // B4
        assert_eq!(with("unix:/run/a", 80), "unix:/run/a");
        assert_eq!(alone("UNIX:/run/a"), "unix:/run/a");
    }

    #[test]
    fn names_are_refused() {
        for name in ["localhost", "example.invalid", "256.1.1.1", "0", "*", "1.2.3", "a b"] {
            assert_eq!(with(name, 80), "no host allowed", "{name}"); // B5
            assert_eq!(alone(name), "no host allowed", "{name}");
            assert_eq!(with(name, 0), "no host allowed", "{name}");
        }
        assert_eq!(peer(b"\xff\xfe", Beside::Port(80)), Err(AddressError::NotAnAddress));
    }

    #[test]
    fn what_is_no_address() {
        assert_eq!(with("", 80), "no host"); // B5
        assert_eq!(alone(":80"), "no host");
        assert_eq!(with("1.2.3.4/path", 80), "invalid host");
        assert_eq!(with("[::1", 80), "invalid host");
        assert_eq!(with("[::1]x", 80), "invalid host");
        assert_eq!(with("[::g]", 80), "invalid IPv6 address");
        assert_eq!(with("::1", 80), "invalid port"); // B3
        assert_eq!(alone("unix:"), "no path in the unix domain socket"); // B4
        assert_eq!(alone("unix:/a\0b"), "invalid path in the unix domain socket");
        let long = format!("unix:/{}", "x".repeat(SUN_PATH));
        assert_eq!(alone(&long), "too long path in the unix domain socket");
    }

    #[test]
    fn ports_are_1_to_65535() {
        for bad in
            ["1.2.3.4:99999", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:+80", "1.2.3.4:8o", "1.2.3.4"]
        {
            assert_eq!(alone(bad), "invalid port", "{bad}"); // B5, B6
        }
        assert_eq!(alone("[::1]"), "invalid port");
        for bad in [-1, 0, 65536, 85377, i64::MAX, i64::MIN] {
            assert_eq!(with("1.2.3.4", bad), "invalid port", "{bad}"); // B6
        }
    }

    #[test]
    fn lists() {
        let told = |text: &str| {
            let list = list(text.as_bytes());
            list.map(|all| all.iter().map(Address::to_string).collect::<Vec<_>>().join(" "))
                .map_err(|(word, error)| format!("{}: {error}", String::from_utf8_lossy(word)))
        };
        assert_eq!(told("1.2.3.4:80").as_deref(), Ok("1.2.3.4:80"));
        assert_eq!(
            told(" 1.2.3.4:80,,[::1]:81 , unix:/a\n").as_deref(),
            Ok("1.2.3.4:80 [::1]:81 unix:/a")
        );
        assert_eq!(told("").as_deref(), Ok(""));
        assert_eq!(told(", ").as_deref(), Ok(""));
        assert_eq!(told("1.2.3.4:80 localhost:80"), Err("localhost:80: no host allowed".into()));
    }

    #[test]
    fn numbers_name_the_errors() {
        for (error, n) in AddressError::ALL.into_iter().zip(1..) {
            assert_eq!(error as i32, -n);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..80), port in any::<i64>()) {
            let _ = list(&text);
            let _ = peer(&text, Beside::Port(port));
        }

        #[test]
        fn what_is_written_is_read(v6 in any::<bool>(), bits in any::<u128>(), port in 1u16..) {
            let ip = if v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4((bits as u32).into()) };
            let address = SocketAddr::new(ip, port);
            prop_assert_eq!(peer(address.to_string().as_bytes(), Beside::Nothing), Ok(Address::Inet(address)));
        }
    }
}
