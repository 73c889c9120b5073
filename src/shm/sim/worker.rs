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
enum Next {
    Mail { note: bool },
    Hello(Seat, Rc<Line>),
    Dropped(Counter),
    Empty,
}

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

    /// Nobody needs to ring until nothing is left.
    fn wake(&mut self, world: &World) {
        if self.asleep {
            self.asleep = false;
            self.bells.awake();
        }
        self.receive(world);
    }

    fn keep_order(&mut self, world: &World) {
        let newest = world.table.current().0;
        let living: Vec<Seat> =
            world.table.workers().filter(|w| world.alive(w.pid)).map(|w| w.seat).collect();
        let mut lost = 0;
        self.others.retain(|seat, peer| {
            let stays = seat.generation >= newest || living.contains(seat);
            lost += if stays { 0 } else { peer.outbox.len() as u64 };
            stays
        });
        let heir = newest == self.me.seat.generation;
        let elders = heir && self.settle_estates(world);
        self.process.doing.set(Doing::Both(self.held + world.dead_held()));
        if heir {
            world.table.bury(self.slot, |pid| world.alive(pid));
        }
        self.process.doing.set(Doing::Both(self.held + lost));
        self.count(world, Counter::Lost, lost);
        self.assembler.retain(|pid| world.alive(pid));
        self.greet_elders();
        self.process.doing.set(Doing::Both(lost));
        self.flush(world);
        self.process.doing.set(Doing::Nothing);
        if elders || !self.others.is_empty() || self.held > 0 || self.assembler.is_busy() {
            self.keep_house(world);
        }
    }

    /// Reads what the dead of older generations have left: see `modules::ipc::estate`. Whether some
    /// of them live.
    fn settle_estates(&self, world: &World) -> bool {
        let mut elders = false;
        for generation in (1..self.me.seat.generation.0).map(Generation) {
            let here: Vec<Entry> =
                world.table.workers().filter(|w| w.seat.generation == generation).collect();
            let all_gone = !here.iter().any(|w| world.alive(w.pid));
            // who is born may not have entered yet: nginx has it so for a moment, which this run
            // makes as long as it likes
            let born = world.living().iter().any(|process| process.seat.generation == generation);
            elders |= born;
            if all_gone && born {
                continue;
            }
            let made = world.made(generation);
            let lost = |messages: u64| {
                self.count(world, Counter::Lost, messages);
                self.process.doing.set(Doing::Nothing);
            };
            for (line, id) in made.lines.iter().zip(0..) {
                let seat = Seat { generation, worker: WorkerId(id) };
                let dead = here.iter().any(|w| w.seat == seat && !world.alive(w.pid));
                if all_gone || dead {
                    line.close();
                    self.process.doing.set(Doing::Both(1));
                    while let Some((record, _)) = line.pop() {
                        let (header, _, piece) = Header::decode(&record).unwrap();
                        lost((header.kind != Kind::Hello && header.is_last(piece)).into());
                        self.process.doing.set(Doing::Both(1));
                    }
                    self.process.doing.set(Doing::Nothing);
                }
            }
            if all_gone {
                let seats = (0..made.lines.len() as u16)
                    .map(|id| Seat { generation, worker: WorkerId(id) });
                let most = seats.map(|seat| world.waiting_for(seat)).sum();
                self.process.doing.set(Doing::Both(most));
                ends::settle(made.mesh, |messages| {
                    lost(messages as u64);
                    self.process.doing.set(Doing::Both(most));
                });
                self.process.doing.set(Doing::Nothing);
            }
        }
        elders
    }

    fn keep_house(&mut self, world: &World) {
        self.housekeeping.get_or_insert(world.now() + HOUSEKEEPING);
    }

    fn receive(&mut self, world: &World) {
        let mut budget = 1 + world.random.below(20);
        loop {
            if budget == 0 {
                self.turn = true;
                return;
            }
            self.process.doing.set(Doing::Both(1));
            match self.take(world) {
                Next::Mail { note } => {
                    self.count(world, Counter::Received, 1);
                    if note {
                        self.hold(world, self.held - 1);
                    }
                    budget -= 1;
                }
                Next::Hello(seat, line) => self.greet(world, seat, line),
                Next::Dropped(counter) => self.count(world, counter, 1),
                Next::Empty => {
                    self.process.doing.set(Doing::Nothing);
                    self.use_room(world);
                    if self.assembler.is_busy() {
                        self.keep_house(world);
                    }
                    if self.bells.sleep() {
                        self.asleep = true;
                        return;
                    }
                }
            }
            self.process.doing.set(Doing::Nothing);
        }
    }

    fn take(&mut self, world: &World) -> Next {
        self.assembler.release();
        self.notes_next = !self.notes_next;
        if self.notes_next && self.take_note(world) {
            return Next::Mail { note: true };
        }
        match self.take_record(world) {
            Next::Empty if self.take_note(world) => Next::Mail { note: true },
            next => next,
        }
    }

    fn take_note(&mut self, world: &World) -> bool {
        let Some((name, data)) = self.notes.pop_front() else { return false };
        self.note_bytes -= name.len() + data.len();
        world.ledger.delivered(&name, &data, self.me.pid, self.me.pid);
        true
    }

    fn take_record(&mut self, world: &World) -> Next {
        while self.reader.ready() {
            let record = self.reader.record().unwrap_or_default();
            let assembled = self.assembler.accept(record, self.me.pid);
            if let Some(next) = handed_on(world, assembled, None, self.me.pid) {
                return next;
            }
        }
        while let Some((record, passed)) = self.line.pop() {
            let assembled = self.assembler.accept(&record, self.me.pid);
            if let Some(next) = handed_on(world, assembled, passed, self.me.pid) {
                return next;
            }
        }
        Next::Empty
    }

    pub(super) fn count(&self, world: &World, counter: Counter, messages: u64) {
        world.table.count(self.slot, counter, messages);
    }

    pub(super) fn hold(&mut self, world: &World, held: u64) {
        if held != self.held {
            self.held = held;
            world.table.hold(self.slot, held);
            self.keep_house(world);
        }
    }

    /// What waits, notes included, as it is.
    pub(super) fn waiting(&self) -> u64 {
        let peers = self.peers.iter().chain(self.others.values());
        (self.notes.len() + peers.map(|peer| peer.outbox.len()).sum::<usize>()) as u64
    }

    fn recount(&mut self, world: &World) {
        self.hold(world, self.waiting());
    }

    fn use_room(&mut self, world: &World) {
        if self.bells.has_room() {
            self.flush(world);
        }
    }

    fn flush(&mut self, world: &World) {
        let doing = self.process.doing.get();
        self.process.doing.set(Doing::Both(doing.most() + 1));
        let (slot, mut held) = (self.slot, self.held);
        let mut taken = || {
            held -= 1;
            world.table.hold(slot, held);
        };
        let peers = self.peers.iter_mut().chain(self.others.values_mut());
        let waiting = peers.filter(|peer| !peer.outbox.is_empty());
        let lost = waiting.map(|peer| peer.flush(&mut taken) as u64).sum();
        self.process.doing.set(Doing::Both(doing.most() + 1 + lost));
        self.count(world, Counter::Lost, lost);
        self.recount(world);
        self.process.doing.set(doing);
    }

    fn greet(&mut self, world: &World, seat: Seat, line: Rc<Line>) {
        if seat.generation > self.me.seat.generation {
            let peer = self.others.entry(seat).or_insert_with(|| Peer::new(Way::Unknown, world));
            if let Way::Unknown = peer.way {
                peer.way = Way::Line(line);
            }
            self.flush(world);
            self.keep_house(world);
        }
    }

    fn greet_elders(&mut self) {
        let me = self.me;
        let hello = Header {
            kind: Kind::Hello,
            sender: me.pid,
            seat: me.seat,
            addressee: Addressee::Seat,
            name: 0,
            total: 0,
            offset: 0,
            call: 0,
        };
        for (_, peer) in
            self.others.iter_mut().filter(|(seat, _)| seat.generation < me.seat.generation)
        {
            if let (Way::Line(line), false) = (&peer.way, peer.greeted)
                && !line.is_full()
            {
                line.push(hello.encode().to_vec(), Some(self.line.clone()));
                peer.greeted = true;
            }
        }
    }

    /// Nothing keeps it: it takes what was sent before others could know, and goes.
    fn close(&mut self, world: &World) {
        if self.me.state != State::Closed {
            self.say(world, State::Closed);
            self.process.quits.set(Some(world.now() + CLOSING));
        } else {
            self.leave(world);
        }
    }

    fn leave(&mut self, world: &World) {
        self.flush(world);
        self.owes(0);
        self.clear(world);
        if world.table.current().0 > self.me.seat.generation {
            self.line.close();
            self.clear(world);
            self.bells.leave();
            let generation = self.made.lines.len() as u16;
            let seats = (0..generation).map(|id| Seat { worker: WorkerId(id), ..self.me.seat });
            self.owes(seats.map(|seat| world.waiting_for(seat)).sum::<u64>());
            let stays = |w: &Entry| {
                let left = self.bells.has_left(usize::from(w.seat.worker.0));
                w.seat.generation == self.me.seat.generation
                    && w.pid != self.me.pid
                    && !left
                    && world.alive(w.pid)
            };
            if !world.table.workers().any(|w| stays(&w)) {
                self.bells.settle(|messages| self.count(world, Counter::Lost, messages as u64));
            }
        }
        // last, for a late hello is answered with what has waited for it
        self.owes(0);
        let held = self.waiting();
        world.table.hold(self.slot, 0);
        self.count(world, Counter::Lost, held);
        world.table.release(self.slot, self.me.pid);
        world.exited(&self.process);
    }

    /// What it holds is counted at the end, what it takes out at once.
    fn owes(&self, taken_out: u64) {
        self.process.doing.set(Doing::Both(taken_out + self.waiting() + 1));
    }

    fn clear(&mut self, world: &World) {
        loop {
            match self.take(world) {
                Next::Mail { note } => {
                    if note {
                        self.hold(world, self.held - 1);
                    }
                    self.count(world, Counter::Lost, 1);
                    self.owes(0);
                }
                Next::Dropped(Counter::Lost) => self.count(world, Counter::Lost, 1),
                Next::Hello(seat, line) => self.greet(world, seat, line),
                Next::Dropped(counter) => self.count(world, counter, 1),
                Next::Empty => return,
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

fn handed_on(
    world: &World,
    assembled: Assembled<'_>,
    passed: Option<Rc<Line>>,
    me: Pid,
) -> Option<Next> {
    match (assembled, passed) {
        (Assembled::Whole(message), _) => {
            world.ledger.delivered(message.name, message.data, message.sender, me);
            tick(); // and while it is being read
            world.ledger.intact(message.name, message.data);
            Some(Next::Mail { note: false })
        }
        (Assembled::Hello(seat), Some(line)) => Some(Next::Hello(seat, line)),
        (Assembled::More | Assembled::Hello(_), _) => None,
        (Assembled::Stranger, _) => Some(Next::Dropped(Counter::Stranger)),
        (Assembled::Orphan, _) => Some(Next::Dropped(Counter::Lost)),
        (other @ (Assembled::Broken(_) | Assembled::TooLong), _) => panic!("{other:?}"),
    }
}
