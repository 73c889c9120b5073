//! The lives of workers: what the hooks of master and workers tell `shm::lifecycle`, this process's
//! part in it, and who is woken. `watching` hears of the others, `loading` serves init_by_lua, `api`
//! is what Lua calls, `view` what a status page shows.

pub mod api;
pub mod loading;
pub mod view;
pub mod watching;

use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::modules::core::Core;
use crate::modules::ipc;
use crate::ngx::conf::ConfResult;
use crate::ngx::cycle::{self, Cycle, Process};
use crate::ngx::event::{Deferred, Direction, Handlers, Watch};
use crate::ngx::log::{self, Level};
use crate::ngx::lua::Semaphore;
use crate::ngx::module::core_conf;
use crate::ngx::{process, socket};
use crate::proto::ipc::{Generation, Pid, Seat};
use crate::proto::lifecycle::{self as decide, Leaving, Member, Phase, Status, Why};
use crate::shm::lifecycle::{Busy, Entry, Handle, Life, Read, What};
use crate::shm::slots::{SLOTS, Table};

/// How often this process tries where another one holds the lock, a millisecond each.
const TRIES: usize = 100;
/// How often who sleeps on the lock for callbacks looks whether its holder lives, in ms.
const HOLDER_LOOK: u32 = 50;

/// What the master made for its workers, and how they are told apart.
#[derive(Default)]
pub struct Conf {
    /// Of the worker that leaves.
    departure: Option<Departure>,
    /// Whoever changes something rings it, everybody hears it: the workers of all generations.
    gong: Option<OwnedFd>,
    /// The previous generation's processes, where there was one.
    before: Option<Vec<u32>>,
    /// The master that handed its sockets to this one.
    elder_master: Option<u32>,
}

/// Makes the gong, or takes over the previous configuration's.
pub fn init_conf(cycle: Cycle<'_>, conf: &mut Conf) -> ConfResult {
    if cycle::testing() || cycle::process() == Process::Other {
        return Ok(());
    }
    let old = cycle.old();
    let last = old.and_then(core_conf::<Core>);
    let gong = match last.as_ref().and_then(|last| last.lifecycle.gong.as_ref()) {
        Some(gong) => socket::duplicate(gong),
        None => socket::bell(),
    };
    conf.gong = Some(gong.map_err(|errno| format!("eventfd() for the lives failed: {errno}"))?);
    conf.elder_master = match &last {
        Some(last) => last.lifecycle.elder_master,
        None => Some(process::parent())
            .filter(|parent| process::inherited() && process::old_master(cycle) == Some(*parent)),
    };
    conf.before = old.map(|_| {
        let last = last.as_ref().and_then(|last| Some((last.ipc.life()?, last.ipc.generation()?)));
        last.map_or_else(Vec::new, |(life, generation)| running(life, generation))
    });
    Ok(())
}

/// A single process, whose reload starts no other, leaves the old generation by itself.
pub fn leave_single() {
    if cycle::process() == Process::Single {
        leave(Some(Why::Reload));
    }
}

/// A configuration is in force: recorded by the master, or the single process.
pub fn init_module(cycle: Cycle<'_>, ipc: &ipc::Conf, conf: &mut Conf) {
    loading::done();
    let (Some(life), Some(generation), Some(pid)) = (ipc.life(), ipc.generation(), pid()) else {
        return;
    };
    let single = cycle::process() == Process::Single;
    let why = decide::loaded(cycle.old().is_some(), conf.elder_master.is_some());
    let life = life.attach(pid, alive as fn(Pid) -> bool);
    if again(|| life.loaded(why, generation, now())).is_err() {
        cycle.log(Level::Warn, format_args!("cc: this {} could not be recorded: busy", why.word()));
    }
    conf.gong.iter().for_each(socket::ring);
    // nginx does not run init_process again when a single process reloads
    if single && why == Why::Reload {
        if let Err(reason) = init_process(ipc, conf).and_then(|()| start()) {
            cycle.log(Level::Alert, format_args!("cc: the reloaded process has no life: {reason}"));
        }
    }
}

/// This worker takes its seat.
pub fn init_process(ipc: &ipc::Conf, conf: &Conf) -> Result<(), String> {
    let life = ipc.life().filter(|life| life.fits()).ok_or("the shared zone is damaged")?;
    let gong = conf.gong.as_ref().ok_or("no gong was made")?;
    let gong = socket::duplicate(gong).map_err(|errno| format!("dup failed: {errno}"))?;
    let (me, slot, table) =
        ipc::worker::with(|worker| (worker.me(), worker.slot(), worker.table()))
            .ok_or("this worker has no seat")?;
    let handle = life.attach(me.pid, alive as fn(Pid) -> bool);
    let head = life.head();
    let status = |pid: Pid| {
        process::predecessor().filter(|(dead, _)| *dead == pid.0).map(|(_, status)| Status(status))
    };
    let entry = again(|| handle.enter(slot, me.seat, status, now()))
        .ok()
        .flatten()
        .ok_or("the life of this worker could not be recorded")?;
    life.forget(slot);
    let load = if life.load() == Why::Reload { What::Reload } else { What::Start };
    let cursor = match entry.why {
        Why::Respawn | Why::Return => life.head(),
        _ => life.before(load, me.seat.generation),
    };
    socket::ring(&gong);
    *OWN.lock() = Some(Own {
        handle,
        life,
        table,
        slot,
        me: me.pid,
        seat: me.seat,
        workers: table.current().1,
        entry,
        before: conf.before.clone(),
        elder_master: conf.elder_master,
        gong,
        others: watching::Others::default(),
        known: head,
        cursor,
        waiter: None,
        posted: false,
        wants: false,
        runner_ended: false,
        leaving: None,
        events: None,
    });
    Ok(())
}

/// The event loop can be used.
pub fn start() -> Result<(), String> {
    with(Own::start).unwrap_or(Ok(()))
}

/// The event loop has ended.
pub fn exit_process(conf: &mut Conf) {
    with(|own| {
        // when it is over, there is no configuration any more to ask
        own.leaving = own.leaving.or_else(|| Some(own.told()));
        own.waiter = None;
        own.events = None;
    });
    conf.departure = Some(Departure);
}

/// Says that the worker has left when the cycle's pool is destroyed: exit_worker_by_lua is over then.
struct Departure;

impl Drop for Departure {
    fn drop(&mut self) {
        leave(None);
    }
}

fn leave(why: Option<Why>) {
    let own = OWN.lock().take();
    if let Some(own) = own {
        own.leave(why);
    }
}

/// This process's part.
pub struct Own {
    handle: Handle<'static, fn(Pid) -> bool>,
    life: &'static Life,
    table: &'static Table,
    slot: usize,
    me: Pid,
    seat: Seat,
    /// Of this generation.
    workers: usize,
    entry: Entry,
    before: Option<Vec<u32>>,
    elder_master: Option<u32>,
    gong: OwnedFd,
    others: watching::Others,
    /// The journal up to here is known to `others`,
    known: u64,
    /// and up to here to Lua.
    cursor: u64,
    /// What Lua waits on.
    waiter: Option<Semaphore>,
    posted: bool,
    /// Lua waits for more than events: a key or the lock.
    wants: bool,
    /// The light thread that ran handlers has ended.
    runner_ended: bool,
    /// It was told to leave.
    leaving: Option<Why>,
    events: Option<Events>,
}

struct Events {
    /// Held for its drop.
    _watch: Watch,
    turn: Deferred,
    again: Deferred,
}

static OWN: Mutex<Option<Own>> = Mutex::new(None);

/// Runs `f` on this worker's part; None in a process that has none.
pub fn with<R>(f: impl FnOnce(&mut Own) -> R) -> Option<R> {
    OWN.lock().as_mut().map(f)
}

static NEWS: Handlers =
    Handlers { readable: || run(Own::on_news), writable: || {}, closing: || run(Own::on_closing) };
static TURN: fn() = || run(Own::on_turn);
static AGAIN: fn() = || run(Own::on_again);

fn run(f: fn(&mut Own)) {
    with(f);
}

/// Not a zombie, whose parent may take its time.
fn alive(pid: Pid) -> bool {
    socket::runs(pid.0)
}

fn lives(member: &Member) -> bool {
    member.phase.runs() && alive(member.pid)
}

/// Who lives at this moment: the kernel was asked at once for all who are watched; each of the
/// others costs a look of its own.
pub struct Living {
    me: Pid,
    /// By process id.
    known: Vec<Pid>,
}

impl Living {
    /// Whether a process of that id does.
    pub fn has(&self, pid: Pid) -> bool {
        let known = self.known.binary_search_by_key(&pid.0, |known| known.0).is_ok();
        pid == self.me || known || alive(pid)
    }

    fn has_member(&self, member: &Member) -> bool {
        member.phase.runs() && self.has(member.pid)
    }
}

/// Takes the lock for callbacks; sleeps while somebody who lives has it, so many ms at most.
fn wait_for(life: &Life, handle: &Handle<'_, fn(Pid) -> bool>, milliseconds: usize) -> bool {
    let deadline = cycle::nanoseconds() + milliseconds as u64 * 1_000_000;
    loop {
        let Err(owner) = handle.hold() else { return true };
        if cycle::nanoseconds() >= deadline {
            return false;
        }
        // nobody is woken by a death
        process::sleep_on(life.callback_word(), owner.0, HOLDER_LOOK.min(milliseconds as u32));
    }
}

/// The processes of a generation that run.
fn running(life: &Life, generation: Generation) -> Vec<u32> {
    let members = life.members().filter(|m| m.seat.generation == generation && lives(m));
    members.map(|m| m.pid.0).collect()
}

fn pid() -> Option<Pid> {
    u32::try_from(cycle::pid()).ok().map(Pid)
}

/// In ms since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The lock is held for a few stores: only a stopped owner makes anybody wait.
fn again<T>(mut change: impl FnMut() -> Result<T, Busy>) -> Result<T, Busy> {
    for _ in 1..TRIES {
        if let Ok(done) = change() {
            return Ok(done);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    change()
}

impl Own {
    fn start(&mut self) -> Result<(), String> {
        let fd = self.others.listen(&self.gong)?;
        let watch =
            Watch::new(fd, Direction::Read, &NEWS).ok_or("worker_connections are not enough")?;
        let mut turn = Deferred::new(&TURN);
        turn.next_turn();
        self.events = Some(Events { _watch: watch, turn, again: Deferred::new(&AGAIN) });
        (0..SLOTS).for_each(|slot| self.meet(slot));
        self.schedule();
        Ok(())
    }

    /// The first turn of the event loop: init_worker is over. Then again whenever Lua is to be woken
    /// outside of the call that noticed why.
    fn on_turn(&mut self) {
        let view = self.life.view(self.slot).filter(|view| view.member.pid == self.me);
        if view.as_ref().is_some_and(|view| view.member.phase == Phase::Starting) {
            self.say(Phase::Live);
            if view.is_some_and(|view| view.ready.is_none()) {
                self.life.set_ready(self.slot, true, b"");
            }
            socket::ring(&self.gong);
        }
        self.on_news();
        if self.leaving.is_some() {
            self.posted = false;
            self.post();
        }
    }

    fn say(&self, phase: Phase) {
        self.life.set_phase(self.slot, Member { pid: self.me, seat: self.seat, phase });
    }

    /// Quit or reload.
    fn on_closing(&mut self) {
        let why = self.leaving.unwrap_or_else(|| self.told());
        self.leaving = Some(why);
        if again(|| self.handle.retire(self.slot, why, now())).is_err() {
            self.say(Phase::Retiring);
        }
        socket::ring(&self.gong);
        if let Some(events) = &mut self.events {
            events.turn.next_turn();
        }
    }

    fn leave(mut self, why: Option<Why>) {
        // before the descriptor that it watches
        self.events = None;
        let why = why.or(self.leaving).unwrap_or_else(|| self.told());
        let _ = again(|| self.handle.release_all());
        if self.handle.let_go() {
            process::wake(self.life.callback_word());
        }
        if again(|| self.handle.leave(self.slot, why, now())).is_err() {
            let news = "this worker's leaving could not be recorded: busy";
            log::cycle(Level::Warn, format_args!("cc: {news}"));
        }
        socket::ring(&self.gong);
    }

    /// Wakes Lua where there is something for it.
    fn wake(&mut self) {
        if self.wants || self.runner_ended || !matches!(self.life.read(self.cursor), Read::Nothing)
        {
            self.post();
        }
    }

    /// One outstanding is enough: Lua looks until nothing is left.
    fn post(&mut self) {
        if let Some(waiter) = self.waiter.filter(|_| !self.posted) {
            self.posted = true;
            waiter.post();
        }
    }

    /// Why workers of this generation are told to leave now.
    fn told(&self) -> Why {
        decide::leaving(Leaving {
            own: self.seat.generation,
            newest: self.table.current().0,
            handed_on: cycle::current().and_then(process::old_master) == Some(process::parent()),
            elder_master: self.elder_master.is_some_and(socket::runs),
        })
    }

    /// See there.
    pub fn living(&self) -> Living {
        Living { me: self.me, known: self.others.running() }
    }

    /// Who leads this nginx.
    pub fn leader(&self) -> Option<Member> {
        self.leader_of(&self.living())
    }

    fn leader_of(&self, living: &Living) -> Option<Member> {
        decide::leader(self.life.members().filter(|member| living.has_member(member)))
    }
}
