//! Write-through, write-back, write-around or a mix, per class of data, between an application and its
//! database.
//!
//! A [`Gate`] stands between the application and its store. Each [`Class`] of keys has its own [`Strategy`];
//! what belongs to no class is write-through. Reads are served from memory when they can be; misses of one
//! key share one load.
//!
//! ```
//! # use std::time::Duration;
//! use tidegate::{Class, Strategy};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let gate = tidegate::builder()
//!     .near_bytes(64 << 20)
//!     .store_arc(tidegate::open_store(&format!("sqlite:{}", folder.join("shop.db").display())).await?)
//!     .journal_arc(tidegate::open_journal(&folder.join("journal")).await?)
//!     .class(Class::new("session", "session:*").strategy(Strategy::WriteBack))
//!     .class(Class::new("view", "view:*").strategy(Strategy::WriteAround).ttl(Duration::from_secs(60)))
//!     .open()
//!     .await?;
//!
//! gate.set("order:7", "paid").await?; // write-through: in the database now
//! gate.set("session:1", "{}").await?; // write-back: synced to the journal, in the database soon
//! assert_eq!(gate.get("order:7").await?.as_deref(), Some(&b"paid"[..]));
//!
//! let report = gate.drain(Duration::from_secs(10)).await?;
//! assert!(report.is_complete());
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `sqlite` | yes | SQLite as the store; nothing to install |
//! | `journal` | yes | the local journal: write-back that survives `kill -9` |
//! | `postgres` | no | PostgreSQL as the store |
//! | `redis` | no | Redis or Valkey, also a cluster, as the cache that several nodes share |

mod clock;
#[cfg(feature = "journal")]
pub mod journal;
mod open;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use clock::SystemClock;
#[cfg(feature = "journal")]
pub use open::{open_journal, open_journal_with};
#[cfg(feature = "redis")]
pub use open::{open_shared, open_shared_with};
pub use open::{open_store, store_schema};
pub use tidegate_core::*;

/// Begins to build a gate with the system's clock.
pub fn builder() -> GateBuilder {
    Gate::builder().clock(SystemClock::new())
}

/// The programs of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
mod readme {}
