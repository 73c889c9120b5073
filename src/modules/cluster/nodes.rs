//! The other nodes of a channel as any worker of this one sees them.

use std::net::SocketAddr;

use super::settings;

/// This node's super in that channel; none at a root.
pub fn superior(channel: &str) -> Option<SocketAddr> {
    let settings = settings()?;
    let first = settings.supers(channel.as_bytes()).first()?;
    (first.to_string() != settings.node()).then_some(*first)
}

/// The nodes whose super this one is.
pub fn clients(_channel: &str) -> Vec<SocketAddr> {
    Vec::new()
}
