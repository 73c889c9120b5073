//! What one sender holds back for one receiver: messages that the wire could not take yet, in
//! order, up to a bound. While it is empty a message goes to the wire without a copy. The wire is
//! the seam between transports: it takes whole records or nothing.

use std::collections::VecDeque;

use super::frame::{HEADER, Header};
use super::{NAME_MAX, Outgoing};

/// Bookkeeping that a held message costs beside its bytes; part of what is counted against the
/// bound, so that many empty messages are bounded too.
const OVERHEAD: usize = 96;

/// What the wire did with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It will arrive.
    Taken,
    /// No room; try again when the wire says so.
    Blocked,
    /// Nobody can ever read it.
    Gone,
}

/// One direction of a transport, towards one receiver.
pub trait Wire {
    /// Most data bytes that it takes in one record.
    fn piece(&self) -> usize;

    /// Takes one record, whole or not at all, without waiting.
    fn put(&mut self, header: &[u8; HEADER], name: &[u8], piece: &[u8]) -> Put;
}

/// Why a message was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The receiver's bound is reached, or there is no memory to hold more.
    #[error("full")]
    Full,
    /// The receiver's end is closed.
    #[error("gone")]
    Gone,
    /// Longer than the bound on one message.
    #[error("message too long")]
    TooLong,
    /// The name is longer than [`NAME_MAX`].
    #[error("name too long")]
    Name,
}

#[derive(Debug)]
struct Held {
    header: Header,
    /// The name, then the data that is still to go, whose first byte is at `header.offset`.
    bytes: Box<[u8]>,
    sent: usize,
}

impl Held {
    fn parts(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at_checked(usize::from(self.header.name)).unwrap_or_default()
    }
}

/// Messages held for one receiver.
#[derive(Debug)]
pub struct Outbox {
    held: VecDeque<Held>,
    bytes: usize,
    limit: usize,
}

impl Outbox {
    /// An empty one that holds at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Outbox { held: VecDeque::new(), bytes: 0, limit }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Bytes that wait, bookkeeping included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Hands a message over: to the wire, or to the queue behind what waits already. `wire` is
    /// None while the way to the receiver is not known yet.
    #[inline]
    pub fn send(
        &mut self,
        message: &Outgoing<'_>,
        wire: Option<&mut impl Wire>,
    ) -> Result<(), Refused> {
        let name = u8::try_from(message.name.len()).ok().filter(|n| usize::from(*n) <= NAME_MAX);
        let header = Header {
            kind: message.kind,
            sender: message.sender,
            seat: message.seat,
            addressee: message.addressee,
            name: name.ok_or(Refused::Name)?,
            total: u32::try_from(message.data.len()).map_err(|_| Refused::TooLong)?,
            offset: 0,
            call: message.call,
        };
        match wire.filter(|_| self.held.is_empty()) {
            None => self.hold(header, message.name, message.data),
            Some(wire) => {
                let (put, sent) = write(wire, &header, message.name, message.data, 0);
                match put {
                    Put::Taken => Ok(()),
                    Put::Gone => Err(Refused::Gone),
                    Put::Blocked => {
                        let rest = message.data.get(sent..).unwrap_or_default();
                        let name = if sent == 0 { message.name } else { &[] };
                        let header =
                            Header { offset: sent as u32, name: name.len() as u8, ..header };
                        self.hold(header, name, rest)
                    }
                }
            }
        }
    }

    /// Writes what waits, in order, until the wire blocks; `taken` is told of each message that is on
    /// its way. Gone empties the box; how many messages were lost with it is the second value.
    pub fn flush(&mut self, wire: &mut impl Wire, mut taken: impl FnMut()) -> (Put, usize) {
        while let Some(first) = self.held.front_mut() {
            let (name, rest) = first.parts();
            let (put, sent) = write(wire, &first.header, name, rest, first.sent);
            first.sent = sent;
            match put {
                Put::Taken => {
                    taken();
                    self.drop_first();
                }
                Put::Blocked => return (Put::Blocked, 0),
                Put::Gone => {
                    let lost = self.held.len();
                    self.clear();
                    return (Put::Gone, lost);
                }
            }
        }
        (Put::Taken, 0)
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.held.clear();
        self.bytes = 0;
    }

    /// The part of a message that is already on the wire cannot be taken back, so its rest is held
    /// even beyond the bound; it is at most one message, and the next is refused.
    fn hold(&mut self, header: Header, name: &[u8], rest: &[u8]) -> Result<(), Refused> {
        let size = OVERHEAD + name.len() + rest.len();
        if header.offset == 0 && self.bytes.saturating_add(size) > self.limit {
            return Err(Refused::Full);
        }
        // without memory it is refused; a receiver that has the first pieces forgets them
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(name.len() + rest.len()).is_err()
            || self.held.try_reserve(1).is_err()
        {
            return Err(Refused::Full);
        }
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(rest);
        self.bytes += size;
        self.held.push_back(Held { header, bytes: bytes.into(), sent: 0 });
        Ok(())
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.held.pop_front() {
            self.bytes -= OVERHEAD + first.bytes.len();
        }
        if self.held.is_empty() {
            // a burst must not pin its memory for ever
            self.held.shrink_to(16);
        }
    }
}

/// Writes `data` from byte `sent` on, piece by piece; answers the last put and how far it came.
fn write(
    wire: &mut impl Wire,
    header: &Header,
    name: &[u8],
    data: &[u8],
    mut sent: usize,
) -> (Put, usize) {
    loop {
        let rest = data.get(sent..).unwrap_or_default();
        let piece = rest.get(..wire.piece()).unwrap_or(rest);
        let (name, length) = if sent == 0 { (name, header.name) } else { (&[][..], 0) };
        let header = Header { offset: header.offset + sent as u32, name: length, ..*header };
        match wire.put(&header.encode(), name, piece) {
            Put::Taken => sent += piece.len(),
            put => return (put, sent),
        }
        if sent == data.len() {
            return (Put::Taken, sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::assemble::{Assembled, Assembler};
    use super::super::frame::{Kind, PIECE};
    use super::super::{Addressee, Generation, Pid, Seat, WorkerId};
    use super::*;
    use proptest::prelude::*;

    /// A wire with room for so many records.
    struct Room(usize, Vec<Vec<u8>>);

    impl Wire for Room {
        fn piece(&self) -> usize {
            PIECE
        }

        fn put(&mut self, header: &[u8; HEADER], name: &[u8], piece: &[u8]) -> Put {
            if self.0 == 0 {
                return Put::Blocked;
            }
            self.0 -= 1;
            self.1.push([header, name, piece].concat());
            Put::Taken
        }
    }

    fn message<'a>(name: &'a [u8], data: &'a [u8]) -> Outgoing<'a> {
        Outgoing {
            kind: Kind::Message,
            call: 0,
            sender: Pid(7),
            seat: Seat { generation: Generation(1), worker: WorkerId(0) },
            addressee: Addressee::Seat,
            name,
            data,
        }
    }

    proptest! {
        /// However the wire stutters, every accepted message arrives once, whole and in order.
        #[test]
        fn nothing_is_lost_or_reordered(
            sizes in prop::collection::vec(0usize..3 * PIECE, 1..12),
            rooms in prop::collection::vec(0usize..4, 1..40),
        ) {
            let mut outbox = Outbox::new(4 * PIECE);
            let mut wire = Room(0, Vec::new());
            let mut rooms = rooms.into_iter();
            let mut accepted = Vec::new();
            for (i, size) in sizes.into_iter().enumerate() {
                wire.0 += rooms.next().unwrap_or(1);
                outbox.flush(&mut wire, || {});
                let data = vec![i as u8; size];
                let name = vec![b'n'; i];
                match outbox.send(&message(&name, &data), Some(&mut wire)) {
                    Ok(()) => accepted.push((name, data)),
                    Err(refused) => prop_assert_eq!(refused, Refused::Full),
                }
                prop_assert!(outbox.bytes() <= 4 * PIECE + OVERHEAD + 3 * PIECE);
            }
            wire.0 = usize::MAX;
            prop_assert_eq!(outbox.flush(&mut wire, || {}), (Put::Taken, 0));
            prop_assert!(outbox.is_empty() && outbox.bytes() == 0);
            let mut assembler = Assembler::new(3 * PIECE);
            let mut arrived = Vec::new();
            for record in &wire.1 {
                match assembler.accept(record, Pid(9)) {
                    Assembled::Whole(m) => arrived.push((m.name.to_vec(), m.data.to_vec())),
                    Assembled::More => {}
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert_eq!(arrived, accepted);
        }
    }

    #[test]
    fn the_bound_holds_and_is_told() {
        let mut outbox = Outbox::new(1000);
        let mut wire = Room(0, Vec::new());
        let mut taken = 0;
        while outbox.send(&message(b"n", b""), Some(&mut wire)).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, 1000 / (OVERHEAD + 1));
        assert_eq!(outbox.send(&message(b"n", b""), Some(&mut wire)), Err(Refused::Full));
        assert_eq!(outbox.send(&message(&[0; 255], b""), Some(&mut wire)), Err(Refused::Name));
    }

    #[test]
    fn a_message_waits_while_the_way_is_unknown() {
        let mut outbox = Outbox::new(1000);
        assert_eq!(outbox.send(&message(b"n", b"d"), None::<&mut Room>), Ok(()));
        let mut wire = Room(9, Vec::new());
        assert_eq!(outbox.flush(&mut wire, || {}), (Put::Taken, 0));
        assert_eq!(wire.1.len(), 1);
    }
}
