//! Keys that one living process at a time holds. A dead holder's key is anybody's.

use super::super::Shared;
use super::super::atomic::{AtomicU64, Ordering};
use super::{Busy, Handle, LEASES, Life};
use crate::proto::ipc::Pid;

const WORDS: usize = 8;
/// Longest key, in bytes.
pub const KEY_MAX: usize = WORDS * 8;

/// Why a key is not this process's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another one lives that holds it.
    #[error("held by process {0}")]
    Held(Pid),
    /// All places are taken by keys that are held.
    #[error("no room")]
    NoRoom,
    /// No key has that length.
    #[error("key empty or too long")]
    Key,
    /// Come again.
    #[error("busy")]
    Busy,
}

impl From<Busy> for Refused {
    fn from(Busy: Busy) -> Self {
        Refused::Busy
    }
}

#[repr(C)]
pub(super) struct Lease {
    /// The holder's process id; 0 nobody.
    owner: AtomicU64,
    /// Of the key; 0 no key.
    length: AtomicU64,
    key: [AtomicU64; WORDS],
}

// SAFETY: atomics only, repr(C).
unsafe impl Shared for Lease {}

impl Lease {
    fn owner(&self) -> Option<Pid> {
        // pairs with claim()
        Some(Pid(self.owner.load(Ordering::Acquire) as u32)).filter(|pid| pid.0 != 0)
    }

    fn is(&self, key: &[u8]) -> bool {
        self.length.load(Ordering::Relaxed) == key.len() as u64
            && self.key.iter().zip(words(key)).all(|(a, b)| a.load(Ordering::Relaxed) == b)
    }
}

fn words(key: &[u8]) -> [u64; WORDS] {
    let mut chunks = key.chunks(8);
    [(); WORDS].map(|()| {
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(chunks.next().unwrap_or_default()).for_each(|(to, from)| *to = *from);
        u64::from_le_bytes(bytes)
    })
}

impl<A: Fn(Pid) -> bool> Handle<'_, A> {
    /// This process holds the key from now on, also where it did before.
    pub fn claim(&self, key: &[u8]) -> Result<(), Refused> {
        if key.is_empty() || key.len() > KEY_MAX {
            return Err(Refused::Key);
        }
        self.locked(|| {
            let leases = &self.life.leases;
            let free = |lease: &&Lease| lease.owner().is_none_or(|pid| !(self.alive)(pid));
            let place = match leases.iter().find(|lease| lease.is(key)) {
                Some(lease) => match lease.owner() {
                    Some(pid) if pid != self.me && (self.alive)(pid) => {
                        return Err(Refused::Held(pid));
                    }
                    _ => lease,
                },
                None => leases.iter().find(free).ok_or(Refused::NoRoom)?,
            };
            // killed in between, it is nobody's, and no key's until all of that is written
            place.owner.store(0, Ordering::Relaxed);
            if !place.is(key) {
                place.length.store(0, Ordering::Relaxed);
                for (word, value) in place.key.iter().zip(words(key)) {
                    word.store(value, Ordering::Relaxed);
                }
                place.length.store(key.len() as u64, Ordering::Relaxed);
            }
            place.owner.store(u64::from(self.me.0), Ordering::Release); // pairs with owner()
            Ok(())
        })?
    }

    /// This process holds it no longer; false where it did not.
    pub fn release(&self, key: &[u8]) -> Result<bool, Busy> {
        self.locked(|| self.free(|lease| lease.is(key)) > 0)
    }

    /// It holds none any longer; how many it did.
    pub fn release_all(&self) -> Result<usize, Busy> {
        self.locked(|| self.free(|_| true))
    }

    fn free(&self, which: impl Fn(&Lease) -> bool) -> usize {
        let mine = self.life.leases.iter().filter(|l| l.owner() == Some(self.me) && which(l));
        mine.map(|lease| lease.owner.store(0, Ordering::Release)).count()
    }
}

impl Life {
    /// Who holds a key, by the word of the lease.
    pub fn held(&self, key: &[u8]) -> Option<Pid> {
        self.leases.iter().find(|lease| lease.is(key)).and_then(Lease::owner)
    }

    /// Places for keys.
    pub fn leases(&self) -> usize {
        LEASES
    }
}
