//! Ports: what the layer needs of the world, as small traits with their contracts written at each method.
//!
//! - [`Clock`]: time, sleep, random numbers;
//! - [`Store`]: the system of record; [`ManyNodes`]: what it offers to several nodes that share it;
//! - [`SharedCache`]: one cache that several nodes see;
//! - [`Journal`]: what makes write-back durable before the store has it.
//!
//! [`Rows`] is the short way to a store: reading, writing and listing rows, from which [`RowStore`] makes a
//! [`Store`].
//!
//! Each has a conformance suite in `tidegate-testkit`, run against every implementation. The plainest
//! implementation of each is in [`memory`](crate::memory) and is the reference for the others.

mod clock;
mod journal;
mod many_nodes;
mod rows;
mod shared_cache;
mod shared_dirty;
mod store;

use std::future::Future;
use std::pin::Pin;

pub use clock::{Clock, Timestamp};
pub use journal::{Journal, JournalError, Lsn, Replayed};
pub use many_nodes::{
    ClassSettings, Horizon, ManyNodes, NODE_LIVE, NODE_REMEMBERED, NodeId, Outside, OutsideChange,
    OutsideCursor, Proof, StoreTime, disagreement,
};
pub use rows::{Row, RowChange, RowStore, Rows};
pub use shared_cache::{
    Ask, Asked, Each, Ended, Facts, Fill, Got, Held, LEASE, Leftover, Life, Mark, Marked, Release,
    SHARDS, Shard, ShardState, SharedCache, SharedError, SharedKey, Token, Value, Watcher,
    shard_of,
};
pub use shared_dirty::{
    Claimed, ENTRY_OVERHEAD_BYTES, Expected, Flushed, ParkedEntry, Put, PutOutcome, Replay,
    ShardDirty, SharedDirty,
};
pub use store::{
    Batch, Capabilities, Columns, Guard, Known, Outcome, Resolution, RowKey, Store, StoreError,
    Swept, TableId, TableSpec, Ticket, ValueType, Write,
};

/// The future a port returns: boxed, because ports are used as `dyn`; one box a batch, never one a key.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
