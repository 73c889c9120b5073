//! One receiver as this worker sees it: the way to it, once known, and what waits for it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::rings::Writer;
use crate::ngx::event::{Direction, Handlers, Watch};
use crate::ngx::{cycle, socket};
use crate::proto::ipc::frame::{HEADER, Header, PIECE};
use crate::proto::ipc::outbox::{Outbox, Put, Refused, Wire};
use crate::proto::ipc::{Outgoing, stamp};

/// How a receiver is reached.
pub enum Way {
    /// It has not said hello yet.
    Unknown,
    /// By its line.
    Line(OwnedFd),
    /// By a ring of the common generation.
    Ring(Writer),
    /// Nobody will ever read again what is sent to it.
    Gone,
}

/// A receiver.
pub struct Peer {
    /// While something waits on a line: tells when there is room. A ring's reader tells by bell.
    /// It goes before the line does.
    room: Option<Watch>,
    way: Way,
    outbox: Outbox,
    /// Whether it was told the way to this worker.
    greeted: bool,
    /// The turn of the event loop, by its clock, in which a message to it was stamped last.
    stamped: usize,
}

impl Peer {
    /// A receiver; at most `queue` bytes wait for it.
    pub fn new(way: Way, queue: usize) -> Peer {
        Peer { room: None, way, outbox: Outbox::new(queue), greeted: false, stamped: 0 }
    }

    /// Sends or queues; `room` is called when a full line has room again, None without event loop.
    #[inline]
    pub fn send(
        &mut self,
        message: &Outgoing<'_>,
        room: Option<&'static Handlers>,
    ) -> Result<(), Refused> {
        let result = match &mut self.way {
            Way::Ring(writer) => return self.outbox.send(message, Some(writer)),
            Way::Line(fd) => self.outbox.send(message, Some(&mut Socket(fd.as_fd()))),
            Way::Unknown => self.outbox.send(message, None::<&mut Writer>),
            Way::Gone => Err(Refused::Gone),
        };
        if result == Err(Refused::Gone) {
            self.lose();
        }
        self.watch(room);
        result
    }

    /// The stamp of a message to it: of the first in each millisecond of the event loop's clock, so
    /// that the others cost no look at a real one.
    #[inline]
    pub fn stamp(&mut self) -> u32 {
        let now = cycle::milliseconds();
        if now == self.stamped {
            return 0;
        }
        self.stamped = now;
        stamp::of(cycle::nanoseconds())
    }

    /// Writes what waits, and tells `taken` of each message; how many were lost because nobody can
    /// read them any more.
    pub fn flush(&mut self, room: Option<&'static Handlers>, taken: &mut impl FnMut()) -> usize {
        let (put, lost) = match &mut self.way {
            Way::Ring(writer) => self.outbox.flush(writer, taken),
            Way::Line(fd) => self.outbox.flush(&mut Socket(fd.as_fd()), taken),
            Way::Unknown | Way::Gone => return 0,
        };
        if put == Put::Gone {
            self.lose();
        }
        self.watch(room);
        lost
    }

    fn lose(&mut self) {
        self.room = None;
        self.way = Way::Gone;
    }

    /// Learns the way to the receiver.
    pub fn learn(&mut self, send: OwnedFd) {
        if let Way::Unknown = self.way {
            self.way = Way::Line(send);
        }
    }

    /// Tells the receiver, once, where this worker's own line begins; where its line is full, the
    /// next call tries again.
    pub fn hello(&mut self, header: &Header, own: BorrowedFd<'_>) {
        if let (Way::Line(fd), false) = (&self.way, self.greeted) {
            let sent = socket::send(fd.as_fd(), [&header.encode(), &[], &[]], Some(own));
            self.greeted = sent.is_ok();
        }
    }

    /// How many messages wait.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.outbox.len()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// A watch costs a wake-up for each record that the receiver takes, so it stands only while
    /// something waits. Without a free connection the next send or flush tries again.
    fn watch(&mut self, room: Option<&'static Handlers>) {
        match (&self.way, room) {
            (Way::Line(fd), Some(room)) if !self.outbox.is_empty() => {
                if self.room.is_none() {
                    self.room = Watch::new(fd.as_raw_fd(), Direction::Write, room);
                }
            }
            _ => self.room = None,
        }
    }
}

/// The socket transport's end of the seam.
struct Socket<'fd>(BorrowedFd<'fd>);

impl Wire for Socket<'_> {
    fn piece(&self) -> usize {
        PIECE
    }

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
