//! Classes of data: a named set of keys with one strategy and one policy.

mod level;
mod pattern;
mod policy;
mod set;

use std::time::Duration;

use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::port::TableSpec;
use crate::receipt::Durability;

pub use level::Level;
pub use pattern::Pattern;
pub use policy::{Conflict, Merge, WhenFull, WhenJournalFails};
pub(crate) use set::ClassSet;

/// The class of every key that no other class names.
pub const DEFAULT_CLASS: &str = "default";

/// The table of the class `default` unless it names another.
pub const DEFAULT_TABLE: &str = "entries";

/// When the store has a write, and what the cache has of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Strategy {
    /// Store first, then cache. The cache never serves what the store does not hold.
    #[default]
    WriteThrough,
    /// Journal and cache first, acknowledged at once; the store follows in batches.
    WriteBack,
    /// Store only; the cached copy is invalidated and reads fill it.
    WriteAround,
    /// Reads as write-through; writes are refused.
    ReadOnly,
    /// No store: what is evicted or expires is gone.
    CacheOnly,
}

impl Strategy {
    /// Its name in configuration, metrics and errors.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WriteThrough => "write-through",
            Self::WriteBack => "write-back",
            Self::WriteAround => "write-around",
            Self::ReadOnly => "read-only",
            Self::CacheOnly => "cache-only",
        }
    }

    /// Every strategy.
    pub const ALL: [Self; 5] = [
        Self::WriteThrough,
        Self::WriteBack,
        Self::WriteAround,
        Self::ReadOnly,
        Self::CacheOnly,
    ];
}

impl std::str::FromStr for Strategy {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == name).ok_or_else(|| {
            Error::configuration(format_args!(
                "strategy '{name}' is none of write-through, write-back, write-around, read-only, cache-only"
            ))
        })
    }
}

/// A named set of keys with one strategy and one policy. Durations of zero mean what their field says.
///
/// ```
/// # use tidegate_core::{Class, Strategy};
/// # use std::time::Duration;
/// let sessions = Class::new("session", "session:*")
///     .strategy(Strategy::WriteBack)
///     .linger(Duration::from_millis(20));
/// assert_eq!(sessions.table.name, "session");
/// ```
#[derive(Clone, Debug)]
pub struct Class {
    /// Its name: letters, digits, `_` and `-`, unique.
    pub name: String,
    /// Which keys belong to it. Of several that match, the longest literal prefix wins.
    pub keys: Pattern,
    /// When the store has a write.
    pub strategy: Strategy,
    /// How fresh reads are where several nodes share a cache.
    pub level: Level,
    /// How typed values become bytes.
    pub codec: Codec,
    /// Its table in the store. Classes may share one.
    pub table: TableSpec,
    /// How long a cached copy may be used, jittered downwards by up to [`ttl_jitter`](Self::ttl_jitter);
    /// nothing means until it is evicted or written.
    pub ttl: Option<Duration>,
    /// The largest share of the ttl taken off at random, so that copies made together do not expire
    /// together. Between 0 and 1.
    pub ttl_jitter: f64,
    /// How long an absent key is remembered as absent; zero: not at all.
    pub negative_ttl: Duration,
    /// How long past its ttl a copy may still be served while the store cannot be read; zero: not at all.
    pub stale_if_error: Duration,
    /// How long a reader waits for a load.
    pub load_timeout: Duration,
    /// Write-back: what an acknowledgement means. [`Durability::Journal`] or [`Durability::Memory`]; over a shared
    /// cache also [`Durability::Shared`] or [`Durability::Both`].
    pub durability: Durability,
    /// Write-back: how long a dirty entry waits for others to share its batch.
    pub linger: Duration,
    /// Write-back: how many entries make a full batch.
    pub batch: usize,
    /// Write-back: how many bytes (counted as dirty ones are) make a full batch. One write that is larger goes alone.
    pub batch_bytes: u64,
    /// Write-back: the bound on dirty bytes (keys, values and overhead), those on their way to the store and
    /// those it refuses counted.
    pub dirty_bytes_max: u64,
    /// Write-back: the bound on dirty entries, counted like the bytes.
    pub dirty_entries_max: u64,
    /// Write-back: when the oldest dirty entry is older than this, new writes do as at the bounds; nothing
    /// means that age is no bound. Dead letters, which only a person can end, are not counted.
    pub dirty_age_max: Option<Duration>,
    /// Write-back: what a write does at a bound.
    pub when_full: WhenFull,
    /// Write-back: how long a write waits at a bound.
    pub block_timeout: Duration,
    /// Write-back of durability journal: what a write does when the journal accepts nothing more.
    pub when_journal_fails: WhenJournalFails,
    /// Write-back: who wins when a row was changed by somebody else.
    pub conflict: Conflict,
    /// Write-back: values are integers, and additions reach the store as additions, so that another writer
    /// of the same row is not overwritten.
    pub delta: bool,
}

impl Class {
    /// A write-through class of this name for the keys of this pattern, with the table of its own name.
    #[must_use]
    pub fn new(name: impl Into<String>, keys: &str) -> Self {
        let name = name.into();
        Self {
            table: TableSpec::named(&name),
            name,
            keys: Pattern::new(keys),
            strategy: Strategy::default(),
            level: Level::default(),
            codec: Codec::default(),
            ttl: None,
            ttl_jitter: 0.1,
            negative_ttl: Duration::from_secs(1),
            stale_if_error: Duration::ZERO,
            load_timeout: Duration::from_secs(5),
            durability: Durability::Journal,
            linger: Duration::from_millis(50),
            batch: 1000,
            dirty_bytes_max: 64 << 20,
            batch_bytes: 8 << 20,
            dirty_entries_max: 1_000_000,
            dirty_age_max: None,
            when_full: WhenFull::default(),
            block_timeout: Duration::from_secs(5),
            when_journal_fails: WhenJournalFails::default(),
            conflict: Conflict::default(),
            delta: false,
        }
    }

    /// The class of every key that no other class names: write-through, table [`DEFAULT_TABLE`].
    #[must_use]
    pub fn default_class() -> Self {
        Self {
            table: TableSpec::named(DEFAULT_TABLE),
            ..Self::new(DEFAULT_CLASS, "*")
        }
    }

    /// Sets the strategy.
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Sets how fresh reads are where several nodes share a cache.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Sets the codec of typed values.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Sets the table, by its name with the default columns.
    #[must_use]
    pub fn table(mut self, name: &str) -> Self {
        self.table = TableSpec::named(name);
        self
    }

    /// Sets how long a cached copy may be used.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets how long an absent key is remembered.
    #[must_use]
    pub fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = ttl;
        self
    }

    /// Sets how long past its ttl a copy may be served while the store cannot be read.
    #[must_use]
    pub fn stale_if_error(mut self, limit: Duration) -> Self {
        self.stale_if_error = limit;
        self
    }

    /// Sets what a write-back acknowledgement means.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets how long a dirty entry waits for others to share its batch.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Sets how many entries make a full batch.
    #[must_use]
    pub fn batch(mut self, entries: usize) -> Self {
        self.batch = entries;
        self
    }

    /// Sets how many bytes make a full batch.
    #[must_use]
    pub fn batch_bytes(mut self, bytes: u64) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Sets the bound on dirty bytes and what a write does there.
    #[must_use]
    pub fn dirty_bytes_max(mut self, bytes: u64, when_full: WhenFull) -> Self {
        self.dirty_bytes_max = bytes;
        self.when_full = when_full;
        self
    }

    /// Sets the bound on dirty entries.
    #[must_use]
    pub fn dirty_entries_max(mut self, entries: u64) -> Self {
        self.dirty_entries_max = entries;
        self
    }

    /// Sets the age of the oldest dirty entry at which new writes do as at the bounds.
    #[must_use]
    pub fn dirty_age_max(mut self, age: Duration) -> Self {
        self.dirty_age_max = Some(age);
        self
    }

    /// Sets what a write does at a bound.
    #[must_use]
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Sets how long a write waits at a bound.
    #[must_use]
    pub fn block_timeout(mut self, timeout: Duration) -> Self {
        self.block_timeout = timeout;
        self
    }

    /// Sets what a journalled write does when the journal accepts nothing more.
    #[must_use]
    pub fn when_journal_fails(mut self, then: WhenJournalFails) -> Self {
        self.when_journal_fails = then;
        self
    }

    /// Sets who wins when a row was changed by somebody else.
    #[must_use]
    pub fn conflict(mut self, conflict: Conflict) -> Self {
        self.conflict = conflict;
        self
    }

    /// Sets whether additions reach the store as additions.
    #[must_use]
    pub fn delta(mut self, delta: bool) -> Self {
        self.delta = delta;
        self
    }

    /// Refuses what contradicts itself, naming the option.
    pub(crate) fn validate(&self) -> Result<()> {
        let refuse = |option: &str, why: &str| {
            Err(Error::configuration(format_args!(
                "class '{}': {option} {why}",
                self.name
            )))
        };
        let named = !self.name.is_empty()
            && self
                .name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !named {
            return refuse("name", "must be letters, digits, '_' and '-'");
        }
        if !(0.0..=1.0).contains(&self.ttl_jitter) {
            return refuse("ttl_jitter", "must be between 0 and 1");
        }
        if self.ttl.is_some_and(|ttl| ttl.is_zero()) {
            return refuse("ttl", "must not be zero");
        }
        if self.level == Level::Bounded(Duration::ZERO) {
            return refuse(
                "level",
                "'bounded' needs a bound above zero; 'linearizable' has none",
            );
        }
        if self.level == Level::Eventual && self.ttl.is_none() {
            return refuse("level", "'eventual' needs a ttl");
        }
        if self.load_timeout.is_zero() {
            return refuse("load_timeout", "must not be zero");
        }
        if self.batch == 0 {
            return refuse("batch", "must be at least 1");
        }
        if self.dirty_bytes_max == 0 {
            return refuse("dirty_max", "must not be zero");
        }
        if self.batch_bytes == 0 {
            return refuse("batch_bytes", "must not be zero");
        }
        if self.dirty_entries_max == 0 {
            return refuse("dirty_entries_max", "must not be zero");
        }
        if self.dirty_age_max.is_some_and(|age| age.is_zero()) {
            return refuse("dirty_age_max", "must not be zero");
        }
        if self.delta && self.strategy != Strategy::WriteBack {
            return refuse("delta", "is for write-back classes only");
        }
        if self.delta && self.codec == Codec::MessagePack {
            return refuse("delta", "needs integers as text: codec 'json' or 'raw'");
        }
        if self.strategy == Strategy::WriteBack && self.durability == Durability::Store {
            return refuse(
                "durability",
                "of a write-back class is 'journal' or 'memory', and over a shared cache also 'redis' or 'both'",
            );
        }
        Ok(())
    }
}
