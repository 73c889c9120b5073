//! How a process of a run sends, in the manner of `modules::ipc::sending`.

use std::rc::Rc;

use super::super::ends::Bells;
use super::super::slots::{Counter, Worker as Entry};
use super::kernel::Line;
use super::ledger::Text;
use super::peer::{Peer, Way};
use super::worker::Worker;
use super::world::{Doing, World};
use crate::proto::ipc::frame::Kind;
use crate::proto::ipc::outbox::Refused;
use crate::proto::ipc::{Addressee, Outgoing, Pid, Seat, WorkerId};

impl Worker {
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
        // of two in a seat the mail goes to one
        let takes = |w: &Entry| w.pid == pid && w.state.is_open() && w.seat != self.me.seat;
        let seat = match pid == self.me.pid {
            true => Some(self.me.seat),
            false => entry.filter(takes).map(|w| w.seat),
        };
        if let Some(seat) = seat {
            self.send_seat(world, seat, Addressee::Process(pid));
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
        } else if seat.generation > own && !self.is_ousted() {
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

    pub(super) fn recount(&mut self, world: &World) {
        self.hold(world, self.waiting());
    }

    pub(super) fn use_room(&mut self, world: &World) {
        if self.bells.as_ref().is_some_and(Bells::has_room) {
            self.flush(world);
        }
    }

    pub(super) fn flush(&mut self, world: &World) {
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

    pub(super) fn greet(&mut self, world: &World, seat: Seat, line: Rc<Line>) {
        if seat.generation > self.me.seat.generation {
            let peer = self.others.entry(seat).or_insert_with(|| Peer::new(Way::Unknown, world));
            if let Way::Unknown = peer.way {
                peer.way = Way::Line(line);
            }
            self.flush(world);
            self.keep_house(world);
        }
    }
}

/// Whether a worker of an old generation is there to receive.
fn receives(world: &World, worker: &Entry) -> bool {
    worker.state.is_open() && world.alive(worker.pid)
}
