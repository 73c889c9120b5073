//! The one lock of the writers: a word that carries its owner's process id, so that a dead owner is
//! found and passed over. Who passes one over repairs what it may have left half done. The owner
//! moves links and bits; it never copies a value.

use super::atomic::{Ordering, pause};
use super::region::put;
use super::{Busy, Retained};
use crate::proto::ipc::Pid;

const PID_BITS: u32 = 22; // Linux: PID_MAX_LIMIT is 4 Mi
const PID: u64 = (1 << PID_BITS) - 1;
/// In the place of a process id: nobody, and dead.
pub const NOBODY: u64 = PID + 1;
/// How often a process looks at the lock before it gives up: some milliseconds, where a critical
/// section takes less than a microsecond, a repair some nanoseconds for each granule.
const ROUNDS: u32 = if cfg!(loom) { 4 } else { 16384 };
/// Every so many rounds it asks whether the owner lives.
const ASK: u32 = if cfg!(loom) { 2 } else { 64 };

/// How a process is written into shared memory; None for what cannot be one.
pub fn identity(pid: Pid) -> Option<u64> {
    Some(u64::from(pid.0)).filter(|pid| *pid != 0 && *pid <= PID)
}

impl<A: Fn(Pid) -> bool> Retained<'_, A> {
    /// Runs `change` as the only one who changes anything but his own reserved blocks.
    pub(super) fn locked<T>(&self, change: impl FnOnce() -> T) -> Result<T, Busy> {
        let mine = self.seize()?;
        let result = change();
        // pairs with seize(); where somebody took me for dead, the word is his
        #[cfg(all(test, not(loom)))]
        super::tests::fuse::burn();
        let _ = self.region.lock.compare_exchange(
            mine,
            mine & !PID,
            Ordering::Release,
            Ordering::Relaxed,
        );
        Ok(result)
    }

    fn seize(&self) -> Result<u64, Busy> {
        for round in 1..=ROUNDS {
            let word = self.region.lock.load(Ordering::Relaxed);
            let owner = word & PID;
            // My own id is that of a predecessor or of a call that did not end: nobody holds the
            // lock while he asks for it.
            let dead = owner != 0 && (owner == self.me || round % ASK == 0 && !self.lives(owner));
            if owner == 0 || dead {
                // the turn differs each time, so that nobody takes a new owner for one seen dead
                let turn = (word >> PID_BITS).wrapping_add(1);
                let mine = turn << PID_BITS | self.me;
                #[cfg(all(test, not(loom)))]
                super::tests::fuse::burn();
                // Pairs with the release in locked(). A dead owner released nothing, but what it
                // wrote is there: the kernel put its end before the answer that it is gone.
                let seized = self.region.lock.compare_exchange(
                    word,
                    mine,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                );
                if seized.is_ok() {
                    if dead {
                        self.repair();
                    }
                    return Ok(mine);
                }
            }
            pause(round > ASK);
        }
        Err(Busy)
    }

    /// Whether a process that shared memory names lives.
    pub(super) fn lives(&self, identity: u64) -> bool {
        identity == self.me
            || identity != 0 && identity <= PID && (self.alive)(Pid(identity as u32))
    }

    /// Gives out the next sequence number. Lock held.
    pub(super) fn next_sequence(&self) -> u64 {
        let next = self.region.sequence.load(Ordering::Relaxed).wrapping_add(1);
        put(self.region.sequence, next, Ordering::Relaxed);
        next
    }
}
