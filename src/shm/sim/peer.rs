//! A receiver as a process of a run sees it, in the manner of `modules::ipc::peer`.

use std::rc::Rc;

use super::super::ends::Writer;
use super::kernel::{Eventfds, Line};
use super::world::World;
use crate::proto::ipc::Outgoing;
use crate::proto::ipc::frame::HEADER;
use crate::proto::ipc::outbox::{Outbox, Put, Refused, Wire};

/// Data bytes in a record on a line.
const PIECE: usize = 100;

/// How it is reached.
pub(super) enum Way {
    Unknown,
    Line(Rc<Line>),
    Ring(Writer<'static, Eventfds>),
    Gone,
}

struct Socket<'a>(&'a Line);

impl Wire for Socket<'_> {
    fn piece(&self) -> usize {
        PIECE
    }

    fn put(&mut self, header: &[u8; HEADER], name: &[u8], piece: &[u8]) -> Put {
        match self.0 {
            line if line.is_closed() => Put::Gone,
            line if line.is_full() => Put::Blocked,
            line => {
                line.push([header, name, piece].concat(), None);
                Put::Taken
            }
        }
    }
}

/// A receiver.
pub(super) struct Peer {
    pub(super) way: Way,
    pub(super) outbox: Outbox,
    pub(super) greeted: bool,
}

impl Peer {
    pub(super) fn new(way: Way, world: &World) -> Peer {
        Peer { way, outbox: Outbox::new(world.plan.queue), greeted: false }
    }

    pub(super) fn send(&mut self, message: &Outgoing<'_>) -> Result<(), Refused> {
        let result = match &mut self.way {
            Way::Ring(writer) => self.outbox.send(message, Some(writer)),
            Way::Line(line) => self.outbox.send(message, Some(&mut Socket(line))),
            Way::Unknown => self.outbox.send(message, None::<&mut Socket<'_>>),
            Way::Gone => Err(Refused::Gone),
        };
        if result == Err(Refused::Gone) {
            self.way = Way::Gone;
        }
        result
    }

    pub(super) fn flush(&mut self, taken: &mut impl FnMut()) -> usize {
        let (put, lost) = match &mut self.way {
            Way::Ring(writer) => self.outbox.flush(writer, taken),
            Way::Line(line) => self.outbox.flush(&mut Socket(line), taken),
            Way::Unknown | Way::Gone => return 0,
        };
        if put == Put::Gone {
            self.way = Way::Gone;
        }
        lost
    }

    /// A line that has room for what waits.
    pub(super) fn has_room(&self) -> bool {
        let room = |line: &Rc<Line>| !line.is_full() || line.is_closed();
        matches!(&self.way, Way::Line(line) if !self.outbox.is_empty() && room(line))
    }
}
