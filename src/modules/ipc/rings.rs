//! The ring transport of this worker's generation: the rings it reads, the bells it rings, and
//! the writing end of one ring as the seam wants it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::ngx::socket;
use crate::proto::ipc::NAME_MAX;
use crate::proto::ipc::frame::HEADER;
use crate::proto::ipc::outbox::{Put, Wire};
use crate::shm::mesh::Mesh;
use crate::shm::ring::{Consumer, Producer, Ring};

/// Records taken from one ring before the next one's turn.
const STREAK: usize = 64;

/// The bells of a generation, and this worker's number in it.
#[derive(Clone)]
pub struct Bells {
    mesh: Mesh<'static>,
    me: usize,
    fds: Arc<[OwnedFd]>,
}

impl Bells {
    /// Of the generation behind `mesh`; `fds` by worker id.
    pub fn new(mesh: Mesh<'static>, me: usize, fds: Vec<OwnedFd>) -> Bells {
        Bells { mesh, me, fds: fds.into() }
    }

    /// This worker's own.
    pub fn own(&self) -> Option<&OwnedFd> {
        self.fds.get(self.me)
    }

    fn ring(&self, worker: usize) {
        if let Some(fd) = self.fds.get(worker) {
            socket::ring(fd);
        }
    }

    /// The writing end of the ring to worker `to`.
    pub fn writer(&self, to: usize) -> Option<Writer> {
        let producer = self.mesh.ring(self.me, to)?.producer();
        let piece = Ring::longest(Mesh::ring_size(self.mesh.workers())) / 2 - HEADER - NAME_MAX;
        Some(Writer { bells: self.clone(), to, producer, piece })
    }

    /// Whether some receiver has room again.
    pub fn has_room(&self) -> bool {
        self.mesh.has_room(self.me)
    }

    /// Whether something waits for this worker.
    pub fn any(&self) -> bool {
        self.mesh.any(self.me)
    }

    /// From now on senders ring. False: something has come in between.
    pub fn sleep(&self) -> bool {
        self.mesh.sleep(self.me)
    }

    /// From now on senders need not ring.
    pub fn awake(&self) {
        self.mesh.awake(self.me);
    }

    /// How many workers are awake.
    pub fn busy(&self) -> usize {
        self.mesh.busy()
    }
}

/// The ring transport's end of the seam.
pub struct Writer {
    bells: Bells,
    to: usize,
    producer: Producer<'static>,
    piece: usize,
}

impl Wire for Writer {
    fn piece(&self) -> usize {
        self.piece
    }

    fn put(&mut self, header: &[u8; HEADER], name: &[u8], piece: &[u8]) -> Put {
        let parts: [&[u8]; 3] = [header, name, piece];
        if self.producer.put(parts).is_err()
            && !(self.producer.want_room() && self.producer.put(parts).is_ok())
        {
            return Put::Blocked;
        }
        if self.bells.mesh.mail(self.bells.me, self.to) {
            self.bells.ring(self.to);
        }
        Put::Taken
    }
}

/// The rings that this worker reads, one per sender.
pub struct Reader {
    bells: Bells,
    consumers: Vec<Option<Consumer<'static>>>,
    /// Senders whose rings are to be looked at, in this round and in the next.
    bits: u128,
    later: u128,
    current: usize,
    streak: usize,
}

impl Reader {
    /// Looks at everything that is there already.
    pub fn new(bells: Bells) -> Reader {
        let consumers = (0..bells.mesh.workers())
            .map(|from| (from != bells.me).then(|| bells.mesh.ring(from, bells.me))?)
            .map(|ring| ring.map(Ring::consumer))
            .collect();
        let bits = bells.mesh.enter(bells.me);
        Reader { bells, consumers, bits, later: 0, current: usize::MAX, streak: 0 }
    }

    /// Whether there is a record; then `record` hands it out.
    pub fn ready(&mut self) -> bool {
        loop {
            if let Some(Some(ring)) = self.consumers.get_mut(self.current) {
                let more = !ring.is_empty();
                if more && self.streak < STREAK {
                    return true;
                }
                if more {
                    self.later |= 1 << self.current;
                } else if ring.wanted() {
                    self.give_room(self.current);
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
    pub fn record(&mut self) -> Option<&[u8]> {
        self.streak += 1;
        if let Some(Some(ring)) = self.consumers.get_mut(self.current)
            && ring.half()
            && ring.wanted()
        {
            self.give_room(self.current);
        }
        self.consumers.get_mut(self.current)?.as_mut()?.take()
    }

    /// Lets a sender that waits for room write again.
    fn give_room(&self, to: usize) {
        if self.bells.mesh.room(to) {
            self.bells.ring(to);
        }
    }
}
