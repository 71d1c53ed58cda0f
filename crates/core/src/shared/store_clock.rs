//! What the store's clock shows, without asking for it each time.
//!
//! The estimate is never ahead of the store's clock. The proof that old writes are over
//! ([`generation`](super::generation)) rests on that: a write that was marked before some moment has a limit of time
//! at most the mark's timeout after what the store's clock showed at that moment. How far behind it is costs nothing
//! but patience.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::port::StoreTime;

/// Two clocks run apart by less than one part in so many: far more than quartz does, and what a clock that is being
/// slewed does.
const DRIFT_PARTS: u32 = 1000;

/// The last reading of the store's clock.
#[derive(Default)]
pub(crate) struct StoreClock(Mutex<Option<Reading>>);

#[derive(Clone, Copy)]
struct Reading {
    showed: StoreTime,
    /// When it was known here, in elapsed time: the store's clock showed it before that.
    known_at: Duration,
}

impl StoreClock {
    /// Takes what the store's clock showed at some moment before `known_at`. The newest reading counts, also one that
    /// is behind the others: a store's clock may have been set.
    pub(crate) fn learn(&self, showed: StoreTime, known_at: Duration) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.known_at <= known_at) {
            *last = Some(Reading { showed, known_at });
        }
    }

    /// What the store's clock shows now or has shown already; nothing before the first reading.
    pub(crate) fn estimate(&self, elapsed: Duration) -> Option<StoreTime> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last?;
        let passed = elapsed.saturating_sub(last.known_at);
        Some(last.showed.after(passed - passed / DRIFT_PARTS))
    }
}

/// After what was read off the store's clock, no write marked before has a later limit than this.
pub(crate) fn deadline(showed: StoreTime, mark_timeout: Duration) -> StoreTime {
    showed.after(mark_timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_never_ahead() {
        let clock = StoreClock::default();
        assert_eq!(clock.estimate(Duration::from_secs(9)), None);
        let second = Duration::from_secs(1);
        clock.learn(StoreTime::from_micros(5_000_000), second * 2);
        assert_eq!(
            clock.estimate(second * 2),
            Some(StoreTime::from_micros(5_000_000))
        );
        // A store whose clock runs slower by half a part in a thousand.
        let shows = 5_000_000 + 10_000_000 - 5_000;
        let estimate = clock.estimate(second * 12).unwrap();
        assert!(estimate <= StoreTime::from_micros(shows), "{estimate:?}");
        assert!(
            estimate >= StoreTime::from_micros(shows - 20_000),
            "{estimate:?}"
        );
        // One that was set back counts from then on, and an older reading does not.
        clock.learn(StoreTime::from_micros(1_000_000), second * 13);
        clock.learn(StoreTime::from_micros(9_000_000), second * 12);
        assert_eq!(
            clock.estimate(second * 13),
            Some(StoreTime::from_micros(1_000_000))
        );
    }
}
