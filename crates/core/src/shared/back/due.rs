//! Which shards have something for the flusher, and when it is due.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::port::Shard;

/// What the writers of this node and its looks at the cache tell the flusher.
#[derive(Default)]
pub(crate) struct Due {
    state: Mutex<State>,
    /// Something is due sooner than before.
    pub(super) sooner: Notify,
    /// A flush was asked for: a flusher that waits after a failure tries again at once.
    pub(super) asked: Notify,
    /// A round ended that changed something.
    pub(super) settled: Notify,
}

#[derive(Default)]
struct State {
    /// When a shard is to be flushed, in elapsed time.
    shards: BTreeMap<Shard, Duration>,
    /// Writes of this node, and their bytes, since the last round.
    writes: usize,
    bytes: u64,
}

impl Due {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something of a shard is to be flushed at this moment, or sooner if it is so already.
    pub(super) fn at(&self, shard: Shard, at: Duration) {
        let mut state = self.lock();
        let first = state.shards.values().min().copied();
        let due = state.shards.entry(shard).or_insert(at);
        *due = at.min(*due);
        drop(state);
        if first.is_none_or(|first| at < first) {
            self.sooner.notify_one();
        }
    }

    /// A write of this node. True if with it there is so much that nothing needs to linger.
    pub(super) fn written(&self, bytes: u64, batch: usize, batch_bytes: u64) -> bool {
        let mut state = self.lock();
        state.writes += 1;
        state.bytes = state.bytes.saturating_add(bytes);
        state.writes >= batch || state.bytes >= batch_bytes
    }

    /// Whatever is due at all is due at `at`.
    pub(super) fn all_at(&self, at: Duration) {
        let mut state = self.lock();
        state
            .shards
            .values_mut()
            .for_each(|due| *due = at.min(*due));
        drop(state);
        self.sooner.notify_one();
    }

    /// The shards that are due, in the order of their times; they are not due any more.
    pub(super) fn take(&self, now: Duration) -> Vec<Shard> {
        let mut state = self.lock();
        let mut due: Vec<(Duration, Shard)> = state
            .shards
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(shard, at)| (*at, *shard))
            .collect();
        due.sort_unstable();
        for (_, shard) in &due {
            state.shards.remove(shard);
        }
        if !due.is_empty() {
            state.writes = 0;
            state.bytes = 0;
        }
        due.into_iter().map(|(_, shard)| shard).collect()
    }

    /// When the first one is due.
    pub(super) fn first(&self) -> Option<Duration> {
        self.lock().shards.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_due_at_the_first_of_its_moments_and_then_not_any_more() {
        let (due, ms) = (Due::default(), Duration::from_millis);
        due.at(Shard(1), ms(20));
        due.at(Shard(1), ms(30));
        due.at(Shard(2), ms(10));
        due.at(Shard(3), ms(50));
        assert_eq!(due.take(ms(9)), []);
        assert_eq!(due.take(ms(20)), [Shard(2), Shard(1)]);
        assert_eq!(due.first(), Some(ms(50)));
        due.all_at(ms(21));
        assert_eq!(due.take(ms(21)), [Shard(3)]);
        assert_eq!(due.first(), None);
    }

    #[test]
    fn a_full_batch_is_told_once_there_is_one() {
        let due = Due::default();
        assert!(!due.written(5, 3, 100) && !due.written(5, 3, 100));
        assert!(due.written(5, 3, 100), "as many as a batch");
        due.at(Shard(0), Duration::ZERO);
        due.take(Duration::ZERO);
        assert!(
            !due.written(5, 3, 100) && due.written(100, 3, 100),
            "as large as one"
        );
    }
}
