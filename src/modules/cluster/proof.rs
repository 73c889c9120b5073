//! Who asks: whether a request comes from this machine.

use std::net::{IpAddr, Ipv4Addr};

use crate::ngx::request::Request;

/// Headers of proxies: with one of them the connection's other end is not who asks.
const PROXIES: [&str; 4] = ["Forwarded", "Via", "X-Forwarded-For", "X-Real-IP"];

/// Where a request came from to the first worker of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From this machine.
    Local,
    /// From another one, or nobody can tell.
    Remote(Option<IpAddr>),
}

/// The header `CC-Hop`: how a request came from another worker of this node. Who writes it himself
/// is believed as far as his own connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Workers that it came through.
    pub steps: u8,
    /// See there.
    pub from: Origin,
}

impl Hop {
    /// What the request has; without the header it has just come. None where the header is not
    /// what this code writes.
    pub fn of(request: &Request<'_>) -> Option<Hop> {
        let Some(text) = request.header("CC-Hop") else {
            return Some(Hop { steps: 0, from: Origin::Local });
        };
        let (steps, from) = std::str::from_utf8(text).ok()?.split_once("; from=")?;
        let from = match from {
            "local" => Origin::Local,
            "unknown" => Origin::Remote(None),
            address => Origin::Remote(Some(address.parse().ok()?)),
        };
        Some(Hop { steps: steps.parse().ok()?, from })
    }

    /// The header's value.
    pub fn header(&self) -> String {
        let from = match self.from {
            Origin::Local => "local".into(),
            Origin::Remote(None) => "unknown".into(),
            Origin::Remote(Some(address)) => address.to_string(),
        };
        format!("{}; from={from}", self.steps)
    }
}

/// Where the request comes from, as far as its connection tells, and, where a worker of this node
/// sent it on, that worker.
pub fn origin(request: &Request<'_>) -> Origin {
    let Some(peer) = request.peer() else { return Origin::Remote(None) };
    if !peer.is_local() {
        return Origin::Remote(peer.ip());
    }
    let Some(hop) = Hop::of(request) else { return Origin::Remote(None) };
    if hop.from == Origin::Local && PROXIES.iter().any(|name| request.header(name).is_some()) {
        return Origin::Remote(None);
    }
    hop.from
}

/// The address that the request comes from; None on a Unix socket, and where nobody can tell.
pub fn caller(request: &Request<'_>) -> Option<IpAddr> {
    match origin(request) {
        Origin::Local => request.peer().and_then(|peer| peer.ip()).or_else(|| from_worker(request)),
        Origin::Remote(address) => address,
    }
}

/// A worker behind a Unix socket sent on what came to it from this machine.
fn from_worker(request: &Request<'_>) -> Option<IpAddr> {
    request.header("CC-Hop").map(|_| IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Whether the request comes from this machine, not through a proxy.
pub fn is_local(request: &Request<'_>) -> bool {
    origin(request) == Origin::Local
}
