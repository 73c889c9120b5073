//! How this worker sends: who an address means, which way leads there, what is told to whom when
//! the way is full.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::fmt::Arguments;

use super::alive;
use super::peer::{Peer, Way};
use super::worker::{LINGER, ROOM, Worker};
use crate::modules::metrics::{self, Counted};
use crate::modules::say;
use crate::ngx::cycle;
use crate::ngx::event::Handlers;
use crate::ngx::log::Level;
use crate::proto::ipc::frame::Kind;
use crate::proto::ipc::outbox::Refused;
use crate::proto::ipc::{Addressee, Generation, NAME_MAX, Outgoing, Pid, Seat, WorkerId};
use crate::shm::slots::{Counter, SlotId, State, Worker as Entry};

/// What is sent.
#[derive(Clone, Copy)]
pub struct Letter<'a> {
    /// A message, a call, or an answer to one.
    pub kind: Kind,
    /// The call's number; 0 for a message.
    pub call: u32,
    /// Its name.
    pub name: &'a [u8],
    /// Its data.
    pub data: &'a [u8],
}

/// Places for processes that were sent to lately.
pub const RECENT: usize = 64;
/// How long one is taken to live once it was found to, in ms.
const ASK: usize = 10;

/// A process that was found alive.
#[derive(Clone, Copy)]
pub struct Recent {
    pid: Pid,
    slot: SlotId,
    /// When, in milliseconds of the event loop's clock.
    asked: usize,
}

/// Who gets a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The sender's generation.
    Own,
    /// The same without the sender.
    Others,
    /// The sender's generation and every newer one.
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

impl Worker {
    /// Sends to the process `pid`.
    pub fn send_process(&mut self, pid: Pid, letter: Letter<'_>) -> Result<(), Unsent> {
        let answer = matches!(letter.kind, Kind::Reply | Kind::Failure);
        let seat = if pid == self.me.pid { Ok(self.me.seat) } else { self.seat_of(pid, answer) };
        let seat = seat.inspect_err(|why| unsent(*why, format_args!("process {pid}")))?;
        self.send_seat(seat, Addressee::Process(pid), letter)
    }

    /// Where a living process sits. Whether it lives is asked now and then: the answer can be late
    /// anyhow, and what a dead process does not take is counted. Who closes takes no more than what
    /// it waits for, an `answer`.
    fn seat_of(&mut self, pid: Pid, answer: bool) -> Result<Seat, Unsent> {
        let now = cycle::milliseconds();
        let place = pid.0 as usize % RECENT;
        let known = |recent: &&Recent| recent.pid == pid && now.wrapping_sub(recent.asked) < ASK;
        let slot = match self.recent.get(place).and_then(Option::as_ref).filter(known) {
            Some(recent) => recent.slot,
            None => {
                let found = self.table.find(pid).filter(|_| alive(pid));
                let slot = found.ok_or(Unsent::Nobody)?;
                if let Some(recent) = self.recent.get_mut(place) {
                    *recent = Some(Recent { pid, slot, asked: now });
                }
                slot
            }
        };
        let takes = |w: &Entry| {
            let is_open = w.state.is_open() || answer && w.state == State::Closed;
            // of two in a seat the mail goes to one
            w.pid == pid && is_open && w.seat != self.me.seat
        };
        let entry = self.table.worker(slot).filter(takes);
        entry.map(|w| w.seat).ok_or(Unsent::Nobody)
    }

    /// Sends to whoever is worker `id` of this generation.
    pub fn send_worker(&mut self, id: WorkerId, letter: Letter<'_>) -> Result<(), Unsent> {
        let nobody = || {
            unsent(Unsent::Nobody, format_args!("worker {id}"));
            Unsent::Nobody
        };
        if usize::from(id.0) >= self.peers.len() {
            return Err(nobody());
        }
        let seat = Seat { generation: self.me.seat.generation, worker: id };
        // in an old generation nobody succeeds who has left
        let old = seat.generation < self.table.current().0;
        if old && !self.table.workers().any(|w| w.seat == seat && receives(&w)) {
            return Err(nobody());
        }
        self.send_seat(seat, Addressee::Seat, letter)
    }

    /// Sends to every worker in `reach`; answers those it could not be sent to. Who has left an old
    /// generation has no successor there: it misses nothing, but a call will not be answered.
    pub fn broadcast(&mut self, reach: Reach, letter: Letter<'_>) -> Vec<(Seat, Unsent)> {
        let own = self.me.seat.generation;
        let (current, workers) = self.table.current();
        let mut unsent = Vec::new();
        let mut send = |worker: &mut Worker, seat: Seat| {
            let result = worker.send_seat(seat, Addressee::Seat, letter);
            unsent.extend(result.err().map(|why| (seat, why)));
        };
        let me = self.me.seat;
        if current == own {
            let all = seats(own, self.peers.len());
            let to = all.filter(|seat| reach != Reach::Others || *seat != me);
            to.for_each(|seat| send(self, seat));
            return unsent;
        }
        let old = |w: &Entry| w.seat.generation < current && receives(w);
        let elders: Vec<Seat> = self.table.workers().filter(old).map(|w| w.seat).collect();
        let is_in = |seat: &Seat| match reach {
            Reach::Own => seat.generation == own,
            Reach::Others => seat.generation == own && *seat != me,
            Reach::Newer => seat.generation >= own,
        };
        elders.iter().copied().filter(is_in).for_each(|seat| send(self, seat));
        if reach == Reach::Newer {
            seats(current, workers).for_each(|seat| send(self, seat));
        }
        if letter.kind == Kind::Call {
            let left = |seat: &Seat| is_in(seat) && !elders.contains(seat);
            let gone = seats(own, self.peers.len()).filter(left);
            unsent.extend(gone.map(|seat| (seat, Unsent::Nobody)));
        }
        unsent
    }

    /// Sends to a seat of this generation or a newer one, or of an elder.
    #[inline]
    pub(super) fn send_seat(
        &mut self,
        seat: Seat,
        addressee: Addressee,
        letter: Letter<'_>,
    ) -> Result<(), Unsent> {
        let result = if letter.name.len() > NAME_MAX {
            Err(Refused::Name)
        } else if letter.data.len() > self.limits.message {
            Err(Refused::TooLong)
        } else if seat == self.me.seat {
            self.note(letter)
        } else {
            let Letter { kind, call, name, data } = letter;
            let (sender, seat_of_sender) = (self.me.pid, self.me.seat);
            let room = self.room();
            let Some(peer) = self.peer(seat) else {
                unsent(Unsent::Nobody, format_args!("worker {}", seat.worker));
                return Err(Unsent::Nobody);
            };
            let call = if kind == Kind::Message { peer.stamp() } else { call };
            let message =
                Outgoing { kind, call, sender, seat: seat_of_sender, addressee, name, data };
            let before = peer.waiting();
            let result = peer.send(&message, room);
            let after = peer.waiting();
            if after != before {
                self.hold(self.held + after - before);
                self.linger();
            }
            result
        };
        match result {
            Ok(()) => self.count(Counter::Sent, 1),
            Err(Refused::Full) => self.count(Counter::Full, 1),
            Err(_) => {}
        }
        let result = result.map_err(Unsent::Refused);
        result.inspect_err(|why| unsent(*why, format_args!("worker {}", seat.worker)))
    }

    /// Who is told of room on a line.
    fn room(&self) -> Option<&'static Handlers> {
        self.events.is_some().then_some(&ROOM)
    }

    /// Wakes those who were written to quietly.
    pub(super) fn rouse_held(&self) {
        if let Some(bells) = &self.bells {
            bells.rouse_held();
        }
    }

    /// So many workers of this generation will answer call `call`, the last of whom wakes this one.
    pub(super) fn expect(&self, call: u32, answers: usize) {
        if let Some(tallies) = &self.tallies {
            tallies.begin(usize::from(self.me.seat.worker.0), call, answers as u32);
        }
    }

    /// An answer to call `call` of `process` is on its way: who shall be woken for it, a bit each. `to`
    /// where it is none of this generation. It counts also where its receiver looks by itself: the
    /// others may not have woken it.
    /// One that could not be sent and is given again counts twice: then it is woken early, never late.
    pub(super) fn answered(&self, process: Pid, call: u32, to: u128) -> u128 {
        let place = self.recent.get(process.0 as usize % RECENT).and_then(Option::as_ref);
        let seat = place
            .and_then(|recent| self.table.worker(recent.slot))
            .filter(|w| w.pid == process && w.seat.generation == self.me.seat.generation)
            .map(|w| usize::from(w.seat.worker.0));
        let (Some(seat), Some(tallies)) = (seat, &self.tallies) else { return to };
        let is_last = tallies.answered(seat, call);
        // what did not fit waits until the other side makes room
        let waits = self.peers.get(seat).is_none_or(|peer| peer.waiting() > 0);
        if is_last || waits { to | 1u128.checked_shl(seat as u32).unwrap_or_default() } else { 0 }
    }

    pub(super) fn peer(&mut self, seat: Seat) -> Option<&mut Peer> {
        let own = self.me.seat.generation;
        if seat.generation == own {
            return self.peers.get_mut(usize::from(seat.worker.0));
        }
        let queue = self.limits.queue;
        match self.others.entry(seat) {
            Occupied(peer) => Some(peer.into_mut()),
            // a newer worker will say hello; an elder that we were not born with cannot be reached
            Vacant(room) => {
                let is_awaited = seat.generation > own && self.me.state != State::Ousted;
                is_awaited.then(|| room.insert(Peer::new(Way::Unknown, queue)))
            }
        }
    }

    fn note(&mut self, letter: Letter<'_>) -> Result<(), Refused> {
        self.mailbox.note(letter, self.limits.queue)?;
        self.hold(self.held + 1);
        match &mut self.events {
            // where a call waits, it may be for this
            Some(events) if self.waiting || self.calls > 0 || self.receiver.is_none() => {
                events.turn.next_turn();
            }
            _ => {}
        }
        Ok(())
    }

    /// A worker of a newer generation has said where it can be reached.
    pub(super) fn greet(&mut self, seat: Seat, send: std::os::fd::OwnedFd) {
        let newer = seat.generation > self.me.seat.generation;
        if let Some(peer) = self.peer(seat).filter(|_| newer) {
            peer.learn(send);
            self.flush();
            self.keep_house();
        }
    }

    /// Writes what waits for peers that have room again.
    pub(super) fn flush(&mut self) {
        let (room, table, slot, mut held) = (self.room(), self.table, self.slot, self.held);
        // told one by one, so that a process killed in the middle has not lost what was sent
        let mut taken = || {
            held = held.saturating_sub(1);
            table.hold(slot, held as u64);
        };
        let peers = self.peers.iter_mut().chain(self.others.values_mut());
        let waiting = peers.filter(|peer| peer.waiting() > 0);
        let lost = waiting.map(|peer| peer.flush(room, &mut taken)).sum();
        self.lose(lost);
        self.recount();
        self.linger();
    }

    /// A leaving worker has a moment for its last words to be taken.
    pub(super) fn linger(&mut self) {
        let waiting = self.held > self.mailbox.notes().0 + self.aside;
        match &mut self.events {
            Some(events) if self.me.state >= State::Retiring => {
                if !waiting {
                    events.linger.cancel();
                } else if !events.linger.is_set() {
                    events.linger.after(LINGER, true);
                }
            }
            _ => {}
        }
    }

    /// Messages and bytes that wait for receivers to take them.
    pub fn queued(&self) -> (usize, usize) {
        let (notes, bytes) = self.mailbox.notes();
        self.all_peers().fold((notes + self.aside, bytes), |(messages, bytes), peer| {
            (messages + peer.waiting(), bytes + peer.bytes())
        })
    }

    pub(super) fn recount(&mut self) {
        let held = self.queued().0;
        self.hold(held);
    }

    /// Tells the table what would be lost with this process.
    pub(super) fn hold(&mut self, held: usize) {
        if held != self.held {
            self.held = held;
            self.table.hold(self.slot, held as u64);
            self.keep_house();
        }
    }
}

/// The sender is told why its message was refused; so is who runs the node. What is not counted
/// elsewhere is counted here.
#[cold]
fn unsent(why: Unsent, to: Arguments<'_>) {
    let (level, reason) = match why {
        Unsent::Nobody | Unsent::Refused(Refused::Gone) => (Level::Info, "nobody is there"),
        Unsent::Refused(Refused::Full) => (Level::Warn, "the queue is full"),
        Unsent::Refused(Refused::TooLong) => (Level::Warn, "it is too long"),
        Unsent::Refused(Refused::Name) => (Level::Warn, "its name is too long"),
    };
    if why != Unsent::Refused(Refused::Full) {
        metrics::count(Counted::Unsent(why));
    }
    let text = format_args!("ipc: a message to {to} is refused: {reason}");
    say::say_of(level, "ipc refused", reason, text);
}

/// Whether an entry of an old generation, where nobody succeeds anybody, still takes messages.
fn receives(worker: &Entry) -> bool {
    worker.state.is_open() && alive(worker.pid)
}

fn seats(generation: Generation, workers: usize) -> impl Iterator<Item = Seat> {
    (0..workers as u16).map(move |id| Seat { generation, worker: WorkerId(id) })
}
