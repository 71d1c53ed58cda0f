//! The part of the shared cache that write-back needs: writes that are acknowledged and not yet in the store.
//!
//! A dirty entry keeps its change, its version and its *base*: the version of the row it was made over, where that
//! is known. It is served like a clean one, lives until the store has it, and survives a new generation. Each
//! shard lists its dirty entries, the oldest first, so that any node can flush them: a node *claims* some for a
//! while, brings them to the store guarded by version, and says what became of each. A claim is for efficiency only:
//! one that two nodes flush at the same time is applied once, by its version.

use std::sync::Arc;
use std::time::Duration;

use super::shared_cache::{Each, Held, Life, Shard, SharedError, SharedKey, Value};
use super::{BoxFuture, Timestamp};
use crate::version::Version;

/// What a key must hold for a write to be made over it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// Whatever it holds.
    Any,
    /// A clean, dirty or parked entry of this version; a key known to be absent counts as the version of that
    /// knowledge. An absent entry does not fit: who depends on the present state fills it first.
    Version(Version),
}

/// A write to be acknowledged when it is in the cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    /// The key.
    pub key: SharedKey,
    /// What it is to hold; nothing to delete it.
    pub value: Option<Value>,
    /// What it must hold now.
    pub expected: Expected,
    /// When the write was made, by the clock of the layer: the age of the entry, unless it was dirty before.
    pub now: Timestamp,
    /// The most bytes (keys and values, with [`ENTRY_OVERHEAD_BYTES`] each) that the shard may have dirty after it.
    /// A write that does not make its shard larger is always let in.
    pub shard_bytes_max: u64,
}

/// Counted for each dirty entry beside its key and value.
pub const ENTRY_OVERHEAD_BYTES: u64 = 128;

/// What became of a put. Where several are so, the first of `Busy`, `Changed` and `Full`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutOutcome {
    /// It is dirty.
    Dirty {
        /// Newer than whatever the key held; even, and in the shard's generation unless the key held something of a
        /// later one: the next even one after all that the shard gave out before, what the key held, and the first
        /// of the generation.
        version: Version,
        /// Whether the key was present before, if the cache knew.
        existed: Option<bool>,
        /// The base of the entry, as in [`Claimed::base`]: for a journal, whose record of the write says by it what the
        /// row was, should the cache lose the entry.
        base: Option<Version>,
    },
    /// The key does not hold what was expected. Nothing was done.
    Changed,
    /// The key is in quarantine, or its shard is closed. Nothing was done; it will not be for long.
    Busy,
    /// The shard has as much dirty as it may. Nothing was done.
    Full,
}

/// A dirty entry on its way to the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claimed {
    /// The key.
    pub key: SharedKey,
    /// Its newest write: a value, or nothing for a delete.
    pub held: Held,
    /// The version of the row it was made over, if that is known: the state before the first write that the store
    /// does not have.
    pub base: Option<Version>,
    /// When the oldest write was made that the store does not have: the first one, or the first after the last claim
    /// if what was claimed then is stored; and from when on it is dirty again if it was parked.
    pub since: Timestamp,
}

/// What became of a claimed entry. With any of these the claim is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Flushed {
    /// The store has it: clean, if it was not written again since, with this life; but absent if the shard is closed,
    /// or the write is of an earlier generation than the shard (also if it got a new version by
    /// [`Over`](Self::Over) since), or somebody else's newer version was told of since it became dirty
    /// ([`SharedCache::invalidate`](super::SharedCache::invalidate)). If it was written again, it stays dirty, and this version is its base unless that is newer; if
    /// what the cache has is older than this, because it lost a write, it becomes absent. For a key that is not dirty
    /// any more it is as [`SharedCache::invalidate`](super::SharedCache::invalidate) with this version.
    ///
    /// Where the store has something newer of this cache instead, the entry is [`Dropped`](Self::Dropped): as a clean
    /// one it would be stale.
    Stored(Life),
    /// It could not be brought to the store now: to be claimed again from this moment on. Nothing happens if it is
    /// parked.
    Again(Timestamp),
    /// The row is not what the entry was made over, but of this version, and the entry is to be written over it: it
    /// stays dirty, with that as its base (if it was written again since, and its base is newer, with that), and gets a
    /// new version, newer than both. Nothing happens if it is parked.
    Over(Version),
    /// The store refuses it: parked, with what the store said. Nothing happens if it was written again since.
    Parked(Arc<str>),
    /// It is given up, because the store has something else that is to stay, or something newer of this cache, or
    /// because its dead letter was discarded: absent. Nothing happens if it was written again since.
    Dropped,
}

/// What is dirty in a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShardDirty {
    /// Dirty and parked entries.
    pub entries: u64,
    /// Of these parked.
    pub parked: u64,
    /// Their bytes, counted as in [`Put::shard_bytes_max`].
    pub bytes: u64,
    /// When the oldest write was made that the store does not have, parked ones aside.
    pub oldest: Option<Timestamp>,
}

/// A write out of a journal, which the cache may have lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replay {
    /// The key.
    pub key: SharedKey,
    /// The write and its version.
    pub held: Held,
    /// As in [`Claimed::base`].
    pub base: Option<Version>,
    /// When it was made.
    pub now: Timestamp,
}

/// A parked entry with what the store said of it.
pub type ParkedEntry = (Claimed, Arc<str>);

/// The dirty entries of a shared cache.
pub trait SharedDirty: Send + Sync {
    /// Makes writes. On return with [`PutOutcome::Dirty`] a write is as durable as the cache was opened to make it
    /// (synced by the server, and acknowledged by so many replicas); where that is not known the answer is
    /// [`SharedError::Unavailable`], and the write may have been made.
    fn put<'a>(&'a self, puts: &'a [Put]) -> BoxFuture<'a, Each<PutOutcome>>;

    /// Claims at most `limit` entries of a shard, the oldest first, that nobody has claimed, and none that is parked.
    /// What is not settled within `claim_for` may be claimed again.
    fn claim(
        &self,
        shard: Shard,
        limit: usize,
        now: Timestamp,
        claim_for: Duration,
    ) -> BoxFuture<'_, Result<Vec<Claimed>, SharedError>>;

    /// Says what became of claimed entries, by the version that was claimed. An entry that has another version by now
    /// was written again. True if the entry is not dirty any more: clean, absent or parked.
    fn settle<'a>(
        &'a self,
        flushed: &'a [(SharedKey, Version, Flushed)],
    ) -> BoxFuture<'a, Each<bool>>;

    /// Parked entries of a shard with what the store said, at most `limit`.
    fn parked(
        &self,
        shard: Shard,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<ParkedEntry>, SharedError>>;

    /// Makes parked entries dirty again, by the version that was parked. True if it was.
    fn unpark<'a>(
        &'a self,
        parked: &'a [(SharedKey, Version)],
        now: Timestamp,
    ) -> BoxFuture<'a, Each<bool>>;

    /// Makes writes dirty again that a journal has and the cache may have lost, unless it has the same or something
    /// newer, dirty or clean. True if it was done; then versions given out from now on are newer. Also while the shard is
    /// closed. A key in quarantine answers [`SharedError::Unavailable`]: it is to be tried again. What the cache has
    /// forgotten it cannot compare, so the caller knows from the store that this write is not in it, nor a newer one.
    /// The newer of the bases of both stays, and the older of the ages, of an entry that is dirty already.
    fn replay<'a>(&'a self, replays: &'a [Replay]) -> BoxFuture<'a, Each<bool>>;

    /// What is dirty in shards.
    fn dirty<'a>(&'a self, shards: &'a [Shard]) -> BoxFuture<'a, Each<ShardDirty>>;
}
