//! Puts the records of a message together again. A message in one record is handed on in place; a
//! longer one is collected per sender, up to a bound, and forgotten when its sender starts anew.

use foldhash::HashMap;

use super::frame::{FrameError, Header, Kind};
use super::{Pid, Seat};

/// Most messages in the making; more senders than workers can exist means garbage.
const PARTIALS_MAX: usize = super::WORKERS_MAX;

/// A message as its receiver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// A message, a call, or an answer to one.
    pub kind: Kind,
    /// The number of the call; of a message its `stamp`, where it has one.
    pub call: u32,
    /// The process that sent it.
    pub sender: Pid,
    /// The sender's seat.
    pub seat: Seat,
    /// Its name.
    pub name: &'a [u8],
    /// Its data.
    pub data: &'a [u8],
}

/// Most bytes of a buffer that is kept for the next long message: a new one of that size would have
/// to be paged in.
const SPARE: usize = 2 << 20;

/// What a record led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Assembled<'a> {
    /// A message is complete.
    Whole(Message<'a>),
    /// A piece; more is to come.
    More,
    /// A worker of another generation has said where it can be reached.
    Hello(Seat),
    /// For a process that is gone; the message's last record says so, pieces before it are silent.
    Stranger,
    /// Not a record, or a piece that continues nothing.
    Broken(FrameError),
    /// The end of a message whose start is lost.
    Orphan,
    /// Longer than the bound.
    TooLong,
}

#[derive(Debug, Default)]
struct Partial {
    name: Vec<u8>,
    data: Vec<u8>,
    total: usize,
}

/// The messages in the making of one receiver.
#[derive(Debug)]
pub struct Assembler {
    partials: HashMap<Pid, Partial>,
    whole: Partial,
    spare: Vec<u8>,
    max: usize,
}

impl Assembler {
    /// For messages of at most `max` bytes of data.
    pub fn new(max: usize) -> Self {
        Assembler {
            partials: HashMap::default(),
            whole: Partial::default(),
            spare: Vec::new(),
            max,
        }
    }

    /// Takes one record, as the process `receiver`.
    #[inline]
    pub fn accept<'a>(&'a mut self, record: &'a [u8], receiver: Pid) -> Assembled<'a> {
        let (header, name, piece) = match Header::decode(record) {
            Ok(parts) => parts,
            Err(error) => return Assembled::Broken(error),
        };
        if header.kind == Kind::Hello {
            return Assembled::Hello(header.seat);
        }
        let (offset, total) = (header.offset as usize, header.total as usize);
        let last = offset + piece.len() == total;
        if !header.addressee.admits(receiver) {
            return if last { Assembled::Stranger } else { Assembled::More };
        }
        if total > self.max {
            return if last { Assembled::TooLong } else { Assembled::More };
        }
        if offset == 0 && last {
            if !self.partials.is_empty() {
                self.partials.remove(&header.sender);
            }
            let message = message(&header, name, piece);
            return Assembled::Whole(message);
        }
        if offset == 0 {
            if self.partials.len() >= PARTIALS_MAX {
                self.partials.clear();
            }
            let mut data = std::mem::take(&mut self.spare);
            if data.try_reserve_exact(total).is_err() {
                // its other pieces find that it is not there, the last one says so
                self.spare = data;
                self.partials.remove(&header.sender);
                return Assembled::More;
            }
            data.extend_from_slice(piece);
            self.partials.insert(header.sender, Partial { name: name.to_vec(), data, total });
            return Assembled::More;
        }
        let orphan = if last { Assembled::Orphan } else { Assembled::More };
        let Some(partial) = self.partials.get_mut(&header.sender) else { return orphan };
        if partial.total != total || partial.data.len() != offset {
            self.partials.remove(&header.sender);
            return orphan;
        }
        partial.data.extend_from_slice(piece);
        if !last {
            return Assembled::More;
        }
        self.whole = self.partials.remove(&header.sender).unwrap_or_default();
        let Partial { name, data, .. } = &self.whole;
        Assembled::Whole(message(&header, name, data))
    }

    /// Whether some message is in the making.
    #[inline]
    pub fn is_busy(&self) -> bool {
        !self.partials.is_empty()
    }

    /// Frees the last long message once its receiver has taken it.
    #[inline]
    pub fn release(&mut self) {
        if self.whole.total > 0 {
            let mut data = std::mem::take(&mut self.whole).data;
            if data.capacity() <= SPARE {
                data.clear();
                self.spare = data;
            }
        }
    }

    /// Forgets the pieces of senders that `alive` denies. What they had not sent is counted where
    /// they held it.
    pub fn retain(&mut self, alive: impl Fn(Pid) -> bool) {
        self.partials.retain(|sender, _| alive(*sender));
    }
}

fn message<'a>(header: &Header, name: &'a [u8], data: &'a [u8]) -> Message<'a> {
    let Header { kind, call, sender, seat, .. } = *header;
    Message { kind, call, sender, seat, name, data }
}

#[cfg(test)]
mod tests {
    use super::super::{Addressee, Generation, WorkerId};
    use super::*;

    fn record(sender: u32, addressee: Addressee, data: &[u8], offset: u32, total: u32) -> Vec<u8> {
        let seat = Seat { generation: Generation(1), worker: WorkerId(3) };
        let name: &[u8] = if offset == 0 { b"news" } else { b"" };
        let header = Header {
            kind: Kind::Message,
            sender: Pid(sender),
            seat,
            addressee,
            name: name.len() as u8,
            total,
            offset,
            call: 0,
        };
        [&header.encode()[..], name, data].concat()
    }

    #[test]
    fn senders_do_not_mix() {
        let mut assembler = Assembler::new(100);
        let parts = [(1, 0, &b"ab"[..]), (2, 0, b"xy"), (1, 2, b"cd"), (2, 2, b"zz")];
        let mut whole = Vec::new();
        for (sender, offset, piece) in parts {
            let bytes = record(sender, Addressee::Seat, piece, offset, 4);
            if let Assembled::Whole(m) = assembler.accept(&bytes, Pid(9)) {
                whole.push((m.sender.0, m.name.to_vec(), m.data.to_vec()));
            }
        }
        let news = b"news".to_vec();
        assert_eq!(whole, [(1, news.clone(), b"abcd".to_vec()), (2, news, b"xyzz".to_vec())]);
    }

    #[test]
    fn mail_to_a_predecessor_is_not_seen() {
        let mut assembler = Assembler::new(100);
        let bytes = record(1, Addressee::Process(Pid(8)), b"secret", 0, 6);
        assert_eq!(assembler.accept(&bytes, Pid(9)), Assembled::Stranger);
        assert!(matches!(assembler.accept(&bytes, Pid(8)), Assembled::Whole(_)));
    }

    #[test]
    fn a_sender_killed_in_mid_message_leaves_nothing_behind() {
        let mut assembler = Assembler::new(100);
        assert_eq!(
            assembler.accept(&record(1, Addressee::Seat, b"ab", 0, 4), Pid(9)),
            Assembled::More
        );
        assembler.retain(|_| false);
        assert_eq!(
            assembler.accept(&record(1, Addressee::Seat, b"cd", 2, 4), Pid(9)),
            Assembled::Orphan
        );
        assert_eq!(
            assembler.accept(&record(1, Addressee::Seat, b"ab", 0, 101), Pid(9)),
            Assembled::More
        );
    }
}
