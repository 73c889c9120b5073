//! One ring of records from one process to one other: single producer, single consumer, no lock.
//! A record is visible once the tail is stored, so a producer killed before that leaves nothing
//! behind; a successor of either side goes on where the shared ends stand. `mesh` lays out the
//! rings of a generation.

use std::marker::PhantomData;

use super::atomic::{AtomicU32, AtomicU64, Ordering, fence, store_for_poller};
use super::{Shared, Word};

/// Bytes in front of each record: its length.
const PREFIX: usize = 8;
/// As much as a producer uses of a ring as long as its consumer keeps up: it stays in the cache.
const HOT: usize = 512 << 10;
/// How far in front of a record the consumer has the processor fetch what lies there already.
const AHEAD: u64 = 512;
/// In a length word: the rest of the lap is unused.
const PAD: u64 = 1 << 63;

/// The two ends, each in cache lines of its own: the producer's and the consumer's.
#[repr(C, align(128))]
pub struct Ends {
    /// Where the next record goes, in bytes since the beginning.
    tail: AtomicU64,
    /// Whether the producer waits for room.
    wanted: AtomicU32,
    _line: [u32; 29],
    /// Up to where records may be overwritten.
    head: AtomicU64,
    /// Up to where records were handed out: a successor never sees again what its predecessor may
    /// have died of.
    taken: AtomicU64,
}

// SAFETY: atomics only, repr(C).
unsafe impl Shared for Ends {}

/// A ring's memory: its ends, and `size` bytes, a power of two, of data.
#[derive(Clone, Copy)]
pub struct Ring<'m> {
    ends: &'m Ends,
    data: *mut u8,
    size: usize,
    #[cfg(loom)]
    shadow: &'m [loom::cell::UnsafeCell<()>],
    memory: PhantomData<&'m [Word]>,
}

// SAFETY: the data is only touched through a Producer or a Consumer, of which the ends' protocol
// gives each its own part; a process is single-threaded, tests have one thread for each side.
unsafe impl Send for Ring<'_> {}

impl<'m> Ring<'m> {
    /// Over `data`, whose length in bytes must be a power of two; None otherwise.
    pub fn new(ends: &'m Ends, data: &'m [Word]) -> Option<Ring<'m>> {
        let size = size_of_val(data);
        let data = data.as_ptr().cast_mut().cast();
        size.is_power_of_two().then_some(Ring {
            ends,
            data,
            size,
            #[cfg(loom)]
            shadow: &[],
            memory: PhantomData,
        })
    }

    /// With a cell per word of data, by which loom sees who reads and writes it.
    #[cfg(loom)]
    pub fn shadowed(self, shadow: &'m [loom::cell::UnsafeCell<()>]) -> Ring<'m> {
        Ring { shadow, ..self }
    }

    #[cfg(loom)]
    fn access(&self, position: u64, bytes: usize, write: bool) {
        for at in (position..position + bytes as u64).step_by(8) {
            let cell = &self.shadow[(at as usize & (self.size - 1)) / 8];
            if write { cell.with_mut(|_| ()) } else { cell.with(|_| ()) }
        }
    }

    /// Data is read or written here; loom wants to know.
    #[cfg(not(loom))]
    #[inline(always)]
    fn access(&self, _position: u64, _bytes: usize, _write: bool) {}

    /// Longest record it takes. Half, so that a record and the unused rest of a lap always fit an
    /// empty ring.
    pub fn longest(size: usize) -> usize {
        size / 2 - PREFIX
    }

    /// The writing side. There may be one at a time.
    pub fn producer(self) -> Producer<'m> {
        let tail = self.ends.tail.load(Ordering::Relaxed); // ours or a dead predecessor's
        let head = self.ends.head.load(Ordering::Acquire); // pairs with release()
        Producer { ring: self, tail, head }
    }

    /// The reading side. There may be one at a time.
    pub fn consumer(self) -> Consumer<'m> {
        // ours or a dead predecessor's
        let head = self.ends.head.load(Ordering::Relaxed);
        let taken = self.ends.taken.load(Ordering::Relaxed);
        let tail = self.ends.tail.load(Ordering::Acquire); // pairs with put()
        let handed_out = taken.wrapping_sub(head) <= tail.wrapping_sub(head);
        let head = if handed_out { taken } else { head };
        Consumer { ring: self, head, tail, next: head, asked: head }
    }

    /// Bytes between what was published and what was handed out, an unused rest of a lap included,
    /// as far as a bystander sees it.
    pub fn unread(self) -> u64 {
        let at = |end: &AtomicU64| end.load(Ordering::Relaxed); // a gauge orders nothing
        let tail = at(&self.ends.tail);
        if tail == 0 {
            return 0; // never used, as most rings of many workers; the reader's line is left alone
        }
        let (head, taken) = (at(&self.ends.head), at(&self.ends.taken));
        let from = |end: u64| Some(tail.wrapping_sub(end)).filter(|b| *b <= self.size as u64);
        from(taken).or(from(head)).unwrap_or_default()
    }

    /// Whether there is anything that its consumer, who asks, has not taken.
    #[inline]
    pub fn has_unread(self) -> bool {
        self.ends.tail.load(Ordering::Acquire) != self.ends.taken.load(Ordering::Relaxed)
    }

    /// The data's address `position` bytes since the beginning.
    fn at(&self, position: u64) -> *mut u8 {
        // SAFETY: masked into the data.
        unsafe { self.data.add(position as usize & (self.size - 1)) }
    }

    fn length_at(&self, position: u64) -> &Word {
        // SAFETY: positions are multiples of 8, so the word lies inside the data.
        unsafe { &*self.at(position & !7).cast::<Word>() }
    }

    /// Bytes from `position` to the end of its lap.
    fn lap(&self, position: u64) -> usize {
        self.size - (position as usize & (self.size - 1))
    }
}

#[cfg(test)]
impl Ring<'_> {
    /// What was published and not handed out, without touching it.
    pub fn for_each_unread(self, mut f: impl FnMut(&[u8])) {
        let (tail, mut at) = (self.ends.tail.load(Ordering::Acquire), self.consumer().next);
        while at != tail {
            let word = self.length_at(at).load(Ordering::Relaxed);
            let (length, padded) = ((word & !PAD) as usize, word & PAD != 0);
            let start = at.wrapping_add(PREFIX as u64);
            let size = if padded { length } else { (PREFIX + length).next_multiple_of(8) };
            if !padded {
                // SAFETY: no process runs meanwhile; producers write records inside their lap.
                f(unsafe { std::slice::from_raw_parts(self.at(start), length) });
            }
            at = at.wrapping_add(size as u64);
        }
    }

    /// Whether the producer waits for room.
    pub fn is_wanted(self) -> bool {
        self.ends.wanted.load(Ordering::Relaxed) != 0
    }
}

/// Copies `len` bytes: few, mostly, for which a call would cost more than the copy.
///
/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`].
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    /// Two words that may overlap make any length from one word to two.
    #[inline(always)]
    unsafe fn both<T>(from: *const u8, to: *mut u8, len: usize) {
        let last = len - size_of::<T>();
        // SAFETY: the caller says that `len` bytes are there, of which T is at most that many.
        unsafe {
            let (head, tail) =
                (from.cast::<T>().read_unaligned(), from.add(last).cast::<T>().read_unaligned());
            to.cast::<T>().write_unaligned(head);
            to.add(last).cast::<T>().write_unaligned(tail);
        }
    }
    // SAFETY: the caller's; each branch needs no more than `len` bytes.
    unsafe {
        match len {
            0 => {}
            1 => to.write(from.read()),
            2..4 => both::<u16>(from, to, len),
            4..8 => both::<u32>(from, to, len),
            8..16 => both::<u64>(from, to, len),
            16..=32 => both::<u128>(from, to, len),
            _ => to.copy_from_nonoverlapping(from, len),
        }
    }
}

/// Has the processor fetch what will be read there; a hint only.
#[inline(always)]
fn prefetch(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch reads nothing that the program sees, at any address; every x86_64 has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

/// The ring has no room now, or never for a record that long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// The writing side.
pub struct Producer<'m> {
    ring: Ring<'m>,
    tail: u64,
    /// The consumer's head as last seen.
    head: u64,
}

impl Producer<'_> {
    /// Appends the concatenation of `parts` as one record, visible at once.
    #[inline]
    pub fn put(&mut self, parts: [&[u8]; 3]) -> Result<(), NoRoom> {
        self.write(parts).map(|()| self.publish())
    }

    /// The same, visible once it is published.
    #[inline(always)] // so that parts of a known length are copied by a few instructions
    pub fn write(&mut self, parts: [&[u8]; 3]) -> Result<(), NoRoom> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let need = (PREFIX + length).next_multiple_of(8);
        if length > Ring::longest(self.ring.size) {
            return Err(NoRoom);
        }
        let lap = self.ring.lap(self.tail);
        let pad = if need > lap || self.may_turn(lap, need) { lap } else { 0 };
        if !self.fits(pad + need) {
            return Err(NoRoom);
        }
        if pad > 0 {
            self.ring.access(self.tail, PREFIX, true);
            // Relaxed: published by the tail
            self.ring.length_at(self.tail).store(PAD | pad as u64, Ordering::Relaxed);
            self.tail = self.tail.wrapping_add(pad as u64);
        }
        self.ring.access(self.tail, need, true);
        self.ring.length_at(self.tail).store(length as u64, Ordering::Relaxed);
        let mut to = self.ring.at(self.tail.wrapping_add(PREFIX as u64));
        for part in parts {
            // SAFETY: `need` bytes from the tail on are inside this lap, and between tail and head
            // nobody but the producer looks.
            unsafe {
                copy(part.as_ptr(), to, part.len());
                to = to.add(part.len());
            }
        }
        self.tail = self.tail.wrapping_add(need as u64);
        Ok(())
    }

    /// Makes visible what was written, before anything that follows.
    #[inline]
    pub fn publish(&mut self) {
        // Release pairs with is_empty(). SeqCst, and a swap, for Mesh::mail(), whose look at the bell
        // must not come first: this is the cheapest way to say so.
        self.ring.ends.tail.swap(self.tail, Ordering::SeqCst);
    }

    /// Makes visible what was written; what follows may come first, unless somebody's barrier is in
    /// between (`Bell::barrier`).
    #[inline]
    pub fn publish_to_poller(&mut self) {
        store_for_poller(&self.ring.ends.tail, self.tail); // pairs with is_empty()
    }

    /// Whether there ever was a record.
    pub fn is_used(&self) -> bool {
        self.tail != 0
    }

    /// Whether the rest of the lap is better left unused: the consumer keeps up, so the start of the
    /// ring, which the caches know, has room enough. Asked each [`HOT`] bytes only, for the answer
    /// takes a look at the consumer's end; and only while little is under way, for until the consumer
    /// has passed the unused rest, there is no more room than in front of it.
    fn may_turn(&mut self, lap: usize, need: usize) -> bool {
        let at = self.ring.size - lap;
        if at / HOT == (at + need) / HOT || at == 0 {
            return false;
        }
        self.head = self.ring.ends.head.load(Ordering::Acquire); // pairs with release()
        let used = self.tail.wrapping_sub(self.head);
        used <= (HOT / 8) as u64 && used as usize + lap + need <= self.ring.size
    }

    fn fits(&mut self, bytes: usize) -> bool {
        let room = |head: u64| {
            self.ring.size as u64 - self.tail.wrapping_sub(head).min(self.ring.size as u64)
        };
        if room(self.head) >= bytes as u64 {
            return true;
        }
        self.head = self.ring.ends.head.load(Ordering::Acquire); // pairs with release()
        room(self.head) >= bytes as u64
    }

    /// Asks the consumer to tell when there is room. True: there is some more already.
    pub fn want_room(&mut self) -> bool {
        self.ring.ends.wanted.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst); // pairs with the fence in wanted(): one of us sees the other
        let head = self.ring.ends.head.load(Ordering::Acquire); // pairs with release()
        let more = head != self.head;
        self.head = head;
        more
    }
}

/// The reading side.
pub struct Consumer<'m> {
    ring: Ring<'m>,
    head: u64,
    /// The producer's tail as last seen.
    tail: u64,
    /// Behind the record that was handed out last.
    next: u64,
    /// The head when the producer was last looked after.
    asked: u64,
}

impl Consumer<'_> {
    /// Whether there is no record now.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        if self.next == self.tail {
            prefetch(self.ring.at(self.next)); // while the tail comes from another core, too
            self.tail = self.ring.ends.tail.load(Ordering::Acquire); // pairs with put()
        }
        self.next == self.tail
    }

    /// Whether a record was ever taken, or could be.
    pub fn is_used(&self) -> bool {
        self.tail != 0
    }

    /// The next record; the one before it may be overwritten from now on.
    #[inline]
    pub fn take(&mut self) -> Option<&[u8]> {
        self.release();
        loop {
            if self.is_empty() {
                return None;
            }
            self.ring.access(self.head, PREFIX, false);
            let word = self.ring.length_at(self.head).load(Ordering::Relaxed);
            let (length, lap) = ((word & !PAD) as usize, self.ring.lap(self.head));
            let available = self.tail.wrapping_sub(self.head);
            let padded = word & PAD != 0;
            let size =
                if padded { length } else { length.saturating_add(PREFIX).saturating_add(7) & !7 };
            let beyond = available > self.ring.size as u64 || size as u64 > available;
            if size > lap || beyond || size == 0 || size % 8 != 0 {
                // no producer of ours wrote that: forget what is there rather than follow it, which
                // might lead around the ring for years
                self.hand_out(self.tail);
                self.release();
                return None;
            }
            self.hand_out(self.head.wrapping_add(size as u64));
            if padded {
                self.release();
                continue;
            }
            if self.tail.wrapping_sub(self.next) > AHEAD + 64 {
                prefetch(self.ring.at(self.next.wrapping_add(AHEAD)));
            }
            let start = self.ring.at(self.head.wrapping_add(PREFIX as u64));
            // SAFETY: inside this lap, and between head and tail, where the producer does not
            // write until release().
            return Some(unsafe { std::slice::from_raw_parts(start, length) });
        }
    }

    /// Nothing is unread, whatever was scribbled where that is told.
    pub fn caught_up(&mut self) {
        self.hand_out(self.next);
    }

    #[inline]
    fn hand_out(&mut self, end: u64) {
        self.next = end;
        self.ring.ends.taken.store(end, Ordering::Relaxed); // for a successor, and has_unread()
    }

    /// Gives back the room of what was taken.
    fn release(&mut self) {
        if self.head != self.next {
            // what was handed out may have been read until now
            self.ring.access(self.head, self.next.wrapping_sub(self.head) as usize, false);
            self.head = self.next;
            self.ring.ends.head.store(self.head, Ordering::Release); // pairs with fits()
        }
    }

    /// Whether the producer must be told that there is room. To be asked when the ring was found
    /// empty, and after each half; answers true once.
    pub fn wanted(&mut self) -> bool {
        self.release();
        self.asked = self.head;
        fence(Ordering::SeqCst); // pairs with the fence in want_room()
        let wanted = &self.ring.ends.wanted;
        wanted.load(Ordering::Relaxed) != 0 && wanted.swap(0, Ordering::Relaxed) != 0
    }

    /// Whether half of the ring was emptied since the producer was last looked after: sooner, a
    /// producer that sleeps would be woken for a few records.
    #[inline]
    pub fn half(&self) -> bool {
        self.head.wrapping_sub(self.asked) as usize >= self.ring.size / 2
    }
}

#[cfg(loom)]
impl Ends {
    /// Fresh ones.
    pub fn new() -> Ends {
        Ends {
            tail: AtomicU64::new(0),
            wanted: AtomicU32::new(0),
            _line: [0; 29],
            head: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
