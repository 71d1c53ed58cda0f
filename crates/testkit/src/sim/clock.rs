//! The clock of a simulation: tokio's paused time, and chance from the seed.

use std::time::Duration;

use tidegate_core::port::{BoxFuture, Clock, Timestamp};
use tokio::time::Instant;

use super::Random;

/// When the first life of every simulation begins.
const EPOCH_MILLIS: u64 = 1_700_000_000_000;

/// Time that moves only when every task waits for it. To be made inside a runtime whose time is paused.
pub struct SimClock {
    start: Instant,
    /// How long the lives before this one took, in milliseconds.
    before_millis: u64,
    random: Random,
}

impl SimClock {
    /// A clock whose wall time is `before_millis` past the simulation's epoch.
    #[must_use]
    pub fn new(before_millis: u64, random: Random) -> Self {
        Self {
            start: Instant::now(),
            before_millis,
            random,
        }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let elapsed = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(EPOCH_MILLIS + self.before_millis + elapsed)
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "time is paused here")]
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn random(&self) -> u64 {
        self.random.number()
    }
}
