//! How many answers a call still waits for, told to those who answer: only the last one has to wake
//! the caller, who has nothing to do before. A row per worker, in it a word per call, found by the
//! call's number. A word that another call has taken over says nothing: then everybody wakes.
//! Anonymous memory of one generation, as the rings; nothing is lost when it is wrong, since a
//! caller looks at its mail before it gives a call up.

use super::atomic::{AtomicU64, Ordering, store_among_exchanges};
use super::{Word, several};

/// Calls of a worker that are told apart.
const CALLS: usize = if cfg!(loom) { 2 } else { 256 };

/// The tallies of a generation.
#[derive(Clone, Copy)]
pub struct Tallies<'m> {
    words: &'m [AtomicU64],
}

fn word(call: u32, left: u32) -> u64 {
    u64::from(call) << 32 | u64::from(left)
}

impl<'m> Tallies<'m> {
    /// Bytes for so many workers.
    pub fn size(workers: usize) -> usize {
        workers * CALLS * size_of::<AtomicU64>()
    }

    /// Over zeroed memory; None where it is too small.
    pub fn new(memory: &'m [Word], workers: usize) -> Option<Tallies<'m>> {
        Some(Tallies { words: several(memory, workers * CALLS)? })
    }

    fn of(&self, worker: usize, call: u32) -> Option<&AtomicU64> {
        self.words.get(worker * CALLS + call as usize % CALLS)
    }

    /// `worker` is about to send call `call`, which so many others will answer; 0: everybody wakes.
    pub fn begin(&self, worker: usize, call: u32, answers: u32) {
        if let Some(tally) = self.of(worker, call) {
            // the asks that follow carry it to the others
            store_among_exchanges(tally, word(call, answers));
        }
    }

    /// An answer to call `call` of `worker` is in its ring. True: it shall be woken.
    pub fn answered(&self, worker: usize, call: u32) -> bool {
        let Some(tally) = self.of(worker, call) else { return true };
        let mut now = tally.load(Ordering::Relaxed);
        loop {
            let left = now as u32;
            if now >> 32 != u64::from(call) || left == 0 {
                return true;
            }
            // pairs with itself: what the others have put in before is there for whom the last one
            // wakes
            let less = word(call, left - 1);
            match tally.compare_exchange(now, less, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return left == 1,
                Err(changed) => now = changed,
            }
        }
    }
}

#[cfg(loom)]
impl<'m> Tallies<'m> {
    /// Calls of a worker that are told apart.
    pub const CALLS: u32 = CALLS as u32;

    /// Over zeroed words.
    pub fn over(words: &'m [AtomicU64]) -> Tallies<'m> {
        Tallies { words }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn memory(workers: usize) -> Vec<Word> {
        (0..Tallies::size(workers) / 8).map(|_| Word::new(0)).collect()
    }

    #[test]
    fn the_last_answer_wakes() {
        let memory = memory(2);
        let tallies = Tallies::new(&memory, 2).unwrap();
        tallies.begin(1, 7, 3);
        tallies.begin(0, 7, 1);
        assert_eq!([(); 4].map(|()| tallies.answered(1, 7)), [false, false, true, true]);
        assert!(tallies.answered(0, 7));
    }

    #[test]
    fn who_is_not_known_wakes() {
        let memory = memory(1);
        let tallies = Tallies::new(&memory, 1).unwrap();
        assert!(tallies.answered(0, 5));
        tallies.begin(0, 5, 2);
        tallies.begin(0, 5 + CALLS as u32, 2);
        assert!(tallies.answered(0, 5), "another call has the word");
        assert!(!tallies.answered(0, 5 + CALLS as u32));
        assert!(tallies.answered(9, 5), "no such worker");
        tallies.begin(0, 6, 0);
        assert!(tallies.answered(0, 6));
    }
}
