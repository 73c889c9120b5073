//! `cc_hub`: an action in the router, whichever worker was reached.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};

use super::call::{self, Draft};
use super::channel::Channel;
use super::location::{Location, Serves};
use super::{cast, invoke, proof, refuse, workers};
use crate::modules::http::Http;
use crate::ngx::client::{self, Answer, CallError, Stage};
use crate::ngx::content::{ContentHandler, Outcome, Parked};
use crate::ngx::request::Request;
use crate::ngx::respond::Response;
use crate::proto::cluster::headers::Road;
use crate::proto::ipc::Pid;
use crate::shm::slots::Worker;

/// Steps from worker to worker before a request is taken to run in circles.
const HOPS_MAX: u8 = 4;
/// What goes along although it is ours: the router judges it.
const ALONG: [&str; 2] = ["CC-Auth", "CC-Cast"];

/// The content handler.
pub struct Hub;

impl ContentHandler for Hub {
    fn handle(request: &Request<'_>) -> Outcome {
        invoke::served(request, run)
    }
}

fn run(request: &Request<'_>, location: &Location, serves: &Serves, channel: &Channel) -> Outcome {
    match workers::router() {
        None => request.respond(refuse::refused(request, "hub", 503, "no router yet")),
        Some(router) if workers::is_me(router.pid) => here(request, location, serves, channel),
        Some(_) => forward(request, location, channel),
    }
}

/// This worker is the router.
fn here(request: &Request<'_>, location: &Location, serves: &Serves, channel: &Channel) -> Outcome {
    match request.header("CC-Cast") {
        Some(_) => cast::passes(request, location, serves, channel),
        None => invoke::run(request, location, serves, channel),
    }
}

/// Sends the request on to the router, wherever it was meant to run.
pub fn forward(request: &Request<'_>, location: &Location, channel: &Channel) -> Outcome {
    let timeouts = channel.timeouts(location);
    request.read_body::<Http>(move |parked, body| {
        let draft = parked.with(|request| draft(request, body, timeouts));
        match draft {
            Some(Ok(way)) => way.go(parked),
            Some(Err(response)) => parked.respond(response),
            None => {}
        }
    })
}

fn draft(
    request: &Request<'_>,
    body: Vec<u8>,
    timeouts: super::location::Timeouts,
) -> Result<Way, Response> {
    let refused = |status, why: &str| refuse::refused(request, "hub", status, why);
    let hop = proof::Hop::of(request).ok_or_else(|| refused(400, "invalid CC-Hop header"))?;
    if hop.steps >= HOPS_MAX {
        return Err(refused(503, "the router moves"));
    }
    let draft = Draft::of(request, Road::Hub, body, timeouts);
    let mut draft = draft.map_err(|why| refused(400, &why.to_string()))?;
    let mut add = |name: &'static str, value: &[u8]| {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            draft.headers.insert(name, value);
        }
    };
    for name in ALONG {
        if let Some(value) = request.header(name) {
            add(name, value);
        }
    }
    let next = proof::Hop { steps: hop.steps + 1, local: proof::is_local(request) };
    add("CC-Hop", next.header().as_bytes());
    Ok(Way { draft, target: request.target(), asked: None })
}

/// A request on its way to the router.
struct Way {
    draft: Draft,
    target: Vec<u8>,
    /// Who was asked in vain.
    asked: Option<Pid>,
}

impl Way {
    fn go(self, parked: Parked) {
        let refused = |parked: Parked, status, why: &str| {
            let response = parked.with(|request| refuse::refused(request, "hub", status, why));
            parked.respond(response.unwrap_or_default());
        };
        let Some(router) = workers::router() else { return refused(parked, 503, "no router yet") };
        if workers::is_me(router.pid) {
            return parked.serve(served_here);
        }
        let Some(listener) = workers::listener(router.seat.worker) else {
            return refused(parked, 503, "no \"listen ... per_worker\" to reach the router by");
        };
        let place = listener.into();
        let call = match self.draft.to(place, Cow::Borrowed(&self.target)) {
            Ok(call) => call,
            Err(why) => return refused(parked, 400, &why.to_string()),
        };
        let wait = parked.wait();
        let pending = client::send(call, move |result| self.done(parked, router, result));
        wait.hold(pending);
    }

    fn done(self, parked: Parked, router: Worker, result: Result<Answer, CallError>) {
        let error = match result {
            Ok(answer) => return parked.respond(call::response(answer)),
            Err(error) => error,
        };
        workers::look_again();
        let moved = workers::router().is_none_or(|now| now.pid != router.pid);
        let unsent = matches!(error, CallError::Refused(_) | CallError::TimedOut(Stage::Connect));
        let again = call::is_idempotent(&self.draft.method) || unsent;
        if self.asked.is_none() && moved && again {
            return Way { asked: Some(router.pid), ..self }.go(parked);
        }
        let id = router.seat.worker.0;
        let why = format!("worker {id}, the router: {error}");
        let response = parked.with(|request| refuse::refused(request, "hub", error.status(), &why));
        parked.respond(response.unwrap_or_default());
    }
}

/// This worker has become the router while it asked for the one before.
fn served_here(request: &Request<'_>) -> Outcome {
    invoke::served(request, here)
}
