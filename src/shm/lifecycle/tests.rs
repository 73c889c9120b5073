//! A small world of processes that enter, retire, leave, are killed in the middle of anything, and
//! are noticed by several or by nobody for long. Whatever happens: each event is in the journal
//! once, the numbers are those of the journal, and the rows tell how it goes.

mod cases;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use proptest::prelude::*;

use super::*;
use crate::proto::ipc::WorkerId;
use crate::shm::atomic::watch;
use crate::shm::{Word, at};

thread_local! {
    static LEFT: Cell<u32> = const { Cell::new(0) };
    static LIVING: RefCell<BTreeSet<u32>> = const { RefCell::new(BTreeSet::new()) };
}

struct Killed;

/// Called before and after each access to shared memory.
fn burn() {
    let left = LEFT.get();
    if left == 0 {
        watch(None);
        resume_unwind(Box::new(Killed));
    }
    LEFT.set(left - 1);
}

/// Runs `f` up to an access; None where it was killed there.
fn until<T>(access: Option<u32>, f: impl FnOnce() -> T) -> Option<T> {
    let Some(access) = access else { return Some(f()) };
    LEFT.set(access);
    watch(Some(burn));
    let result = catch_unwind(AssertUnwindSafe(f));
    watch(None);
    match result {
        Ok(value) => Some(value),
        Err(what) if what.is::<Killed>() => None,
        Err(what) => resume_unwind(what),
    }
}

fn lives(pid: Pid) -> bool {
    LIVING.with_borrow(|living| living.contains(&pid.0))
}

fn seat(generation: u32, worker: u16) -> Seat {
    Seat { generation: Generation(generation), worker: WorkerId(worker) }
}

struct Memory(Vec<Word>);

impl Memory {
    fn new() -> Memory {
        let memory = Memory((0..Life::SIZE / 8 + 16).map(|_| Word::new(0)).collect());
        memory.life().init();
        assert!(memory.life().fits());
        memory
    }

    fn life(&self) -> &Life {
        let skip = (128 - self.0.as_ptr() as usize % 128) % 128 / 8;
        at(&self.0[skip..]).unwrap()
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The master loads a configuration of so many workers and starts them.
    Load(u16),
    /// A worker serves; or takes a key, or is told to leave, or leaves.
    Live(usize),
    Claim(usize, u8),
    Release(usize, u8),
    Retire(usize),
    Leave(usize),
    /// It dies between two steps.
    Kill(usize),
    /// Somebody notices who is dead, and knows why or not.
    Notice(usize, bool),
    /// The master starts successors.
    Respawn,
}

fn steps() -> impl Strategy<Value = Vec<(Step, Option<u32>)>> {
    let who = 0usize..8;
    let step = prop_oneof![
        1 => (1u16..4).prop_map(Step::Load),
        3 => who.clone().prop_map(Step::Live),
        3 => (who.clone(), 0u8..3).prop_map(|(who, key)| Step::Claim(who, key)),
        1 => (who.clone(), 0u8..3).prop_map(|(who, key)| Step::Release(who, key)),
        2 => who.clone().prop_map(Step::Retire),
        2 => who.clone().prop_map(Step::Leave),
        3 => who.clone().prop_map(Step::Kill),
        4 => (who, any::<bool>()).prop_map(|(who, known)| Step::Notice(who, known)),
        3 => Just(Step::Respawn),
    ];
    // a third of the steps is cut short
    let cut = prop_oneof![2 => Just(None), 1 => (0u32..160).prop_map(Some)];
    prop::collection::vec((step, cut), 1..60)
}

struct World<'m> {
    life: &'m Life,
    generation: u32,
    next_pid: u32,
    time: u64,
    /// Of the generation in force and older ones: seat to slot, and who is there.
    seats: BTreeMap<(u32, u16), (usize, u32)>,
    killed: HashMap<u32, i32>,
    read: u64,
    events: Vec<Event>,
}

type See<'m> = Handle<'m, fn(Pid) -> bool>;

impl<'m> World<'m> {
    fn new(life: &'m Life) -> Self {
        LIVING.with_borrow_mut(BTreeSet::clear);
        World {
            life,
            generation: 0,
            next_pid: 100,
            time: 1,
            seats: BTreeMap::new(),
            killed: HashMap::new(),
            read: 0,
            events: Vec::new(),
        }
    }

    fn see(&self, pid: u32) -> See<'m> {
        self.life.attach(Pid(pid), lives as fn(Pid) -> bool)
    }

    fn die(&mut self, pid: u32) {
        LIVING.with_borrow_mut(|living| living.remove(&pid));
        self.killed.entry(pid).or_insert(9);
    }

    fn living(&self, n: usize) -> Option<(usize, u32, Seat)> {
        let all: Vec<_> = self.seats.iter().filter(|(_, (_, pid))| lives(Pid(*pid))).collect();
        let ((generation, worker), (slot, pid)) = all.get(n % all.len().max(1))?;
        Some((*slot, *pid, seat(*generation, *worker)))
    }

    fn spawn(&mut self, generation: u32, worker: u16, cut: Option<u32>) {
        let taken: BTreeSet<usize> = self
            .seats
            .iter()
            .filter(|(at, (_, pid))| lives(Pid(*pid)) || **at == (generation, worker))
            .map(|(_, (slot, _))| *slot)
            .collect();
        let own = self.seats.get(&(generation, worker)).map(|(slot, _)| *slot);
        let slot = own.or_else(|| (0..).find(|slot| !taken.contains(slot))).unwrap();
        let pid = self.next_pid;
        self.next_pid += 1;
        LIVING.with_borrow_mut(|living| living.insert(pid));
        let status = |dead: Pid| self.killed.get(&dead.0).map(|status| Status(*status));
        let handle = self.see(pid);
        let time = self.time;
        let entered =
            until(cut, || handle.enter(slot, seat(generation, worker), status, time).unwrap());
        if entered.is_none() {
            self.die(pid);
        }
        self.seats.insert((generation, worker), (slot, pid));
    }

    fn step(&mut self, step: &Step, cut: Option<u32>) {
        self.time += 1;
        match *step {
            Step::Load(workers) => {
                // as nginx does: the new ones first, then the old ones are told
                self.generation += 1;
                let master = 50 + self.generation;
                LIVING.with_borrow_mut(|living| living.insert(master));
                let why = if self.generation == 1 { Why::Start } else { Why::Reload };
                let time = self.time;
                self.see(master).loaded(why, Generation(self.generation), time).unwrap();
                for worker in 0..workers {
                    self.spawn(self.generation, worker, cut.filter(|_| worker == 0));
                }
            }
            Step::Respawn => {
                let dead: Vec<_> = self
                    .seats
                    .iter()
                    .filter(|((generation, _), (_, pid))| {
                        *generation == self.generation && !lives(Pid(*pid))
                    })
                    .map(|(at, _)| *at)
                    .collect();
                for (generation, worker) in dead {
                    self.spawn(generation, worker, cut);
                }
            }
            Step::Notice(n, known) => {
                let Some((_, by, _)) = self.living(n) else { return };
                let handle = self.see(by);
                for (at, (slot, pid)) in self.seats.clone() {
                    if lives(Pid(pid)) || !lives(Pid(by)) {
                        continue;
                    }
                    let status = known.then(|| Status(self.killed[&pid]));
                    let (time, seat) = (self.time, seat(at.0, at.1));
                    let noticed =
                        until(cut, || handle.died(slot, Pid(pid), seat, status, time).unwrap());
                    if noticed.is_none() {
                        self.die(by);
                    }
                }
            }
            Step::Live(n)
            | Step::Claim(n, _)
            | Step::Release(n, _)
            | Step::Retire(n)
            | Step::Leave(n)
            | Step::Kill(n) => {
                let Some((slot, pid, seat)) = self.living(n) else { return };
                let handle = self.see(pid);
                let (life, time) = (self.life, self.time);
                let Some(me) = life.member(slot).filter(|me| me.pid == Pid(pid)) else { return };
                let done = match *step {
                    Step::Live(_) if me.phase == Phase::Starting => until(cut, || {
                        life.set_phase(slot, Member { phase: Phase::Live, ..me });
                        life.set_ready(slot, true, b"");
                    }),
                    Step::Claim(_, key) => until(cut, || {
                        let _ = handle.claim(&[b'k', key]);
                    }),
                    Step::Release(_, key) => until(cut, || {
                        handle.release(&[b'k', key]).unwrap();
                    }),
                    Step::Retire(_) if me.phase == Phase::Live => {
                        until(cut, || handle.retire(slot, Why::Reload, time).unwrap())
                    }
                    Step::Leave(_) if me.phase == Phase::Retiring => {
                        let left = until(cut, || handle.leave(slot, Why::Reload, time).unwrap());
                        let _ = seat;
                        self.die(pid); // a process that has left ends
                        left
                    }
                    Step::Kill(_) => None,
                    _ => Some(()),
                };
                if done.is_none() {
                    self.die(pid);
                }
            }
        }
    }

    /// Reads on, and looks at everything.
    fn check(&mut self) {
        // somebody who lives finishes what a killed one had begun
        LIVING.with_borrow_mut(|living| living.insert(1));
        self.see(1).locked(|| ()).unwrap();
        loop {
            match self.life.read(self.read) {
                Read::Nothing => break,
                Read::Event(number, event) => {
                    assert_eq!(number, self.read + 1);
                    self.read = number;
                    self.events.push(event);
                }
                Read::Missed(count, _) => panic!("{count} missed"),
            }
        }
        assert_eq!(self.read, self.life.head());
        let count = |what: What| self.events.iter().filter(|e| e.what == what).count() as u64;
        assert_eq!(self.life.tally(Tally::WorkerStarts).0, count(What::WorkerStart));
        assert_eq!(self.life.tally(Tally::WorkerExits).0, count(What::WorkerExit));
        assert_eq!(self.life.tally(Tally::Crashes).0, count(What::WorkerCrash));
        let loads = self.life.tally(Tally::Starts).0 + self.life.tally(Tally::Reloads).0;
        assert_eq!(loads, count(What::Start) + count(What::Reload));
        let kinds = [Tally::CrashesBySignal, Tally::CrashesByCode, Tally::CrashesUnknown];
        let kinds: u64 = kinds.iter().map(|tally| self.life.tally(*tally).0).sum();
        assert_eq!(kinds, count(What::WorkerCrash));
        let respawns =
            self.events.iter().filter(|e| e.what == What::WorkerStart && e.why == Why::Respawn);
        assert_eq!(self.life.tally(Tally::Respawns).0, respawns.count() as u64);
        let mut last: HashMap<u32, What> = HashMap::new();
        for event in self.events.iter().filter(|e| !matches!(e.what, What::Start | What::Reload)) {
            let before = last.insert(event.pid.0, event.what);
            let fits = match event.what {
                What::WorkerStart => before.is_none(),
                What::Retiring => before == Some(What::WorkerStart),
                _ => matches!(before, Some(What::WorkerStart | What::Retiring)),
            };
            assert!(fits, "{before:?} then {event:?}");
        }
        for (slot, pid) in self.seats.values() {
            let Some(member) = self.life.member(*slot).filter(|m| m.pid == Pid(*pid)) else {
                continue;
            };
            let phase = match last.get(pid) {
                Some(What::WorkerStart) => matches!(member.phase, Phase::Starting | Phase::Live),
                Some(What::Retiring) => member.phase == Phase::Retiring,
                Some(What::WorkerExit) => member.phase == Phase::Left,
                Some(What::WorkerCrash) => member.phase == Phase::Dead,
                _ => false,
            };
            assert!(phase, "{member:?} after {:?}", last.get(pid));
        }
        for key in 0..3 {
            // whoever lives holds it alone: no second living one gets it
            if let Some(holder) = self.life.held(&[b'k', key]).filter(|pid| lives(*pid)) {
                assert_eq!(self.see(1).claim(&[b'k', key]), Err(LeaseRefused::Held(holder)));
            }
        }
        LIVING.with_borrow_mut(|living| living.remove(&1));
    }

    /// Everybody who is dead is noticed.
    fn settle(&mut self) {
        LIVING.with_borrow_mut(|living| living.insert(2));
        let handle = self.see(2);
        // by the rows: a successor that died before it entered does not hide the one before it
        for slot in 0..SLOTS {
            let Some(member) = self.life.member(slot).filter(|m| !lives(m.pid)) else { continue };
            let runs = member.phase.runs();
            let (pid, seat, time) = (member.pid, member.seat, self.time);
            assert_eq!(handle.died(slot, pid, seat, None, time), Ok(runs));
            // a second time it is no news
            assert_eq!(handle.died(slot, pid, seat, None, time), Ok(false));
        }
        self.check();
        let mut running = self.life.members().filter(|m| m.phase.runs());
        assert!(running.all(|m| lives(m.pid)), "a dead one runs");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_event_is_recorded_once_wherever_anybody_dies(steps in steps()) {
        let memory = Memory::new();
        let mut world = World::new(memory.life());
        world.step(&Step::Load(3), None);
        for (step, cut) in &steps {
            world.step(step, *cut);
            world.check();
        }
        world.settle();
    }

    #[test]
    fn garbage_stops_nobody(words in prop::collection::vec(any::<u64>(), 40), skip in 0usize..3000) {
        let memory = Memory::new();
        for (word, value) in memory.0.iter().skip(4 + skip).zip(&words) {
            word.store(*value, std::sync::atomic::Ordering::Relaxed);
        }
        LIVING.with_borrow_mut(|living| { living.clear(); living.insert(7); });
        let handle = memory.life().attach(Pid(7), lives as fn(Pid) -> bool);
        let _ = handle.enter(3, seat(1, 1), |_| None, 1);
        let _ = handle.died(3, Pid(9), seat(1, 2), None, 2);
        let _ = handle.claim(b"key");
        let mut at = memory.life().head().saturating_sub(3);
        for _ in 0..2000 {
            match memory.life().read(at) {
                Read::Nothing => break,
                Read::Event(number, _) | Read::Missed(_, number) => {
                    prop_assert!(number > at);
                    at = number;
                }
            }
        }
        memory.life().views().for_each(drop);
    }
}
