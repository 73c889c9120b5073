//! What the owner of the lock may have left half done when it died: found out anew from the chains and
//! the holds, by the next owner. Chains that somebody scribbled on end where they make no sense.

use super::Retained;
use super::atomic::{AtomicU64, Ordering};
use super::block::{Block, Kind, Sought};
use super::lock::put;
use super::room::Extent;
use crate::proto::ipc::Pid;

impl<A: Fn(Pid) -> bool> Retained<'_, A> {
    /// Makes all that follows from chains and holds anew, after an owner of the lock died.
    ///
    /// May end at any store and be begun again by the next.
    pub(super) fn repair(&self) {
        let region = &self.region;
        region.taken.iter().for_each(|word| put(word, 0, Ordering::Relaxed));
        region.hints.iter().for_each(|hint| put(hint, 0, Ordering::Relaxed));
        [region.used, region.values].iter().for_each(|count| put(count, 0, Ordering::Relaxed));
        region.buckets.iter().for_each(|bucket| self.repair_chain(bucket));
        for (who, what) in self.holds() {
            let extent = Extent::unpack(what.load(Ordering::Relaxed));
            // the load pairs with abandon()
            if self.lives(who.load(Ordering::Acquire)) && self.inside(extent) {
                self.mark(extent, true);
            } else {
                put(who, 0, Ordering::Relaxed);
            }
        }
        region.buckets.iter().for_each(|bucket| self.repair_values(bucket));
        let sequence = self.next_sequence();
        region.buckets.iter().for_each(|bucket| {
            self.repair_records(bucket, sequence);
            // the dead one may have unlinked a block here and not come to say so
            region.touch(bucket);
        });
    }

    /// Marks what the blocks of a chain cover; ends the chain before one that cannot be.
    fn repair_chain(&self, bucket: &AtomicU64) {
        let mut last = None;
        let sound = self.region.chain(bucket).all(|block| {
            let extent = Extent::of(block);
            let own = self.region.bucket(block.hash()).is_some_and(|own| std::ptr::eq(own, bucket));
            let sound = own && self.is_free(extent) && block.is_sound();
            if sound {
                self.mark(extent, true);
                last = Some(block);
            }
            if let Some(record) = block.record().filter(|_| sound) {
                put(record.values, 0, Ordering::Relaxed);
            }
            sound
        });
        if !sound || last.is_none_or(|last| last.next.load(Ordering::Relaxed) != 0) {
            self.region.cut(bucket, last);
        }
    }

    /// Counts the values of a chain, for each name too.
    fn repair_values(&self, bucket: &AtomicU64) {
        let (region, mut name) = (&self.region, Vec::new());
        for block in region.chain(bucket).filter(|block| block.shape().kind == Kind::Value) {
            block.read_name(&mut name);
            if let Some(record) = self.find(&Sought::record(&name)).and_then(Block::record) {
                put(record.values, record.values.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                put(region.values, region.values.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                let sequence = block.sequence.load(Ordering::Relaxed);
                let last = region.sequence.load(Ordering::Relaxed).max(sequence);
                put(region.sequence, last, Ordering::Relaxed);
            } else {
                region.unlink(bucket, block);
                self.free(Extent::of(block));
            }
        }
    }

    /// Ends the records without values; the others say that something may have been removed.
    fn repair_records(&self, bucket: &AtomicU64, sequence: u64) {
        for block in self.region.chain(bucket) {
            let Some(record) = block.record() else { continue };
            if record.values.load(Ordering::Relaxed) == 0 {
                self.region.unlink(bucket, block);
                self.free(Extent::of(block));
            } else {
                put(record.removed, sequence, Ordering::Relaxed);
                put(record.last, sequence, Ordering::Release); // pairs with known()
            }
        }
    }
}
