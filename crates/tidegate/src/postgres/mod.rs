//! PostgreSQL (13 or later) as the store: rows that any other client can read.
//!
//! Promises beyond the contract of [`Store`](tidegate_core::port::Store):
//!
//! - A batch is one transaction and mostly two round trips: all statements are sent at once, then the commit.
//! - The version of a write is a number of the sequence, or one more than the version found under the row's
//!   lock if that is greater; so the order of versions of a key is the order of commits, whatever number of
//!   processes write.
//! - A commit whose answer was lost is asked after on another connection before anything is reported.
//! - A server that hangs holds a call no longer than [`PostgresConfig::timeout`].
//!
//! # How writers keep out of each other's way
//!
//! Every transaction that writes holds a shared advisory lock on its tables, and rows are locked in the order
//! of their keys. Most batches take the *plain* way: one upsert per table that leaves aside whatever is not
//! plain (an expired row, a newer row), and a look at the remembered deletions. If anything was left aside,
//! the batch is rolled back and taken the *exact* way: rows are locked, the outcome of every write is decided
//! here as the reference does it, then written. A row that is not there cannot be locked; if another writer
//! made or deleted it in between, or a key that is not there is to be deleted, the batch is taken the exact
//! way once more *alone*, with the advisory lock held exclusively, where nobody is in between.
//!
//! # Beside the tables of classes
//!
//! In the first schema of the search path: the sequence `tidegate_version`, `tidegate_meta` (the generation)
//! and `tidegate_tombstone` (versions of deleted keys). They are made at the start if they are missing.
//!
//! # Limits
//!
//! Keys are at most 2000 bytes, which an index surely takes. Connections are not encrypted yet, and an
//! address that asks for it is refused. A text key whose column does not sort by bytes (`collate "C"`) is
//! scanned by sorting the table for every page.
//!
//! In reading order: [`config`](PostgresConfig), `connect` (connections), `table` (the catalogue), `sql` (the
//! statements of a table), `plan` (a batch, sorted), `apply` (its transaction), `settle` (an answer that was lost), `store` (the port), `error`.

mod apply;
mod config;
mod connect;
mod error;
mod moment;
mod one_trip;
mod plan;
mod session;
mod settle;
mod sql;
mod store;
mod support;
mod table;

pub use config::PostgresConfig;
pub use store::PostgresStore;
