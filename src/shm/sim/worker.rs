//! One process of a run: what `modules::ipc` does around rings, outboxes and the assembler, in the
//! same order, for that order decides what a kill leaves behind.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::super::ends::{self, Bells, Reader};
use super::super::slots::{Counter, SlotId, State, Worker as Entry};
use super::kernel::{Eventfds, Line};
use super::peer::{Peer, Way};
use super::world::{Doing, Made, Process, World, tick};
use crate::proto::ipc::assemble::{Assembled, Assembler};
use crate::proto::ipc::frame::{Header, Kind};
use crate::proto::ipc::{Addressee, Generation, Pid, Seat, WorkerId};

/// ms between two looks for what went unnoticed.
const HOUSEKEEPING: u64 = 1000;
/// ms that a worker stays for what was sent before it said that it closes.
const CLOSING: u64 = 20;
/// A process in its seat.
pub(super) struct Worker {
    pub(super) process: Rc<Process>,
    pub(super) me: Entry,
    pub(super) slot: SlotId,
    made: Rc<Made>,
    bells: Bells<'static, Eventfds>,
    reader: Reader<'static, Eventfds>,
    line: Rc<Line>,
    assembler: Assembler,
    pub(super) peers: Vec<Peer>,
    pub(super) others: BTreeMap<Seat, Peer>,
    pub(super) notes: VecDeque<(Vec<u8>, Vec<u8>)>,
    pub(super) note_bytes: usize,
    notes_next: bool,
    pub(super) held: u64,
    /// Nothing was left: it waits for a bell.
    asleep: bool,
    /// It has something to do in the next turn.
    pub(super) turn: bool,
    housekeeping: Option<u64>,
}

impl Worker {
    /// Claims the seat.
    pub(super) fn enter(world: &World, process: &Rc<Process>) -> Worker {
        let (pid, seat) = (process.pid, process.seat);
        let made = world.made(seat.generation);
        process.doing.set(Doing::Under(world.heritage(seat)));
        let slot = world.table.claim(pid, seat, |pid| world.alive(pid)).unwrap();
        process.doing.set(Doing::Nothing);
        let id = usize::from(seat.worker.0);
        let bells = Bells::new(made.mesh, id, made.bells.clone());
        let way = |to: usize| bells.writer(to).map_or(Way::Unknown, Way::Ring);
        let elder =
            |(seat, line): &(Seat, Rc<Line>)| (*seat, Peer::new(Way::Line(line.clone()), world));
        let mut worker = Worker {
            process: process.clone(),
            me: Entry { pid, seat, state: State::Starting },
            slot,
            reader: Reader::new(bells.clone()),
            line: made.lines[id].clone(),
            assembler: Assembler::new(world.plan.message),
            peers: (0..made.lines.len()).map(|to| Peer::new(way(to), world)).collect(),
            others: made.elders.iter().map(elder).collect(),
            bells,
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
        worker
    }

    fn say(&mut self, world: &World, state: State) {
        self.me.state = state;
        world.table.set_state(self.slot, self.me);
    }

    fn id(&self) -> usize {
        usize::from(self.me.seat.worker.0)
    }

    fn rung(&self) -> bool {
        self.made.bells.0[self.id()].get()
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
        if self.made.bells.0[self.id()].replace(false) {
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

    /// Whether there is a way to a worker of another generation.
    pub(super) fn knows(&self, seat: Seat) -> bool {
        self.others.get(&seat).is_some_and(|peer| !matches!(peer.way, Way::Unknown))
    }

    /// What must hold whenever nobody is in the middle of anything.
    pub(super) fn check(&self, world: &World, whole_generation: bool) {
        assert_eq!(self.held, self.waiting(), "{:?} says what it holds", self.me);
        assert_eq!(world.table.held(self.slot), self.held, "{:?} told what it holds", self.me);
        if !self.asleep || self.rung() || !whole_generation {
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
        assert!(!self.bells.any(), "{:?} sleeps over its bell", self.me);
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

