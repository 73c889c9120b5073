//! The casts from above that ran in this node, whichever of its workers was the router then: none
//! runs twice. Decides nothing about casts; `modules::cluster` asks it.
//!
//! A cast has a few cells in which it may lie, of which each new one takes the oldest, by turns. A cell
//! says in which turn it was filled. Who finds it filled in this one, or changed under it, looks again, so
//! of two that note one cast at a time one finds it noted.

use super::Shared;
use super::atomic::{AtomicU64, Ordering};
use crate::proto::cluster::cast::CastId;

const BUCKETS: usize = if cfg!(loom) { 1 } else { 256 };
const CELLS: usize = if cfg!(loom) { 2 } else { 15 };
/// What a cell has of the turn's number.
const TURN: u64 = 0xffff;

#[repr(C, align(128))] // as in `slots`
struct Bucket {
    /// Counts up; modulo the number of cells, the oldest.
    turn: AtomicU64,
    /// A part of each cast's id, and the turn; 0 is none.
    cells: [AtomicU64; CELLS],
}

/// The table; zeroed memory is an empty one.
#[repr(C)]
pub struct Casts {
    buckets: [Bucket; BUCKETS],
}

// SAFETY: atomics only, repr(C).
unsafe impl Shared for Casts {}

impl Casts {
    /// Bytes that the table takes.
    pub const SIZE: usize = size_of::<Casts>();

    /// Notes a cast. False where it ran here already: it is not run again. One that is killed in here
    /// has not run it, and may leave it noted or not.
    pub fn note(&self, CastId(id): CastId) -> bool {
        // random bytes: some choose the bucket, others tell the casts in it apart
        let id = u128::from_be_bytes(id);
        let key = ((id >> 64) as u64 & !TURN).max(TURN + 1);
        let Some(bucket) = self.buckets.get(id as usize % BUCKETS) else { return true };
        loop {
            let turn = bucket.turn.load(Ordering::Acquire); // pairs with the last exchange
            let Some(cell) = bucket.cells.get(turn as usize % CELLS) else { return true };
            let oldest = cell.load(Ordering::Relaxed);
            if bucket.cells.iter().any(|cell| cell.load(Ordering::Relaxed) & !TURN == key) {
                return false;
            }
            let filled = key | turn & TURN;
            let is_filled = oldest != 0 && oldest & TURN == turn & TURN;
            let (order, seen) = (Ordering::Relaxed, Ordering::Relaxed);
            let is_noted = !is_filled && cell.compare_exchange(oldest, filled, order, seen).is_ok();
            let next = turn.wrapping_add(1);
            // whoever sees the next turn sees what fills this one's cell
            let _ = bucket.turn.compare_exchange(turn, next, Ordering::Release, Ordering::Relaxed);
            if is_noted {
                return true;
            }
        }
    }
}

#[cfg(loom)]
impl Casts {
    /// An empty one.
    pub fn new() -> Casts {
        let cell = || AtomicU64::new(0);
        let bucket = || Bucket { turn: cell(), cells: std::array::from_fn(|_| cell()) };
        Casts { buckets: std::array::from_fn(|_| bucket()) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::{Word, at};

    fn id(n: u64) -> CastId {
        CastId((u128::from(n + 1) << 80 | u128::from(n)).to_be_bytes())
    }

    fn with(f: impl FnOnce(&Casts)) {
        let memory: Vec<Word> = (0..Casts::SIZE / 8 + 16).map(|_| Word::new(0)).collect();
        let skip = memory.as_ptr().cast::<u8>().align_offset(128) / 8;
        f(at(&memory[skip..]).unwrap());
    }

    #[test]
    fn a_cast_runs_once_until_many_others_have() {
        with(|casts| {
            let all = (BUCKETS * CELLS) as u64;
            for n in 0..all {
                assert!(casts.note(id(n)));
                assert!(!casts.note(id(n)));
            }
            assert!((0..all).all(|n| !casts.note(id(n))), "all that it has cells for");
            assert!(casts.note(id(all)), "one more");
            assert!(!casts.note(id(1)));
            assert!(casts.note(id(0)), "the oldest is forgotten");
        });
    }

    #[test]
    fn of_many_at_a_time_one_may_run_it() {
        with(|casts| {
            let run = || (0..2000).filter(|n| casts.note(id(*n))).count();
            let ran: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(ran, 2000);
        });
    }
}
