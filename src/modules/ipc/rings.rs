//! The ring transport of this worker's generation as `shm::ends` has it, with eventfds for bells.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::ngx::{membarrier, socket};
use crate::shm::ends::{self, Bell};
use crate::shm::mesh::Mesh;

/// By worker id.
#[derive(Clone)]
pub struct Fds(Arc<[OwnedFd]>);

/// Workers to be woken a little later, so that what is sent to them in one turn of the event loop
/// costs one wake-up, and finds them asleep until it is all there.
struct Held {
    holding: Cell<bool>,
    workers: Cell<u128>,
}

thread_local! {
    static HELD: Held = const { Held { holding: Cell::new(false), workers: Cell::new(0) } };
}

impl Bell for Fds {
    #[inline]
    fn ring(&self, worker: usize) {
        if let Some(fd) = self.0.get(worker) {
            socket::ring(fd);
        }
    }

    #[inline]
    fn holds(&self, worker: usize) -> bool {
        HELD.with(|held| {
            let bit = 1u128.checked_shl(worker as u32).filter(|_| held.holding.get());
            held.workers.set(held.workers.get() | bit.unwrap_or(0));
            bit.is_some()
        })
    }

    fn takes_part(&self) -> bool {
        membarrier::take_part()
    }

    #[inline]
    fn barrier(&self) {
        membarrier::all();
    }
}

/// Sends by `send`, but wakes nobody before `rouse_held`. Who is killed in between leaves what a
/// process leaves that is killed between a record and its bell: its successor rings.
pub fn quietly<R>(send: impl FnOnce() -> R) -> R {
    HELD.with(|held| held.holding.set(true));
    let result = send();
    HELD.with(|held| held.holding.set(false));
    result
}

/// The same; whom to wake later `wakes` says, a bit each, which is told who was written to and is not
/// known to look by itself.
pub fn quietly_to<R>(send: impl FnOnce() -> R, wakes: impl FnOnce(u128) -> u128) -> R {
    let before = HELD.with(|held| held.workers.take());
    let result = quietly(send);
    let wakes = wakes(HELD.with(|held| held.workers.take()));
    HELD.with(|held| held.workers.set(before | wakes));
    result
}

/// The bells of a generation, and this worker's number in it.
pub type Bells = ends::Bells<'static, Fds>;
/// The writing end of one ring.
pub type Writer = ends::Writer<'static, Fds>;
/// The rings that this worker reads.
pub type Reader = ends::Reader<'static, Fds>;

/// Of worker `me` in the generation behind `mesh`; `fds` by worker id.
pub fn bells(mesh: Mesh<'static>, me: usize, fds: Vec<OwnedFd>) -> Bells {
    Bells::new(mesh, me, Fds(fds.into()))
}

impl Bells {
    /// Wakes those who were written to quietly.
    pub fn rouse_held(&self) {
        let mut workers = HELD.with(|held| held.workers.take());
        while workers != 0 {
            self.rouse(workers.trailing_zeros() as usize);
            workers &= workers - 1;
        }
    }

    /// This worker's own.
    pub fn own(&self) -> Option<&OwnedFd> {
        self.bell().0.get(self.me())
    }
}
