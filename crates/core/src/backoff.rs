//! Waiting longer after each failure, never in step with others.

use std::time::Duration;

use crate::port::Clock;

/// The least wait: bounds the rate of retries whatever chance says.
const SHORTEST: Duration = Duration::from_millis(10);
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(3);

/// Exponential backoff with full jitter: each wait is random between the shortest and a bound that doubles
/// with every failure, up to the longest. (M. Brooker, "Exponential Backoff And Jitter", 2015.)
#[derive(Default, Debug)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait now.
    pub(crate) fn next(&mut self, clock: &dyn Clock) -> Duration {
        let bound = FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let span = bound.min(LONGEST).saturating_sub(SHORTEST).as_micros();
        let span = u64::try_from(span).unwrap_or(u64::MAX).saturating_add(1);
        SHORTEST + Duration::from_micros(clock.random() % span)
    }

    /// The next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{BoxFuture, Timestamp};

    /// Chance at its worst.
    struct Dice(u64);

    impl Clock for Dice {
        fn now(&self) -> Timestamp {
            Timestamp::default()
        }
        fn elapsed(&self) -> Duration {
            Duration::ZERO
        }
        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::ready(()))
        }
        fn random(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn waits_grow_to_a_bound_and_are_never_none() {
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            assert_eq!(backoff.next(&Dice(0)), SHORTEST);
        }
        let mut backoff = Backoff::default();
        let longest: Vec<Duration> = (0..100)
            .map(|failures: u32| {
                let span = FIRST.saturating_mul(1 << failures.min(16)).min(LONGEST) - SHORTEST;
                backoff.next(&Dice(u64::try_from(span.as_micros()).unwrap()))
            })
            .collect();
        assert_eq!(longest[0], FIRST);
        assert!(longest.is_sorted());
        assert_eq!(longest[99], LONGEST);
        backoff.reset();
        assert!(backoff.next(&Dice(u64::MAX)) <= FIRST);
    }
}
