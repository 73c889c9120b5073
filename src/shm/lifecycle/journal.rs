//! The journal: the last events, each read whole or not at all. One writes, under the lock; anybody
//! reads, without it.

use super::super::Shared;
use super::super::atomic::{AtomicU64, Ordering, fence};
use super::{JOURNAL, Life};
use crate::proto::ipc::{Generation, Pid, Seat, WorkerId};
use crate::proto::lifecycle::{Status, Why};

/// Words of a record without its sequence.
pub(super) const WORDS: usize = 5;

/// What kind of event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// This nginx has begun.
    Start = 1,
    /// A new configuration is in force.
    Reload,
    /// A worker has its seat.
    WorkerStart,
    /// A worker has left in good order.
    WorkerExit,
    /// A worker ended in any other way.
    WorkerCrash,
    /// A worker was told to leave.
    Retiring,
}

impl What {
    fn of(number: u64) -> Option<What> {
        use What::{Reload, Retiring, Start, WorkerCrash, WorkerExit, WorkerStart};
        let all = [Start, Reload, WorkerStart, WorkerExit, WorkerCrash, Retiring];
        all.into_iter().find(|what| *what as u64 == number)
    }
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is.
    pub what: What,
    /// Why, as far as that kind of event has a reason.
    pub why: Why,
    /// To which process.
    pub pid: Pid,
    /// In which seat; of a load only the generation counts.
    pub seat: Seat,
    /// Whom a worker follows.
    pub other: Option<Pid>,
    /// How it, or whom it follows, ended.
    pub status: Option<Status>,
    /// When, in ms since 1970.
    pub time: u64,
}

impl Event {
    pub(super) fn pack(&self) -> [u64; WORDS] {
        [
            (self.what as u64) << 8 | self.why as u64,
            self.time,
            u64::from(self.seat.generation.0) << 32 | u64::from(self.seat.worker.0),
            u64::from(self.pid.0) << 32 | u64::from(self.other.map_or(0, |pid| pid.0)),
            Status::pack(self.status),
        ]
    }

    fn unpack([kind, time, seat, pids, status]: [u64; WORDS]) -> Option<Event> {
        Some(Event {
            what: What::of(kind >> 8)?,
            why: Why::of(kind & 0xff)?,
            pid: Pid((pids >> 32) as u32),
            seat: Seat {
                generation: Generation((seat >> 32) as u32),
                worker: WorkerId(seat as u16),
            },
            other: Some(Pid(pids as u32)).filter(|pid| pid.0 != 0),
            status: Status::unpack(status),
            time,
        })
    }
}

pub(super) fn time_of([_, time, ..]: &[u64; WORDS]) -> u64 {
    *time
}

#[repr(C)]
pub(super) struct Record {
    sequence: AtomicU64,
    words: [AtomicU64; WORDS],
}

// SAFETY: atomics only, repr(C).
unsafe impl Shared for Record {}

impl Record {
    /// Lock held.
    pub(super) fn write(&self, sequence: u64, words: &[u64; WORDS]) {
        self.sequence.store(0, Ordering::Relaxed);
        // pairs with the fence in read(): who reads one of the new words sees that 0, or the number
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(words) {
            word.store(*value, Ordering::Relaxed);
        }
        self.sequence.store(sequence, Ordering::Release); // pairs with read()
    }

    fn read(&self, sequence: u64) -> Option<[u64; WORDS]> {
        // pairs with write()
        if self.sequence.load(Ordering::Acquire) != sequence {
            return None;
        }
        let words = self.words.each_ref().map(|word| word.load(Ordering::Relaxed));
        fence(Ordering::Acquire); // pairs with write()
        (self.sequence.load(Ordering::Relaxed) == sequence).then_some(words)
    }
}

/// What a reader finds behind what it has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Nothing yet.
    Nothing,
    /// The event of that number.
    Event(u64, Event),
    /// So many events are no longer there; go on behind that number.
    Missed(u64, u64),
}

impl Life {
    /// What comes behind the event number `after`.
    pub fn read(&self, after: u64) -> Read {
        let head = self.head();
        if after >= head {
            return Read::Nothing;
        }
        let next = after + 1;
        let found = self.journal.get(next as usize % JOURNAL).and_then(|record| record.read(next));
        if let Some(words) = found {
            // what nobody could have written is passed over
            return Event::unpack(words)
                .map_or(Read::Missed(1, next), |event| Read::Event(next, event));
        }
        // overtaken: the oldest that is there for sure is half a journal back
        let oldest = self.head().saturating_sub(JOURNAL as u64 / 2);
        if oldest > next {
            Read::Missed(oldest - after, oldest)
        } else {
            // somebody finishes a dead one's work at this very moment, and will say so
            Read::Nothing
        }
    }
}
