//! What Lua calls through FFI for `ngx.ipc`: thin functions over `worker`, C types only.

use super::sending::{Letter, Reach, Unsent};
use super::worker::{self, Worker};
use super::{losses, retaining};
use crate::modules::say;
use crate::ngx::conf::shown;
use crate::ngx::log::Level;
use crate::ngx::lua::{Address, Bytes, Guard, Out, Semaphore, Text, exported};
use crate::proto::ipc::frame::Kind;
use crate::proto::ipc::outbox::Refused;
use crate::proto::ipc::{Pid, Seat, WorkerId};
use crate::shm::retained::SetError;
use crate::shm::slots::{COUNTERS, Counter, State};

/// Answers of the sending functions; src/lua/ipc.lua has the words.
const OK: i32 = 0;
const NOT_A_WORKER: i32 = -1;
const NOBODY: i32 = -2;
const FULL: i32 = -3;
const TOO_LONG: i32 = -4;
const NAME: i32 = -5;
const BUG: i32 = -6;
const NO_ROOM: i32 = -7;
const BUSY: i32 = -8;
const KEY: i32 = -9;

/// Kinds of messages, as src/lua/ipc_receiver.lua has them.
const CALL: u32 = Kind::Call as u32;
const REPLY: u32 = Kind::Reply as u32;
const FAILURE: u32 = Kind::Failure as u32;

/// A message for a handler. The addresses hold until the next take.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Mail {
    name: Bytes,
    data: Bytes,
    sender: u32,
    worker: u32,
    /// 1 message, 3 call, 4 reply, 5 failure, as on the wire.
    kind: u32,
    call: u32,
}

/// A retained value. The addresses hold until the next look at retained values.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Item {
    key: Bytes,
    value: Bytes,
    sequence: u64,
}

impl Item {
    fn of(copy: &retaining::Copy) -> Item {
        Item { key: Bytes::of(&copy.key), value: Bytes::of(&copy.value), sequence: copy.sequence }
    }
}

/// A row of the worker table.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Row {
    id: u32,
    pid: u32,
    generation: u32,
    /// 1 starting, 2 live, 3 retiring.
    state: u32,
}

/// A worker that a broadcast did not reach.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Missed {
    id: u32,
    generation: u32,
    code: i32,
}

impl Missed {
    fn of((seat, why): &(Seat, Unsent)) -> Missed {
        Missed {
            id: u32::from(seat.worker.0),
            generation: seat.generation.0,
            code: code(Err(*why)),
        }
    }
}

/// What `stats` tells, in messages but for `queued_bytes`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Stats {
    counters: [u64; COUNTERS],
    queued: u64,
    queued_bytes: u64,
}

fn letter<'a>(kind: u32, call: u32, name: &'a [u8], data: &'a [u8]) -> Letter<'a> {
    let kind = match kind {
        CALL => Kind::Call,
        REPLY => Kind::Reply,
        FAILURE => Kind::Failure,
        _ => Kind::Message,
    };
    Letter { kind, call, name, data }
}

fn code(result: Result<(), Unsent>) -> i32 {
    match result {
        Ok(()) => OK,
        Err(Unsent::Nobody | Unsent::Refused(Refused::Gone)) => NOBODY,
        Err(Unsent::Refused(Refused::Full)) => FULL,
        Err(Unsent::Refused(Refused::TooLong)) => TOO_LONG,
        Err(Unsent::Refused(Refused::Name)) => NAME,
    }
}

fn with(f: impl FnOnce(&mut Worker) -> i32) -> i32 {
    worker::with(f).unwrap_or(NOT_A_WORKER)
}

exported! {
    /// Sends to a process.
    fn ngx_cc_ipc_send(pid: u32, kind: u32, call: u32, name: Text, name_len: usize, data: Text, data_len: usize) -> i32, BUG, {
        let (name, data) = (name.bytes(name_len), data.bytes(data_len));
        with(|worker| code(worker.send_process(Pid(pid), letter(kind, call, name, data))))
    }

    /// Sends to whoever has that worker id.
    fn ngx_cc_ipc_send_worker(id: u32, kind: u32, call: u32, name: Text, name_len: usize, data: Text, data_len: usize) -> i32, BUG, {
        let (name, data) = (name.bytes(name_len), data.bytes(data_len));
        let Ok(id) = u16::try_from(id) else { return NOBODY };
        with(|worker| code(worker.send_worker(WorkerId(id), letter(kind, call, name, data))))
    }

    /// Sends to all; how many were missed, of which the first `room` are told. `reach` 1: of this
    /// generation; 2: of them, but for this worker; 0: of newer ones, too.
    fn ngx_cc_ipc_broadcast(reach: i32, kind: u32, call: u32, name: Text, name_len: usize, data: Text, data_len: usize, missed: Out<Missed>, room: usize) -> i32, BUG, {
        let (name, data) = (name.bytes(name_len), data.bytes(data_len));
        let reach = match reach {
            0 => Reach::Newer,
            1 => Reach::Own,
            _ => Reach::Others,
        };
        with(|worker| {
            let unsent = worker.broadcast(reach, letter(kind, call, name, data));
            missed.fill(room, unsent.iter().map(Missed::of));
            unsent.len() as i32
        })
    }

    /// Takes the next message: 1 one is there, 0 wait for the semaphore, 2 the worker leaves and,
    /// for the receiver, nothing is there any more, 4 the receiver is to compare what is retained with
    /// what was told. `who`: 0 the receiver, 1 its deputy while a handler has yielded,
    /// 2 the deputy, which takes nothing but will wait.
    fn ngx_cc_ipc_take(mail: Out<Mail>, who: i32) -> i32, BUG, {
        with(|worker| {
            let taken = match who {
                0 => worker.take(),
                1 => worker.take_as_deputy(),
                _ => worker.deputy_waits(),
            };
            let row = taken.map(|taken| Mail {
                name: taken.name,
                data: taken.data,
                sender: taken.sender.0,
                worker: u32::from(taken.seat.worker.0),
                kind: taken.kind as u32,
                call: taken.call,
            });
            match mail.fill(1, row.into_iter()) {
                0 if worker.is_over(who != 0) => 2,
                0 if who == 0 && worker.reviews() => 4,
                taken => taken as i32,
            }
        })
    }

    /// The receiver goes on with what it need not take: a message that its deputy had put `aside`, or a
    /// retained value.
    fn ngx_cc_ipc_goes_on(aside: i32) -> (), (), {
        worker::with(|worker| worker.goes_on(aside != 0));
    }

    /// This worker's handlers could not be told of a retained value: later.
    fn ngx_cc_ipc_untold() -> (), (), {
        worker::with(|worker| worker.leave_untold(worker.me().seat));
    }

    /// How many calls of this worker wait for replies.
    fn ngx_cc_ipc_calls(calls: u32) -> (), (), {
        worker::with(|worker| worker.calls(calls as usize));
    }

    /// Counts a message taken: 0 it had no handler, 1 its handler failed, 2 nobody waits for that
    /// reply any more. Its name, and of a failure the reason.
    fn ngx_cc_ipc_unhappy(what: i32, name: Text, name_len: usize, why: Text, why_len: usize) -> (), (), {
        let counter = match what {
            0 => Counter::Unhandled,
            1 => Counter::Failed,
            _ => Counter::Late,
        };
        worker::with(|worker| worker.count(counter, 1));
        let (name, why) = (shown(name.bytes(name_len)), shown(why.bytes(why_len)));
        if counter == Counter::Failed && !why.is_empty() {
            let text = format_args!("ipc handler \"{name}\" failed: {why}");
            let reason = format!("{name}: {}", why.lines().next().unwrap_or_default());
            say::say_of(Level::Err, "ipc handler", &reason, text);
        } else if name.is_empty() {
            losses::dropped(counter, format_args!(""));
        } else {
            losses::dropped(counter, format_args!(" \"{name}\""));
        }
    }

    /// Something else went wrong: 0 a reply could not be sent, 1 an action of that name failed, 2 its
    /// answer could not be sent, 3 a handler ended the receiver.
    fn ngx_cc_say(what: i32, name: Text, name_len: usize, why: Text, why_len: usize) -> (), (), {
        let (name, why) = (shown(name.bytes(name_len)), shown(why.bytes(why_len)));
        let (level, kind) = match what {
            0 => (Level::Warn, "ipc reply"),
            1 => (Level::Err, "action"),
            3 => (Level::Err, "ipc receiver"),
            _ => (Level::Warn, "action's answer"),
        };
        let reason = format!("{name}{}", why.lines().next().unwrap_or_default());
        say::say_of(level, kind, &reason, format_args!("{name}{why}"));
    }

    /// Watches over the light thread of `request`, a receiver, its heir or its deputy: `sema` is posted once
    /// when it ends or passes its work on. NULL when memory ran out.
    fn ngx_cc_ipc_guard(request: Address, sema: Address, post: Address) -> Address, Address::NULL, {
        let guard = Semaphore::new(sema, post)
            .and_then(|semaphore| Guard::over(request, semaphore, worker::receiver_ended, 0));
        if guard.is_some() {
            worker::with(Worker::receiver_began);
        }
        guard.unwrap_or(Address::NULL)
    }

    /// `sema` is posted once when `request` ends, in whatever way: 1, or 0 when memory ran out.
    fn ngx_cc_ipc_mourn(request: Address, sema: Address, post: Address) -> i32, 0, {
        let guard = Semaphore::new(sema, post).and_then(|sema| Guard::over(request, sema, |_| (), 0));
        i32::from(guard.is_some())
    }

    /// The light thread under this guard passes its work on.
    fn ngx_cc_ipc_pass(guard: Address) -> (), (), {
        Guard::pass(guard);
    }

    /// Makes these the semaphores that are posted for mail, the receiver's and its deputy's: 1
    /// done, 0 others are.
    fn ngx_cc_ipc_attach(sema: Address, deputy: Address, post: Address) -> i32, BUG, {
        let (Some(sema), Some(deputy)) = (Semaphore::new(sema, post), Semaphore::new(deputy, post)) else {
            return BUG;
        };
        with(|worker| i32::from(worker.attach(sema, deputy)))
    }

    /// The receiver's semaphore is no longer waited on.
    fn ngx_cc_ipc_detach(sema: Address, post: Address) -> (), (), {
        if let Some(semaphore) = Semaphore::new(sema, post) {
            worker::with(|worker| worker.detach(semaphore));
        }
    }

    /// Fills in the living workers; how many.
    fn ngx_cc_ipc_workers(rows: Out<Row>, room: usize) -> i32, BUG, {
        with(|worker| {
            let living = worker.table().workers().filter(|w| super::alive(w.pid));
            rows.fill(room, living.map(|w| Row {
                id: u32::from(w.seat.worker.0),
                pid: w.pid.0,
                generation: w.seat.generation.0,
                // who closes is to users one who retires
                state: (w.state as u32 + 1).min(State::Retiring as u32 + 1),
            })) as i32
        })
    }

    /// Retains a value (`keep`), or ends it, and tells all: how many could not be told, of which
    /// the first `room` are listed.
    fn ngx_cc_ipc_retain(keep: i32, name: Text, name_len: usize, key: Text, key_len: usize, value: Text, value_len: usize, missed: Out<Missed>, room: usize) -> i32, BUG, {
        let (name, key) = (name.bytes(name_len), key.bytes(key_len));
        let value = (keep != 0).then(|| value.bytes(value_len));
        with(|worker| match worker.retain(name, key, value) {
            Ok((_, untold)) => {
                missed.fill(room, untold.iter().map(Missed::of));
                untold.len() as i32
            }
            Err(SetError::NoRoom) => NO_ROOM,
            Err(SetError::TooLong) => TOO_LONG,
            Err(SetError::NameTooLong) => NAME,
            Err(SetError::KeyTooLong) => KEY,
            Err(SetError::Busy) => BUSY,
        })
    }

    /// Looks at one retained value: 1 there it is, 0 there is none.
    fn ngx_cc_ipc_retained(name: Text, name_len: usize, key: Text, key_len: usize, item: Out<Item>) -> i32, BUG, {
        let (name, key) = (name.bytes(name_len), key.bytes(key_len));
        with(|worker| match worker.retained(name, key) {
            Ok(copy) => item.fill(1, copy.into_iter().map(Item::of)) as i32,
            Err(_) => BUSY,
        })
    }

    /// Looks at all retained values of a name: how many there are.
    fn ngx_cc_ipc_retained_all(name: Text, name_len: usize) -> i32, BUG, {
        let name = name.bytes(name_len);
        with(|worker| worker.retained_all(name).map_or(BUSY, |count| count as i32))
    }

    /// Up to which sequence number that look saw everything of the name, its low half.
    fn ngx_cc_ipc_retained_visited() -> u32, 0, {
        worker::with(|worker| worker.visited()).unwrap_or(0)
    }

    /// One of them, from 0; 0 where that was the last.
    fn ngx_cc_ipc_retained_item(index: usize, item: Out<Item>) -> i32, BUG, {
        with(|worker| match item.fill(1, worker.copy(index).into_iter().map(Item::of)) {
            0 => {
                worker.drop_copies();
                0
            }
            filled => filled as i32,
        })
    }

    /// This worker's generation.
    fn ngx_cc_ipc_generation() -> i32, BUG, {
        with(|worker| worker.me().seat.generation.0 as i32)
    }

    /// Counters of all workers since the zone began; queues of this one.
    fn ngx_cc_ipc_stats(stats: Out<Stats>) -> i32, BUG, {
        with(|worker| {
            let table = worker.table();
            let (queued, bytes) = worker.queued();
            let all = [
                Counter::Sent, Counter::Received, Counter::Full, Counter::Unhandled,
                Counter::Stranger, Counter::Lost, Counter::Failed, Counter::Late,
            ];
            let counters = all.map(|counter| table.total(counter));
            let row = Stats { counters, queued: queued as u64, queued_bytes: bytes as u64 };
            stats.fill(1, std::iter::once(row)) as i32 - 1
        })
    }

    /// This worker's first per_worker port; -1 where it has none.
    fn ngx_cc_worker_port() -> i32, -1, {
        crate::modules::listen::worker_port().map_or(-1, i32::from)
    }
}
