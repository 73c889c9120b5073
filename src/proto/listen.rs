//! Which address each worker gets from `listen ... per_worker`, and whether any of them is taken.
//!
//! Decides from plain data: the addresses that the configuration names and the number of workers.
//! Knows neither sockets nor directives; `modules::listen` fills it and carries the plan out.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// Bytes in `sun_path`, the closing NUL included.
pub const SUN_PATH: usize = 108;

/// What a socket is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port; flow and scope are always 0.
    Inet(SocketAddr),
    /// A path in the file system.
    Unix(Vec<u8>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", String::from_utf8_lossy(path)),
        }
    }
}

/// TCP and UDP have ports of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP, or a Unix socket.
    Stream,
    /// UDP, QUIC among it.
    Datagram,
}

/// An address as one `listen` names it, or several of the same block that share its socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// http{}, stream{} or another: sockets are shared within one only.
    pub block: usize,
    /// See there.
    pub transport: Transport,
    /// The address, worker 0's.
    pub address: Address,
    /// Whether IPv4 stays out of an IPv6 socket.
    pub ipv6only: bool,
    /// Each worker has an address of its own, counted from this one.
    pub per_worker: bool,
    /// The directive's first parameter and its place; none for what no directive names.
    pub named: Option<Named>,
}

/// Where an address comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The address as the directive has it.
    pub text: String,
    /// `FILE:LINE`.
    pub place: String,
}

/// The addresses of a configuration, each once for its block.
#[derive(Debug, Default)]
pub struct Listens(Vec<Listen>);

/// The workers' addresses for one per_worker address.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan<'a> {
    /// What it was made from.
    pub listen: &'a Listen,
    /// How many other blocks that come before name the same address.
    pub nth: usize,
    /// Worker i's at index i.
    pub addresses: Vec<Address>,
}

/// Why there is no plan.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// The last workers have no port left.
    #[error("invalid port {port} of worker {worker} of {listen}")]
    Port {
        /// Beyond 65535.
        port: u32,
        /// The first worker without a port.
        worker: usize,
        /// The directive.
        listen: String,
    },
    /// The worker's number does not fit behind the path.
    #[error("too long path in the unix domain socket of worker {worker} of {listen}")]
    Path {
        /// The first worker without a path.
        worker: usize,
        /// The directive.
        listen: String,
    },
    /// Somebody else listens there.
    #[error("{address} of worker {worker} of {listen} conflicts with {other}")]
    Clash {
        /// What both want; the per_worker side's form of it.
        address: Address,
        /// Whose address it is.
        worker: usize,
        /// The directive.
        listen: String,
        /// The other directive, with its worker where it has one.
        other: String,
    },
}

impl Listens {
    /// Takes note of an address. True when it is the first to ask for per_worker on it.
    pub fn note(&mut self, listen: Listen) -> bool {
        let same = |known: &Listen| {
            known.block == listen.block
                && known.transport == listen.transport
                && known.address == listen.address
        };
        let Some(at) = self.0.iter().position(same) else {
            let first = listen.per_worker;
            self.0.push(listen);
            return first;
        };
        let first = listen.per_worker && !self.0.get(at).is_some_and(|known| known.per_worker);
        if first {
            // the place in the order is that of the word
            let known = self.0.remove(at);
            self.0.push(Listen { ipv6only: known.ipv6only && listen.ipv6only, ..listen });
        } else if let Some(known) = self.0.get_mut(at) {
            known.ipv6only &= listen.ipv6only;
        }
        first
    }

    /// Takes note of a socket that nginx is about to open; most come from a `listen` noted before.
    pub fn found(&mut self, transport: Transport, address: Address, ipv6only: bool) {
        let known = |known: &Listen| known.transport == transport && known.address == address;
        if !self.0.iter().any(known) {
            let block = usize::MAX;
            let listen =
                Listen { block, transport, address, ipv6only, per_worker: false, named: None };
            self.0.push(listen);
        }
    }

    /// Whether there is anything to plan.
    pub fn any_per_worker(&self) -> bool {
        self.0.iter().any(|listen| listen.per_worker)
    }

    /// The ports of worker 0, in the order of the configuration.
    pub fn base_ports(&self) -> impl Iterator<Item = u16> {
        self.0.iter().filter(|listen| listen.per_worker).filter_map(|listen| listen.address.port())
    }

    /// Where `worker` takes requests over the first per_worker address of `block` that speaks `transport`.
    pub fn of_worker(&self, block: usize, transport: Transport, worker: usize) -> Option<Address> {
        let own = |listen: &&Listen| {
            listen.per_worker && listen.block == block && listen.transport == transport
        };
        self.0.iter().find(own)?.of_worker(worker).ok().map(Address::to_connect)
    }

    /// One address per worker for each per_worker address, none of which clashes with another.
    pub fn plan(&self, workers: usize) -> Result<Vec<Plan<'_>>, PlanError> {
        let wanted = self.0.iter().enumerate().filter(|(_, listen)| listen.per_worker);
        let mut plans = Vec::new();
        for (index, listen) in wanted {
            let addresses: Result<Vec<_>, _> =
                (0..workers).map(|worker| listen.of_worker(worker)).collect();
            let twin = |other: &&Listen| {
                other.transport == listen.transport && other.address == listen.address
            };
            let nth = self.0.iter().take(index).filter(twin).count();
            let plan = Plan { listen, nth, addresses: addresses? };
            for (at, other) in self.0.iter().enumerate() {
                // of two per_worker addresses the earlier one has looked at both
                if at != index && !(other.per_worker && at < index) {
                    plan.against(other, workers)?;
                }
            }
            plans.push(plan);
        }
        Ok(plans)
    }
}

impl Plan<'_> {
    fn against(&self, other: &Listen, workers: usize) -> Result<(), PlanError> {
        let listen = self.listen;
        if listen.transport != other.transport {
            return Ok(());
        }
        let clash = match (&listen.address, &other.address) {
            (Address::Inet(_), Address::Inet(_)) if listen.meets(other) => {
                listen.first_common_port(other, workers)
            }
            (Address::Unix(_), Address::Unix(_)) => self.first_common_path(other, workers),
            _ => None,
        };
        let Some((worker, other_worker)) = clash else { return Ok(()) };
        let Some(address) = self.addresses.get(worker).cloned() else { return Ok(()) };
        let other = match (other.per_worker, other.of_worker(other_worker)) {
            (true, Ok(address)) => {
                format!("{address} of worker {other_worker} of {}", other.shown())
            }
            _ => other.shown(),
        };
        Err(PlanError::Clash { address, worker, listen: listen.shown(), other })
    }

    fn first_common_path(&self, other: &Listen, workers: usize) -> Option<(usize, usize)> {
        let others = if other.per_worker { workers } else { 1 };
        (0..others).find_map(|other_worker| {
            let address = other.of_worker(other_worker).ok()?;
            let worker = self.addresses.iter().position(|own| *own == address)?;
            Some((worker, other_worker))
        })
    }
}

impl Address {
    /// As nginx writes it in `addr_text`, a path's bytes unchanged.
    pub fn text(&self) -> Vec<u8> {
        match self {
            Address::Inet(address) => address.to_string().into_bytes(),
            Address::Unix(path) => [b"unix:", path.as_slice()].concat(),
        }
    }

    /// The address that this machine reaches a listener on this one by: a wildcard's is loopback.
    pub fn to_connect(self) -> Address {
        match self {
            Address::Inet(mut address) if address.ip().is_unspecified() => {
                address.set_ip(match address.ip() {
                    IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                    IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
                });
                Address::Inet(address)
            }
            address => address,
        }
    }

    /// None for a path.
    pub fn port(&self) -> Option<u16> {
        match self {
            Address::Inet(address) => Some(address.port()),
            Address::Unix(_) => None,
        }
    }

    fn ip(&self) -> Option<IpAddr> {
        match self {
            Address::Inet(address) => Some(address.ip()),
            Address::Unix(_) => None,
        }
    }
}

impl Listen {
    /// The address of `worker`; without per_worker all have the same.
    fn of_worker(&self, worker: usize) -> Result<Address, PlanError> {
        if !self.per_worker {
            return Ok(self.address.clone());
        }
        match &self.address {
            Address::Inet(address) => {
                let port = u32::from(address.port()).saturating_add(worker as u32);
                let fits = u16::try_from(port);
                let port =
                    fits.map_err(|_| PlanError::Port { port, worker, listen: self.shown() })?;
                Ok(Address::Inet(SocketAddr::new(address.ip(), port)))
            }
            Address::Unix(path) => {
                let mut path = path.clone();
                path.extend_from_slice(format!(".{worker}").as_bytes());
                if path.len() < SUN_PATH {
                    Ok(Address::Unix(path))
                } else {
                    Err(PlanError::Path { worker, listen: self.shown() })
                }
            }
        }
    }

    /// Whether some packet to one port could be meant for either.
    fn meets(&self, other: &Listen) -> bool {
        let (Some(a), Some(b)) = (self.reach(), other.reach()) else { return false };
        let both = |v4: Ipv4Addr| v4.is_unspecified();
        match (a, b) {
            (IpAddr::V4(a), IpAddr::V4(b)) => a == b || both(a) || both(b),
            (IpAddr::V6(a), IpAddr::V6(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
            (IpAddr::V6(a), IpAddr::V4(_)) => a.is_unspecified() && !self.ipv6only,
            (IpAddr::V4(_), IpAddr::V6(b)) => b.is_unspecified() && !other.ipv6only,
        }
    }

    /// The address in the family whose packets it gets: `[::ffff:1.2.3.4]` takes IPv4's.
    fn reach(&self) -> Option<IpAddr> {
        match self.address.ip()? {
            IpAddr::V6(ip) => Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)),
            ip => Some(ip),
        }
    }

    /// The workers of either side that meet at the lowest port both have.
    fn first_common_port(&self, other: &Listen, workers: usize) -> Option<(usize, usize)> {
        let (own, others) = (self.ports(workers)?, other.ports(workers)?);
        let port = *own.start().max(others.start());
        let common = own.contains(&port) && others.contains(&port);
        common.then(|| ((port - own.start()) as usize, (port - others.start()) as usize))
    }

    fn ports(&self, workers: usize) -> Option<std::ops::RangeInclusive<u32>> {
        let first = u32::from(self.address.port()?);
        let more = if self.per_worker { workers.saturating_sub(1) } else { 0 };
        Some(first..=first.saturating_add(more as u32))
    }

    /// The directive as messages name it.
    pub fn shown(&self) -> String {
        let word = if self.per_worker { " per_worker" } else { "" };
        match &self.named {
            Some(Named { text, place }) => format!("\"listen {text}{word}\" in {place}"),
            None if self.is_default() => {
                format!("{}, the default of a server without \"listen\"", self.address)
            }
            None => format!("{}, which no \"listen\" directive names", self.address),
        }
    }

    fn is_default(&self) -> bool {
        let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        self.address.ip() == Some(unspecified) && matches!(self.address.port(), Some(80 | 8000))
    }
}

#[cfg(test)]
#[path = "listen_tests.rs"]
mod tests;
