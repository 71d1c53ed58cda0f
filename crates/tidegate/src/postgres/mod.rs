//! PostgreSQL (13 or later) as the store: rows that any other client can read.
//!
//! Promises beyond the contract of [`Store`](tidegate_core::port::Store):
//!
//! - A batch is one transaction. Unguarded puts of one table are one statement and one round trip; other batches are
//!   mostly two: all statements are sent at once, then the commit.
//! - The version of a write is a number of the sequence, or one more than the version found under the row's
//!   lock if that is greater; so the order of versions of a key is the order of commits, whatever number of
//!   processes write.
//! - A commit whose answer was lost is asked after on another connection before anything is reported.
//! - What was told not to be written is not written later, and a batch whose caller went away does not come after
//!   a batch that is sent later through the same store.
//! - A server that hangs holds a call no longer than [`PostgresConfig::timeout`], and no more than five seconds
//!   longer if it is to be asked what became of a batch.
//!
//! # How writers keep out of each other's way
//!
//! Every transaction that writes holds a shared advisory lock on its tables, and rows are locked in the order
//! of their keys. Puts of one table take *one trip*: an upsert that commits by itself, or is undone if anything about
//! it is not plain (an expired row, a deletion that is newer). What was undone so, and batches of several tables,
//! take the *plain* way: one upsert per table that leaves aside whatever is not plain, and a look at the remembered
//! deletions. So does a flush over rows that are as it left them. If anything was left aside, the batch is rolled
//! back and taken the *exact* way, as are additions: rows are locked, the outcome of every write is decided here
//! as the reference does it, then written. A row that is not there cannot be locked; if another writer
//! made or deleted it in between, or a key that is not there is to be deleted, the batch is taken the exact
//! way once more *alone*, with the advisory lock held exclusively, where nobody is in between.
//!
//! # Beside the tables of classes
//!
//! In the first schema of the search path: the sequence `tidegate_version`, `tidegate_meta` (the generation),
//! `tidegate_tombstone` (versions of deleted keys; under the name of the table and `(once)` the marks of additions
//! that were applied), `tidegate_session` (how far each connection has come, to tell
//! what became of a batch whose answer was lost; rows without use are removed after a day), `tidegate_node` (the nodes
//! that share the database, with the settings of their classes), `tidegate_outbox` and `tidegate_outbox_start`
//! (changes of others, kept for an hour or two) and the functions `tidegate_mark`, `tidegate_in_time` and
//! `tidegate_key`. They are made at the start if they are missing. A role that is not let into `tidegate_session`
//! can use the store all the same, with two trips for each batch.
//!
//! A table that is made here has the trigger `tidegate_raise`, with a function in the schema of the table: a row that
//! an UPDATE changes and whose version it leaves as it was gets the next odd version, so that the change is seen. A table
//! that is there already gets it if `TableSpec::trigger` asks for it.
//!
//! A table that is opened with `TableSpec::outbox` gets triggers that write what others change into the outbox, by a
//! function in the schema of the store's own tables; `outside` tells how our own writes are told from others'.
//!
//! # Limits
//!
//! Keys are at most 2000 bytes, which an index surely takes. Connections are not encrypted yet, and an
//! address that asks for it is refused. A text key whose column does not sort by bytes (`collate "C"`) is
//! scanned by sorting the table for every page.
//!
//! In reading order: [`config`](PostgresConfig), `connect` (connections), `table` (the catalogue), `ddl` and `schema` (what makes it), `sql` (the
//! statements of a table), `plan` (a batch, sorted), `apply` (its transaction), `exact` (the exact way),
//! `one_trip` (its one statement),
//! `settle` and `session` (an answer that was lost), `outside` (the triggers of the outbox), `store` and `many_nodes`
//! (the ports), `error`.

mod apply;
mod config;
mod connect;
mod ddl;
mod error;
mod exact;
mod many_nodes;
mod moment;
mod one_trip;
mod outside;
mod plan;
mod schema;
mod session;
mod settle;
mod sql;
mod store;
mod support;
mod table;

pub use config::PostgresConfig;
pub use schema::schema;
pub use store::PostgresStore;
