//! The other nodes of a channel as any worker of this one sees them.

use std::net::SocketAddr;

use super::{driver, lua, node, settings};
use crate::proto::cluster::membership::standing::{Place, Standing};

/// This node's super in that channel, the one it has or wants; none at a root.
pub fn superior(channel: &str) -> Option<SocketAddr> {
    let table = driver::table()?;
    let standing = table.channel(channel).and_then(|id| table.standing(id)).unwrap_or_default();
    superior_in(channel, &standing)
}

/// The same, where what the node is there is known.
pub fn superior_in(channel: &str, standing: &Standing) -> Option<SocketAddr> {
    if let Some(above) = standing.above.as_ref().filter(|_| standing.place == Place::Joined) {
        return above.address.parse().ok();
    }
    let first = match &standing.moved {
        Some(moved) => moved.parse().ok(),
        None => wanted(channel),
    };
    first.filter(|address: &SocketAddr| address.to_string() != node())
}

/// The first super that is set.
fn wanted(channel: &str) -> Option<SocketAddr> {
    match lua::supers(channel) {
        Some(supers) => supers.first()?.parse().ok(),
        None => settings()?.supers(channel.as_bytes()).first().copied(),
    }
}

/// The nodes whose super this one is.
pub fn clients(channel: &str) -> Vec<SocketAddr> {
    let mut clients = Vec::new();
    if let Some(table) = driver::table()
        && let Some(id) = table.channel(channel)
    {
        table.clients(id, |client| clients.extend(client.address.parse::<SocketAddr>()));
    }
    clients.sort();
    clients.dedup();
    clients
}
