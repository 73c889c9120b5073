//! Processes beside this one: told by the kernel when one ends (pidfd), how it ended, who the
//! master is, what the master knew of the process before this one, and a lock word to sleep on.

use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::AtomicU32;

use ngx::ffi;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::ngx::cycle::Cycle;

/// A descriptor of a process: readable once it has ended. ENOSYS before Linux 5.3, ESRCH where
/// there is none of that id.
pub fn open(pid: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: a system call on numbers only; close-on-exec is its default.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Which of the processes behind these descriptors run: one system call for all. Nobody where it
/// fails, for then nothing is known.
pub fn running(processes: &[BorrowedFd<'_>]) -> Vec<bool> {
    let mut asked: Vec<PollFd<'_>> =
        processes.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    let told = poll(&mut asked, PollTimeout::ZERO).is_ok();
    // whatever it says of a descriptor, an error, too, is no word of a process that runs
    asked.iter().map(|fd| told && fd.revents() == Some(PollFlags::empty())).collect()
}

/// `struct pidfd_info` as of its first version.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit: i32,
}

const INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const GET_INFO: u64 = 3 << 30 | (size_of::<Info>() as u64) << 16 | 0xff << 8 | 11;

/// How a process ended whose descriptor is readable. The kernel tells strangers since Linux 6.15,
/// once the parent has heard it; before that moment /proc tells the same user. On older kernels
/// nobody knows once the parent has heard it.
pub fn ended(process: BorrowedFd<'_>, pid: u32) -> Option<i32> {
    told(process).or_else(|| zombie(pid)).or_else(|| told(process))
}

fn told(process: BorrowedFd<'_>) -> Option<i32> {
    let mut info = Info { mask: INFO_EXIT, ..Info::default() };
    // SAFETY: the request carries the size of what it writes.
    let done = unsafe { libc::ioctl(process.as_raw_fd(), GET_INFO as _, &raw mut info) };
    (done == 0 && info.mask & INFO_EXIT != 0).then_some(info.exit)
}

fn zombie(pid: u32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the fields come behind the name, which may hold anything
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_ascii_whitespace().collect();
    let ended = matches!(fields.first(), Some(&"Z" | &"X"));
    // exit_code is the 52nd field, and reads 0 for who may not see it: 0 is no crash's anyway
    fields.get(49).filter(|_| ended)?.parse().ok().filter(|status| *status != 0)
}

/// Descriptors behind one: an epoll instance of our own, so that whatever nginx's event method is,
/// one connection stands for all of them, and an edge is an edge.
pub struct Bundle(Epoll);

impl Bundle {
    /// An empty one.
    pub fn new() -> Result<Bundle, Errno> {
        Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map(Bundle)
    }

    /// Tells of `fd` under that number, each time that something happens to it.
    pub fn add(&self, fd: BorrowedFd<'_>, number: u64) -> Result<(), Errno> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        self.0.add(fd, EpollEvent::new(flags, number))
    }

    /// The numbers of those that something happened to; after this the bundle is silent.
    pub fn drain(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        let mut events = [EpollEvent::empty(); 64];
        while let Ok(count @ 1..) = self.0.wait(&mut events, EpollTimeout::ZERO) {
            numbers.extend(events.iter().take(count).map(EpollEvent::data));
        }
        numbers
    }

    /// To be watched.
    pub fn fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

/// What the master knew, when it forked this process, of the one that it replaces: id and wait status. It
/// forks a successor with the table entry of the dead.
pub fn predecessor() -> Option<(u32, i32)> {
    // SAFETY: the master wrote both before the fork; this process only reads its copy.
    let entry = unsafe {
        let slot = usize::try_from(ffi::ngx_process_slot).ok()?;
        (slot < ffi::NGX_MAX_PROCESSES as usize).then(|| {
            (&raw const ffi::ngx_processes).cast::<ffi::ngx_process_t>().add(slot).read()
        })?
    };
    let pid = u32::try_from(entry.pid).ok().filter(|pid| *pid != 0)?;
    (entry.exited() != 0).then_some((pid, entry.status))
}

/// The master of this worker; of a master, its own parent.
pub fn parent() -> u32 {
    // SAFETY: written by main() and ngx_spawn_process only.
    u32::try_from(unsafe { ffi::ngx_parent }).unwrap_or(0)
}

/// In the master: whether its sockets were handed to it.
pub fn inherited() -> bool {
    // SAFETY: set once in main().
    unsafe { ffi::ngx_inherited != 0 }
}

/// The master that has started another binary, as its renamed pid file says; None where there is
/// no such file, or it is not for this user's eyes.
pub fn old_master(cycle: Cycle<'_>) -> Option<u32> {
    // SAFETY: the core module's conf is there in every cycle; init_conf has set oldpid, where conf_ctx is.
    let path = unsafe {
        // an exiting worker's last cycle has none
        (!cycle.get().conf_ctx.is_null()).then_some(())?;
        let conf = (*cycle.get().conf_ctx.add(ffi::ngx_core_module.index))
            .cast::<ffi::ngx_core_conf_t>()
            .as_ref()?;
        // NUL-terminated there (ngx_core_module_init_conf)
        (!conf.oldpid.data.is_null()).then(|| CStr::from_ptr(conf.oldpid.data.cast()))?
    };
    fs::read_to_string(path.to_str().ok()?).ok()?.trim().parse().ok()
}

/// Sleeps until `word` is no longer `value`, somebody calls [`wake`], or the time is over.
pub fn sleep_on(word: &AtomicU32, value: u32, milliseconds: u32) {
    let time = libc::timespec {
        tv_sec: libc::time_t::from(milliseconds / 1000),
        tv_nsec: libc::c_long::from(milliseconds % 1000) * 1_000_000,
    };
    // SAFETY: the word and the time outlive the call, which reads them only.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, &raw const time);
    }
}

/// Wakes who sleeps on `word`.
pub fn wake(word: &AtomicU32) {
    let none = ptr::null::<libc::timespec>();
    // SAFETY: only the address counts.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX, none) };
}
