//! The two locks. One for a few stores (`shm::lock`): who finds the owner dead finishes its work
//! first. One for callbacks, which may take long: the word a waiter sleeps on (`ngx::process`), and a
//! dead holder is passed over.

use super::super::atomic::Ordering;
use super::super::lock;
use super::{Busy, Handle, Life};
use crate::proto::ipc::Pid;

impl<A: Fn(Pid) -> bool> Handle<'_, A> {
    /// Runs `change` as the only one who changes anything.
    pub(super) fn locked<T>(&self, change: impl FnOnce() -> T) -> Result<T, Busy> {
        let me = lock::identity(self.me).ok_or(Busy)?;
        let seized = lock::seize(&self.life.lock, me, &self.alive).map_err(|_| Busy)?;
        self.finish(); // what a dead owner had begun
        let result = change();
        seized.release();
        Ok(result)
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
