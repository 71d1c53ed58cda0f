//! What all flushers of a gate share: the window, the breaker, and how often one had to be started anew.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::window::{Sent, Window};
use crate::breaker::{Admission, Breaker, BreakerState};
use crate::port::Clock;

/// The least time between two probes that were asked for.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
/// The most time between two probes while writers wait for room.
const PROBE_INTERVAL_AWAITED: Duration = Duration::from_millis(500);

/// See the [module](self).
pub(crate) struct Control {
    state: Mutex<State>,
    in_flight: AtomicUsize,
    /// There may be room for one more batch, or the breaker has changed.
    pub(crate) changed: Notify,
    restarts: AtomicU64,
    /// The layer stops: for those who wait for nothing else of a lane.
    pub(crate) stopped: Notify,
}

struct State {
    window: Window,
    breaker: Breaker,
}

/// Why no batch may be sent now.
pub(crate) enum Refused {
    /// Ask again then.
    For(Duration),
    /// Ask again after [`Control::changed`].
    UntilChanged,
}

/// Leave to send one batch. Dropped without an answer, what became of the batch is not known.
pub(crate) struct Permit<'a> {
    control: &'a Control,
    sent: Sent,
    probe: bool,
    answered: bool,
}

impl Control {
    /// For a store that commits about `usual` batches at once with profit.
    pub(crate) fn new(usual: usize, batch_max: usize) -> Self {
        Self {
            state: Mutex::new(State {
                window: Window::new(usual, batch_max),
                breaker: Breaker::default(),
            }),
            in_flight: AtomicUsize::new(0),
            changed: Notify::new(),
            restarts: AtomicU64::new(0),
            stopped: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How large a batch may be.
    pub(crate) fn batch(&self) -> usize {
        self.lock().window.batch()
    }

    /// How long a batch may be out before smaller ones need not wait for it.
    pub(super) fn patience(&self) -> Duration {
        self.lock().window.patience()
    }

    /// Asks to send a batch, `full` telling whether it is as large as the window allows.
    pub(crate) fn begin(&self, now: Duration, full: bool) -> Result<Permit<'_>, Refused> {
        let mut state = self.lock();
        let in_flight = self.in_flight.load(Ordering::Acquire);
        if in_flight >= state.window.rounds() {
            return Err(Refused::UntilChanged);
        }
        let probe = match state.breaker.admit(now) {
            Admission::Go => false,
            Admission::Probe => true,
            Admission::WaitFor(wait) => return Err(Refused::For(wait)),
            Admission::WaitForProbe => return Err(Refused::UntilChanged),
        };
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        Ok(Permit {
            control: self,
            sent: Sent {
                at: now,
                full,
                last: in_flight + 1 >= state.window.rounds(),
            },
            probe,
            answered: false,
        })
    }

    /// A flush was asked for: whether the store is back is to be known now.
    pub(crate) fn hurry(&self, now: Duration) {
        self.lock().breaker.hurry(now, PROBE_INTERVAL);
        self.changed.notify_waiters();
    }

    /// Writers wait for room: whether the store is back is to be known soon. Until when to wait after a batch
    /// that was sent at `sent` and failed.
    pub(crate) fn awaited(&self, now: Duration, sent: Duration) -> Duration {
        self.lock().breaker.hurry(now, PROBE_INTERVAL_AWAITED);
        sent.saturating_add(PROBE_INTERVAL_AWAITED)
    }

    /// A flusher is started anew.
    pub(crate) fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    pub(crate) fn breaker(&self) -> BreakerState {
        self.lock().breaker.state()
    }

    /// Batches on their way, how many there may be, and how large.
    pub(crate) fn figures(&self) -> (usize, usize, usize) {
        let state = self.lock();
        let in_flight = self.in_flight.load(Ordering::Acquire);
        (in_flight, state.window.rounds(), state.window.batch())
    }
}

impl Permit<'_> {
    /// The store answered, if only to refuse something.
    pub(crate) fn answered(mut self, now: Duration) {
        self.answered = true;
        let mut state = self.control.lock();
        state.window.answered(self.sent, now);
        if state.breaker.answered() {
            tracing::info!("the store answers again");
        }
    }

    /// The store did not answer, or asked to be tried again.
    pub(crate) fn failed(mut self, clock: &dyn Clock) {
        self.answered = true;
        let mut state = self.control.lock();
        state.window.failed(self.sent, clock.elapsed());
        if state.breaker.failed(self.probe, self.sent.at, clock) && !self.probe {
            tracing::warn!("the store fails again and again: flushes wait for it to come back");
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probe && !self.answered {
            self.control.lock().breaker.probe_lost();
        }
        self.control.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.control.changed.notify_waiters();
    }
}
