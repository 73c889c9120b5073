//! What the log is told of the tree of nodes.

use std::fmt::Arguments;

use crate::modules::say::say_of;
use crate::ngx::log::{self, Level};
use crate::proto::cluster::membership::message::Reason;
use crate::proto::cluster::membership::output::{Gone, Note};
use crate::shm::nodes::WriteError;

/// A client is none any more.
pub fn gone(name: &str, address: &str, why: Gone) {
    let why = match why {
        Gone::Left => "left",
        Gone::Moved => "moved",
        Gone::Silent => "fell silent",
        Gone::Invalid => "could not be reached",
    };
    log::cycle(Level::Info, format_args!("cc: channel \"{name}\": client {address} {why}"));
}

/// The zone does not have what it should.
pub fn unwritten(name: &str, why: WriteError) {
    tell(Level::Warn, "node table", name, format_args!("{why}"));
}

/// A node that was called gave no answer that counts.
pub fn unanswered(name: &str, why: &str) {
    tell(Level::Warn, "heartbeat", name, format_args!("node {why}"));
}

/// What membership has to say.
pub fn note(name: &str, note: &Note) {
    let (level, text) = match note {
        Note::Joined { to } => (Level::Notice, format!("its super is {to}")),
        Note::SuperLost { address, why } => {
            (Level::Warn, format!("the super {address} is lost: {why}"))
        }
        Note::Orphan => (Level::Warn, "no super takes this node; it goes on trying".into()),
        Note::Refused { id, reason } => (Level::Warn, format!("node {id} is refused: {reason}")),
        Note::RefusedBy { address, reason: reason @ (Reason::Busy | Reason::Leaving) } => {
            (Level::Info, format!("{address} refuses this node: {reason}"))
        }
        Note::RefusedBy { address, reason: Reason::NoAnswer } => {
            (Level::Warn, format!("{address}: no answer that counts"))
        }
        Note::RefusedBy { address, reason } => {
            (Level::Warn, format!("{address} refuses this node: {reason}"))
        }
    };
    tell(level, "membership", name, format_args!("{text}"));
}

/// What is said of one channel does not silence what is said of another.
fn tell(level: Level, kind: &'static str, name: &str, text: Arguments<'_>) {
    let text = format!("channel \"{name}\": {text}");
    say_of(level, kind, &text, format_args!("{text}"));
}
