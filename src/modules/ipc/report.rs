//! What a status tells of the bus and of the retained values: all of it from shared memory, so that
//! any worker tells the same.

use super::rings::Bells;
use super::worker::Worker;
use crate::proto::ipc::Pid;
use crate::shm::slots::{COUNTERS, Counter, Row, Worker as Entry};

/// The bus.
pub struct Report {
    /// The worker that looks.
    pub me: Entry,
    /// The generation in force, and how many workers it is for.
    pub current: (u32, usize),
    /// The living, by generation, newest first, and number.
    pub workers: Vec<Seated>,
    /// Counted by all, past ones included.
    pub total: [u64; COUNTERS],
    /// Messages that their senders hold.
    pub held: u64,
    /// Bytes of one ring, and of all; none without rings.
    pub rings: Option<(usize, usize)>,
    /// Bytes: what may wait for one receiver at one sender, and the longest message.
    pub limits: (usize, usize),
    /// The retained values.
    pub retained: Retained,
}

/// A worker.
pub struct Seated {
    /// Who.
    pub entry: Entry,
    /// What it has counted.
    pub counters: [u64; COUNTERS],
    /// Messages that it holds.
    pub held: u64,
    /// Bytes in the rings to it; none where those are not this worker's, too.
    pub inbox: Option<u64>,
}

/// The retained values.
pub struct Retained {
    /// The last sequence number given out.
    pub sequence: u64,
    /// How many.
    pub values: usize,
    /// Bytes in use.
    pub used: usize,
    /// Bytes that can be.
    pub size: usize,
    /// See there; none while another process keeps them locked.
    pub names: Names,
}

/// Names of retained values, in their order, and the sequence number of the last change of each.
pub type Names = Vec<(Vec<u8>, u64)>;

impl Worker {
    /// Looks at everything; `living` says who lives.
    pub fn report(&self, living: impl Fn(Pid) -> bool) -> Report {
        let (newest, configured) = self.table.current();
        let mesh = self.bells.as_ref().map(Bells::mesh);
        let (mut total, mut held, mut workers) = ([0u64; COUNTERS], 0u64, Vec::new());
        for Row { owner, counters, own, held: holds, .. } in self.table.rows() {
            for (sum, count) in total.iter_mut().zip(counters) {
                *sum = sum.wrapping_add(count);
            }
            let Some(entry) = owner.filter(|entry| living(entry.pid)) else { continue };
            held += holds;
            let mesh = mesh.filter(|_| entry.seat.generation == self.me.seat.generation);
            let inbox = mesh.map(|mesh| mesh.unread(usize::from(entry.seat.worker.0)));
            workers.push(Seated { entry, counters: own, held: holds, inbox });
        }
        workers.sort_by_key(|row| {
            let seat = row.entry.seat;
            (std::cmp::Reverse(seat.generation.0), seat.worker.0)
        });
        let mut names = self.retained_names();
        names.sort_unstable();
        Report {
            me: self.me,
            current: (newest.0, configured),
            workers,
            total,
            held,
            rings: mesh.map(|mesh| {
                (mesh.ring_bytes(), mesh.ring_bytes() * mesh.workers() * mesh.workers())
            }),
            limits: (self.limits.queue, self.limits.message),
            retained: Retained {
                sequence: self.retained.sequence(),
                values: self.retained.len(),
                used: self.retained.bytes_used(),
                size: self.retained.capacity(),
                names,
            },
        }
    }
}

/// One of the counters.
pub fn of(counters: &[u64; COUNTERS], counter: Counter) -> u64 {
    counters.get(counter as usize).copied().unwrap_or_default()
}
