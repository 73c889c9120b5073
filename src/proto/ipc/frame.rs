//! The record on the wire between workers: a fixed header, then the message's name (in its first
//! record only), then a piece of its data. Written and read by one build on one machine, so in
//! native byte order; every field is checked all the same, a record may come from a dying process.

use super::{Addressee, Generation, NAME_MAX, Pid, Seat, WORKERS_MAX, WorkerId};

/// Bytes of a header.
pub const HEADER: usize = 32;

/// Most data bytes in one record. Larger ones would not pass a socket buffer of the default size
/// several at a time; smaller ones cost more system calls.
pub const PIECE: usize = 32 * 1024;

/// Longest record.
pub const RECORD: usize = HEADER + NAME_MAX + PIECE;

const MAGIC: u16 = 0x6363;

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message, or a piece of one.
    Message,
    /// The sender introduces itself to a worker of another generation; the send end of its own
    /// line comes along as a descriptor.
    Hello,
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
    pub fn encode(&self) -> [u8; HEADER] {
        let kind: u8 = match self.kind {
            Kind::Message => 1,
            Kind::Hello => 2,
        };
        let process = match self.addressee {
            Addressee::Process(pid) => pid.0,
            Addressee::Seat => 0,
        };
        let mut bytes = [0; HEADER];
        let fields: [&[u8]; 9] = [
            &MAGIC.to_ne_bytes(),
            &[kind, self.name],
            &self.seat.worker.0.to_ne_bytes(),
            &[0; 2],
            &self.sender.0.to_ne_bytes(),
            &self.seat.generation.0.to_ne_bytes(),
            &process.to_ne_bytes(),
            &self.total.to_ne_bytes(),
            &self.offset.to_ne_bytes(),
        ];
        for (slot, byte) in bytes.iter_mut().zip(fields.iter().copied().flatten()) {
            *slot = *byte;
        }
        bytes
    }

    /// Splits a record into header, name and piece.
    pub fn decode(record: &[u8]) -> Result<(Header, &[u8], &[u8]), FrameError> {
        let (head, body) = record.split_first_chunk::<HEADER>().ok_or(FrameError::Short)?;
        let half = |at: usize| u16::from_ne_bytes(array(head, at));
        let word = |at: usize| u32::from_ne_bytes(array(head, at));
        let kind = match head[2] {
            1 => Kind::Message,
            2 => Kind::Hello,
            _ => return Err(FrameError::Header),
        };
        let (name, worker) = (head[3], half(4));
        if half(0) != MAGIC || usize::from(name) > NAME_MAX || usize::from(worker) >= WORKERS_MAX {
            return Err(FrameError::Header);
        }
        let header = Header {
            kind,
            sender: Pid(word(8)),
            seat: Seat { generation: Generation(word(12)), worker: WorkerId(worker) },
            addressee: match word(16) {
                0 => Addressee::Seat,
                pid => Addressee::Process(Pid(pid)),
            },
            name,
            total: word(20),
            offset: word(24),
        };
        let (name, piece) = body.split_at_checked(usize::from(name)).ok_or(FrameError::Short)?;
        let end = (header.offset as usize).checked_add(piece.len());
        if end.is_none_or(|end| end > header.total as usize) {
            return Err(FrameError::Range);
        }
        Ok((header, name, piece))
    }
}

/// `N` bytes of a header from `at`; offsets are constants inside it.
fn array<const N: usize>(head: &[u8; HEADER], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes.iter_mut().zip(head.iter().skip(at)) {
        *to = *from;
    }
    bytes
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
        };
        let record = [&header.encode()[..], b"abc"].concat();
        assert_eq!(Header::decode(&record), Err(FrameError::Range));
    }
}
