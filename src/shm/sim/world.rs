//! The kernel and the master of a run: which processes there are, who runs, who is stopped or
//! killed in the middle of what, what the descriptors between them hold, what time it is.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use super::super::atomic::watch;
use super::super::mesh::Mesh;
use super::super::slots::{SlotId, Table};
use super::super::{Word, at};
use super::Plan;
use super::kernel::{Eventfds, Line, Random};
use super::ledger::Ledger;
use super::worker::Worker;
use crate::proto::ipc::{Generation, Pid, Seat, WorkerId};

/// How deep processes cut in on each other.
const DEPTH: usize = 3;

/// What the master made for a generation.
pub(super) struct Made {
    pub(super) generation: Generation,
    pub(super) mesh: Mesh<'static>,
    pub(super) bells: Eventfds,
    pub(super) lines: Vec<Rc<Line>>,
    pub(super) elders: Vec<(Seat, Rc<Line>)>,
    /// The process in each seat, and whether it has entered.
    pub(super) seats: Vec<Cell<Pid>>,
}

/// What a process is in the middle of: what the account may be off by if it dies there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Doing {
    Nothing,
    /// So many messages may end up counted as received, or lost, beyond those sent.
    Over(u64),
    /// So many may vanish between what counted them as waiting and what counts them.
    Under(u64),
    /// Either.
    Both(u64),
}

impl Doing {
    pub(super) fn most(self) -> u64 {
        match self {
            Doing::Nothing => 0,
            Doing::Over(n) | Doing::Under(n) | Doing::Both(n) => n,
        }
    }
}

/// A process as the kernel and the master see it.
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) seat: Seat,
    pub(super) alive: Cell<bool>,
    stopped: Cell<bool>,
    running: Cell<bool>,
    /// It was killed in the middle of something.
    pub(super) struck: Cell<bool>,
    pub(super) entered: Cell<bool>,
    pub(super) quits: Cell<Option<u64>>,
    /// Whom it has asked to give way, as long as it has not entered.
    pub(super) awaits: Cell<Option<(SlotId, Pid)>>,
    /// It has given way; whether nothing was half received then.
    pub(super) gave_way: Cell<Option<bool>>,
    pub(super) doing: Cell<Doing>,
    body: RefCell<Option<Box<Worker>>>,
}

/// A run.
pub(in crate::shm) struct World {
    pub(super) plan: Plan,
    pub(super) random: Random,
    now: Cell<u64>,
    pub(super) table: &'static Table,
    memory: RefCell<Vec<&'static [Word]>>,
    pub(super) made: RefCell<Vec<Rc<Made>>>,
    pub(super) processes: RefCell<Vec<Rc<Process>>>,
    running: RefCell<Vec<Rc<Process>>>,
    calm: Cell<bool>,
    pub(super) ledger: Ledger,
    pub(super) kills: Cell<u64>,
    pub(super) cuts: Cell<u64>,
}

thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
    /// Accesses until something happens to the process that runs; 0 is never.
    static COUNTDOWN: Cell<u64> = const { Cell::new(0) };
    /// Memory of former runs.
    static POOL: RefCell<Vec<&'static [Word]>> = const { RefCell::new(Vec::new()) };
}

/// The process that runs was killed.
struct Killed;

/// Zeroed memory, aligned as a mapping is.
fn memory(bytes: usize) -> &'static [Word] {
    let fitting = POOL.with_borrow_mut(|pool| {
        let found = pool.iter().position(|memory| size_of_val(*memory) >= bytes);
        found.map(|i| pool.swap_remove(i))
    });
    let memory = fitting.unwrap_or_else(|| {
        let all: &'static [Word] =
            Vec::leak((0..bytes / 8 + 16).map(|_| Word::new(0)).collect::<Vec<_>>());
        &all[all.as_ptr().cast::<u8>().align_offset(128) / 8..]
    });
    for word in &memory[..bytes / 8] {
        word.store(0, std::sync::atomic::Ordering::Relaxed);
    }
    memory
}

/// Makes this thread's accesses those of `world`, until dropped.
pub(super) fn install(world: &Rc<World>) -> impl Drop {
    struct Installed;
    impl Drop for Installed {
        fn drop(&mut self) {
            count_down(0);
            if let Some(world) = WORLD.take() {
                POOL.with_borrow_mut(|pool| pool.append(&mut world.memory.borrow_mut()));
            }
        }
    }
    WORLD.set(Some(world.clone()));
    Installed
}

/// So many accesses from now something happens; 0 is never.
fn count_down(accesses: u64) {
    COUNTDOWN.set(accesses);
    watch(if accesses > 0 { Some(tick) } else { None });
}

/// An instant at which a process may be stopped or killed.
pub(super) fn tick() {
    let left = COUNTDOWN.get();
    if left == 0 || std::thread::panicking() {
        return;
    }
    COUNTDOWN.set(left - 1);
    if left == 1
        && let Some(world) = WORLD.with_borrow(Option::clone)
    {
        world.strike();
    }
}

impl World {
    pub(super) fn new(plan: Plan, random: Random) -> Rc<World> {
        let zone = memory(Table::SIZE);
        let table: &'static Table = at(zone).unwrap();
        table.init();
        Rc::new(World {
            plan,
            random,
            now: Cell::new(0),
            table,
            memory: RefCell::new(vec![zone]),
            made: RefCell::default(),
            processes: RefCell::default(),
            running: RefCell::default(),
            calm: Cell::new(false),
            ledger: Ledger::default(),
            kills: Cell::new(0),
            cuts: Cell::new(0),
        })
    }

    pub(super) fn now(&self) -> u64 {
        self.now.get()
    }

    pub(super) fn alive(&self, pid: Pid) -> bool {
        let processes = self.processes.borrow();
        processes.get((pid.0 as usize).wrapping_sub(1)).is_some_and(|process| process.alive.get())
    }

    pub(super) fn made(&self, generation: Generation) -> Rc<Made> {
        self.made.borrow()[generation.0 as usize - 1].clone()
    }

    pub(super) fn newest(&self) -> Generation {
        Generation(self.made.borrow().len() as u32)
    }

    /// The living, but for those that are in the middle of something.
    fn idle(&self) -> Vec<Rc<Process>> {
        let idle = |p: &&Rc<Process>| p.alive.get() && !p.stopped.get() && !p.running.get();
        self.processes.borrow().iter().filter(idle).cloned().collect()
    }

    pub(super) fn living(&self) -> Vec<Rc<Process>> {
        self.processes.borrow().iter().filter(|p| p.alive.get()).cloned().collect()
    }

    /// Looks at a worker that does not run.
    pub(super) fn with<R>(&self, process: &Process, f: impl FnOnce(&mut Worker) -> R) -> Option<R> {
        process.body.borrow_mut().as_deref_mut().map(f)
    }

    /// A new configuration: new rings, lines and workers; the old ones shall leave.
    pub(super) fn reload(&self) {
        let index = self.made.borrow().len();
        let Some(&workers) = self.plan.workers.get(index) else { return };
        let bytes = Mesh::size_with(workers, self.plan.ring);
        let words = memory(bytes);
        self.memory.borrow_mut().push(words);
        let mesh = Mesh::with_rings(words, workers, self.plan.ring).unwrap();
        let elder = |p: &Rc<Process>| {
            (p.seat, self.made(p.seat.generation).lines[usize::from(p.seat.worker.0)].clone())
        };
        let elders = self.living().iter().map(elder).collect();
        let line = |_| Rc::new(Line::new(self.plan.line));
        let generation = self.table.next_generation(workers);
        let old = self.living();
        self.made.borrow_mut().push(Rc::new(Made {
            generation,
            mesh,
            bells: Eventfds((0..workers).map(|_| Cell::new(false)).collect()),
            lines: (0..workers).map(line).collect(),
            elders,
            seats: (0..workers).map(|_| Cell::new(Pid(0))).collect(),
        }));
        for worker in 0..workers {
            self.spawn(Seat { generation, worker: WorkerId(worker as u16) });
        }
        self.retire(&old);
        self.close_lines();
    }

    fn retire(&self, old: &[Rc<Process>]) {
        for process in old {
            let stay = self.random.pick(&[50, 500, 5000]);
            process.quits.set(Some(self.now() + self.random.below(stay)));
        }
    }

    /// HUP after WINCH after USR2: those of the newest generation shall leave, and in each of its
    /// seats another one starts, without waiting for that. Not while somebody is born who has not
    /// entered: nginx gives it the time.
    fn start_beside(&self) {
        let Some(made) = self.made.borrow().last().cloned() else { return };
        let mut old = self.living();
        old.retain(|process| process.seat.generation == made.generation);
        if old.iter().all(|process| process.entered.get()) {
            self.retire(&old);
            for worker in 0..made.seats.len() as u16 {
                self.spawn(Seat { generation: made.generation, worker: WorkerId(worker) });
            }
        }
    }

    fn spawn(&self, seat: Seat) {
        let pid = Pid(self.processes.borrow().len() as u32 + 1);
        self.made(seat.generation).seats[usize::from(seat.worker.0)].set(pid);
        self.processes.borrow_mut().push(Rc::new(Process {
            pid,
            seat,
            alive: Cell::new(true),
            stopped: Cell::new(false),
            running: Cell::new(false),
            struck: Cell::new(false),
            entered: Cell::new(false),
            quits: Cell::new(None),
            awaits: Cell::new(None),
            gave_way: Cell::new(None),
            doing: Cell::new(Doing::Nothing),
            body: RefCell::new(None),
        }));
    }

    /// The master replaces the dead of the newest generation.
    fn reap(&self) {
        let Some(made) = self.made.borrow().last().cloned() else { return };
        for (seat, worker) in made.seats.iter().zip(0..) {
            if !self.alive(seat.get()) {
                self.spawn(Seat { generation: made.generation, worker: WorkerId(worker) });
            }
        }
    }

    /// The lines of old generations have no reader but their worker, and whoever of a newer one
    /// holds them.
    fn close_lines(&self) {
        let newest = self.newest();
        let living = self.living();
        for made in self.made.borrow().iter().filter(|made| made.generation < newest) {
            let held = living.iter().any(|process| process.seat.generation > made.generation);
            for (line, worker) in made.lines.iter().zip(0..) {
                let seat = Seat { generation: made.generation, worker: WorkerId(worker) };
                if !held && !living.iter().any(|process| process.seat == seat) {
                    line.close();
                }
            }
        }
    }

    /// kill -9, wherever the process is.
    fn kill(&self, process: &Process) {
        process.alive.set(false);
        self.kills.set(self.kills.get() + 1);
        self.ledger.died(process.doing.get());
        if process.running.get() {
            process.struck.set(true);
        } else {
            drop(process.body.take());
        }
        self.close_lines();
    }

    /// Somebody of that generation died in the middle of something, between a record and its bell
    /// perhaps, and has no successor to ring it.
    pub(super) fn is_maimed(&self, generation: Generation) -> bool {
        let made = self.made(generation);
        let heir = |seat: Seat| self.alive(made.seats[usize::from(seat.worker.0)].get());
        let mut struck = self.processes.borrow().clone();
        struck.retain(|p| p.struck.get() && p.seat.generation == generation);
        struck.iter().any(|process| !heir(process.seat))
    }

    /// The process has left in good order.
    pub(super) fn exited(&self, process: &Process) {
        process.alive.set(false);
        self.close_lines();
    }

    /// The countdown of the process that runs has ended: it is killed, or others cut in.
    fn strike(&self) {
        let Some(process) = self.running.borrow().last().cloned() else { return };
        let depth = self.running.borrow().len();
        if !self.calm.get() && self.random.below(1000) < 4 * self.plan.kills {
            self.kill(&process);
        } else if depth < DEPTH {
            self.cuts.set(self.cuts.get() + 1);
            for _ in 0..1 + self.random.below(12) {
                self.step(depth);
            }
            self.arm();
        }
        if !process.alive.get() {
            count_down(0);
            resume_unwind(Box::new(Killed));
        }
    }

    fn arm(&self) {
        let cut = self.random.below(self.plan.cuts) == 0;
        // soon, mostly
        let left = 1 + self.random.below(1 << self.random.below(9));
        count_down(if cut && !self.calm.get() { left } else { 0 });
    }

    /// Gives the processor to `process`, for one turn.
    pub(super) fn run(&self, process: &Rc<Process>, turn: impl FnOnce(&mut Worker)) {
        let interrupted = COUNTDOWN.get();
        count_down(0);
        process.running.set(true);
        self.running.borrow_mut().push(process.clone());
        let body = process.body.take();
        self.arm();
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut worker = match body {
                Some(worker) => Some(worker),
                None => Worker::enter(self, process).map(Box::new),
            };
            worker.as_deref_mut().map(turn);
            worker
        }));
        count_down(0);
        self.running.borrow_mut().pop();
        process.running.set(false);
        process.doing.set(Doing::Nothing);
        match result {
            Ok(worker) if process.alive.get() => drop(process.body.replace(worker)),
            Ok(_) => {}
            Err(payload) if payload.is::<Killed>() => {}
            Err(payload) => resume_unwind(payload),
        }
        count_down(interrupted);
    }

    /// Looks at what processes share, while none of them moves.
    pub(super) fn quietly<R>(&self, look: impl FnOnce() -> R) -> R {
        let left = COUNTDOWN.get();
        count_down(0);
        let result = look();
        count_down(left);
        result
    }

    /// Something happens.
    pub(super) fn step(&self, depth: usize) {
        let random = &self.random;
        if random.below(4) == 0 {
            let leap = if random.below(25) == 0 { random.below(1500) } else { 1 };
            self.now.set(self.now() + leap);
        }
        let idle = self.idle();
        let dice = random.below(1000);
        let plan = &self.plan;
        if dice < plan.kills {
            if let Some(victim) = self.random_of(&self.living()) {
                self.kill(&victim);
            }
        } else if dice < plan.kills + plan.stops {
            if let Some(process) = self.random_of(&self.living()) {
                process.stopped.set(!process.stopped.get());
            }
        } else if dice < plan.kills + plan.stops + plan.reloads {
            if depth == 0 {
                self.reload();
            }
        } else if dice < plan.kills + plan.stops + plan.reloads + plan.besides {
            self.start_beside();
        } else if dice < 960 - plan.sends {
            if let Some(process) = self.random_of(&idle) {
                self.run(&process, |worker| worker.turn(self));
            }
        } else if dice < 960 {
            if let Some(process) = self.random_of(&idle) {
                self.run(&process, |worker| worker.send_something(self));
            }
        } else {
            self.reap();
        }
    }

    fn random_of(&self, processes: &[Rc<Process>]) -> Option<Rc<Process>> {
        processes.get(self.random.below(processes.len() as u64) as usize).cloned()
    }

    /// From now on nothing happens to anybody.
    pub(super) fn calm(&self) {
        self.calm.set(true);
        self.reap();
        self.living().iter().for_each(|process| process.stopped.set(false));
    }

    /// Everybody who has something to do has a turn. Where nobody has, time flies.
    pub(super) fn pass(&self) {
        let mut flies = 50;
        for process in self.idle() {
            let due = !process.entered.get()
                || self.with(&process, |worker| worker.is_due(self)).unwrap_or(false);
            if due {
                flies = 1;
                self.run(&process, |worker| worker.turn(self));
            }
        }
        self.now.set(self.now() + flies);
    }

    /// Each worker sends to each of its generation.
    pub(super) fn everybody_sends(&self) {
        for process in self.idle() {
            self.run(&process, |worker| worker.send_to_all(self));
        }
    }
}
