//! The two locks. One for a few stores, a word with the owner's process id and a turn: who finds
//! the owner dead finishes its work first. One for callbacks, which may take long: the word a waiter
//! sleeps on (`ngx::process`), and a dead holder is passed over.

use super::super::atomic::Ordering;
use super::{Busy, Handle, Life};
use crate::proto::ipc::Pid;

const PID_BITS: u32 = 22; // Linux: PID_MAX_LIMIT is 4 Mi
const PID: u64 = (1 << PID_BITS) - 1;
/// How often a process looks before it gives up: some milliseconds, where the lock is held for less
/// than a microsecond.
const ROUNDS: u32 = if cfg!(loom) { 4 } else { 16384 };
/// Every so many rounds it asks whether the owner lives.
const ASK: u32 = if cfg!(loom) { 2 } else { 64 };

impl<A: Fn(Pid) -> bool> Handle<'_, A> {
    /// Runs `change` as the only one who changes anything.
    pub(super) fn locked<T>(&self, change: impl FnOnce() -> T) -> Result<T, Busy> {
        let mine = self.seize().ok_or(Busy)?;
        self.finish(); // what a dead owner had begun
        let result = change();
        let free = mine & !PID;
        // pairs with seize(); where somebody took me for dead, the word is his
        let _ = self.life.lock.compare_exchange(mine, free, Ordering::Release, Ordering::Relaxed);
        Ok(result)
    }

    fn seize(&self) -> Option<u64> {
        let me = u64::from(self.me.0) & PID;
        (1..=ROUNDS).find_map(|round| {
            let word = self.life.lock.load(Ordering::Relaxed);
            let owner = word & PID;
            // my own id is that of a predecessor: a process asks for the lock only when it has none
            let gone = owner == me || round % ASK == 0 && !(self.alive)(Pid(owner as u32));
            if owner != 0 && !gone {
                if round % ASK == 0 {
                    std::thread::yield_now()
                } else {
                    std::hint::spin_loop()
                }
                return None;
            }
            // the turn differs each time, so that nobody takes a new owner for one seen dead
            let mine = (word >> PID_BITS).wrapping_add(1) << PID_BITS | me;
            // Pairs with the release in locked(). A dead owner released nothing, but what it wrote
            // is there: the kernel put its end before the answer that it is gone.
            let seized =
                self.life.lock.compare_exchange(word, mine, Ordering::Acquire, Ordering::Relaxed);
            seized.ok().map(|_| mine)
        })
    }

    /// Takes the lock for callbacks, where nobody who lives has it: Err tells who does.
    pub fn hold(&self) -> Result<(), Pid> {
        let word = &self.life.callback;
        let me = self.me.0;
        // one compare-and-swap may meet another's; more than a few mean that there are others
        for _ in 0..8 {
            let owner = word.load(Ordering::Relaxed);
            if owner != 0 && owner != me && (self.alive)(Pid(owner)) {
                return Err(Pid(owner));
            }
            // pairs with let_go()
            if word.compare_exchange(owner, me, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Ok(());
            }
        }
        Err(Pid(word.load(Ordering::Relaxed)))
    }

    /// Gives it back; false where this process did not have it.
    pub fn let_go(&self) -> bool {
        // pairs with hold()
        let freed = (Ordering::Release, Ordering::Relaxed);
        self.life.callback.compare_exchange(self.me.0, 0, freed.0, freed.1).is_ok()
    }
}

impl Life {
    /// Who holds the lock for callbacks, by the word.
    pub fn holder(&self) -> Option<Pid> {
        Some(Pid(self.callback.load(Ordering::Relaxed))).filter(|pid| pid.0 != 0)
    }

    /// The word itself, for a process that wants to sleep until it changes.
    #[cfg(not(loom))]
    pub fn callback_word(&self) -> &std::sync::atomic::AtomicU32 {
        let word = std::ptr::from_ref(&self.callback).cast();
        // SAFETY: in tests it is a transparent wrapper around that very type, else it is that type.
        unsafe { &*word }
    }
}
