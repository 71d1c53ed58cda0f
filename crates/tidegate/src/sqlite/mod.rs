//! SQLite as the store: one file, nothing to install, readable in the `sqlite3` shell.
//!
//! Promises beyond the contract of [`Store`](tidegate_core::port::Store):
//!
//! - An applied batch is on disk: the journal mode is WAL and every commit is synced.
//! - All writes pass one thread, which commits the batches that wait for it together, each still whole or
//!   not at all. Reads are done by threads of their own and never wait for a write.
//! - Text is kept as TEXT, anything else as BLOB, keys and values alike, so the same bytes are always the
//!   same key. Times are milliseconds since the epoch.
//! - Versions come from a counter in the same transaction, so their order is the order of commits, also
//!   between processes that share the file.
//!
//! Beside the tables of classes it keeps `tidegate_meta` (the generation and the counter of versions) and
//! `tidegate_tombstone` (versions of deleted keys; under the name of the table and `(once)` the marks of additions
//! that were applied). A table that is made here has a trigger, its own name and `_raise`: a row that others update and
//! whose version they leave as it was gets the next odd version, so that the change is seen. A table that is there
//! already gets it if `TableSpec::trigger` asks for it.
//!
//! In reading order: [`config`](SqliteConfig), `connect` (files and threads), `table` (the catalogue),
//! `schema` (what it is made of), `apply` (a batch), `store` (the port), `error`.

mod apply;
mod config;
mod connect;
mod error;
mod schema;
mod store;
mod table;

pub use config::SqliteConfig;
pub use schema::schema;
pub use store::SqliteStore;
