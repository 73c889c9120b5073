//! The worker table: who runs in which seat, in one word a slot, and what each slot has counted.
//! Decides nothing about messages; `modules::ipc` asks it where a worker is.

use super::Shared;
use super::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::proto::ipc::{Generation, Pid, Seat, WORKERS_MAX, WorkerId};

/// Slots of a table: a master cannot have more children.
pub const SLOTS: usize = if cfg!(loom) { 2 } else { WORKERS_MAX };

/// Changes with every change of the layout below.
const LAYOUT: u32 = 5;
const MAGIC: u32 = 0x6e67_6363;

/// What a worker is doing; none goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Its init hooks run; messages wait for it.
    Starting = 0,
    /// It runs its event loop.
    Live,
    /// It was told to finish, and still serves what it had begun.
    Retiring,
    /// Nothing is left that keeps it: it takes what was sent before this, and no more.
    Closed,
    /// Another process has its seat: it neither takes nor sends anything.
    Ousted,
}

impl State {
    /// Whether messages are sent to it; what it waits for itself it still gets when it has closed.
    pub fn is_open(self) -> bool {
        self < State::Closed
    }
}

/// What is counted, in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Accepted for sending, once per receiver.
    Sent = 0,
    /// Handed to a handler.
    Received,
    /// Refused to the sender because the receiver's queue was full.
    Full,
    /// Arrived, but no handler had that name.
    Unhandled,
    /// Arrived for a process that was gone.
    Stranger,
    /// Lost with a worker: accepted, but the receiver or its line was gone before delivery.
    Lost,
    /// The handler failed.
    Failed,
    /// A reply that came after its caller had given up.
    Late,
}

/// How many there are.
pub const COUNTERS: usize = 8;

/// A worker as the table shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Its process.
    pub pid: Pid,
    /// Its seat.
    pub seat: Seat,
    /// What it is doing.
    pub state: State,
}

/// A slot's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotId(u16);

impl SlotId {
    /// As a number, for tables beside this one.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

const PID_BITS: u32 = 22; // Linux: PID_MAX_LIMIT is 4 Mi
const WORKER_BITS: u32 = 10;
const STATE_BITS: u32 = 3;
const GENERATION_BITS: u32 = 29;

impl Worker {
    /// One word: generation, state, worker id, pid. 0 is a free slot.
    fn pack(self) -> u64 {
        let state: u64 = match self.state {
            State::Starting => 1,
            State::Live => 2,
            State::Retiring => 3,
            State::Closed => 4,
            State::Ousted => 5,
        };
        let generation = u64::from(self.seat.generation.0) & mask(GENERATION_BITS);
        let worker = u64::from(self.seat.worker.0) & mask(WORKER_BITS);
        let pid = u64::from(self.pid.0) & mask(PID_BITS);
        (((generation << STATE_BITS | state) << WORKER_BITS | worker) << PID_BITS) | pid
    }

    fn unpack(word: u64) -> Option<Worker> {
        let worker = (word >> PID_BITS) & mask(WORKER_BITS);
        let state = (word >> (PID_BITS + WORKER_BITS)) & mask(STATE_BITS);
        let generation = word >> (PID_BITS + WORKER_BITS + STATE_BITS);
        let state = match state {
            1 => State::Starting,
            2 => State::Live,
            3 => State::Retiring,
            4 => State::Closed,
            5 => State::Ousted,
            _ => return None,
        };
        Some(Worker {
            pid: Pid((word & mask(PID_BITS)) as u32),
            seat: Seat {
                generation: Generation(generation as u32),
                worker: WorkerId(worker as u16),
            },
            state,
        })
    }
}

/// The word of a slot whose dead owner is being forgotten.
const BURIED: u64 = 1;

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

#[repr(C, align(128))] // two cache lines: neighbours prefetch in pairs
struct Slot {
    identity: AtomicU64,
    counters: [AtomicU64; COUNTERS],
    /// Messages that the owner has accepted and not sent yet: lost if it dies now.
    held: AtomicU64,
    /// What the counters were when the owner came.
    before: [AtomicU64; COUNTERS],
    /// The process id of an owner whose seat another process wants.
    wanted: AtomicU32,
}

// SAFETY: atomics only, repr(C).
unsafe impl Shared for Slot {}

/// A slot as a status shows it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its number.
    pub slot: SlotId,
    /// Who is in it; the dead are told only by the kernel.
    pub owner: Option<Worker>,
    /// All that was ever counted in it.
    pub counters: [u64; COUNTERS],
    /// What its owner has counted.
    pub own: [u64; COUNTERS],
    /// Messages that its owner has accepted and not sent yet.
    pub held: u64,
}

/// The table. Zeroed memory becomes one by [`Table::init`].
#[repr(C)]
pub struct Table {
    magic: AtomicU32,
    layout: AtomicU32,
    /// The running generation (high half) and how many workers it has (low half), one word.
    current: AtomicU64,
    slots: [Slot; SLOTS],
}

// SAFETY: atomics only, repr(C).
unsafe impl Shared for Table {}

impl Table {
    /// Bytes that a table takes.
    pub const SIZE: usize = size_of::<Table>();

    /// Marks a zeroed table as one of this layout. Before any other process sees it.
    pub fn init(&self) {
        self.layout.store(LAYOUT, Ordering::Relaxed);
        self.magic.store(MAGIC, Ordering::Release); // pairs with fits()
    }

    /// Whether it was initialised by this layout's code.
    pub fn fits(&self) -> bool {
        self.magic.load(Ordering::Acquire) == MAGIC // pairs with init()
            && self.layout.load(Ordering::Relaxed) == LAYOUT
    }

    /// Starts the next generation with so many workers; only the master does this.
    pub fn next_generation(&self, workers: usize) -> Generation {
        let (Generation(last), _) = self.current();
        let next = last.wrapping_add(1) & mask(GENERATION_BITS) as u32;
        let word = (u64::from(next) << 32) | workers.min(SLOTS) as u64;
        self.current.store(word, Ordering::Release); // pairs with current()
        Generation(next)
    }

    /// The running generation and how many workers it has.
    pub fn current(&self) -> (Generation, usize) {
        let word = self.current.load(Ordering::Acquire); // pairs with next_generation()
        (Generation((word >> 32) as u32), (word as u32 as usize).min(SLOTS))
    }

    /// Takes a slot for this process, as starting. `alive` tells whether a process lives. None when
    /// every slot belongs to a living process.
    pub fn claim(&self, pid: Pid, seat: Seat, alive: impl Fn(Pid) -> bool) -> Option<SlotId> {
        let mine = Worker { pid, seat, state: State::Starting }.pack();
        // One process at a time runs in a seat, so the word there of one that was not asked to give
        // way is a dead one's, even where its process id lives again in a stranger.
        let predecessor = |slot: &Slot, w: Worker| {
            w.seat == seat && (slot.wanted.load(Ordering::Relaxed) != w.pid.0 || !alive(w.pid))
        };
        self.take(mine, |slot, word| Worker::unpack(word).is_some_and(|w| predecessor(slot, w)))
            .or_else(|| self.take(mine, |_, word| word == 0))
            .or_else(|| {
                self.take(mine, |_, word| Worker::unpack(word).is_none_or(|w| !alive(w.pid)))
            })
    }

    /// Asks the living process in a seat, which this one is about to claim, to give way; who it is.
    /// It keeps its slot, and has done so once it is [`State::Ousted`] or has left.
    pub fn oust(&self, seat: Seat, alive: impl Fn(Pid) -> bool) -> Option<(SlotId, Pid)> {
        (0..).map(SlotId).zip(&self.slots).find_map(|(id, slot)| {
            let owner = Worker::unpack(slot.identity.load(Ordering::Acquire))?; // as in workers()
            let stays = owner.seat == seat && owner.state != State::Ousted && alive(owner.pid);
            stays.then(|| {
                // by name, for it may have left by now, and another have come into its slot
                slot.wanted.store(owner.pid.0, Ordering::Release); // pairs with is_wanted()
                (id, owner.pid)
            })
        })
    }

    /// Whether the owner of a slot, `pid`, is to give way.
    pub fn is_wanted(&self, slot: SlotId, pid: Pid) -> bool {
        let slot = self.slots.get(usize::from(slot.0));
        slot.is_some_and(|slot| slot.wanted.load(Ordering::Acquire) == pid.0) // pairs with oust()
    }

    /// Says how many messages would be lost with the owner of a slot.
    pub fn hold(&self, slot: SlotId, messages: u64) {
        if let Some(slot) = self.slots.get(usize::from(slot.0)) {
            slot.held.store(messages, Ordering::Relaxed); // read once its owner is dead
        }
    }

    /// How many messages a dead owner of a seat held: they are counted as lost by who claims it.
    pub fn held_in(&self, seat: Seat) -> u64 {
        let left = |slot: &&Slot| {
            let owner = Worker::unpack(slot.identity.load(Ordering::Acquire)); // as in workers()
            owner.is_some_and(|owner| owner.seat == seat && owner.state != State::Ousted)
        };
        self.slots.iter().find(left).map_or(0, |slot| slot.held.load(Ordering::Relaxed))
    }

    fn take(&self, mine: u64, free: impl Fn(&Slot, u64) -> bool) -> Option<SlotId> {
        self.slots.iter().zip(0..).find_map(|(slot, id)| {
            let word = slot.identity.load(Ordering::Acquire); // pairs with the CAS below
            let taken = free(slot, word)
                && slot
                    .identity
                    .compare_exchange(word, mine, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok();
            if taken {
                slot.wanted.store(0, Ordering::Relaxed);
                let lost = slot.held.swap(0, Ordering::Relaxed); // the predecessor is dead
                self.count(SlotId(id), Counter::Lost, lost);
                for (before, counter) in slot.before.iter().zip(&slot.counters) {
                    before.store(counter.load(Ordering::Relaxed), Ordering::Relaxed);
                }
            }
            taken.then_some(SlotId(id))
        })
    }

    /// Frees the slots of the dead whose seats nobody takes over any more: of older generations, and
    /// those who were in the seat of slot `me`'s owner beside each other. What was lost with each is
    /// counted in slot `me` at once, lest whoever does this dies over the sum; it is the result, too.
    pub fn bury(&self, me: SlotId, alive: impl Fn(Pid) -> bool) -> u64 {
        let (newest, _) = self.current();
        // of two that were in my seat I have followed one only
        let mine = self.worker(me).map(|w| w.seat);
        let forsaken = |id: SlotId, w: &Worker| {
            let old = w.seat.generation < newest || Some(w.seat) == mine && id != me;
            old && !alive(w.pid)
        };
        (0..).map(SlotId).zip(&self.slots).fold(0, |lost, (id, slot)| {
            let word = slot.identity.load(Ordering::Acquire); // pairs with the CAS in take()
            if !Worker::unpack(word).as_ref().is_some_and(|w| forsaken(id, w)) {
                return lost;
            }
            // nobody's while it is emptied: neither free nor anybody's seat
            let (got, gone) = (Ordering::AcqRel, Ordering::Relaxed);
            if slot.identity.compare_exchange(word, BURIED, got, gone).is_err() {
                return lost;
            }
            let held = slot.held.swap(0, Ordering::Relaxed);
            self.count(me, Counter::Lost, held);
            // unless somebody who found every slot taken has this one
            let _ = slot.identity.compare_exchange(BURIED, 0, got, gone);
            lost.wrapping_add(held)
        })
    }

    /// Says what the owner of a slot is doing now.
    pub fn set_state(&self, slot: SlotId, worker: Worker) {
        if let Some(slot) = self.slots.get(usize::from(slot.0)) {
            slot.identity.store(worker.pack(), Ordering::Release); // pairs with workers()
        }
    }

    /// Gives a slot back, if `pid` still owns it.
    pub fn release(&self, slot: SlotId, pid: Pid) {
        if let Some(slot) = self.slots.get(usize::from(slot.0)) {
            let word = slot.identity.load(Ordering::Acquire); // pairs with the CAS in take()
            if Worker::unpack(word).is_some_and(|w| w.pid == pid) {
                let _ =
                    slot.identity.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }

    /// Every worker that has a seat; the dead ones among them are told only by the kernel. Not who
    /// gives way to another.
    pub fn workers(&self) -> impl Iterator<Item = Worker> {
        // pairs with oust()
        let seated = |(slot, w): &(&Slot, Worker)| slot.wanted.load(Ordering::Acquire) != w.pid.0;
        self.owners().filter(seated).map(|(_, worker)| worker)
    }

    /// Every worker that has something to do with a seat: also who is asked to give way, which it may
    /// not have done yet.
    pub fn everyone(&self) -> impl Iterator<Item = Worker> {
        self.owners().map(|(_, worker)| worker)
    }

    fn owners(&self) -> impl Iterator<Item = (&Slot, Worker)> {
        // pairs with the stores of take() and set_state()
        let owner = |slot: &Slot| Worker::unpack(slot.identity.load(Ordering::Acquire));
        self.slots.iter().filter_map(move |slot| Some((slot, owner(slot)?)))
    }

    /// Every slot that was ever used, as it is now.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        (0..).map(SlotId).zip(&self.slots).filter_map(|(id, slot)| {
            let word = slot.identity.load(Ordering::Acquire); // as in workers()
            let counters = slot.counters.each_ref().map(|cell| cell.load(Ordering::Relaxed));
            let used = word != 0 || counters.iter().any(|count| *count != 0);
            used.then(|| {
                let mut own = counters;
                for (count, before) in own.iter_mut().zip(&slot.before) {
                    *count = count.wrapping_sub(before.load(Ordering::Relaxed));
                }
                let held = slot.held.load(Ordering::Relaxed);
                Row { slot: id, owner: Worker::unpack(word), counters, own, held }
            })
        })
    }

    /// The worker in that slot.
    #[inline]
    pub fn worker(&self, slot: SlotId) -> Option<Worker> {
        let slot = self.slots.get(usize::from(slot.0))?;
        Worker::unpack(slot.identity.load(Ordering::Acquire)) // as in workers()
    }

    /// The slot of that process.
    pub fn find(&self, pid: Pid) -> Option<SlotId> {
        let mine = |slot: &SlotId| self.worker(*slot).is_some_and(|w| w.pid == pid);
        (0..SLOTS as u16).map(SlotId).find(mine)
    }

    /// Adds to one of a slot's counters; its owner alone may.
    #[inline]
    pub fn count(&self, slot: SlotId, counter: Counter, messages: u64) {
        let cell =
            self.slots.get(usize::from(slot.0)).and_then(|s| s.counters.get(counter as usize));
        if let Some(cell) = cell {
            // one writer, and a counter orders nothing: no locked instruction is needed
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(messages), Ordering::Relaxed);
        }
    }

    /// The sum of a counter over all slots, living and dead owners alike.
    pub fn total(&self, counter: Counter) -> u64 {
        self.slots
            .iter()
            .filter_map(|slot| slot.counters.get(counter as usize))
            .fold(0, |sum, cell| sum.wrapping_add(cell.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
impl Table {
    /// What the owner of a slot holds.
    pub fn held(&self, slot: SlotId) -> u64 {
        self.slots[usize::from(slot.0)].held.load(Ordering::Relaxed)
    }

    /// What the owner of each slot holds.
    pub fn holdings(&self) -> impl Iterator<Item = (Option<Worker>, u64)> {
        let row = |slot: &Slot| {
            let owner = Worker::unpack(slot.identity.load(Ordering::Relaxed));
            (owner, slot.held.load(Ordering::Relaxed))
        };
        self.slots.iter().map(row)
    }
}

#[cfg(loom)]
impl Table {
    /// A fresh one.
    pub fn new() -> Table {
        let slot = || Slot {
            identity: AtomicU64::new(0),
            counters: std::array::from_fn(|_| AtomicU64::new(0)),
            held: AtomicU64::new(0),
            before: std::array::from_fn(|_| AtomicU64::new(0)),
            wanted: AtomicU32::new(0),
        };
        Table {
            magic: AtomicU32::new(MAGIC),
            layout: AtomicU32::new(LAYOUT),
            current: AtomicU64::new(0),
            slots: std::array::from_fn(|_| slot()),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
