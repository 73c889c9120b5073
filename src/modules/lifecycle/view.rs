//! The node as a status page shows it, from any worker: who is there and how it goes, whether all
//! are ready, what each has seen of the retained values, what was counted.

use super::{Living, Own, with};
use crate::proto::ipc::{Generation, Pid, WorkerId};
use crate::proto::lifecycle::{self as decide, Member, Phase, Place, Status, Tally, Why};
use crate::shm::lifecycle::View;
use crate::shm::slots::SLOTS;

/// A worker, or the seat of one that is gone and has no successor.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its number.
    pub id: WorkerId,
    /// Its process.
    pub pid: Pid,
    /// Its generation.
    pub generation: Generation,
    /// `starting`, `live`, `retiring`; `dead` until a successor comes, `given up` where none will.
    pub state: &'static str,
    /// Whether it is ready.
    pub ready: bool,
    /// Why not, as it said; empty where it did not.
    pub reason: String,
    /// When it started, in ms since 1970.
    pub since: u64,
    /// Why it started.
    pub why: Why,
    /// Whom it follows in its seat.
    pub predecessor: Option<Pid>,
    /// How it ended where it has; else how the one before it did.
    pub status: Option<Status>,
    /// Crashes in its seat, one after the other, since anybody in it was ready.
    pub deaths: u64,
    /// Of each retained name that it listens to, by its place in [`Node::retained`], the last sequence
    /// number that it has seen.
    pub seen: Vec<(usize, u64)>,
}

/// The node.
#[derive(Clone, Debug)]
pub struct Node {
    /// The generation in force.
    pub generation: Generation,
    /// How many workers it has.
    pub configured: usize,
    /// Why its configuration was loaded.
    pub load: Why,
    /// Whether all of them are ready, or the first reason why not.
    pub ready: Result<(), String>,
    /// Who leads.
    pub leader: Option<Member>,
    /// The workers of this and of older generations, by generation, newest first, and id.
    pub workers: Vec<Worker>,
    /// The last sequence number of each retained name.
    pub retained: Vec<(Vec<u8>, u64)>,
    /// By name: how often, and when last (ms since 1970; 0 never). They began with the zone.
    pub counters: Vec<(&'static str, u64, u64)>,
}

/// The node; None in a process that is no worker.
pub fn node() -> Option<Node> {
    // one after the other: each has a lock of its own
    let names = crate::modules::ipc::worker::with(|worker| worker.retained_names())?;
    with(|own| own.node(names, &own.living()))
}

/// The same, of the retained values these names only.
pub fn node_with(retained: Vec<(Vec<u8>, u64)>, living: &Living) -> Option<Node> {
    with(|own| own.node(retained, living))
}

/// Who lives; None in a process that is no worker.
pub fn living() -> Option<Living> {
    with(|own| own.living())
}

/// Whether every worker of the generation in force is ready; None in a process that is no worker.
pub fn ready() -> Option<Result<(), String>> {
    with(|own| own.ready(&own.views(&own.living())))
}

/// A worker's row, with the end of one that nobody has recorded yet.
fn as_it_is(view: View, living: &Living) -> View {
    let gone = view.member.phase.runs() && !living.has(view.member.pid);
    let phase = if gone { Phase::Dead } else { view.member.phase };
    let status = if gone { None } else { view.status };
    View { member: Member { phase, ..view.member }, status, ..view }
}

fn state(view: &View) -> &'static str {
    match view.member.phase {
        Phase::Starting => "starting",
        Phase::Live => "live",
        Phase::Retiring => "retiring",
        Phase::Left => "left",
        Phase::Dead if view.status.is_some_and(Status::is_fatal) => "given up",
        Phase::Dead => "dead",
    }
}

impl Own {
    fn views(&self, living: &Living) -> Vec<(usize, View)> {
        let view = |slot| Some((slot, as_it_is(self.life.view(slot)?, living)));
        (0..SLOTS).filter_map(view).collect()
    }

    fn ready(&self, views: &[(usize, View)]) -> Result<(), String> {
        let (generation, workers) = self.table.current();
        let place = |id: usize| {
            let here = |(_, view): &&(usize, View)| {
                let seat = view.member.seat;
                seat.generation == generation && usize::from(seat.worker.0) == id
            };
            let view = views.iter().filter(here).max_by_key(|(_, view)| view.since);
            view.map_or(
                Place {
                    member: None,
                    status: None,
                    deaths: 0,
                    ready: false,
                    reason: String::new(),
                },
                |(_, view)| Place {
                    member: Some(view.member),
                    status: view.status,
                    deaths: view.deaths,
                    ready: view.ready == Some(true),
                    reason: view.reason.clone(),
                },
            )
        };
        decide::readiness(&(0..workers).map(place).collect::<Vec<_>>())
    }

    fn node(&self, retained: Vec<(Vec<u8>, u64)>, living: &Living) -> Node {
        let views = self.views(living);
        let ready = self.ready(&views);
        let (generation, configured) = self.table.current();
        let counts = Tally::ALL.iter().map(|(tally, name)| {
            let (number, time) = self.life.tally(*tally);
            (*name, number, time)
        });
        // who has left is of no interest, nor a dead one of a generation that is gone, nor one that
        // has a successor, which need not have its row where two were in one seat
        let dead = |view: &View| view.member.phase == Phase::Dead;
        let succeeded = |view: &View| {
            let after =
                |other: &View| other.member.seat == view.member.seat && other.since > view.since;
            views.iter().any(|(_, other)| after(other))
        };
        let shown = |view: &View| {
            let now = view.member.seat.generation == generation;
            view.member.phase.runs() || dead(view) && now && !succeeded(view)
        };
        let mut workers: Vec<Worker> = views
            .iter()
            .filter(|(_, view)| shown(view))
            .cloned()
            .map(|(slot, view)| {
                let seen = retained.iter().enumerate().filter_map(|(place, (name, _))| {
                    self.life.last_seen(slot, name).map(|sequence| (place, sequence))
                });
                Worker {
                    id: view.member.seat.worker,
                    pid: view.member.pid,
                    generation: view.member.seat.generation,
                    state: state(&view),
                    ready: view.member.phase.runs() && view.ready == Some(true),
                    seen: seen.collect(),
                    reason: view.reason,
                    since: view.since,
                    why: view.why,
                    predecessor: view.predecessor,
                    status: view.status,
                    deaths: view.deaths,
                }
            })
            .collect();
        workers.sort_by_key(|worker| (std::cmp::Reverse(worker.generation), worker.id));
        Node {
            generation,
            configured,
            load: self.life.load(),
            ready,
            leader: self.leader_of(living),
            workers,
            retained,
            counters: counts.collect(),
        }
    }
}
