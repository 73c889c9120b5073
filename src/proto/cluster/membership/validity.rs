//! When reports of failed calls say that a client is not worth calling: so many in a row, or so many
//! in a few seconds.

/// Failures in a row that are too many.
const ROW: u32 = 5;
/// Failures that are too many within `WITHIN`.
const TIMES: u32 = 10;
/// Milliseconds of silence after which the count begins again, and in which `TIMES` are too many.
const WITHIN: u64 = 5000;
/// Milliseconds between two failures of a row, where successes are not reported.
const APART: u64 = 3000;

/// The count of one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    row: u32,
    times: u32,
    /// When the count of `times` began, and the last failure.
    since: u64,
    last: u64,
}

impl Validity {
    /// A call failed; whether it was one too many.
    pub fn failed(&mut self, now: u64) -> bool {
        let silence = now.saturating_sub(self.last);
        if self.times == 0 || silence > WITHIN {
            *self = Validity { row: 1, times: 1, since: now, last: now };
            return false;
        }
        if now.saturating_sub(self.since) > WITHIN {
            (self.times, self.since) = (0, now);
        }
        self.times += 1;
        self.row = if silence < APART { self.row + 1 } else { 1 };
        self.last = now;
        self.row >= ROW || self.times >= TIMES
    }

    /// A call was answered: the row has ended.
    pub fn answered(&mut self) {
        self.row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(apart: u64, count: u64, answered_between: bool) -> Vec<bool> {
        let mut validity = Validity::default();
        let step = |n| {
            if answered_between {
                validity.answered();
            }
            validity.failed(1000 + n * apart)
        };
        (0..count).map(step).collect()
    }

    #[test]
    fn five_in_a_row_or_ten_in_five_seconds_are_too_many() {
        assert_eq!(failures(1, 5, false), [false, false, false, false, true]);
        assert_eq!(failures(2900, 5, false), [false, false, false, false, true]);
        // a failure every half second, but never two in a row
        assert_eq!(failures(500, 10, true), [[false; 9].as_slice(), &[true]].concat());
    }

    #[test]
    fn slow_failures_are_no_row() {
        assert!(!failures(3000, 100, false).contains(&true));
        assert!(!failures(5001, 100, false).contains(&true));
        assert!(!failures(700, 100, true).contains(&true));
    }

    #[test]
    fn silence_ends_both_counts() {
        let mut validity = Validity::default();
        assert!(!(0..4).any(|n| validity.failed(n)));
        assert!(!validity.failed(6000));
        assert!(!(6001..6004).any(|now| validity.failed(now)));
        assert!(validity.failed(6004));
    }
}
