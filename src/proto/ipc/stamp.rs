//! When a message was sent, for a sample of them: 32 bits that travel where calls have their number,
//! so that messages grow by nothing. The sender decides which; the receiver learns how long it took.

/// Microseconds of a clock that all processes of the machine share, never 0: that is no stamp.
pub fn of(nanoseconds: u64) -> u32 {
    ((nanoseconds / 1000) as u32).max(1)
}

/// Microseconds since a stamp, as long as these are less than half an hour. None for no stamp, and for
/// one of the future.
pub fn since(stamp: u32, nanoseconds: u64) -> Option<u64> {
    let passed = of(nanoseconds).wrapping_sub(stamp);
    (stamp != 0 && passed <= i32::MAX as u32).then_some(u64::from(passed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_passed_is_told(sent in 0u64..1 << 60, micros in 0u64..1 << 30) {
            let told = since(of(sent), sent + micros * 1000).unwrap();
            prop_assert!(told.abs_diff(micros) <= 1, "{told} {micros}");
        }
    }

    #[test]
    fn no_stamp_and_the_future_tell_nothing() {
        assert_eq!(since(0, 5_000_000), None);
        assert_eq!(since(of(9_000_000), 5_000_000), None);
        assert_ne!(of(0), 0);
        assert_ne!(of(1000 << 32), 0);
    }
}
