//! The record on the wire between workers: a fixed header, then the message's name (in its first
//! record only), then a piece of its data. Written and read by one build on one machine, so in
//! native byte order; every field is checked all the same, a record may come from a dying process.

use super::{Addressee, Generation, NAME_MAX, Pid, Seat, WORKERS_MAX, WorkerId};

/// Bytes of a header.
pub const HEADER: usize = 32;

/// Most data bytes in one record on a socket. Larger ones would not pass a buffer of the default
/// size several at a time; smaller ones cost more system calls.
pub const PIECE: usize = 32 * 1024;

/// Longest record on a socket.
pub const RECORD: usize = HEADER + NAME_MAX + PIECE;

const MAGIC: u32 = 0x6363;

/// What a record is for; the numbers are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A message, or a piece of one.
    Message = 1,
    /// The sender introduces itself to a worker of another generation; the send end of its own
    /// line comes along as a descriptor.
    Hello,
    /// A message whose sender waits for a reply of the same call number.
    Call,
    /// What the handler of a call returned.
    Reply,
    /// Why a call has no reply, in words.
    Failure,
    /// The retained value of that name, whose key is the data, has changed.
    Retained,
    /// A call of an action, answered by whoever can: see `ask`.
    Ask,
    /// The answer to one.
    Answer,
    /// Whether these asks are still to be answered, after a death: see `ask`.
    Inquiry,
    /// Changes of retained values may not have been told to this worker's handlers.
    Review,
}

impl Kind {
    /// Whether a message of that kind never concerns Lua's handlers.
    #[inline]
    pub fn is_native(self) -> bool {
        matches!(self, Kind::Ask | Kind::Answer | Kind::Inquiry)
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the record is for.
    pub kind: Kind,
    /// The sending process.
    pub sender: Pid,
    /// The sender's seat.
    pub seat: Seat,
    /// Who it is for.
    pub addressee: Addressee,
    /// Length of the name that follows; 0 in a later piece.
    pub name: u8,
    /// Length of the whole message's data.
    pub total: u32,
    /// Where in the data this record's piece starts.
    pub offset: u32,
    /// The sender's number for a call, which its reply repeats; a message's `stamp`, where it has one;
    /// 0 otherwise.
    pub call: u32,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than a header, or than the name it announces.
    #[error("record is cut short")]
    Short,
    /// Not written by this code.
    #[error("record has a wrong header")]
    Header,
    /// The piece lies outside the message.
    #[error("record lies outside its message")]
    Range,
}

impl Header {
    /// The header's bytes.
    #[inline]
    pub fn encode(&self) -> [u8; HEADER] {
        let process = match self.addressee {
            Addressee::Process(pid) => pid.0,
            Addressee::Seat => 0,
        };
        let words = [
            MAGIC << 16 | (self.kind as u32) << 8 | u32::from(self.name),
            u32::from(self.seat.worker.0),
            self.sender.0,
            self.seat.generation.0,
            process,
            self.total,
            self.offset,
            self.call,
        ];
        let mut bytes = [0; HEADER];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// Whether `piece` ends the message.
    #[inline]
    pub fn is_last(&self, piece: &[u8]) -> bool {
        self.offset as usize + piece.len() == self.total as usize
    }

    /// Splits a record into header, name and piece.
    #[inline]
    pub fn decode(record: &[u8]) -> Result<(Header, &[u8], &[u8]), FrameError> {
        let (head, body) = record.split_first_chunk::<HEADER>().ok_or(FrameError::Short)?;
        let mut words = [0; HEADER / 4];
        for (word, bytes) in words.iter_mut().zip(head.chunks_exact(4)) {
            *word = bytes.try_into().map_or(0, u32::from_ne_bytes);
        }
        let [first, worker, sender, generation, process, total, offset, call] = words;
        let kind = match first >> 8 & 0xff {
            1 => Kind::Message,
            2 => Kind::Hello,
            3 => Kind::Call,
            4 => Kind::Reply,
            5 => Kind::Failure,
            6 => Kind::Retained,
            7 => Kind::Ask,
            8 => Kind::Answer,
            9 => Kind::Inquiry,
            10 => Kind::Review,
            _ => return Err(FrameError::Header),
        };
        let name = first as u8;
        let worker = u16::try_from(worker).ok().filter(|id| usize::from(*id) < WORKERS_MAX);
        if first >> 16 != MAGIC || usize::from(name) > NAME_MAX {
            return Err(FrameError::Header);
        }
        let header = Header {
            kind,
            sender: Pid(sender),
            seat: Seat {
                generation: Generation(generation),
                worker: WorkerId(worker.ok_or(FrameError::Header)?),
            },
            addressee: match process {
                0 => Addressee::Seat,
                pid => Addressee::Process(Pid(pid)),
            },
            name,
            total,
            offset,
            call,
        };
        let (name, piece) = body.split_at_checked(usize::from(name)).ok_or(FrameError::Short)?;
        let end = (offset as usize).checked_add(piece.len());
        if end.is_none_or(|end| end > total as usize) {
            return Err(FrameError::Range);
        }
        Ok((header, name, piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers() -> impl Strategy<Value = Header> {
        (any::<u32>(), any::<u32>(), 0..WORKERS_MAX as u16, any::<u32>(), 0..=NAME_MAX as u8)
            .prop_map(|(sender, generation, worker, process, name)| Header {
                kind: Kind::Message,
                sender: Pid(sender),
                seat: Seat { generation: Generation(generation), worker: WorkerId(worker) },
                addressee: match process {
                    0 => Addressee::Seat,
                    pid => Addressee::Process(Pid(pid)),
                },
                name,
                total: 0,
                offset: 0,
                call: 0,
            })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(header in headers(), piece in prop::collection::vec(any::<u8>(), 0..100), before in 0u32..50, after in 0u32..50) {
            let header = Header { offset: before, total: before + piece.len() as u32 + after, ..header };
            let name = vec![b'n'; usize::from(header.name)];
            let record = [&header.encode()[..], &name, &piece].concat();
            prop_assert_eq!(Header::decode(&record), Ok((header, &name[..], &piece[..])));
        }

        #[test]
        fn any_bytes_decode_or_fail_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Header::decode(&bytes);
        }
    }

    #[test]
    fn a_piece_outside_its_message_is_refused() {
        let header = Header {
            kind: Kind::Message,
            sender: Pid(1),
            seat: Seat { generation: Generation(1), worker: WorkerId(0) },
            addressee: Addressee::Seat,
            name: 0,
            total: 3,
            offset: u32::MAX,
            call: 0,
        };
        let record = [&header.encode()[..], b"abc"].concat();
        assert_eq!(Header::decode(&record), Err(FrameError::Range));
    }
}
