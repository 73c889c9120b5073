//! Memory barriers in other processes, by `membarrier(2)` (Linux 4.16): who waits seldom pays for
//! those who write often.

use libc::{SYS_membarrier, c_int, c_long, syscall};

/// `linux/membarrier.h`: a barrier in all running threads of the processes that registered.
const GLOBAL_EXPEDITED: c_int = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: c_int = 1 << 2;

fn membarrier(command: c_int) -> c_long {
    // SAFETY: takes two numbers and no pointer.
    unsafe { syscall(SYS_membarrier, command, 0) }
}

/// Has the barriers of others reach this process. False where the kernel, or a filter of system calls,
/// has none to offer.
pub fn take_part() -> bool {
    membarrier(REGISTER_GLOBAL_EXPEDITED) == 0 && membarrier(GLOBAL_EXPEDITED) == 0
}

/// A full barrier here, and in each process that takes part.
pub fn all() {
    if membarrier(GLOBAL_EXPEDITED) != 0 {
        // it did when this process took part, so somebody forbids it since: what another core has
        // stored is seen long before this is over
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
