//! A lock in shared memory: a word that carries its owner's process id, so that a dead owner is
//! found and passed over. Who passes one over must repair what it may have left half done. The owner
//! moves numbers and bits; it never copies a user's data. Used by `retained`, `peers` and
//! `lifecycle`.

use plain::{AtomicU64, Ordering, pause};

use crate::proto::ipc::Pid;

/// The atomics without the simulator's watch, or loom's.
pub mod plain {
    #[cfg(loom)]
    pub use loom::sync::atomic::{AtomicU64, Ordering, fence};
    #[cfg(not(loom))]
    pub use std::sync::atomic::{AtomicU64, Ordering, fence};

    /// Lets another thread or process come forward.
    pub fn pause(long: bool) {
        #[cfg(loom)]
        loom::thread::yield_now();
        #[cfg(not(loom))]
        if long {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
        #[cfg(loom)]
        let _ = long;
    }
}

const PID_BITS: u32 = 22; // Linux: PID_MAX_LIMIT is 4 Mi
const PID: u64 = (1 << PID_BITS) - 1;
/// In the place of a process id: nobody, and dead.
pub const NOBODY: u64 = PID + 1;
/// How often a process looks at the lock before it gives up: some milliseconds, where a critical
/// section takes less than a microsecond, a repair some nanoseconds for each granule.
const ROUNDS: u32 = if cfg!(loom) { 4 } else { 16384 };
/// Every so many rounds it asks whether the owner lives.
const ASK: u32 = if cfg!(loom) { 2 } else { 64 };

/// The lock's owner lives and does not let go: come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locked;

/// A lock that was got.
pub struct Seized<'m> {
    word: &'m AtomicU64,
    mine: u64,
    /// The last owner died with it: repair first.
    pub dead: bool,
}

/// How a process is written into shared memory; None for what cannot be one.
pub fn identity(pid: Pid) -> Option<u64> {
    Some(u64::from(pid.0)).filter(|pid| *pid != 0 && *pid <= PID)
}

/// Whether a process that shared memory names lives.
pub fn lives(identity: u64, me: u64, alive: impl Fn(Pid) -> bool) -> bool {
    identity == me || identity != 0 && identity <= PID && alive(Pid(identity as u32))
}

/// Gets the lock for `me`, an identity.
pub fn seize<'m>(
    word: &'m AtomicU64,
    me: u64,
    alive: impl Fn(Pid) -> bool,
) -> Result<Seized<'m>, Locked> {
    for round in 1..=ROUNDS {
        let seen = word.load(Ordering::Relaxed);
        let owner = seen & PID;
        // My own id is that of a predecessor or of a call that did not end: nobody holds the
        // lock while he asks for it.
        let dead = owner != 0 && (owner == me || round % ASK == 0 && !lives(owner, me, &alive));
        if owner == 0 || dead {
            // the turn differs each time, so that nobody takes a new owner for one seen dead
            let turn = (seen >> PID_BITS).wrapping_add(1);
            let mine = turn << PID_BITS | me;
            #[cfg(all(test, not(loom)))]
            fuse::burn();
            // Pairs with the release below. A dead owner released nothing, but what it wrote is
            // there: the kernel put its end before the answer that it is gone.
            let seized = word.compare_exchange(seen, mine, Ordering::Acquire, Ordering::Relaxed);
            if seized.is_ok() {
                return Ok(Seized { word, mine, dead });
            }
        }
        pause(round > ASK);
    }
    Err(Locked)
}

impl Seized<'_> {
    /// Lets go. Not on drop: what a panic left half done the next one repairs.
    pub fn release(self) {
        // pairs with seize(); where somebody took me for dead, the word is his
        #[cfg(all(test, not(loom)))]
        fuse::burn();
        let _ = self.word.compare_exchange(
            self.mine,
            self.mine & !PID,
            Ordering::Release,
            Ordering::Relaxed,
        );
    }
}

/// A store that another process may see. The tests can end a process before each of them.
pub fn put(word: &AtomicU64, value: u64, order: Ordering) {
    #[cfg(all(test, not(loom)))]
    fuse::burn();
    word.store(value, order);
}

/// Ends the calling thread's process, as far as shared memory is concerned, before its n-th store.
#[cfg(all(test, not(loom)))]
pub mod fuse {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    thread_local!(static LEFT: Cell<Option<u64>> = const { Cell::new(None) });

    struct Killed;

    pub fn burn() {
        LEFT.with(|left| match left.get() {
            Some(0) => {
                left.set(None);
                resume_unwind(Box::new(Killed)) // past every instruction to come; we have no guards
            }
            Some(n) => left.set(Some(n - 1)),
            None => {}
        });
    }

    /// Runs `f` up to its store number `n`; None where it was killed there.
    pub fn until<T>(n: u64, f: impl FnOnce() -> T) -> Option<T> {
        LEFT.with(|left| left.set(Some(n)));
        let result = catch_unwind(AssertUnwindSafe(f));
        LEFT.with(|left| left.set(None));
        match result {
            Ok(value) => Some(value),
            Err(what) if what.is::<Killed>() => None,
            Err(what) => resume_unwind(what),
        }
    }
}
