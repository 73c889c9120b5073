//! Who asks: whether a request comes from this machine.

use crate::ngx::request::Request;

/// Headers of proxies: with one of them the connection's other end is not who asks.
const PROXIES: [&str; 4] = ["Forwarded", "Via", "X-Forwarded-For", "X-Real-IP"];

/// The header `CC-Hop`: how a request came from another worker of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Workers that it came through.
    pub steps: u8,
    /// Whether it came to the first one from this machine.
    pub local: bool,
}

impl Hop {
    /// What the request has; without the header it has just come. None where the header is not
    /// what this code writes.
    pub fn of(request: &Request<'_>) -> Option<Hop> {
        let Some(text) = request.header("CC-Hop") else {
            return Some(Hop { steps: 0, local: true });
        };
        let (steps, from) = std::str::from_utf8(text).ok()?.split_once("; from=")?;
        let local = match from {
            "local" => true,
            "remote" => false,
            _ => return None,
        };
        Some(Hop { steps: steps.parse().ok()?, local })
    }

    /// The header's value.
    pub fn header(&self) -> String {
        format!("{}; from={}", self.steps, if self.local { "local" } else { "remote" })
    }
}

/// Whether the request comes from this machine, as far as its connection tells, and, where another
/// worker sent it on, that one's.
pub fn is_local(request: &Request<'_>) -> bool {
    request.peer().is_some_and(|peer| peer.is_local())
        && Hop::of(request).is_some_and(|hop| hop.local)
        && PROXIES.iter().all(|name| request.header(name).is_none())
}
