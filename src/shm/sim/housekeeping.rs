//! What a process of a run looks after once a second, in the manner of `modules::ipc::receiving` and
//! `estate`: the dead, and what they have left.

use super::super::ends;
use super::super::slots::{Counter, State, Worker as Entry};
use super::worker::Worker;
use super::world::{Doing, World};
use crate::proto::ipc::frame::{Header, Kind};
use crate::proto::ipc::{Generation, Seat, WorkerId};

/// ms between two looks for what went unnoticed.
pub(super) const HOUSEKEEPING: u64 = 1000;

impl Worker {
    pub(super) fn keep_order(&mut self, world: &World) {
        let newest = world.table.current().0;
        let living: Vec<Seat> =
            world.table.everyone().filter(|w| world.alive(w.pid)).map(|w| w.seat).collect();
        let mut lost = 0;
        self.others.retain(|seat, peer| {
            let stays = seat.generation >= newest || living.contains(seat);
            lost += if stays { 0 } else { peer.outbox.len() as u64 };
            stays
        });
        let heir = newest == self.me.seat.generation && !self.is_ousted();
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
            // who has given way reads nothing
            let of = |w: &Entry| w.seat.generation == generation && w.state != State::Ousted;
            let here: Vec<Entry> = world.table.everyone().filter(of).collect();
            let all_gone = !here.iter().any(|w| world.alive(w.pid));
            // who is born may not have entered yet: nginx has it so for a moment, which this run
            // makes as long as it likes
            let living = world.living();
            let mut born = living.iter().filter(|process| process.seat.generation == generation);
            elders |= born.clone().next().is_some();
            let born = born.any(|process| process.gave_way.get().is_none());
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
                let mut owners = here.iter().filter(|w| w.seat == seat).peekable();
                let dead = owners.peek().is_some() && owners.all(|w| !world.alive(w.pid));
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
                ends::inherit(made.mesh, |messages| {
                    lost(messages as u64);
                    self.process.doing.set(Doing::Both(most));
                });
                self.process.doing.set(Doing::Nothing);
            }
        }
        elders
    }

    pub(super) fn keep_house(&mut self, world: &World) {
        self.housekeeping.get_or_insert(world.now() + HOUSEKEEPING);
    }
}
