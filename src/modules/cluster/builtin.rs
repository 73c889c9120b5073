//! The actions that every channel has.

use std::collections::BTreeMap;

use serde::Serialize;

use super::channel::Channel;
use super::location::Location;
use super::{hub, nodes, proof, refuse, settings, workers};
use crate::ngx::content::Outcome;
use crate::ngx::request::Request;
use crate::ngx::respond::Response;
use crate::proto::cluster::builtin::{BuiltIn, Command, command};

/// What `getServiceStat` tells of a node: the original's fields.
#[derive(Debug, Serialize)]
struct Stat {
    clients: Clients,
    ports: String,
    #[serde(rename = "routePort")]
    route_port: String,
    service: String,
    #[serde(rename = "super", skip_serializing_if = "Option::is_none")]
    superior: Option<String>,
}

/// By address; the original writes an empty table as a list.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Clients {
    None([(); 0]),
    Some(BTreeMap<String, Stat>),
}

impl Clients {
    fn of(stats: BTreeMap<String, Stat>) -> Clients {
        if stats.is_empty() { Clients::None([]) } else { Clients::Some(stats) }
    }
}

/// Runs the action for `request`.
pub fn serve(
    request: &Request<'_>,
    location: &Location,
    channel: &Channel,
    action: BuiltIn,
) -> Outcome {
    let name = action.name();
    let refused = |status, why: &str| request.respond(refuse::refused(request, name, status, why));
    if action.changes_state() && !proof::is_local(request) {
        return refused(403, "no proof of who asks");
    }
    let caller = request.peer().and_then(|peer| peer.ip());
    let command = match command(action, request.query(), caller) {
        Ok(command) => command,
        Err(why) => return refused(400, &why.to_string()),
    };
    if action.changes_state() && !workers::am_router() {
        return hub::forward(request, location, channel);
    }
    match command {
        Command::Stat { .. } => request.respond(stat(channel)),
        Command::Worker(port, pid) => {
            let known = workers::living().into_iter().any(|entry| {
                let listener = workers::listener(entry.seat.worker);
                entry.pid == pid && listener.and_then(|listener| listener.port()) == Some(port)
            });
            match known {
                true => request.respond(Response::text(200, "Okay.")),
                false => refused(404, "no such worker"),
            }
        }
        Command::BadWorker(_) => {
            workers::look_again();
            request.respond(Response::text(200, "Okay."))
        }
        Command::Nothing => request.respond(Response::text(200, "Okay.")),
        _ => refused(503, "this node has no part in a tree of nodes"),
    }
}

fn stat(channel: &Channel) -> Response {
    let port = |id| workers::listener(id).and_then(|listener| listener.port());
    let ports: Vec<String> = workers::living()
        .iter()
        .filter_map(|entry| port(entry.seat.worker))
        .map(|port| port.to_string())
        .collect();
    let router = workers::router().and_then(|router| port(router.seat.worker));
    let stat = Stat {
        clients: Clients::of(BTreeMap::new()),
        ports: ports.join(","),
        route_port: router.map_or_else(String::new, |port| port.to_string()),
        service: settings().map_or_else(String::new, |settings| settings.node().to_string()),
        superior: nodes::superior(&channel.name).map(|address| address.to_string()),
    };
    match serde_json::to_vec(&stat) {
        Ok(json) => Response::of(200, "application/json", json),
        Err(error) => Response::text(500, &error.to_string()),
    }
}
