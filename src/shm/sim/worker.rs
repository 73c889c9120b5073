//! One process of a run: what `modules::ipc` does around rings, outboxes and the assembler, in the
//! same order, for that order decides what a kill leaves behind.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::super::ends::{Bells, Reader};
use super::super::slots::{SlotId, State, Worker as Entry};
use super::housekeeping::HOUSEKEEPING;
use super::kernel::{Eventfds, Line};
use super::peer::{Peer, Way};
use super::world::{Doing, Made, Process, World};
use crate::proto::ipc::assemble::Assembler;
use crate::proto::ipc::frame::{Header, Kind};
use crate::proto::ipc::{Addressee, Pid, Seat, WorkerId};

/// A process in its seat.
pub(super) struct Worker {
    pub(super) process: Rc<Process>,
    pub(super) me: Entry,
    pub(super) slot: SlotId,
    pub(super) made: Rc<Made>,
    /// None, as the reader, once it has given its seat up.
    pub(super) bells: Option<Bells<'static, Eventfds>>,
    pub(super) reader: Option<Reader<'static, Eventfds>>,
    pub(super) line: Rc<Line>,
    pub(super) assembler: Assembler,
    pub(super) peers: Vec<Peer>,
    pub(super) others: BTreeMap<Seat, Peer>,
    pub(super) notes: VecDeque<(Vec<u8>, Vec<u8>)>,
    pub(super) note_bytes: usize,
    pub(super) notes_next: bool,
    pub(super) held: u64,
    /// Nothing was left: it waits for a bell.
    pub(super) asleep: bool,
    /// It has something to do in the next turn.
    pub(super) turn: bool,
    pub(super) housekeeping: Option<u64>,
}

impl Worker {
    /// Claims the seat. None while another process still has it.
    pub(super) fn enter(world: &World, process: &Rc<Process>) -> Option<Worker> {
        let (pid, seat) = (process.pid, process.seat);
        let made = world.made(seat.generation);
        let id = usize::from(seat.worker.0);
        if !gives_way(world, process, &made.lines[id]) {
            return None;
        }
        process.doing.set(Doing::Under(world.heritage(seat)));
        let slot = world.table.claim(pid, seat, |pid| world.alive(pid)).unwrap();
        process.doing.set(Doing::Nothing);
        let bells = Bells::new(made.mesh, id, made.bells.clone());
        let way = |to: usize| bells.writer(to).map_or(Way::Unknown, Way::Ring);
        let elder =
            |(seat, line): &(Seat, Rc<Line>)| (*seat, Peer::new(Way::Line(line.clone()), world));
        let mut worker = Worker {
            process: process.clone(),
            me: Entry { pid, seat, state: State::Starting },
            slot,
            reader: Some(Reader::new(bells.clone())),
            line: made.lines[id].clone(),
            assembler: Assembler::new(world.plan.message),
            peers: (0..made.lines.len()).map(|to| Peer::new(way(to), world)).collect(),
            others: made.elders.iter().map(elder).collect(),
            bells: Some(bells),
            made,
            notes: VecDeque::new(),
            note_bytes: 0,
            notes_next: false,
            held: 0,
            asleep: false,
            turn: true,
            housekeeping: Some(world.now() + HOUSEKEEPING),
        };
        worker.greet_elders();
        worker.say(world, State::Live);
        process.entered.set(true);
        Some(worker)
    }

    pub(super) fn say(&mut self, world: &World, state: State) {
        if state > self.me.state {
            self.me.state = state;
            world.table.set_state(self.slot, self.me);
        }
    }

    /// It has given its seat up.
    pub(super) fn is_ousted(&self) -> bool {
        self.me.state == State::Ousted
    }

    fn id(&self) -> usize {
        usize::from(self.me.seat.worker.0)
    }

    /// Who has given way hears no bell any more.
    fn rung(&self) -> bool {
        !self.is_ousted() && self.made.bells.0[self.id()].get()
    }

    /// Whether the event loop would call it.
    pub(super) fn is_due(&self, world: &World) -> bool {
        let quits = self.process.quits.get().is_some_and(|at| at <= world.now());
        let room = || self.peers.iter().chain(self.others.values()).any(Peer::has_room);
        self.turn
            || self.rung()
            || !self.line.is_empty()
            || self.housekeeping.is_some_and(|at| at <= world.now())
            || quits
            || room()
    }

    /// A turn of the event loop.
    pub(super) fn turn(&mut self, world: &World) {
        if self.process.quits.get().is_some() && self.me.state == State::Live {
            self.say(world, State::Retiring);
        }
        if self.process.quits.get().is_some_and(|at| at <= world.now()) {
            return self.close(world);
        }
        let mut wake = std::mem::take(&mut self.turn) | !self.line.is_empty();
        if self.rung() {
            self.made.bells.0[self.id()].set(false);
            wake = true;
            self.use_room(world);
        }
        if self.others.values().any(Peer::has_room) {
            self.flush(world);
        }
        let house = self.housekeeping.take_if(|at| *at <= world.now()).is_some();
        if wake || house {
            self.wake(world);
        }
        if house {
            self.keep_order(world);
        }
    }

    /// Tells those who have not heard it where this one's line begins.
    pub(super) fn greet_elders(&mut self) {
        let (me, hello) = (self.me, hello(self.me.pid, self.me.seat));
        for (_, peer) in
            self.others.iter_mut().filter(|(seat, _)| seat.generation < me.seat.generation)
        {
            if let (Way::Line(line), false) = (&peer.way, peer.greeted)
                && !line.is_full()
            {
                line.push(hello.clone(), Some(self.line.clone()));
                peer.greeted = true;
            }
        }
    }

    /// Whether there is a way to a worker of another generation.
    pub(super) fn knows(&self, seat: Seat) -> bool {
        self.others.get(&seat).is_some_and(|peer| !matches!(peer.way, Way::Unknown))
    }

    /// What must hold whenever nobody is in the middle of anything.
    pub(super) fn check(&self, world: &World, whole_generation: bool) {
        assert_eq!(self.held, self.waiting(), "{:?} says what it holds", self.me);
        assert_eq!(world.table.held(self.slot), self.held, "{:?} told what it holds", self.me);
        let Some(bells) = self.bells.as_ref().filter(|_| self.asleep && whole_generation) else {
            return;
        };
        if self.rung() {
            return;
        }
        let mesh = self.made.mesh;
        for to in (0..mesh.workers()).filter(|to| !self.peers[*to].outbox.is_empty()) {
            let ring = mesh.ring(self.id(), to).unwrap();
            let told = ring.is_wanted() && (ring.has_unread() || !mesh.is_asleep(to));
            assert!(told, "{:?} waits for room, which worker {to} will not tell of", self.me);
        }
        for from in (0..mesh.workers()).filter(|from| *from != self.id()) {
            let ring = mesh.ring(from, self.id()).unwrap();
            assert!(!ring.has_unread(), "{:?} sleeps over mail from worker {from}", self.me);
        }
        assert!(!bells.any(), "{:?} sleeps over its bell", self.me);
    }

    /// Everybody had time: nothing waits for the living, but where the way is not known.
    pub(super) fn check_settled(&self, world: &World) {
        let generation = self.me.seat.generation;
        let own = self.peers.iter().zip(0..);
        let own = own.map(|(peer, id)| (Seat { generation, worker: WorkerId(id) }, peer));
        let others = self.others.iter().map(|(seat, peer)| (*seat, peer));
        for (seat, peer) in own.chain(others) {
            let excused = matches!(peer.way, Way::Unknown) || !world.alive(world.holder(seat));
            let waiting = peer.outbox.len();
            assert!(waiting == 0 || excused, "{:?} holds {waiting} for {seat:?}", self.me);
        }
        assert!(self.notes.is_empty());
    }
}

/// Whether nobody else has the seat any more: as `modules::ipc::worker::oust`, a look at a time.
///
/// But here it waits for as long as a stopped process is stopped. Whoever goes on without its consent
/// shares rings with it: that one may have been stopped between the look at an end of a ring and
/// the record, and writes or reads there when it goes on. What is overwritten then nobody can
/// count, and what both read is delivered twice; no sum bounds it.
fn gives_way(world: &World, process: &Process, line: &Line) -> bool {
    loop {
        if let Some((slot, elder)) = process.awaits.get() {
            let is = |w: Entry| w.pid == elder && w.state != State::Ousted;
            if world.table.worker(slot).is_some_and(is) && world.alive(elder) {
                return false;
            }
        }
        process.awaits.set(world.table.oust(process.seat, |pid| world.alive(pid)));
        if process.awaits.get().is_none() {
            return true;
        }
        if !line.is_full() && !line.is_closed() {
            line.push(hello(process.pid, process.seat), None);
        }
    }
}

/// What tells the way to a worker.
fn hello(sender: Pid, seat: Seat) -> Vec<u8> {
    let (kind, addressee) = (Kind::Hello, Addressee::Seat);
    let header = Header { kind, sender, seat, addressee, name: 0, total: 0, offset: 0, call: 0 };
    header.encode().to_vec()
}
