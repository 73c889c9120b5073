//! Socket pairs between workers: whole records, never waiting, a descriptor on the side.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::kill;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType,
    recvmsg, sendmsg, shutdown, socketpair,
};
use nix::unistd;

/// A line to one worker: what is sent at one end is received at the other.
#[derive(Debug)]
pub struct Line {
    /// Shared by all senders.
    pub send: OwnedFd,
    /// The worker's own; the master keeps it for the worker's successors.
    pub receive: Option<OwnedFd>,
}

/// A new line; neither end survives an exec.
pub fn line() -> Result<Line, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (send, receive) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    Ok(Line { send, receive: Some(receive) })
}

/// A bell: whoever rings it wakes the event loop that watches it.
pub fn bell() -> Result<OwnedFd, Errno> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    EventFd::from_value_and_flags(0, flags).map(OwnedFd::from)
}

/// Rings it. It cannot fail but when it was rung 2^64 times unheard.
pub fn ring(bell: &OwnedFd) {
    let _ = unistd::write(bell, &1u64.to_ne_bytes());
}

/// Makes it silent, for event methods that report a level.
pub fn silence(bell: BorrowedFd<'_>) {
    let _ = unistd::read(bell, &mut [0; 8]);
}

/// A second descriptor of the same end.
pub fn duplicate(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(0))?;
    // SAFETY: fcntl has just made it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Whether both are ends of one socket.
pub fn same(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    let id = |fd: BorrowedFd<'_>| nix::sys::stat::fstat(fd).map(|s| (s.st_dev, s.st_ino));
    matches!((id(a), id(b)), (Ok(a), Ok(b)) if a == b)
}

/// Sends `parts` as one record, with `passed` beside it.
pub fn send(
    to: BorrowedFd<'_>,
    parts: [&[u8]; 3],
    passed: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let parts = parts.map(IoSlice::new);
    let fds: [RawFd; 1] = [passed.map_or(-1, |fd| fd.as_raw_fd())];
    let control = [ControlMessage::ScmRights(&fds)];
    let control = if passed.is_some() { &control[..] } else { &[] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(to.as_raw_fd(), &parts, control, flags, None).map(|_| ())
}

/// Receives one record into `buf`; its length and the descriptor that came beside it.
pub fn receive(from: BorrowedFd<'_>, buf: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut parts = [IoSliceMut::new(buf)];
    let mut control = nix::cmsg_space!([RawFd; 1]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    if message.bytes == 0 {
        return Err(Errno::EPIPE); // after hang_up(): nothing more is there, nor will be
    }
    let mut passed = None;
    for item in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(fds) = item {
            for fd in fds {
                // SAFETY: the kernel has just installed it in this process for us alone.
                passed = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok((message.bytes, passed))
}

/// From now on whoever sends to this end is told that nobody is there; what has come stays.
pub fn hang_up(end: BorrowedFd<'_>) {
    let _ = shutdown(end.as_raw_fd(), Shutdown::Read);
}

/// Waits for something to read, at most so many milliseconds.
pub fn wait(on: BorrowedFd<'_>, milliseconds: u16) {
    let _ = poll(&mut [PollFd::new(on, PollFlags::POLLIN)], milliseconds);
}

/// Whether a process of that id exists, a zombie not yet reaped included.
pub fn alive(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(|pid| kill(unistd::Pid::from_raw(pid), None) != Err(Errno::ESRCH))
}

/// Whether it does anything yet: a zombie does not.
pub fn runs(pid: u32) -> bool {
    alive(pid) && stat(pid).is_none_or(|(state, _)| !matches!(state, b'Z' | b'X'))
}

/// The same, of another child of this one's parent.
pub fn is_sibling(pid: u32) -> bool {
    let parent = unistd::getppid().as_raw();
    let runs = |(state, of)| !matches!(state, b'Z' | b'X') && of == parent;
    alive(pid) && pid != std::process::id() && stat(pid).is_none_or(runs)
}

/// What the kernel tells of a process: its state, its parent. None where it tells nothing.
fn stat(pid: u32) -> Option<(u8, i32)> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // behind the name, which may hold any byte
    let mut fields = stat.rsplit(|byte| *byte == b')').next()?.split(|byte| *byte == b' ').skip(1);
    let state = *fields.next()?.first()?;
    Some((state, std::str::from_utf8(fields.next()?).ok()?.parse().ok()?))
}

/// The end's descriptor for an event loop.
pub fn raw(fd: &OwnedFd) -> RawFd {
    fd.as_fd().as_raw_fd()
}
