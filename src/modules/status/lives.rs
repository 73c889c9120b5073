//! What the status tells of the workers' lives, as `modules::lifecycle` knows them.

use std::rc::Rc;

use crate::modules::ipc::report;
use crate::modules::lifecycle::{Living, view};
use crate::proto::lifecycle::ended_by;
use crate::proto::status::{Count, Lifecycle, Name, Worker};

/// See the fields of the same name of the status.
pub struct Lives {
    /// Without what the bus knows of them.
    pub workers: Vec<Worker>,
    /// Or why not.
    pub ready: Result<(), String>,
    /// See there.
    pub leader: Option<u16>,
    /// Of retained values.
    pub names: Vec<Name>,
    /// See there.
    pub lifecycle: Lifecycle,
}

/// Whether all workers are ready; None in a process that is none.
pub fn ready() -> Option<Result<(), String>> {
    view::ready()
}

/// All of it, with what each has seen of these names.
pub fn look(names: &report::Names, living: &Living) -> Option<Lives> {
    let node = view::node_with(names.clone(), living)?;
    let text = |name: &[u8]| Rc::<str>::from(String::from_utf8_lossy(name));
    let known: Vec<Rc<str>> = node.retained.iter().map(|(name, _)| text(name)).collect();
    let seen = |(place, sequence): (usize, u64)| Some((Rc::clone(known.get(place)?), sequence));
    let workers = node.workers.into_iter().map(|worker| Worker {
        id: worker.id.0,
        pid: worker.pid.0,
        generation: worker.generation.0,
        state: worker.state,
        ready: worker.ready,
        reason: Some(worker.reason).filter(|reason| !worker.ready && !reason.is_empty()),
        started: Some(worker.since),
        why: Some(worker.why.word()),
        crashes: worker.deaths,
        ended: worker.status.map(|status| ended_by(Some(status))),
        seen: worker.seen.into_iter().filter_map(seen).collect(),
        ..Worker::default()
    });
    let count = |(name, count, last): (&'static str, u64, u64)| {
        (name, Count { count, last: Some(last).filter(|last| *last > 0) })
    };
    let name = |(name, (_, sequence)): (&Rc<str>, &(Vec<u8>, u64))| Name {
        name: name.to_string(),
        sequence: *sequence,
    };
    Some(Lives {
        workers: workers.collect(),
        ready: node.ready,
        leader: node.leader.map(|leader| leader.seat.worker.0),
        names: known.iter().zip(&node.retained).map(name).collect(),
        lifecycle: Lifecycle {
            load: Some(node.load.word()),
            counts: node.counters.into_iter().map(count).collect(),
        },
    })
}
