//! What a message between workers is, and who may get it: identities, limits, addresses. The
//! pieces beside it cut messages into records (`frame`), hold back what a receiver cannot take yet
//! (`outbox`) and put records together again (`assemble`). `ask` is a call of an action between two
//! workers, `calls` who waits for the answers, `stamp` tells how long messages took.

pub mod ask;
pub mod assemble;
pub mod calls;
pub mod frame;
pub mod outbox;
pub mod spin;
pub mod stamp;

use std::fmt;

/// Longest name of a message, in bytes (ngx_lua_ipc's limit, kept).
pub const NAME_MAX: usize = 254;

/// Most workers of one generation; nginx's NGX_MAX_PROCESSES.
pub const WORKERS_MAX: usize = 1024;

/// A process id of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(pub u32);

/// nginx's worker number, 0..N-1 in its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

/// Which configuration load of this master a worker belongs to, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a worker sits, whichever process is in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seat {
    /// Its generation.
    pub generation: Generation,
    /// Its number there.
    pub worker: WorkerId,
}

/// Who a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// This process and no other: the message dies with it.
    Process(Pid),
    /// Whoever holds the seat when it arrives, a successor too.
    Seat,
}

impl Addressee {
    /// Whether the process `pid`, which holds the seat, may see the message.
    pub fn admits(self, pid: Pid) -> bool {
        match self {
            Addressee::Process(only) => only == pid,
            Addressee::Seat => true,
        }
    }
}

/// A message as its sender hands it over.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// A message, a call, or an answer to one.
    pub kind: frame::Kind,
    /// The number of the call; of a message its `stamp`, where it has one.
    pub call: u32,
    /// The sending worker.
    pub sender: Pid,
    /// The sending worker's seat.
    pub seat: Seat,
    /// Who it is for.
    pub addressee: Addressee,
    /// At most [`NAME_MAX`] bytes.
    pub name: &'a [u8],
    /// At most cc_ipc_max_message bytes.
    pub data: &'a [u8],
}
