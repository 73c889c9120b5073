//! Who else is there: a descriptor of each other worker, which the kernel makes readable when that
//! one ends, and the gong. A worker watches all others, or where they are many the next ones by
//! number; the first who notices an end records it, and the gong tells everybody.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::{Own, now};
use crate::modules::ipc::{inquiry, retaining};
use crate::ngx::log::{self, Level};
use crate::ngx::process::{self, Bundle};
use crate::ngx::socket;
use crate::proto::ipc::Pid;
use crate::proto::lifecycle::{self as decide, Member, Phase, Status};
use crate::shm::lifecycle::{Read, What};
use crate::shm::slots::SLOTS;

/// Most workers that one watches.
const WATCHED_MAX: usize = 128;
/// How long to wait for the successor of one whose end nobody could see the cause of: the successor
/// knows it from the master. In ms.
const PATIENCE: usize = 200;
/// Between looks at those that have no descriptor, in ms.
const LOOK: usize = 1000;
/// The gong's number.
const GONG: u64 = 0;

/// Another worker.
struct Other {
    slot: usize,
    member: Member,
    /// None where the kernel has no such descriptors, or none is left.
    process: Option<OwnedFd>,
}

/// One that has ended, and is not recorded yet.
struct Ended {
    slot: usize,
    member: Member,
    status: Option<Status>,
    /// Its successor may know how.
    patient: bool,
}

/// The others; nobody at first.
#[derive(Default)]
pub struct Others {
    bundle: Option<Bundle>,
    watched: HashMap<u64, Other>,
    ended: Vec<Ended>,
    /// The last one's; the gong's is 0.
    number: u64,
}

impl Others {
    /// Begins to listen; the descriptor to be watched.
    pub fn listen(&mut self, gong: &OwnedFd) -> Result<RawFd, String> {
        let failed = |errno: Errno| format!("epoll failed: {errno}");
        let bundle = Bundle::new().map_err(failed)?;
        bundle.add(gong.as_fd(), GONG).map_err(failed)?;
        Ok(self.bundle.insert(bundle).fd())
    }

    /// How many are watched by a descriptor.
    pub fn watched(&self) -> usize {
        self.watched.values().filter(|other| other.process.is_some()).count()
    }

    /// Those of them who run, by process id.
    pub fn running(&self) -> Vec<Pid> {
        let others = self.watched.values();
        let (pids, processes): (Vec<Pid>, Vec<_>) = others
            .filter_map(|other| Some((other.member.pid, other.process.as_ref()?.as_fd())))
            .unzip();
        let running = pids.into_iter().zip(process::running(&processes));
        let mut pids: Vec<Pid> = running.filter(|(_, runs)| *runs).map(|(pid, _)| pid).collect();
        pids.sort_unstable_by_key(|pid| pid.0);
        pids
    }
}

impl Own {
    /// Watches that worker from now on.
    fn watch(&mut self, slot: usize, member: Member) {
        let far = member.seat.generation == self.seat.generation
            && !decide::watches(self.seat.worker, member.seat.worker, self.workers, WATCHED_MAX);
        let known =
            self.others.watched.values().any(|o| o.member.pid == member.pid && o.slot == slot);
        if far || known || self.others.watched.len() >= 4 * WATCHED_MAX {
            return;
        }
        self.others.number += 1;
        let number = self.others.number;
        let process = match process::open(member.pid.0) {
            Err(Errno::ESRCH) => return self.ended(slot, member, None),
            process => process.ok(),
        };
        let added = |fd: &OwnedFd| {
            self.others.bundle.as_ref().is_some_and(|bundle| bundle.add(fd.as_fd(), number).is_ok())
        };
        let process = process.filter(added);
        self.others.watched.insert(number, Other { slot, member, process });
    }

    /// Something has happened to somebody.
    pub(super) fn on_news(&mut self) {
        let numbers = self.others.bundle.as_ref().map(Bundle::drain).unwrap_or_default();
        for number in numbers.into_iter().filter(|number| *number != GONG) {
            if let Some(Other { slot, member, process }) = self.others.watched.remove(&number) {
                let status = process.and_then(|fd| process::ended(fd.as_fd(), member.pid.0));
                self.ended(slot, member, status.map(Status));
            }
        }
        self.read_on();
        self.schedule();
        self.wake();
    }

    /// Learns of new workers.
    fn read_on(&mut self) {
        loop {
            match self.life.read(self.known) {
                Read::Nothing => return,
                Read::Missed(_, next) => {
                    // too much at once: looks at everybody
                    self.known = next;
                    retaining::ended();
                    inquiry::ended(None);
                    for slot in 0..SLOTS {
                        self.meet(slot);
                    }
                }
                Read::Event(number, event) => {
                    self.known = number;
                    if event.what == What::WorkerStart {
                        let is = |m: Member| m.pid == event.pid && m.seat == event.seat;
                        let row = |slot: &usize| self.life.member(*slot).is_some_and(is);
                        if let Some(slot) = (0..SLOTS).find(row) {
                            self.meet(slot);
                        }
                    }
                    if matches!(event.what, What::WorkerCrash | What::WorkerExit) {
                        retaining::ended();
                        inquiry::ended(Some(event.seat));
                    }
                }
            }
        }
    }

    /// Watches who runs in that slot.
    pub(super) fn meet(&mut self, slot: usize) {
        let other = |member: &Member| member.phase.runs() && member.pid != self.me;
        if let Some(member) = self.life.member(slot).filter(other) {
            self.watch(slot, member);
        }
    }

    /// That process is gone: recorded now, or a little later where its successor may know more.
    fn ended(&mut self, slot: usize, member: Member, status: Option<Status>) {
        let phase = self.life.member(slot).filter(|m| m.pid == member.pid).map(|m| m.phase);
        let Some(phase) = phase.filter(|phase| phase.runs()) else { return };
        let newest = member.seat.generation >= self.table.current().0;
        let patient =
            status.is_none() && newest && phase != Phase::Retiring && self.leaving.is_none();
        let ended = Ended { slot, member, status, patient };
        if patient || !self.bury(&ended) {
            self.others.ended.push(ended);
        }
    }

    /// Records it; false where somebody else holds the lock for too long.
    fn bury(&self, ended: &Ended) -> bool {
        let Ended { slot, member, status, .. } = ended;
        match self.handle.died(*slot, member.pid, member.seat, *status, now()) {
            Ok(true) => {
                let (id, pid, how) = (member.seat.worker, member.pid, decide::ended_by(*status));
                let news = format_args!("cc: worker {id}, process {pid}, was ended by {how}");
                log::cycle(Level::Warn, news);
                socket::ring(&self.gong);
                true
            }
            Ok(false) => true,
            Err(_) => false,
        }
    }

    /// A while after something was left to do.
    pub(super) fn on_again(&mut self) {
        let lost: Vec<u64> = (self.others.watched.iter())
            .filter(|(_, other)| other.process.is_none() && !socket::runs(other.member.pid.0))
            .map(|(number, _)| *number)
            .collect();
        let mut ended = std::mem::take(&mut self.others.ended);
        ended.retain(|ended| !self.bury(ended));
        ended.iter_mut().for_each(|ended| ended.patient = false);
        self.others.ended = ended;
        for number in lost {
            if let Some(Other { slot, member, .. }) = self.others.watched.remove(&number) {
                self.ended(slot, member, None);
            }
        }
        self.schedule();
        self.wake();
    }

    /// A timer only where something is left to do.
    pub(super) fn schedule(&mut self) {
        let patient = self.others.ended.iter().any(|ended| ended.patient);
        let blind = self.others.watched.values().any(|other| other.process.is_none());
        let Some(events) = &mut self.events else { return };
        if events.again.is_set() {
            return;
        }
        if patient {
            events.again.after(PATIENCE, false);
        } else if blind || !self.others.ended.is_empty() {
            events.again.after(LOOK, false);
        }
    }
}
