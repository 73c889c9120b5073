//! What Lua calls through FFI for `ngx.cc.lifecycle` and `resty.worker.manager`: thin functions over
//! [`super::Own`], C types only.

use super::loading;
use super::{Own, view, with};
use crate::ngx::lua::{Address, Guard, Out, Semaphore, Text, exported};
use crate::proto::ipc::Pid;
use crate::proto::lifecycle::{Counted, Counts, Member, Moment, Said, Status, Tally, Why};
use crate::shm::lifecycle::{Event, LeaseRefused, Read, What};

/// Answers; src/lua/lifecycle.lua has the words.
const NOT_A_WORKER: i32 = -1;
const BUG: i32 = -6;
const NO_ROOM: i32 = -7;
const BUSY: i32 = -8;
const KEY: i32 = -9;
/// No status is known.
const UNKNOWN: i32 = -1;

/// Bytes of a text that a row carries.
const TEXT: usize = 96;

/// Something that happened.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Row {
    /// As [`What`].
    what: u32,
    /// As [`Why`].
    why: u32,
    id: u32,
    pid: u32,
    generation: u32,
    other: u32,
    /// -1 where it is not known, or was not that.
    signal: i32,
    code: i32,
    sequence: u64,
    /// ms since 1970.
    time: u64,
}

impl Row {
    fn of(sequence: u64, event: Event) -> Row {
        Row {
            what: event.what as u32,
            why: event.why as u32,
            id: u32::from(event.seat.worker.0),
            pid: event.pid.0,
            generation: event.seat.generation.0,
            other: event.other.map_or(0, |pid| pid.0),
            signal: event.status.and_then(Status::signal).unwrap_or(UNKNOWN),
            code: event.status.and_then(Status::code).unwrap_or(UNKNOWN),
            sequence,
            time: event.time,
        }
    }
}

/// A worker for `status`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Seat {
    id: u32,
    pid: u32,
    generation: u32,
    why: u32,
    other: u32,
    ready: u32,
    signal: i32,
    code: i32,
    deaths: u64,
    time: u64,
    state: [u8; 16],
    reason: [u8; TEXT],
}

fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let room = N - 1; // NUL-terminated
    bytes.iter_mut().zip(text.bytes().take(room)).for_each(|(to, from)| *to = from);
    bytes
}

/// What a worker has seen of a name.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Seen {
    id: u32,
    pid: u32,
    generation: u32,
    sequence: u64,
}

/// A number, and when it was last added to (ms since 1970).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Counter {
    number: u64,
    time: u64,
}

/// The three numbers of a callback; -1 is nil.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Numbers {
    id: i32,
    previous: i32,
    mine: i32,
    next: i32,
}

impl Numbers {
    fn of(id: u32, counts: Counts) -> Numbers {
        let number = |count: Option<usize>| count.map_or(-1, |count| count as i32);
        Numbers {
            id: id as i32,
            previous: number(counts.previous),
            mine: number(Some(counts.mine)),
            next: number(counts.next),
        }
    }
}

fn code(f: impl FnOnce(&mut Own) -> i32) -> i32 {
    with(f).unwrap_or(NOT_A_WORKER)
}

impl Own {
    /// The next event for Lua: what this worker did itself it knows.
    fn next(&mut self) -> Result<(u64, Event), u64> {
        loop {
            match self.life.read(self.cursor) {
                Read::Nothing => {
                    self.posted = false;
                    return Err(0);
                }
                Read::Missed(count, next) => {
                    self.cursor = next;
                    return Err(count);
                }
                Read::Event(number, event) => {
                    self.cursor = number;
                    let own =
                        event.pid == self.me && !matches!(event.what, What::Start | What::Reload);
                    if !own {
                        return Ok((number, event));
                    }
                }
            }
        }
    }

    fn counts(&self, moment: Moment) -> Counts {
        let newest = self.table.current().0;
        let before = self.before.as_ref();
        let before = before.map(|pids| pids.iter().filter(|pid| super::alive(Pid(**pid))).count());
        let members: Vec<Counted> = self
            .life
            .views()
            .map(|view| Counted { member: view.member, said: view.said })
            .filter(|c| moment != Moment::Leaving || super::lives(&c.member))
            .collect();
        crate::proto::lifecycle::counts(self.seat.generation, newest, before, moment, &members)
    }
}

exported! {
    /// Makes this the semaphore that is posted for news: 1 done, 0 another VM's is.
    fn ngx_cc_life_attach(sema: Address, post: Address) -> i32, BUG, {
        let Some(semaphore) = Semaphore::new(sema, post) else { return BUG };
        code(|own| {
            let free = own.waiter.is_none_or(|waiter| waiter == semaphore);
            if free {
                own.waiter = Some(semaphore);
                own.posted = false;
                own.wake();
            }
            i32::from(free)
        })
    }

    /// The semaphore is no longer waited on.
    fn ngx_cc_life_detach() -> (), (), {
        with(|own| own.waiter = None);
    }

    /// The next event: 1 there it is, 0 none, else 1 less than minus as many as were missed.
    fn ngx_cc_life_next(row: Out<Row>) -> i32, BUG, {
        code(|own| match own.next() {
            Ok((sequence, event)) => row.fill(1, std::iter::once(Row::of(sequence, event))) as i32,
            Err(0) => 0,
            Err(missed) => -1 - i32::try_from(missed).unwrap_or(i32::MAX - 1),
        })
    }

    /// Why this worker leaves, as [`Why`]; 0 where it does not.
    fn ngx_cc_life_leaving(now: i32) -> i32, 0, {
        with(|own| own.leaving.or((now != 0).then(|| own.told())).map_or(0, |why| why as i32)).unwrap_or(0)
    }

    /// Who this worker is and why it started.
    fn ngx_cc_life_me(row: Out<Row>) -> i32, BUG, {
        code(|own| {
            let (status, other) = (own.entry.status, own.entry.predecessor);
            let (pid, seat, what, why) = (own.me, own.seat, What::WorkerStart, own.entry.why);
            let time = own.life.view(own.slot).map_or(0, |view| view.since);
            let event = Event { what, why, pid, seat, other, status, time };
            row.fill(1, std::iter::once(Row::of(0, event))) as i32
        })
    }

    /// Who leads: 1 this worker, 2 another, 0 nobody.
    fn ngx_cc_life_leader(row: Out<Row>) -> i32, BUG, {
        code(|own| {
            let Some(Member { pid, seat, .. }) = own.leader() else { return 0 };
            let (what, why) = (What::WorkerStart, Why::Start);
            let event = Event { what, why, pid, seat, other: None, status: None, time: 0 };
            row.fill(1, std::iter::once(Row::of(0, event)));
            if pid == own.me { 1 } else { 2 }
        })
    }

    /// This worker says whether it is ready, and why not.
    fn ngx_cc_life_set_ready(ready: i32, reason: Text, len: usize) -> i32, BUG, {
        code(|own| {
            own.life.set_ready(own.slot, ready != 0, reason.bytes(len));
            1
        })
    }

    /// This worker's handler has seen the retained values of that name up to the number with that
    /// low half.
    fn ngx_cc_life_saw(name: Text, len: usize, low: u32) -> (), (), {
        let name = name.bytes(len);
        let sequence = crate::modules::ipc::worker::with(|worker| worker.sequence(name, low)).flatten();
        if let Some(sequence) = sequence {
            with(|own| own.life.saw(own.slot, name, sequence));
        }
    }

    /// What the workers that listen to a name have seen of it: how many they are; and its last
    /// sequence number.
    fn ngx_cc_life_seen(name: Text, len: usize, last: Out<u64>, rows: Out<Seen>, room: usize) -> i32, BUG, {
        let Some(node) = view::node() else { return NOT_A_WORKER };
        let name = name.bytes(len);
        let place = node.retained.iter().position(|(known, _)| known == name);
        let number = place.and_then(|place| node.retained.get(place)).map_or(0, |(_, last)| *last);
        last.fill(1, std::iter::once(number));
        let seen = node.workers.iter().filter_map(|worker| {
            let (_, sequence) = worker.seen.iter().find(|(at, _)| Some(*at) == place)?;
            Some((worker, *sequence))
        });
        rows.fill(room, seen.map(|(worker, sequence)| Seen {
            id: u32::from(worker.id.0),
            pid: worker.pid.0,
            generation: worker.generation.0,
            sequence,
        })) as i32
    }

    /// Whether all are: 1, or 0 and why not.
    fn ngx_cc_life_ready(reason: Out<[u8; TEXT]>) -> i32, BUG, {
        match view::ready() {
            None => NOT_A_WORKER,
            Some(Ok(())) => 1,
            Some(Err(why)) => {
                reason.fill(1, std::iter::once(text(&why)));
                0
            }
        }
    }

    /// Tries for a key: 1 this worker holds it, 0 another one does.
    fn ngx_cc_life_claim(key: Text, len: usize) -> i32, BUG, {
        code(|own| match own.handle.claim(key.bytes(len)) {
            Ok(()) => 1,
            Err(LeaseRefused::Held(_)) => 0,
            Err(LeaseRefused::NoRoom) => NO_ROOM,
            Err(LeaseRefused::Key) => KEY,
            Err(LeaseRefused::Busy) => BUSY,
        })
    }

    /// Gives it up: 1, or 0 where it was not this worker's.
    fn ngx_cc_life_release(key: Text, len: usize) -> i32, BUG, {
        code(|own| {
            let freed = super::again(|| own.handle.release(key.bytes(len))).unwrap_or(false);
            crate::ngx::socket::ring(&own.gong);
            i32::from(freed)
        })
    }

    /// The living process that holds it; 0 nobody.
    fn ngx_cc_life_holder(key: Text, len: usize, row: Out<Row>) -> i32, BUG, {
        code(|own| {
            let Some(pid) = own.life.held(key.bytes(len)).filter(|pid| super::alive(*pid)) else { return 0 };
            let holder = own.life.members().find(|m| m.pid == pid && m.phase.runs());
            let Some(Member { pid, seat, .. }) = holder else { return 0 };
            let (what, why) = (What::WorkerStart, Why::Start);
            let event = Event { what, why, pid, seat, other: None, status: None, time: 0 };
            row.fill(1, std::iter::once(Row::of(0, event))) as i32
        })
    }

    /// Whether Lua is to be woken for whatever happens, since it waits for a key or the lock.
    fn ngx_cc_life_wants(wants: i32) -> (), (), {
        with(|own| {
            own.wants = wants != 0;
            // who says so goes to wait
            own.posted &= !own.wants;
        });
    }

    /// Takes the lock for callbacks, waiting at most so long: 1, or 0 where somebody has it.
    fn ngx_cc_life_lock(milliseconds: u32) -> i32, BUG, {
        // not as `with` does: what waits must not keep the rest of this process from its part
        let Some((life, handle)) = with(|own| (own.life, own.handle)) else { return NOT_A_WORKER };
        i32::from(super::wait_for(life, &handle, milliseconds as usize))
    }

    /// Gives it back.
    fn ngx_cc_life_unlock() -> (), (), {
        with(|own| {
            if own.handle.let_go() {
                crate::ngx::process::wake(own.life.callback_word());
                crate::ngx::socket::ring(&own.gong);
            }
        });
    }

    /// The numbers for a callback; `leaving`: of one that leaves.
    fn ngx_cc_life_counts(leaving: i32, numbers: Out<Numbers>) -> i32, BUG, {
        code(|own| {
            let respawned = own.life.view(own.slot).is_some_and(|view| view.said.predecessor);
            let moment = if leaving != 0 { Moment::Leaving } else { Moment::Starting { respawned } };
            let counts = own.counts(moment);
            numbers.fill(1, std::iter::once(Numbers::of(own.seat.generation.0, counts))) as i32
        })
    }

    /// The callback for the start, or for leaving, has begun.
    fn ngx_cc_life_said(farewell: i32) -> (), (), {
        with(|own| {
            let Some(view) = own.life.view(own.slot) else { return };
            let said = match farewell {
                0 => Said { hello: true, ..view.said },
                _ => Said { farewell: true, ..view.said },
            };
            own.life.set_said(own.slot, said);
        });
    }

    /// In init_by_lua: the numbers for the master's callback, once it may run: 1. 0: this is no
    /// start. -1: not in init_by_lua. -8: a callback elsewhere does not end.
    fn ngx_cc_life_load(numbers: Out<Numbers>) -> i32, BUG, {
        let Some(loading) = loading::current() else { return NOT_A_WORKER };
        if loading.idle {
            return 0;
        }
        if !loading.hold() {
            return BUSY;
        }
        let counts = Counts { previous: loading.previous(), mine: 0, next: None };
        numbers.fill(1, std::iter::once(Numbers::of(loading.generation.0, counts))) as i32
    }

    /// That callback is over.
    fn ngx_cc_life_loaded() -> (), (), {
        if let Some(loading) = loading::current() {
            loading.let_go();
        }
    }

    /// Watches over the light thread of `request`, which runs handlers: when it ends, `sema` is
    /// posted. NULL when memory ran out.
    fn ngx_cc_life_guard(request: Address, sema: Address, post: Address) -> Address, Address::NULL, {
        fn ended(_: u32) {
            with(|own| own.runner_ended = true);
        }
        let guard = Semaphore::new(sema, post).and_then(|waiter| Guard::over(request, waiter, ended, 0));
        guard.unwrap_or(Address::NULL)
    }

    /// Whether that one has ended since this was asked last.
    fn ngx_cc_life_runner_ended() -> i32, 0, {
        with(|own| i32::from(std::mem::take(&mut own.runner_ended))).unwrap_or(0)
    }

    /// All counters, in the order of [`Tally::ALL`].
    fn ngx_cc_life_counters(counters: Out<Counter>, room: usize) -> i32, BUG, {
        code(|own| {
            let count = |(tally, _): &(Tally, &str)| {
                let (number, time) = own.life.tally(*tally);
                Counter { number, time }
            };
            counters.fill(room, Tally::ALL.iter().map(count)) as i32
        })
    }

    /// Fills in the workers, those of the generation in force and older ones that still run.
    fn ngx_cc_life_workers(rows: Out<Seat>, room: usize) -> i32, BUG, {
        let Some(node) = view::node() else { return NOT_A_WORKER };
        rows.fill(room, node.workers.iter().map(|worker| Seat {
            id: u32::from(worker.id.0),
            pid: worker.pid.0,
            generation: worker.generation.0,
            why: worker.why as u32,
            other: worker.predecessor.map_or(0, |pid| pid.0),
            ready: u32::from(worker.ready),
            signal: worker.status.and_then(Status::signal).unwrap_or(UNKNOWN),
            code: worker.status.and_then(Status::code).unwrap_or(UNKNOWN),
            deaths: worker.deaths,
            time: worker.since,
            state: text(worker.state),
            reason: text(&worker.reason),
        })) as i32
    }
}
