//! The one back-off: exponential, capped, with jitter. The caller sleeps; randomness is passed in.

use std::time::Duration;

/// Delays for tries that keep failing. The n-th is drawn evenly from the upper half of
/// `first * 2^n`, never above `longest`: callers that failed together do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// The first delay is at most `first`, any at most `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// The delay after one more failure.
    pub fn next(&mut self, random: &mut dyn FnMut() -> u64) -> Duration {
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let ceiling = self.first.saturating_mul(factor).min(self.longest);
        let half = ceiling / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(random().checked_rem(nanos).unwrap_or(0))
    }

    /// A try succeeded: the next delay is the first one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_cap_and_starts_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut next = || backoff.next(&mut || 0).as_millis();
        let delays: Vec<_> = (0..6).map(|_| next()).collect();
        assert_eq!(delays, [50, 100, 200, 400, 500, 500]);
        backoff.reset();
        assert_eq!(backoff.next(&mut || 0).as_millis(), 50);
    }

    proptest::proptest! {
        #[test]
        fn stays_between_half_the_ceiling_and_the_ceiling(first in 0u64..u64::MAX / 4, longest in 0u64..u64::MAX / 4, bits: u64) {
            let longest = Duration::from_nanos(longest);
            let mut backoff = Backoff::new(Duration::from_nanos(first), longest);
            let mut last = Duration::ZERO;
            for _ in 0..70 {
                let delay = backoff.next(&mut || bits);
                proptest::prop_assert!(delay <= longest && delay >= last / 4);
                last = delay;
            }
            proptest::prop_assert!(first == 0 || last >= longest / 2);
        }
    }
}
