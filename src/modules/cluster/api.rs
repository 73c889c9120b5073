//! What Lua calls through FFI for `ngx_cc`: channels, arguments, built-ins, calls, who is there.
//! Thin functions, C types only. Texts that a function hands out hold until it is called again.
//!
//! `ngx_cc_text_t` is `struct { const char *data; size_t len; }`. `request` is the address of the running request, `get_request()` of lua-resty-core; also a
//! timer's. A job ends with its request. Lua must keep the semaphore of a job alive until it has
//! called `ngx_cc_cluster_end`, or the request has ended.

use std::cell::RefCell;

use super::channel::Channel;
use super::location::Location;
use super::{cast, invoke, jobs, lua, node, nodes, proof, settings, workers};
use crate::modules::http::Http;
use crate::ngx::cycle;
use crate::ngx::lua::{
    Address, Bytes, Out, Semaphore, Text, exported, on_request_end, with_request,
};
use crate::ngx::request::Request;
use crate::proto::cluster::builtin::BuiltIn;
use crate::proto::cluster::cast::{Direction, Via};
use crate::proto::cluster::query;
use crate::proto::ipc::WorkerId;

const BUG: i32 = -1;
const UNKNOWN: i32 = -2;
const FULL: i32 = -4;
const UNREACHABLE: i32 = -5;

/// `typedef struct { ngx_cc_text_t name, value; int has_value, kind; } ngx_cc_arg_t;`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ArgRow {
    name: Bytes,
    value: Bytes,
    has_value: i32,
    kind: i32,
}

/// `typedef struct { ngx_cc_text_t node; int worker, port, via; } ngx_cc_target_t;`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TargetRow {
    /// HOST:PORT of the node.
    node: Bytes,
    /// -1 for a node.
    worker: i32,
    /// -1 where it has none.
    port: i32,
    /// 0 a worker of this node, 1 a node for itself, 2 a node for all below it.
    via: i32,
}

/// `typedef struct { ngx_cc_text_t node, super; int router, router_port, worker, port; } ngx_cc_facts_t;`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Facts {
    node: Bytes,
    /// Empty at a root.
    superior: Bytes,
    /// Worker ids and ports; -1 where there is none.
    router: i32,
    router_port: i32,
    worker: i32,
    port: i32,
}

/// `typedef struct { int done, status; ngx_cc_text_t headers, body, error; } ngx_cc_outcome_t;`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutcomeRow {
    /// 0 not yet, 1 an answer, 2 none, and why.
    done: i32,
    /// The answer's, or 502, 503, 504.
    status: i32,
    /// `name: value` lines.
    headers: Bytes,
    body: Bytes,
    error: Bytes,
}

thread_local! {
    /// The bytes behind what was handed out, by function.
    static KEPT: RefCell<[Vec<Vec<u8>>; 5]> = RefCell::default();
}

/// Keeps texts until the next call of the function that has this number, and hands out their places.
fn kept<R>(function: usize, texts: Vec<Vec<u8>>, then: impl FnOnce(&[Vec<u8>]) -> R) -> R {
    KEPT.with_borrow_mut(|kept| match kept.get_mut(function) {
        Some(place) => {
            *place = texts;
            then(place)
        }
        None => then(&[]),
    })
}

fn number(value: Option<u16>) -> i32 {
    value.map_or(-1, i32::from)
}

fn port_of(id: WorkerId) -> i32 {
    number(workers::listener(id).and_then(|listener| listener.port()))
}

fn location<'a>(request: &Request<'a>) -> Option<&'a Location> {
    request.location::<Http>().map(|conf| &conf.cluster)
}

exported! {
    /// `int ngx_cc_cluster_channel(const char *name, size_t len);`
    /// Makes a channel known to this worker: 1; 0 where it cannot have that name.
    fn ngx_cc_cluster_channel(name: Text, len: usize) -> i32, BUG, {
        i32::from(lua::register(name.bytes(len)))
    }

    /// `int ngx_cc_cluster_supers(const char *channel, size_t len, const char *supers, size_t supers_len);`
    /// Sets the supers of a channel that Lua made: `HOST:PORT` in numbers, separated by spaces, none
    /// for a root; to be called in every worker, for any may become the router. 1; 0 where one is no
    /// address, or the channel is not Lua's.
    fn ngx_cc_cluster_supers(channel: Text, len: usize, supers: Text, supers_len: usize) -> i32, BUG, {
        i32::from(lua::set_supers(channel.bytes(len), supers.bytes(supers_len)))
    }

    /// `int ngx_cc_cluster_node(const char *address, size_t len);`
    /// Sets this node's `HOST:PORT`, in numbers, where there is no cc_node; in every worker, and
    /// before the first channel. 1; 0 where it is no address.
    fn ngx_cc_cluster_node(address: Text, len: usize) -> i32, BUG, {
        i32::from(lua::set_node(address.bytes(len)))
    }

    /// `int ngx_cc_cluster_is_configured(const char *channel, size_t len);`
    /// 1 where the configuration says which supers the channel has, or that it has none.
    fn ngx_cc_cluster_is_configured(channel: Text, len: usize) -> i32, BUG, {
        let channel = channel.bytes(len);
        i32::from(settings().is_some_and(|settings| settings.channel(channel).is_some() || !settings.supers(channel).is_empty()))
    }

    /// `int ngx_cc_cluster_has_channel(const char *name, size_t len);`
    /// 1 where the configuration or Lua has made that channel.
    fn ngx_cc_cluster_has_channel(name: Text, len: usize) -> i32, BUG, {
        i32::from(Channel::named(name.bytes(len)).is_some())
    }

    /// `int ngx_cc_cluster_noted(void *request, ngx_cc_text_t *name);`
    /// The channel that cc_invoke, cc_hub or cc_cast has found for the request: 1; 0 there is none.
    fn ngx_cc_cluster_noted(request: Address, name: Out<Bytes>) -> i32, BUG, {
        let noted = with_request(request, super::channel::noted).flatten();
        kept(0, noted.into_iter().map(String::into_bytes).collect(), |texts| {
            name.fill(1, texts.iter().map(|text| Bytes::of(text))) as i32
        })
    }

    /// `int ngx_cc_cluster_args(void *request, ngx_cc_arg_t *rows, size_t room);`
    /// The arguments of the request's query in their order, decoded; how many. `kind`: 1 names a
    /// built-in, 2 a cc_action of the location, 0 neither.
    fn ngx_cc_cluster_args(request: Address, rows: Out<ArgRow>, room: usize) -> i32, BUG, {
        let args = with_request(request, |request| {
            let location = location(request);
            let is_action = |name: &[u8]| location.is_some_and(|conf| conf.action(name).is_some());
            let of = |arg: query::Arg<'_>| {
                let kind = if BuiltIn::named(&arg.name).is_some() { 1 } else { 2 * i32::from(is_action(&arg.name)) };
                (arg.name.to_vec(), arg.value.text().to_vec(), matches!(arg.value, query::Value::Text(_)), kind)
            };
            query::parse(request.query()).map(of).collect::<Vec<_>>()
        });
        let Some(args) = args else { return BUG };
        let flags: Vec<(bool, i32)> = args.iter().map(|(_, _, has, kind)| (*has, *kind)).collect();
        kept(1, args.into_iter().flat_map(|(name, value, ..)| [name, value]).collect(), |texts| {
            let pairs = texts.chunks_exact(2).zip(flags).filter_map(|(pair, (has, kind))| {
                let [name, value] = pair else { return None };
                Some(ArgRow { name: Bytes::of(name), value: Bytes::of(value), has_value: i32::from(has), kind })
            });
            rows.fill(room, pairs) as i32
        })
    }

    /// `int ngx_cc_cluster_action(void *request, const char *name, size_t len, ngx_cc_text_t *uri);`
    /// Where a cc_action of the request's location leads, with its own arguments and the request's
    /// behind them, for ngx.exec: 1; -2 there is none.
    fn ngx_cc_cluster_action(request: Address, name: Text, len: usize, uri: Out<Bytes>) -> i32, BUG, {
        let name = name.bytes(len);
        let target = with_request(request, |request| {
            let (path, args) = invoke::target_of(request, location(request)?.action(name)?)?;
            Some(if args.is_empty() { path } else { [&path, &b"?"[..], &args].concat() })
        });
        let Some(target) = target.flatten() else { return UNKNOWN };
        kept(2, vec![target], |texts| uri.fill(1, texts.iter().map(|text| Bytes::of(text))) as i32)
    }

    /// `int ngx_cc_cluster_is_local(void *request);`
    /// 1 where the request comes from this machine, not through a proxy.
    fn ngx_cc_cluster_is_local(request: Address) -> i32, BUG, {
        with_request(request, |request| i32::from(proof::is_local(request))).unwrap_or(0)
    }

    /// `int ngx_cc_cluster_facts(const char *channel, size_t len, ngx_cc_facts_t *facts);`
    /// What this worker knows of its node in a channel: 1.
    fn ngx_cc_cluster_facts(channel: Text, len: usize, facts: Out<Facts>) -> i32, BUG, {
        let superior = std::str::from_utf8(channel.bytes(len)).ok().and_then(nodes::superior);
        let texts = vec![node().into_bytes(), superior.map_or_else(Vec::new, |at| at.to_string().into_bytes())];
        let router = workers::router().map(|router| router.seat.worker);
        let me = u16::try_from(cycle::worker_number()).map_or(WorkerId(0), WorkerId);
        kept(3, texts, |texts| {
            let [node, superior] = texts else { return BUG };
            facts.fill(1, std::iter::once(Facts {
                node: Bytes::of(node),
                superior: Bytes::of(superior),
                router: number(router.map(|id| id.0)),
                router_port: router.map_or(-1, port_of),
                worker: i32::from(me.0),
                port: port_of(me),
            })) as i32
        })
    }

    /// `int ngx_cc_cluster_targets(const char *channel, size_t len, const char *direction, size_t direction_len, ngx_cc_target_t *rows, size_t room);`
    /// Who is asked in a direction now, in their order; how many. -2: there is no such direction;
    /// -5: there is no router.
    fn ngx_cc_cluster_targets(channel: Text, len: usize, direction: Text, direction_len: usize, rows: Out<TargetRow>, room: usize) -> i32, BUG, {
        let Ok(direction) = Direction::parse(direction.bytes(direction_len)) else { return UNKNOWN };
        let Ok(channel) = std::str::from_utf8(channel.bytes(len)) else { return UNKNOWN };
        let Ok(targets) = cast::asked(channel, direction) else { return UNREACHABLE };
        let texts = targets.iter().map(|target| target.node.as_bytes().to_vec()).collect();
        kept(4, texts, |texts| {
            rows.fill(room, texts.iter().zip(&targets).map(|(node, target)| TargetRow {
                node: Bytes::of(node),
                worker: match target.via {
                    Via::Worker(id) => i32::from(id.0),
                    Via::Node | Via::Tree => -1,
                },
                port: number(target.port),
                via: match target.via {
                    Via::Worker(_) => 0,
                    Via::Node => 1,
                    Via::Tree => 2,
                },
            })) as i32
        })
    }

    /// `int ngx_cc_cluster_begin(void *request, void *sema, void *post);`
    /// A new job, its number, more than 0; `sema` and `post` as for ngx_cc_ipc_guard. -4: too many.
    fn ngx_cc_cluster_begin(request: Address, sema: Address, post: Address) -> i32, BUG, {
        let Some(semaphore) = Semaphore::new(sema, post) else { return BUG };
        let Some(job) = jobs::begin(semaphore) else { return FULL };
        if !on_request_end(request, job, jobs::end) {
            jobs::end(job);
            return BUG;
        }
        job as i32
    }

    /// `int ngx_cc_cluster_seal(int job);`
    /// No more calls come: how many are under way. When it is more than 0 the semaphore is posted
    /// once, when all have ended, which they do: each step of a call has a timeout.
    fn ngx_cc_cluster_seal(job: u32) -> i32, BUG, {
        jobs::seal(job).map_or(BUG, |waiting| waiting as i32)
    }

    /// `int ngx_cc_cluster_outcome(int job, size_t index, ngx_cc_outcome_t *row);`
    /// What came of a call: 1; -2 there is no such call. The texts hold until the job's end.
    fn ngx_cc_cluster_outcome(job: u32, index: usize, row: Out<OutcomeRow>) -> i32, BUG, {
        let none = Bytes::of(b"");
        let found = jobs::outcome(job, index, |outcome| row.fill(1, std::iter::once(match outcome {
            jobs::Outcome::Waiting => OutcomeRow { done: 0, status: 0, headers: none, body: none, error: none },
            jobs::Outcome::Answer { status, headers, body } => OutcomeRow {
                done: 1,
                status: i32::from(*status),
                headers: Bytes::of(headers),
                body: Bytes::of(body),
                error: none,
            },
            jobs::Outcome::Failed(status, why) => OutcomeRow {
                done: 2,
                status: i32::from(*status),
                headers: none,
                body: none,
                error: Bytes::of(why.as_bytes()),
            },
        })));
        found.map_or(UNKNOWN, |filled| filled as i32)
    }

    /// `void ngx_cc_cluster_end(int job);`
    /// Cancels what is under way, forgets the answers. The semaphore is not posted any more.
    fn ngx_cc_cluster_end(job: u32) -> (), (), {
        jobs::end(job);
    }
}
