//! The bounds on what may be dirty in the shared cache, and how much is, as far as this node knows.
//!
//! The dirty entries of all nodes and classes are one heap in the cache. So a class's bounds are held against all that
//! is dirty there, and each write brings a hard bound of its shard with it, which the cache itself keeps: many times
//! the shard's share, for keys are not spread evenly. What is dirty is looked at now and then, and again before a write
//! is told that there is no room; in between the writes of this node are counted on top.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::class::Class;
use crate::error::{Error, ErrorKind};
use crate::port::{Shard, ShardDirty, Timestamp};

/// A shard may have so many times its share of the bound.
const SKEW: u64 = 8;
/// From this share of a bound on the flusher does not linger, and from this writers are paced.
const SOFT: f64 = 0.5;
const HIGH: f64 = 0.8;

/// What is dirty in all shards together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Total {
    /// Dirty and parked entries, and their bytes.
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    /// Of the entries parked.
    pub(crate) parked: u64,
    /// When the oldest write was made that the store does not have.
    pub(crate) oldest: Option<Timestamp>,
}

/// See the [module](self).
pub(crate) struct Room {
    state: Mutex<State>,
    /// Somebody looks at all shards: one at a time.
    pub(super) looking: tokio::sync::Mutex<()>,
    /// How many waiters there are.
    waiting: AtomicU64,
    /// Something was learnt.
    pub(super) learnt: Notify,
}

struct State {
    shards: Vec<ShardDirty>,
    total: Total,
    /// When all shards were looked at last, in elapsed time.
    looked_at: Option<Duration>,
}

impl Room {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            state: Mutex::new(State {
                shards: vec![ShardDirty::default(); usize::from(shards)],
                total: Total::default(),
                looked_at: None,
            }),
            looking: tokio::sync::Mutex::const_new(()),
            waiting: AtomicU64::new(0),
            learnt: Notify::const_new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cache said this of these shards, which are all or not.
    pub(super) fn learn_all(&self, looked: &[(Shard, ShardDirty)], all_at: Option<Duration>) {
        let mut state = self.lock();
        for (shard, dirty) in looked {
            if let Some(known) = state.shards.get_mut(usize::from(shard.0)) {
                *known = *dirty;
            }
        }
        state.sum();
        state.looked_at = all_at.or(state.looked_at);
        drop(state);
        self.learnt.notify_waiters();
    }

    /// This node made a write of so many bytes dirty.
    pub(super) fn add(&self, shard: Shard, bytes: u64, now: Timestamp) {
        let mut state = self.lock();
        if let Some(known) = state.shards.get_mut(usize::from(shard.0)) {
            known.entries += 1;
            known.bytes += bytes;
            known.oldest.get_or_insert(now);
        }
        state.total.entries += 1;
        state.total.bytes += bytes;
        state.total.oldest.get_or_insert(now);
    }

    /// What is known of a shard.
    pub(super) fn of(&self, shard: Shard) -> ShardDirty {
        let state = self.lock();
        state
            .shards
            .get(usize::from(shard.0))
            .copied()
            .unwrap_or_default()
    }

    /// All shards together.
    pub(crate) fn total(&self) -> Total {
        self.lock().total
    }

    /// Whether all shards were looked at since `since`.
    pub(super) fn is_known_since(&self, since: Duration) -> bool {
        self.lock().looked_at.is_some_and(|at| at >= since)
    }

    /// How much of a bound of the class is used, of the one that is nearest: 1 is full.
    fn share(&self, class: &Class, now: Timestamp) -> f64 {
        let total = self.total();
        let of = |used: u64, max: u64| used as f64 / max.max(1) as f64;
        let share =
            of(total.bytes, class.dirty_bytes_max).max(of(total.entries, class.dirty_entries_max));
        match is_too_old(&total, class, now) {
            true => share.max(1.0),
            false => share,
        }
    }

    pub(super) fn is_past_soft(&self, class: &Class, now: Timestamp) -> bool {
        self.share(class, now) > SOFT
    }

    /// How far it is from the high mark (0) to the bound (1); nothing below the high mark.
    pub(super) fn past_high(&self, class: &Class, now: Timestamp) -> Option<f64> {
        let past = (self.share(class, now) - HIGH) / (1.0 - HIGH);
        (past > 0.0).then(|| past.min(1.0))
    }

    /// Whether a write of so many bytes may be let in, as far as is known. One that is larger than the whole bound is
    /// let in when nothing else is dirty.
    pub(super) fn has_room(&self, class: &Class, bytes: u64, now: Timestamp) -> bool {
        let total = self.total();
        !is_too_old(&total, class, now)
            && total.entries < class.dirty_entries_max
            && (total.entries == 0 || total.bytes.saturating_add(bytes) <= class.dirty_bytes_max)
    }

    /// The most bytes that the shard of a write of `bytes` may have dirty after it.
    pub(super) fn shard_bytes_max(&self, class: &Class, bytes: u64) -> u64 {
        let shards = self.lock().shards.len().max(1) as u64;
        let share = (class.dirty_bytes_max / shards).saturating_mul(SKEW);
        share.min(class.dirty_bytes_max).max(bytes)
    }

    /// Counts a writer that waits for room, for as long as what is returned lives.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Waiting(self)
    }

    /// Whether somebody waits for room.
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }
}

/// See [`Room::wait`].
pub(super) struct Waiting<'a>(&'a Room);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl State {
    fn sum(&mut self) {
        let mut total = Total::default();
        for shard in &self.shards {
            total.entries += shard.entries;
            total.bytes += shard.bytes;
            total.parked += shard.parked;
            total.oldest = match (total.oldest, shard.oldest) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        self.total = total;
    }
}

fn is_too_old(total: &Total, class: &Class, now: Timestamp) -> bool {
    let age = total.oldest.map(|oldest| now.since(oldest));
    class
        .dirty_age_max
        .zip(age)
        .is_some_and(|(max, age)| age > max)
}

/// What a class is answered whose bounds are met.
pub(super) fn full(total: &Total, class: &Class, now: Timestamp, waited: &str) -> Error {
    let message = if is_too_old(total, class, now) {
        format!(
            "the oldest write in the shared cache waits for the store for more than {:?} (dirty_age_max){waited}",
            class.dirty_age_max.unwrap_or_default()
        )
    } else if total.entries >= class.dirty_entries_max {
        format!(
            "{} dirty entries of {} (dirty_entries_max) in the shared cache are waiting for the store{waited}",
            total.entries, class.dirty_entries_max
        )
    } else {
        format!(
            "{} dirty bytes of {} (dirty_max) in the shared cache are waiting for the store{waited}",
            total.bytes, class.dirty_bytes_max
        )
    };
    Error::new(ErrorKind::Overloaded, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::WhenFull;

    #[test]
    fn all_shards_count_and_the_bounds_are_those_of_the_class() {
        let class = Class::new("b", "b:*")
            .dirty_bytes_max(1_000, WhenFull::Block)
            .dirty_entries_max(3);
        let class = class.dirty_age_max(Duration::from_millis(50));
        let (room, now) = (Room::new(4), Timestamp::from_millis(100));
        assert!(room.has_room(&class, 5_000, now), "alone anything goes");
        room.add(Shard(1), 400, now);
        assert!(!room.has_room(&class, 601, now) && room.has_room(&class, 600, now));
        let other = ShardDirty {
            entries: 2,
            parked: 1,
            bytes: 100,
            oldest: Some(Timestamp::from_millis(80)),
        };
        room.learn_all(&[(Shard(2), other)], None);
        assert!(!room.has_room(&class, 1, now), "three entries");
        assert!(room.past_high(&class, now).is_some());
        room.learn_all(&[(Shard(1), ShardDirty::default())], Some(Duration::ZERO));
        assert!(room.has_room(&class, 1, now));
        assert_eq!(room.total().oldest, other.oldest);
        let later = Timestamp::from_millis(131);
        assert!(!room.has_room(&class, 1, later), "too old");
        assert!(
            full(&room.total(), &class, later, "")
                .message()
                .contains("dirty_age_max")
        );
        assert_eq!(
            room.shard_bytes_max(&class, 7),
            1_000,
            "of few shards each may have all"
        );
        assert_eq!(Room::new(100).shard_bytes_max(&class, 7), 80);
        assert_eq!(Room::new(100).shard_bytes_max(&class, 700), 700);
    }
}
