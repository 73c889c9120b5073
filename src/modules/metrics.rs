//! What is counted in the shared zone beside messages, by name: any noun counts here, the status
//! reads it. Each worker counts in the stripe of its number.

use crate::modules::core::Core;
use crate::modules::ipc::sending::Unsent;
use crate::ngx::cycle;
use crate::ngx::module::core_conf;
use crate::proto::ipc::outbox::Refused as Outbox;
use crate::proto::status::Histogram;
use crate::proto::upstream::tries::State;
use crate::shm::metrics::{BOUNDS, Metrics};

/// What is timed; the number is its place in the zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    /// A message, from its acceptance until its receiver takes it.
    Delivery = 0,
    /// A call to another node, until its answer.
    Rpc = 1,
}

impl Timed {
    /// Microseconds.
    pub const fn bounds(self) -> &'static [u64; BOUNDS] {
        match self {
            Timed::Delivery => &[10, 30, 100, 1_000, 10_000, 100_000, 1_000_000],
            Timed::Rpc => &[300, 1_000, 3_000, 10_000, 30_000, 100_000, 1_000_000],
        }
    }
}

/// What is counted; the number is its place in the zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// A try of a balanced upstream.
    Try(State),
    /// A call to another node that came to nothing.
    Call(Failed),
    /// A request that was refused.
    Refused(Refused),
    /// A message that its sender could not send; for want of room it is counted elsewhere.
    Unsent(Unsent),
}

/// Why a call to another node came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It took too long.
    TimedOut,
    /// The node could not be reached, or broke off.
    Unreachable,
    /// What it said cannot be believed.
    Untrusted,
    /// It could not be made, or its answer not be read.
    Other,
}

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// For a channel that is none.
    Channel,
    /// For an action that is none.
    Action,
    /// A call with a signature: wrong, or said before, or not to be taken.
    Signed,
    /// For the router.
    Hub,
    /// A cast.
    Cast,
    /// For a function.
    Function,
    /// For a built-in action.
    BuiltIn,
    /// Of a node that wants to belong here.
    Membership,
}

const STATES: [(State, &str); 4] = [
    (State::Ok, "ok"),
    (State::Next, "next"),
    (State::Failed, "failed"),
    (State::Open, "unfinished"),
];
const FAILED: [(Failed, &str); 4] = [
    (Failed::TimedOut, "timeout"),
    (Failed::Unreachable, "unreachable"),
    (Failed::Untrusted, "untrusted"),
    (Failed::Other, "other"),
];
const REFUSED: [(Refused, &str); 8] = [
    (Refused::Channel, "unknown channel"),
    (Refused::Action, "unknown action"),
    (Refused::Signed, "signed call"),
    (Refused::Hub, "hub"),
    (Refused::Cast, "cast"),
    (Refused::Function, "function"),
    (Refused::BuiltIn, "built-in action"),
    (Refused::Membership, "membership"),
];

const UNSENT: [(Unsent, &str); 3] = [
    (Unsent::Nobody, "nobody"),
    (Unsent::Refused(Outbox::TooLong), "too long"),
    (Unsent::Refused(Outbox::Name), "name too long"),
];

impl Counted {
    /// All of a kind lie together: states from 0, failures from 4, refusals from 8, messages from 16.
    const fn place(self) -> usize {
        match self {
            Counted::Try(state) => state as usize,
            Counted::Call(failed) => 4 + failed as usize,
            Counted::Refused(refused) => 8 + refused as usize,
            Counted::Unsent(Unsent::Refused(Outbox::TooLong)) => 17,
            Counted::Unsent(Unsent::Refused(Outbox::Name)) => 18,
            Counted::Unsent(_) => 16,
        }
    }
}

fn zone() -> Option<&'static Metrics> {
    core_conf::<Core>(cycle::current()?)?.ipc.metrics()
}

/// Counts one.
pub fn count(what: Counted) {
    if let Some(metrics) = zone() {
        metrics.count(cycle::worker_number(), what.place());
    }
}

/// So long it took, in microseconds.
pub fn observe(metrics: &Metrics, what: Timed, micros: u64) {
    metrics.observe(cycle::worker_number(), what as usize, what.bounds(), micros);
}

/// What is counted since the zone began, by the names of the status.
pub struct Counts {
    /// By state.
    pub tries: Vec<(&'static str, u64)>,
    /// By reason.
    pub calls_failed: Vec<(&'static str, u64)>,
    /// By what was refused.
    pub refused: Vec<(&'static str, u64)>,
    /// By why they were not sent.
    pub unsent: Vec<(&'static str, u64)>,
    /// See there.
    pub delivery: Histogram,
    /// See there.
    pub rpc: Histogram,
}

/// All of it.
pub fn counts() -> Counts {
    let metrics = zone();
    let of = |what: Counted| metrics.map_or(0, |metrics| metrics.total(what.place()));
    let timed = |what: Timed| {
        let (buckets, sum) = metrics.map_or_else(Default::default, |m| m.histogram(what as usize));
        Histogram::of(what.bounds(), &buckets, sum)
    };
    Counts {
        tries: STATES.iter().map(|(state, name)| (*name, of(Counted::Try(*state)))).collect(),
        calls_failed: FAILED.iter().map(|(why, name)| (*name, of(Counted::Call(*why)))).collect(),
        refused: REFUSED.iter().map(|(what, name)| (*name, of(Counted::Refused(*what)))).collect(),
        unsent: UNSENT.iter().map(|(why, name)| (*name, of(Counted::Unsent(*why)))).collect(),
        delivery: timed(Timed::Delivery),
        rpc: timed(Timed::Rpc),
    }
}

/// When something began that [`observe`] is told of.
#[derive(Clone, Copy, Debug)]
pub struct Since(u64);

impl Since {
    /// Now.
    pub fn now() -> Since {
        Since(cycle::nanoseconds())
    }

    /// It ended, after so long.
    pub fn observe(&self, what: Timed) {
        if let Some(metrics) = zone() {
            observe(metrics, what, cycle::nanoseconds().saturating_sub(self.0) / 1000);
        }
    }
}
