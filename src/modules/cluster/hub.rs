//! `cc_hub`: an action in the router, whichever worker was reached.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};

use super::call::{self, Draft};
use super::channel::Channel;
use super::location::{Location, Serves, Timeouts};
use super::proof::Hop;
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

/// Sends the request on to the router.
fn forward(request: &Request<'_>, location: &Location, channel: &Channel) -> Outcome {
    let timeouts = channel.timeouts(location);
    request.read_body::<Http>(move |parked, body| {
        match parked.with(|request| Way::of(request, body, timeouts)) {
            Some(Ok(way)) => way.go(Asker::Parked(parked)),
            Some(Err(response)) => parked.respond(response),
            None => {}
        }
    })
}

/// Who waits for the router's answer.
pub enum Asker {
    /// A request of a hub, which can be served here, too.
    Parked(Parked),
    /// Whoever runs a built-in action.
    Other(Box<dyn FnOnce(Response)>),
}

impl Asker {
    fn respond(self, response: Response) {
        match self {
            Asker::Parked(parked) => parked.respond(response),
            Asker::Other(done) => done(response),
        }
    }

    fn refuse(self, status: u16, why: &str) {
        match self {
            Asker::Parked(parked) => {
                let response = parked.with(|request| refuse::refused(request, "hub", status, why));
                parked.respond(response.unwrap_or_default());
            }
            Asker::Other(done) => done(refuse::refused_unasked("hub", status, why)),
        }
    }
}

/// A request on its way to the router.
pub struct Way {
    draft: Draft,
    target: Vec<u8>,
    /// Who was asked in vain.
    asked: Option<Pid>,
}

impl Way {
    /// For `request` with that body, wherever it is meant to run.
    pub fn of(request: &Request<'_>, body: Vec<u8>, timeouts: Timeouts) -> Result<Way, Response> {
        let refused = |status, why: &str| refuse::refused(request, "hub", status, why);
        let hop = Hop::of(request).ok_or_else(|| refused(400, "invalid CC-Hop header"))?;
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
        let next = Hop { steps: hop.steps + 1, from: proof::origin(request) };
        add("CC-Hop", next.header().as_bytes());
        Ok(Way { draft, target: request.target(), asked: None })
    }

    /// Asks the router.
    pub fn go(self, asker: Asker) {
        let Some(router) = workers::router() else { return asker.refuse(503, "no router yet") };
        if workers::is_me(router.pid) {
            return match asker {
                Asker::Parked(parked) => parked.serve(served_here),
                Asker::Other(_) => asker.refuse(503, "the router moves"),
            };
        }
        let Some(listener) = workers::listener(router.seat.worker) else {
            return asker.refuse(503, "no \"listen ... per_worker\" to reach the router by");
        };
        let call = match self.draft.to(listener.into(), Cow::Borrowed(&self.target)) {
            Ok(call) => call,
            Err(why) => return asker.refuse(400, &why.to_string()),
        };
        let wait = match &asker {
            Asker::Parked(parked) => Some(parked.wait()),
            Asker::Other(_) => None,
        };
        let pending = client::send(call, move |result| self.done(asker, router, result));
        match wait {
            Some(wait) => wait.hold(pending),
            None => pending.detach(),
        }
    }

    fn done(self, asker: Asker, router: Worker, result: Result<Answer, CallError>) {
        let error = match result {
            Ok(answer) => return asker.respond(call::response(answer)),
            Err(error) => error,
        };
        workers::look_again();
        let moved = workers::router().is_none_or(|now| now.pid != router.pid);
        let unsent = matches!(error, CallError::Refused(_) | CallError::TimedOut(Stage::Connect));
        let again = call::is_idempotent(&self.draft.method) || unsent;
        if self.asked.is_none() && moved && again {
            return Way { asked: Some(router.pid), ..self }.go(asker);
        }
        let id = router.seat.worker.0;
        asker.refuse(error.status(), &format!("worker {id}, the router: {error}"));
    }
}

/// This worker has become the router while it asked for the one before.
fn served_here(request: &Request<'_>) -> Outcome {
    invoke::served(request, here)
}
