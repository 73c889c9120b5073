//! Retained values, as this worker sets and sees them.

use super::sending::{Letter, Reach, Unsent};
use super::worker::{self, Worker};
use crate::proto::ipc::frame::Kind;
use crate::proto::ipc::outbox::Refused;
use crate::proto::ipc::{Addressee, Seat};
use crate::shm::retained::{Busy, SetError};

/// A retained value, copied out.
pub struct Copy {
    /// Its key.
    pub key: Vec<u8>,
    /// All of it.
    pub value: Vec<u8>,
    /// When it was set, in the order of all sets.
    pub sequence: u64,
}

/// Asks a worker's handlers to compare what they were told with what is kept.
const REVIEW: Letter<'_> = Letter { kind: Kind::Review, call: 0, name: b"", data: b"" };

/// A worker has ended, maybe killed between a change and the last of its notices, and what waited in it
/// is gone: this one's handlers look for what they were not told. Not in an old generation, which is not
/// told of what newer ones set.
pub fn ended() {
    worker::with(|worker| {
        if worker.me().seat.generation >= worker.table().current().0 {
            worker.review();
        }
    });
}

impl Worker {
    /// That worker, which may be this one, is told of everything it has missed, when it has room.
    pub fn leave_untold(&mut self, seat: Seat) {
        if !self.untold.contains(&seat) {
            self.untold.push(seat);
        }
        self.keep_house();
    }

    fn review(&mut self) {
        self.reviews = true;
        self.look();
    }

    /// Whether the receiver, which has found nothing to take, is to compare; it is told once.
    pub fn reviews(&mut self) -> bool {
        let reviews = std::mem::take(&mut self.reviews);
        self.waiting &= !reviews;
        reviews
    }

    /// Tells those who have room now.
    pub(super) fn tell_untold(&mut self) {
        let mut untold = std::mem::take(&mut self.untold);
        untold.retain(|seat| {
            if *seat == self.me().seat {
                self.review();
                return false;
            }
            let full = self.peer(*seat).is_some_and(|peer| peer.waiting() > 0);
            let refused = |worker: &mut Worker| worker.send_seat(*seat, Addressee::Seat, REVIEW);
            full || refused(self) == Err(Unsent::Refused(Refused::Full))
        });
        self.untold = untold;
    }

    /// Retains `value`, or ends what was retained, and tells every worker. The sequence number, 0
    /// where there was nothing to end; and who could not be told now, but will be.
    pub fn retain(
        &mut self,
        name: &[u8],
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(u64, Vec<(Seat, Unsent)>), SetError> {
        let sequence = match value {
            Some(value) => self.retained.set(name, key, value)?,
            None => self.retained.delete(name, key)?.unwrap_or(0),
        };
        // the number's low half is enough to tell it from its neighbours
        let letter = Letter { kind: Kind::Retained, call: sequence as u32, name, data: key };
        let untold = if sequence > 0 { self.broadcast(Reach::Newer, letter) } else { Vec::new() };
        untold.iter().for_each(|(seat, _)| self.leave_untold(*seat));
        Ok((sequence, untold))
    }

    /// Copies the value of a key; None where there is none. It stays until the next call.
    pub fn retained(&mut self, name: &[u8], key: &[u8]) -> Result<Option<&Copy>, Busy> {
        let mut value = Vec::new();
        let found = self.retained.get(name, key, &mut value)?;
        let copy = found.map(|sequence| Copy { key: key.to_vec(), value, sequence });
        self.copies = copy.into_iter().collect();
        Ok(self.copies.first())
    }

    /// Copies all values of a name, oldest first; how many.
    pub fn retained_all(&mut self, name: &[u8]) -> Result<usize, Busy> {
        let mut copies = Vec::new();
        let seen = self.retained.visit(name, 0, |seen| {
            let (key, value) = (seen.key.to_vec(), seen.value.to_vec());
            copies.push(Copy { key, value, sequence: seen.sequence });
        })?;
        self.copies = copies;
        self.visited = seen.sequence;
        Ok(self.copies.len())
    }

    /// The sequence number up to which everything of a name was looked at last, its low half.
    pub fn visited(&self) -> u32 {
        self.visited as u32
    }

    /// The number of a name's change that has this low half, one of the last four milliards; None
    /// where there is no such one.
    pub fn sequence(&self, name: &[u8], low: u32) -> Option<u64> {
        let last = self.retained.last(name).ok()?;
        last.checked_sub(u64::from((last as u32).wrapping_sub(low)))
    }

    /// Every name with retained values, and the sequence number of its last change; none while
    /// another process keeps them locked.
    pub fn retained_names(&self) -> Vec<(Vec<u8>, u64)> {
        self.retained.names().unwrap_or_default()
    }

    /// One of the copies made last.
    pub fn copy(&self, index: usize) -> Option<&Copy> {
        self.copies.get(index)
    }

    /// Frees them.
    pub fn drop_copies(&mut self) {
        self.copies = Vec::new();
    }
}
