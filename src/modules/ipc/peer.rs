//! One receiver as this worker sees it: the way to it, once known, and what waits for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::ngx::event::{Direction, Handlers, Watch};
use crate::ngx::socket;
use crate::proto::ipc::Outgoing;
use crate::proto::ipc::frame::{HEADER, Header};
use crate::proto::ipc::outbox::{Outbox, Put, Refused, Wire};

/// A receiver.
pub struct Peer {
    send: Option<OwnedFd>,
    outbox: Outbox,
    /// While something waits: tells when there is room.
    room: Option<Watch>,
    /// Whether the receiver can no longer be reached.
    gone: bool,
}

impl Peer {
    /// A receiver behind `send`, or one that has not said hello yet; at most `queue` bytes wait.
    pub fn new(send: Option<OwnedFd>, queue: usize) -> Peer {
        Peer { send, outbox: Outbox::new(queue), room: None, gone: false }
    }

    /// Sends or queues; `room` is called when a full line has room again.
    pub fn send(&mut self, message: &Outgoing<'_>, room: &'static Handlers) -> Result<(), Refused> {
        if self.gone {
            return Err(Refused::Gone);
        }
        let mut wire = self.send.as_ref().map(|fd| Socket(fd.as_fd()));
        let result = self.outbox.send(message, wire.as_mut());
        self.gone |= result == Err(Refused::Gone);
        self.watch(room);
        result
    }

    /// Writes what waits; how many messages were lost because nobody can read them any more.
    pub fn flush(&mut self, room: &'static Handlers) -> usize {
        let Some(fd) = &self.send else { return 0 };
        let (put, lost) = self.outbox.flush(&mut Socket(fd.as_fd()));
        self.gone |= put == Put::Gone;
        self.watch(room);
        lost
    }

    /// Learns the way to the receiver, and sends what has waited for it.
    pub fn learn(&mut self, send: OwnedFd, room: &'static Handlers) -> usize {
        if self.send.is_none() {
            self.send = Some(send);
        }
        self.flush(room)
    }

    /// Tells the receiver where this worker's own line begins. False where that could not be sent
    /// now.
    pub fn hello(&self, header: &Header, own: BorrowedFd<'_>) -> bool {
        let Some(fd) = &self.send else { return false };
        socket::send(fd.as_fd(), [&header.encode(), &[], &[]], Some(own)).is_ok()
    }

    /// How many messages wait.
    pub fn waiting(&self) -> usize {
        self.outbox.len()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// A watch costs a wake-up for each record that the receiver takes, so it stands only while
    /// something waits. Without a free connection the next send or housekeeping tries again.
    fn watch(&mut self, room: &'static Handlers) {
        if self.outbox.is_empty() {
            self.room = None;
        } else if let (None, Some(fd)) = (&self.room, &self.send) {
            self.room = Watch::new(socket::raw(fd), Direction::Write, room);
        }
    }
}

/// The socket transport's end of the seam.
struct Socket<'fd>(BorrowedFd<'fd>);

impl Wire for Socket<'_> {
    fn put(&mut self, header: &[u8; HEADER], name: &[u8], piece: &[u8]) -> Put {
        loop {
            return match socket::send(self.0, [header, name, piece], None) {
                Ok(()) => Put::Taken,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => Put::Blocked,
                Err(_) => Put::Gone,
            };
        }
    }
}
