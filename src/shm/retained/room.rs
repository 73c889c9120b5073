//! Which granules are taken. The truth is in the chains and in the holds: a granule is in use
//! when a linked block covers it, or what a living process holds. The bitmap and the counts only
//! remember that, and `repair` finds it out anew. All of it under the lock.

use super::Retained;
use super::atomic::{AtomicU64, Ordering, fence};
use super::block::Block;
use super::lock::{NOBODY, put};
use super::region::{CHUNK_GRANULES, CLASSES, HOLD};
use crate::proto::ipc::Pid;

/// Granules in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub at: usize,
    pub granules: usize,
}

impl Extent {
    pub fn of(block: Block<'_>) -> Self {
        Extent { at: block.at, granules: block.shape().granules() }
    }

    fn pack(self) -> u64 {
        (self.at as u64) << 32 | self.granules as u64
    }

    pub fn unpack(word: u64) -> Self {
        Extent { at: (word >> 32) as usize, granules: (word & 0xffff_ffff) as usize }
    }

    /// Chunks it touches, and which of their granules.
    fn masks(self) -> impl Iterator<Item = (usize, u64)> {
        let end = self.at + self.granules;
        (self.at / CHUNK_GRANULES..end.div_ceil(CHUNK_GRANULES)).map(move |chunk| {
            let start = chunk * CHUNK_GRANULES;
            let from = self.at.saturating_sub(start);
            let to = (end - start).min(CHUNK_GRANULES);
            (chunk, (u64::MAX >> (64 - (to - from).max(1))) << from)
        })
    }
}

/// The class of a length.
fn class(granules: usize) -> usize {
    (granules.next_power_of_two().trailing_zeros() as usize).min(CLASSES - 1)
}

/// The least length of a class.
fn least(class: usize) -> usize {
    (1 << class) / 2 + 1
}

impl<'m, A: Fn(Pid) -> bool> Retained<'m, A> {
    /// A free extent of that length: the one that became free last, so that values which are set
    /// again and again stay where they are, else the first.
    fn find_free(&self, granules: usize) -> Option<Extent> {
        let spare = self.region.spares.get(class(granules))?.load(Ordering::Relaxed) as usize;
        let spare = Extent { at: spare, granules };
        if self.is_free(spare) { Some(spare) } else { self.find_first(granules) }
    }

    fn find_first(&self, granules: usize) -> Option<Extent> {
        let all = self.region.granules();
        let hint = self.region.hints.get(class(granules))?;
        let mut at = (hint.load(Ordering::Relaxed) as usize).min(all);
        // the free run that ends at `at`, and the first run that others of the class may want
        let (mut start, mut lowest) = (at, None);
        while at < all && at - start < granules {
            let word = self.region.taken.get(at / CHUNK_GRANULES)?.load(Ordering::Relaxed);
            let bits = word >> (at % CHUNK_GRANULES);
            let left = CHUNK_GRANULES - at % CHUNK_GRANULES;
            if bits & 1 == 0 {
                at += left.min(bits.trailing_zeros() as usize);
            } else {
                if at - start >= least(class(granules)) {
                    lowest = lowest.or(Some(start));
                }
                at += left.min(bits.trailing_ones() as usize);
                start = at;
            }
        }
        let found = (at - start >= granules).then_some(Extent { at: start, granules });
        let next = found.map_or(start, |found| found.at + found.granules);
        put(hint, lowest.unwrap_or(next) as u64, Ordering::Relaxed);
        found
    }

    /// Lets the classes know of a free extent, with what is free beside it in its chunks.
    fn hint(&self, extent: Extent) {
        let word = |granule: usize| {
            let word = self.region.taken.get(granule / CHUNK_GRANULES);
            word.map_or(u64::MAX, |word| word.load(Ordering::Relaxed))
        };
        let before = extent.at.checked_sub(1).map_or(0, |last| {
            let skip = last % CHUNK_GRANULES;
            (word(last) << (63 - skip)).leading_zeros().min(skip as u32 + 1) as usize
        });
        let end = extent.at + extent.granules;
        let after = match end % CHUNK_GRANULES {
            0 => 0,
            skip => {
                (word(end) >> skip).trailing_zeros().min((CHUNK_GRANULES - skip) as u32) as usize
            }
        };
        let (start, length) = (extent.at - before, before + extent.granules + after);
        for (class, hint) in self.region.hints.iter().enumerate() {
            if least(class) <= length && hint.load(Ordering::Relaxed) > start as u64 {
                put(hint, start as u64, Ordering::Relaxed);
            }
        }
    }

    /// Marks an extent; `used` counts the granules that were not marked so before.
    pub(super) fn mark(&self, extent: Extent, taken: bool) {
        let mut used = self.region.used.load(Ordering::Relaxed);
        for (chunk, mask) in extent.masks() {
            let Some(word) = self.region.taken.get(chunk) else { break };
            let before = word.load(Ordering::Relaxed);
            let after = if taken { before | mask } else { before & !mask };
            let changed = u64::from((before ^ after).count_ones());
            used = if taken { used.wrapping_add(changed) } else { used.saturating_sub(changed) };
            put(word, after, Ordering::Relaxed);
        }
        put(self.region.used, used, Ordering::Relaxed);
    }

    pub(super) fn inside(&self, extent: Extent) -> bool {
        let all = self.region.granules();
        extent.granules > 0 && extent.at <= all && extent.granules <= all - extent.at
    }

    pub(super) fn is_free(&self, extent: Extent) -> bool {
        let free = |(chunk, mask): (usize, u64)| {
            self.region.taken.get(chunk).is_some_and(|w| w.load(Ordering::Relaxed) & mask == 0)
        };
        self.inside(extent) && extent.masks().all(free)
    }

    /// Takes free granules, after those of the dead if there is no room without.
    pub(super) fn take(&self, granules: usize) -> Option<Extent> {
        let extent = self.find_free(granules).or_else(|| {
            self.collect();
            self.find_free(granules)
        })?;
        self.mark(extent, true);
        // Pairs with the fence of still(): what is written here from now on is read by nobody who
        // does not also see that the block which was here has left its chain.
        fence(Ordering::Release);
        Some(extent)
    }

    /// Frees what left its chain or never was in one, unless somebody still holds it.
    pub(super) fn free(&self, extent: Extent) {
        let held = self.holds().any(|(who, what)| {
            who.load(Ordering::Relaxed) != 0
                && Extent::unpack(what.load(Ordering::Relaxed)).at == extent.at
        });
        if !held && self.inside(extent) {
            self.mark(extent, false);
            self.hint(extent);
            if let Some(spare) = self.region.spares.get(class(extent.granules)) {
                put(spare, extent.at as u64, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn holds(
        &self,
    ) -> impl Iterator<Item = (&'m AtomicU64, &'m AtomicU64)> + use<'m, A> {
        self.region.holds.chunks_exact(HOLD).filter_map(|hold| match hold {
            [who, what] => Some((who, what)),
            _ => None,
        })
    }

    /// Keeps an extent for this process while it copies. False where every hold is in use.
    pub(super) fn hold(&self, extent: Extent) -> bool {
        let free = || self.holds().find(|(who, _)| who.load(Ordering::Relaxed) == 0);
        let hold = free().or_else(|| {
            self.collect();
            free()
        });
        if let Some((who, what)) = hold {
            put(what, extent.pack(), Ordering::Relaxed);
            put(who, self.me, Ordering::Relaxed);
        }
        hold.is_some()
    }

    /// Ends this process's hold of an extent, without freeing it. False where it had none: somebody
    /// took it for dead.
    pub(super) fn let_go(&self, extent: Extent) -> bool {
        let mine = self.own_hold(extent);
        if let Some(who) = mine {
            put(who, 0, Ordering::Relaxed);
        }
        mine.is_some()
    }

    /// Leaves this process's hold of an extent to whoever is short of room: for one who cannot have
    /// the lock. Nobody else changes the word while its process lives.
    pub(super) fn abandon(&self, extent: Extent) {
        if let Some(who) = self.own_hold(extent) {
            // pairs with drop_holds() and repair(): my copy ends before another's begins
            put(who, NOBODY, Ordering::Release);
        }
    }

    fn own_hold(&self, extent: Extent) -> Option<&'m AtomicU64> {
        let mut holds = self.holds().filter(|(who, _)| who.load(Ordering::Relaxed) == self.me);
        holds.find(|(_, what)| what.load(Ordering::Relaxed) == extent.pack()).map(|(who, _)| who)
    }

    /// Ends every hold that is this process's own, from a call that did not end.
    pub(super) fn forget(&self) {
        self.drop_holds(|who| who == self.me);
    }

    /// Ends the holds of dead processes.
    pub(super) fn collect(&self) {
        self.drop_holds(|who| !self.lives(who));
        self.region.hints.iter().for_each(|hint| put(hint, 0, Ordering::Relaxed));
    }

    fn drop_holds(&self, over: impl Fn(u64) -> bool) {
        for (who, what) in self.holds() {
            let owner = who.load(Ordering::Acquire); // pairs with abandon()
            if owner != 0 && over(owner) {
                let extent = Extent::unpack(what.load(Ordering::Relaxed));
                put(who, 0, Ordering::Relaxed);
                if !self.is_linked(extent.at) {
                    self.free(extent);
                }
            }
        }
    }

    /// Whether a block begins there that a chain leads to.
    pub(super) fn is_linked(&self, at: usize) -> bool {
        let bucket = self.region.block(at).and_then(|block| self.region.bucket(block.hash()));
        bucket.is_some_and(|bucket| self.region.chain(bucket).any(|block| block.at == at))
    }
}
