//! What a status tells of the balanced upstreams: their peers, and which of them have failed.

use super::candidates::{self, Candidates, Failing};
use super::settings::{Conf, Source};
use crate::modules::http::Http;
use crate::ngx::cycle;
use crate::ngx::upstream;
use crate::proto::status::{Peer, Upstream};

/// Every upstream with `cc_balancer`.
pub fn upstreams() -> Vec<Upstream> {
    let Some(cycle) = cycle::current() else { return Vec::new() };
    let mut upstreams = Vec::new();
    upstream::each::<Http>(cycle, |name, conf| upstreams.push(one(name, &conf.upstream)));
    upstreams
}

fn one(name: &[u8], conf: &Conf) -> Upstream {
    let hashed = |peers: &Candidates| {
        let failing = Failing::of(conf, peers);
        let peer = |place| {
            Some(Peer {
                address: peers.get(place)?.to_string(),
                fails: Some(failing.count(place).into()),
                failed: failing.passes_over(place),
            })
        };
        (0..peers.count()).filter_map(peer).collect()
    };
    let (source, peers) = match &conf.source {
        None => ("method", Vec::new()),
        Some(Source::Listed(..)) => ("variable", Vec::new()),
        Some(Source::Fixed(peers)) => {
            let peer = |peer: &std::rc::Rc<upstream::Target>| Peer {
                address: peer.to_string(),
                ..Peer::default()
            };
            ("list", peers.iter().map(peer).collect())
        }
        Some(Source::Workers { .. }) => ("workers", hashed(&candidates::workers())),
        Some(Source::Clients { channel, .. }) => {
            let channel =
                channel.constant().map(|name| candidates::clients(&String::from_utf8_lossy(name)));
            ("clients", channel.map_or_else(Vec::new, |peers| hashed(&peers)))
        }
    };
    Upstream { name: String::from_utf8_lossy(name).into_owned(), source, peers }
}
