//! Ports: what the layer needs of the world, as small traits with their contracts written at each method.
//!
//! - [`Clock`]: time, sleep, random numbers;
//! - [`Store`]: the system of record;
//! - [`Journal`]: what makes write-back durable before the store has it.
//!
//! [`Rows`] is the short way to a store: reading, writing and listing rows, from which [`RowStore`] makes a
//! [`Store`].
//!
//! Each has a conformance suite in `tidegate-testkit`, run against every implementation. The plainest
//! implementation of each is in [`memory`](crate::memory) and is the reference for the others.

mod clock;
mod journal;
mod rows;
mod store;

use std::future::Future;
use std::pin::Pin;

pub use clock::{Clock, Timestamp};
pub use journal::{Journal, JournalError, Lsn, Replayed};
pub use rows::{Row, RowChange, RowStore, Rows};
pub use store::{
    Batch, Capabilities, Columns, Guard, Known, Outcome, Resolution, RowKey, Store, StoreError,
    Swept, TableId, TableSpec, Ticket, ValueType, Write,
};

/// The future a port returns: boxed, because ports are used as `dyn`; one box a batch, never one a key.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
