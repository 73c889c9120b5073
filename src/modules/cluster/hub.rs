//! `cc_hub`: an action in the router, whichever worker was reached.

use http::HeaderValue;

use super::call::{self, Draft, Place};
use super::channel::Channel;
use super::location::{Location, Serves, Timeouts};
use super::proof::{Caller, Hop};
use super::{cast, invoke, proof, refuse, signed, workers};
use crate::modules::http::Http;
use crate::ngx::client::{self, Answer, CallError, Stage};
use crate::ngx::content::{ContentHandler, Outcome, Parked};
use crate::ngx::request::Request;
use crate::ngx::respond::Response;
use crate::proto::cluster::headers::{self, Road};
use crate::proto::ipc::Pid;
use crate::shm::slots::Worker;

/// Steps from worker to worker before a request is taken to run in circles.
const HOPS_MAX: u8 = 4;
/// What goes along although it is ours: it counts as far as the caller's proof goes.
const ALONG: &str = "CC-Cast";

/// The content handler.
pub struct Hub;

impl ContentHandler for Hub {
    fn handle(request: &Request<'_>) -> Outcome {
        invoke::served(request, run)
    }
}

fn run(request: &Request<'_>, location: &Location, serves: &Serves, channel: &Channel) -> Outcome {
    if signed::is(request) {
        return signed::serve(request, location, channel, Whom::Router);
    }
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
            Some(Ok(way)) => way.go(Asker::Parked(parked), Whom::Router),
            Some(Err(response)) => parked.respond(response),
            None => {}
        }
    })
}

/// Who waits for the router's answer.
pub enum Asker {
    /// A request of a hub, which can be served here, too.
    Parked(Parked),
    /// The same, whose answer is changed.
    Signed(Parked, Box<dyn FnOnce(Response) -> Response>),
    /// Whoever runs a built-in action.
    Other(Box<dyn FnOnce(Response)>),
}

/// Which worker is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The router, whoever that is.
    Router,
    /// This one, as if the request had come to its listener.
    Me,
}

impl Asker {
    fn respond(self, response: Response) {
        match self {
            Asker::Parked(parked) => parked.respond(response),
            Asker::Signed(parked, sign) => parked.respond(sign(response)),
            Asker::Other(done) => done(response),
        }
    }

    fn parked(&self) -> Option<&Parked> {
        match self {
            Asker::Parked(parked) | Asker::Signed(parked, _) => Some(parked),
            Asker::Other(_) => None,
        }
    }

    fn refuse(self, status: u16, why: &str) {
        let asked = self
            .parked()
            .and_then(|parked| parked.with(|request| refuse::refused(request, "hub", status, why)));
        self.respond(asked.unwrap_or_else(|| refuse::refused_unasked("hub", status, why)));
    }
}

/// A request on its way to another worker, or to this one again.
pub struct Way {
    draft: Draft,
    target: Vec<u8>,
    /// Who was asked in vain.
    asked: Option<Pid>,
}

impl Way {
    /// For `request` with that body, wherever it is meant to run.
    pub fn of(request: &Request<'_>, body: Vec<u8>, timeouts: Timeouts) -> Result<Way, Response> {
        Way::from(request, proof::caller(request), body, timeouts)
    }

    /// The same, where it is known who asks.
    pub fn from(
        request: &Request<'_>,
        caller: Caller,
        body: Vec<u8>,
        timeouts: Timeouts,
    ) -> Result<Way, Response> {
        let refused = |status, why: &str| refuse::refused(request, "hub", status, why);
        let steps = match Hop::of(request) {
            Some(hop) => hop.map_or(0, |hop| hop.steps),
            // two binaries of an upgrade have the same ports, and each a key of its own: what the
            // other one's workers wrote proves nothing, but the request is as good as any
            None => Hop::claimed(request).ok_or_else(|| refused(400, "invalid CC-Hop header"))?,
        };
        if steps >= HOPS_MAX {
            return Err(refused(503, "the router moves"));
        }
        let draft = Draft::of(request, Road::Hub, body, timeouts);
        let mut draft = draft.map_err(|why| refused(400, &why.to_string()))?;
        let target = request.target();
        let target = headers::target(&target).map_err(|why| refused(400, &why.to_string()))?;
        let next = Hop { steps: steps + 1, caller };
        let next = next.header(request.method(), &target);
        let next = next.and_then(|next| HeaderValue::from_str(&next).ok());
        let next = next.ok_or_else(|| refused(503, "no shared zone"))?;
        draft.put("CC-Hop", next);
        if let Some(Ok(cast)) = request.header(ALONG).map(HeaderValue::from_bytes) {
            draft.put(ALONG, cast);
        }
        Ok(Way { draft, target: target.into_owned(), asked: None })
    }

    /// Asks.
    pub fn go(self, asker: Asker, whom: Whom) {
        let worker = match whom {
            Whom::Router => workers::router(),
            Whom::Me => workers::me(),
        };
        let Some(worker) = worker else { return asker.refuse(503, "no router yet") };
        if whom == Whom::Router && workers::is_me(worker.pid) {
            match asker {
                Asker::Parked(parked) => return parked.serve(served_here),
                Asker::Other(_) => return asker.refuse(503, "the router moves"),
                Asker::Signed(..) => {}
            }
        }
        let Some(place) = Place::of_worker(worker.seat.worker) else {
            return asker.refuse(503, "no \"listen ... per_worker\" to reach the worker by");
        };
        let call = match self.draft.to(place, &self.target) {
            Ok(call) => call,
            Err(why) => return asker.refuse(400, &why.to_string()),
        };
        let wait = asker.parked().map(Parked::wait);
        let pending = client::send(call, move |result| self.done(asker, whom, worker, result));
        match wait {
            Some(wait) => wait.hold(pending),
            None => pending.detach(),
        }
    }

    fn done(self, asker: Asker, whom: Whom, worker: Worker, result: Result<Answer, CallError>) {
        let error = match result {
            Ok(answer) => return asker.respond(call::response(answer)),
            Err(error) => error,
        };
        workers::look_again();
        let moved = workers::router().is_none_or(|now| now.pid != worker.pid);
        let unsent = matches!(error, CallError::Refused(_) | CallError::TimedOut(Stage::Connect));
        let again = call::is_idempotent(&self.draft.method) || unsent;
        if self.asked.is_none() && moved && again && whom == Whom::Router {
            return Way { asked: Some(worker.pid), ..self }.go(asker, whom);
        }
        let id = worker.seat.worker.0;
        let what = if whom == Whom::Router { ", the router" } else { "" };
        asker.refuse(error.status(), &format!("worker {id}{what}: {error}"));
    }
}

/// This worker has become the router while it asked for the one before.
fn served_here(request: &Request<'_>) -> Outcome {
    invoke::served(request, here)
}
