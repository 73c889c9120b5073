//! This process's part in the bus: its seat, its peers, its receiver. One owner behind one lock,
//! held for short sections and never while Lua runs: waking a coroutine only posts an event.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use parking_lot::Mutex;

use super::alive;
use super::mailbox::{Mailbox, Next, Taken};
use super::peer::Peer;
use crate::ngx::event::{Deferred, Direction, Handlers, Watch};
use crate::ngx::lua::Semaphore;
use crate::ngx::socket::{self, Line};
use crate::proto::ipc::frame::{Header, Kind};
use crate::proto::ipc::outbox::Refused;
use crate::proto::ipc::{Addressee, Generation, NAME_MAX, Outgoing, Pid, Seat, WorkerId};
use crate::shm::slots::{Counter, SlotId, State, Table, Worker as Entry};

/// How long after its start a worker without a receiver keeps its mail, in ms: init_worker may
/// register handlers in a timer.
const GRACE: usize = 1000;
/// Between looks for elders that have died, while there are any, in ms.
const HOUSEKEEPING: usize = 5000;
/// Longest that a leaving worker waits for its last words to be taken, in ms.
const LINGER: usize = 500;

/// Bounds that the configuration sets, in bytes.
#[derive(Clone, Copy)]
pub struct Limits {
    /// That may wait for one receiver.
    pub queue: usize,
    /// Of one message's data.
    pub message: usize,
}

/// Who gets a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The sender's generation.
    Own,
    /// And every newer one.
    Newer,
}

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// No worker has that process id or worker id.
    Nobody,
    /// As the outbox says.
    Refused(Refused),
}

struct Events {
    /// Held for its drop.
    _mail: Watch,
    turn: Deferred,
    housekeeping: Deferred,
    linger: Deferred,
}

/// The worker's state.
pub struct Worker {
    table: &'static Table,
    slot: SlotId,
    me: Entry,
    limits: Limits,
    own_send: OwnedFd,
    mailbox: Mailbox,
    /// By worker id; this generation.
    peers: Vec<Peer>,
    /// Workers of other generations.
    others: HashMap<Seat, Peer>,
    receiver: Option<Semaphore>,
    waiting: bool,
    grace: bool,
    events: Option<Events>,
}

static WORKER: Mutex<Option<Worker>> = Mutex::new(None);

/// Runs `f` on this process's worker; None in a process that is none.
pub fn with<R>(f: impl FnOnce(&mut Worker) -> R) -> Option<R> {
    WORKER.lock().as_mut().map(f)
}

static MAIL: Handlers = Handlers { readable: on_mail, writable: ignore, closing: on_closing };
static ROOM: Handlers = Handlers { readable: ignore, writable: on_room, closing: ignore };
static TURN: fn() = on_turn;
static HOUSE: fn() = on_housekeeping;
static IGNORE: fn() = ignore;

fn ignore() {}

/// Claims the seat. From then on this process can send, and mail for it waits.
pub fn enter(
    table: &'static Table,
    pid: Pid,
    seat: Seat,
    limits: Limits,
    mut lines: Vec<Line>,
    elders: Vec<(Seat, OwnedFd)>,
) -> Result<(), String> {
    let slot = table.claim(pid, seat, alive).ok_or("every slot of the worker table is taken")?;
    let mine =
        lines.get_mut(usize::from(seat.worker.0)).ok_or("no line was made for this worker")?;
    let line = mine.receive.take().ok_or("this worker's line was taken before")?;
    let own_send = socket::duplicate(&mine.send).map_err(|errno| format!("dup failed: {errno}"))?;
    let peer = |send| Peer::new(Some(send), limits.queue);
    *WORKER.lock() = Some(Worker {
        table,
        slot,
        me: Entry { pid, seat, state: State::Starting },
        limits,
        own_send,
        mailbox: Mailbox::new(pid, seat, line, limits.message),
        peers: lines.into_iter().map(|line| peer(line.send)).collect(),
        others: elders.into_iter().map(|(seat, send)| (seat, peer(send))).collect(),
        receiver: None,
        waiting: false,
        grace: true,
        events: None,
    });
    Ok(())
}

/// Joins the event loop and greets the elders.
pub fn listen() -> Result<(), String> {
    with(Worker::listen).unwrap_or(Ok(()))
}

/// Gives the seat back; how many accepted messages could not be delivered.
pub fn leave() -> usize {
    WORKER.lock().take().map_or(0, Worker::leave)
}

impl Worker {
    fn listen(&mut self) -> Result<(), String> {
        let mail = Watch::new(self.mailbox.line().as_raw_fd(), Direction::Read, &MAIL)
            .ok_or("worker_connections are not enough")?;
        let mut events = Events {
            _mail: mail,
            turn: Deferred::new(&TURN),
            housekeeping: Deferred::new(&HOUSE),
            linger: Deferred::new(&IGNORE),
        };
        events.turn.next_turn();
        events.housekeeping.after(GRACE, false);
        self.events = Some(events);
        let hello = Header {
            kind: Kind::Hello,
            sender: self.me.pid,
            seat: self.me.seat,
            addressee: Addressee::Seat,
            name: 0,
            total: 0,
            offset: 0,
        };
        for peer in self.others.values() {
            peer.hello(&hello, self.own_send.as_fd());
        }
        Ok(())
    }

    fn leave(mut self) -> usize {
        self.events = None;
        self.receiver = None;
        self.flush();
        let lost = self.waiting_out() + self.mailbox.clear();
        self.count(Counter::Lost, lost);
        self.table.release(self.slot, self.me.pid);
        lost
    }

    /// Who this worker is.
    pub fn me(&self) -> Entry {
        self.me
    }

    /// The worker table.
    pub fn table(&self) -> &'static Table {
        self.table
    }

    /// Adds to one of this worker's counters.
    pub fn count(&self, counter: Counter, messages: usize) {
        self.table.count(self.slot, counter, messages as u64);
    }

    /// Messages and bytes that wait for receivers to take them.
    pub fn queued(&self) -> (usize, usize) {
        let peers = self.peers.iter().chain(self.others.values());
        peers.fold(self.mailbox.notes(), |(messages, bytes), peer| {
            (messages + peer.waiting(), bytes + peer.bytes())
        })
    }

    /// Sends to the process `pid`.
    pub fn send_process(&mut self, pid: Pid, name: &[u8], data: &[u8]) -> Result<(), Unsent> {
        if pid == self.me.pid {
            return self.send_seat(self.me.seat, Addressee::Process(pid), name, data);
        }
        let entry = self.table.find(pid).filter(|w| w.state != State::Retiring && alive(pid));
        match entry {
            Some(entry) => self.send_seat(entry.seat, Addressee::Process(pid), name, data),
            None => Err(Unsent::Nobody),
        }
    }

    /// Sends to whoever is worker `id` of this generation.
    pub fn send_worker(&mut self, id: WorkerId, name: &[u8], data: &[u8]) -> Result<(), Unsent> {
        if usize::from(id.0) >= self.peers.len() {
            return Err(Unsent::Nobody);
        }
        let seat = Seat { generation: self.me.seat.generation, worker: id };
        self.send_seat(seat, Addressee::Seat, name, data)
    }

    /// Sends to every worker, this one included; answers those it could not be sent to.
    pub fn broadcast(&mut self, reach: Reach, name: &[u8], data: &[u8]) -> Vec<(Seat, Unsent)> {
        let own = self.me.seat.generation;
        let mut seats = seats(own, self.peers.len());
        if reach == Reach::Newer {
            let (current, workers) = self.table.current();
            if current > own {
                seats.extend(
                    self.others.keys().filter(|s| s.generation > own && s.generation < current),
                );
                seats.extend(self::seats(current, workers));
            }
        }
        let sent =
            |seat: Seat| Some((seat, self.send_seat(seat, Addressee::Seat, name, data).err()?));
        seats.into_iter().filter_map(sent).collect()
    }

    fn send_seat(
        &mut self,
        seat: Seat,
        addressee: Addressee,
        name: &[u8],
        data: &[u8],
    ) -> Result<(), Unsent> {
        let result = if name.len() > NAME_MAX {
            Err(Refused::Name)
        } else if data.len() > self.limits.message {
            Err(Refused::TooLong)
        } else if seat == self.me.seat {
            self.note(name, data)
        } else {
            let message =
                Outgoing { sender: self.me.pid, seat: self.me.seat, addressee, name, data };
            match self.peer(seat) {
                Some(peer) => peer.send(&message, &ROOM),
                None => return Err(Unsent::Nobody),
            }
        };
        match result {
            Ok(()) => self.count(Counter::Sent, 1),
            Err(Refused::Full) => self.count(Counter::Full, 1),
            Err(_) => {}
        }
        result.map_err(Unsent::Refused)
    }

    fn peer(&mut self, seat: Seat) -> Option<&mut Peer> {
        let own = self.me.seat.generation;
        if seat.generation == own {
            return self.peers.get_mut(usize::from(seat.worker.0));
        }
        let queue = self.limits.queue;
        match self.others.entry(seat) {
            Occupied(peer) => Some(peer.into_mut()),
            // a newer worker will say hello; an elder that we were not born with cannot be reached
            Vacant(room) => (seat.generation > own).then(|| room.insert(Peer::new(None, queue))),
        }
    }

    fn note(&mut self, name: &[u8], data: &[u8]) -> Result<(), Refused> {
        self.mailbox.note(name, data, self.limits.queue)?;
        match &mut self.events {
            Some(events) if self.waiting || self.receiver.is_none() => events.turn.next_turn(),
            _ => {}
        }
        Ok(())
    }

    /// The next message for this worker. None: wait for the semaphore, which is posted when there
    /// is more, also when there is more now but the turn's budget is used up.
    pub fn take(&mut self) -> Option<Taken> {
        loop {
            match self.mailbox.take() {
                Next::Mail(taken) => {
                    self.count(Counter::Received, 1);
                    return Some(taken);
                }
                Next::Hello(seat, send) => self.greet(seat, send),
                Next::Dropped(counter) => self.count(counter, 1),
                Next::Later => {
                    if let Some(events) = &mut self.events {
                        events.turn.next_turn();
                    }
                    break;
                }
                Next::Empty => break,
            }
        }
        self.waiting = true;
        None
    }

    fn greet(&mut self, seat: Seat, send: OwnedFd) {
        let newer = seat.generation > self.me.seat.generation;
        if let Some(peer) = self.peer(seat).filter(|_| newer) {
            let lost = peer.learn(send, &ROOM);
            self.count(Counter::Lost, lost);
        }
    }

    /// Lets `receiver` be woken for mail. False: another one is already.
    pub fn attach(&mut self, receiver: Semaphore) -> bool {
        if self.receiver.is_some() {
            return false;
        }
        self.receiver = Some(receiver);
        self.waiting = false;
        true
    }

    /// The receiver is no more.
    pub fn detach(&mut self, receiver: Semaphore) {
        if self.receiver == Some(receiver) {
            self.receiver = None;
            self.waiting = false;
        }
    }

    fn wake(&mut self) {
        self.mailbox.new_turn();
        match &self.receiver {
            Some(receiver) if self.waiting => {
                self.waiting = false;
                receiver.post();
            }
            Some(_) => {}
            None if self.grace => {}
            None => {
                while self.take().is_some() {
                    self.count(Counter::Unhandled, 1);
                }
            }
        }
    }

    fn flush(&mut self) {
        let lost =
            self.peers.iter_mut().chain(self.others.values_mut()).map(|p| p.flush(&ROOM)).sum();
        self.count(Counter::Lost, lost);
        if let Some(events) = self.events.as_mut().filter(|_| self.me.state == State::Retiring) {
            let waiting = self.peers.iter().chain(self.others.values()).any(|p| p.waiting() > 0);
            if !waiting {
                events.linger.cancel();
            }
        }
    }

    fn waiting_out(&self) -> usize {
        self.peers.iter().chain(self.others.values()).map(Peer::waiting).sum()
    }

    fn say(&mut self, state: State) {
        self.me.state = state;
        self.table.set_state(self.slot, self.me);
    }
}

fn seats(generation: Generation, workers: usize) -> Vec<Seat> {
    (0..workers as u16).map(|id| Seat { generation, worker: WorkerId(id) }).collect()
}

fn on_mail() {
    with(Worker::wake);
}

fn on_room() {
    with(Worker::flush);
}

fn on_turn() {
    with(|worker| {
        if worker.me.state == State::Starting {
            worker.say(State::Live);
        }
        worker.wake();
    });
}

fn on_housekeeping() {
    with(|worker| {
        worker.grace = false;
        worker.wake();
        let (own, table) = (worker.me.seat.generation, worker.table);
        let living = |seat: &Seat| table.workers().any(|w| w.seat == *seat && alive(w.pid));
        worker.others.retain(|seat, _| seat.generation > own || living(seat));
        let lost = worker.mailbox.forget(alive);
        worker.count(Counter::Lost, lost);
        let again = worker.others.keys().any(|seat| seat.generation < own);
        if let Some(events) = worker.events.as_mut().filter(|_| again) {
            events.housekeeping.after(HOUSEKEEPING, false);
        }
    });
}

/// Quit or reload: nothing is sent to this worker from now on; its receiver ends once the queue is
/// empty; its last words have a moment to be taken.
fn on_closing() {
    with(|worker| {
        worker.say(State::Retiring);
        let waiting = worker.waiting_out() > 0;
        if let Some(events) = &mut worker.events {
            events.turn.next_turn();
            if waiting {
                events.linger.after(LINGER, true);
            }
        }
    });
}
