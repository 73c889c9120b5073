//! The writers' half: reserve, fill, publish; and delete.

use super::atomic::{AtomicU64, Ordering};
use super::block::{Block, Record, Sought};
use super::lock::put;
use super::region::CHAIN_MAX;
use super::room::Extent;
use super::{KEY_MAX, Retained, SetError};
use crate::proto::ipc::{NAME_MAX, Pid};

/// Room that a writer fills before it publishes.
pub(super) struct Reserved {
    pub extent: Extent,
    /// Where in it the name's record begins, if one must be made.
    pub record: Option<usize>,
}

impl<A: Fn(Pid) -> bool> Retained<'_, A> {
    /// Retains a value instead of the one that was there, and says which sequence number it got.
    /// Numbers count up over all names in the order in which readers get to see the values.
    pub fn set(&self, name: &[u8], key: &[u8], value: &[u8]) -> Result<u64, SetError> {
        check(name, key)?;
        let (sought, record) = (Sought::value(name, key), Sought::record(name));
        if sought.granules(value.len()) + record.granules(Record::SIZE) > self.region.granules() {
            return Err(SetError::TooLong);
        }
        // The second time only where the name lost its last value meanwhile, and its record: then
        // we bring one.
        for with_record in [false, true] {
            let reserved =
                self.locked(|| self.reserve(&sought, &record, value.len(), with_record))??;
            if let Some(block) = self.region.block(reserved.extent.at) {
                block.fill(&sought, value);
            }
            if let Some(block) = reserved.record.and_then(|at| self.region.block(at)) {
                block.fill(&record, &[0; Record::SIZE]);
            }
            let published = self.locked(|| self.publish(&reserved, &sought, &record));
            if published.is_err() {
                self.abandon(reserved.extent);
            }
            if let Some(sequence) = published?? {
                return Ok(sequence);
            }
        }
        Err(SetError::Busy)
    }

    pub(super) fn reserve(
        &self,
        sought: &Sought<'_>,
        record: &Sought<'_>,
        value: usize,
        with_record: bool,
    ) -> Result<Reserved, SetError> {
        self.forget();
        let own = sought.granules(value);
        let with_record = with_record || self.find(record).is_none();
        let more = if with_record { record.granules(Record::SIZE) } else { 0 };
        let extent = self.take(own + more).ok_or(SetError::NoRoom)?;
        if !self.hold(extent) {
            self.free(extent);
            return Err(SetError::Busy);
        }
        Ok(Reserved { extent, record: with_record.then_some(extent.at + own) })
    }

    /// Lock held, twice in a set: here nothing is copied, only links and counts change. None where the
    /// name's record is missing and none was reserved.
    pub(super) fn publish(
        &self,
        reserved: &Reserved,
        sought: &Sought<'_>,
        record: &Sought<'_>,
    ) -> Result<Option<u64>, SetError> {
        let region = &self.region;
        if !self.let_go(reserved.extent) {
            return Err(SetError::Busy); // I was taken for dead, and my room is another's
        }
        let block = region.block(reserved.extent.at);
        let (Some(block), Some(bucket)) = (block, region.bucket(sought.hash)) else {
            return Err(SetError::NoRoom);
        };
        let old = self.find(sought);
        let new_record = reserved.record.and_then(|at| region.block(at));
        let known = self.find(record);
        let full = |hash| {
            region.bucket(hash).is_none_or(|bucket| region.chain(bucket).count() >= CHAIN_MAX - 1)
        };
        let refused = old.is_none() && full(sought.hash) || known.is_none() && full(record.hash);
        let Some(name) = known.or(new_record).filter(|_| !refused) else {
            self.free(reserved.extent);
            return if refused { Err(SetError::NoRoom) } else { Ok(None) };
        };
        let sequence = self.next_sequence();
        put(block.sequence, sequence, Ordering::Relaxed);
        match (new_record, known) {
            (Some(unused), Some(_)) => self.free(Extent::of(unused)),
            (Some(new), None) => self.link_record(new, record, sequence),
            _ => {}
        }
        if let Some(old) = old {
            region.replace(bucket, old, block);
            self.free(Extent::of(old));
        } else {
            region.link(bucket, block);
            add(region.values, 1);
        }
        if let Some(name) = name.record() {
            add(name.values, u64::from(old.is_none()));
            put(name.last, sequence, Ordering::Release); // pairs with known()
        }
        Ok(Some(sequence))
    }

    fn link_record(&self, block: Block<'_>, record: &Sought<'_>, sequence: u64) {
        if let (Some(bucket), Some(new)) = (self.region.bucket(record.hash), block.record()) {
            put(new.removed, sequence, Ordering::Relaxed);
            self.region.link(bucket, block);
        }
    }

    /// Ends a retained value; None where there is none. Needs no room.
    pub fn delete(&self, name: &[u8], key: &[u8]) -> Result<Option<u64>, SetError> {
        check(name, key)?;
        let (sought, record) = (Sought::value(name, key), Sought::record(name));
        Ok(self.locked(|| {
            let (old, bucket) = self.find(&sought).zip(self.region.bucket(sought.hash))?;
            let sequence = self.next_sequence();
            self.region.unlink(bucket, old);
            self.free(Extent::of(old));
            add(self.region.values, u64::MAX);
            if let Some(block) = self.find(&record) {
                self.count_removed(block, &record, sequence);
            }
            Some(sequence)
        })?)
    }

    fn count_removed(&self, block: Block<'_>, sought: &Sought<'_>, sequence: u64) {
        let Some(record) = block.record() else { return };
        put(record.removed, sequence, Ordering::Relaxed);
        put(record.last, sequence, Ordering::Release); // pairs with known()
        add(record.values, u64::MAX);
        if let (0, Some(bucket)) =
            (record.values.load(Ordering::Relaxed), self.region.bucket(sought.hash))
        {
            self.region.unlink(bucket, block);
            self.free(Extent::of(block));
        }
    }
}

fn check(name: &[u8], key: &[u8]) -> Result<(), SetError> {
    if name.len() > NAME_MAX {
        return Err(SetError::NameTooLong);
    }
    if key.len() > KEY_MAX {
        return Err(SetError::KeyTooLong);
    }
    Ok(())
}

/// Lock held.
fn add(count: &AtomicU64, to_add: u64) {
    put(count, count.load(Ordering::Relaxed).wrapping_add(to_add), Ordering::Relaxed);
}
