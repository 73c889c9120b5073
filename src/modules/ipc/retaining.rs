//! Retained values, as this worker sets and sees them.

use super::sending::{Letter, Reach, Unsent};
use super::worker::Worker;
use crate::proto::ipc::Seat;
use crate::proto::ipc::frame::Kind;
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

impl Worker {
    /// Retains `value`, or ends what was retained, and tells every worker. The sequence number, 0
    /// where there was nothing to end; and who could not be told now.
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
        let letter = Letter { kind: Kind::Retained, call: 0, name, data: key };
        let untold = if sequence > 0 { self.broadcast(Reach::Newer, letter) } else { Vec::new() };
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
        self.retained.visit(name, 0, |seen| {
            let (key, value) = (seen.key.to_vec(), seen.value.to_vec());
            copies.push(Copy { key, value, sequence: seen.sequence });
        })?;
        self.copies = copies;
        Ok(self.copies.len())
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
