//! `max_fails` and `fail_timeout` as nginx's: so many failures within the time, and a peer is passed
//! over for that time; then one request tries it, and a success forgets the failures.

/// What a `server` line would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Failures that make a peer failed; 0 never does.
    pub max_fails: u16,
    /// Seconds, both for counting and for passing over.
    pub fail_timeout: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { max_fails: 1, fail_timeout: 10 }
    }
}

/// The longest `fail_timeout`: a quarter of the time after which seconds begin anew.
pub const FAIL_TIMEOUT_MAX: u32 = (SECONDS / 4) as u32;

const FAILS_BITS: u32 = 16;
const TIME_BITS: u32 = 24;
const SECONDS: u64 = 1 << TIME_BITS;

/// What is known of a peer; fits into a word. Times are seconds of a clock that all share, and begin
/// anew after half a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Record {
    fails: u16,
    /// When it failed last.
    accessed: u32,
    /// When it failed last or was tried again.
    checked: u32,
}

impl Record {
    /// From a word; 0 is a peer that has not failed.
    pub fn unpack(word: u64) -> Record {
        let time = |shift: u32| ((word >> shift) & (SECONDS - 1)) as u32;
        Record {
            fails: word as u16,
            accessed: time(FAILS_BITS),
            checked: time(FAILS_BITS + TIME_BITS),
        }
    }

    /// As a word.
    pub fn pack(self) -> u64 {
        let time = |time: u32| u64::from(time) & (SECONDS - 1);
        u64::from(self.fails)
            | time(self.accessed) << FAILS_BITS
            | time(self.checked) << (FAILS_BITS + TIME_BITS)
    }

    /// How many failures count.
    pub fn fails(self) -> u16 {
        self.fails
    }

    /// Whether the peer is passed over.
    pub fn is_failed(self, policy: Policy, now: u64) -> bool {
        policy.max_fails > 0
            && self.fails >= policy.max_fails
            && since(self.checked, now) <= policy.fail_timeout
    }

    /// The peer is taken.
    pub fn taken(mut self, policy: Policy, now: u64) -> Record {
        if self.fails > 0 && since(self.checked, now) > policy.fail_timeout {
            self.checked = second(now);
        }
        self
    }

    /// The peer failed. True when that made it a failed one.
    pub fn failed(mut self, policy: Policy, now: u64) -> (Record, bool) {
        self.fails = self.fails.saturating_add(1);
        self.accessed = second(now);
        self.checked = self.accessed;
        (self, policy.max_fails > 0 && self.fails >= policy.max_fails)
    }

    /// The peer did well; what it failed before it was last tried again is forgotten.
    pub fn succeeded(self) -> Record {
        if self.accessed == self.checked { self } else { Record::default() }
    }

    /// How long it has not failed, in seconds.
    pub fn age(self, now: u64) -> u32 {
        since(self.accessed, now)
    }
}

fn second(now: u64) -> u32 {
    (now & (SECONDS - 1)) as u32
}

fn since(time: u32, now: u64) -> u32 {
    (now.wrapping_sub(u64::from(time)) & (SECONDS - 1)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: Policy = Policy { max_fails: 2, fail_timeout: 10 };

    fn fails(record: Record, now: u64) -> Record {
        record.taken(POLICY, now).failed(POLICY, now).0
    }

    fn does_well(record: Record, now: u64) -> Record {
        record.taken(POLICY, now).succeeded()
    }

    #[test]
    fn so_many_failures_pass_a_peer_over_for_the_time() {
        let once = fails(Record::default(), 100);
        assert!(!once.is_failed(POLICY, 100));
        let twice = fails(once, 105);
        assert!(twice.is_failed(POLICY, 105) && twice.is_failed(POLICY, 115));
        assert!(!twice.is_failed(POLICY, 116));
        assert!(once.failed(POLICY, 105).1 && !Record::default().failed(POLICY, 105).1);
    }

    #[test]
    fn one_request_tries_it_again() {
        let failed = fails(fails(Record::default(), 100), 100);
        let tried = failed.taken(POLICY, 111);
        assert!(tried.is_failed(POLICY, 111), "the others still pass it over");
        assert_eq!(tried.succeeded(), Record::default());
        assert!(tried.failed(POLICY, 112).0.is_failed(POLICY, 120));
    }

    #[test]
    fn a_success_in_between_does_not_forget_at_once() {
        let failed = fails(does_well(fails(Record::default(), 100), 101), 102);
        assert!(failed.is_failed(POLICY, 102));
        let late = fails(does_well(fails(Record::default(), 100), 111), 112);
        assert!(!late.is_failed(POLICY, 112));
    }

    #[test]
    fn zero_never_fails() {
        let never = Policy { max_fails: 0, ..POLICY };
        let (record, news) = Record::default().failed(never, 100);
        assert!(!record.is_failed(never, 100) && !news);
    }

    proptest! {
        #[test]
        fn a_word_keeps_all_of_it(word in any::<u64>(), now in any::<u64>()) {
            prop_assert_eq!(Record::unpack(word).pack(), word);
            let record = Record::unpack(word).taken(POLICY, now);
            prop_assert_eq!(Record::unpack(record.pack()), record);
            let (record, _) = record.failed(POLICY, now);
            prop_assert_eq!(Record::unpack(record.pack()), record);
        }
    }
}
