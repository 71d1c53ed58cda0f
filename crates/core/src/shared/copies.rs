//! Copies in this process of what the shared cache holds, for classes whose [level](crate::Level) allows them.
//!
//! The shared cache tells of every change, and of moments before which it has told all (fences). A copy that no change
//! was told of is as the cache was at the last fence, or newer: that is its bound. Three rules make it one.
//!
//! - A copy is kept only of what was found servable, and only if nothing was told of the key since the question was
//!   *sent*: an answer that was overtaken by the news of a change is not kept.
//! - Where the telling breaks off all copies go, and there is no fence until it is taken up again.
//! - What a reader of this node is given from elsewhere, and what a writer of this node has marked, takes the place of
//!   the copy or ends it: so reads of one node never go back.
//!
//! Of a key that was told of it is only remembered that one of its stripe was: a copy more or less is not kept.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::{Shared, covers};
use crate::class::{Class, Level};
use crate::hash::Hasher;
use crate::key::Key;
use crate::layer::Layer;
use crate::mutation::Mutation;
use crate::near::{Copy, Freshness};
use crate::port::{Held, SharedKey, Timestamp, Watcher};
use crate::version::Version;

const STRIPES: usize = 1024;
/// Fences come at least so often, and at most.
const FENCE_MAX: Duration = Duration::from_millis(500);
const FENCE_MIN: Duration = Duration::from_millis(5);
/// So many of them in the smallest bound.
const FENCES_IN_BOUND: u32 = 8;

/// What is known of the copies of a gate.
pub(crate) struct Copies {
    /// How often something was told of a key of the stripe, or read or written past its copy.
    stripes: Vec<Mutex<u64>>,
    hasher: Hasher,
    /// All changes before this were told: elapsed time in microseconds and one; nought while nothing is told.
    fence: AtomicU64,
}

/// What was told before a question was sent.
#[derive(Clone, Copy)]
pub(super) struct Sent(u64);

/// A copy that may be served.
pub(crate) struct Near {
    pub(crate) copy: Copy,
    /// How old it is at most.
    pub(crate) age_bound: Duration,
}

impl Copies {
    pub(super) fn new(hasher: &Hasher) -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Mutex::new(0)).collect(),
            hasher: hasher.clone(),
            fence: AtomicU64::new(0),
        }
    }

    fn stripe(&self, key: &[u8]) -> MutexGuard<'_, u64> {
        let place = self.hasher.hash_one(key) % STRIPES as u64;
        let place = usize::try_from(place).unwrap_or(0);
        self.stripes[place]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a question about `key` is sent.
    pub(super) fn sent(&self, key: &[u8]) -> Sent {
        Sent(*self.stripe(key))
    }

    /// The answer was servable: keeps it, unless something came between.
    pub(super) fn keep(
        &self,
        layer: &Layer,
        sent: Sent,
        key: &Key,
        held: &Held,
        fresh_until: Timestamp,
    ) {
        let mut told = self.stripe(key.as_bytes());
        if *told != sent.0 && !layer.mutations.breaks(Mutation::KeepOvertaken) {
            return;
        }
        // An older answer that comes later is not to take its place.
        *told += 1;
        let now = layer.clock.now();
        let until = layer.clock.elapsed().saturating_add(fresh_until.since(now));
        let entry = super::life::entry(held.clone(), now);
        let copy = Copy::of(entry.as_ref(), held.version, Some(until));
        layer.near.put(key.clone(), copy);
    }

    /// The copy of `key` is not to be served any more, nor what was asked before.
    pub(crate) fn forget(&self, layer: &Layer, key: &[u8]) {
        let mut told = self.stripe(key);
        *told += 1;
        layer.near.remove(key);
    }

    /// No copy is to be served any more, nor what was asked before.
    fn forget_all(&self, layer: &Layer) {
        let mut kept = Vec::new();
        for stripe in &self.stripes {
            *stripe.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
        // Classes without a store have their data in the near cache, and nowhere else.
        layer.near.for_each(|key, _| {
            if covers(layer.class(layer.class_of(key.as_bytes())).strategy) {
                kept.push(key.clone());
            }
        });
        for key in kept {
            layer.near.remove(key.as_bytes());
        }
    }
}

/// The copy of `key`, if the level of its class allows to serve it, and it is not older than `least`.
pub(crate) fn find(
    layer: &Layer,
    shared: &Shared,
    key: &[u8],
    class: usize,
    least: Version,
) -> Option<Near> {
    let settings = layer.class(class);
    let now = layer.clock.elapsed();
    let age_bound = match settings.level {
        Level::Linearizable => return None,
        Level::Bounded(bound) => {
            // Before the copy is looked for: a later fence says nothing of it.
            let fence = shared.copies.fence.load(Ordering::Acquire);
            let fence = Duration::from_micros(fence.checked_sub(1)?);
            let age = now.saturating_sub(fence);
            (age <= bound).then_some(age)?
        }
        Level::Session | Level::Eventual => settings.ttl.unwrap_or(super::life::TTL_DEFAULT),
    };
    let copy = layer.near.get(key)?;
    let is_fresh = copy.freshness(layer.clock.now(), now) == Freshness::Fresh;
    (is_fresh && copy.version() >= least).then_some(Near { copy, age_bound })
}

/// Whether a class has copies in this process.
pub(super) fn allowed(class: &Class) -> bool {
    covers(class.strategy) && class.level.allows_near()
}

/// How often fences are to come; nothing if no class has copies.
pub(super) fn fence_every(classes: &[Class]) -> Option<Duration> {
    let wanted = classes.iter().filter(|class| allowed(class));
    let every = wanted.map(|class| match class.level {
        Level::Bounded(bound) => bound / FENCES_IN_BOUND,
        _ => FENCE_MAX,
    });
    every.min().map(|every| every.clamp(FENCE_MIN, FENCE_MAX))
}

/// Tells the copies of a gate what the cache tells.
pub(super) struct Listener(pub(super) Weak<Layer>);

impl Listener {
    fn with(&self, act: impl FnOnce(&Layer, &Shared)) {
        if let Some(layer) = self.0.upgrade()
            && let Some(shared) = &layer.shared
        {
            act(&layer, shared);
        }
    }
}

impl Watcher for Listener {
    fn changed(&self, key: &SharedKey) {
        self.with(|layer, shared| shared.copies.forget(layer, key.key.as_bytes()));
    }

    fn lost(&self) {
        self.with(|layer, shared| {
            shared.copies.fence.store(0, Ordering::Release);
            shared.copies.forget_all(layer);
        });
    }

    fn fence(&self, at: Duration) {
        let micros = u64::try_from(at.as_micros()).unwrap_or(u64::MAX - 1);
        self.with(|_, shared| shared.copies.fence.store(micros + 1, Ordering::Release));
    }
}

/// Begins to be told, if any class has copies.
///
/// # Errors
/// As [`SharedCache::watch`](crate::port::SharedCache::watch).
pub(super) async fn watch(
    layer: &Arc<Layer>,
    shared: &Shared,
) -> Result<(), crate::port::SharedError> {
    let Some(every) = fence_every(layer.classes.classes()) else {
        return Ok(());
    };
    let listener = Arc::new(Listener(Arc::downgrade(layer)));
    shared.cache.watch(listener, every).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_come_as_often_as_the_smallest_bound_asks() {
        let bounded = |millis| {
            Class::new(format!("c{millis}"), "c:*")
                .level(Level::Bounded(Duration::from_millis(millis)))
        };
        assert_eq!(fence_every(&[Class::new("a", "a:*")]), None);
        let of = |classes: &[Class]| fence_every(classes).unwrap();
        assert_eq!(of(&[bounded(60_000)]), FENCE_MAX);
        assert_eq!(
            of(&[bounded(800), bounded(60_000)]),
            Duration::from_millis(100)
        );
        assert_eq!(of(&[bounded(1)]), FENCE_MIN);
    }
}
