//! This process's part in the bus: its seat, its peers, its receiver; how it enters and leaves.
//! `sending` and `receiving` are its two hands. One owner behind one lock, held for short sections
//! and never while Lua runs: waking a coroutine only posts an event.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use parking_lot::Mutex;

use super::estate::Estate;
use super::losses::{KILLED, tell_lost};
use super::mailbox::Mailbox;
use super::native;
use super::peer::{Peer, Way};
use super::retaining::Copy;
use super::rings::{self, Bells, Reader};
use super::sending::{RECENT, Recent};
use super::{Living, alive};
use crate::ngx::cycle;
use crate::ngx::event::{Deferred, Direction, Handlers, Watch};
use crate::ngx::log::{self, Level};
use crate::ngx::lua::Semaphore;
use crate::ngx::socket::{self, Line};
use crate::proto::ipc::frame::{Header, Kind};
use crate::proto::ipc::spin::Spin;
use crate::proto::ipc::{Addressee, Pid, Seat};
use crate::shm::mesh::Mesh;
use crate::shm::metrics::Metrics;
use crate::shm::retained::Retained;
use crate::shm::slots::{Counter, SlotId, State, Table, Worker as Entry};
use crate::shm::tally::Tallies;

/// How long after its start a worker without a receiver keeps its mail, in ms: init_worker may
/// register handlers in a timer.
const GRACE: usize = 1000;
/// Longest that a leaving worker waits for its last words to be taken, in ms.
pub(super) const LINGER: usize = 500;

/// Longest that one waits for another process to give its seat up, in ns.
const PATIENCE: u64 = 500_000_000;

/// What the configuration sets.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Bytes that may wait for one receiver.
    pub queue: usize,
    /// Bytes of one message's data.
    pub message: usize,
    /// Longest spin, ns.
    pub spin: u64,
}

/// What the master made for the workers of a generation.
pub struct Legacy {
    /// By worker id.
    pub lines: Vec<Line>,
    /// The rings, where that is the transport, and the bells by worker id.
    pub rings: Option<(Mesh<'static>, Vec<OwnedFd>)>,
    /// Beside the rings.
    pub tallies: Option<Tallies<'static>>,
    /// The send ends of older generations' workers.
    pub elders: Vec<(Seat, OwnedFd)>,
    /// What those leave behind.
    pub estates: Vec<Estate>,
    /// The retained values of all generations.
    pub retained: Retained<'static, Living>,
    /// Where is counted how long messages take.
    pub metrics: Option<&'static Metrics>,
}

pub(super) struct Events {
    /// Held for their drop.
    pub(super) watches: [Option<Watch>; 2],
    pub(super) turn: Deferred,
    pub(super) housekeeping: Deferred,
    pub(super) linger: Deferred,
    pub(super) retiring: Deferred,
}

/// The worker's state.
pub struct Worker {
    pub(super) table: &'static Table,
    pub(super) slot: SlotId,
    pub(super) me: Entry,
    pub(super) limits: Limits,
    own_send: OwnedFd,
    pub(super) mailbox: Mailbox,
    pub(super) bells: Option<Bells>,
    pub(super) tallies: Option<Tallies<'static>>,
    pub(super) spin: Spin,
    /// Looks that the receiver may still take in this turn of the event loop.
    pub(super) looks: usize,
    /// More workers are awake than cores can run, as of this turn.
    pub(super) crowded: bool,
    /// By worker id; this generation. Its own entry is not used.
    pub(super) peers: Vec<Peer>,
    /// Workers of other generations.
    pub(super) others: HashMap<Seat, Peer>,
    /// Of older generations.
    pub(super) estates: Vec<Estate>,
    /// Messages accepted that are not on their way yet, as told to the table.
    pub(super) held: usize,
    pub(super) receiver: Option<Semaphore>,
    /// Light threads: the receiver, its heirs, its deputy.
    pub(super) receivers: usize,
    /// The receiver waits for its semaphore.
    pub(super) waiting: bool,
    /// That was posted, and the receiver has not come yet.
    pub(super) posted: bool,
    /// It does so because nothing was left.
    pub(super) drained: bool,
    /// It shall end when nothing is left.
    pub(super) over: bool,
    /// Takes in replies while the receiver's handler has yielded.
    pub(super) deputy: Option<Semaphore>,
    pub(super) deputy_waiting: bool,
    /// Messages that it has put aside for the receiver.
    pub(super) aside: usize,
    /// Calls of this worker that wait for replies.
    pub(super) calls: usize,
    pub(super) retained: Retained<'static, Living>,
    pub(super) metrics: Option<&'static Metrics>,
    /// Retained values that Lua is about to look at.
    pub(super) copies: Vec<Copy>,
    /// Up to where the last visit of a name saw it.
    pub(super) visited: u64,
    /// Workers whose handlers may not have been told of a retained value.
    pub(super) untold: Vec<Seat>,
    /// The receiver is to compare what its handlers were told with what is kept.
    pub(super) reviews: bool,
    /// Processes that were sent to lately, by process id modulo its length.
    pub(super) recent: [Option<Recent>; RECENT],
    pub(super) grace: bool,
    pub(super) events: Option<Events>,
}

static WORKER: Mutex<Option<Worker>> = Mutex::new(None);

/// Runs `f` on this process's worker; None in a process that is none.
#[inline]
pub fn with<R>(f: impl FnOnce(&mut Worker) -> R) -> Option<R> {
    WORKER.lock().as_mut().map(f)
}

static MAIL: Handlers = Handlers {
    readable: || run(Worker::on_line),
    writable: || {},
    closing: || run(Worker::on_closing),
};
static BELL: Handlers =
    Handlers { readable: || run(Worker::on_bell), writable: || {}, closing: || {} };
/// Watches that wait for room on a line.
pub(super) static ROOM: Handlers =
    Handlers { readable: || {}, writable: || run(Worker::flush), closing: || {} };
static TURN: fn() = || run(Worker::on_turn);
static HOUSEKEEPING: fn() = || run(Worker::on_housekeeping);
static NOTHING: fn() = || {};
static RETIRING: fn() = || run(Worker::on_retiring);

fn run(f: fn(&mut Worker)) {
    with(f);
}

/// Claims the seat. From then on this process can send, and mail for it waits.
pub fn enter(
    table: &'static Table,
    pid: Pid,
    seat: Seat,
    limits: Limits,
    mut legacy: Legacy,
) -> Result<(), String> {
    let me = usize::from(seat.worker.0);
    let mine = legacy.lines.get_mut(me).ok_or("no line was made for this worker")?;
    oust(table, pid, seat, &mine.send);
    let held = table.held_in(seat);
    let slot = table.claim(pid, seat, alive).ok_or("every slot of the worker table is taken")?;
    tell_lost(held as usize, KILLED);
    let line = mine.receive.take().ok_or("this worker's line was taken before")?;
    let own_send = socket::duplicate(&mine.send).map_err(|errno| format!("dup failed: {errno}"))?;
    let bells = legacy.rings.map(|(mesh, fds)| rings::bells(mesh, me, fds));
    let way = |(to, line): (usize, Line)| match bells.as_ref().and_then(|bells| bells.writer(to)) {
        Some(writer) => Way::Ring(writer),
        None => Way::Line(line.send),
    };
    let peer = |way| Peer::new(way, limits.queue);
    *WORKER.lock() = Some(Worker {
        table,
        slot,
        me: Entry { pid, seat, state: State::Starting },
        limits,
        own_send,
        mailbox: Mailbox::new(pid, seat, line, bells.clone().map(Reader::new), limits.message),
        spin: Spin::new(limits.spin),
        looks: 0,
        crowded: false,
        peers: legacy.lines.into_iter().enumerate().map(|line| peer(way(line))).collect(),
        others: legacy.elders.into_iter().map(|(seat, fd)| (seat, peer(Way::Line(fd)))).collect(),
        estates: legacy.estates,
        bells,
        tallies: legacy.tallies,
        held: 0,
        receiver: None,
        receivers: 0,
        waiting: false,
        posted: false,
        drained: false,
        over: false,
        deputy: None,
        deputy_waiting: false,
        aside: 0,
        calls: 0,
        retained: legacy.retained,
        metrics: legacy.metrics,
        copies: Vec::new(),
        visited: 0,
        untold: Vec::new(),
        reviews: false,
        recent: [None; RECENT],
        grace: true,
        events: None,
    });
    Ok(())
}

/// Whoever lives in the seat gives way: nginx starts workers beside the old ones of the same
/// configuration when HUP goes to a master that has handed on to another and was sent WINCH.
fn oust(table: &Table, pid: Pid, seat: Seat, line: &OwnedFd) {
    let deadline = cycle::nanoseconds() + PATIENCE;
    while let Some((slot, elder)) = table.oust(seat, |pid| socket::is_sibling(pid.0)) {
        // which only wakes it; where the line is full it is awake
        let _ = socket::send(line.as_fd(), [&hello(pid, seat).encode(), &[], &[]], None);
        let stays = || {
            let is = |w: Entry| w.pid == elder && w.state != State::Ousted;
            table.worker(slot).is_some_and(is) && socket::runs(elder.0)
        };
        while stays() {
            if cycle::nanoseconds() > deadline {
                let news = format_args!("cc: process {} does not give way", elder.0);
                return log::cycle(Level::Warn, news);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What tells the way to a worker.
fn hello(sender: Pid, seat: Seat) -> Header {
    let addressee = Addressee::Seat;
    Header { kind: Kind::Hello, sender, seat, addressee, name: 0, total: 0, offset: 0, call: 0 }
}

/// Joins the event loop and greets the elders.
pub fn listen() -> Result<(), String> {
    with(Worker::listen).unwrap_or(Ok(()))
}

/// Whether this process has a seat.
pub fn entered() -> bool {
    WORKER.lock().is_some()
}

/// The event loop has ended: nothing is received any more, but exit_worker_by_lua may still send.
pub fn close() {
    with(Worker::close);
    native::close();
}

/// A light thread under guard has ended.
pub fn receiver_ended(_: u32) {
    with(Worker::receiver_ended);
}

/// Gives the seat back; how many accepted messages could not be delivered.
pub fn leave() -> usize {
    WORKER.lock().take().map_or(0, Worker::leave)
}

impl Worker {
    fn listen(&mut self) -> Result<(), String> {
        native::enter(self.limits.queue);
        let watch = |fd, handlers| {
            Watch::new(fd, Direction::Read, handlers).ok_or("worker_connections are not enough")
        };
        let mail = watch(self.mailbox.line().as_raw_fd(), &MAIL)?;
        let own = self.bells.as_ref().and_then(Bells::own);
        let bell = own.map(|fd| watch(fd.as_raw_fd(), &BELL)).transpose()?;
        let mut events = Events {
            watches: [Some(mail), bell],
            turn: Deferred::new(&TURN),
            housekeeping: Deferred::new(&HOUSEKEEPING),
            linger: Deferred::new(&NOTHING),
            retiring: Deferred::new(&RETIRING),
        };
        events.turn.next_turn();
        events.housekeeping.after(GRACE, false);
        self.events = Some(events);
        self.greet_elders();
        self.flush();
        Ok(())
    }

    /// Tells the workers of older generations, those that have not heard it yet, where this one's
    /// line begins.
    pub(super) fn greet_elders(&mut self) {
        let hello = hello(self.me.pid, self.me.seat);
        let own = self.me.seat.generation;
        for (_, peer) in self.others.iter_mut().filter(|(seat, _)| seat.generation < own) {
            peer.hello(&hello, self.own_send.as_fd());
        }
    }

    fn close(&mut self) {
        self.events = None;
        self.receiver = None;
        self.deputy = None;
        self.flush();
    }

    /// Who this worker is.
    pub fn me(&self) -> Entry {
        self.me
    }

    /// Most bytes of one message's data.
    pub fn longest(&self) -> usize {
        self.limits.message
    }

    /// Its slot's number.
    pub fn slot(&self) -> usize {
        self.slot.index()
    }

    /// The worker table.
    pub fn table(&self) -> &'static Table {
        self.table
    }

    /// Adds to one of this worker's counters.
    #[inline]
    pub fn count(&self, counter: Counter, messages: usize) {
        self.table.count(self.slot, counter, messages as u64);
    }

    pub(super) fn all_peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().chain(self.others.values())
    }

    pub(super) fn say(&mut self, state: State) {
        if state > self.me.state {
            self.me.state = state;
            self.table.set_state(self.slot, self.me);
        }
    }

    /// Quit or reload: the worker stays for what it still serves.
    fn on_closing(&mut self) {
        self.say(State::Retiring);
        native::retire();
        self.linger();
        if let Some(events) = &mut self.events {
            events.retiring.next_turn();
        }
    }
}
