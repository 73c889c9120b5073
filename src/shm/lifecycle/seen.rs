//! The last sequence number that each worker's receiver has seen of each retained name: a small
//! hash table of slot and name. A worker writes its own cells only; anybody reads.

use super::super::Shared;
use super::super::atomic::{AtomicU64, Ordering};
use super::Life;

/// How many are kept, of all workers together.
pub const CELLS: usize = if cfg!(loom) { 4 } else { 2048 };
/// Cells that one may be found in.
const NEAR: usize = if cfg!(loom) { 2 } else { 32 };
const HASH_BITS: u32 = 52;

#[repr(C)]
pub(super) struct Cell {
    /// Slot from 1, then the name's hash; 0 free.
    key: AtomicU64,
    sequence: AtomicU64,
}

// SAFETY: atomics only, repr(C).
unsafe impl Shared for Cell {}

/// FNV-1a, then mixed so that all bits count.
fn hash(name: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325, step);
    (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - HASH_BITS)
}

fn key(slot: usize, name: &[u8]) -> u64 {
    (slot as u64 + 1) << HASH_BITS | hash(name)
}

impl Life {
    fn near(&self, key: u64) -> impl Iterator<Item = &Cell> {
        let start = (key ^ key >> HASH_BITS << 7) as usize % CELLS;
        (start..start + NEAR).filter_map(|at| self.seen.get(at % CELLS))
    }

    /// The owner of a slot has seen everything of that name up to a number. False where no cell is
    /// free: then nobody will know.
    pub fn saw(&self, slot: usize, name: &[u8], sequence: u64) -> bool {
        let key = key(slot, name);
        let found = self.near(key).find(|cell| cell.key.load(Ordering::Relaxed) == key);
        let cell = found.or_else(|| {
            self.near(key).find(|cell| {
                // the number is 0 as forget() left it; pairs with it
                let free = cell.key.load(Ordering::Relaxed) == 0;
                let (got, not) = (Ordering::Acquire, Ordering::Relaxed);
                free && cell.key.compare_exchange(0, key, got, not).is_ok()
            })
        });
        let Some(cell) = cell else { return false };
        if sequence > cell.sequence.load(Ordering::Relaxed) {
            cell.sequence.store(sequence, Ordering::Relaxed);
        }
        true
    }

    /// What the worker in a slot has seen of a name; None where it does not listen to it.
    pub fn last_seen(&self, slot: usize, name: &[u8]) -> Option<u64> {
        let key = key(slot, name);
        let cell = self.near(key).find(|cell| cell.key.load(Ordering::Relaxed) == key)?;
        Some(cell.sequence.load(Ordering::Relaxed))
    }

    /// A new worker in a slot has seen nothing.
    pub fn forget(&self, slot: usize) {
        for cell in &self.seen {
            if cell.key.load(Ordering::Relaxed) >> HASH_BITS == slot as u64 + 1 {
                cell.sequence.store(0, Ordering::Relaxed);
                cell.key.store(0, Ordering::Release); // pairs with saw()
            }
        }
    }
}
