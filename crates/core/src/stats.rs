//! Counters: what happened, per class, cheap enough for every hit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::breaker::BreakerState;
use crate::class::Strategy;
use crate::near::NearStats;
use crate::shared::SharedStats;

/// A counter that a hot path may bump: one relaxed addition, on a cache line of its own so that two cores
/// counting different things do not slow each other.
#[derive(Default, Debug)]
#[repr(align(64))]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many events come in a second: a moving average in which what is half a minute old hardly counts.
#[derive(Default, Debug)]
pub(crate) struct Rate(Mutex<Moving>);

#[derive(Default, Debug)]
struct Moving {
    /// Events, each fading with its age.
    weight: f64,
    /// When the weight was last brought up to date, and when the first event came, in elapsed time.
    at: Duration,
    since: Option<Duration>,
}

impl Rate {
    /// In this time an event fades to a third.
    const MEMORY: Duration = Duration::from_secs(10);

    pub(crate) fn add(&self, events: u64, now: Duration) {
        let mut moving = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        moving.fade(now);
        moving.since.get_or_insert(now);
        moving.weight += events as f64;
    }

    pub(crate) fn per_second(&self, now: Duration) -> f64 {
        let mut moving = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        moving.fade(now);
        let Some(since) = moving.since else {
            return 0.0;
        };
        // Of a short history the weight is that of a part of the memory only. The first event marks the end
        // of a time that was not counted, so no history is taken for shorter than some of it.
        let known = now.saturating_sub(since).max(Self::MEMORY / 20);
        let memory = Self::MEMORY.as_secs_f64();
        moving.weight / (memory * (1.0 - (-known.as_secs_f64() / memory).exp()))
    }
}

impl Moving {
    fn fade(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at);
        self.weight *= (-passed.as_secs_f64() / Rate::MEMORY.as_secs_f64()).exp();
        self.at = now.max(self.at);
    }
}

/// The counters of one class. Each event is counted once, by its outcome.
#[derive(Default, Debug)]
pub(crate) struct Counters {
    /// Reads answered by a present entry in memory.
    pub(crate) hits: Counter,
    /// Reads answered by known absence.
    pub(crate) negative_hits: Counter,
    /// Reads answered by the cache that several nodes share.
    pub(crate) shared_hits: Counter,
    /// Reads that had to wait for something.
    pub(crate) misses: Counter,
    /// Reads answered by a stale copy because the store could not be read.
    pub(crate) stale: Counter,
    /// Keys asked of the store.
    pub(crate) loads: Counter,
    /// Reads and writes that shared another's load or commit.
    pub(crate) coalesced: Counter,
    /// Writes acknowledged.
    pub(crate) writes: Counter,
    /// Writes the store or the class refused.
    pub(crate) refused: Counter,
    /// Reads and writes that failed for want of store, journal or room.
    pub(crate) failed: Counter,
    /// Writes whose outcome is unknown.
    pub(crate) unknown: Counter,
    /// Dirty entries that reached the store.
    pub(crate) flushed: Counter,
    /// Dirty entries that the store had something newer than.
    pub(crate) superseded: Counter,
    /// Dead letters that were given up on request.
    pub(crate) discarded: Counter,
    /// Batches of this class that were sent to the store.
    pub(crate) flush_rounds: Counter,
    /// Those of them that failed and were tried again.
    pub(crate) flush_failures: Counter,
    /// Dirty entries that reach the store.
    pub(crate) flush_rate: Rate,
}

/// What happened in a class since the start, and what is at risk now.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "each is said at Counters, of which these are the figures"
)]
pub struct ClassStats {
    pub name: String,
    pub strategy: Strategy,
    pub hits: u64,
    pub negative_hits: u64,
    pub shared_hits: u64,
    pub misses: u64,
    pub stale: u64,
    pub loads: u64,
    pub coalesced: u64,
    pub writes: u64,
    pub refused: u64,
    pub failed: u64,
    pub unknown: u64,
    pub flushed: u64,
    pub superseded: u64,
    pub discarded: u64,
    pub flush_rounds: u64,
    pub flush_failures: u64,
    /// Entries that reach the store in a second: a moving average over some ten seconds.
    pub flush_rate: f64,
    /// How long it takes to flush what is dirty, at that rate; nothing if nothing is being flushed.
    pub time_to_drain: Option<Duration>,
    /// Dead letters: entries the store does not take, kept.
    pub parked: u64,
    /// Their bytes: keys, values and overhead.
    pub parked_bytes: u64,
    /// Acknowledged entries not yet in the store, parked ones not counted. Over a shared cache, these and the next two
    /// are of all nodes and all its write-back classes together, as of a moment ago.
    pub dirty_entries: u64,
    /// Their bytes: keys, values and overhead; parked ones counted.
    pub dirty_bytes: u64,
    /// How long the oldest of them has been waiting.
    pub oldest_dirty: Option<Duration>,
}

/// What a gate knows of itself.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// The near cache.
    pub near: NearStats,
    /// Every class, most specific first.
    pub classes: Vec<ClassStats>,
    /// Bytes the journal occupies; nothing without a journal.
    pub journal_bytes: Option<u64>,
    /// The bound on them, if there is one.
    pub journal_bytes_max: Option<u64>,
    /// Whether a sync of the journal failed: it takes nothing more until it is opened anew, and each class does as its
    /// [`when_journal_fails`](crate::Class::when_journal_fails) says.
    pub journal_failed: bool,
    /// Whether flushes go to the store.
    pub breaker: BreakerState,
    /// Batches on their way to the store.
    pub flushes_in_flight: usize,
    /// How many there may be at once, as the store's commits allow now.
    pub flush_window: usize,
    /// How many entries a batch may have, as the store's commits allow now.
    pub flush_batch: usize,
    /// How often a flusher panicked and was started anew: a bug to be reported.
    pub flusher_restarts: u64,
    /// Keys whose last write has an unknown outcome; they are read from the store until it is known.
    pub quarantined: u64,
    /// The cache that several nodes share; nothing without one.
    pub shared: Option<SharedStats>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_told_soon_and_forgotten_when_it_ends() {
        let rate = Rate::default();
        let second = Duration::from_secs(1);
        assert_eq!(rate.per_second(second).to_bits(), 0.0_f64.to_bits());
        for tenth in 10..=40 {
            rate.add(50, second * tenth / 10);
        }
        let soon = rate.per_second(second * 4);
        assert!((400.0..650.0).contains(&soon), "{soon}");
        for tenth in 41..=1000 {
            rate.add(50, second * tenth / 10);
        }
        let later = rate.per_second(second * 100);
        assert!((480.0..520.0).contains(&later), "{later}");
        assert!(rate.per_second(second * 200) < 1.0);
    }
}
