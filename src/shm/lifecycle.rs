//! What outlives workers about their lives: who sits where and how it goes, how those before ended,
//! what happened last (a journal), how often anything did, who holds which key, what each has seen.
//! Decides nothing (`proto::lifecycle` does); `modules::lifecycle` writes and reads it.
//!
//! Whatever changes more than a word goes through one lock and an *intent*: the lock's owner writes
//! down all it will store, as absolute values, then stores it. Who finds the owner dead stores it
//! again. So every event is recorded once and counted once, wherever its recorder is killed.

mod journal;
mod leases;
mod lock;
mod row;
mod seen;
#[cfg(all(test, not(loom), not(miri)))]
mod tests;

pub use journal::{Event, Read, What};
pub use leases::{KEY_MAX, Refused as LeaseRefused};
pub use row::{REASON_MAX, View};

use super::Shared;
use super::atomic::{AtomicU32, AtomicU64, Ordering};
use super::slots::SLOTS;
use crate::proto::ipc::{Generation, Pid, Seat};
use crate::proto::lifecycle::{self, Member, Phase, Said, Status, Tally, Why};
use journal::Record;
use leases::Lease;
use row::Row;

/// Changes with every change of the layout below.
const LAYOUT: u64 = 1;
const MAGIC: u64 = 0x6e67_636c_6966_6500;
/// Events that are kept; who reads later than that is told how many it missed.
const JOURNAL: usize = if cfg!(loom) { 4 } else { 1024 };
/// Keys that may be held at a time.
pub const LEASES: usize = if cfg!(loom) { 2 } else { 128 };
/// Tallies that one event adds to at most.
const TALLIES: usize = 4;

/// The lock's owner lives and does not let go: come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("busy")]
pub struct Busy;

/// A number, and when it was last added to (ms since 1970).
#[repr(C)]
struct Count {
    number: AtomicU64,
    time: AtomicU64,
}

/// What the lock's owner is about to store. It counts once `sequence` is not 0.
#[repr(C)]
struct Intent {
    sequence: AtomicU64,
    /// The record's words but for the sequence.
    record: [AtomicU64; journal::WORDS],
    /// The row from 1 (0: none), and the words of it.
    row: AtomicU64,
    who: AtomicU64,
    ended: AtomicU64,
    deaths: AtomicU64,
    /// Each a tally from 1 (0: none) and its next number.
    tallies: [[AtomicU64; 2]; TALLIES],
}

/// The memory. Zeroed memory becomes one by [`Life::init`].
#[repr(C)]
pub struct Life {
    magic: AtomicU64,
    layout: AtomicU64,
    /// Whose callback runs: a process id, 0 nobody's (`lock`).
    callback: AtomicU32,
    _pad: AtomicU32,
    lock: super::lock::plain::AtomicU64,
    /// The journal's last sequence number.
    head: AtomicU64,
    /// Why the configuration in force was loaded.
    load: AtomicU64,
    intent: Intent,
    counts: [Count; Tally::ALL.len()],
    journal: [Record; JOURNAL],
    rows: [Row; SLOTS],
    leases: [Lease; LEASES],
    seen: [seen::Cell; seen::CELLS],
}

// SAFETY: atomics only, repr(C).
unsafe impl Shared for Life {}

/// How a worker came to its seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Why it started.
    pub why: Why,
    /// Whom it follows.
    pub predecessor: Option<Pid>,
    /// How that one ended, where it was known at that time.
    pub status: Option<Status>,
}

/// The shared life as one process sees it, with its answer to who lives.
#[derive(Clone, Copy)]
pub struct Handle<'m, A> {
    life: &'m Life,
    me: Pid,
    alive: A,
}

impl Life {
    /// Bytes that it takes.
    pub const SIZE: usize = size_of::<Life>();

    /// Marks zeroed memory. Before any other process sees it.
    pub fn init(&self) {
        self.layout.store(LAYOUT, Ordering::Relaxed);
        self.magic.store(MAGIC, Ordering::Release); // pairs with fits()
    }

    /// Whether it was initialised by this layout's code.
    pub fn fits(&self) -> bool {
        self.magic.load(Ordering::Acquire) == MAGIC // pairs with init()
            && self.layout.load(Ordering::Relaxed) == LAYOUT
    }

    /// As the process `pid` sees it.
    pub fn attach<A: Fn(Pid) -> bool>(&self, pid: Pid, alive: A) -> Handle<'_, A> {
        Handle { life: self, me: pid, alive }
    }

    /// A number, and when it was last added to.
    pub fn tally(&self, tally: Tally) -> (u64, u64) {
        self.counts.get(tally as usize).map_or((0, 0), |count| {
            (count.number.load(Ordering::Relaxed), count.time.load(Ordering::Relaxed))
        })
    }

    /// Why the configuration in force was loaded.
    pub fn load(&self) -> Why {
        Why::of(self.load.load(Ordering::Relaxed)).unwrap_or(Why::Start)
    }

    /// The journal's last sequence number.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire) // pairs with apply()
    }

    /// Who is in that slot, or was last.
    pub fn member(&self, slot: usize) -> Option<Member> {
        self.rows.get(slot)?.member()
    }

    /// All of a slot.
    pub fn view(&self, slot: usize) -> Option<View> {
        self.rows.get(slot)?.view()
    }

    /// Everybody, also those who have left or died and have no successor.
    pub fn views(&self) -> impl Iterator<Item = View> {
        self.rows.iter().filter_map(Row::view)
    }

    /// The same, in short.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.rows.iter().filter_map(Row::member)
    }

    /// The number before which the event of that kind in that generation stands in the journal,
    /// the last such; the end where there is none.
    pub fn before(&self, what: What, generation: Generation) -> u64 {
        let head = self.head();
        let oldest = head.saturating_sub(JOURNAL as u64 / 2);
        let is = |event: Event| event.what == what && event.seat.generation == generation;
        let found = (oldest..head).rev().find(
            |at| matches!(self.read(*at), Read::Event(number, event) if number == at + 1 && is(event)),
        );
        found.unwrap_or(head)
    }

    /// The owner of a slot says what it is doing now.
    pub fn set_phase(&self, slot: usize, member: Member) {
        if let Some(row) = self.rows.get(slot) {
            row.set(member);
        }
    }

    /// The owner of a slot says whether it is ready, and why not.
    pub fn set_ready(&self, slot: usize, ready: bool, reason: &[u8]) {
        if let Some(row) = self.rows.get(slot) {
            row.set_ready(ready, reason);
        }
    }

    /// The owner of a slot: which of its callbacks have begun.
    pub fn set_said(&self, slot: usize, said: Said) {
        if let Some(row) = self.rows.get(slot) {
            row.said.store(said.pack(), Ordering::Release); // pairs with Row::view()
        }
    }
}

impl<'m, A: Fn(Pid) -> bool> Handle<'m, A> {
    /// A configuration is in force: counts and records it.
    pub fn loaded(&self, why: Why, generation: Generation, time: u64) -> Result<(), Busy> {
        self.locked(|| {
            self.life.load.store(why as u64, Ordering::Relaxed);
            let what = if why == Why::Reload { What::Reload } else { What::Start };
            let seat = Seat { generation, worker: crate::proto::ipc::WorkerId(0) };
            let event = Event { what, why, pid: self.me, seat, other: None, status: None, time };
            self.record(&event, None, &[Tally::of_load(why)]);
        })
    }

    /// This process takes its seat, in that slot. What is there says who was before it; `status`
    /// tells how that one ended, where the caller knows.
    pub fn enter(
        &self,
        slot: usize,
        seat: Seat,
        status: impl Fn(Pid) -> Option<Status>,
        time: u64,
    ) -> Result<Option<Entry>, Busy> {
        self.locked(|| {
            let row = self.life.rows.get(slot)?;
            if let Some(last) = row.member().filter(|last| last.phase.runs()) {
                self.crashed(slot, last, status(last.pid), time);
            }
            // a slot that was given back is not always the one that a successor gets
            let others =
                self.life.rows.iter().filter(|r| r.member().is_some_and(|m| m.seat == seat));
            // who had to give way has a slot of its own, and is still about to leave
            let stays = |r: &&Row| {
                let lives = |m: Member| m.phase.runs() && (self.alive)(m.pid);
                !std::ptr::eq(*r, row) && r.member().is_some_and(lives)
            };
            let (elders, mut before): (Vec<_>, Vec<_>) = others.partition(stays);
            let elder = elders.first().and_then(|row| row.member());
            before.sort_by_key(|row| row.since.load(Ordering::Relaxed));
            let last = before.last().and_then(|row| Some((row.member()?, row.status())));
            let deaths = before.last().map_or(0, |row| row.deaths.load(Ordering::Relaxed));
            let phase = elder.map(|_| Phase::Left).or(last.map(|(last, _)| last.phase));
            let why = lifecycle::entered(phase, self.life.load());
            let ended = last.and_then(|(last, known)| known.or_else(|| status(last.pid)));
            let hello = before.last().is_some_and(|row| {
                Said::of(row.said.load(Ordering::Relaxed)).hello && why == Why::Respawn
            });
            let said = Said { predecessor: hello, ..Said::default() };
            self.displace(row, seat, before);
            let predecessor = elder.or(last.map(|(last, _)| last)).map(|last| last.pid);
            row.begin(why, predecessor, ended, deaths, said, time);
            let member = Member { pid: self.me, seat, phase: Phase::Starting };
            let event = Event {
                what: What::WorkerStart,
                why,
                pid: self.me,
                seat,
                other: predecessor,
                status: ended,
                time,
            };
            let ended = Status::pack(ended);
            self.record(
                &event,
                Some((slot, member, ended, deaths)),
                &Tally::of_start(why, event.status),
            );
            Some(Entry { why, predecessor, status: event.status })
        })
    }

    /// A worker comes into this row: whoever was in it is remembered where those who were `before` in
    /// this one's seat are, else, if a successor may come, where nobody was. Lock held.
    fn displace(&self, row: &Row, seat: Seat, mut before: Vec<&'m Row>) {
        before.retain(|old| !std::ptr::eq(*old, row));
        let is_awaited = |m: Member| m.seat != seat && m.seat.generation == seat.generation;
        if before.is_empty() && row.member().is_some_and(is_awaited) {
            before.extend(self.life.rows.iter().rev().find(|row| row.member().is_none()));
        }
        for old in before {
            old.keep(row);
            row.who.store(0, Ordering::Release); // pairs with Row::member()
        }
    }

    /// This process leaves its seat in good order.
    pub fn leave(&self, slot: usize, why: Why, time: u64) -> Result<(), Busy> {
        self.locked(|| {
            let row = self.life.rows.get(slot)?;
            let me = row.member().filter(|member| member.pid == self.me)?;
            let member = Member { phase: Phase::Left, ..me };
            let (pid, seat) = (me.pid, me.seat);
            let what = What::WorkerExit;
            let event = Event { what, why, pid, seat, other: None, status: None, time };
            self.record(
                &event,
                Some((slot, member, Status::pack(Some(Status(0))), 0)),
                &[Tally::WorkerExits],
            );
            Some(())
        })
        .map(|_| ())
    }

    /// That process has ended. Records a crash unless it had left, or somebody did already: true
    /// where this call did.
    pub fn died(
        &self,
        slot: usize,
        pid: Pid,
        seat: Seat,
        status: Option<Status>,
        time: u64,
    ) -> Result<bool, Busy> {
        let is = |m: &Member| m.pid == pid && m.seat == seat && m.phase.runs();
        if !self.life.member(slot).as_ref().is_some_and(is) {
            return Ok(false);
        }
        self.locked(|| {
            let Some(last) = self.life.member(slot).filter(is) else { return false };
            self.crashed(slot, last, status, time);
            true
        })
    }

    /// This process was told to leave: says so, in its row and to all.
    pub fn retire(&self, slot: usize, why: Why, time: u64) -> Result<(), Busy> {
        self.locked(|| {
            let me = self.life.member(slot).filter(|member| member.pid == self.me)?;
            let member = Member { phase: Phase::Retiring, ..me };
            let (pid, seat, what) = (me.pid, me.seat, What::Retiring);
            let event = Event { what, why, pid, seat, other: None, status: None, time };
            let view = self.life.view(slot)?;
            let row = (slot, member, Status::pack(view.status), view.deaths);
            self.record(&event, Some(row), &[]);
            Some(())
        })
        .map(|_| ())
    }

    /// Lock held.
    fn crashed(&self, slot: usize, last: Member, status: Option<Status>, time: u64) {
        let deaths = self.life.rows.get(slot).map_or(0, |row| row.deaths.load(Ordering::Relaxed));
        let event = Event {
            what: What::WorkerCrash,
            why: self.life.load(),
            pid: last.pid,
            seat: last.seat,
            other: None,
            status,
            time,
        };
        let member = Member { phase: Phase::Dead, ..last };
        let row = (slot, member, Status::pack(status), deaths.saturating_add(1));
        self.record(&event, Some(row), &Tally::of_crash(status));
    }

    /// Lock held: writes the intent down, then does it.
    fn record(&self, event: &Event, row: Option<(usize, Member, u64, u64)>, tallies: &[Tally]) {
        let intent = &self.life.intent;
        for (word, value) in intent.record.iter().zip(event.pack()) {
            word.store(value, Ordering::Relaxed);
        }
        let (slot, who, ended, deaths) = row
            .map_or((0, 0, 0, 0), |(slot, member, ended, deaths)| {
                (slot as u64 + 1, row::pack(member), ended, deaths)
            });
        intent.row.store(slot, Ordering::Relaxed);
        intent.who.store(who, Ordering::Relaxed);
        intent.ended.store(ended, Ordering::Relaxed);
        intent.deaths.store(deaths, Ordering::Relaxed);
        let mut adds = tallies.iter();
        for [which, number] in &intent.tallies {
            let tally = adds.next().copied();
            which.store(tally.map_or(0, |tally| tally as u64 + 1), Ordering::Relaxed);
            let next = tally.map_or(0, |tally| self.life.tally(tally).0.wrapping_add(1));
            number.store(next, Ordering::Relaxed);
        }
        // 0 would be none
        let next = self.life.head.load(Ordering::Relaxed).wrapping_add(1).max(1);
        intent.sequence.store(next, Ordering::Release); // pairs with finish()
        self.finish();
    }

    /// Lock held: does what was written down; again, if whoever did so was killed on the way.
    fn finish(&self) {
        let life = self.life;
        let intent = &life.intent;
        let sequence = intent.sequence.load(Ordering::Acquire); // pairs with record()
        if sequence == 0 {
            return;
        }
        let words = intent.record.each_ref().map(|word| word.load(Ordering::Relaxed));
        if let Some(row) = slot_of(&intent.row).and_then(|slot| life.rows.get(slot)) {
            row.ended.store(intent.ended.load(Ordering::Relaxed), Ordering::Relaxed);
            row.deaths.store(intent.deaths.load(Ordering::Relaxed), Ordering::Relaxed);
            let who = intent.who.load(Ordering::Relaxed);
            // an heir of a killed owner may come late: the member itself may have gone on by then
            if row.comes_before(who) {
                row.who.store(who, Ordering::Release); // pairs with Row::view()
            }
        }
        for [which, number] in &intent.tallies {
            if let Some(count) = slot_of(which).and_then(|tally| life.counts.get(tally)) {
                count.number.store(number.load(Ordering::Relaxed), Ordering::Relaxed);
                count.time.store(journal::time_of(&words), Ordering::Relaxed);
            }
        }
        if let Some(record) = life.journal.get(sequence as usize % JOURNAL) {
            record.write(sequence, &words);
        }
        life.head.store(sequence, Ordering::Release); // pairs with head()
        intent.sequence.store(0, Ordering::Release);
    }
}

/// A number that is written one higher, so that 0 is none.
fn slot_of(word: &AtomicU64) -> Option<usize> {
    (word.load(Ordering::Relaxed) as usize).checked_sub(1)
}

/// A status that may not be known, as a word.
impl Status {
    const KNOWN: u64 = 1 << 32;

    fn pack(status: Option<Status>) -> u64 {
        status.map_or(0, |Status(status)| Status::KNOWN | u64::from(status as u32))
    }

    fn unpack(word: u64) -> Option<Status> {
        (word & Status::KNOWN != 0).then_some(Status(word as u32 as i32))
    }
}
