//! Refusals: a status and a reason for who asked, a line for who runs the node. The lines are
//! limited: whoever asks much shall not fill the disk.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Arguments;

use crate::ngx::cycle;
use crate::ngx::log::{self, Level};
use crate::ngx::request::Request;
use crate::ngx::respond::Response;

/// Lines of one kind in a [`PERIOD`].
const LINES: u32 = 5;
/// In ms.
const PERIOD: usize = 1000;

#[derive(Default)]
struct Said {
    since: usize,
    lines: u32,
    silent: u32,
}

thread_local! {
    /// By kind.
    static SAID: RefCell<BTreeMap<&'static str, Said>> = const { RefCell::new(BTreeMap::new()) };
}

/// Whether another line of that kind may be written; with how many were not, since.
pub fn may_say(kind: &'static str) -> Option<u32> {
    let now = cycle::milliseconds();
    SAID.with_borrow_mut(|said| {
        let said = said.entry(kind).or_default();
        if now.wrapping_sub(said.since) >= PERIOD {
            let silent = said.silent;
            *said = Said { since: now, lines: 1, silent: 0 };
            return Some(silent);
        }
        if said.lines < LINES {
            said.lines += 1;
            return Some(0);
        }
        said.silent += 1;
        None
    })
}

/// Tells the log why a request is refused.
pub fn say_at(request: &Request<'_>, level: Level, kind: &'static str, why: Arguments<'_>) {
    match may_say(kind) {
        None => {}
        Some(0) => request.log(level, format_args!("cc: {kind}: {why}")),
        Some(more) => {
            request.log(level, format_args!("cc: {kind}: {why} ({more} more were not logged)"));
        }
    }
}

/// The answer, and the line at warn.
pub fn refused(request: &Request<'_>, kind: &'static str, status: u16, why: &str) -> Response {
    say_at(request, Level::Warn, kind, format_args!("{status}, {why}"));
    Response::text(status, why)
}

/// The same where no request is at hand.
pub fn refused_unasked(kind: &'static str, status: u16, why: &str) -> Response {
    if may_say(kind).is_some() {
        log::cycle(Level::Warn, format_args!("cc: {kind}: {status}, {why}"));
    }
    Response::text(status, why)
}
