//! What Lua calls through FFI to make calls; `api` has the rest.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::call::{Draft, Place};
use super::channel::Channel;
use super::hub::{Asker, Way, Whom};
use super::jobs::{Asked, Owed, Pattern};
use super::location::Timeouts;
use super::proof::{Caller, Hop};
use super::remote::Ask;
use super::{builtin, jobs, proof, workers};
use crate::ngx::client;
use crate::ngx::lua::{Address, Text, exported, with_request};
use crate::ngx::request::Request;
use crate::ngx::respond::Response;
use crate::proto::cluster::allow::learned;
use crate::proto::cluster::builtin::BuiltIn;
use crate::proto::cluster::headers::{Road, check_method, is_own};
use crate::proto::ipc::WorkerId;

const BUG: i32 = -1;
const UNKNOWN: i32 = -2;
const INVALID: i32 = -3;
const FULL: i32 = -4;
const UNREACHABLE: i32 = -5;

/// Where `ngx_cc_cluster_call` sends.
const WORKER: i32 = 0;
const NODE: i32 = 1;
const ROUTER: i32 = 2;

/// `flags` of `ngx_cc_cluster_call`: whose headers go along, and the body; that this node asks by
/// itself, whoever the request is from.
const HEADERS_OF_REQUEST: u32 = 1;
const BODY_OF_REQUEST: u32 = 2;
const OWN: u32 = 4;

fn road(kind: i32) -> Road {
    match kind {
        WORKER => Road::Workers,
        NODE => Road::Nodes,
        _ => Road::Hub,
    }
}

/// `name: value` lines into headers; None where one cannot be sent.
fn headers_of(lines: &[u8], headers: &mut HeaderMap) -> Option<()> {
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?.trim_ascii());
        if is_own(name) {
            continue;
        }
        let name = HeaderName::from_bytes(name).ok()?;
        headers.insert(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(())
}

fn place(kind: i32, worker: u32, address: &[u8]) -> Result<Place, i32> {
    match kind {
        WORKER | ROUTER => {
            let id = match kind {
                ROUTER => workers::router().map(|router| router.seat.worker),
                _ => u16::try_from(worker).ok().map(WorkerId).filter(|id| workers::lives(*id)),
            };
            id.and_then(Place::of_worker).ok_or(UNREACHABLE)
        }
        NODE => {
            let text = std::str::from_utf8(address).map_err(|_| INVALID)?;
            Ok(text.parse::<std::net::SocketAddr>().map_err(|_| INVALID)?.into())
        }
        _ => Err(UNKNOWN),
    }
}

fn draft(
    request: Address,
    kind: i32,
    method: &[u8],
    flags: u32,
    timeouts: Timeouts,
) -> Result<Draft, i32> {
    check_method(method).map_err(|_| INVALID)?;
    let method = Method::from_bytes(method).map_err(|_| INVALID)?;
    let mut draft = Draft { method, headers: Rc::default(), body: Bytes::new(), timeouts };
    if flags & (HEADERS_OF_REQUEST | BODY_OF_REQUEST) != 0 {
        let taken = with_request(request, |request: &Request<'_>| {
            let body = if flags & BODY_OF_REQUEST != 0 { request.body()? } else { Vec::new() };
            Draft::of(request, road(kind), body, timeouts).ok()
        });
        let taken = taken.flatten().ok_or(INVALID)?;
        if flags & HEADERS_OF_REQUEST != 0 {
            draft.headers = taken.headers;
        }
        draft.body = taken.body;
    }
    Ok(draft)
}

/// Who asks by a call that is made for `request`: its client, or this node itself.
fn caller(request: Address, flags: u32) -> Caller {
    let of_client = |request: &Request<'_>| match request.is_own() || flags & OWN != 0 {
        true => None,
        false => Some(proof::caller(request)),
    };
    with_request(request, of_client).flatten().unwrap_or_else(Caller::this_node)
}

/// Tells a worker of this node who asks.
fn introduce(call: &mut client::Call, caller: Caller) -> Option<()> {
    let hop = Hop { steps: 1, caller };
    let header = hop.header(call.method.as_str().as_bytes(), call.target.as_bytes())?;
    let header = HeaderValue::from_str(&header).ok()?;
    Rc::make_mut(&mut call.headers).insert("CC-Hop", header);
    Some(())
}

fn started(job: u32, call: Result<client::Call, i32>) -> i32 {
    match call {
        Err(code) => code,
        Ok(call) => match jobs::place(job) {
            None => FULL,
            Some(index) => {
                jobs::call(job, index, call);
                index as i32
            }
        },
    }
}

exported! {
    /// `int ngx_cc_cluster_call(int job, void *request, int kind, unsigned worker, const char *address, size_t address_len,
    ///     const char *method, size_t method_len, const char *target, size_t target_len, const char *headers, size_t headers_len,
    ///     const char *body, size_t body_len, unsigned flags, unsigned connect, unsigned send, unsigned read);`
    /// Begins a call; its index in the job, from 0. `kind` 0: worker number `worker` of this node; 1: the
    /// node at `address`, `HOST:PORT` in numbers; 2: the router. `headers` are `name: value` lines.
    /// `flags` 1: the request's headers go along, as far as they may; 2: with the request's body,
    /// which was read before, where `body` is empty; 4: a worker shall take this node for who asks,
    /// not the request's client. The times are milliseconds. -3: something in
    /// it cannot be sent; -4: too many; -5: nobody is there, or without a per_worker listener.
    fn ngx_cc_cluster_call(job: u32, request: Address, kind: i32, worker: u32, address: Text, address_len: usize, method: Text, method_len: usize, target: Text, target_len: usize, headers: Text, headers_len: usize, body: Text, body_len: usize, flags: u32, connect: u32, send: u32, read: u32) -> i32, BUG, {
        let timeouts = Timeouts { connect: connect as usize, send: send as usize, read: read as usize };
        let call = place(kind, worker, address.bytes(address_len)).and_then(|place| {
            let (method, target) = (method.bytes(method_len), target.bytes(target_len));
            let (headers, body) = (headers.bytes(headers_len), body.bytes(body_len));
            if let Some(pattern) = jobs::pattern(job) {
                let asked = &pattern.asked;
                let same = asked.kind == kind && asked.method == method && asked.target == target
                    && asked.headers == headers && asked.body == body && asked.flags == flags && asked.timeouts == timeouts;
                if same {
                    return Ok(place.called(&pattern.call));
                }
            }
            let mut draft = draft(request, kind, method, flags, timeouts)?;
            headers_of(headers, Rc::make_mut(&mut draft.headers)).ok_or(INVALID)?;
            let body = Bytes::copy_from_slice(body);
            if !body.is_empty() {
                draft.body = body.clone();
            }
            let mut call = draft.to(place, target).map_err(|_| INVALID)?;
            if kind != NODE {
                introduce(&mut call, caller(request, flags)).ok_or(UNREACHABLE)?;
            }
            let (method, target, headers) = (method.to_vec(), target.to_vec(), headers.to_vec());
            let asked = Asked { kind, method, target, headers, body, flags, timeouts };
            jobs::set_pattern(job, Pattern { asked, call: call.clone() });
            Ok(call)
        });
        started(job, call)
    }

    /// `int ngx_cc_cluster_ask(int job, void *request, const char *channel, size_t channel_len, const char *address, size_t address_len,
    ///     const char *method, size_t method_len, const char *target, size_t target_len,
    ///     const char *body, size_t body_len, unsigned flags, unsigned time);`
    /// The same to a node of the cluster at `address`, in at most `time` milliseconds. It is signed
    /// where there is a secret, and the request's client has proven who it is, or nobody else but
    /// this node asks (`flags` 4, and in timers).
    fn ngx_cc_cluster_ask(job: u32, request: Address, channel: Text, channel_len: usize, address: Text, address_len: usize, method: Text, method_len: usize, target: Text, target_len: usize, body: Text, body_len: usize, flags: u32, time: u32) -> i32, BUG, {
        let address = address.bytes(address_len);
        let milliseconds = time as usize;
        let timeouts = Timeouts { connect: milliseconds, send: milliseconds, read: milliseconds };
        let drafted = draft(request, NODE, method.bytes(method_len), flags, timeouts);
        let mut draft = match drafted {
            Ok(draft) => draft,
            Err(code) => return code,
        };
        if body_len > 0 {
            draft.body = Bytes::copy_from_slice(body.bytes(body_len));
        }
        let target = target.bytes(target_len);
        if !caller(request, flags).may_change() {
            let call = place(NODE, 0, address)
                .and_then(|place| draft.to(place, target).map_err(|_| INVALID));
            return started(job, call);
        }
        let channel = String::from_utf8(channel.bytes(channel_len).to_vec());
        let (Ok(to), Ok(channel)) = (learned(address), channel) else { return INVALID };
        let Some(index) = jobs::place(job) else { return FULL };
        jobs::ask(job, index, Ask { channel, to, draft, target: target.to_vec(), time: milliseconds });
        index as i32
    }

    /// `int ngx_cc_cluster_builtin(int job, void *request, const char *channel, size_t channel_len, const char *action, size_t action_len);`
    /// Runs a built-in action for the request, whose body was read before, as cc_invoke does it:
    /// its outcome is that of a call with this index, errors included. -2: there is no such action or channel.
    fn ngx_cc_cluster_builtin(job: u32, request: Address, channel: Text, channel_len: usize, action: Text, action_len: usize) -> i32, BUG, {
        let (action, channel) = (BuiltIn::named(action.bytes(action_len)), Channel::named(channel.bytes(channel_len)));
        let (Some(action), Some(channel)) = (action, channel) else { return UNKNOWN };
        let Some(index) = jobs::place(job) else { return FULL };
        let owed = Owed::new(job, index);
        match with_request(request, |request| request.body()).flatten() {
            Some(body) => {
                with_request(request, |request| {
                    let done = move |response: Response| owed.settle(response.into());
                    builtin::run(request, &channel, channel.own_timeouts(), action, body, done);
                });
            }
            None => owed.settle(jobs::Outcome::Failed(500, "the request's body cannot be read".into())),
        }
        index as i32
    }

    /// `int ngx_cc_cluster_forward(int job, void *request, const char *channel, size_t channel_len);`
    /// Asks the router the request itself, whose body was read before: the outcome is its answer.
    fn ngx_cc_cluster_forward(job: u32, request: Address, channel: Text, channel_len: usize) -> i32, BUG, {
        let Some(channel) = Channel::named(channel.bytes(channel_len)) else { return UNKNOWN };
        let Some(index) = jobs::place(job) else { return FULL };
        let way = with_request(request, |request| Some(Way::of(request, request.body()?, channel.own_timeouts())));
        match way.flatten() {
            Some(Ok(way)) => {
                let owed = Owed::new(job, index);
                way.go(Asker::Other(Box::new(move |response| owed.settle(response.into()))), Whom::Router);
            }
            Some(Err(response)) => jobs::settle(job, index, response.into()),
            None => jobs::settle(job, index, jobs::Outcome::Failed(500, "the request's body cannot be read".into())),
        }
        index as i32
    }
}
