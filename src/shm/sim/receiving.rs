//! How a process of a run receives, in the manner of `modules::ipc::receiving` and `mailbox`.

use std::rc::Rc;

use super::super::slots::Counter;
use super::kernel::Line;
use super::worker::Worker;
use super::world::{Doing, World, tick};
use crate::proto::ipc::assemble::Assembled;
use crate::proto::ipc::{Pid, Seat};

/// What comes next.
pub(super) enum Next {
    Mail { note: bool },
    Hello(Seat, Rc<Line>),
    Dropped(Counter),
    Empty,
}

impl Worker {
    /// Nobody needs to ring until nothing is left.
    pub(super) fn wake(&mut self, world: &World) {
        self.heed(world);
        if std::mem::take(&mut self.asleep)
            && let Some(bells) = &self.bells
        {
            bells.awake();
        }
        self.receive(world);
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
                    let Some(bells) = &self.bells else { return };
                    if bells.sleep() {
                        self.asleep = true;
                        return;
                    }
                }
            }
            self.process.doing.set(Doing::Nothing);
        }
    }

    pub(super) fn take(&mut self, world: &World) -> Next {
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
        let Some(reader) = &mut self.reader else { return Next::Empty };
        while reader.ready() {
            let record = reader.record().unwrap_or_default();
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
