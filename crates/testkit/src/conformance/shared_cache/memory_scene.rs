//! The reference as a scene.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_core::Mutation;
use tidegate_core::memory::{MemorySharedCache, SharedSettings, SharedSnapshot};
use tidegate_core::port::{BoxFuture, Clock, SharedCache};

use super::Scene;
use crate::sim::{Random, SimClock};

/// A [`MemorySharedCache`] on a clock that moves when all tasks wait. To be made in a runtime whose time is paused.
pub struct MemoryScene {
    cache: Arc<MemorySharedCache>,
    clock: Arc<SimClock>,
    saved: Mutex<Option<SharedSnapshot>>,
}

impl MemoryScene {
    /// An empty cache of eight shards.
    #[must_use]
    pub fn new() -> Self {
        Self::with(SharedSettings {
            shards: 8,
            lease: Duration::from_millis(200),
        })
    }

    /// An empty cache with these settings.
    #[must_use]
    pub fn with(settings: SharedSettings) -> Self {
        let clock = Arc::new(SimClock::new(0, Random::new(1)));
        let cache = MemorySharedCache::new(clock.clone(), settings);
        Self::of(cache, clock)
    }

    /// A cache that does not keep one of its rules, for tests of the suite itself.
    #[doc(hidden)]
    #[must_use]
    pub fn without(rule: Mutation, settings: SharedSettings) -> Self {
        let clock = Arc::new(SimClock::new(0, Random::new(1)));
        let cache = MemorySharedCache::without(rule, clock.clone(), settings);
        Self::of(cache, clock)
    }

    fn of(cache: MemorySharedCache, clock: Arc<SimClock>) -> Self {
        Self {
            cache: Arc::new(cache),
            clock,
            saved: Mutex::default(),
        }
    }

    fn saved(&self) -> MutexGuard<'_, Option<SharedSnapshot>> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryScene {
    fn default() -> Self {
        Self::new()
    }
}

fn done(done: bool) -> BoxFuture<'static, bool> {
    Box::pin(std::future::ready(done))
}

impl Scene for MemoryScene {
    fn cache(&self) -> Arc<dyn SharedCache> {
        self.cache.clone()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    fn lose_everything(&self) -> BoxFuture<'_, bool> {
        self.cache.lose_everything();
        done(true)
    }

    fn restart(&self) -> BoxFuture<'_, bool> {
        self.cache.restart(Some(self.cache.snapshot()));
        done(true)
    }

    fn save(&self) -> BoxFuture<'_, bool> {
        *self.saved() = Some(self.cache.snapshot());
        done(true)
    }

    fn fail_over(&self) -> BoxFuture<'_, bool> {
        self.cache.restart(self.saved().clone());
        done(true)
    }

    fn refuse(&self, refuses: bool) -> BoxFuture<'_, bool> {
        self.cache.refuse(refuses);
        done(true)
    }
}
