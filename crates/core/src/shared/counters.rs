//! What happened between this node and the shared cache.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::breaker::BreakerState;
use crate::stats::Counter;

/// What is so at the moment.
#[derive(Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn take(&self, by: u64) {
        self.0.fetch_sub(by, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// See [`SharedStats`], of which these are the figures.
#[derive(Default)]
pub(crate) struct SharedCounters {
    pub(crate) asks: Counter,
    pub(crate) leases: Counter,
    pub(crate) waits: Counter,
    pub(crate) bypasses: Counter,
    pub(crate) fills: Counter,
    pub(crate) fills_refused: Counter,
    pub(crate) marks: Counter,
    pub(crate) marks_failed: Counter,
    pub(crate) releases: Counter,
    pub(crate) releases_left: Counter,
    pub(crate) swept: Counter,
    pub(crate) generations: Counter,
    pub(crate) shards_opened: Counter,
    pub(crate) late: Counter,
    pub(crate) outside_changes: Counter,
    /// In microseconds.
    pub(crate) outside_lag: Gauge,
    pub(crate) releases_waiting: Gauge,
    pub(crate) shards_closed: Gauge,
}

impl SharedCounters {
    pub(crate) fn stats(&self, breaker: BreakerState, disagreement: Option<String>) -> SharedStats {
        SharedStats {
            asks: self.asks.get(),
            leases: self.leases.get(),
            waits: self.waits.get(),
            bypasses: self.bypasses.get(),
            fills: self.fills.get(),
            fills_refused: self.fills_refused.get(),
            marks: self.marks.get(),
            marks_failed: self.marks_failed.get(),
            releases: self.releases.get(),
            releases_left: self.releases_left.get(),
            swept: self.swept.get(),
            generations: self.generations.get(),
            shards_opened: self.shards_opened.get(),
            late: self.late.get(),
            outside_changes: self.outside_changes.get(),
            outside_lag: Duration::from_micros(self.outside_lag.get()),
            releases_waiting: self.releases_waiting.get(),
            shards_closed: self.shards_closed.get(),
            breaker,
            disagreement,
        }
    }
}

/// What a gate knows of its shared cache.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SharedStats {
    /// Keys asked for after a look that found nothing to serve.
    pub asks: u64,
    /// Of them leased to this node, which loads and fills them.
    pub leases: u64,
    /// Of them loaded by somebody else at that moment.
    pub waits: u64,
    /// Of them loaded here and not filled: a write is under way, a shard is closed, or the cache is away.
    pub bypasses: u64,
    /// Loaded keys that the cache took.
    pub fills: u64,
    /// Loaded keys that it did not take, because a write or another generation came between.
    pub fills_refused: u64,
    /// Writes that were marked.
    pub marks: u64,
    /// Writes that were not made because they could not be marked.
    pub marks_failed: u64,
    /// Marks that were taken away.
    pub releases: u64,
    /// Marks that this node left to be swept.
    pub releases_left: u64,
    /// Marks of whatever node that were swept by this one.
    pub swept: u64,
    /// How often this node raised the generation of shards.
    pub generations: u64,
    /// Shards that it opened after that.
    pub shards_opened: u64,
    /// Writes that came to their commit too late after their mark.
    pub late: u64,
    /// Changes by others that were read from the store's outbox and told to the cache.
    pub outside_changes: u64,
    /// How old the oldest of them was when it was last read; zero if there was none.
    pub outside_lag: Duration,
    /// Releases that wait to be sent.
    pub releases_waiting: u64,
    /// Shards that are closed, as of the last look: their keys are read from the store.
    pub shards_closed: u64,
    /// Whether the cache is asked.
    pub breaker: BreakerState,
    /// In what the settings of another live node differ, if they do.
    pub disagreement: Option<String>,
}
