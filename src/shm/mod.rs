//! SHARED. What lives in shared memory: unsafe but nginx-free, so that loom and Miri can run it.
//! Knows proto; called by `modules`.
//!
//! # What happens to it over reloads, crashes and upgrades
//!
//! One zone (`cc_zone`) belongs to one master. It survives a reload when its size, the part of it
//! that is for retained values (`cc_ipc_retain`) and the loaded library are the same; then old and new
//! workers see each other in it.
//!
//! * **Load and reload.** The master counts a generation up once a new configuration is in force,
//!   never for one that failed, and writes how many workers it has.
//! * **A worker starts.** It claims a slot: the one of a dead process in the same seat (generation
//!   and worker number), else a free one, else one whose process is dead. The claim is one
//!   compare-and-swap of the identity word, so a reader sees the old owner or the new one, never
//!   half of each. A process killed in the middle of it has either claimed or not.
//! * **A worker leaves** in good order: it says *retiring*. While it still serves requests it gets
//!   what its own and older generations send, and what is addressed to its process (a reply, for
//!   one); newer generations' broadcasts pass it by. When nothing but its receivers keeps it, they
//!   end, and it frees the slot. **It is killed**: its word stays until the successor in its seat takes
//!   the slot over, or somebody looks for a free one; readers ask the kernel whether the process lives.
//!   **Another one is started in its seat** before it has left (HUP after WINCH and USR2): it is asked to
//!   give way, keeps its slot, and has no seat any more. What waited in it for others is lost.
//! * **Counters** belong to the slot, are only added to, and outlive its owners.
//! * **Transport.** A worker is born with the lines of its own generation (made by the master
//!   before the fork, so that a failed reload drops them unused) and of the live older ones. To those
//!   it says hello and hands over its own line, so that a retiring worker's last words reach the new workers.
//!   Mail for a process dies with the process; mail for a seat waits for the successor.
//!   A worker killed between a record and the bell has left a sleeper behind that everybody takes
//!   for awake: the successor rings for every ring that was ever used.
//! * **A worker of an older generation is killed**: nobody follows it. The newest workers hold its
//!   generation's rings and the receiving ends of its lines, read what it has not read, and count it
//!   as lost: a line's once its worker is dead, the rings' when the whole generation is.
//! * **The zone changes** (other sizes, other library build) or the binary is upgraded: a new zone
//!   starts at generation 1, the generations do not see each other, and the log says so.
//! * **Lives** (`lifecycle`) are rows beside the slots, a journal and counters. A worker writes that
//!   it starts, retires, leaves; whoever first notices a death writes that, the successor at the
//!   latest. Each is an intent first, which the next one finishes where its writer was killed.
//! * **Retained values** belong to nobody: they outlive who set them, and reloads. Their writers take
//!   turns by a lock word that names its owner; where that one is dead, the next repairs what it
//!   left half done and goes on. What it had reserved goes with it. Readers need no lock; only one
//!   that writers overtake again and again takes it, to hold what it copies.
//! * **Casts** that came from above are remembered by all routers that were, so none runs twice.
//! * **The node table** is written by one router after another. A record has two copies, so that one
//!   that is killed while it writes, or wakes up long after another took over, shows readers nothing
//!   half done. The node's epoch is the time of its master's start; it stays over reloads, also into
//!   a new zone.
//!
//! No pointers are stored, only numbers. A lock is held over links and counts only, and a
//! dead owner is passed over; what an unknown process may have scribbled is masked to its range
//! when it is read.

#![allow(unsafe_code)]

mod atomic;
pub mod casts;
pub mod ends;
pub mod failures;
pub mod lifecycle;
mod lock;
#[cfg(all(test, loom))]
mod loom_tests;
pub mod mesh;
pub mod metrics;
pub mod nodes;
pub mod peers;
pub mod retained;
pub mod ring;
#[cfg(all(test, not(loom), not(miri)))]
mod sim;
pub mod slots;
pub mod tally;

use atomic::{AtomicU32, AtomicU64};

/// What shared memory is made of before it is known what lives there.
pub type Word = std::sync::atomic::AtomicU64;

/// A type that may live in shared memory.
///
/// # Safety
/// Every bit pattern is a valid value, all-zero is a fresh one, there are no pointers in it, its layout is fixed
/// (`repr(C)` or an atomic), and it is changed through atomics only. (Under loom it lives in memory
/// of its own, see `at`.)
pub unsafe trait Shared: Sync {}

// SAFETY: an atomic integer has no invalid bit pattern and no pointer in it.
unsafe impl Shared for AtomicU32 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU64 {}
#[cfg(any(test, loom))]
// SAFETY: as above; only there is it another type than AtomicU64.
unsafe impl Shared for Word {}
// SAFETY: an array of such.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// A `T` at the start of `memory`; None where it does not fit.
pub fn at<T: Shared>(memory: &[Word]) -> Option<&T> {
    several(memory, 1)?.first()
}

/// So many `T` at the start of `memory`; None where they do not fit.
pub fn several<T: Shared>(memory: &[Word], count: usize) -> Option<&[T]> {
    let start = memory.as_ptr().cast::<T>();
    let size = size_of::<T>().checked_mul(count)?;
    // loom's atomics are no plain words, its tests make what they need
    let fits = start.is_aligned() && size <= size_of_val(memory) && cfg!(not(loom));
    // SAFETY: size and alignment were checked, the memory is borrowed for as long as the result,
    // it is made of atomics and T is read through atomics only, whatever it holds (Shared).
    fits.then(|| unsafe { std::slice::from_raw_parts(start, count) })
}
