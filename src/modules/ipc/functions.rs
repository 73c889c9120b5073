//! Function actions: Lua functions that answer asks. src/lua/cc.lua has the light threads that run
//! them; here is which of them takes what, when one is woken, and what Lua calls. One thread takes
//! ask after ask; when a function yields, the next thread goes on, and one more is started, so that
//! there is always one that waits.

use std::cell::RefCell;

use foldhash::HashMap;

use super::actions::{self, Work};
use super::native::{self, Asker, CallFailed, Outcome, Pending, Reply, Targets};
use super::worker;
use crate::modules::cluster;
use crate::ngx::cycle;
use crate::ngx::lua::{Address, Bytes, Guard, Out, Semaphore, Text, exported};
use crate::proto::cluster::query;
use crate::proto::ipc::WorkerId;
use crate::proto::ipc::ask::{Ask, Origin};
use crate::shm::slots::Counter;

/// Functions that may have yielded at a time. The light thread of each is a running timer of the Lua
/// module, which has 256. One more waits: were all to end their threads, nobody could start another.
const WORKING_MAX: usize = 100;
/// How long a thread may take to begin, in ms; later its timer is taken for one that the Lua module had
/// no room for when it was due.
const BEGINS: usize = 1000;
/// Outcomes that Lua has not looked at. It looks at once, unless its light thread was killed.
const OUTCOMES_MAX: usize = 10_000;

/// Answers to Lua; src/lua/cc.lua has the words.
const WAIT: i32 = 0;
const TAKEN: i32 = 1;
const OVER: i32 = 2;
const TAKEN_AND_START: i32 = 3;
const BUG: i32 = -1;
const NAME: i32 = -2;
const BUSY: i32 = -3;

struct Thread {
    guard: Address,
    idle: bool,
    work: Option<Work>,
}

#[derive(Default)]
struct Functions {
    semaphore: Option<Semaphore>,
    threads: HashMap<u32, Thread>,
    last: u32,
    /// Threads that have been started and have not begun.
    starting: usize,
    /// When the last one was, in milliseconds of the event loop's clock.
    started: usize,
    idle: usize,
    /// The semaphore was posted, and no thread has come yet.
    woken: bool,
    over: bool,
    /// Of calls from Lua, by number.
    outcomes: HashMap<u32, Reported>,
    last_call: u32,
}

/// A call from Lua: it waits, or what came of it.
enum Reported {
    Waits { _call: Pending },
    Done(Vec<Row>),
}

struct Row {
    worker: u16,
    result: Result<(u16, Vec<u8>), CallFailed>,
}

impl Functions {
    fn working(&self) -> usize {
        self.threads.len() - self.idle
    }

    fn start(&mut self) {
        self.starting += 1;
        self.started = cycle::milliseconds();
    }

    /// Whether no other thread waits, or will.
    fn is_last(&self) -> bool {
        let late = cycle::milliseconds().wrapping_sub(self.started) >= BEGINS;
        self.idle == 0 && (self.starting == 0 || late) && self.threads.len() <= WORKING_MAX
    }
}

thread_local! {
    static FUNCTIONS: RefCell<Functions> = RefCell::default();
}

fn with<R>(f: impl FnOnce(&mut Functions) -> R) -> Option<R> {
    FUNCTIONS.try_with(|functions| f(&mut functions.borrow_mut())).ok()
}

/// Light threads, those about to begin included, and how many of them wait.
pub(super) fn threads() -> (usize, usize) {
    with(|f| (f.threads.len() + f.starting, f.idle)).unwrap_or_default()
}

/// Whether a thread works on that ask.
pub(super) fn has(asker: Asker) -> bool {
    let works = |thread: &Thread| thread.work.as_ref().is_some_and(|work| work.asker == asker);
    with(|f| f.threads.values().any(works)) == Some(true)
}

/// Wakes a thread where there is something to do and nobody who does it.
pub(super) fn wake() {
    if !actions::any_for_lua() {
        return;
    }
    with(|f| {
        let may = !f.woken && f.working() < WORKING_MAX;
        if let Some(semaphore) = f.semaphore.filter(|_| may) {
            f.woken = true;
            semaphore.post();
        }
    });
}

/// The worker leaves: threads that wait end.
pub(super) fn end() {
    with(|f| {
        f.over = true;
        for _ in 0..f.idle {
            f.semaphore.iter().for_each(Semaphore::post);
        }
    });
}

/// A thread has ended, in whatever way.
fn ended(thread: u32) {
    let gone = with(|f| {
        let gone = f.threads.remove(&thread);
        if gone.as_ref().is_some_and(|thread| thread.idle) {
            f.idle = f.idle.saturating_sub(1);
            // it may have been the one that was woken
            f.woken = false;
        }
        gone
    });
    if let Some(Some(Thread { work: Some(work), .. })) = gone {
        answer(work, 500, b"the action has ended its light thread");
        worker::with(|worker| worker.count(Counter::Failed, 1));
    }
    native::soon();
}

fn answer(work: Work, status: u16, body: &[u8]) -> bool {
    let given = native::give(work.asker, Ok(Reply { status, body }));
    actions::done(work);
    given
}

/// An ask for a function, as Lua sees it. The addresses hold until it is answered.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Asked {
    args: Bytes,
    body: Bytes,
    node: Bytes,
    function: u32,
    worker: u32,
    /// 1 where the arguments are one name without a value, as it is.
    bare: u32,
}

fn take(thread: u32, woke: bool, asked: &mut Out<Asked>) -> i32 {
    let left = with(|f| {
        if woke {
            f.woken = false;
        }
        let me = f.threads.get_mut(&thread)?;
        if std::mem::take(&mut me.idle) {
            f.idle = f.idle.saturating_sub(1);
        }
        me.work.take()
    });
    match left {
        None | Some(None) => {}
        Some(Some(work)) => {
            answer(work, 500, b"the action was left without an answer");
        }
    }
    // this one included
    let may = with(|f| f.working() <= WORKING_MAX) == Some(true);
    let next = may.then(actions::next_for_lua).flatten();
    let more = next.is_some() && actions::any_for_lua();
    let code = with(|f| {
        let alone = f.is_last();
        let me = f.threads.get_mut(&thread)?;
        let Some((function, work)) = next else {
            if f.over {
                return Some(OVER);
            }
            me.idle = true;
            f.idle += 1;
            return Some(WAIT);
        };
        let work = me.work.insert(work);
        let row = work.ask().map(|ask| Asked {
            args: Bytes::of(ask.args),
            body: Bytes::of(ask.body),
            node: Bytes::of(ask.from.node),
            function,
            worker: u32::from(ask.from.worker.0),
            bare: u32::from(query::is_bare(ask.args)),
        });
        if asked.fill(1, row.into_iter()) == 0 {
            return None;
        }
        if alone {
            f.starting = 0;
            f.start();
        }
        Some(if alone { TAKEN_AND_START } else { TAKEN })
    });
    if code == Some(Some(WAIT)) {
        native::ring();
    }
    if more {
        // when that runs, the function has returned and more is taken, or it has yielded
        native::soon();
    }
    code.flatten().unwrap_or(BUG)
}

/// What came of a call, a row per worker.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Answered {
    worker: u32,
    /// 0: there is no reply, the body says why.
    status: u32,
    body: Bytes,
}

fn rows(outcome: &Outcome) -> Vec<Row> {
    let row = |(seat, result): (crate::proto::ipc::Seat, Result<Reply<'_>, CallFailed>)| Row {
        worker: seat.worker.0,
        result: result.map(|reply| (reply.status, reply.body.to_vec())),
    };
    outcome.iter().map(row).collect()
}

fn call(targets: Targets<'_>, ask: &Ask<'_>, timeout: u64, semaphore: Semaphore) -> i32 {
    let number = with(|f| {
        f.last_call = f.last_call % 0x7fff_fffe + 1;
        (f.outcomes.len() < OUTCOMES_MAX).then_some(f.last_call)
    });
    let Some(Some(number)) = number else { return BUSY };
    let pending = native::cast(targets, ask, timeout, move |outcome| {
        with(|f| f.outcomes.insert(number, Reported::Done(rows(outcome))));
        // Lua keeps the semaphore until it has dropped the call
        semaphore.post();
    });
    with(|f| f.outcomes.insert(number, Reported::Waits { _call: pending }));
    number as i32
}

exported! {
    /// Says which function answers an action, by its number; 0: none.
    fn ngx_cc_action_set(channel: Text, channel_len: usize, name: Text, name_len: usize, function: u32) -> i32, BUG, {
        let (channel, name) = (channel.bytes(channel_len), name.bytes(name_len));
        if actions::set_function(channel, name, function) { 0 } else { NAME }
    }

    /// Makes this the semaphore that is posted for asks: 1 done, 0 another one is.
    fn ngx_cc_action_attach(sema: Address, post: Address) -> i32, BUG, {
        let Some(semaphore) = Semaphore::new(sema, post) else { return BUG };
        with(|f| i32::from(*f.semaphore.get_or_insert(semaphore) == semaphore)).unwrap_or(BUG)
    }

    /// A light thread is about to be started (1), or could not be (-1).
    fn ngx_cc_action_starting(threads: i32) -> (), (), {
        with(|f| match threads {
            1.. => f.start(),
            _ => f.starting = f.starting.saturating_sub(1),
        });
    }

    /// The light thread of `request` begins; its number, 0 when memory ran out.
    fn ngx_cc_action_begin(request: Address, sema: Address, post: Address) -> u32, 0, {
        let Some(semaphore) = Semaphore::new(sema, post) else { return 0 };
        let number = with(|f| {
            f.starting = f.starting.saturating_sub(1);
            f.last = f.last.wrapping_add(1).max(1);
            f.last
        });
        let number = number.unwrap_or(0);
        let Some(guard) = Guard::over(request, semaphore, ended, number) else { return 0 };
        with(|f| f.threads.insert(number, Thread { guard, idle: false, work: None }));
        number
    }

    /// It ends.
    fn ngx_cc_action_end(thread: u32) -> (), (), {
        let guard = with(|f| f.threads.get(&thread).map(|thread| thread.guard));
        if let Some(Some(guard)) = guard {
            Guard::pass(guard);
        }
    }

    /// The next ask for this thread, which `woke` from its semaphore: 1 there it is, 3 and another
    /// thread shall be started, 0 wait for the semaphore, 2 end.
    fn ngx_cc_action_take(thread: u32, woke: i32, asked: Out<Asked>) -> i32, BUG, {
        take(thread, woke != 0, &mut asked)
    }

    /// Answers what this thread has taken: 1 done, 0 it could not be sent. `failed`: count it as
    /// failed.
    fn ngx_cc_action_answer(thread: u32, status: u32, body: Text, body_len: usize, failed: i32) -> i32, BUG, {
        if failed != 0 {
            worker::with(|worker| worker.count(Counter::Failed, 1));
        }
        let work = with(|f| f.threads.get_mut(&thread)?.work.take());
        let Some(Some(work)) = work else { return BUG };
        let status = u16::try_from(status).unwrap_or(500);
        i32::from(answer(work, status, body.bytes(body_len)))
    }

    /// Calls an action in one worker, or in all (-1): a number. The semaphore is posted when the
    /// outcome is there; it must live until `ngx_cc_action_drop`.
    fn ngx_cc_action_call(worker: i32, channel: Text, channel_len: usize, name: Text, name_len: usize, args: Text, args_len: usize, body: Text, body_len: usize, timeout: u32, sema: Address, post: Address) -> i32, BUG, {
        let Some(semaphore) = Semaphore::new(sema, post) else { return BUG };
        let Some(me) = worker::with(|worker| worker.me()) else { return BUG };
        let node = cluster::settings().map_or("", |settings| settings.node()).as_bytes();
        let ask = Ask {
            channel: channel.bytes(channel_len),
            action: name.bytes(name_len),
            args: args.bytes(args_len),
            body: body.bytes(body_len),
            from: Origin { node, worker: me.seat.worker },
        };
        match u16::try_from(worker) {
            Ok(id) => call(Targets::Some(&[WorkerId(id)]), &ask, u64::from(timeout), semaphore),
            Err(_) => call(Targets::All, &ask, u64::from(timeout), semaphore),
        }
    }

    /// A row of a call's outcome, from 0: 1 there it is, 0 there is none.
    fn ngx_cc_action_outcome(call: i32, index: usize, row: Out<Answered>) -> i32, BUG, {
        with(|f| {
            let Some(Reported::Done(rows)) = f.outcomes.get(&(call as u32)) else { return 0 };
            let answered = rows.get(index).map(|row| match &row.result {
                Ok((status, body)) => (row.worker, u32::from(*status), Bytes::of(body)),
                Err(why) => (row.worker, 0, Bytes::of(why.words().as_bytes())),
            });
            let answered = answered.map(|(worker, status, body)| Answered { worker: u32::from(worker), status, body });
            row.fill(1, answered.into_iter()) as i32
        })
        .unwrap_or(BUG)
    }

    /// Forgets a call, whatever has come of it: its semaphore is not posted any more.
    fn ngx_cc_action_drop(call: i32) -> (), (), {
        drop(with(|f| f.outcomes.remove(&(call as u32))));
    }
}
