//! One worker's ends of the rings of its generation: the ring it writes towards each other worker,
//! the rings it reads and in which order, and who is told of mail and of room. How a sleeper is
//! woken is the caller's (`modules::ipc::rings` rings eventfds).

use super::mesh::Mesh;
use super::ring::{Consumer, Producer, Ring};
use crate::proto::ipc::NAME_MAX;
use crate::proto::ipc::frame::{HEADER, Header};
use crate::proto::ipc::outbox::{Put, Wire};

/// Records taken from one ring before the next one's turn.
const STREAK: usize = 64;

/// Most bytes of two pieces of a long message. The reader takes one while the next is written, and
/// others' records in between.
const PIECE: usize = 256 << 10;

/// Records taken from one ring while awake and nothing else came, before it is polled.
const BUSY: u32 = if cfg!(test) { 8 } else { 1024 };

/// Wakes the workers of a generation.
pub trait Bell: Clone {
    /// Wakes `worker`, which sleeps.
    fn ring(&self, worker: usize);

    /// Whether `worker` shall not be woken for what was just sent to it. Then it is roused later.
    #[inline]
    fn holds(&self, _worker: usize) -> bool {
        false
    }

    /// Has this process take part in the barriers of others; false where that cannot be, and then a
    /// barrier of its own would not do either.
    fn takes_part(&self) -> bool {
        false
    }

    /// As if all processes that take part had a full barrier at this moment, this one included.
    fn barrier(&self) {}
}

/// The bells of a generation, and this worker's number in it.
#[derive(Clone)]
pub struct Bells<'m, B> {
    mesh: Mesh<'m>,
    me: usize,
    bell: B,
}

impl<'m, B: Bell> Bells<'m, B> {
    /// Of worker `me` in the generation behind `mesh`.
    pub fn new(mesh: Mesh<'m>, me: usize, bell: B) -> Self {
        Bells { mesh, me, bell }
    }

    /// This worker's number.
    pub fn me(&self) -> usize {
        self.me
    }

    /// What wakes the others.
    pub fn bell(&self) -> &B {
        &self.bell
    }

    /// The rings of the generation.
    pub fn mesh(&self) -> Mesh<'m> {
        self.mesh
    }

    /// The writing end of the ring to worker `to`.
    pub fn writer(&self, to: usize) -> Option<Writer<'m, B>> {
        let producer = self.mesh.ring(self.me, to)?.producer();
        let piece = self.mesh.longest().min(PIECE) / 2 - HEADER - NAME_MAX;
        if producer.is_used() {
            // a predecessor may have died between a record and its bell
            self.mesh.mail(self.me, to);
            self.bell.ring(to);
        }
        let ordered = self.bell.takes_part();
        Some(Writer { bells: self.clone(), to, producer, piece, ordered })
    }

    /// Whether some receiver has room again.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.mesh.has_room(self.me)
    }

    /// Whether something waits for this worker.
    #[inline]
    pub fn any(&self) -> bool {
        self.mesh.any(self.me)
    }

    /// Wakes `worker`, if it sleeps.
    pub fn rouse(&self, worker: usize) {
        if self.mesh.rouse(worker) {
            self.bell.ring(worker);
        }
    }

    /// From now on senders ring. False: something has come in between.
    pub fn sleep(&self) -> bool {
        self.mesh.stop_polling(self.me, || self.bell.barrier());
        self.mesh.sleep(self.me)
    }

    /// From now on senders need not ring.
    pub fn awake(&self) {
        self.mesh.awake(self.me);
    }

    /// This worker has sent its last and reads no more, and nobody will take its seat.
    pub fn leave(&self) {
        self.mesh.leave(self.me);
    }

    /// Whether `worker` has done so.
    pub fn has_left(&self, worker: usize) -> bool {
        self.mesh.has_left(worker)
    }

    /// Takes out what nobody will read: how many messages, which `lost` is told ring by ring. For the
    /// last one of a generation; once.
    pub fn settle(&self, lost: impl FnMut(usize)) -> usize {
        if self.mesh.settle() { unread_of_all(self.mesh, lost) } else { 0 }
    }

    /// Whether more than so many workers are awake.
    pub fn is_crowded(&self, limit: usize) -> bool {
        self.mesh.is_crowded(limit)
    }
}

/// Takes out of the rings of an older generation what nobody will read: how many messages, which
/// `lost` is told ring by ring. When all its workers are gone. None for all but the first to call:
/// that one may still be at it.
pub fn inherit(mesh: Mesh<'_>, lost: impl FnMut(usize)) -> Option<usize> {
    mesh.inherit().then(|| unread_of_all(mesh, lost))
}

fn unread_of_all(mesh: Mesh<'_>, mut lost: impl FnMut(usize)) -> usize {
    let workers = mesh.workers();
    let pairs = (0..workers).flat_map(|from| (0..workers).map(move |to| (from, to)));
    let rings = pairs.filter_map(|(from, to)| mesh.ring(from, to));
    rings.map(|ring| unread(ring.consumer())).inspect(|messages| lost(*messages)).sum()
}

/// Messages whose last record is there; the others' rest is held by their senders, who count them.
fn unread(mut ring: Consumer<'_>) -> usize {
    let mut messages = 0;
    while let Some(record) = ring.take() {
        messages += Header::decode(record)
            .map_or(0, |(header, _, piece)| usize::from(header.is_last(piece)));
    }
    messages
}

/// The ring transport's end of the seam.
pub struct Writer<'m, B> {
    bells: Bells<'m, B>,
    to: usize,
    producer: Producer<'m>,
    piece: usize,
    /// This process takes part in barriers.
    ordered: bool,
}

impl<B: Bell> Wire for Writer<'_, B> {
    #[inline]
    fn piece(&self) -> usize {
        self.piece
    }

    #[inline(always)]
    fn put(&mut self, header: &[u8; HEADER], name: &[u8], piece: &[u8]) -> Put {
        if self.bells.mesh.has_left(self.to) {
            return Put::Gone;
        }
        let parts: [&[u8]; 3] = [header, name, piece];
        if self.producer.write(parts).is_err()
            && !(self.producer.want_room() && self.producer.write(parts).is_ok())
        {
            return Put::Blocked;
        }
        let (me, to, mesh) = (self.bells.me, self.to, &self.bells.mesh);
        if mesh.publish(&mut self.producer, me, to, self.ordered) {
            return Put::Taken;
        }
        if self.bells.bell.holds(self.to) {
            self.bells.mesh.note(self.bells.me, self.to);
        } else if self.bells.mesh.mail(self.bells.me, self.to) {
            self.bells.bell.ring(self.to);
        }
        Put::Taken
    }
}

/// The rings that this worker reads, one per sender.
pub struct Reader<'m, B> {
    bells: Bells<'m, B>,
    consumers: Vec<Option<Consumer<'m>>>,
    /// Senders whose rings are to be looked at, in this round and in the next.
    bits: u128,
    later: u128,
    current: usize,
    streak: usize,
    /// This process takes part in barriers.
    ordered: bool,
    /// The ring that records come from,
    busy: usize,
    /// how many have since another one's last,
    taken: u32,
    /// and how often the worker had slept before them.
    naps: u32,
}

impl<'m, B: Bell> Reader<'m, B> {
    /// Looks at everything that is there already.
    pub fn new(bells: Bells<'m, B>) -> Self {
        let consumers: Vec<_> = (0..bells.mesh.workers())
            .map(|from| (from != bells.me).then(|| bells.mesh.ring(from, bells.me))?)
            .map(|ring| ring.map(Ring::consumer))
            .collect();
        // a predecessor may have polled
        bells.mesh.stop_polling(bells.me, || bells.bell.barrier());
        let bits = bells.mesh.enter(bells.me);
        for (ring, from) in consumers.iter().zip(0..) {
            if ring.as_ref().is_some_and(Consumer::is_used) {
                // a predecessor may have died between being asked for room and telling of it
                bells.mesh.room(from);
                bells.bell.ring(from);
            }
        }
        let ordered = bells.bell.takes_part();
        let (current, busy) = (usize::MAX, usize::MAX);
        let (later, streak, taken, naps) = (0, 0, 0, 0);
        Reader { bells, consumers, bits, later, current, streak, ordered, busy, taken, naps }
    }

    /// Looks into all rings: whether there is a record that no bell has told of, for its sender was
    /// killed before it could. `ready` finds it then.
    pub fn overlooked(&mut self) -> bool {
        for (ring, from) in self.consumers.iter_mut().zip(0..) {
            if ring.as_mut().is_some_and(|ring| !ring.is_empty()) {
                self.bits |= 1 << from;
            }
        }
        self.bits != 0
    }

    /// Whether there is a record; then `record` hands it out.
    #[inline]
    pub fn ready(&mut self) -> bool {
        loop {
            if let Some(Some(ring)) = self.consumers.get_mut(self.current) {
                let more = !ring.is_empty();
                if more && self.streak < STREAK {
                    return true;
                }
                if more {
                    self.later |= 1 << self.current;
                } else {
                    ring.caught_up();
                    if ring.wanted() {
                        self.give_room(self.current);
                    }
                }
            }
            if self.bits == 0 {
                self.bits =
                    std::mem::take(&mut self.later) | self.bells.mesh.senders(self.bells.me);
            }
            if self.bits == 0 {
                self.current = usize::MAX;
                return false;
            }
            self.current = self.bits.trailing_zeros() as usize;
            self.bits &= self.bits - 1;
            self.streak = 0;
        }
    }

    /// The record that `ready` has found; the one before it is gone.
    #[inline]
    pub fn record(&mut self) -> Option<&[u8]> {
        self.streak += 1;
        if self.current != self.busy {
            (self.busy, self.taken) = (self.current, 0);
            self.naps = self.bells.mesh.naps(self.bells.me);
        }
        self.taken = self.taken.wrapping_add(1);
        if self.taken % BUSY == 0 && self.ordered {
            self.poll_current();
        }
        if let Some(Some(ring)) = self.consumers.get_mut(self.current)
            && ring.half()
            && ring.wanted()
        {
            self.give_room(self.current);
        }
        self.consumers.get_mut(self.current)?.as_mut()?.take()
    }

    /// Looks into this ring without being told, if it alone has kept the worker from sleeping for a
    /// while: that spares both sides the bell for each record, and costs a look each time, and a
    /// barrier before the next sleep.
    #[cold]
    fn poll_current(&mut self) {
        let naps = self.bells.mesh.naps(self.bells.me);
        if naps == self.naps {
            self.bells.mesh.poll(self.bells.me, self.current);
        }
        self.naps = naps;
    }

    /// Lets a sender that waits for room write again.
    fn give_room(&self, to: usize) {
        if self.bells.mesh.room(to) {
            self.bells.bell.ring(to);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::Word;
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    #[derive(Clone, Default)]
    struct Rung(Rc<Cell<usize>>);

    impl Bell for Rung {
        fn ring(&self, _worker: usize) {
            self.0.set(self.0.get() + 1);
        }
    }

    const RING: usize = 16 << 10;

    fn memory() -> Vec<Word> {
        (0..Mesh::size_with(2, RING) / 8 + 16).map(|_| Word::new(0)).collect()
    }

    fn mesh(memory: &[Word]) -> Mesh<'_> {
        let skip = memory.as_ptr().cast::<u8>().align_offset(128) / 8;
        Mesh::with_rings(&memory[skip..], 2, RING).unwrap()
    }

    /// A sender killed between its record and the bell leaves a sleeper whom nothing tells.
    #[test]
    fn a_record_without_a_bell_is_found_by_looking_for_it() {
        let memory = memory();
        let mesh = mesh(&memory);
        let bells = Bells::new(mesh, 1, Rung::default());
        let mut reader = Reader::new(bells.clone());
        assert!(!reader.ready() && bells.sleep());
        mesh.ring(0, 1).unwrap().producer().put([b"last words", b"", b""]).unwrap();
        assert!(!reader.ready() && !bells.any());
        assert!(reader.overlooked());
        assert!(reader.ready());
        assert_eq!(reader.record(), Some(&b"last words"[..]));
        assert!(!reader.ready() && !reader.overlooked());
    }

    #[test]
    fn what_is_left_is_told_ring_by_ring_and_once() {
        let memory = memory();
        let mesh = mesh(&memory);
        let header = Header {
            kind: crate::proto::ipc::frame::Kind::Message,
            sender: crate::proto::ipc::Pid(1),
            seat: crate::proto::ipc::Seat {
                generation: crate::proto::ipc::Generation(1),
                worker: crate::proto::ipc::WorkerId(0),
            },
            addressee: crate::proto::ipc::Addressee::Seat,
            name: 0,
            total: 4,
            offset: 0,
            call: 0,
        };
        for (from, count) in [(0, 2), (1, 3)] {
            let mut writer = Bells::new(mesh, from, Rung::default()).writer(1 - from).unwrap();
            for _ in 0..count {
                assert_eq!(writer.put(&header.encode(), b"", b"data"), Put::Taken);
            }
            // its rest was never sent: whoever held it counts it
            assert_eq!(writer.put(&header.encode(), b"", b"da"), Put::Taken);
        }
        let bells = Bells::new(mesh, 0, Rung::default());
        let mut told = Vec::new();
        assert_eq!(bells.settle(|messages| told.push(messages)), 5);
        assert_eq!(told.iter().filter(|messages| **messages > 0).sum::<usize>(), 5);
        assert_eq!(bells.settle(|_| panic!("told twice")), 0);
    }
}
