//! What who runs the node is told of messages that nobody gets: once for a reason and interval, with a
//! count.

use std::fmt::Arguments;

use crate::modules::say;
use crate::ngx::log::Level;
use crate::shm::slots::Counter;

/// Why messages are lost that waited in a worker which was killed.
pub const KILLED: &str = "they waited in a worker that was killed";

/// Tells who runs the node of messages that are lost, where there are any.
pub fn tell_lost(messages: usize, why: &str) {
    if messages > 0 {
        let are = if messages == 1 { "message is" } else { "messages are" };
        let text = format_args!("ipc: {messages} {are} lost: {why}");
        say::say_of(Level::Notice, "ipc dropped", why, text);
    }
}

/// Tells who runs the node of a message that nobody handles; `name` begins with a space where it is
/// there.
#[cold]
pub fn dropped(counter: Counter, name: Arguments<'_>) {
    let (level, reason) = match counter {
        // several programs may share a worker's messages: not each handles all
        Counter::Unhandled => (Level::Info, "no handler"),
        Counter::Late => (Level::Info, "nobody waits for the reply any more"),
        Counter::Stranger => (Level::Notice, "it is for a process that is gone"),
        Counter::Lost => (Level::Notice, "its sender or receiver is gone"),
        _ => return,
    };
    let text = format_args!("ipc: a message{name} is dropped: {reason}");
    say::say_of(level, "ipc dropped", reason, text);
}
