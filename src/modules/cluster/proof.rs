//! Who asks: the connection's other end, a user of this machine, a node that signed its call, or, where
//! another worker of this node sent the request on, what that one found. Workers believe each other by
//! a key that is in the zone.

use std::cell::RefCell;
use std::net::IpAddr;

use crate::modules::core::Core;
use crate::modules::http::Http;
use crate::modules::ipc::Peers;
use crate::ngx::cycle;
use crate::ngx::module::core_conf;
use crate::ngx::request::Request;
use crate::proto::cluster::action::shown;
use crate::proto::cluster::secret::{Secret, hex, unhex};

use super::{node, settings};

/// Headers of proxies: with one of them the connection's other end is not who asks.
const PROXIES: [&str; 4] = ["Forwarded", "Via", "X-Forwarded-For", "X-Real-IP"];

/// In the header from worker to worker; no node can have that name.
const OPERATOR: &str = "operator!";

/// Where a request came from to the first worker of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From this machine.
    Local,
    /// From a user of this machine who may give orders here, by a Unix socket.
    Operator,
    /// From another one, or nobody can tell.
    Remote,
    /// From a node that has the secret, as it calls itself.
    Node(String),
}

/// Who asks, and from which address where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// See there.
    pub origin: Origin,
    /// The address; none on a Unix socket, and where nobody can tell.
    pub ip: Option<IpAddr>,
}

impl Caller {
    /// This node itself.
    pub fn this_node() -> Caller {
        Caller { origin: Origin::Node(node()), ip: None }
    }

    /// Whether it may change the cluster.
    pub fn may_change(&self) -> bool {
        match self.origin {
            Origin::Node(_) | Origin::Operator => true,
            Origin::Local => settings().is_some_and(|settings| settings.secrets().is_none()),
            Origin::Remote => false,
        }
    }
}

/// The peers of this node in the zone.
pub fn peers() -> Option<Peers> {
    core_conf::<Core>(cycle::current()?)?.ipc.peers()
}

/// The header `CC-Hop`: how a request came from another worker of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Workers that it came through.
    pub steps: u8,
    /// Who asked the first one.
    pub caller: Caller,
}

impl Hop {
    /// What the request has: Some(None) where it has just come, None where the header is not what
    /// a worker of this node has written for this request.
    pub fn of(request: &Request<'_>) -> Option<Option<Hop>> {
        let Some(header) = request.header("CC-Hop") else { return Some(None) };
        let text = std::str::from_utf8(header).ok()?;
        let (claim, mac) = text.split_once("; mac=")?;
        let mac = unhex(mac.as_bytes())?;
        let (method, target) = (request.method(), request.target());
        if !key()?.1.verifies(&[b"cc1 hop\n", claim.as_bytes(), b"\n", method, b" ", &target], &mac)
        {
            return None;
        }
        let mut words = claim.split(' ');
        let steps = words.next()?.parse().ok()?;
        let ip = Some(words.next()?).filter(|ip| *ip != "-");
        let origin = match words.next()? {
            "local" => Origin::Local,
            "remote" => Origin::Remote,
            OPERATOR => Origin::Operator,
            node => Origin::Node(node.into()),
        };
        let ip = ip.map(str::parse).transpose().ok()?;
        Some(Some(Hop { steps, caller: Caller { origin, ip } }))
    }

    /// How many workers the request came through, as its header says, whoever has written that.
    pub fn claimed(request: &Request<'_>) -> Option<u8> {
        let text = std::str::from_utf8(request.header("CC-Hop")?).ok()?;
        let (claim, mac) = text.split_once("; mac=")?;
        let _: [u8; 32] = unhex(mac.as_bytes())?;
        claim.split(' ').next()?.parse().ok()
    }

    /// The header's value for a request with this method and target; None without a zone.
    pub fn header(&self, method: &[u8], target: &[u8]) -> Option<String> {
        let (bytes, key) = key()?;
        // nothing in it is new each time, so the last one may do again
        LAST.with_borrow_mut(|last| match last {
            Some(last) if last.is(self, &bytes, method, target) => Some(last.header.clone()),
            _ => {
                let header = self.written(&key, method, target);
                let hop = self.clone();
                let (method, target) = (method.to_vec(), target.to_vec());
                *last = Some(Last { hop, key: bytes, method, target, header: header.clone() });
                Some(header)
            }
        })
    }

    fn written(&self, key: &Secret, method: &[u8], target: &[u8]) -> String {
        let ip = self.caller.ip.map_or_else(|| "-".into(), |ip| ip.to_string());
        let origin = match &self.caller.origin {
            Origin::Local => "local",
            Origin::Remote => "remote",
            Origin::Operator => OPERATOR,
            Origin::Node(name) => name,
        };
        let claim = format!("{} {ip} {origin}", self.steps);
        let mac = key.sign(&[b"cc1 hop\n", claim.as_bytes(), b"\n", method, b" ", target]);
        format!("{claim}; mac={}", shown(&hex(&mac)))
    }
}

/// A header, and all that it says.
struct Last {
    hop: Hop,
    key: [u8; 32],
    method: Vec<u8>,
    target: Vec<u8>,
    header: String,
}

impl Last {
    fn is(&self, hop: &Hop, key: &[u8; 32], method: &[u8], target: &[u8]) -> bool {
        self.target == target && self.method == method && self.hop == *hop && self.key == *key
    }
}

thread_local! {
    static KEY: RefCell<Option<([u8; 32], Secret)>> = const { RefCell::new(None) };
    /// What was written last.
    static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
}

/// What workers of this node, and nobody else, know.
fn key() -> Option<([u8; 32], Secret)> {
    let bytes = peers()?.key();
    KEY.with_borrow_mut(|known| match known {
        Some((key, secret)) if *key == bytes => Some((bytes, secret.clone())),
        _ => {
            let secret = Secret::new(&bytes);
            *known = Some((bytes, secret.clone()));
            Some((bytes, secret))
        }
    })
}

/// Who asks.
pub fn caller(request: &Request<'_>) -> Caller {
    let remote = |ip| Caller { origin: Origin::Remote, ip };
    match Hop::of(request) {
        None => return remote(None),
        Some(Some(hop)) => return hop.caller,
        Some(None) => {}
    }
    let Some(peer) = request.peer() else { return remote(None) };
    let proxied = PROXIES.iter().any(|name| request.header(name).is_some());
    match peer.is_local() {
        true if proxied => remote(None),
        true if may_order(request) => Caller { origin: Origin::Operator, ip: None },
        true => Caller { origin: Origin::Local, ip: peer.ip() },
        false => remote(peer.ip()),
    }
}

/// Whether the location takes orders from the user at the other end of the connection.
fn may_order(request: &Request<'_>) -> bool {
    let users = request.location::<Http>().map_or(&[][..], |conf| conf.cluster.orders());
    !users.is_empty() && request.user().is_some_and(|user| users.contains(&user))
}

/// Whether the request comes from this machine, not through a proxy.
pub fn is_local(request: &Request<'_>) -> bool {
    matches!(caller(request).origin, Origin::Local | Origin::Operator)
}
