//! The actions that every channel has. Those that change the cluster need proof of who asks, and
//! run in the router.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;

use super::channel::Channel;
use super::hub::{Asker, Way, Whom};
use super::location::{Location, Timeouts};
use super::proof::{self, Caller, Origin};
use super::{driver, refuse, stat, workers};
use crate::modules::http::Http;
use crate::ngx::content::Outcome;
use crate::ngx::request::Request;
use crate::ngx::respond::Response;
use crate::proto::cluster::builtin::{BuiltIn, Command, command};
use crate::proto::cluster::membership::message::{Reason, Request as Message};
use crate::proto::cluster::membership::output::Report;

const JSON: &str = "application/json";

type Done = Box<dyn FnOnce(Response)>;

thread_local! {
    /// Orders to go to another super that are not carried out yet, and who waits for that.
    static ORDERS: RefCell<HashMap<(String, SocketAddr), Vec<Done>>> = RefCell::default();
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
    let caller = proof::caller(request);
    if action.changes_state() && !caller.may_change() {
        return done(refused(403, "no proof of who asks"));
    }
    let command = match command(action, request.query(), caller.ip) {
        Ok(command) => command,
        Err(why) => return done(refused(400, &why.to_string())),
    };
    if let Command::Stat { self_only } = command {
        return stat::tell(channel, timeouts, self_only, request.query(), done);
    }
    if !workers::am_router() {
        return match Way::from(request, caller, body, timeouts) {
            Ok(way) => way.go(Asker::Other(Box::new(done)), Whom::Router),
            Err(response) => done(response),
        };
    }
    let channel = &channel.name;
    match command {
        Command::Transfer(to) => transfer(channel, to, done),
        Command::Heartbeat(nonce) if body.is_empty() => {
            // it beats by itself; a nonce comes back, so that somebody can see that this node is here
            let nonce = std::str::from_utf8(&nonce).ok().filter(|nonce| !nonce.is_empty());
            done(Response::text(200, nonce.unwrap_or("Okay.")));
        }
        Command::Heartbeat(_) => match message(&body, &caller) {
            Ok(message) => beat(channel, message, done),
            Err((status, why)) => done(refused(status, &why)),
        },
        Command::HubAt(at) | Command::ClientAt(at) => report(channel, at, done),
        Command::BadClient(at) => done(match driver::invalid_client(channel, &at.to_string()) {
            Ok(()) => okay(),
            Err(why) => Response::text(503, &why.to_string()),
        }),
        Command::Worker(port, pid) => {
            let known = workers::living().into_iter().any(|entry| {
                let listener = workers::listener(entry.seat.worker);
                entry.pid == pid && listener.and_then(|listener| listener.port()) == Some(port)
            });
            done(if known { okay() } else { refused(404, "no such worker") });
        }
        Command::BadWorker(_) => {
            workers::look_again();
            done(okay());
        }
        Command::Stat { .. } | Command::Nothing => done(okay()),
    }
}

fn okay() -> Response {
    Response::text(200, "Okay.")
}

/// The message of a heartbeat; a node that proves who it is speaks for itself only.
fn message(body: &[u8], caller: &Caller) -> Result<Message, (u16, String)> {
    let message = Message::parse(body).map_err(|why| (400, why.to_string()))?;
    match &caller.origin {
        Origin::Node(name) if name != message.sender() => {
            Err((403, format!("node {name} speaks for another one")))
        }
        Origin::Operator => Err((403, "orders are no messages of nodes".into())),
        _ => Ok(message),
    }
}

/// Runs `start` with the callback, or tells why this worker cannot.
fn given(
    done: impl FnOnce(Response) + 'static,
    start: impl FnOnce(Box<dyn FnOnce(Response)>) -> Result<(), driver::NotHere>,
) {
    // the callback is called either way
    let place = std::rc::Rc::new(std::cell::Cell::new(Some(done)));
    let kept = std::rc::Rc::clone(&place);
    let result = start(Box::new(move |response| {
        if let Some(done) = kept.take() {
            done(response);
        }
    }));
    // what waits for a later answer stays where it is
    if let Err(why) = result
        && let Some(done) = place.take()
    {
        done(Response::text(503, &why.to_string()));
    }
}

fn beat(channel: &str, message: Message, done: impl FnOnce(Response) + 'static) {
    given(done, |done| {
        driver::message(channel, message, |answer| {
            done(Response::of(200, JSON, answer.to_json()));
        })
    });
}

fn report(channel: &str, at: SocketAddr, done: impl FnOnce(Response) + 'static) {
    given(done, |done| {
        let give =
            move |node: &mut driver::Member, now, token| node.report(now, token, at.to_string());
        driver::command(channel, give, |report| done(reported(report)))
    });
}

/// An order under way; over when it is dropped.
struct Order((String, SocketAddr));

impl Order {
    /// Who waits for it.
    fn end(&self) -> Vec<Done> {
        ORDERS.with_borrow_mut(|orders| orders.remove(&self.0)).unwrap_or_default()
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        // outside of the borrow: they answer
        drop(self.end());
    }
}

/// To another super. The workers of a cast all ask for the same: what comes of the first order is
/// told to all.
pub(super) fn transfer(channel: &str, to: SocketAddr, done: impl FnOnce(Response) + 'static) {
    let order = (channel.to_string(), to);
    let begun = ORDERS.with_borrow_mut(|orders| {
        let waiting = orders.entry(order.clone()).or_default();
        waiting.push(Box::new(done));
        waiting.len() > 1
    });
    if begun {
        return;
    }
    let order = Order(order);
    let done = move |answer: Response| {
        order.end().into_iter().for_each(|done| done(answer.clone()));
    };
    given(done, |done| {
        let give =
            move |node: &mut driver::Member, now, token| node.transfer(now, token, to.to_string());
        driver::command(channel, give, |report| done(reported(report)))
    });
}

fn reported(report: Report) -> Response {
    let (Report::Moved { result, .. } | Report::Reported(result)) = report else { return okay() };
    match result {
        Ok(()) => okay(),
        Err(reason) => {
            let status = match reason {
                Reason::NotAllowed | Reason::DialBack => 403,
                Reason::Busy | Reason::Full | Reason::NoAnswer | Reason::Leaving => 503,
                _ => 409,
            };
            refuse::refused_unasked("membership", status, &reason.to_string())
        }
    }
}
