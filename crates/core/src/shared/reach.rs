//! A shared cache that is away costs no timeout per call: after some failures in a row nothing is asked of it but a
//! probe now and then. Meanwhile reads go to the store, and writes are refused before anything is sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::breaker::{Admission, Breaker, BreakerState};
use crate::port::{Clock, Each, SharedError};

/// The breaker of the shared cache. As long as all is well nobody takes its lock.
#[derive(Default)]
pub(crate) struct Reach {
    /// A call failed and none was answered since.
    troubled: AtomicBool,
    breaker: Mutex<Breaker>,
}

/// Leave to make one call. Dropped without a word, another may go in its place.
#[must_use]
pub(crate) struct Pass<'a> {
    reach: &'a Reach,
    probe: bool,
    sent: Duration,
    told: bool,
}

impl Reach {
    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leave to ask the cache; nothing while it is away.
    pub(crate) fn pass(&self, clock: &dyn Clock) -> Option<Pass<'_>> {
        let pass = |probe, sent| Pass {
            reach: self,
            probe,
            sent,
            told: false,
        };
        if !self.troubled.load(Ordering::Acquire) {
            // Sent while all was well, whatever follows.
            return Some(pass(false, Duration::ZERO));
        }
        let now = clock.elapsed();
        match self.lock().admit(now) {
            Admission::Go => Some(pass(false, now)),
            Admission::Probe => Some(pass(true, now)),
            Admission::WaitFor(_) | Admission::WaitForProbe => None,
        }
    }

    /// It answered somebody who asked without leave.
    pub(crate) fn is_well(&self) {
        if self.troubled.load(Ordering::Acquire) {
            let was_open = self.lock().answered();
            self.troubled.store(false, Ordering::Release);
            if was_open {
                tracing::info!("the shared cache answers again");
            }
        }
    }

    pub(crate) fn state(&self) -> BreakerState {
        self.lock().state()
    }
}

impl Pass<'_> {
    /// Tells how the call went: it failed if nothing of it was answered.
    pub(crate) fn tell<T>(self, answers: &Each<T>, clock: &dyn Clock) {
        let failure = answers.iter().find_map(|answer| match answer {
            Err(error @ SharedError::Unavailable { .. }) => Some(error),
            _ => None,
        });
        let answered =
            |answer: &Result<T, _>| !matches!(answer, Err(SharedError::Unavailable { .. }));
        match failure.filter(|_| !answers.iter().any(answered)) {
            Some(error) => self.failed(error, clock),
            None => self.answered(),
        }
    }

    pub(crate) fn answered(mut self) {
        self.told = true;
        self.reach.is_well();
    }

    pub(crate) fn failed(mut self, error: &SharedError, clock: &dyn Clock) {
        self.told = true;
        let mut breaker = self.reach.lock();
        self.reach.troubled.store(true, Ordering::Release);
        let before = breaker.state();
        let opened = breaker.failed(self.probe, self.sent, clock);
        drop(breaker);
        if opened && before == BreakerState::Closed {
            tracing::warn!(%error, "the shared cache is away: reads go to the store, writes are refused");
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe && !self.told {
            self.reach.lock().probe_lost();
        }
    }
}
