//! What membership tells its driver.

use super::message::{Answer, Reason, Request};
use super::standing::{Client, Standing};

/// A call that membership asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// A request that waits for its answer, or a command for its report: the driver's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Make a call. It ends in one `answered` or `failed`, within the time given.
    Call {
        /// To be given back.
        id: CallId,
        /// Whom to call.
        to: String,
        /// What to ask.
        message: Request,
        /// Milliseconds until it has failed.
        timeout: u64,
    },
    /// Answer a request.
    Answer {
        /// Which.
        token: Token,
        /// With what.
        answer: Answer,
    },
    /// What this node is in the channel has changed: for the zone.
    Standing(Standing),
    /// A client came, or beat, or fell silent: for the zone.
    Client(Client),
    /// A client is none any more: for the zone.
    ClientGone {
        /// Who.
        address: String,
        /// Why.
        why: Gone,
    },
    /// A command has ended.
    Done {
        /// Which.
        token: Token,
        /// How.
        report: Report,
    },
    /// For the log.
    Note(Note),
}

/// Why a client is none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It said so.
    Left,
    /// It went where it was transferred to.
    Moved,
    /// It was silent for longer than its lease.
    Silent,
    /// Calls to it failed again and again.
    Invalid,
}

/// How a command has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// `transfer`: the node has its new super, or has stayed.
    Moved {
        /// Why it stayed.
        result: Result<(), Reason>,
        /// Whether the old super knows; it forgets the node by itself otherwise.
        told: bool,
    },
    /// `transfer_clients`.
    ClientsMoved {
        /// They went.
        moved: Vec<String>,
        /// They stayed, and why.
        failed: Vec<(String, Reason)>,
        /// Nothing was heard in time; they may yet go.
        pending: Vec<String>,
    },
    /// `report`: whether the address is a client now.
    Reported(Result<(), Reason>),
    /// `leave`: the super was told, or could not be.
    Left,
}

/// Something that an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// There is a super.
    Joined {
        /// Which.
        to: String,
    },
    /// It is gone, or does not want this node.
    SuperLost {
        /// Which.
        address: String,
        /// Why, as far as that is known.
        why: Reason,
    },
    /// No super takes this node: it is the root of its clients, and goes on trying.
    Orphan,
    /// A node was refused.
    Refused {
        /// Who.
        id: String,
        /// Why.
        reason: Reason,
    },
    /// This node was refused.
    RefusedBy {
        /// Whom it asked.
        address: String,
        /// Why.
        reason: Reason,
    },
}
