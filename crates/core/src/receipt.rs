//! Receipts: what an answer says of itself.

use std::time::Duration;

use crate::entry::Entry;
use crate::version::Version;

/// Where the answer to a read came from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Source {
    /// The near cache.
    Near,
    /// The cache that several nodes share.
    Shared,
    /// A write acknowledged and not yet in the store.
    Dirty,
    /// The store, by a load of this caller's or one shared with others.
    Store,
    /// A copy past its ttl, because the store could not be read (`stale_if_error`).
    Stale,
}

/// What an acknowledged write has survived. Ordered: what comes later is at least as hard to lose, except that
/// [`Shared`](Self::Shared) and [`Journal`](Self::Journal) are lost in different ways.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Durability {
    /// This process's memory: gone with the process. Over a shared cache the memory of the cache: survives every node,
    /// and is gone with the cache.
    Memory,
    /// The shared cache, as durable as it was opened to make it (synced by its server, and acknowledged by so many
    /// replicas): survives every node, and a crash of the cache.
    Shared,
    /// The journal, synced: survives a crash of process and machine. Over a shared cache that has the write too: gone
    /// only if the cache loses it and this node's disk is lost as well.
    Journal,
    /// The shared cache as [`Shared`](Self::Shared) says, and this node's journal, synced: gone only if both are.
    Both,
    /// The store has committed it.
    Store,
}

/// What an answer says of its version, source, age and durability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// The version read or written; [`Version::NONE`] where nothing is known of an absent key.
    pub version: Version,
    /// Where a read came from. For a write: where the newest state now is.
    pub source: Source,
    /// The answer is at most this much older than the newest state acknowledged through this process;
    /// writes that pass by this process are not in it.
    pub age_bound: Duration,
    /// What the state has survived.
    pub durability: Durability,
}

/// The answer to a read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    /// The entry, or nothing if the key is absent.
    pub entry: Option<Entry>,
    /// Where it came from.
    pub receipt: Receipt,
}

/// The answer to a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// Whether the key was present before. A write-back put does not ask the store: it tells what memory
    /// knows, and so may say that a key was not there which only the store has.
    pub existed: bool,
    /// What the acknowledgement is worth.
    pub receipt: Receipt,
}

/// What a flush did for one class, and what is left of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClassFlush {
    /// The name of the class.
    pub class: String,
    /// Its writes that reached the store since the call.
    pub flushed: u64,
    /// Its dirty entries that are not in the store, dead letters not counted.
    pub left: u64,
    /// Its dead letters.
    pub parked: u64,
}

/// What `flush` and `drain` did, and what is left.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FlushReport {
    /// Writes that reached the store since the call.
    pub flushed: u64,
    /// Dirty entries that are not in the store, parked ones not counted. They are in the journal if their
    /// class is journalled.
    pub left: u64,
    /// Entries that the store does not take: the dead letters. A flush does not try them again.
    pub parked: u64,
    /// The same by class: every write-back class, or the one that was asked for.
    pub classes: Vec<ClassFlush>,
}

impl FlushReport {
    /// True if the store has everything.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.left == 0 && self.parked == 0
    }
}
