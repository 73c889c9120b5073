//! The actions that every channel has.

use super::channel::Channel;
use super::hub::{Asker, Way};
use super::location::{Location, Timeouts};
use super::{nodes, proof, refuse, settings, workers};
use crate::modules::http::Http;
use crate::ngx::content::Outcome;
use crate::ngx::request::Request;
use crate::ngx::respond::Response;
use crate::proto::cluster::builtin::{BuiltIn, Command, command};
use crate::proto::cluster::stat::Stat;

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
        Command::Stat { self_only } => stat(channel, self_only),
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

/// What is known here of the node itself.
fn stat(channel: &Channel, self_only: bool) -> Response {
    let port = |id| workers::listener(id).and_then(|listener| listener.port());
    let living = workers::living();
    let ports: Vec<u16> = living.iter().filter_map(|entry| port(entry.seat.worker)).collect();
    let service = settings().map_or_else(String::new, |settings| settings.node().to_string());
    let router = workers::router().and_then(|router| port(router.seat.worker));
    let superior = nodes::superior(&channel.name).map(|address| address.to_string());
    let stat = Stat::of(service, &ports, router, superior, self_only);
    Response::of(200, "application/json", stat.json())
}
