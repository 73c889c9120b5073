//! Calls of actions in other workers, and in this one, without Lua: over the rings, a callback for
//! the outcome. Here is who calls and who waits; `actions` has who answers. The callbacks run from
//! posted events of their own, never inside of another one, of a call, or of Lua.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use super::sending::{Letter, Unsent};
use super::worker::{self, Worker};
use super::{actions, inquiry, rings};
use crate::ngx::cycle;
use crate::ngx::event::Deferred;
use crate::ngx::guard::guard;
pub use crate::proto::ipc::ask::{Ask, CallFailed, Origin, Reply};
use crate::proto::ipc::ask::{answer, verdict};
use crate::proto::ipc::assemble::Message;
pub use crate::proto::ipc::calls::Outcome;
use crate::proto::ipc::calls::{Calls, Noted};
use crate::proto::ipc::frame::Kind;
use crate::proto::ipc::outbox::Refused;
use crate::proto::ipc::{Addressee, Pid, Seat, WorkerId};
use crate::shm::slots::Counter;

/// Answers that are sent before their receivers are woken.
const UNRUNG: usize = 16;

type Done = Box<dyn FnOnce(&Outcome)>;

/// Which workers are asked; all but this one are of the newest generation.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// Every one.
    All,
    /// These.
    Some(&'a [WorkerId]),
    /// This one.
    Here,
}

/// A call that waits; dropping it cancels: its callback is not called any more.
#[must_use]
#[derive(Debug)]
pub struct Pending(u32);

impl Pending {
    /// The call goes on by itself.
    pub fn detach(self) {
        std::mem::forget(self);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // dropped outside of the borrow: the callback may hold another call
        drop(with(|native| native.cancel(self.0)));
    }
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub(super) process: Pid,
    pub(super) call: u32,
}

#[derive(Default)]
struct Native {
    calls: Calls<Done>,
    /// Outcomes that are still to be told, with their numbers.
    finished: VecDeque<(u32, Done, Outcome)>,
    turn: Option<Deferred>,
    timer: Option<Deferred>,
    /// When the timer is due.
    due: u64,
    /// Name and data of what is being sent, and to whom.
    name: Vec<u8>,
    data: Vec<u8>,
    seats: Vec<Seat>,
    /// Answers whose receivers may not have been woken.
    unrung: usize,
    in_use: bool,
    closed: bool,
}

thread_local! {
    static NATIVE: RefCell<Native> = RefCell::default();
}

fn with<R>(f: impl FnOnce(&mut Native) -> R) -> Option<R> {
    NATIVE.try_with(|native| f(&mut native.borrow_mut())).ok()
}

static TURN: fn() = on_turn;
static TIMER: fn() = on_timer;

/// Calls an action in one worker. `done` gets its reply, or why there is none after at most
/// `timeout` ms.
pub fn call(
    worker: WorkerId,
    ask: &Ask<'_>,
    timeout: u64,
    done: impl FnOnce(Result<Reply<'_>, CallFailed>) + 'static,
) -> Pending {
    cast(Targets::Some(&[worker]), ask, timeout, |outcome| {
        done(outcome.iter().next().map_or(Err(CallFailed::Nobody), |(_, result)| result));
    })
}

/// Calls an action in this very worker, of whichever generation it is.
pub fn call_here(
    ask: &Ask<'_>,
    timeout: u64,
    done: impl FnOnce(Result<Reply<'_>, CallFailed>) + 'static,
) -> Pending {
    let done = |outcome: &Outcome| {
        done(outcome.iter().next().map_or(Err(CallFailed::Nobody), |(_, result)| result));
    };
    start(Targets::Here, ask, timeout, Box::new(done))
}

/// Calls an action in several workers at once. `done` gets what all of them answered, at the latest
/// after `timeout` ms.
pub fn cast(
    targets: Targets<'_>,
    ask: &Ask<'_>,
    timeout: u64,
    done: impl FnOnce(&Outcome) + 'static,
) -> Pending {
    start(targets, ask, timeout, Box::new(done))
}

fn start(targets: Targets<'_>, ask: &Ask<'_>, timeout: u64, done: Done) -> Pending {
    let place = worker::with(|w| (w.me(), w.table().current(), w.longest()));
    let deadline = cycle::milliseconds() as u64 + timeout;
    let begun = with(|native| {
        native.in_use = true;
        let mut seats = std::mem::take(&mut native.seats);
        seats.clear();
        if let Some((me, (generation, workers), _)) = place {
            let seat = |worker| Seat { generation, worker };
            match targets {
                Targets::All => seats.extend((0..workers as u16).map(WorkerId).map(seat)),
                Targets::Some(ids) => seats.extend(ids.iter().copied().map(seat)),
                Targets::Here => seats.push(me.seat),
            }
        }
        let (number, noted) = native.calls.begin(seats.iter().copied(), deadline, done);
        let waits = matches!(noted, Noted::More);
        native.settle(number, noted);
        let mut name = std::mem::take(&mut native.name);
        let mut data = std::mem::take(&mut native.data);
        let wrong = ask.encode(&mut name, &mut data).is_none().then_some(CallFailed::Name);
        (number, waits, wrong, seats, name, data)
    });
    // no thread-local data: the process ends
    let Some((number, waits, wrong, seats, name, data)) = begun else { return Pending(0) };
    if let (Some((me, (_, workers), longest)), true) = (place, waits) {
        let wrong = wrong.or((data.len() > longest).then_some(CallFailed::TooLong));
        let others = seats.iter().filter(|seat| **seat != me.seat).count();
        worker::with(|worker| worker.expect(number, others));
        for seat in seats.iter().copied() {
            let failed = if wrong.is_some() {
                wrong
            } else if seat == me.seat {
                None
            } else if usize::from(seat.worker.0) >= workers {
                Some(CallFailed::Nobody)
            } else {
                let letter = Letter { kind: Kind::Ask, call: number, name: &name, data: &data };
                let send = |w: &mut Worker| w.send_seat(seat, Addressee::Seat, letter);
                let sent = rings::quietly(|| worker::with(send));
                sent.unwrap_or(Err(Unsent::Nobody)).err().map(failure)
            };
            if let Some(why) = failed {
                worker::with(|worker| worker.expect(number, 0));
                note(number, seat, Err(why));
            }
        }
        // last: the others are at work already
        if wrong.is_none() && seats.contains(&me.seat) {
            let asker = Asker { process: me.pid, call: number };
            if let Err(why) = actions::ask(asker, &name, &data) {
                note(number, me.seat, Err(why));
            }
        }
    }
    with(|native| {
        (native.seats, native.name, native.data) = (seats, name, data);
        native.arm();
        native.soon();
    });
    Pending(number)
}

fn failure(why: Unsent) -> CallFailed {
    match why {
        Unsent::Nobody | Unsent::Refused(Refused::Gone) => CallFailed::Gone,
        Unsent::Refused(Refused::Full) => CallFailed::Full,
        Unsent::Refused(Refused::TooLong) => CallFailed::TooLong,
        Unsent::Refused(Refused::Name) => CallFailed::Name,
    }
}

/// Notes an answer; what to count it as besides.
pub(super) fn note(
    number: u32,
    seat: Seat,
    result: Result<Reply<'_>, CallFailed>,
) -> Option<Counter> {
    with(|native| {
        let noted = native.calls.note(number, seat, result);
        let late = matches!(noted, Noted::Late);
        native.settle(number, noted);
        late.then_some(Counter::Late)
    })?
}

/// Takes a native message in; what to count it as besides.
pub(super) fn accept(message: &Message<'_>) -> Option<Counter> {
    let open = with(|native| {
        native.in_use = true;
        !native.closed
    });
    if !open? {
        return None;
    }
    let Message { kind, call, sender, seat, name, data } = *message;
    if kind == Kind::Inquiry {
        inquiry::answer(sender, data);
        return None;
    }
    if kind == Kind::Answer {
        return match answer(name, data) {
            Some(result) => note(call, seat, result),
            None => Some(Counter::Lost),
        };
    }
    let asker = Asker { process: sender, call };
    match actions::ask(asker, name, data) {
        Ok(()) => None,
        Err(why) => {
            actions::refuse(asker, why);
            (why == CallFailed::NoAction).then_some(Counter::Unhandled)
        }
    }
}

/// Gives an answer. False: it could not be sent.
pub(super) fn give(asker: Asker, result: Result<Reply<'_>, CallFailed>) -> bool {
    let Some((me, longest)) = worker::with(|w| (w.me(), w.longest())) else { return false };
    if asker.process == me.pid {
        let fits = |reply: &Reply<'_>| reply.body.len() <= longest;
        let result =
            result.and_then(|reply| Some(reply).filter(fits).ok_or(CallFailed::ReplyTooLong));
        note(asker.call, me.seat, result);
        return true;
    }
    let send = |result: Result<Reply<'_>, CallFailed>| {
        let name = verdict(result.map(|reply| reply.status));
        let data = result.map_or(&[][..], |reply| reply.body);
        let letter = Letter { kind: Kind::Answer, call: asker.call, name: &name, data };
        let send = |worker: &mut Worker| worker.send_process(asker.process, letter);
        rings::quietly_to(
            || worker::with(send),
            |to| worker::with(|w| w.answered(asker.process, asker.call, to)).unwrap_or(to),
        )
    };
    hold_bell();
    match send(result) {
        Some(Err(Unsent::Refused(Refused::TooLong))) => {
            send(Err(CallFailed::ReplyTooLong)).is_some_and(|sent| sent.is_ok())
        }
        // whoever has gone waits for nothing
        Some(Err(Unsent::Nobody)) => true,
        sent => sent.is_some_and(|sent| sent.is_ok()),
    }
}

/// So many answers cost one wake-up at most: whoever waits shall not wait for all of them.
fn hold_bell() {
    let rings = with(|native| {
        native.unrung += 1;
        native.soon();
        native.unrung >= UNRUNG
    });
    if rings == Some(true) {
        ring();
    }
}

/// Wakes who sleeps and was sent something.
pub(super) fn ring() {
    with(|native| native.unrung = 0);
    worker::with(|worker| worker.rouse_held());
}

impl Native {
    fn settle(&mut self, number: u32, noted: Noted<Done>) {
        if let Noted::Done(done, outcome) = noted {
            self.finished.push_back((number, done, outcome));
            self.soon();
        }
    }

    fn cancel(&mut self, number: u32) -> Option<Done> {
        let found = self.calls.end(number).or_else(|| {
            let place = self.finished.iter().position(|(n, ..)| *n == number)?;
            self.finished.remove(place).map(|(_, done, outcome)| (done, outcome))
        });
        let (done, outcome) = found?;
        self.calls.recycle(outcome);
        self.arm();
        Some(done)
    }

    fn soon(&mut self) {
        if !self.closed {
            self.turn.get_or_insert_with(|| Deferred::new(&TURN)).soon();
        }
    }

    /// One timer for all calls. Set for a call that has ended in time, it stays: the next one will
    /// want it. A leaving worker is kept by those only that wait.
    fn arm(&mut self) {
        if self.closed {
            return;
        }
        let timer = self.timer.get_or_insert_with(|| Deferred::new(&TIMER));
        match self.calls.next() {
            Some(deadline) if !timer.is_set() || deadline < self.due => {
                // a timer that is set is not moved by less than a third of a second
                timer.cancel();
                self.due = deadline;
                timer.after(deadline.saturating_sub(cycle::milliseconds() as u64) as usize, true);
            }
            None if cycle::exiting() => timer.cancel(),
            _ => {}
        }
    }
}

fn on_timer() {
    let now = cycle::milliseconds() as u64;
    // of answers only the last one wakes
    worker::with(Worker::look);
    with(|native| {
        while let Some((number, done, outcome)) = native.calls.expire(now) {
            native.finished.push_back((number, done, outcome));
        }
        native.arm();
    });
    on_turn();
}

/// Answers what Rust answers, tells outcomes, and wakes who answers in Lua.
fn on_turn() {
    ring();
    actions::work();
    while let Some(Some((_, done, outcome))) = with(|native| native.finished.pop_front()) {
        guard("outcome of a call", (), || done(&outcome));
        with(|native| native.calls.recycle(outcome));
    }
    if cycle::exiting() {
        with(Native::arm);
    }
}

/// In this turn of the event loop, answers are given and outcomes told.
pub(super) fn soon() {
    with(Native::soon);
}

/// The calls that wait for `seat`, or for anybody, by seat.
pub(super) fn waiting(seat: Option<Seat>) -> BTreeMap<Seat, Vec<u32>> {
    with(|native| native.calls.waiting(seat)).unwrap_or_default()
}

/// From now on there may be native messages behind those for Lua.
pub(super) fn use_it() {
    with(|native| native.in_use = true);
}

/// Whether there may be any.
pub(super) fn in_use() -> bool {
    with(|native| native.in_use) == Some(true)
}

/// The event loop can be used; at most `limit` bytes of asks wait.
pub(super) fn enter(limit: usize) {
    with(|native| native.closed = false);
    actions::enter(limit);
}

/// The worker begins to leave.
pub(super) fn retire() {
    with(Native::arm);
}

/// The light threads of function actions, and how many of them wait, each by a timer.
pub(super) fn threads() -> (usize, usize) {
    super::functions::threads()
}

/// Those that wait shall end.
pub(super) fn end() {
    super::functions::end();
}

/// The event loop has ended: nobody is called back any more.
pub(super) fn close() {
    let old =
        with(|native| std::mem::replace(native, Native { closed: true, ..Native::default() }));
    drop(old);
    actions::close();
}
