//! What happened, from what is known of a worker and of who sat in its seat before: why it started,
//! how it ended, why it leaves; who leads; how many there are; whether all are ready.
//! `shm::lifecycle` keeps the facts, `modules::lifecycle` collects them and tells.

use crate::proto::ipc::{Generation, Pid, Seat, WorkerId};

/// What a process in a seat is doing, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its init hooks run.
    Starting = 1,
    /// It serves.
    Live,
    /// It was told to finish.
    Retiring,
    /// It has left in good order.
    Left,
    /// It ended in any other way.
    Dead,
}

impl Phase {
    /// From its number.
    pub fn of(number: u64) -> Option<Phase> {
        use Phase::{Dead, Left, Live, Retiring, Starting};
        [Starting, Live, Retiring, Left, Dead].into_iter().find(|phase| *phase as u64 == number)
    }

    /// Whether the process has not ended, as far as anybody noticed.
    pub fn runs(self) -> bool {
        matches!(self, Phase::Starting | Phase::Live | Phase::Retiring)
    }
}

/// A process in its seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The process.
    pub pid: Pid,
    /// Where it sits.
    pub seat: Seat,
    /// What it is doing.
    pub phase: Phase,
}

/// Why something started or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// nginx was started.
    Start = 1,
    /// A new configuration.
    Reload,
    /// A new binary took the sockets over; for an old one's worker, another binary does.
    Upgrade,
    /// The process before it in the seat was killed or failed.
    Respawn,
    /// The process before it in the seat, of the same configuration, had left in good order: somebody told that
    /// one to, or the old binary is back.
    Return,
    /// nginx is stopped.
    Stop,
    /// The old binary stays, this new one is stopped.
    Rollback,
}

impl Why {
    const ALL: [Why; 7] = [
        Why::Start,
        Why::Reload,
        Why::Upgrade,
        Why::Respawn,
        Why::Return,
        Why::Stop,
        Why::Rollback,
    ];

    /// From its number.
    pub fn of(number: u64) -> Option<Why> {
        Why::ALL.into_iter().find(|why| *why as u64 == number)
    }

    /// The word that users see.
    pub fn word(self) -> &'static str {
        match self {
            Why::Start => "start",
            Why::Reload => "reload",
            Why::Upgrade => "upgrade",
            Why::Respawn => "respawn",
            Why::Return => "return",
            Why::Stop => "stop",
            Why::Rollback => "rollback",
        }
    }
}

/// Why a configuration is loaded: `reload` where this master had one before, `upgrade` where the
/// master before this one handed its sockets over and waits.
pub fn loaded(reload: bool, upgrade: bool) -> Why {
    match (reload, upgrade) {
        (true, _) => Why::Reload,
        (_, true) => Why::Upgrade,
        _ => Why::Start,
    }
}

/// Why a worker starts, from how the one before it in the very seat ended (None: nobody was) and
/// why the configuration was loaded.
pub fn entered(before: Option<Phase>, load: Why) -> Why {
    match before {
        None => load,
        Some(Phase::Left) => Why::Return,
        // whoever had not said that he left did not leave in good order
        Some(_) => Why::Respawn,
    }
}

/// What a worker that leaves knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Its generation.
    pub own: Generation,
    /// The generation in force.
    pub newest: Generation,
    /// Its master has started another binary, which still runs.
    pub handed_on: bool,
    /// The master that handed its sockets to this one still runs.
    pub elder_master: bool,
}

/// Why a worker leaves that was told to.
pub fn leaving(facts: Leaving) -> Why {
    if facts.newest.0 > facts.own.0 {
        Why::Reload
    } else if facts.handed_on {
        Why::Upgrade
    } else if facts.elder_master {
        Why::Rollback
    } else {
        Why::Stop
    }
}

/// How a process ended, as the kernel puts it (`wait`'s status).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub i32);

/// nginx does not start a worker again that ends with this code.
pub const FATAL: i32 = 2;

impl Status {
    /// The signal that killed it.
    pub fn signal(self) -> Option<i32> {
        Some(self.0 & 0x7f).filter(|signal| *signal != 0)
    }

    /// The code it exited with.
    pub fn code(self) -> Option<i32> {
        self.signal().is_none().then_some((self.0 >> 8) & 0xff)
    }

    /// Whether nginx gives its seat up.
    pub fn is_fatal(self) -> bool {
        self.code() == Some(FATAL)
    }
}

/// In words: what it ended by.
pub fn ended_by(status: Option<Status>) -> String {
    match status.map(|status| (status.signal(), status.code())) {
        Some((Some(signal), _)) => format!("signal {signal}"),
        Some((_, Some(code))) => format!("exit code {code}"),
        _ => String::from("a cause that is not known"),
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Tally {
    /// Times that this master began, by a start.
    Starts = 0,
    /// The same, as a new binary that took over.
    Upgrades,
    /// Configurations loaded later.
    Reloads,
    /// Workers that started, for whatever reason.
    WorkerStarts,
    /// Workers that left in good order.
    WorkerExits,
    /// Workers that ended in any other way.
    Crashes,
    /// Of those, killed by a signal.
    CrashesBySignal,
    /// Of those, by an exit code.
    CrashesByCode,
    /// Of those, by what could not be known.
    CrashesUnknown,
    /// Of those, with the code after which nginx does not start the worker again.
    GivenUp,
    /// Workers started in the place of one that crashed.
    Respawns,
    /// Of those, after a signal.
    RespawnsBySignal,
    /// Of those, after an exit code.
    RespawnsByCode,
    /// Of those, after what could not be known.
    RespawnsUnknown,
    /// Workers started where one had left in good order.
    Returns,
}

impl Tally {
    /// All, with the names that users see.
    pub const ALL: [(Tally, &'static str); 15] = [
        (Tally::Starts, "starts"),
        (Tally::Upgrades, "upgrades"),
        (Tally::Reloads, "reloads"),
        (Tally::WorkerStarts, "worker_starts"),
        (Tally::WorkerExits, "worker_exits"),
        (Tally::Crashes, "crashes"),
        (Tally::CrashesBySignal, "crashes_signal"),
        (Tally::CrashesByCode, "crashes_code"),
        (Tally::CrashesUnknown, "crashes_unknown"),
        (Tally::GivenUp, "given_up"),
        (Tally::Respawns, "respawns"),
        (Tally::RespawnsBySignal, "respawns_signal"),
        (Tally::RespawnsByCode, "respawns_code"),
        (Tally::RespawnsUnknown, "respawns_unknown"),
        (Tally::Returns, "returns"),
    ];

    /// What a load counts as.
    pub fn of_load(why: Why) -> Tally {
        match why {
            Why::Reload => Tally::Reloads,
            Why::Upgrade => Tally::Upgrades,
            _ => Tally::Starts,
        }
    }

    /// What a crash counts as.
    pub fn of_crash(status: Option<Status>) -> Vec<Tally> {
        let mut tallies = vec![Tally::Crashes];
        tallies.push(match status {
            Some(status) if status.signal().is_some() => Tally::CrashesBySignal,
            Some(_) => Tally::CrashesByCode,
            None => Tally::CrashesUnknown,
        });
        if status.is_some_and(Status::is_fatal) {
            tallies.push(Tally::GivenUp);
        }
        tallies
    }

    /// What a worker's start counts as, after a process in its seat that ended so.
    pub fn of_start(why: Why, before: Option<Status>) -> Vec<Tally> {
        let mut tallies = vec![Tally::WorkerStarts];
        match why {
            Why::Return => tallies.push(Tally::Returns),
            Why::Respawn => tallies.extend([
                Tally::Respawns,
                match before {
                    Some(status) if status.signal().is_some() => Tally::RespawnsBySignal,
                    Some(_) => Tally::RespawnsByCode,
                    None => Tally::RespawnsUnknown,
                },
            ]),
            _ => {}
        }
        tallies
    }
}

/// Who leads: of the newest generation that has anybody who serves, the one with the lowest worker
/// id. None where nobody does.
pub fn leader(members: impl Iterator<Item = Member>) -> Option<Member> {
    let serves = |m: &Member| matches!(m.phase, Phase::Starting | Phase::Live);
    members.filter(serves).min_by_key(|m| (std::cmp::Reverse(m.seat.generation), m.seat.worker))
}

/// Whether the worker `mine` of so many watches `other`: all, or the next `most` by number, round
/// and round.
pub fn watches(mine: WorkerId, other: WorkerId, workers: usize, most: usize) -> bool {
    let (mine, other) = (usize::from(mine.0), usize::from(other.0));
    workers <= most || (other + workers - mine % workers) % workers <= most
}

/// A member as the counting sees it.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// Who.
    pub member: Member,
    /// How far its callbacks are.
    pub said: Said,
}

/// Which callbacks of a worker have begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The one for its start.
    pub hello: bool,
    /// The one for leaving.
    pub farewell: bool,
    /// The one for the start of the process before it in the seat, which crashed.
    pub predecessor: bool,
}

impl Said {
    /// As a word.
    pub fn pack(self) -> u64 {
        u64::from(self.hello) | u64::from(self.farewell) << 1 | u64::from(self.predecessor) << 2
    }

    /// From one.
    pub fn of(word: u64) -> Said {
        Said { hello: word & 1 != 0, farewell: word & 2 != 0, predecessor: word & 4 != 0 }
    }
}

/// The three numbers of `resty.worker.manager`: workers of the previous, of this, of the next
/// generation; None where there is no such one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Running workers of the generation before.
    pub previous: Option<usize>,
    /// Workers of this one.
    pub mine: usize,
    /// Running workers of the generation after.
    pub next: Option<usize>,
}

/// When the numbers are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// By a worker that starts: those count whose callback for the start has begun, itself included. The
    /// crashed one in whose place it starts still counts then, as do others that crashed and have no
    /// successor yet: more than there are seats is how a callback knows.
    Starting {
        /// Such a one was before it in its seat.
        respawned: bool,
    },
    /// By a worker that leaves: those count whose callback for leaving has not begun, itself
    /// included. The dead will not call back.
    Leaving,
}

/// Counts. `before`: whether any generation came before the first of this zone, and how many of
/// its workers still run.
pub fn counts(
    own: Generation,
    newest: Generation,
    before: Option<usize>,
    moment: Moment,
    members: &[Counted],
) -> Counts {
    let of = |generation: u32| {
        members.iter().filter(move |c| c.member.seat.generation == Generation(generation))
    };
    let running = |generation| of(generation).filter(|c| c.member.phase.runs()).count();
    let mine = match moment {
        Moment::Starting { respawned } => {
            let seated = |c: &&Counted| c.said.hello && c.member.phase != Phase::Left;
            of(own.0).filter(seated).count() + usize::from(respawned)
        }
        Moment::Leaving => of(own.0).filter(|c| c.member.phase.runs() && !c.said.farewell).count(),
    };
    Counts {
        previous: match own.0 {
            0 | 1 => before,
            generation => Some(running(generation - 1)),
        },
        mine,
        // those of it that are initialised
        next: (newest.0 > own.0).then(|| {
            let up = |c: &&Counted| {
                c.member.phase.runs() && (c.said.hello || c.member.phase != Phase::Starting)
            };
            of(own.0 + 1).filter(up).count()
        }),
    }
}

/// A seat of the generation in force, for the readiness of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Who sits there or sat there last; None where nobody has come yet.
    pub member: Option<Member>,
    /// How that one ended.
    pub status: Option<Status>,
    /// Crashes in this seat since somebody in it was ready.
    pub deaths: u64,
    /// It says that it is ready.
    pub ready: bool,
    /// What it said why it is not.
    pub reason: String,
}

/// Whether every seat of a generation is taken by somebody who is ready, or the first reason why
/// not.
pub fn readiness(places: &[Place]) -> Result<(), String> {
    for (id, place) in places.iter().enumerate() {
        let again = match place.deaths {
            0 | 1 => String::new(),
            deaths => format!(", {deaths} times since it was ready last"),
        };
        let reason = match place.member.map(|member| member.phase) {
            None => String::from("has not started"),
            Some(Phase::Dead) if place.status.is_some_and(Status::is_fatal) => {
                format!("ended with exit code {FATAL}: nginx does not start it again")
            }
            Some(Phase::Dead) => format!("was ended by {}{again}", ended_by(place.status)),
            Some(Phase::Left) => String::from("has left"),
            Some(Phase::Retiring) => String::from("is leaving"),
            Some(_) if place.ready => continue,
            Some(_) if !place.reason.is_empty() => format!("is not ready: {}", place.reason),
            Some(Phase::Live) => String::from("is not ready"),
            Some(_) if place.deaths > 0 => {
                format!("is starting again after {}{again}", ended_by(place.status))
            }
            Some(_) => String::from("is starting"),
        };
        return Err(format!("worker {id} {reason}"));
    }
    if places.is_empty() { Err(String::from("no worker was started")) } else { Ok(()) }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
