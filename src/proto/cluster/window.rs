//! What a node knows of a peer's calls: which epoch it is in and which of its counters were there,
//! so that no call runs twice. Plain numbers that `shm::peers` keeps. No clock is compared: who
//! is new, or back from a restart, repeats the call with a number that this node gave it.
//!
//! An epoch is opened by a call that has the number (nonce) signed in, and by nothing else; so it
//! does not matter which way epochs go when a peer's clock was set back. Inside it each counter is
//! good once. Where it cannot be known whether a counter was there, the answer is another nonce.

/// Counters that are remembered, back from the highest.
pub const WINDOW: usize = 1024;
/// Words that hold them.
pub const WORDS: usize = WINDOW / 64;
/// How long a nonce is good, milliseconds.
pub const NONCE_TIME: u64 = 10_000;
/// How long the same one is given to all who ask, milliseconds: a burst of calls that are all new
/// here comes back with one nonce, which opens the epoch for all of them.
const NONCE_FRESH: u64 = NONCE_TIME / 2;

/// A random number that is good once.
pub type Nonce = [u8; 16];

/// The sender's side of a call: when it was signed, as far as order goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The life of the sender; never 0.
    pub epoch: u64,
    /// The number of the call in it, from 1.
    pub counter: u64,
    /// What the receiver asked for.
    pub nonce: Option<Nonce>,
}

/// Whether a call may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is new.
    Admitted,
    /// It was there.
    Replayed,
    /// It may be new: the sender is to sign this in.
    Challenged(Nonce),
}

/// The counters that were there, up to [`WINDOW`] back. Bit `counter % WINDOW` is the counter's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The highest one.
    pub highest: u64,
    /// Those that were there.
    pub bits: [u64; WORDS],
}

/// What a window says of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    New,
    Seen,
    /// Too far back to be known.
    Old,
}

impl Window {
    /// Notes a counter.
    fn note(&mut self, counter: u64) -> Place {
        if counter > self.highest {
            let skipped = (self.highest + 1..=counter).rev().take(WINDOW);
            skipped.for_each(|skipped| self.set(skipped, false));
            self.highest = counter;
        } else if self.highest - counter >= WINDOW as u64 {
            return Place::Old;
        } else if self.has(counter) {
            return Place::Seen;
        }
        self.set(counter, true);
        Place::New
    }

    fn place(counter: u64) -> (usize, u64) {
        let bit = counter as usize % WINDOW;
        (bit / 64, 1 << (bit % 64))
    }

    fn has(&self, counter: u64) -> bool {
        let (word, bit) = Window::place(counter);
        self.bits.get(word).is_some_and(|word| word & bit != 0)
    }

    fn set(&mut self, counter: u64, on: bool) {
        let (word, bit) = Window::place(counter);
        if let Some(word) = self.bits.get_mut(word) {
            *word = if on { *word | bit } else { *word & !bit };
        }
    }
}

const NONE: Nonce = [0; 16];

/// What is known of a peer. All zero: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The open epoch; 0: none.
    pub epoch: u64,
    /// The counter that opened it. Those before may have run in this epoch before it was opened
    /// here again, which is not remembered.
    pub floor: u64,
    /// The nonce that opened it. What has it signed in is from after it was given out.
    pub opened_by: Nonce,
    /// The nonce that was given out; all zero: none.
    pub pending: Nonce,
    /// When, in milliseconds that go one way.
    pub since: u64,
    /// The counters that were there.
    pub window: Window,
}

impl Known {
    /// Decides about a call whose signature is right. `fresh` is a random number to give out, `now`
    /// milliseconds of a clock that goes one way.
    pub fn admit(&mut self, stamp: Stamp, now: u64, fresh: Nonce) -> Verdict {
        let age = now.checked_sub(self.since).filter(|_| self.pending != NONE);
        let asked = |nonce| nonce == self.pending && age.is_some_and(|age| age < NONCE_TIME);
        let proven = stamp.nonce.is_some_and(asked);
        let place = if stamp.epoch == 0 || stamp.counter == 0 {
            Place::Seen // nobody signs that, and an empty row must not take it for its own
        } else if stamp.epoch == self.epoch {
            self.place(stamp)
        } else if proven {
            self.open(stamp)
        } else {
            Place::Old
        };
        if proven {
            self.pending = NONE;
        }
        match place {
            Place::New => Verdict::Admitted,
            Place::Seen => Verdict::Replayed,
            // the nonce alone says that it is new; the window cannot remember it and need not
            Place::Old if proven => Verdict::Admitted,
            Place::Old => self.challenge(age, now, fresh),
        }
    }

    /// The call is the first of an epoch.
    fn open(&mut self, stamp: Stamp) -> Place {
        self.epoch = stamp.epoch;
        self.floor = stamp.counter;
        self.opened_by = self.pending;
        self.window = Window { highest: stamp.counter, ..Window::default() };
        self.window.note(stamp.counter)
    }

    /// The call is of the open epoch.
    fn place(&mut self, stamp: Stamp) -> Place {
        let known = stamp.counter > self.floor || stamp.nonce == Some(self.opened_by);
        if known { self.window.note(stamp.counter) } else { Place::Old }
    }

    fn challenge(&mut self, age: Option<u64>, now: u64, fresh: Nonce) -> Verdict {
        if age.is_none_or(|age| age >= NONCE_FRESH) {
            (self.pending, self.since) = (fresh, now);
        }
        Verdict::Challenged(self.pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn stamp(epoch: u64, counter: u64, nonce: Option<u8>) -> Stamp {
        Stamp { epoch, counter, nonce: nonce.map(|nonce| [nonce; 16]) }
    }

    /// A peer whose epoch was opened by this counter.
    fn opened(epoch: u64, counter: u64) -> Known {
        let mut known = Known::default();
        assert_eq!(
            known.admit(stamp(epoch, counter, None), 0, [1; 16]),
            Verdict::Challenged([1; 16])
        );
        assert_eq!(known.admit(stamp(epoch, counter, Some(1)), 1, [2; 16]), Verdict::Admitted);
        known
    }

    #[test]
    fn an_epoch_is_opened_by_a_nonce_and_each_counter_is_good_once() {
        let mut known = opened(7, 100);
        let mut admit = |counter| known.admit(stamp(7, counter, None), 2, [3; 16]);
        assert_eq!(admit(100), Verdict::Challenged([3; 16]), "not above the floor");
        assert_eq!(admit(102), Verdict::Admitted);
        assert_eq!(admit(101), Verdict::Admitted);
        assert_eq!(admit(101), Verdict::Replayed);
        assert_eq!(admit(102), Verdict::Replayed);
        assert_eq!(admit(102 + 1024), Verdict::Admitted);
        assert_eq!(admit(103), Verdict::Admitted, "the last in the window");
        assert_eq!(admit(102), Verdict::Challenged([3; 16]), "too far back to be known");
        assert_eq!(admit(u64::MAX), Verdict::Admitted);
        assert_eq!(admit(u64::MAX - 1023), Verdict::Admitted);
        assert_eq!(admit(u64::MAX - 1024), Verdict::Challenged([3; 16]));
        assert_eq!(admit(0), Verdict::Replayed);
    }

    #[test]
    fn what_opened_an_epoch_does_not_run_again() {
        let mut known = opened(7, 100);
        assert_eq!(known.admit(stamp(7, 100, Some(1)), 1, [9; 16]), Verdict::Replayed);
        // nor after this node has forgotten all
        known = Known::default();
        assert_eq!(known.admit(stamp(7, 100, Some(1)), 1, [9; 16]), Verdict::Challenged([9; 16]));
    }

    #[test]
    fn a_burst_of_new_calls_opens_with_one_nonce() {
        let mut known = Known::default();
        for counter in 1..=5 {
            let verdict = known.admit(stamp(7, counter, None), counter, [counter as u8; 16]);
            assert_eq!(verdict, Verdict::Challenged([1; 16]));
        }
        for counter in [8, 6, 10, 7, 9] {
            assert_eq!(known.admit(stamp(7, counter, Some(1)), 9, [9; 16]), Verdict::Admitted);
            assert_eq!(known.admit(stamp(7, counter, Some(1)), 9, [9; 16]), Verdict::Replayed);
        }
    }

    #[test]
    fn a_nonce_is_good_for_ten_seconds() {
        for (now, good) in [(9_999, true), (10_000, false), (u64::MAX, false)] {
            let mut known = Known::default();
            known.admit(stamp(7, 1, None), 0, [1; 16]);
            let verdict = known.admit(stamp(7, 2, Some(1)), now, [2; 16]);
            assert_eq!(verdict == Verdict::Admitted, good, "{now}");
        }
        let mut known = Known::default();
        known.admit(stamp(7, 1, None), 100, [1; 16]);
        let backwards = known.admit(stamp(7, 1, Some(1)), 99, [2; 16]);
        assert_eq!(backwards, Verdict::Challenged([2; 16]));
        let given = |now| {
            let mut known = Known::default();
            known.admit(stamp(7, 1, None), 0, [1; 16]);
            known.admit(stamp(7, 2, None), now, [2; 16])
        };
        assert_eq!(given(4_999), Verdict::Challenged([1; 16]));
        assert_eq!(given(5_000), Verdict::Challenged([2; 16]));
    }

    #[test]
    fn another_epoch_needs_a_nonce_whichever_is_higher() {
        for other in [6, 8] {
            let mut known = opened(7, 100);
            assert_eq!(
                known.admit(stamp(other, 1, None), 2, [5; 16]),
                Verdict::Challenged([5; 16])
            );
            assert_eq!(
                known.admit(stamp(7, 101, None), 2, [6; 16]),
                Verdict::Admitted,
                "still open"
            );
            assert_eq!(known.admit(stamp(other, 2, Some(5)), 3, [6; 16]), Verdict::Admitted);
            assert_eq!(known.admit(stamp(7, 102, None), 3, [6; 16]), Verdict::Challenged([6; 16]));
        }
    }

    #[test]
    fn an_empty_nonce_proves_nothing() {
        let mut known = Known::default();
        let nothing = Stamp { nonce: Some([0; 16]), ..stamp(7, 1, None) };
        assert_eq!(known.admit(nothing, 0, [1; 16]), Verdict::Challenged([1; 16]));
        let mut known = Known::default();
        assert_eq!(known.admit(stamp(0, 5, None), 0, [1; 16]), Verdict::Replayed);
    }

    /// What a network that replays, delays and loses does to a sender with several lives.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A new call, with the last nonce that was seen where the flag says so.
        Send { life: u8, with_nonce: bool, skip: u8 },
        /// Any call that was ever sent, again.
        Replay(usize),
        /// The receiver forgets the peer.
        Forget,
        /// Time goes by.
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0u8..3, any::<bool>(), prop_oneof![9 => 0u8..3, 1 => 0u8..=255])
                .prop_map(|(life, with_nonce, skip)| Step::Send { life, with_nonce, skip }),
            6 => any::<usize>().prop_map(Step::Replay),
            1 => Just(Step::Forget),
            1 => (0u64..12_000).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        #[test]
        fn no_call_runs_twice_and_an_answered_challenge_runs(steps in steps()) {
            let (mut known, mut now, mut random) = (Known::default(), 1, 0u8);
            let (mut sent, mut ran) = (Vec::<Stamp>::new(), BTreeSet::new());
            let (mut counters, mut nonce) = ([0u64; 3], None);
            for step in steps {
                let stamp = match step {
                    Step::Send { life, with_nonce, skip } => {
                        let counter = &mut counters[usize::from(life)];
                        *counter += 1 + 8 * u64::from(skip);
                        let nonce = if with_nonce { nonce } else { None };
                        Stamp { epoch: u64::from(life) + 1, counter: *counter, nonce }
                    }
                    Step::Replay(which) if !sent.is_empty() => sent[which % sent.len()],
                    Step::Replay(_) => continue,
                    Step::Forget => { known = Known::default(); continue }
                    Step::Wait(time) => { now += time; continue }
                };
                random = random.wrapping_add(1).max(1);
                let verdict = known.admit(stamp, now, [random; 16]);
                sent.push(stamp);
                match verdict {
                    Verdict::Admitted => prop_assert!(ran.insert((stamp.epoch, stamp.counter)), "{stamp:?} ran twice"),
                    Verdict::Replayed => {}
                    Verdict::Challenged(given) => {
                        nonce = Some(given);
                        if matches!(step, Step::Send { .. }) {
                            let counter = &mut counters[stamp.epoch as usize - 1];
                            *counter += 1;
                            let again = Stamp { counter: *counter, nonce, ..stamp };
                            let mut later = known;
                            prop_assert_eq!(later.admit(again, now, [0xee; 16]), Verdict::Admitted);
                        }
                    }
                }
            }
        }
    }
}
