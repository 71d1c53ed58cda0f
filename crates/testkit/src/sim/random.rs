//! Chance that repeats from its seed.

use std::sync::{Arc, Mutex, PoisonError};

/// A generator shared by everything in one simulation. Clones draw from the same sequence.
#[derive(Clone)]
pub struct Random {
    generator: Arc<Mutex<fastrand::Rng>>,
}

impl Random {
    /// A generator that always gives the same sequence for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            generator: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
        }
    }

    fn with<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(
            &mut self
                .generator
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Any number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.with(|rng| rng.u64(..))
    }

    /// A number below `limit`; 0 if that is 0.
    #[must_use]
    pub fn below(&self, limit: u64) -> u64 {
        self.with(|rng| if limit == 0 { 0 } else { rng.u64(..limit) })
    }

    /// True in `share` of all cases, between 0 and 1.
    #[must_use]
    pub fn chance(&self, share: f64) -> bool {
        self.with(|rng| rng.f64() < share)
    }
}
