//! Function actions: Lua functions that need no request. A request for one is answered by the
//! function in this worker, a cast by those of all workers, over the rings.

use super::channel::Channel;
use super::location::{Location, Timeouts};
use super::refuse;
use crate::modules::http::Http;
use crate::modules::ipc::native::{self, Ask, CallFailed, Origin};
use crate::modules::ipc::{actions, worker};
use crate::ngx::content::Outcome;
use crate::ngx::request::Request;
use crate::ngx::respond::Response;
use crate::proto::cluster::action;
use crate::proto::cluster::builtin::BuiltIn;
use crate::proto::cluster::gather::Failure;
use crate::proto::cluster::query;
use crate::proto::ipc::WorkerId;

/// Of a body whose kind the function does not say.
const KIND: &str = "text/plain";

/// The function that the first argument which names an action stands for; None where that is an
/// action of another kind. Of Lua's own channels we do not know the other actions: there it must be
/// the very first.
pub fn named(channel: &Channel, location: Option<&Location>, query: &[u8]) -> Option<Vec<u8>> {
    if !actions::any_function() {
        return None;
    }
    let function = |name: &[u8]| actions::has_function(channel.name.as_bytes(), name);
    let other = |name: &[u8]| {
        BuiltIn::named(name).is_some()
            || location.is_some_and(|location| location.action(name).is_some())
    };
    let found = match channel.lua {
        true => query::parse(query).next()?,
        false => action::first(query, |name| other(name) || function(name))?,
    };
    (!other(&found.name) && function(&found.name)).then(|| found.name.into_owned())
}

/// A call of it, as it goes to workers.
pub fn asking<R>(
    channel: &str,
    action: &[u8],
    query: &[u8],
    body: &[u8],
    then: impl FnOnce(&Ask<'_>) -> R,
) -> R {
    let node = super::node();
    let node = node.as_bytes();
    let me = worker::with(|worker| worker.me().seat.worker);
    let from = Origin { node, worker: me.unwrap_or(WorkerId(0)) };
    then(&Ask { channel: channel.as_bytes(), action, args: query, body, from })
}

/// Answers `request` with what the function in this worker says.
pub fn serve(
    request: &Request<'_>,
    channel: &Channel,
    timeouts: Timeouts,
    action: Vec<u8>,
) -> Outcome {
    let channel = channel.name.clone();
    request.read_body::<Http>(move |parked, body| {
        let query = parked.with(|request| request.query().to_vec()).unwrap_or_default();
        let wait = parked.wait();
        let pending = asking(&channel, &action, &query, &body, |ask| {
            native::call_here(ask, timeouts.read as u64, move |result| match result {
                Ok(reply) => parked.respond(Response::of(reply.status, KIND, reply.body.to_vec())),
                Err(why) => {
                    let refused = |request: &Request<'_>| {
                        refuse::refused(request, "function", status(why), why.words())
                    };
                    let response = parked.with(refused);
                    parked.respond(response.unwrap_or_default());
                }
            })
        });
        wait.hold(pending);
    })
}

/// The status that says so.
pub fn status(why: CallFailed) -> u16 {
    match why {
        CallFailed::Timeout => 504,
        CallFailed::NoAction => 404,
        CallFailed::Full | CallFailed::Busy => 503,
        CallFailed::TooLong => 413,
        _ => 502,
    }
}

/// The same for a cast.
pub fn failure(why: CallFailed) -> Failure {
    match why {
        CallFailed::Timeout => Failure::TimedOut,
        why => Failure::Unreachable(why.words().into()),
    }
}
