//! Counters: what happened, per class, cheap enough for every hit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::class::Strategy;
use crate::near::NearStats;

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

/// The counters of one class. Each event is counted once, by its outcome.
#[derive(Default, Debug)]
pub(crate) struct Counters {
    /// Reads answered by a present entry in memory.
    pub(crate) hits: Counter,
    /// Reads answered by known absence.
    pub(crate) negative_hits: Counter,
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
}

/// What happened in a class since the start, and what is at risk now.
#[derive(Clone, PartialEq, Eq, Debug)]
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
    /// Entries the store refuses, kept.
    pub parked: u64,
    /// Acknowledged entries not yet in the store, parked ones not counted.
    pub dirty_entries: u64,
    /// Their bytes: keys, values and overhead; parked ones counted.
    pub dirty_bytes: u64,
    /// How long the oldest of them has been waiting.
    pub oldest_dirty: Option<Duration>,
}

/// What a gate knows of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// The near cache.
    pub near: NearStats,
    /// Every class, most specific first.
    pub classes: Vec<ClassStats>,
    /// Bytes the journal occupies; nothing without a journal.
    pub journal_bytes: Option<u64>,
    /// Keys whose last write has an unknown outcome; they are read from the store until it is known.
    pub quarantined: u64,
}
