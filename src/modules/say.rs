//! What the log is told of what is refused or dropped: the first of a kind and a reason at once, of
//! those that follow how many there were, once in a [`PERIOD`]. So whoever asks much, or sends much,
//! does not fill the disk. Any noun speaks through this; never of what a message holds.

use std::cell::{Cell, RefCell};
use std::fmt::Arguments;

use crate::ngx::cycle;
use crate::ngx::log::{self, Level};
use crate::ngx::request::Request;
use crate::ngx::timer::Timer;

/// In ms.
const PERIOD: usize = 1000;
/// Reasons of a kind that are told apart in a period.
const REASONS: usize = 8;
/// For the others.
const OTHERS: &str = "other reasons";
/// Longest text that is kept, in characters; only of the first line.
const TEXT: usize = 512;

struct Said {
    kind: &'static str,
    reason: String,
    level: Level,
    /// As the first was told.
    text: String,
    /// When something was written of it last.
    since: usize,
    /// Since then.
    more: u64,
}

impl Said {
    fn is_over(&self, now: usize) -> bool {
        now.wrapping_sub(self.since) >= PERIOD
    }

    fn tell(&mut self, now: usize) {
        let Said { level, text, more, .. } = self;
        log::cycle(*level, format_args!("cc: {text} ({more} more)"));
        (self.since, self.more) = (now, 0);
    }
}

thread_local! {
    static SAID: RefCell<Vec<Said>> = const { RefCell::new(Vec::new()) };
    static LATER: RefCell<Option<Timer>> = const { RefCell::new(None) };
    static RUNS: Cell<bool> = const { Cell::new(false) };
}

/// The event loop can be used.
pub fn start() {
    RUNS.set(true);
}

/// The event loop has ended: what was not told is told now.
pub fn end() {
    RUNS.set(false);
    LATER.take();
    let now = cycle::milliseconds();
    SAID.with_borrow_mut(|said| {
        said.iter_mut().filter(|said| said.more > 0).for_each(|said| said.tell(now));
    });
}

/// Something of that kind was refused or dropped, for that reason.
pub fn say(level: Level, kind: &'static str, reason: &str) {
    say_of(level, kind, reason, format_args!("{kind}: {reason}"));
}

/// The same in words of its own, which may tell more of the first one than the reason does.
pub fn say_of(level: Level, kind: &'static str, reason: &str, text: Arguments<'_>) {
    if first(level, kind, reason, text) {
        log::cycle(level, format_args!("cc: {text}"));
    }
}

/// The same of a request, whose client the log shows.
pub fn say_at(request: &Request<'_>, level: Level, kind: &'static str, reason: &str) {
    say_at_of(request, level, kind, reason, format_args!("{kind}: {reason}"));
}

/// Both.
pub fn say_at_of(
    request: &Request<'_>,
    level: Level,
    kind: &'static str,
    reason: &str,
    text: Arguments<'_>,
) {
    if first(level, kind, reason, text) {
        request.log(level, format_args!("cc: {text}"));
    }
}

/// Whether nothing was said of it lately; if it was, one more is counted.
fn first(level: Level, kind: &'static str, reason: &str, text: Arguments<'_>) -> bool {
    let now = cycle::milliseconds();
    let (is_first, wait) = SAID.with_borrow_mut(|said| {
        let all = &mut *said;
        if !all.iter().any(|said| said.kind == kind && said.reason == reason) {
            all.retain(|said| said.more > 0 || !said.is_over(now));
        }
        let told_apart = all.iter().filter(|said| said.kind == kind).count();
        let found = all.iter().position(|said| said.kind == kind && said.reason == reason);
        let others = || all.iter().position(|said| said.kind == kind && said.reason == OTHERS);
        let place = match found {
            None if told_apart > REASONS => others(),
            found => found,
        };
        if let Some(known) = place.and_then(|place| all.get_mut(place)) {
            if known.more == 0 && known.is_over(now) {
                if known.reason != OTHERS {
                    known.text = kept(text);
                }
                known.since = now;
                return (true, None);
            }
            known.more += 1;
            return (false, Some(PERIOD.saturating_sub(now.wrapping_sub(known.since))));
        }
        // the last that has a place of its own stands for all that come after it
        let is_others = told_apart == REASONS;
        let text = if is_others { format!("{kind}: {OTHERS}") } else { kept(text) };
        let reason = if is_others { OTHERS } else { reason };
        let since = now;
        all.push(Said { kind, reason: reason.into(), level, text, since, more: 0 });
        (true, None)
    });
    if let Some(wait) = wait {
        later(wait);
    }
    is_first
}

/// Of the first one: not the traceback.
fn kept(text: Arguments<'_>) -> String {
    text.to_string().lines().next().unwrap_or_default().chars().take(TEXT).collect()
}

/// What is to be told by then is told then.
fn later(wait: usize) {
    let is_set = || LATER.with_borrow(Option::is_some);
    if RUNS.get() && !is_set() {
        LATER.set(Some(Timer::after(wait.max(1), on_time)));
    }
}

fn on_time() {
    // the timer that called this
    let fired = LATER.take();
    let now = cycle::milliseconds();
    let next = SAID.with_borrow_mut(|said| {
        said.iter_mut().filter(|s| s.more > 0 && s.is_over(now)).for_each(|said| said.tell(now));
        said.retain(|said| said.more > 0 || !said.is_over(now));
        let waits = said.iter().filter(|said| said.more > 0);
        waits.map(|said| PERIOD.saturating_sub(now.wrapping_sub(said.since))).min()
    });
    drop(fired);
    if let Some(wait) = next {
        later(wait);
    }
}
