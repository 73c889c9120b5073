//! One record: a version, and two copies of the body with their version and sum. A version is a
//! number and who wrote it; the number's lowest bit says which copy is read.

use super::WriteError;
use crate::proto::ipc::Pid;
use crate::shm::atomic::{AtomicU64, Ordering, fence};

/// How often a reader looks again while a writer is faster than it.
const TRIES: usize = if cfg!(loom) { 2 } else { 8 };

/// Bits of the writer in a version. Linux: PID_MAX_LIMIT is 4 Mi.
const PID_BITS: u32 = 22;

/// A record with a body of so many words.
#[derive(Clone, Copy)]
pub struct Record<'m, const BODY: usize> {
    version: &'m AtomicU64,
    copies: [Copy<'m>; 2],
}

#[derive(Clone, Copy)]
struct Copy<'m> {
    version: &'m AtomicU64,
    sum: &'m AtomicU64,
    body: &'m [AtomicU64],
}

/// Words of a record.
pub const fn words(body: usize) -> usize {
    1 + 2 * (2 + body)
}

fn number(version: u64) -> u64 {
    version >> PID_BITS
}

impl<'m, const BODY: usize> Record<'m, BODY> {
    /// Lays one over its words.
    pub fn over(words: &'m [AtomicU64]) -> Option<Self> {
        let (version, rest) = words.split_first()?;
        let (first, second) = rest.split_at_checked(2 + BODY)?;
        let copies = [Copy::over(first)?, Copy::over(second)?];
        (second.len() == 2 + BODY).then_some(Record { version, copies })
    }

    fn copy(&self, number: u64) -> Copy<'m> {
        let [even, odd] = self.copies;
        if number & 1 == 0 { even } else { odd }
    }

    /// The body as it was written last; the one before, while the last is damaged. None where there
    /// is none, or where writers were faster all the time.
    pub fn read(&self) -> Option<[u64; BODY]> {
        for _ in 0..TRIES {
            let version = self.version.load(Ordering::Acquire); // pairs with write()
            let last = number(version);
            if last == 0 {
                return None;
            }
            let read = self.copy(last).read(|of| of == version);
            let read = read.or_else(|| self.copy(last - 1).read(|of| number(of) == last - 1));
            // Pairs with the fence of write(): who read a word of a later write sees that the
            // version, which sent readers away from that copy, has changed.
            fence(Ordering::Acquire);
            if self.version.load(Ordering::Relaxed) == version {
                return read;
            }
            std::hint::spin_loop();
        }
        None
    }

    /// Writes a body: all of it is seen, or nothing of it.
    pub fn write(&self, Pid(me): Pid, body: &[u64; BODY]) -> Result<(), WriteError> {
        let version = self.version.load(Ordering::Acquire); // pairs with the exchange below
        fence(Ordering::Release); // pairs with read()
        let me = u64::from(me) & ((1 << PID_BITS) - 1);
        let next = (number(version) + 1) << PID_BITS | me;
        let copy = self.copy(number(next));
        copy.version.store(next, Ordering::Relaxed);
        for (word, value) in copy.body.iter().zip(body) {
            word.store(*value, Ordering::Relaxed);
        }
        copy.sum.store(sum(next, body), Ordering::Relaxed);
        // pairs with read() and with the next write()
        let done =
            self.version.compare_exchange(version, next, Ordering::AcqRel, Ordering::Relaxed);
        done.map(|_| ()).map_err(|_| WriteError::Overtaken)
    }
}

impl<'m> Copy<'m> {
    fn over(words: &'m [AtomicU64]) -> Option<Self> {
        let (version, rest) = words.split_first()?;
        let (sum, body) = rest.split_first()?;
        Some(Copy { version, sum, body })
    }

    /// The body, if it is whole and of a version that is wanted.
    fn read<const BODY: usize>(&self, wanted: impl Fn(u64) -> bool) -> Option<[u64; BODY]> {
        let version = self.version.load(Ordering::Relaxed);
        let mut body = [0; BODY];
        for (value, word) in body.iter_mut().zip(self.body) {
            *value = word.load(Ordering::Relaxed);
        }
        let whole = self.sum.load(Ordering::Relaxed) == sum(version, &body);
        (whole && wanted(version)).then_some(body)
    }
}

/// Not against attackers: against writers that did not finish, or that wake up too late.
fn sum(version: u64, body: &[u64]) -> u64 {
    body.iter().fold(version ^ 0x9e37_79b9_7f4a_7c15, |sum, word| {
        (sum ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31)
    })
}
