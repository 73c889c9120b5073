//! The readers' half: copy without a lock, and believe it if nobody changed the chain meanwhile.

use super::atomic::{AtomicU64, Ordering};
use super::block::{Block, Kind, Record, Sought};
use super::region::Chain;
use super::room::Extent;
use super::{Busy, Retained, Seen, Value};
use crate::proto::ipc::Pid;

impl<'m, A: Fn(Pid) -> bool> Retained<'m, A> {
    /// Copies a value into `value` and says when it was set; None where there is none.
    pub fn get(&self, name: &[u8], key: &[u8], value: &mut Vec<u8>) -> Result<Option<u64>, Busy> {
        let sought = Sought::value(name, key);
        let Some(bucket) = self.region.bucket(sought.hash) else { return Ok(None) };
        let copied = self.region.still(bucket, |mut chain| {
            value.clear();
            let block = chain.find(|block| block.is(&sought))?;
            block.read_value(value);
            Some(block.sequence.load(Ordering::Relaxed))
        });
        copied.map_or_else(|| self.get_held(&sought, value), Ok)
    }

    /// The way of a reader that writers overtake again and again: nobody frees what it holds.
    pub(super) fn get_held(
        &self,
        sought: &Sought<'_>,
        value: &mut Vec<u8>,
    ) -> Result<Option<u64>, Busy> {
        let held = self.locked(|| {
            self.forget();
            let Some(block) = self.find(sought) else { return Ok(None) };
            if self.hold(Extent::of(block)) { Ok(Some(block)) } else { Err(Busy) }
        })??;
        let Some(block) = held else { return Ok(None) };
        block.read_value(value);
        let (extent, sequence) = (Extent::of(block), block.sequence.load(Ordering::Relaxed));
        let ended = self.locked(|| {
            if self.let_go(extent) && !self.is_linked(extent.at) {
                self.free(extent);
            }
        });
        if ended.is_err() {
            self.abandon(extent);
        }
        Ok(Some(sequence))
    }

    /// The sequence number of a name's last change; 0 where it has no values.
    pub fn last(&self, name: &[u8]) -> Result<u64, Busy> {
        Ok(self.known(name)?.0)
    }

    /// When the name was last changed, and when it last lost a value.
    fn known(&self, name: &[u8]) -> Result<(u64, u64), Busy> {
        let sought = Sought::record(name);
        let Some(bucket) = self.region.bucket(sought.hash) else { return Ok((0, 0)) };
        let record = self.look(bucket, |mut chain| {
            let record = chain.find(|block| block.is(&sought))?.record()?;
            // Pairs with the stores in publish(), count_removed() and repair_records(): who sees
            // the number sees in the chains what it counts.
            let last = record.last.load(Ordering::Acquire);
            Some((last, record.removed.load(Ordering::Relaxed)))
        })?;
        Ok(record.unwrap_or((0, 0)))
    }

    /// Shows the values of a name that were set after `since` (0: all), oldest first, each whole.
    /// A value that is set during the visit is shown at most once; one that is there all the time,
    /// exactly once. What a busy visit showed is good; ask again from the same number.
    pub fn visit(
        &self,
        name: &[u8],
        since: u64,
        mut show: impl FnMut(Value<'_>),
    ) -> Result<Seen, Busy> {
        let (sequence, removed) = self.known(name)?;
        let afresh = removed > since || sequence < since;
        let since = if afresh { 0 } else { since };
        let mut keys = Vec::new();
        if sequence > since {
            for bucket in self.region.buckets {
                keys.extend(self.look(bucket, |chain| newer(chain, name, since))?);
            }
        }
        keys.sort_unstable();
        keys.dedup(); // a chain that somebody has damaged may lead round and round
        let mut value = Vec::new();
        for (_, key) in keys {
            if let Some(sequence) = self.get(name, &key, &mut value)? {
                show(Value { key: &key, value: &value, sequence });
            }
        }
        Ok(Seen { sequence, afresh })
    }

    /// Every name that has values, and the sequence number of its last change.
    pub fn names(&self) -> Result<Vec<(Vec<u8>, u64)>, Busy> {
        let mut names = Vec::new();
        // most of a large memory's buckets are empty
        for bucket in self.region.buckets.iter().filter(|bucket| self.region.leads(bucket)) {
            names.extend(self.look(bucket, |chain| {
                let records = chain.filter_map(|block| Some((block.record()?, block)));
                records.filter_map(|(record, block)| known_name(&record, block)).collect::<Vec<_>>()
            })?);
        }
        Ok(names)
    }

    /// Looks at names and keys of a chain: while it stands still, else under the lock.
    fn look<T>(&self, bucket: &AtomicU64, mut look: impl FnMut(Chain<'m>) -> T) -> Result<T, Busy> {
        match self.region.still(bucket, &mut look) {
            Some(seen) => Ok(seen),
            None => self.locked(|| look(self.region.chain(bucket))),
        }
    }
}

/// Sequence and key of the values in a chain that have the name and were set after `since`.
fn newer(chain: Chain<'_>, name: &[u8], since: u64) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    for block in chain {
        let sequence = block.sequence.load(Ordering::Relaxed);
        if sequence > since && block.shape().kind == Kind::Value && block.has_name(name) {
            let mut key = Vec::new();
            block.read_key(&mut key);
            found.push((sequence, key));
        }
    }
    found
}

/// None of a record that has no value yet.
fn known_name(record: &Record<'_>, block: Block<'_>) -> Option<(Vec<u8>, u64)> {
    let last = record.last.load(Ordering::Relaxed);
    let mut name = Vec::new();
    block.read_name(&mut name);
    (last != 0).then_some((name, last))
}
