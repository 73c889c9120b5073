//! A cast under way: a call to each of those who are asked, over HTTP or, for function actions, over
//! the rings; their answers gathered; one time for all of it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use http::HeaderValue;

use super::call::{self, Draft, Place};
use super::channel::Channel;
use super::location::Timeouts;
use super::remote::Unanswered;
use super::{cast, function, refuse, remote, ringed};
use crate::modules::ipc::native::{self, Targets};
use crate::ngx::client::{self, Answer, Call, CallError, Pending};
use crate::ngx::content::Parked;
use crate::ngx::request::Request;
use crate::ngx::respond::Response;
use crate::ngx::timer::Timer;
use crate::proto::cluster::cast::{CastId, Direction, Passage, Stop, Target, Via};
use crate::proto::cluster::gather::{Failure, Gather};
use crate::proto::cluster::headers::{Road, Unsendable};
use crate::proto::cluster::wire::Wanted;
use crate::proto::ipc::WorkerId;

/// What a cast answers.
pub const JSON: &str = "application/json";

thread_local! {
    static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
}

/// Casts that this worker waits for.
pub fn under_way() -> usize {
    UNDER_WAY.get()
}

/// Who is asked what.
pub struct Plan {
    channel: String,
    direction: Direction,
    targets: Vec<Target>,
    query: Vec<u8>,
    body: Bytes,
    /// The action that needs no request: workers are asked for it over the rings.
    function: Option<Vec<u8>>,
    /// Calls over HTTP, where there are any; those to workers with their target.
    workers: Option<(Draft, Result<Rc<str>, Unsendable>)>,
    nodes: Option<Draft>,
    /// The header for the clients of a tree cast, or why there is none.
    passage: Result<Option<HeaderValue>, Stop>,
    time: usize,
    /// The same over the rings, where there is nothing to connect to.
    ring_time: usize,
}

impl Plan {
    /// From `request`, whose body was read.
    pub fn of(
        request: &Request<'_>,
        channel: &Channel,
        direction: Direction,
        passage: Option<Passage>,
        body: Vec<u8>,
        timeouts: Timeouts,
    ) -> Result<Plan, Response> {
        let refused = |status, why: &str| refuse::refused(request, "cast", status, why);
        let body = Bytes::from(body);
        let draft = |road| match Draft::of(request, road, Vec::new(), timeouts) {
            Ok(draft) => Ok(Draft { body: body.clone(), ..draft }),
            Err(why) => Err(refused(400, &why.to_string())),
        };
        let targets = cast::asked(&channel.name, direction).map_err(|why| refused(503, &why))?;
        let function = function::named(channel, None, request.query());
        let builtin = ringed::named(channel, request.query()).filter(|_| function.is_none());
        let is_builtin = builtin.is_some();
        let function = function.or(builtin);
        let is_worker = |target: &Target| matches!(target.via, Via::Worker(_));
        let workers = function.is_none() && targets.iter().any(is_worker);
        let workers = workers
            .then(|| draft(Road::Workers))
            .transpose()?
            .map(|draft| (draft, call::targeted(&path(&channel.name, "invoke", request.query()))));
        let workers = match workers {
            Some((mut draft, Ok(target))) if cast::needs_proof(request) => {
                let hop = cast::proven(request, target.as_bytes());
                draft.put("CC-Hop", hop.ok_or_else(|| refused(503, "no shared zone"))?);
                Some((draft, Ok(target)))
            }
            workers => workers,
        };
        let nodes = targets.iter().any(|target| !is_worker(target));
        let nodes = nodes.then(|| draft(Road::Nodes)).transpose()?;
        let time = match passage {
            Some(passage) => passage.deadline as usize,
            None => timeouts.whole(),
        };
        let ring_time = if passage.is_some() || is_builtin { time } else { timeouts.read };
        let next = || match passage {
            Some(passage) => passage.next(passage.deadline),
            None => Passage::first(random(), u32::try_from(timeouts.read).unwrap_or(u32::MAX)),
        };
        let passage = match direction {
            Direction::Tree => next().map(|passage| HeaderValue::from_str(&passage.header()).ok()),
            _ => Ok(None),
        };
        Ok(Plan {
            channel: channel.name.clone(),
            direction,
            targets,
            query: request.query().to_vec(),
            body,
            function,
            workers,
            nodes,
            passage,
            time,
            ring_time,
        })
    }

    /// Asks all of them, and answers `parked`.
    pub fn go(self, parked: Parked) {
        let gather = Gather::new(&self.channel, self.direction, self.targets.clone());
        let wait = parked.wait();
        let state = Rc::new(State::new(parked, gather));
        if let Some(function) = &self.function {
            self.call_function(function, &state);
        }
        for (number, target) in self.targets.iter().enumerate() {
            if self.function.is_some() && matches!(target.via, Via::Worker(_)) {
                continue;
            }
            match self.call(number, target, &state) {
                Ok(under) => state.under.borrow_mut().push(under),
                Err(failure) => state.settle(|gather| gather.fail(number, failure)),
            }
        }
        let late = Rc::downgrade(&state);
        // over the rings time is kept for all casts at once
        let by_http = self.workers.is_some() || self.nodes.is_some();
        let timer = by_http.then(|| {
            Timer::after(self.time, move || {
                if let Some(state) = late.upgrade() {
                    state.settle(Gather::expire);
                    state.end_if_done();
                }
            })
        });
        state.end_if_done();
        wait.hold((state, timer));
    }

    /// Asks all workers at once.
    fn call_function(&self, function: &[u8], state: &Rc<State>) {
        let worker = |(number, target): (usize, &Target)| match target.via {
            Via::Worker(id) => Some((number, id)),
            Via::Node | Via::Tree => None,
        };
        let (numbers, ids): (Vec<usize>, Vec<WorkerId>) =
            self.targets.iter().enumerate().filter_map(worker).unzip();
        let late = Rc::downgrade(state);
        let done = move |outcome: &native::Outcome| {
            let Some(state) = late.upgrade() else { return };
            state.settle(|gather| {
                for (number, (_, result)) in numbers.into_iter().zip(outcome.iter()) {
                    match result {
                        Ok(reply) => gather.reply(number, reply.status, reply.body.to_vec()),
                        Err(why) => gather.fail(number, function::failure(why)),
                    }
                }
            });
            state.end_if_done();
        };
        let pending = function::asking(&self.channel, function, &self.query, &self.body, |ask| {
            native::cast(Targets::Some(&ids), ask, self.ring_time as u64, done)
        });
        state.function.set(Some(pending));
    }

    fn call(&self, number: usize, target: &Target, state: &Rc<State>) -> Result<Under, Failure> {
        let unreachable = |why: &str| Failure::Unreachable(why.into());
        let late = Rc::downgrade(state);
        let settle = move |result: Result<Answer, Failure>| {
            if let Some(state) = late.upgrade() {
                state.settle(|gather| match result {
                    Ok(answer) => {
                        gather.reply(number, answer.status.as_u16(), answer.body.to_vec());
                    }
                    Err(failure) => gather.fail(number, failure),
                });
                state.end_if_done();
            }
        };
        if let Via::Worker(id) = target.via {
            let place = Place::of_worker(id);
            let place = place.ok_or_else(|| unreachable("no \"listen ... per_worker\""))?;
            let workers = self.workers.as_ref().ok_or_else(|| unreachable("not over HTTP"))?;
            let target = workers.1.as_ref().map_err(|why| Failure::Wrong(why.to_string()))?;
            let call = Call { wanted: Wanted::Nothing, ..workers.0.at(place, Rc::clone(target)) };
            let took = move |result: Result<_, CallError>| {
                settle(result.map_err(|error| Failure::from(Unanswered::Call(error))));
            };
            return Ok(Under::Worker(client::send(call, took)));
        }
        let to = target.node.parse().map_err(|_| unreachable("no address"))?;
        let mut draft = self.nodes.clone().ok_or_else(|| unreachable("not over HTTP"))?;
        if target.via == Via::Tree {
            let header = self.passage.as_ref().map_err(|stop| unreachable(&stop.to_string()))?;
            if let Some(header) = header {
                draft.put("CC-Cast", header.clone());
            }
        }
        let road = if target.via == Via::Tree { "hub" } else { "invoke" };
        let target = path(&self.channel, road, &self.query);
        let ask = remote::Ask { channel: self.channel.clone(), to, draft, target, time: self.time };
        Ok(Under::Node(remote::call(ask, move |result| settle(result.map_err(Failure::from)))))
    }
}

fn path(channel: &str, road: &str, query: &[u8]) -> Vec<u8> {
    let mut path = [b"/", channel.as_bytes(), b"/", road.as_bytes()].concat();
    if !query.is_empty() {
        path.push(b'?');
        path.extend_from_slice(query);
    }
    path
}

/// A call that is under way; dropping it cancels.
enum Under {
    Worker(#[allow(dead_code)] Pending),
    Node(#[allow(dead_code)] remote::Held),
}

/// A cast that is under way.
struct State {
    gather: RefCell<Option<Gather>>,
    parked: Cell<Option<Parked>>,
    under: RefCell<Vec<Under>>,
    function: Cell<Option<native::Pending>>,
}

impl State {
    fn new(parked: Parked, gather: Gather) -> State {
        UNDER_WAY.set(UNDER_WAY.get() + 1);
        State {
            gather: RefCell::new(Some(gather)),
            parked: Cell::new(Some(parked)),
            under: RefCell::default(),
            function: Cell::default(),
        }
    }

    fn settle(&self, with: impl FnOnce(&mut Gather)) {
        if let Some(gather) = self.gather.borrow_mut().as_mut() {
            with(gather);
        }
    }

    fn end_if_done(&self) {
        let done = self.gather.borrow().as_ref().is_some_and(Gather::is_done);
        if !done {
            return;
        }
        let gather = self.gather.borrow_mut().take();
        if let Some((gather, parked)) = gather.zip(self.parked.take()) {
            let (status, json) = gather.finish();
            parked.respond(Response::of(status, JSON, json));
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        UNDER_WAY.set(UNDER_WAY.get().saturating_sub(1));
    }
}

fn random() -> CastId {
    let mut id = [0; 16];
    // without randomness the id is the process and the time, which is as unique within a cluster
    if getrandom::fill(&mut id).is_err() {
        let now = crate::ngx::cycle::nanoseconds().to_be_bytes();
        let pid = crate::ngx::cycle::pid().to_be_bytes();
        for (byte, from) in id.iter_mut().zip(now.into_iter().chain(pid)) {
            *byte = from;
        }
    }
    CastId(id)
}
