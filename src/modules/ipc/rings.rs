//! The ring transport of this worker's generation as `shm::ends` has it, with eventfds for bells.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::ngx::socket;
use crate::shm::ends::{self, Bell};
use crate::shm::mesh::Mesh;

/// By worker id.
#[derive(Clone)]
pub struct Fds(Arc<[OwnedFd]>);

impl Bell for Fds {
    #[inline]
    fn ring(&self, worker: usize) {
        if let Some(fd) = self.0.get(worker) {
            socket::ring(fd);
        }
    }
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
    /// This worker's own.
    pub fn own(&self) -> Option<&OwnedFd> {
        self.bell().0.get(self.me())
    }
}
