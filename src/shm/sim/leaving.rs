//! How a process of a run leaves, or gives its seat up, in the manner of `modules::ipc::leaving`.

use super::super::slots::{Counter, State, Worker as Entry};
use super::peer::{Peer, Way};
use super::receiving::Next;
use super::worker::Worker;
use super::world::{Doing, World};
use crate::proto::ipc::{Seat, WorkerId};

/// ms that a worker stays for what was sent before it said that it closes.
const CLOSING: u64 = 20;

impl Worker {
    /// Nothing keeps it: it takes what was sent before others could know, and goes.
    pub(super) fn close(&mut self, world: &World) {
        if self.me.state.is_open() {
            self.say(world, State::Closed);
            self.process.quits.set(Some(world.now() + CLOSING));
        } else {
            self.leave(world);
        }
    }

    fn leave(&mut self, world: &World) {
        self.heed(world);
        self.flush(world);
        self.owes(0);
        self.clear(world);
        self.settle(world);
        // last, for a late hello is answered with what has waited for it
        self.owes(0);
        let held = self.waiting();
        world.table.hold(self.slot, 0);
        self.count(world, Counter::Lost, held);
        world.table.release(self.slot, self.me.pid);
        world.exited(&self.process);
    }

    /// Gives way, where another process waits for that.
    pub(super) fn heed(&mut self, world: &World) {
        if !self.is_ousted() && world.table.is_wanted(self.slot, self.me.pid) {
            self.give_way(world);
        }
    }

    /// Another process is in this seat: from now on this one talks to itself alone.
    fn give_way(&mut self, world: &World) {
        self.flush(world);
        let peers = self.peers.iter().chain(self.others.values());
        let lost = peers.map(|peer| peer.outbox.len() as u64).sum();
        // counted, and said to be held, until the table is told
        self.process.doing.set(Doing::Over(lost));
        self.count(world, Counter::Lost, lost);
        self.peers.iter_mut().for_each(|peer| *peer = Peer::new(Way::Gone, world));
        self.others.clear();
        (self.reader, self.bells) = (None, None);
        self.recount(world);
        self.process.doing.set(Doing::Nothing);
        self.process.gave_way.set(Some(!self.assembler.is_busy()));
        self.say(world, State::Ousted);
    }

    /// Where nobody takes this seat over.
    fn settle(&mut self, world: &World) {
        let own = self.me.seat.generation;
        if world.table.current().0 <= own || self.is_ousted() {
            return;
        }
        self.line.close();
        self.clear(world);
        let Some(bells) = &self.bells else { return };
        bells.leave();
        let workers = self.made.lines.len() as u16;
        let seats = (0..workers).map(|id| Seat { worker: WorkerId(id), ..self.me.seat });
        self.owes(seats.map(|seat| world.waiting_for(seat)).sum::<u64>());
        let stays = |w: &Entry| {
            let left = bells.has_left(usize::from(w.seat.worker.0));
            let here = w.seat.generation == own && w.pid != self.me.pid && w.state != State::Ousted;
            here && !left && world.alive(w.pid)
        };
        if !world.table.everyone().any(|w| stays(&w)) {
            bells.settle(|messages| self.count(world, Counter::Lost, messages as u64));
        }
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
}
