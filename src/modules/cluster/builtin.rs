//! The actions that every channel has.

use std::collections::BTreeMap;

use serde::Serialize;

use super::channel::Channel;
use super::hub::{Asker, Way};
use super::location::{Location, Timeouts};
use super::{nodes, proof, refuse, settings, workers};
use crate::modules::http::Http;
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

/// Serves a request for the action.
pub fn serve(
    request: &Request<'_>,
    location: &Location,
    channel: &Channel,
    action: BuiltIn,
) -> Outcome {
    let (channel, timeouts) = (channel.clone(), channel.timeouts(location));
    request.read_body::<Http>(move |parked, body| {
        let wait = parked.wait();
        let done = move |response| parked.respond(response);
        wait.with(|request| run(request, &channel, timeouts, action, body, done));
    })
}

/// Runs the action for a request, and hands its answer to `done`.
pub fn run(
    request: &Request<'_>,
    channel: &Channel,
    timeouts: Timeouts,
    action: BuiltIn,
    body: Vec<u8>,
    done: impl FnOnce(Response) + 'static,
) {
    let name = action.name();
    let refused = |status, why: &str| refuse::refused(request, name, status, why);
    if action.changes_state() && !proof::is_local(request) {
        return done(refused(403, "no proof of who asks"));
    }
    let command = match command(action, request.query(), proof::caller(request)) {
        Ok(command) => command,
        Err(why) => return done(refused(400, &why.to_string())),
    };
    if action.changes_state() && !workers::am_router() {
        return match Way::of(request, body, timeouts) {
            Ok(way) => way.go(Asker::Other(Box::new(done))),
            Err(response) => done(response),
        };
    }
    done(match command {
        Command::Stat { .. } => stat(channel),
        Command::Worker(port, pid) => {
            let known = workers::living().into_iter().any(|entry| {
                let listener = workers::listener(entry.seat.worker);
                entry.pid == pid && listener.and_then(|listener| listener.port()) == Some(port)
            });
            if known { Response::text(200, "Okay.") } else { refused(404, "no such worker") }
        }
        Command::BadWorker(_) => {
            workers::look_again();
            Response::text(200, "Okay.")
        }
        Command::Nothing => Response::text(200, "Okay."),
        _ => refused(503, "this node has no part in a tree of nodes"),
    });
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
