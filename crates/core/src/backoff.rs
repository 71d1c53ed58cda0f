//! Waiting longer after each failure, never in step with others.

use std::time::Duration;

use crate::port::Clock;

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(5);

/// Exponential backoff with decorrelated jitter: each wait is random between the first and three times the
/// last one, bounded. (M. Brooker, "Exponential Backoff And Jitter", 2015.)
#[derive(Default)]
pub(crate) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// How long to wait now.
    pub(crate) fn next(&mut self, clock: &dyn Clock) -> Duration {
        let high = self
            .last
            .map_or(FIRST * 3, |last| (last * 3).max(FIRST * 3));
        let span = u64::try_from((high - FIRST).as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        let wait = (FIRST + Duration::from_micros(clock.random() % span)).min(LONGEST);
        self.last = Some(wait);
        wait
    }

    /// The next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.last = None;
    }
}
