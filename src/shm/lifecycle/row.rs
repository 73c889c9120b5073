//! A slot's row: who is there or was last, and what is known of it. The owner writes it; once it is
//! dead, whoever holds the lock does.

use super::super::Shared;
use super::super::atomic::{AtomicU64, Ordering};
use crate::proto::ipc::{Generation, Pid, Seat, WorkerId};
use crate::proto::lifecycle::{Member, Phase, Said, Status, Why};

const PID_BITS: u32 = 22;
const WORKER_BITS: u32 = 10;
const PHASE_BITS: u32 = 3;
/// Words of the text why a worker is not ready.
const TEXT: usize = 8;
/// Longest such text, in bytes; the rest is cut off.
pub const REASON_MAX: usize = TEXT * 8;

/// A slot's row.
#[repr(C, align(128))]
pub(super) struct Row {
    /// Generation, phase, worker id, pid in one word; 0 nobody.
    pub who: AtomicU64,
    pub since: AtomicU64,
    /// 0 never said, 1 ready, 2 not; above, the length of the text.
    ready: AtomicU64,
    text: [AtomicU64; TEXT],
    /// How the one in it ended, once it is dead; of the living, how the one before did.
    pub ended: AtomicU64,
    /// Why it started, and whom it follows.
    born: AtomicU64,
    /// Crashes in the seat, one after the other, since anybody in it was ready.
    pub deaths: AtomicU64,
    /// Which callbacks have begun.
    pub said: AtomicU64,
}

// SAFETY: atomics only, repr(C).
unsafe impl Shared for Row {}

/// All that is known of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Who, and how it goes.
    pub member: Member,
    /// When it started, in ms since 1970.
    pub since: u64,
    /// Why it started.
    pub why: Why,
    /// Whom it follows in its seat.
    pub predecessor: Option<Pid>,
    /// How it ended where it is dead; else how the one before it did.
    pub status: Option<Status>,
    /// It said that it is, or is not, ready.
    pub ready: Option<bool>,
    /// Why it is not, as it said.
    pub reason: String,
    /// Crashes in its seat since anybody in it was ready.
    pub deaths: u64,
    /// Which callbacks have begun.
    pub said: Said,
}

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

pub(super) fn pack(member: Member) -> u64 {
    let generation = u64::from(member.seat.generation.0) & mask(29);
    let worker = u64::from(member.seat.worker.0) & mask(WORKER_BITS);
    let pid = u64::from(member.pid.0) & mask(PID_BITS);
    ((generation << PHASE_BITS | member.phase as u64) << WORKER_BITS | worker) << PID_BITS | pid
}

fn unpack(word: u64) -> Option<Member> {
    let generation = Generation((word >> (PID_BITS + WORKER_BITS + PHASE_BITS)) as u32);
    let worker = WorkerId(((word >> PID_BITS) & mask(WORKER_BITS)) as u16);
    Some(Member {
        phase: Phase::of((word >> (PID_BITS + WORKER_BITS)) & mask(PHASE_BITS))?,
        pid: Pid((word & mask(PID_BITS)) as u32),
        seat: Seat { generation, worker },
    })
}

impl Row {
    pub fn member(&self) -> Option<Member> {
        unpack(self.who.load(Ordering::Acquire)) // pairs with finish()
    }

    /// How the last one ended, where it has.
    pub fn status(&self) -> Option<Status> {
        Status::unpack(self.ended.load(Ordering::Relaxed))
    }

    /// The owner's word for what it does; only where the row is its own.
    pub fn set(&self, member: Member) {
        if self.member().is_some_and(|m| m.pid == member.pid && m.seat == member.seat) {
            self.who.store(pack(member), Ordering::Release); // pairs with member()
        }
    }

    /// Whether the row does not hold a later word of the same process.
    pub fn comes_before(&self, who: u64) -> bool {
        match (self.member(), unpack(who)) {
            (Some(old), Some(new)) if old.pid == new.pid && old.seat == new.seat => {
                (old.phase as u64) <= new.phase as u64
            }
            _ => true,
        }
    }

    /// What an owner begins with. Lock held, and `who` is nobody or a dead one.
    pub fn begin(
        &self,
        why: Why,
        before: Option<Pid>,
        status: Option<Status>,
        deaths: u64,
        said: Said,
        time: u64,
    ) {
        self.who.store(0, Ordering::Release); // pairs with member(): nobody sees half of it
        self.since.store(time, Ordering::Relaxed);
        self.ready.store(0, Ordering::Relaxed);
        self.ended.store(Status::pack(status), Ordering::Relaxed);
        let before = u64::from(before.map_or(0, |pid| pid.0));
        self.born.store((why as u64) << 32 | before, Ordering::Relaxed);
        self.deaths.store(deaths, Ordering::Relaxed);
        self.said.store(said.pack(), Ordering::Relaxed);
    }

    /// Becomes what another row was, which is given to somebody else: how it ended. Lock held.
    pub fn keep(&self, other: &Row) {
        self.who.store(0, Ordering::Release); // pairs with member()
        let pairs = [
            (&self.since, &other.since),
            (&self.ended, &other.ended),
            (&self.born, &other.born),
            (&self.deaths, &other.deaths),
            (&self.said, &other.said),
        ];
        for (to, from) in pairs {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.ready.store(0, Ordering::Relaxed);
        self.who.store(other.who.load(Ordering::Relaxed), Ordering::Release);
    }

    /// Only its owner.
    pub fn set_ready(&self, ready: bool, reason: &[u8]) {
        let length = reason.len().min(REASON_MAX);
        let mut chunks = reason.get(..length).unwrap_or_default().chunks(8);
        for word in &self.text {
            let mut bytes = [0; 8];
            bytes
                .iter_mut()
                .zip(chunks.next().unwrap_or_default())
                .for_each(|(to, from)| *to = *from);
            word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        if ready {
            self.deaths.store(0, Ordering::Relaxed);
        }
        let word = (length as u64) << 2 | if ready { 1 } else { 2 };
        self.ready.store(word, Ordering::Release); // pairs with view()
    }

    /// All of it. A row that changes hands meanwhile shows the one or the other, and perhaps the
    /// other's text for once.
    pub fn view(&self) -> Option<View> {
        let member = self.member()?;
        let ready = self.ready.load(Ordering::Acquire); // pairs with set_ready()
        let bytes: Vec<u8> =
            self.text.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        let reason = bytes.get(..(ready >> 2) as usize).unwrap_or_default();
        let born = self.born.load(Ordering::Relaxed);
        Some(View {
            member,
            since: self.since.load(Ordering::Relaxed),
            why: Why::of(born >> 32).unwrap_or(Why::Start),
            predecessor: Some(Pid(born as u32)).filter(|pid| pid.0 != 0),
            status: self.status(),
            ready: match ready & 3 {
                1 => Some(true),
                2 => Some(false),
                _ => None,
            },
            reason: String::from_utf8_lossy(reason).into_owned(),
            deaths: self.deaths.load(Ordering::Relaxed),
            said: Said::of(self.said.load(Ordering::Acquire)), // pairs with set_said()
        })
    }
}
