//! What the workers of a run have sent and received, and whether that is as promised.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::super::slots::{Counter, Worker as Entry};
use super::Tally;
use super::world::{Doing, Process, World};
use crate::proto::ipc::frame::{Header, Kind};
use crate::proto::ipc::outbox::Refused;
use crate::proto::ipc::{Addressee, NAME_MAX, Pid, Seat};

/// A message's name and data; which one it is stands in both.
pub(super) struct Text {
    pub(super) name: Vec<u8>,
    pub(super) data: Vec<u8>,
}

impl Text {
    fn new(id: usize, name: usize, data: usize) -> Text {
        let mut text = id.to_string().into_bytes();
        text.resize(text.len().max(name), b' ');
        text.truncate(NAME_MAX);
        let byte = |i: usize| (i.wrapping_mul(31) ^ (i >> 8) ^ id.wrapping_mul(7)) as u8;
        Text { name: text, data: (0..data).map(byte).collect() }
    }

    fn id(name: &[u8]) -> usize {
        std::str::from_utf8(name).unwrap().trim_end().parse().unwrap()
    }
}

struct Sent {
    from: Entry,
    to: Seat,
    addressee: Addressee,
    name: usize,
    data: usize,
    accepted: bool,
    /// Who sat there all the time from the call to its end.
    holder: Pid,
    /// Whether that one had entered.
    entered: bool,
    /// Another one sat there still, who may have left with it.
    shared: bool,
    delivered: Option<Pid>,
}

#[derive(Default)]
pub(super) struct Ledger {
    sent: RefCell<Vec<Sent>>,
    /// The last message from one process to a seat.
    last: RefCell<HashMap<(Pid, Seat), usize>>,
    /// How much more may be counted as delivered, or lost, than as sent; and how much less.
    over: Cell<u64>,
    under: Cell<u64>,
}

impl Ledger {
    /// A message, of whatever size comes.
    pub(super) fn begins(
        &self,
        world: &World,
        from: Entry,
        to: Seat,
        addressee: Addressee,
    ) -> Text {
        let random = &world.random;
        let most = world.plan.message as u64;
        let data = match random.below(10) {
            0 => 0,
            1..7 => random.below(40),
            7..9 => random.below(world.plan.ring as u64 / 3),
            _ => most - random.below(most / 4),
        };
        let data = data.min(most) as usize;
        let name = if random.below(20) == 0 { random.below(300) as usize } else { 1 };
        let holder = world.holder(to);
        let shared = !world.has_entered(holder)
            && world.processes_in(to).any(|p| p.alive.get() && p.pid != holder);
        let (accepted, entered, delivered) = (false, false, None);
        let mut sent = self.sent.borrow_mut();
        let id = sent.len();
        sent.push(Sent {
            from,
            to,
            addressee,
            name,
            data,
            accepted,
            holder,
            entered,
            shared,
            delivered,
        });
        Text::new(id, name, data)
    }

    pub(super) fn ended(&self, world: &World, text: &Text, result: Result<(), Refused>) {
        let sent = &mut self.sent.borrow_mut()[Text::id(&text.name)];
        sent.accepted = result.is_ok();
        sent.entered = world.has_entered(sent.holder);
        if sent.holder != world.holder(sent.to) {
            sent.holder = Pid(0);
        }
    }

    /// `me` has taken a message in.
    pub(super) fn delivered(&self, name: &[u8], data: &[u8], sender: Pid, me: Pid) {
        let id = Text::id(name);
        let mut all = self.sent.borrow_mut();
        let sent = &mut all[id];
        assert_eq!(sent.from.pid, sender, "message {id} comes from another process");
        assert_eq!(sent.delivered.replace(me), None, "message {id} is delivered twice");
        let mine = sent.addressee == Addressee::Seat || sent.addressee == Addressee::Process(me);
        assert!(mine, "message {id} is for {:?}, not {me}", sent.addressee);
        let last = self.last.borrow_mut().insert((sender, sent.to), id);
        assert!(last.is_none_or(|last| last < id), "message {id} comes after {last:?}");
        drop(all);
        self.intact(name, data);
    }

    pub(super) fn intact(&self, name: &[u8], data: &[u8]) {
        let id = Text::id(name);
        let sent = &self.sent.borrow()[id];
        let text = Text::new(id, sent.name, sent.data);
        assert!(text.name == name && text.data == data, "message {id} is not what was sent");
    }

    /// A process was killed in the middle of something.
    pub(super) fn died(&self, doing: Doing) {
        let (over, under) = match doing {
            Doing::Nothing => (0, 0),
            Doing::Over(n) => (n, 0),
            Doing::Under(n) => (0, n),
            Doing::Both(n) => (n, n),
        };
        self.over.set(self.over.get() + over);
        self.under.set(self.under.get() + under);
    }

    /// Between two processes that live, all that was accepted has arrived.
    fn nothing_lost(&self, world: &World) {
        let maimed: Vec<_> =
            world.made.borrow().iter().map(|made| world.is_maimed(made.generation)).collect();
        let whole = |seat: Seat| !maimed[seat.generation.0 as usize - 1];
        for (id, sent) in self.sent.borrow().iter().enumerate() {
            let live = [sent.from.pid, sent.holder].iter().all(|pid| world.alive(*pid));
            let way =
                sent.from.seat.generation == sent.to.generation || world.knows(sent.from, sent.to);
            // who has not entered a generation when it is superseded is taken for gone
            let known = sent.entered || sent.to.generation == world.newest();
            let calm = whole(sent.to) && whole(sent.from.seat);
            // it may have died since it was looked up
            let gone = sent.addressee != Addressee::Seat
                && sent.addressee != Addressee::Process(sent.holder);
            // which counts what it could not send as lost, and what is for it alone a stranger has
            let ousted = [sent.from.pid, sent.holder].map(|pid| world.gave_way(pid));
            if sent.accepted && !gone && live && way && known && calm && !sent.shared {
                let (from, to) = (sent.from, sent.to);
                let expected = match (sent.delivered, ousted) {
                    (_, [Some(_), _]) => continue,
                    (None, [None, Some(whole)]) => {
                        let inherited = whole && sent.addressee == Addressee::Seat;
                        if !inherited
                            || !world.processes_in(to).all(|p| p.alive.get() || p.pid < sent.holder)
                        {
                            continue;
                        }
                        Some(world.holder(to))
                    }
                    (Some(pid), [None, Some(_)]) if pid > sent.holder => continue,
                    (_, [None, _]) => Some(sent.holder),
                };
                assert_eq!(sent.delivered, expected, "message {id}, {from:?} to {to:?}");
            }
        }
    }
}

impl World {
    /// Who sits there now.
    pub(super) fn holder(&self, seat: Seat) -> Pid {
        self.made(seat.generation).seats[usize::from(seat.worker.0)].get()
    }

    fn has_entered(&self, pid: Pid) -> bool {
        let processes = self.processes.borrow();
        processes.get((pid.0 as usize).wrapping_sub(1)).is_some_and(|p| p.entered.get())
    }

    /// Those that sit there, or sat.
    fn processes_in(&self, seat: Seat) -> impl Iterator<Item = Rc<Process>> {
        let processes = self.processes.borrow().clone();
        processes.into_iter().filter(move |process| process.seat == seat)
    }

    /// Whether that one has given its seat up; see [`Process`].
    fn gave_way(&self, pid: Pid) -> Option<bool> {
        let processes = self.processes.borrow();
        processes.get((pid.0 as usize).wrapping_sub(1)).and_then(|p| p.gave_way.get())
    }

    fn knows(&self, from: Entry, to: Seat) -> bool {
        let process = self.processes.borrow()[from.pid.0 as usize - 1].clone();
        self.with(&process, |worker| worker.knows(to)).unwrap_or(false)
    }

    /// Messages on their way to a seat, of which the last record was not taken yet.
    pub(super) fn waiting_for(&self, seat: Seat) -> u64 {
        let made = self.made(seat.generation);
        let (mut messages, to) = (0, usize::from(seat.worker.0));
        let mut look = |record: &[u8]| {
            let (header, _, piece) = Header::decode(record).unwrap();
            messages += u64::from(header.kind != Kind::Hello && header.is_last(piece));
        };
        self.quietly(|| {
            for from in 0..made.mesh.workers() {
                made.mesh.ring(from, to).unwrap().for_each_unread(&mut look);
            }
            made.lines[to].for_each(&mut look);
        });
        messages
    }

    /// What the dead held, and nobody has counted as lost yet.
    pub(super) fn dead_held(&self) -> u64 {
        let dead = |owner: &Option<Entry>| owner.is_none_or(|worker| !self.alive(worker.pid));
        let held =
            || self.table.holdings().filter(|(owner, _)| dead(owner)).map(|(_, held)| held).sum();
        self.quietly(held)
    }

    /// What a predecessor in that seat held.
    pub(super) fn heritage(&self, seat: Seat) -> u64 {
        let same = |owner: &Option<Entry>| {
            owner.is_some_and(|worker| worker.seat == seat && !self.alive(worker.pid))
        };
        let held = || self.table.holdings().filter(|(owner, _)| same(owner)).map(|row| row.1).sum();
        self.quietly(held)
    }

    /// What must hold whenever nobody is in the middle of anything.
    pub(super) fn check(&self) {
        let living = self.living();
        let many = living.len() > 8;
        for process in &living {
            if many && self.random.below(living.len() as u64) > 4 {
                continue;
            }
            let made = self.made(process.seat.generation);
            let whole = made.seats.iter().all(|seat| {
                let processes = self.processes.borrow();
                let process = &processes[seat.get().0 as usize - 1];
                process.alive.get() && process.entered.get()
            });
            self.with(process, |worker| worker.check(self, whole));
        }
    }

    /// Everybody had time: nothing is left on its way between the living.
    pub(super) fn settled(&self) {
        let whole = |process: &Rc<Process>| {
            !self.is_maimed(process.seat.generation) && process.gave_way.get().is_none()
        };
        for process in self.living().into_iter().filter(whole) {
            self.with(&process, |worker| worker.check_settled(self));
            let made = self.made(process.seat.generation);
            let left = self.waiting_for(process.seat);
            assert_eq!(left, 0, "messages are left on their way to {:?}", process.seat);
            assert!(made.lines[usize::from(process.seat.worker.0)].is_empty());
        }
        self.ledger.nothing_lost(self);
        self.nothing_forsaken();
    }

    /// What the dead of older generations have not read was counted by those of newer ones, unless
    /// one of these was killed in the middle of that.
    fn nothing_forsaken(&self) {
        let processes = self.processes.borrow().clone();
        for made in self.made.borrow().iter() {
            let generation = made.generation;
            let mut heirs = processes.iter().filter(|p| p.seat.generation > generation);
            let heir = |heir: &Rc<Process>| {
                heir.alive.get() && heir.entered.get() && heir.gave_way.get().is_none()
            };
            let watched = heirs.clone().any(heir);
            let gone = processes.iter().all(|p| p.seat.generation != generation || !p.alive.get());
            if gone && watched && !heirs.any(|heir| heir.struck.get()) {
                for worker in (0..made.lines.len() as u16).map(crate::proto::ipc::WorkerId) {
                    let left = self.waiting_for(Seat { generation, worker });
                    assert_eq!(
                        left, 0,
                        "nobody counts what worker {worker:?} of {generation:?} left"
                    );
                }
            }
        }
    }

    /// The sums: what was sent was received, refused to a stranger, lost, or still waits.
    pub(super) fn account(&self) -> Tally {
        let total = |counter| self.table.total(counter);
        let held: u64 = self
            .living()
            .iter()
            .map(|process| self.with(process, |worker| worker.waiting()).unwrap_or(0))
            .sum();
        let made = self.made.borrow().clone();
        let seats = made.iter().flat_map(|made| {
            let seat = |worker| Seat {
                generation: made.generation,
                worker: crate::proto::ipc::WorkerId(worker),
            };
            (0..made.lines.len() as u16).map(seat)
        });
        let waiting: u64 = seats.map(|seat| self.waiting_for(seat)).sum();
        let sent = total(Counter::Sent);
        let (received, stranger, lost) =
            (total(Counter::Received), total(Counter::Stranger), total(Counter::Lost));
        let known = received + stranger + lost + held + waiting + self.dead_held();
        let (over, under) = (self.ledger.over.get(), self.ledger.under.get());
        let processes = self.processes.borrow();
        let processes = processes.iter();
        assert!(
            known <= sent + over && sent <= known + under,
            "{sent} sent, {received} received, {stranger} for strangers, {lost} lost, {held} held, \
             {waiting} in rings, {} of the dead; {over} may be counted too much, {under} too little",
            self.dead_held()
        );
        Tally {
            sent,
            kills: self.kills.get(),
            ousted: processes.filter(|process| process.gave_way.get().is_some()).count() as u64,
            cuts: self.cuts.get(),
            uncertain: over + under,
            off: sent.abs_diff(known),
        }
    }
}
