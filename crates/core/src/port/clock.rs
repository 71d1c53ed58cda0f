//! The port through which time and chance enter.

use std::fmt;
use std::time::Duration;

use super::BoxFuture;

/// A moment, in milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `millis` milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment `by` later; stays at the far end of time rather than wrap.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// How much later this is than `earlier`; nothing if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// Time, sleep and random numbers. The layer uses no others, which is what makes a simulation repeatable.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. It may step; only the life of data is measured with it.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment; never goes back. Everything but the life of data is measured with it.
    fn elapsed(&self) -> Duration;

    /// Returns after `duration`. Safe to drop at any moment.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// A random number, every bit fair. Not for secrets.
    fn random(&self) -> u64;
}
