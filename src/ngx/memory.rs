//! Anonymous shared memory that a process and those it forks see alike.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// A mapping, zeroed when new, unmapped on drop (in this process only).
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<AtomicU64>,
    bytes: usize,
}

// SAFETY: it is made of atomics, and unmapped by its one owner.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Of at least `bytes`. Pages cost nothing before they are written to.
    pub fn new(bytes: usize) -> Result<Mapping, Errno> {
        let length = NonZeroUsize::new(bytes.max(1)).unwrap_or(NonZeroUsize::MIN);
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping touches no existing memory.
        let start = unsafe { mmap_anonymous(None, length, protection, flags) }?;
        Ok(Mapping { start: start.cast(), bytes })
    }

    /// Gives the pages back, for all processes: nobody uses what is in them any more. It reads as
    /// zeroes from now on.
    pub fn release(&self) {
        // SAFETY: mapped by new() with that length; shared, so the kernel frees the pages themselves,
        // and what words() has given out stays mapped.
        let _ = unsafe { madvise(self.start.cast(), self.bytes.max(1), MmapAdvise::MADV_REMOVE) };
    }

    /// The memory. The caller keeps the mapping for as long as it uses it, which a worker does for
    /// that of its own generation by never dropping it.
    pub fn words(&self) -> &'static [AtomicU64] {
        // SAFETY: mapped, page-aligned, of that length, and made of atomics, for which every
        // content is valid. 'static is the contract above.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes / 8) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by new() with that length.
        let _ = unsafe { munmap(self.start.cast(), self.bytes.max(1)) };
    }
}
