//! The layer between an application and its database.
//!
//! Every write of a key goes through the cache to the store, back to it later, or around the cache, as the
//! key's class says; every read is served from memory when it can be. This crate holds the words, the ports
//! and the layer itself; it knows no driver, no socket, no file, no clock and no random number, except
//! through a [port]. Applications use the crate `tidegate`, which adds the adapters and re-exports all of
//! this.
//!
//! In reading order: vocabulary ([`Key`], [`Entry`], [`Version`], [`Error`], [`Receipt`], [`Class`]), the
//! [ports](port) and their [reference implementations](memory), the near cache, the lanes, the strategies,
//! and the [`Gate`] that holds it all.
//!
//! ```
//! use tidegate_core::memory::{MemoryJournal, MemoryStore};
//! use tidegate_core::{Class, Gate, Strategy};
//! # use tidegate_core::port::{BoxFuture, Clock, Timestamp};
//! # use std::time::Duration;
//! # struct SystemClock;
//! # impl Clock for SystemClock {
//! #     fn now(&self) -> Timestamp { Timestamp::from_millis(0) }
//! #     fn elapsed(&self) -> Duration { Duration::ZERO }
//! #     fn sleep(&self, d: Duration) -> BoxFuture<'static, ()> { Box::pin(tokio::time::sleep(d)) }
//! #     fn random(&self) -> u64 { 4 }
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let gate = Gate::builder()
//!     .clock(SystemClock)
//!     .store(MemoryStore::new())
//!     .journal(MemoryJournal::new())
//!     .class(Class::new("session", "session:*").strategy(Strategy::WriteBack))
//!     .open()
//!     .await?;
//! gate.set("session:1", "in the cache now, in the store soon").await?;
//! gate.set("order:1", "in the store before this returns").await?;
//! assert!(gate.drain(Duration::from_secs(5)).await?.is_complete());
//! # Ok(())
//! # })
//! # }
//! ```

mod age;
mod backoff;
mod breaker;
mod budget;
mod class;
mod codec;
mod conflict;
mod dead_letters;
mod delta;
mod entry;
mod error;
mod explain;
mod flush;
mod gate;
mod hash;
mod keeper;
mod key;
mod lane;
mod layer;
pub mod memory;
#[cfg(feature = "mutation")]
#[doc(hidden)]
pub mod model;
mod mutation;
mod near;
pub mod port;
mod read;
mod receipt;
mod record;
mod recover;
mod scan;
mod secure;
mod shared;
mod stats;
mod strategy;
mod sweep;
mod version;
mod write;

pub use breaker::BreakerState;
pub use class::{
    Class, Conflict, DEFAULT_CLASS, DEFAULT_TABLE, Level, Merge, Pattern, Strategy, WhenFull,
    WhenJournalFails,
};
pub use codec::Codec;
pub use dead_letters::{DeadLetter, DeadLetterReason};
pub use delta::{SumError, integer, sum};
pub use entry::{Change, Entry, VALUE_BYTES_MAX};
pub use error::{Error, ErrorKind, Result};
pub use explain::{Explanation, SharedState, State};
pub use gate::{Gate, GateBuilder, Typed};
pub use key::{KEY_BYTES_MAX, Key};
#[cfg(feature = "mutation")]
#[doc(hidden)]
pub use mutation::Mutation;
pub use near::NearStats;
pub use read::Lookup;
pub use receipt::{ClassFlush, Durability, FlushReport, Read, Receipt, Source, Written};
pub use scan::ScanCursor;
pub use shared::{Audit, Demands, Session, SharedStats};
pub use stats::{ClassStats, Stats};
pub use version::{GENERATION_MAX, Version};
