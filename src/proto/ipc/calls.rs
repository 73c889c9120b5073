//! The calls of one worker that wait for answers: which workers each was sent to, what they have
//! answered, when its time is over. A call to one and a cast to all are the same: a number, a set of
//! seats, one deadline. What is to be done with the outcome, `D`, is the caller's.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use foldhash::HashMap;

use super::Seat;
use super::ask::{CallFailed, Reply};

/// Calls of a worker that may wait at a time.
pub const CALLS_MAX: usize = 10_000;
/// Outcomes that are kept for the next calls, and the most bytes of one that is.
const SPARE: (usize, usize) = (64, 64 << 10);

#[derive(Debug)]
enum Stand {
    Waiting,
    Replied(u16, Range<usize>),
    Failed(CallFailed),
}

/// What became of a call, worker by worker.
#[derive(Debug, Default)]
pub struct Outcome {
    targets: Vec<(Seat, Stand)>,
    /// The bodies, one after another.
    bytes: Vec<u8>,
}

impl Outcome {
    /// Everyone who was asked, in that order; who still waits has no reply in time.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Seat, Result<Reply<'_>, CallFailed>)> {
        self.targets.iter().map(|(seat, stand)| {
            let result = match stand {
                Stand::Waiting => Err(CallFailed::Timeout),
                Stand::Failed(why) => Err(*why),
                Stand::Replied(status, body) => {
                    let body = self.bytes.get(body.clone()).unwrap_or_default();
                    Ok(Reply { status: *status, body })
                }
            };
            (*seat, result)
        })
    }

    fn note(&mut self, seat: Seat, answer: Result<Reply<'_>, CallFailed>) -> bool {
        let target = self.targets.iter_mut().find(|(target, _)| *target == seat);
        let Some((_, stand @ Stand::Waiting)) = target else { return false };
        *stand = match answer {
            Err(why) => Stand::Failed(why),
            Ok(Reply { status, body }) => {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(body);
                Stand::Replied(status, start..self.bytes.len())
            }
        };
        true
    }
}

#[derive(Debug)]
struct Call<D> {
    done: D,
    deadline: u64,
    left: usize,
    outcome: Outcome,
}

/// What an answer led to.
#[derive(Debug)]
pub enum Noted<D> {
    /// More are to come.
    More,
    /// It was the last one.
    Done(D, Outcome),
    /// Nobody waits for it.
    Late,
}

/// The calls that wait.
#[derive(Debug)]
pub struct Calls<D> {
    last: u32,
    calls: HashMap<u32, Call<D>>,
    deadlines: BTreeSet<(u64, u32)>,
    spare: Vec<Outcome>,
}

impl<D> Default for Calls<D> {
    fn default() -> Self {
        Calls { last: 0, calls: HashMap::default(), deadlines: BTreeSet::new(), spare: Vec::new() }
    }
}

impl<D> Calls<D> {
    /// A new call to `seats`, each once; its number. It is done at once where there are no seats, or
    /// too many calls.
    pub fn begin(
        &mut self,
        seats: impl Iterator<Item = Seat>,
        deadline: u64,
        done: D,
    ) -> (u32, Noted<D>) {
        // a number comes back after four thousand million calls, when nobody waits for it any more
        self.last = self.last.wrapping_add(1);
        let mut outcome = self.spare.pop().unwrap_or_default();
        let busy = self.calls.len() >= CALLS_MAX;
        outcome.targets.extend(seats.map(|seat| {
            (seat, if busy { Stand::Failed(CallFailed::Busy) } else { Stand::Waiting })
        }));
        let left = outcome.targets.len();
        if busy || left == 0 {
            return (self.last, Noted::Done(done, outcome));
        }
        self.deadlines.insert((deadline, self.last));
        self.calls.insert(self.last, Call { done, deadline, left, outcome });
        (self.last, Noted::More)
    }

    /// An answer to call `number` from `seat`, or why there will be none.
    pub fn note(
        &mut self,
        number: u32,
        seat: Seat,
        answer: Result<Reply<'_>, CallFailed>,
    ) -> Noted<D> {
        let Some(call) = self.calls.get_mut(&number) else { return Noted::Late };
        if !call.outcome.note(seat, answer) {
            return Noted::Late;
        }
        call.left -= 1;
        if call.left > 0 {
            return Noted::More;
        }
        self.end(number).map_or(Noted::Late, |(done, outcome)| Noted::Done(done, outcome))
    }

    /// Ends a call now, whatever has been answered.
    pub fn end(&mut self, number: u32) -> Option<(D, Outcome)> {
        let Call { done, deadline, outcome, .. } = self.calls.remove(&number)?;
        self.deadlines.remove(&(deadline, number));
        Some((done, outcome))
    }

    /// Ends a call whose time is over at `now`.
    pub fn expire(&mut self, now: u64) -> Option<(u32, D, Outcome)> {
        let (deadline, number) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.end(number).map(|(done, outcome)| (number, done, outcome))
    }

    /// When the next call's time is over.
    pub fn next(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The calls that wait for `seat`, or for anybody, by seat.
    pub fn waiting(&self, seat: Option<Seat>) -> BTreeMap<Seat, Vec<u32>> {
        let mut waiting = BTreeMap::<_, Vec<u32>>::new();
        for (number, call) in &self.calls {
            for (target, stand) in &call.outcome.targets {
                if matches!(stand, Stand::Waiting) && seat.is_none_or(|seat| seat == *target) {
                    waiting.entry(*target).or_default().push(*number);
                }
            }
        }
        waiting
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// An outcome that has been looked at.
    pub fn recycle(&mut self, mut outcome: Outcome) {
        if self.spare.len() < SPARE.0 && outcome.bytes.capacity() <= SPARE.1 {
            outcome.targets.clear();
            outcome.bytes.clear();
            self.spare.push(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Generation, WorkerId};
    use super::*;

    fn seat(worker: u16) -> Seat {
        Seat { generation: Generation(1), worker: WorkerId(worker) }
    }

    fn reply(body: &[u8]) -> Result<Reply<'_>, CallFailed> {
        Ok(Reply { status: 200, body })
    }

    #[test]
    fn a_cast_is_done_with_the_last_answer() {
        let mut calls = Calls::default();
        let number = calls.begin((0..3).map(seat), 100, "done").0;
        assert!(matches!(calls.note(number, seat(2), reply(b"two")), Noted::More));
        assert!(matches!(calls.note(number, seat(2), reply(b"again")), Noted::Late));
        assert!(matches!(calls.note(number, seat(9), reply(b"who")), Noted::Late));
        assert!(matches!(calls.note(number, seat(0), Err(CallFailed::Gone)), Noted::More));
        let Noted::Done("done", outcome) = calls.note(number, seat(1), reply(b"")) else {
            panic!("not done");
        };
        let all: Vec<_> = outcome.iter().collect();
        let expected =
            [(seat(0), Err(CallFailed::Gone)), (seat(1), reply(b"")), (seat(2), reply(b"two"))];
        assert_eq!(all, expected);
        assert!(calls.is_empty() && calls.next().is_none());
        assert!(matches!(calls.note(number, seat(1), reply(b"late")), Noted::Late));
    }

    #[test]
    fn time_ends_what_is_not_answered() {
        let mut calls = Calls::default();
        let late = calls.begin([seat(0), seat(1)].into_iter(), 300, "late").0;
        calls.begin([seat(0)].into_iter(), 100, "early");
        let _ = calls.note(late, seat(1), reply(b"x"));
        assert_eq!(calls.next(), Some(100));
        assert!(calls.expire(99).is_none());
        assert_eq!(calls.expire(100).unwrap().1, "early");
        assert!(calls.expire(299).is_none());
        let (_, done, outcome) = calls.expire(300).unwrap();
        let all: Vec<_> = outcome.iter().map(|(_, result)| result).collect();
        assert_eq!((done, all), ("late", vec![Err(CallFailed::Timeout), reply(b"x")]));
    }

    #[test]
    fn it_is_known_who_waits_for_whom() {
        let mut calls = Calls::default();
        let both = calls.begin([seat(0), seat(1)].into_iter(), 9, ()).0;
        let one = calls.begin([seat(1)].into_iter(), 9, ()).0;
        let _ = calls.note(both, seat(0), reply(b""));
        let mut waiting = calls.waiting(Some(seat(1)));
        waiting.values_mut().for_each(|numbers| numbers.sort_unstable());
        assert_eq!(waiting.into_iter().collect::<Vec<_>>(), [(seat(1), vec![both, one])]);
        assert!(calls.waiting(Some(seat(0))).is_empty());
        let _ = calls.note(one, seat(1), Err(CallFailed::Died));
        assert_eq!(calls.waiting(None).into_values().collect::<Vec<_>>(), [vec![both]]);
    }

    #[test]
    fn an_outcome_is_used_again_empty() {
        let mut calls = Calls::default();
        let first = calls.begin([seat(0)].into_iter(), 1, ()).0;
        let Noted::Done((), outcome) = calls.note(first, seat(0), reply(b"old")) else {
            panic!("not done");
        };
        calls.recycle(outcome);
        let next = calls.begin([seat(1)].into_iter(), 1, ()).0;
        let (_, outcome) = calls.end(next).unwrap();
        let all: Vec<_> = outcome.iter().collect();
        assert_eq!(all, [(seat(1), Err(CallFailed::Timeout))]);
    }

    #[test]
    fn so_many_may_wait() {
        let mut calls = Calls::default();
        for _ in 0..CALLS_MAX {
            assert!(matches!(calls.begin([seat(0)].into_iter(), 1, ()).1, Noted::More));
        }
        let (_, Noted::Done((), outcome)) = calls.begin([seat(0)].into_iter(), 1, ()) else {
            panic!("it waits");
        };
        assert_eq!(outcome.iter().next(), Some((seat(0), Err(CallFailed::Busy))));
        let (_, none) = Calls::default().begin(std::iter::empty(), 1, ());
        assert!(matches!(none, Noted::Done((), _)));
    }
}
