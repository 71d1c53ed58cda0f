//! The port to the shared cache: one cache that several nodes see, in front of one store.
//!
//! Every key is in one state, and every method below is a set of transitions of it, each key's by itself and
//! all at once (the cache does one thing at a time to a key):
//!
//! | state | holds | served | ends by itself |
//! |---|---|---|---|
//! | absent | | | |
//! | lease | the token of the one reader that may fill | no | after the lease time: a fill comes too late, no more |
//! | clean | a version and what the key holds in it | yes | after its time to live |
//! | quarantine | the tokens of writes whose end is not known, and the newest they brought | no: readers ask the store and fill nothing | never |
//! | dirty | an acknowledged write that the store does not have | yes | never |
//! | parked | the same, which the store refuses | yes | never |
//!
//! A transition that a method does not name is refused. What ends never by itself must not be evicted either.
//!
//! Keys are spread over shards by [`shard_of`]. A shard has a *generation*, given out by the store, that rises
//! whenever the cache may have lost something: it was emptied, restarted, or another server took over. Leases,
//! clean entries and quarantines of another generation than the shard's are absent; dirty and parked entries,
//! which were acknowledged, stay. After a new generation the shard is *closed* (no leases, and a quarantine that
//! opens meanwhile never becomes clean) until whoever raised it has proof that no write of before is still under
//! way in the store, and opens it.
//!
//! Why each rule is needed, with a counterexample for each: the exhaustive test
//! `crates/testkit/tests/every_order_shared.rs`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::shared_dirty::SharedDirty;
use super::{BoxFuture, StoreTime, Timestamp};
use crate::key::Key;
use crate::version::Version;

/// How many shards there are unless the configuration says otherwise. Every node must say the same.
pub const SHARDS: u16 = 256;

/// How long a lease holds unless the configuration says otherwise.
pub const LEASE: Duration = Duration::from_secs(1);

/// A part of the keys, in one place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Shard(pub u16);

/// The shard of a key, the same on every node: CRC-32 (IEEE) of its bytes, modulo the number of shards.
#[must_use]
pub fn shard_of(key: &Key, shards: u16) -> Shard {
    let hash = crc32fast::hash(key.as_bytes());
    Shard(u16::try_from(hash % u32::from(shards.max(1))).unwrap_or(0))
}

/// A key of a class. A key belongs to one class at a time, and what the cache has of it under another is
/// another entry.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SharedKey {
    /// The name of its class.
    pub class: Arc<str>,
    /// The key.
    pub key: Key,
}

/// Names one lease or one write. Drawn at random by whoever uses it, and used once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Token(pub u64);

/// What a key holds in one version.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Held {
    /// The version; [`Version::NONE`] where nothing is known of an absent key.
    pub version: Version,
    /// Its value, or nothing if the key is absent.
    pub value: Option<Value>,
}

/// The value of a present key.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Value {
    /// The bytes as they were written.
    pub bytes: Bytes,
    /// From this moment on the key is absent.
    pub expires_at: Option<Timestamp>,
}

/// How long an entry that becomes clean may be used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Life {
    /// From then on it is served only to whom a past age is good enough, and one reader is asked to load it anew.
    pub fresh_until: Timestamp,
    /// It is gone after this. Never nothing.
    pub kept_for: Duration,
}

/// What [`SharedCache::get`] finds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Got {
    /// May be served.
    Clean {
        /// What it holds.
        held: Held,
        /// When it is no longer fresh.
        fresh_until: Timestamp,
    },
    /// May be served, and the store does not have it.
    Dirty(Held),
    /// May be served, and the store refuses it.
    Parked(Held),
    /// Nothing that may be served: absent, leased, in quarantine, or of another generation.
    Nothing,
}

/// One reader that wants to load a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// The key.
    pub key: SharedKey,
    /// For the lease, if this reader gets it.
    pub token: Token,
}

/// What a reader is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Serve this.
    Found(Got),
    /// Load the key from the store, after this answer, and fill it with the token. What is found past its
    /// freshness is here too, for whom that is good enough should the store not answer.
    Lease(Option<Held>),
    /// Another reader loads it: ask again soon. What is past its freshness is here too.
    Wait(Option<Held>),
    /// Load the key from the store, after this answer, and fill nothing: a write of it is under way, or the
    /// shard is closed.
    Bypass,
}

/// What a reader loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fill {
    /// The key.
    pub key: SharedKey,
    /// Of its lease.
    pub token: Token,
    /// What the store had.
    pub held: Held,
    /// For how long it may be used.
    pub life: Life,
}

/// A write that is about to be sent to the store, or is on its way there, and is not yet committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The key.
    pub key: SharedKey,
    /// Of the write.
    pub token: Token,
    /// The store will not let it commit after this.
    pub commit_by: StoreTime,
}

/// What became of a mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Marked {
    /// From now on nobody is served the key from the cache, until it is released.
    Quarantined,
    /// The key is dirty or parked: nothing was done. It must be flushed first.
    Dirty,
}

/// How a marked write ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It is in the store, and this is what the key held after it.
    Committed {
        /// With the version that the store gave it.
        held: Held,
        /// For how long it may be used.
        life: Life,
    },
    /// It is in the store under this version, and the cache is not to have it.
    CommittedUnseen(Version),
    /// It is not in the store and never will be.
    Aborted,
}

/// The end of a marked write, known for certain. A write whose end is not known is not released.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Release {
    /// The key.
    pub key: SharedKey,
    /// Of the write.
    pub token: Token,
    /// How it ended.
    pub ended: Ended,
}

/// A mark that nobody released.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leftover {
    /// The key.
    pub key: SharedKey,
    /// Of the write.
    pub token: Token,
    /// The store did not let it commit after this.
    pub commit_by: StoreTime,
}

/// What the cache has of a shard's generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardState {
    /// The shard.
    pub shard: Shard,
    /// Its generation; 0 if it never had one, or lost it.
    pub generation: u64,
    /// Whether the generation was raised for the server that answers now. If not, every other method answers
    /// [`SharedError::NeedsGeneration`] for its keys.
    pub is_current: bool,
    /// Whether leases are given.
    pub is_open: bool,
}

/// Why the cache did not do as asked. Cloneable, because one failure answers many callers. Messages never tell a
/// value.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharedError {
    /// It could not be reached, or did not answer in time, or has no room. What was asked may have been done.
    #[error("the shared cache is unavailable: {message}")]
    Unavailable {
        /// What went wrong.
        message: Arc<str>,
    },
    /// The shard has no generation of the server that answers: that one was started, emptied, or took over. Nothing
    /// was done. The shard needs a new generation ([`SharedCache::open_generation`]).
    #[error("shard {} of the shared cache needs a new generation", .shard.0)]
    NeedsGeneration {
        /// The shard.
        shard: Shard,
    },
    /// The configuration and the cache disagree.
    #[error("{message}")]
    Configuration {
        /// What disagrees, and what to change.
        message: Arc<str>,
    },
}

impl SharedError {
    /// A failure to try again after.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::Unavailable {
            message: message.to_string().into(),
        }
    }

    /// A disagreement between configuration and cache.
    pub fn configuration(message: impl fmt::Display) -> Self {
        Self::Configuration {
            message: message.to_string().into(),
        }
    }
}

/// One answer for each thing asked, in the order asked: what is wrong with one says nothing of the others.
pub type Each<T> = Vec<Result<T, SharedError>>;

/// How the servers of a shared cache are set up: of several the worst.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// What the server calls itself and its version, for messages: `redis 7.0.15`.
    pub server: String,
    /// It may evict entries that have no time to live: quarantines and dirty entries would be lost.
    pub evicts_what_must_stay: bool,
    /// Its own name for its eviction policy.
    pub eviction: String,
    /// What it has acknowledged survives its crash: every write is synced before it is answered.
    pub syncs_always: bool,
    /// Its own words for how it persists.
    pub persistence: String,
    /// How many replicas acknowledge in time.
    pub replicas: u32,
}

/// Is told what changes in the shared cache.
pub trait Watcher: Send + Sync {
    /// The entry of this key changed in some way: a copy of it may be outdated.
    fn changed(&self, key: &SharedKey);

    /// Anything may have changed unseen.
    fn lost(&self);

    /// Every change made before this moment of [`Clock::elapsed`](super::Clock::elapsed) has been told.
    fn fence(&self, at: Duration);
}

/// The shared cache: every key is absent, leased, clean, in quarantine, dirty or parked, and each method is a set of
/// transitions between these.
///
/// Every method takes many things and does each by itself; a caller may rely on no order among them. Each goes out
/// as one pipeline for each server. Safe to drop: what was sent may have been done.
pub trait SharedCache: SharedDirty {
    /// How many shards there are.
    fn shards(&self) -> u16;

    /// How long a lease holds at most. Who waits for another's load waits no longer than this.
    fn lease_time(&self) -> Duration {
        LEASE
    }

    /// How many replicas must have a put before it is acknowledged: with fewer of them none ever is.
    fn replicas_needed(&self) -> u32 {
        0
    }

    /// What an operator set up the cache to do, for the audit at start.
    fn facts(&self) -> BoxFuture<'_, Result<Facts, SharedError>>;

    /// Looks, and changes nothing. The state is that of some moment between call and return, and what is served
    /// was servable then, also by the shard's generation and the server's identity.
    fn get<'a>(&'a self, keys: &'a [SharedKey]) -> BoxFuture<'a, Each<Got>>;

    /// As [`get`](Self::get), and decides who loads what may not be served. An absent key of an open shard is leased
    /// to the caller; of a closed one it is [`Asked::Bypass`]. A leased key is [`Asked::Wait`]. A key in quarantine is
    /// [`Asked::Bypass`]. A clean entry that is not fresh at `now` is leased too, and stays as it is meanwhile.
    fn ask<'a>(&'a self, asks: &'a [Ask], now: Timestamp) -> BoxFuture<'a, Each<Asked>>;

    /// Makes a key clean, if it is still leased to this token and nothing else happened to it since: true. A clean
    /// entry is filled anew only with a version not older than its own. Otherwise false, and nothing is done.
    fn fill<'a>(&'a self, fills: &'a [Fill]) -> BoxFuture<'a, Each<bool>>;

    /// Quarantines keys. Whatever a key was before (unless dirty or parked) it is not served from the return of this
    /// on. Marks add up: a key is in quarantine until each is released or swept. One that is opened while the shard is
    /// closed is *tainted*, and so is one that is marked while it is. Marking with a token twice is the same as once.
    fn mark<'a>(&'a self, marks: &'a [Mark]) -> BoxFuture<'a, Each<Marked>>;

    /// Takes a mark away. When the last one goes, the key becomes clean with the newest state that any of them
    /// brought; or absent, if the quarantine is tainted, or none brought one, or something newer than that is known
    /// to be in the store.
    ///
    /// A release whose mark is not there (it was swept, or the cache lost it) brings nothing: it taints a
    /// quarantine, and makes an older clean entry, and a lease, absent.
    fn release<'a>(&'a self, releases: &'a [Release]) -> BoxFuture<'a, Each<()>>;

    /// Marks of `shard` with a `commit_by` before `before`, at most `limit`.
    fn leftovers(
        &self,
        shard: Shard,
        before: StoreTime,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Leftover>, SharedError>>;

    /// Takes marks away that nobody released, and taints the quarantine. The caller has proof that the write is over
    /// in the store: committed and seen by every load from now on, or aborted.
    fn sweep<'a>(&'a self, marks: &'a [(SharedKey, Token)]) -> BoxFuture<'a, Each<()>>;

    /// The store has this version, by somebody else. An older clean entry and a lease become absent; a quarantine
    /// remembers it, and does not become clean with anything older; a dirty or parked entry stays, for its flush to
    /// find out, and remembers it likewise.
    fn invalidate<'a>(&'a self, changed: &'a [(SharedKey, Version)]) -> BoxFuture<'a, Each<()>>;

    /// Makes keys absent, whatever was clean or leased. What is in quarantine, dirty or parked stays.
    fn evict<'a>(&'a self, keys: &'a [SharedKey]) -> BoxFuture<'a, Each<()>>;

    /// As [`evict`](Self::evict), of every key of every class.
    fn clear(&self) -> BoxFuture<'_, Result<(), SharedError>>;

    /// What the cache has of the generation of these shards.
    fn shard_states<'a>(&'a self, shards: &'a [Shard]) -> BoxFuture<'a, Each<ShardState>>;

    /// Gives shards a generation, which the store has just given out, and closes them; unless a shard has one that is
    /// current by now, or as great. Answers what the shard has then.
    fn open_generation<'a>(
        &'a self,
        shards: &'a [Shard],
        generation: u64,
    ) -> BoxFuture<'a, Each<ShardState>>;

    /// Opens shards that still have this generation. The caller has proof that every write that was under way in the
    /// store when it was raised is over. True if a shard is open with it now.
    fn open<'a>(&'a self, shards: &'a [Shard], generation: u64) -> BoxFuture<'a, Each<bool>>;

    /// Begins to tell `watcher` of every change to every key, at least one fence every `every`, until the cache is
    /// closed. On return the watch is on. One that breaks off says that it is [`lost`](Watcher::lost), and is taken up
    /// again; there is no fence in between.
    fn watch(
        &self,
        watcher: Arc<dyn Watcher>,
        every: Duration,
    ) -> BoxFuture<'_, Result<(), SharedError>>;

    /// Returns if the cache answers.
    fn ping(&self) -> BoxFuture<'_, Result<(), SharedError>>;

    /// Lets go of connections. Later calls answer [`SharedError::Unavailable`].
    fn close(&self) -> BoxFuture<'_, ()>;
}
