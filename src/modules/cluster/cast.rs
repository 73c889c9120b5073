//! `cc_cast`: one call to several, and what they answer in one JSON.

use http::HeaderValue;

use super::casting::{JSON, Plan, under_way};
use super::channel::Channel;
use super::location::{Location, Serves};
use super::proof::Hop;
use super::{invoke, node, nodes, proof, refuse, workers};
use crate::modules::core::Core;
use crate::modules::http::Http;
use crate::ngx::content::{ContentHandler, Outcome};
use crate::ngx::cycle;
use crate::ngx::module::core_conf;
use crate::ngx::request::Request;
use crate::ngx::respond::Response;
use crate::proto::cluster::builtin::BuiltIn;
use crate::proto::cluster::cast::{CASTS_MAX, Direction, Here, Passage, Target, targets};
use crate::proto::cluster::gather::{ALREADY, already};
use crate::proto::cluster::query;
use crate::proto::ipc::WorkerId;
use crate::shm::casts::Casts;

/// The content handler.
pub struct Cast;

impl ContentHandler for Cast {
    fn handle(request: &Request<'_>) -> Outcome {
        invoke::served(request, run)
    }
}

fn run(request: &Request<'_>, location: &Location, serves: &Serves, channel: &Channel) -> Outcome {
    let direction = match &serves.direction {
        None => Ok(Direction::Workers),
        Some(value) => match value.of_request(request) {
            None => return request.refuse(500),
            Some(b"") => Ok(Direction::Workers),
            Some(word) => Direction::parse(word),
        },
    };
    match direction {
        Ok(direction) => begin(request, location, channel, direction, None),
        Err(why) => request.respond(refuse::refused(request, "cast", 400, &why.to_string())),
    }
}

/// A cast from above, for all below: runs in the router.
pub fn passes(
    request: &Request<'_>,
    location: &Location,
    serves: &Serves,
    channel: &Channel,
) -> Outcome {
    // without proof the header does not count
    if !proof::caller(request).may_change() {
        return invoke::run(request, location, serves, channel);
    }
    let header = request.header("CC-Cast").unwrap_or_default();
    match Passage::parse(header) {
        Err(why) => request.respond(refuse::refused(request, "cast", 400, &why.to_string())),
        Ok(passage) if casts().is_some_and(|casts| !casts.note(passage.id)) => {
            let json = already(&channel.name, Direction::Tree);
            request.respond(Response::of(ALREADY, JSON, json))
        }
        Ok(passage) => begin(request, location, channel, Direction::Tree, Some(passage)),
    }
}

/// Those that ran in this node.
fn casts() -> Option<&'static Casts> {
    core_conf::<Core>(cycle::current()?)?.ipc.casts()
}

fn begin(
    request: &Request<'_>,
    location: &Location,
    channel: &Channel,
    direction: Direction,
    passage: Option<Passage>,
) -> Outcome {
    if under_way() >= CASTS_MAX {
        return request.respond(refuse::refused(request, "cast", 503, "too many casts"));
    }
    if let Err(response) = may_be_cast(request) {
        return request.respond(response);
    }
    let (timeouts, channel) = (channel.timeouts(location), channel.clone());
    request.read_body::<Http>(move |parked, body| {
        let plan =
            parked.with(|request| Plan::of(request, &channel, direction, passage, body, timeouts));
        match plan {
            Some(Ok(plan)) => plan.go(parked),
            Some(Err(response)) => parked.respond(response),
            None => {}
        }
    })
}

/// Whoever is asked sees this node and not who asks it: so what needs proof, needs it here. Which of
/// the arguments is the action, those who are asked decide.
fn may_be_cast(request: &Request<'_>) -> Result<(), Response> {
    let builtin = |arg: query::Arg<'_>| BuiltIn::named(&arg.name);
    for action in query::parse(request.query()).filter_map(builtin) {
        let name = action.name();
        if !action.may_be_cast() {
            return Err(refuse::refused(request, name, 400, "this action cannot be cast"));
        }
        if action.changes_state() && !proof::caller(request).may_change() {
            return Err(refuse::refused(request, name, 403, "no proof of who asks"));
        }
    }
    Ok(())
}

/// Whether some of the arguments names an action that changes the cluster: then workers are told who
/// has asked, as that counts as proof there, too.
pub fn needs_proof(request: &Request<'_>) -> bool {
    let changes = |arg: query::Arg<'_>| {
        BuiltIn::named(&arg.name).is_some_and(|action| action.changes_state())
    };
    query::parse(request.query()).any(changes)
}

/// Tells it, in the header of calls for `target`.
pub fn proven(request: &Request<'_>, target: &[u8]) -> Option<HeaderValue> {
    let hop = Hop { steps: 1, caller: proof::caller(request) };
    HeaderValue::from_str(&hop.header(request.method(), target)?).ok()
}

/// Who is to be asked now.
pub fn asked(channel: &str, direction: Direction) -> Result<Vec<Target>, String> {
    let living = workers::living();
    let port = |id: WorkerId| workers::listener(id).and_then(|listener| listener.port());
    let ids: Vec<_> =
        living.iter().map(|entry| (entry.seat.worker, port(entry.seat.worker))).collect();
    // looking for nodes takes longer than a cast over the rings
    let superior = match direction {
        Direction::Super => nodes::superior(channel).map(|address| address.to_string()),
        _ => None,
    };
    let clients: Vec<_> = match direction {
        Direction::Clients | Direction::Tree => {
            nodes::clients(channel).iter().map(ToString::to_string).collect()
        }
        _ => Vec::new(),
    };
    let clients: Vec<&str> = clients.iter().map(String::as_str).collect();
    let own = node();
    let here = Here {
        node: &own,
        workers: &ids,
        router: workers::router().map(|router| router.seat.worker),
        superior: superior.as_deref(),
        clients: &clients,
    };
    targets(direction, here).map_err(|why| why.to_string())
}
