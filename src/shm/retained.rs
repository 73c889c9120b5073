//! Retained values: of each name and key the last value, for workers that start later. A set is one
//! store for those who read; writers take turns by a lock that outlives its owners; readers take
//! none. `modules::ipc` decides what is retained and who hears of it.
//!
//! A set reserves a block (lock), copies into it (no lock), publishes it and frees the old one
//! (lock). A process may be killed before any store: what it reserved goes with its life, what it
//! left half done the next owner of the lock repairs from the chains. Offsets only; whatever else
//! is written there, every number is bounded before it leads anywhere.
#![forbid(unsafe_code)]

mod block;
mod get;
#[cfg(all(test, loom))]
mod loom_tests;
mod region;
mod repair;
mod room;
mod set;
#[cfg(all(test, not(loom)))]
mod tests;

use super::lock::{self, plain as atomic};
use crate::proto::ipc::Pid;
use atomic::{AtomicU64, Ordering};
use block::{Block, Sought};
use region::{GRANULE, Region, WORDS_MIN};

/// Bytes that the memory has at least.
pub const SIZE_MIN: usize = WORDS_MIN * 8;
/// Longest key, in bytes.
pub const KEY_MAX: usize = 1024;

/// The lock's owner lives and does not let go, or all holds are in use: come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("busy")]
pub struct Busy;

/// Why a value was not retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// No free room of that length now. The value that was there is there.
    #[error("no room")]
    NoRoom,
    /// The name is longer than [`NAME_MAX`](crate::proto::ipc::NAME_MAX).
    #[error("name too long")]
    NameTooLong,
    /// The key is longer than [`KEY_MAX`].
    #[error("key too long")]
    KeyTooLong,
    /// Longer than all the room there is.
    #[error("too long")]
    TooLong,
    /// See [`Busy`].
    #[error("busy")]
    Busy,
}

impl From<Busy> for SetError {
    fn from(Busy: Busy) -> Self {
        SetError::Busy
    }
}

/// A value as a visitor gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// All of it.
    pub value: &'a [u8],
    /// When it was set.
    pub sequence: u64,
}

/// What a visit saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Everything up to it was seen: what to ask from the next time.
    pub sequence: u64,
    /// Values were removed since, so every value of the name was visited: keys that were not are
    /// gone.
    pub afresh: bool,
}

/// The retained values, as one process sees them. One thread of a process at a time: what carries
/// its process id and is not of the running call is taken for left over.
pub struct Retained<'m, A> {
    region: Region<'m>,
    me: u64,
    alive: A,
}

impl<'m, A: Fn(Pid) -> bool> Retained<'m, A> {
    /// Marks zeroed memory as empty, before any other process sees it. False where it is too small.
    pub fn init(memory: &[AtomicU64]) -> bool {
        Region::over(memory).map(|region| region.mark()).is_some()
    }

    /// Retained values in memory that [`Retained::init`] marked, at this size and layout. `alive`
    /// tells whether a process lives that has attached to it; a stopped one does. Who says so of a
    /// stranger that got a dead one's process id keeps locked what that one locked.
    pub fn attach(memory: &'m [AtomicU64], pid: Pid, alive: A) -> Option<Self> {
        let region = Region::over(memory).filter(Region::fits)?;
        Some(Retained { region, me: lock::identity(pid)?, alive })
    }

    /// Runs `change` as the only one who changes anything but his own reserved blocks.
    fn locked<T>(&self, change: impl FnOnce() -> T) -> Result<T, Busy> {
        let seized =
            lock::seize(self.region.lock, self.me, &self.alive).map_err(|lock::Locked| Busy)?;
        if seized.dead {
            self.repair();
        }
        let result = change();
        seized.release();
        Ok(result)
    }

    /// Whether a process that shared memory names lives.
    fn lives(&self, identity: u64) -> bool {
        lock::lives(identity, self.me, &self.alive)
    }

    /// Gives out the next sequence number. Lock held.
    fn next_sequence(&self) -> u64 {
        let next = self.region.sequence.load(Ordering::Relaxed).wrapping_add(1);
        lock::put(self.region.sequence, next, Ordering::Relaxed);
        next
    }

    fn find(&self, sought: &Sought<'_>) -> Option<Block<'m>> {
        self.region.chain(self.region.bucket(sought.hash)?).find(|block| block.is(sought))
    }

    /// The last sequence number given out.
    pub fn sequence(&self) -> u64 {
        self.region.sequence.load(Ordering::Relaxed)
    }

    /// How many values are retained.
    pub fn len(&self) -> usize {
        self.region.values.load(Ordering::Relaxed) as usize
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in use: values with their names, keys and headers, and what is being copied.
    pub fn bytes_used(&self) -> usize {
        let used = self.region.used.load(Ordering::Relaxed) as usize;
        used.min(self.region.granules()) * GRANULE * 8
    }

    /// Bytes that can be.
    pub fn capacity(&self) -> usize {
        self.region.granules() * GRANULE * 8
    }
}
