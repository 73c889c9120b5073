//! Which peers have failed, for all workers of a node: a row per peer, found by a number made of
//! its upstream and itself. `proto::upstream::failures` says what a row means.
//!
//! The table is as large as it is. A row that is needed while all its places are taken is that of
//! the peer that has not failed for longest; a worker that counts for that one at the very moment
//! counts for the other, once.

use super::Shared;
use super::atomic::{AtomicU64, Ordering};
use crate::proto::upstream::failures::{Policy, Record};

/// Rows; a power of two.
const ROWS: usize = if cfg!(loom) { 2 } else { 1024 };
/// Places where a peer's row may be.
const PLACES: usize = if cfg!(loom) { 2 } else { 8 };

#[repr(C)]
struct Row {
    /// 0 is a free row.
    peer: AtomicU64,
    record: AtomicU64,
}

// SAFETY: atomics only, repr(C).
unsafe impl Shared for Row {}

/// The table; zeroed memory is an empty one.
#[repr(C)]
pub struct Failures {
    rows: [Row; ROWS],
}

// SAFETY: atomics only, repr(C).
unsafe impl Shared for Failures {}

impl Failures {
    /// Bytes that the table takes.
    pub const SIZE: usize = size_of::<Failures>();

    /// Whether `peer` is to be passed over at second `now`.
    pub fn is_failed(&self, peer: u64, policy: Policy, now: u64) -> bool {
        self.find(peer).is_some_and(|row| row.record().is_failed(policy, now))
    }

    /// How often `peer` has failed lately.
    pub fn fails(&self, peer: u64) -> u16 {
        self.find(peer).map_or(0, |row| row.record().fails())
    }

    /// `peer` is taken.
    pub fn taken(&self, peer: u64, policy: Policy, now: u64) {
        if let Some(row) = self.find(peer) {
            row.change(|record| record.taken(policy, now));
        }
    }

    /// `peer` failed. True when that made it a failed one.
    pub fn failed(&self, peer: u64, policy: Policy, now: u64) -> bool {
        let mut news = false;
        if let Some(row) = self.find(peer).or_else(|| self.claim(peer, now)) {
            row.change(|record| {
                let (record, failed) = record.failed(policy, now);
                news = failed;
                record
            });
        }
        news
    }

    /// `peer` did well.
    pub fn succeeded(&self, peer: u64) {
        if let Some(row) = self.find(peer) {
            row.change(Record::succeeded);
        }
    }

    fn places(&self, peer: u64) -> impl Iterator<Item = &Row> {
        let start = peer as usize;
        (0..PLACES).filter_map(move |n| self.rows.get(start.wrapping_add(n) % ROWS))
    }

    fn find(&self, peer: u64) -> Option<&Row> {
        // pairs with the CAS in claim(): the row's record is not the predecessor's
        self.places(peer).find(|row| row.peer.load(Ordering::Acquire) == key(peer))
    }

    fn claim(&self, peer: u64, now: u64) -> Option<&Row> {
        let take = |row: &Row, from| {
            let (got, gone) = (Ordering::AcqRel, Ordering::Acquire);
            match row.peer.compare_exchange(from, key(peer), got, gone) {
                Ok(_) => true,
                // another worker has counted the same peer just now
                Err(found) => found == key(peer),
            }
        };
        if let Some(free) = self.places(peer).find(|row| take(row, 0)) {
            return Some(free);
        }
        let oldest = self.places(peer).max_by_key(|row| row.record().age(now))?;
        let from = oldest.peer.load(Ordering::Acquire);
        if !take(oldest, from) {
            return None;
        }
        if from != key(peer) {
            oldest.record.store(0, Ordering::Relaxed); // a counter; orders nothing
        }
        Some(oldest)
    }
}

/// 0 stands for none.
fn key(peer: u64) -> u64 {
    peer.max(1)
}

impl Row {
    fn record(&self) -> Record {
        Record::unpack(self.record.load(Ordering::Relaxed)) // one word; orders nothing
    }

    fn change(&self, mut change: impl FnMut(Record) -> Record) {
        let mut word = self.record.load(Ordering::Relaxed);
        loop {
            let next = change(Record::unpack(word)).pack();
            if next == word {
                return;
            }
            let (done, lost) = (Ordering::Relaxed, Ordering::Relaxed);
            match self.record.compare_exchange(word, next, done, lost) {
                Ok(_) => return,
                Err(found) => word = found,
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::{Word, at};
    use proptest::prelude::*;
    use std::collections::HashMap;

    const POLICY: Policy = Policy { max_fails: 2, fail_timeout: 10 };

    fn memory() -> Vec<Word> {
        (0..Failures::SIZE / 8).map(|_| Word::new(0)).collect()
    }

    proptest! {
        /// Few peers: as if each had a record of its own.
        #[test]
        fn each_peer_has_its_record(steps in prop::collection::vec((1u64..7, 0u8..3, 0u64..8), 1..100)) {
            let memory = memory();
            let table: &Failures = at(&memory).unwrap();
            let mut model: HashMap<u64, Record> = HashMap::new();
            let mut now = 1000;
            for (peer, step, seconds) in steps {
                now += seconds;
                let record = model.entry(peer).or_default();
                match step {
                    0 => {
                        let (next, news) = record.failed(POLICY, now);
                        *record = next;
                        prop_assert_eq!(table.failed(peer, POLICY, now), news);
                    }
                    1 => { *record = record.taken(POLICY, now); table.taken(peer, POLICY, now) }
                    _ => { *record = record.succeeded(); table.succeeded(peer) }
                }
                for (peer, record) in &model {
                    prop_assert_eq!(table.is_failed(*peer, POLICY, now), record.is_failed(POLICY, now));
                }
            }
        }

        #[test]
        fn any_memory_is_read_without_harm(words in prop::collection::vec(any::<u64>(), 64), peer in any::<u64>(), now in any::<u64>()) {
            let memory: Vec<Word> = (0..Failures::SIZE / 8).map(|n| Word::new(words[n % 64])).collect();
            let table: &Failures = at(&memory).unwrap();
            table.failed(peer, POLICY, now);
            table.taken(peer, POLICY, now);
            table.succeeded(peer);
            table.is_failed(peer, POLICY, now);
        }
    }

    #[test]
    fn the_longest_forgotten_makes_room() {
        let memory = memory();
        let table: &Failures = at(&memory).unwrap();
        let once = Policy { max_fails: 1, fail_timeout: 100 };
        let peers: Vec<u64> = (0..=PLACES as u64).map(|n| 7 + n * ROWS as u64).collect();
        for (peer, now) in peers.iter().zip(0..) {
            table.failed(*peer, once, now);
        }
        let failed = |peer: &&u64| table.is_failed(**peer, once, 20);
        assert_eq!(
            peers.iter().filter(failed).collect::<Vec<_>>(),
            peers[1..].iter().collect::<Vec<_>>()
        );
    }

    #[test]
    fn workers_count_together() {
        let memory = memory();
        let table: &Failures = at(&memory).unwrap();
        let each = if cfg!(miri) { 20 } else { 1000 };
        let many = Policy { max_fails: 4 * each, fail_timeout: 10 };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..each).for_each(|_| {
                        table.failed(5, many, 1);
                    })
                });
            }
        });
        assert!(table.is_failed(5, many, 1));
        assert!(!table.is_failed(5, Policy { max_fails: 4 * each + 1, ..many }, 1));
    }
}
