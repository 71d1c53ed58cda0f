//! What a write-back class does where its writes meet a limit, a broken journal, or somebody else's change.

use std::fmt;
use std::sync::Arc;

use crate::entry::{Change, Entry};
use crate::key::Key;

/// What a write-back write does when the class has as much unflushed as it may: bytes, entries, or age.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum WhenFull {
    /// Waits for the flusher, at most [`Class::block_timeout`](super::Class::block_timeout), then is refused
    /// as overloaded.
    #[default]
    Block,
    /// Is refused as overloaded at once.
    Reject,
    /// Goes to the store before it is acknowledged, after what is dirty of its key. Where the store cannot be
    /// reached it fails as a write-through write does.
    WriteThrough,
}

/// What a journalled write does once the journal accepts nothing more (a failed sync, a closed disk).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum WhenJournalFails {
    /// Is refused as unavailable, until the process is started again.
    #[default]
    Refuse,
    /// Goes to the store before it is acknowledged, after what is dirty of its key.
    WriteThrough,
}

/// Who wins when a row was changed by somebody else since a dirty entry was written over it.
#[derive(Clone, Debug, Default)]
pub enum Conflict {
    /// The row stays. The dirty entry becomes a dead letter, and readers see the row.
    #[default]
    StoreWins,
    /// The dirty entry is written over the row.
    CacheWins,
    /// A function makes one of the two.
    Merge(Merge),
}

/// Makes one state of two that were written apart. Called with the key, what the store has and what this
/// process has (nothing: absent). It must depend on nothing but what it is shown, and be quick.
#[derive(Clone)]
pub struct Merge(Arc<MergeFunction>);

type MergeFunction = dyn Fn(&Key, Option<&Entry>, Option<&Entry>) -> Change + Send + Sync;

impl Merge {
    /// Wraps `function`.
    pub fn new(
        function: impl Fn(&Key, Option<&Entry>, Option<&Entry>) -> Change + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(function))
    }

    /// What the key is to hold, of what the store has and what this process has.
    #[must_use]
    pub fn merge(&self, key: &Key, store: Option<&Entry>, ours: Option<&Entry>) -> Change {
        (self.0)(key, store, ours)
    }
}

impl fmt::Debug for Merge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Merge(..)")
    }
}
