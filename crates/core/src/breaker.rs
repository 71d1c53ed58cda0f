//! The breaker of the store: when it is away, one asks and the others wait.
//!
//! Closed: flushes go. After some transient failures in a row, of whatever lane, it opens: nothing is sent
//! until a wait is over that grows with every failure. Then it is half-open: one flush goes as a probe; its
//! success closes the breaker, its failure opens it again. (M. Nygard, "Release It!", 2007, "Circuit
//! Breaker".) What the store refuses is an answer and no failure.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::port::Clock;

/// So many failures in a row open it.
const FAILURES_MAX: u32 = 5;

/// Whether flushes go to the store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum BreakerState {
    /// They go.
    #[default]
    Closed,
    /// They wait: the store failed several times in a row.
    Open,
    /// One goes, to see whether the store is back.
    HalfOpen,
}

impl BreakerState {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// What the breaker says to one who wants to flush.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    Go,
    /// Go, and tell whether it went well: everybody waits for it.
    Probe,
    WaitFor(Duration),
    WaitForProbe,
}

/// See the [module](self). Not shared by itself: its owner has a lock.
#[derive(Default, Debug)]
pub(crate) struct Breaker {
    state: BreakerState,
    failures: u32,
    backoff: Backoff,
    /// When it was opened: an answer to something sent before says nothing new.
    opened_at: Duration,
    /// When a probe may go, in elapsed time.
    until: Duration,
}

impl Breaker {
    pub(crate) fn state(&self) -> BreakerState {
        self.state
    }

    /// Asks to flush.
    pub(crate) fn admit(&mut self, now: Duration) -> Admission {
        match self.state {
            BreakerState::Closed => Admission::Go,
            BreakerState::HalfOpen => Admission::WaitForProbe,
            BreakerState::Open if now < self.until => Admission::WaitFor(self.until - now),
            BreakerState::Open => {
                self.state = BreakerState::HalfOpen;
                Admission::Probe
            }
        }
    }

    /// The store answered. True if the breaker was open until now.
    pub(crate) fn answered(&mut self) -> bool {
        let was = std::mem::take(&mut self.state);
        self.failures = 0;
        self.backoff.reset();
        was != BreakerState::Closed
    }

    /// The store did not answer what was sent at `sent`. True if the breaker is open from now on.
    pub(crate) fn failed(&mut self, probe: bool, sent: Duration, clock: &dyn Clock) -> bool {
        match self.state {
            BreakerState::Closed => {
                self.failures += 1;
                if self.failures >= FAILURES_MAX {
                    self.open(clock);
                    return true;
                }
                false
            }
            BreakerState::HalfOpen if probe => {
                self.open(clock);
                true
            }
            // Sent before it opened, or while another is the probe.
            BreakerState::HalfOpen | BreakerState::Open => {
                debug_assert!(probe || sent <= self.opened_at, "sent past the breaker");
                false
            }
        }
    }

    fn open(&mut self, clock: &dyn Clock) {
        self.state = BreakerState::Open;
        self.opened_at = clock.elapsed();
        self.until = self.opened_at.saturating_add(self.backoff.next(clock));
    }

    /// The probe was given up without an answer: another may go.
    pub(crate) fn probe_lost(&mut self) {
        if self.state == BreakerState::HalfOpen {
            self.state = BreakerState::Open;
        }
    }

    /// Somebody wants to know now whether the store is back: the next to ask is a probe. Not more often than
    /// the shortest wait.
    pub(crate) fn hurry(&mut self, now: Duration, shortest: Duration) {
        if self.state == BreakerState::Open {
            self.until = self
                .until
                .min(now.max(self.opened_at.saturating_add(shortest)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::port::{BoxFuture, Timestamp};

    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Hand {
        fn pass(&self, wait: Duration) {
            let micros = u64::try_from(wait.as_micros()).unwrap();
            self.0.fetch_add(micros, Ordering::Relaxed);
        }
    }

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::default()
        }
        fn elapsed(&self) -> Duration {
            Duration::from_micros(self.0.load(Ordering::Relaxed))
        }
        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::ready(()))
        }
        fn random(&self) -> u64 {
            u64::MAX
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_lets_one_probe_and_closes_when_that_is_answered() {
        let clock = Hand::default();
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            for _ in 1..FAILURES_MAX {
                assert_eq!(breaker.admit(clock.elapsed()), Admission::Go);
                assert!(!breaker.failed(false, clock.elapsed(), &clock));
            }
            breaker.answered();
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "not in a row");
        let sent = clock.elapsed();
        for failure in 1..=FAILURES_MAX {
            assert_eq!(breaker.failed(false, sent, &clock), failure == FAILURES_MAX);
        }
        assert!(
            !breaker.failed(false, sent, &clock),
            "sent before it opened"
        );
        let Admission::WaitFor(wait) = breaker.admit(clock.elapsed()) else {
            panic!("open");
        };
        clock.pass(wait);
        assert_eq!(breaker.admit(clock.elapsed()), Admission::Probe);
        assert_eq!(breaker.admit(clock.elapsed()), Admission::WaitForProbe);
        assert!(!breaker.failed(false, sent, &clock), "not the probe's");
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.failed(true, clock.elapsed(), &clock));
        let Admission::WaitFor(longer) = breaker.admit(clock.elapsed()) else {
            panic!("open again");
        };
        assert!(longer >= wait);
        clock.pass(longer);
        assert_eq!(breaker.admit(clock.elapsed()), Admission::Probe);
        assert!(breaker.answered());
        assert_eq!(breaker.admit(clock.elapsed()), Admission::Go);
    }

    #[test]
    fn who_is_in_a_hurry_gets_a_probe_but_not_many() {
        let clock = Hand::default();
        let mut breaker = Breaker::default();
        // Far on in its waits.
        for _ in 0..20 {
            for _ in 0..FAILURES_MAX {
                breaker.failed(
                    breaker.state() == BreakerState::HalfOpen,
                    clock.elapsed(),
                    &clock,
                );
            }
            while let Admission::WaitFor(wait) = breaker.admit(clock.elapsed()) {
                clock.pass(wait);
            }
        }
        breaker.failed(true, clock.elapsed(), &clock);
        let shortest = Duration::from_millis(10);
        breaker.hurry(clock.elapsed(), shortest);
        assert_eq!(
            breaker.admit(clock.elapsed()),
            Admission::WaitFor(shortest),
            "one was sent just now"
        );
        clock.pass(shortest);
        assert_eq!(breaker.admit(clock.elapsed()), Admission::Probe);
        breaker.probe_lost();
        assert_eq!(breaker.admit(clock.elapsed()), Admission::Probe);
    }
}
