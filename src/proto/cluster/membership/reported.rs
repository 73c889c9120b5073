//! Ports of clients' workers, as those report them (`reportClient=PORT`): kept for each host that has
//! a client here, and no longer.

use std::collections::{BTreeMap, BTreeSet};

use super::Membership;
use super::message::Reason;

/// Ports that a host may report.
const PORTS: usize = 1024;

/// What was reported, by host.
#[derive(Default)]
pub(super) struct Reported(BTreeMap<String, BTreeSet<u16>>);

/// The host of an address with a port.
fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

impl Membership {
    /// A worker of a client reports its port; `from` is the host that it calls from, an IPv6 address
    /// in brackets. Repeated, it changes nothing.
    pub fn report_worker(&mut self, from: &str, port: u16) -> Result<(), Reason> {
        if !self.clients.keys().any(|address| host(address) == from) {
            return Err(Reason::NotAsked);
        }
        let ports = self.reported.0.entry(from.into()).or_default();
        if ports.len() >= PORTS && !ports.contains(&port) {
            return Err(Reason::Full);
        }
        ports.insert(port);
        Ok(())
    }

    /// The ports that workers on a host have reported.
    pub fn reported_workers(&self, from: &str) -> impl Iterator<Item = u16> + '_ {
        self.reported.0.get(from).into_iter().flatten().copied()
    }

    /// Forgets what was reported from the host of a client that is gone, if it was the last one there.
    pub(super) fn forget_workers(&mut self, client: &str) {
        let gone = host(client);
        if !self.clients.keys().any(|address| host(address) == gone) {
            self.reported.0.remove(gone);
        }
    }
}
