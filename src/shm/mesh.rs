//! The rings of one generation, from each worker to each other, and a bell per worker: who has
//! written to it, whether it sleeps. Anonymous shared memory made by the master before the fork;
//! it lives and dies with its generation.
//!
//! One ring per pair, not one per receiver: a sender never waits for, or behind, another one, a
//! killed one leaves no lock and no hole, and a message costs no contended cache line but its own.
//! The price is memory, of which only what was written to is ever backed.

use super::atomic::{AtomicU32, AtomicU64, Ordering, fence, fence_for_loom};
use super::ring::{Ends, Producer, Ring};
use super::{Shared, Word, several};

/// Most workers that rings are made for; more use the sockets.
pub const MESH_MAX: usize = 128;
/// What all rings of a generation may take together before they get smaller, bytes.
const TOTAL: usize = 128 << 20;
/// A ring's size, bytes: no less, no more.
const RING: (usize, usize) = (16 << 10, 4 << 20);

const ASLEEP: u32 = 0;
const AWAKE: u32 = 1;

/// A worker's bell.
#[repr(C, align(128))]
struct Bell {
    /// ASLEEP: whoever has something for the worker must wake it.
    awake: AtomicU32,
    /// Some receiver has room again for what this worker holds back.
    room: AtomicU32,
    /// A bit per sender that has written.
    mail: [AtomicU64; MESH_MAX / 64],
    /// How often the worker has gone to sleep.
    naps: AtomicU32,
    _line: [u32; 25],
    /// The worker has left a generation that ends: nobody will follow it. Each sender looks here
    /// first, so it is apart from what changes with each message.
    left: AtomicU32,
    /// Somebody accounts for what was left unread: 1 of the generation, 2 of a newer one. In the first
    /// bell only.
    settled: AtomicU32,
    /// A bit per sender whose ring the worker looks into by itself: that one need not tell of mail.
    polled: [AtomicU64; MESH_MAX / 64],
}

// SAFETY: atomics only, repr(C).
unsafe impl Shared for Bell {}

/// The rings and bells of a generation of workers.
#[derive(Clone, Copy)]
pub struct Mesh<'m> {
    /// By worker.
    bells: &'m [Bell],
    /// By receiver, then by sender.
    ends: &'m [Ends],
    /// In the same order.
    data: &'m [Word],
    /// The size of one ring, bytes.
    ring: usize,
    #[cfg(loom)]
    shadow: &'m [loom::cell::UnsafeCell<()>],
}

impl<'m> Mesh<'m> {
    /// The size of one ring among so many workers, bytes.
    pub fn ring_size(workers: usize) -> usize {
        let share = TOTAL / (workers * workers).max(1);
        let rounded = if share.is_power_of_two() { share } else { share.next_power_of_two() / 2 };
        rounded.clamp(RING.0, RING.1)
    }

    /// Bytes for so many workers; None for more than [`MESH_MAX`].
    pub fn size(workers: usize) -> Option<usize> {
        (workers <= MESH_MAX).then(|| Self::size_with(workers, Self::ring_size(workers)))
    }

    /// The same with rings of `ring` bytes.
    pub fn size_with(workers: usize, ring: usize) -> usize {
        workers * size_of::<Bell>() + workers * workers * (size_of::<Ends>() + ring)
    }

    /// Over zeroed memory aligned to a page; None where it is too small.
    pub fn new(memory: &'m [Word], workers: usize) -> Option<Mesh<'m>> {
        Self::with_rings(memory, workers, Self::ring_size(workers))
    }

    /// The same with rings of `ring` bytes.
    pub fn with_rings(memory: &'m [Word], workers: usize, ring: usize) -> Option<Mesh<'m>> {
        if workers > MESH_MAX {
            return None;
        }
        let bells = several(memory, workers)?;
        let memory = memory.get(size_of_val(bells) / 8..)?;
        let ends = several(memory, workers * workers)?;
        let memory = memory.get(size_of_val(ends) / 8..)?;
        let data = memory.get(..ends.len() * (ring / 8))?;
        Some(Mesh {
            bells,
            ends,
            data,
            ring,
            #[cfg(loom)]
            shadow: &[],
        })
    }

    /// How many workers it is for.
    pub fn workers(&self) -> usize {
        self.bells.len()
    }

    /// The ring between two workers.
    pub fn ring(&self, from: usize, to: usize) -> Option<Ring<'m>> {
        if from >= self.workers() || to >= self.workers() {
            return None;
        }
        let (pair, words) = (to * self.workers() + from, self.ring / 8);
        let ring =
            Ring::new(self.ends.get(pair)?, self.data.get(pair * words..(pair + 1) * words)?);
        #[cfg(loom)]
        let ring = ring.map(|ring| ring.shadowed(&self.shadow[pair * words..(pair + 1) * words]));
        ring
    }

    /// Bytes in all rings to a worker that it has not taken, unused rests of laps included.
    pub fn unread(&self, to: usize) -> u64 {
        (0..self.workers()).filter_map(|from| self.ring(from, to)).map(Ring::unread).sum()
    }

    /// Bytes of one of its rings.
    pub fn ring_bytes(&self) -> usize {
        self.ring
    }

    /// Longest record that its rings take.
    pub fn longest(&self) -> usize {
        Ring::longest(self.ring)
    }

    #[inline]
    fn bell(&self, worker: usize) -> Option<&'m Bell> {
        self.bells.get(worker)
    }

    /// `from` has just put a record for `to`. True: `to` sleeps and the caller must wake it.
    #[inline]
    pub fn mail(&self, from: usize, to: usize) -> bool {
        self.note(from, to);
        self.rouse(to)
    }

    /// `from` has put a record for `to`, and will rouse it.
    #[inline]
    pub fn note(&self, from: usize, to: usize) {
        let Some(word) = self.bell(to).and_then(|b| b.mail.get(from / 64)) else {
            return;
        };
        // SeqCst, as put() before it and with the fence in senders(): either the receiver's look at
        // the ring comes later than the record, or this look at the bit later than its being cleared
        fence_for_loom();
        let bit = 1 << (from % 64);
        if word.load(Ordering::SeqCst) & bit == 0 {
            word.fetch_or(bit, Ordering::SeqCst);
            fence_for_loom();
        }
    }

    /// True: `to` sleeps and the caller must wake it.
    #[inline]
    pub fn rouse(&self, to: usize) -> bool {
        self.bell(to).is_some_and(|bell| self.wake(bell))
    }

    /// `to` may write again to whoever is calling. True: `to` must be woken.
    pub fn room(&self, to: usize) -> bool {
        let Some(bell) = self.bell(to) else { return false };
        bell.room.store(1, Ordering::SeqCst);
        fence_for_loom();
        self.wake(bell)
    }

    fn wake(&self, bell: &Bell) -> bool {
        // SeqCst, with what was stored above and with sleep(): one of the two sees the other
        bell.awake.load(Ordering::SeqCst) == ASLEEP
            && bell.awake.swap(AWAKE, Ordering::SeqCst) == ASLEEP
    }

    /// From now on `me` looks into the ring from `from` by itself, until it sleeps.
    pub fn poll(&self, me: usize, from: usize) {
        if let Some(word) = self.bell(me).and_then(|bell| bell.polled.get(from / 64)) {
            // Relaxed, here and where it is looked at: whoever does not know yet tells of its mail
            word.fetch_or(1 << (from % 64), Ordering::Relaxed);
        }
    }

    /// Makes visible what `from` has written for `to`. True: `to` looks by itself and need not be told
    /// (`mail`). Only where `from` takes part in the barriers of `to`.
    #[inline]
    pub fn publish(&self, ring: &mut Producer<'_>, from: usize, to: usize, ordered: bool) -> bool {
        if ordered && self.is_polled(from, to) {
            ring.publish_to_poller();
            // once more, for `to` may have stopped before it could see that: then either its barrier
            // came later, and it sees it, or this look did
            if self.is_polled(from, to) {
                return true;
            }
        }
        ring.publish();
        false
    }

    #[inline]
    fn is_polled(&self, from: usize, to: usize) -> bool {
        self.bell(to)
            .and_then(|bell| bell.polled.get(from / 64))
            .is_some_and(|word| word.load(Ordering::Relaxed) & 1 << (from % 64) != 0)
    }

    /// The senders that `me` looks after by itself.
    fn polled(bell: &Bell) -> u128 {
        let words = bell.polled.iter().zip(0u32..);
        words.fold(0, |bits, (word, i)| bits | u128::from(word.load(Ordering::Relaxed)) << (64 * i))
    }

    /// Those of them that have written.
    #[inline]
    fn written(&self, me: usize, polled: u128) -> u128 {
        let (mut left, mut bits) = (polled, 0);
        while left != 0 {
            let from = left.trailing_zeros();
            if self.ring(from as usize, me).is_some_and(Ring::has_unread) {
                bits |= 1 << from;
            }
            left &= left - 1;
        }
        bits
    }

    /// From now on all senders tell `me` of mail again, of which `barrier` must make sure: it orders
    /// what they have done so far before what `me` does next.
    pub fn stop_polling(&self, me: usize, barrier: impl FnOnce()) {
        let Some(bell) = self.bell(me) else { return };
        let polled = Self::polled(bell);
        if polled == 0 {
            return;
        }
        for word in &bell.polled {
            word.store(0, Ordering::SeqCst);
        }
        barrier();
        // what was written before the barrier is seen now, what comes later is told of
        let written = self.written(me, polled);
        for (word, i) in bell.mail.iter().zip(0u32..) {
            let bits = (written >> (64 * i)) as u64;
            if bits != 0 {
                word.fetch_or(bits, Ordering::SeqCst);
            }
        }
    }

    /// How often `me` has gone to sleep.
    pub fn naps(&self, me: usize) -> u32 {
        self.bell(me).map_or(0, |bell| bell.naps.load(Ordering::Relaxed)) // its own
    }

    /// The senders that have written to `me` since the last call, a bit each.
    #[inline]
    pub fn senders(&self, me: usize) -> u128 {
        let Some(bell) = self.bell(me) else { return 0 };
        let mut bits = 0u128;
        for (word, i) in bell.mail.iter().zip(0u32..) {
            if word.load(Ordering::Relaxed) != 0 {
                bits |= u128::from(word.swap(0, Ordering::SeqCst)) << (64 * i);
            }
        }
        if bits != 0 {
            fence(Ordering::SeqCst); // with put() and mail()
        }
        bits | self.written(me, Self::polled(bell))
    }

    /// Whether a receiver has told `me` of room since the last call.
    pub fn has_room(&self, me: usize) -> bool {
        self.bell(me).is_some_and(|bell| {
            bell.room.load(Ordering::Relaxed) != 0 && bell.room.swap(0, Ordering::SeqCst) != 0
        })
    }

    /// Whether something waits for `me`.
    #[inline]
    pub fn any(&self, me: usize) -> bool {
        self.bell(me).is_some_and(|bell| {
            bell.mail.iter().any(|word| word.load(Ordering::SeqCst) != 0)
                || bell.room.load(Ordering::SeqCst) != 0
                || self.written(me, Self::polled(bell)) != 0
        })
    }

    /// `me`, which polls no ring, wants to sleep: from now on it must be woken. False: something has
    /// come, stay awake.
    pub fn sleep(&self, me: usize) -> bool {
        let Some(bell) = self.bell(me) else { return true };
        bell.awake.store(ASLEEP, Ordering::SeqCst); // with wake()
        fence(Ordering::SeqCst);
        if self.any(me) {
            bell.awake.store(AWAKE, Ordering::SeqCst);
            return false;
        }
        bell.naps.store(bell.naps.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        true
    }

    /// `me` is awake: nobody needs to wake it.
    pub fn awake(&self, me: usize) {
        if let Some(bell) = self.bell(me) {
            bell.awake.store(AWAKE, Ordering::SeqCst); // with wake()
        }
    }

    /// `me` has sent its last and reads no more, and nobody will take its seat.
    pub fn leave(&self, me: usize) {
        if let Some(bell) = self.bell(me) {
            // SeqCst, with has_left(): of two who leave at once one sees the other
            bell.left.store(1, Ordering::SeqCst);
        }
    }

    /// Whether `worker` has left.
    #[inline]
    pub fn has_left(&self, worker: usize) -> bool {
        self.bell(worker).is_some_and(|bell| bell.left.load(Ordering::SeqCst) != 0)
    }

    /// True once: for the one of the generation that accounts for what was left unread.
    pub fn settle(&self) -> bool {
        let first = |settled: &AtomicU32| {
            settled.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        };
        self.bell(0).is_some_and(|bell| first(&bell.settled))
    }

    /// True once: for the one of a newer generation that does it when all of this one are gone, also
    /// after one of them has: somebody may have entered since, or that one was killed over it.
    pub fn inherit(&self) -> bool {
        self.bell(0).is_some_and(|bell| bell.settled.swap(2, Ordering::SeqCst) != 2)
    }

    /// Whether more than so many workers are awake.
    pub fn is_crowded(&self, limit: usize) -> bool {
        let mut awake = 0;
        self.bells.iter().any(|bell| {
            awake += usize::from(bell.awake.load(Ordering::Relaxed) == AWAKE);
            awake > limit
        })
    }

    /// A new process in `me`'s seat: it must look at everything its predecessor may have left.
    pub fn enter(&self, me: usize) -> u128 {
        self.awake(me);
        if self.workers() >= 128 { u128::MAX } else { (1 << self.workers()) - 1 }
    }
}

#[cfg(test)]
impl Mesh<'_> {
    /// Whether `worker` sleeps.
    pub fn is_asleep(&self, worker: usize) -> bool {
        self.bell(worker).is_some_and(|bell| bell.awake.load(Ordering::Relaxed) == ASLEEP)
    }
}

#[cfg(loom)]
pub mod model {
    //! A mesh in memory of its own, for loom.
    use super::*;
    use loom::cell::UnsafeCell;

    /// Its memory.
    pub struct Memory {
        bells: Vec<Bell>,
        ends: Vec<Ends>,
        data: Vec<Word>,
        shadow: Vec<UnsafeCell<()>>,
        ring: usize,
    }

    // SAFETY: the cells are only there to have loom find who races for the data they stand for.
    unsafe impl Sync for Memory {}

    impl Memory {
        /// For so many workers, with rings of `ring` bytes.
        pub fn new(workers: usize, ring: usize) -> Memory {
            let (pairs, words) = (workers * workers, workers * workers * ring / 8);
            let bell = || Bell {
                awake: AtomicU32::new(0),
                room: AtomicU32::new(0),
                mail: std::array::from_fn(|_| AtomicU64::new(0)),
                naps: AtomicU32::new(0),
                _line: [0; 25],
                left: AtomicU32::new(0),
                settled: AtomicU32::new(0),
                polled: std::array::from_fn(|_| AtomicU64::new(0)),
            };
            Memory {
                bells: (0..workers).map(|_| bell()).collect(),
                ends: (0..pairs).map(|_| Ends::new()).collect(),
                data: (0..words).map(|_| Word::new(0)).collect(),
                shadow: (0..words).map(|_| UnsafeCell::new(())).collect(),
                ring,
            }
        }

        /// The mesh in it.
        pub fn mesh(&self) -> Mesh<'_> {
            let Memory { bells, ends, data, shadow, ring } = self;
            Mesh { bells, ends, data, ring: *ring, shadow }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
