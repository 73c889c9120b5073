//! One process of a run: what `modules::ipc` does around rings, outboxes and the assembler, in the
//! same order, for that order decides what a kill leaves behind.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::super::ends::{Bells, Reader, Writer};
use super::super::slots::{Counter, SlotId, State, Worker as Entry};
use super::ledger::Text;
use super::world::{Doing, Eventfds, Line, Made, Process, World, tick};
use crate::proto::ipc::assemble::{Assembled, Assembler};
use crate::proto::ipc::frame::{HEADER, Header, Kind};
use crate::proto::ipc::outbox::{Outbox, Put, Refused, Wire};
use crate::proto::ipc::{Addressee, Outgoing, Pid, Seat, WorkerId};

/// ms between two looks for what went unnoticed.
const HOUSEKEEPING: u64 = 1000;
/// ms that a worker stays for what was sent before it said that it closes.
const CLOSING: u64 = 20;
/// Data bytes in a record on a line.
const PIECE: usize = 100;

enum Way {
    Unknown,
    Line(Rc<Line>),
    Ring(Writer<'static, Eventfds>),
    Gone,
}

struct Socket<'a>(&'a Line);

impl Wire for Socket<'_> {
    fn piece(&self) -> usize {
        PIECE
    }

    fn put(&mut self, header: &[u8; HEADER], name: &[u8], piece: &[u8]) -> Put {
        match self.0 {
            line if line.is_closed() => Put::Gone,
            line if line.is_full() => Put::Blocked,
            line => {
                line.push([header, name, piece].concat(), None);
                Put::Taken
            }
        }
    }
}

struct Peer {
    way: Way,
    outbox: Outbox,
    greeted: bool,
}

impl Peer {
    fn new(way: Way, world: &World) -> Peer {
        Peer { way, outbox: Outbox::new(world.plan.queue), greeted: false }
    }

    fn send(&mut self, message: &Outgoing<'_>) -> Result<(), Refused> {
        let result = match &mut self.way {
            Way::Ring(writer) => self.outbox.send(message, Some(writer)),
            Way::Line(line) => self.outbox.send(message, Some(&mut Socket(line))),
            Way::Unknown => self.outbox.send(message, None::<&mut Socket<'_>>),
            Way::Gone => Err(Refused::Gone),
        };
        if result == Err(Refused::Gone) {
            self.way = Way::Gone;
        }
        result
    }

    fn flush(&mut self, taken: &mut impl FnMut()) -> usize {
        let (put, lost) = match &mut self.way {
            Way::Ring(writer) => self.outbox.flush(writer, taken),
            Way::Line(line) => self.outbox.flush(&mut Socket(line), taken),
            Way::Unknown | Way::Gone => return 0,
        };
        if put == Put::Gone {
            self.way = Way::Gone;
        }
        lost
    }

    /// A line that has room for what waits.
    fn has_room(&self) -> bool {
        let room = |line: &Rc<Line>| !line.is_full() || line.is_closed();
        matches!(&self.way, Way::Line(line) if !self.outbox.is_empty() && room(line))
    }
}

enum Next {
    Mail { note: bool },
    Hello(Seat, Rc<Line>),
    Dropped(Counter),
    Empty,
}

/// A process in its seat.
pub(super) struct Worker {
    process: Rc<Process>,
    me: Entry,
    slot: SlotId,
    made: Rc<Made>,
    bells: Bells<'static, Eventfds>,
    reader: Reader<'static, Eventfds>,
    line: Rc<Line>,
    assembler: Assembler,
    peers: Vec<Peer>,
    others: BTreeMap<Seat, Peer>,
    notes: VecDeque<(Vec<u8>, Vec<u8>)>,
    note_bytes: usize,
    notes_next: bool,
    held: u64,
    /// Nothing was left: it waits for a bell.
    asleep: bool,
    /// It has something to do in the next turn.
    turn: bool,
    housekeeping: Option<u64>,
}

impl Worker {
    /// Claims the seat.
    pub(super) fn enter(world: &World, process: &Rc<Process>) -> Worker {
        let (pid, seat) = (process.pid, process.seat);
        let made = world.made(seat.generation);
        process.doing.set(Doing::Under(world.dead_held()));
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
        self.process.doing.set(Doing::Both(self.held + world.dead_held()));
        lost += world.table.bury(|pid| world.alive(pid));
        self.count(world, Counter::Lost, lost);
        self.assembler.retain(|pid| world.alive(pid));
        self.greet_elders();
        self.flush(world);
        if !self.others.is_empty() || self.held > 0 || self.assembler.is_busy() {
            self.keep_house(world);
        }
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

    fn count(&self, world: &World, counter: Counter, messages: u64) {
        world.table.count(self.slot, counter, messages);
    }

    fn hold(&mut self, world: &World, held: u64) {
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
        let doing = self.process.doing.replace(Doing::Both(1));
        let (slot, mut held) = (self.slot, self.held);
        let mut taken = || {
            held -= 1;
            world.table.hold(slot, held);
        };
        let peers = self.peers.iter_mut().chain(self.others.values_mut());
        let waiting = peers.filter(|peer| !peer.outbox.is_empty());
        let lost = waiting.map(|peer| peer.flush(&mut taken) as u64).sum();
        self.process.doing.set(Doing::Over(1 + lost));
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

    /// Sends to a process, to a seat, or to all, once or a few times.
    pub(super) fn send_something(&mut self, world: &World) {
        let random = &world.random;
        for _ in 0..1 + random.below(8) {
            match random.below(10) {
                0..4 => {
                    let id = random.below(self.peers.len() as u64) as u16;
                    self.send_worker(world, WorkerId(id));
                }
                4..8 => {
                    let all = world.processes.borrow().len() as u64;
                    // some of the dead, too
                    let latest = all - random.below(all.min(2 * self.peers.len() as u64 + 2));
                    self.send_process(world, Pid(latest as u32));
                }
                _ => self.broadcast(world),
            }
        }
    }

    /// One to each of the generation.
    pub(super) fn send_to_all(&mut self, world: &World) {
        for id in 0..self.peers.len() as u16 {
            self.send_worker(world, WorkerId(id));
        }
    }

    fn send_process(&mut self, world: &World, pid: Pid) {
        let found = world.table.find(pid).filter(|_| world.alive(pid));
        let entry = found.and_then(|slot| world.table.worker(slot));
        if let Some(worker) = entry.filter(|w| w.pid == pid && w.state != State::Closed) {
            self.send_seat(world, worker.seat, Addressee::Process(pid));
        }
    }

    fn send_worker(&mut self, world: &World, id: WorkerId) {
        let seat = Seat { generation: self.me.seat.generation, worker: id };
        let old = seat.generation < world.table.current().0;
        if !old || world.table.workers().any(|w| w.seat == seat && receives(world, &w)) {
            self.send_seat(world, seat, Addressee::Seat);
        }
    }

    fn broadcast(&mut self, world: &World) {
        let own = self.me.seat.generation;
        let (current, workers) = world.table.current();
        let seats = |generation, workers: usize| {
            (0..workers as u16).map(move |id| Seat { generation, worker: WorkerId(id) })
        };
        if current == own {
            return seats(own, self.peers.len())
                .for_each(|seat| self.send_seat(world, seat, Addressee::Seat));
        }
        let old = |w: &Entry| w.seat.generation < current && receives(world, w);
        let elders: Vec<Seat> = world.table.workers().filter(old).map(|w| w.seat).collect();
        for seat in elders.into_iter().filter(|seat| seat.generation >= own) {
            self.send_seat(world, seat, Addressee::Seat);
        }
        seats(current, workers).for_each(|seat| self.send_seat(world, seat, Addressee::Seat));
    }

    fn send_seat(&mut self, world: &World, seat: Seat, addressee: Addressee) {
        let text = world.ledger.begins(world, self.me, seat, addressee);
        self.process.doing.set(Doing::Over(1));
        let result = self.try_send(world, seat, addressee, &text);
        match result {
            Ok(()) => self.count(world, Counter::Sent, 1),
            Err(Refused::Full) => self.count(world, Counter::Full, 1),
            Err(_) => {}
        }
        self.process.doing.set(Doing::Nothing);
        world.ledger.ended(world, &text, result);
    }

    fn try_send(
        &mut self,
        world: &World,
        seat: Seat,
        addressee: Addressee,
        text: &Text,
    ) -> Result<(), Refused> {
        if seat == self.me.seat {
            if self.note_bytes + text.name.len() + text.data.len() > world.plan.queue {
                return Err(Refused::Full);
            }
            self.note_bytes += text.name.len() + text.data.len();
            self.notes.push_back((text.name.clone(), text.data.clone()));
            self.hold(world, self.held + 1);
            self.turn = true;
            return Ok(());
        }
        let own = self.me.seat.generation;
        let peer = if seat.generation == own {
            &mut self.peers[usize::from(seat.worker.0)]
        } else if seat.generation > own {
            self.others.entry(seat).or_insert_with(|| Peer::new(Way::Unknown, world))
        } else {
            self.others.get_mut(&seat).ok_or(Refused::Gone)?
        };
        let message = Outgoing {
            kind: Kind::Message,
            call: 0,
            sender: self.me.pid,
            seat: self.me.seat,
            addressee,
            name: &text.name,
            data: &text.data,
        };
        let before = peer.outbox.len() as u64;
        let result = peer.send(&message);
        let after = peer.outbox.len() as u64;
        let (bytes, plan) = (peer.outbox.bytes(), &world.plan);
        assert!(bytes <= plan.queue + plan.message + 400, "{bytes} bytes wait for {seat:?}");
        if after != before {
            self.hold(world, self.held + after - before);
        }
        result
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
        let generation = self.made.lines.len() as u16;
        let seats = (0..generation).map(|id| Seat { worker: WorkerId(id), ..self.me.seat });
        let uncertain: u64 = seats.map(|seat| world.waiting_for(seat)).sum();
        self.process.doing.set(Doing::Both(uncertain + self.waiting() + 1));
        let mut lost = self.clear(world) + self.waiting();
        if world.table.current().0 > self.me.seat.generation {
            self.line.close();
            lost += self.clear(world);
            self.bells.leave();
            let stays = |w: &Entry| {
                let left = self.bells.has_left(usize::from(w.seat.worker.0));
                w.seat.generation == self.me.seat.generation
                    && w.pid != self.me.pid
                    && !left
                    && world.alive(w.pid)
            };
            if !world.table.workers().any(|w| stays(&w)) {
                lost += self.bells.settle() as u64;
            }
        }
        self.count(world, Counter::Lost, lost);
        world.table.hold(self.slot, 0);
        world.table.release(self.slot, self.me.pid);
        world.exited(&self.process);
    }

    fn clear(&mut self, world: &World) -> u64 {
        let mut lost = 0;
        loop {
            match self.take(world) {
                Next::Mail { .. } | Next::Dropped(Counter::Lost) => lost += 1,
                Next::Hello(seat, line) => self.greet(world, seat, line),
                Next::Dropped(counter) => self.count(world, counter, 1),
                Next::Empty => return lost,
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

fn receives(world: &World, worker: &Entry) -> bool {
    worker.state != State::Closed && world.alive(worker.pid)
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
