//! Whose a row is, by its version: which generations have been given out.
//!
//! Every version that the shared cache gives out is even, and of a generation that the store gave out. Of those a node
//! knows what it has seen: in answers of the cache, and in shards. A row may be of a later one all the same, because
//! other nodes wrote and flushed its key; then the store is asked what it has given out. A version beyond that is
//! nobody's of ours: somebody set it by hand, or the store is of another history.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::layer::Layer;
use crate::version::Version;

/// The store is asked so often at most: each answer takes a generation, of which there are not many.
const ASKED_EVERY: Duration = Duration::from_secs(10);
/// So many generations are not taken in that time.
const TAKEN_MAX: u64 = 64;

/// The generations that are known to have been given out.
pub(super) struct Known {
    newest: AtomicU64,
    /// When the store was asked last, in elapsed time.
    asked_at: tokio::sync::Mutex<Option<Duration>>,
}

impl Known {
    pub(super) const fn new() -> Self {
        Self {
            newest: AtomicU64::new(0),
            asked_at: tokio::sync::Mutex::const_new(None),
        }
    }

    /// A generation that was given out, and so all before it.
    pub(super) fn saw(&self, generation: u64) {
        self.newest.fetch_max(generation, Ordering::Relaxed);
    }

    fn newest(&self) -> u64 {
        self.newest.load(Ordering::Relaxed)
    }

    /// Whether versions like this one have been given out, be they of this cache or raised by others; nothing if that
    /// cannot be told now.
    pub(super) async fn is_given_out(&self, layer: &Layer, version: Version) -> Option<bool> {
        let generation = version.generation();
        if generation <= self.newest() {
            return Some(true);
        }
        let mut asked_at = self.asked_at.lock().await;
        let newest = self.newest();
        if generation <= newest {
            return Some(true);
        }
        let now = layer.clock.elapsed();
        if asked_at.is_some_and(|at| now < at.saturating_add(ASKED_EVERY)) {
            return (generation > newest.saturating_add(TAKEN_MAX)).then_some(false);
        }
        let taken = match layer.store.open_generation(newest.saturating_add(1)).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::debug!(%error, "the store does not tell which generations it gave out");
                return None;
            }
        };
        *asked_at = Some(now);
        self.saw(taken);
        Some(generation <= taken)
    }

    /// Whether a row of this version was written by the shared cache; nothing if that cannot be told now.
    pub(super) async fn is_own(&self, layer: &Layer, row: Version) -> Option<bool> {
        match row != Version::NONE && row.raw().is_multiple_of(2) {
            true => self.is_given_out(layer, row).await,
            false => Some(false),
        }
    }
}
