//! The port to the system of record.
//!
//! A store keeps rows in tables: key, value, version, end of life. It applies batches all or nothing, issues
//! versions in commit order from under the row lock, and remembers the versions of deleted keys so that a
//! late write cannot bring one back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{BoxFuture, ManyNodes, StoreTime, Timestamp};
use crate::entry::{Change, Entry};
use crate::key::Key;
use crate::version::Version;

/// A table that [`Store::open_table`] opened. Small and dense: usable as an index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TableId(pub u16);

/// A key in a table.
pub type RowKey = (TableId, Key);

/// How a store table keeps values, where the store tells types apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ValueType {
    /// Text where a value is text, so that a person can read the table, and bytes in a column beside it
    /// where it is not. Takes every value.
    #[default]
    Auto,
    /// Text: values must be UTF-8 without NUL.
    Text,
    /// Raw bytes.
    Bytes,
    /// `json`: values must be JSON; their text is kept as it was written.
    Json,
    /// `jsonb`: values must be JSON; spacing and the order of names are the database's.
    Jsonb,
}

/// The names of a table's columns. Checked and quoted by the store; never taken from a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Columns {
    /// The key, alone in a primary key or unique constraint.
    pub key: String,
    /// The value.
    pub value: String,
    /// The version: a 64-bit integer.
    pub version: String,
    /// The end of life, or nothing if rows of this table live for ever.
    pub expires_at: Option<String>,
    /// When the row was last written, by the clock of the store; for people only.
    pub updated_at: Option<String>,
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            key: "key".into(),
            value: "value".into(),
            version: "version".into(),
            expires_at: Some("expires_at".into()),
            updated_at: Some("updated_at".into()),
        }
    }
}

/// A key-value table as a class names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableSpec {
    /// The name, optionally `schema.table` where the store has schemas.
    pub name: String,
    /// Its columns.
    pub columns: Columns,
    /// How values are kept when the table is made here. An existing table tells its own types.
    pub value_type: ValueType,
    /// Make the table if it does not exist; otherwise a missing table is refused.
    pub create: bool,
    /// Give a table that exists already the trigger that raises the version of a row which others change
    /// ([`Version::raised_outside`]), if it has none; refused where the right is missing. A table that is
    /// made here has it in any case, where the store knows such changes.
    pub trigger: bool,
    /// Keep what others change in the table for [`ManyNodes::outside_changes`], and raise and remember versions also
    /// where they insert and delete rows. Triggers are made if they are missing; refused where the right is missing,
    /// and by a store that is for one node only.
    pub outbox: bool,
}

impl TableSpec {
    /// The default table of this name: default columns, made if missing.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            columns: Columns::default(),
            value_type: ValueType::default(),
            create: true,
            trigger: false,
            outbox: false,
        }
    }
}

/// When a write applies, and who numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guard {
    /// Always; the store issues the version. What write-through and write-around use.
    Always,
    /// Only if the row still has this version, or with nothing is still absent (an expired row is absent);
    /// the store issues the version. What a change that depends on the present value uses.
    Unchanged(Option<Version>),
    /// Only if the version is newer than what the store holds and than what it remembers of a deleted key;
    /// the row takes this version. Applying the same write twice is the same as once.
    IfNewer(Version),
    /// What a flush uses: the row takes `version` if it is still what the write was made over. Applying the
    /// same write twice is the same as once; a row that is not as believed is left alone and its version
    /// told, for the caller to decide whose write it is.
    Flush {
        /// The version the write was made over; [`Version::NONE`] if the key was absent (an expired row is
        /// absent); nothing if it was not looked at, and then anything older than `version` will do.
        base: Option<Version>,
        /// The version of the write.
        version: Version,
    },
    /// What an addition uses, which may stand for several that were made one after the other: only if none of
    /// them was applied before, whatever else happened to the row. With it a mark is set, of its key and the
    /// generation of `version`: everything up to `version` is applied. A mark at or after `version` is
    /// [`Outcome::Superseded`]; one that covers a part is [`Outcome::Conflict`] and tells the mark. So however
    /// often it is sent, also together with later ones, it is applied once.
    ///
    /// The row takes the version, or the next odd one where it has a newer one already. Marks are kept as long
    /// as versions of deleted keys.
    Once {
        /// The version of the first that it stands for.
        since: Version,
        /// The version of the last, of the same generation.
        version: Version,
    },
}

/// What a store knows of a key when it decides on a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// The version of the row, if it is live: there and not expired.
    pub live: Option<Version>,
    /// The newest of its row, expired or not, and of what is remembered of a deletion.
    pub newest: Version,
    /// For [`Guard::Once`]: the last version of the guard's generation that was applied under this guard.
    pub once: Version,
}

impl Guard {
    /// Whether and under which version a write of this guard applies, by what is known of its key: the
    /// version the write brings, or nothing if the store is to issue one greater than the newest known.
    ///
    /// # Errors
    /// The outcome of a write that does not apply.
    pub fn admit(self, known: Known) -> Result<Option<Version>, Outcome> {
        match self {
            Self::Always => Ok(None),
            Self::Unchanged(expected) if expected == known.live => Ok(None),
            Self::Unchanged(_) => Err(Outcome::Changed),
            Self::IfNewer(version) if version > known.newest => Ok(Some(version)),
            Self::IfNewer(_) => Err(Outcome::Superseded),
            Self::Flush { base, version } => {
                let expected = match base {
                    Some(Version::NONE) => known.live.is_none() && version > known.newest,
                    Some(base) => base == known.newest && version > base,
                    None => version > known.newest,
                };
                match expected {
                    true => Ok(Some(version)),
                    // No version is newer than nothing, so a write of that version is of no use.
                    false if version == known.newest => Err(Outcome::Superseded),
                    false => Err(Outcome::Conflict {
                        newest: known.newest,
                    }),
                }
            }
            Self::Once { version, .. } if version <= known.once => Err(Outcome::Superseded),
            Self::Once { since, .. } if since <= known.once => {
                let newest = known.once;
                Err(Outcome::Conflict { newest })
            }
            Self::Once { version, .. } if version > known.newest => Ok(Some(version)),
            Self::Once { .. } => Ok(Some(known.newest.raised_outside())),
        }
    }

    /// The version that comes with the guard, if the caller numbers the write.
    #[must_use]
    pub fn version(self) -> Option<Version> {
        match self {
            Self::Always | Self::Unchanged(_) => None,
            Self::IfNewer(version) | Self::Flush { version, .. } | Self::Once { version, .. } => {
                Some(version)
            }
        }
    }

    /// The key under which a store that keeps marks of [`Guard::Once`] beside the versions of deleted keys
    /// keeps this one: the generation, eight bytes, the greatest first, and then the key.
    #[must_use]
    pub fn once_key(self, key: &Key) -> Option<Key> {
        let Self::Once { version, .. } = self else {
            return None;
        };
        let mut bytes = version.generation().to_be_bytes().to_vec();
        bytes.extend_from_slice(key.as_bytes());
        Some(Key::copy_from(&bytes))
    }
}

/// One write of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// The table.
    pub table: TableId,
    /// The key.
    pub key: Key,
    /// What to make of it.
    pub change: Change,
    /// When it applies.
    pub guard: Guard,
}

/// Writes that commit together or not at all. The caller guarantees that no key stands in it twice.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The writes, in any order.
    pub writes: Vec<Write>,
    /// The present, by the clock of the layer: rows expired by then are absent.
    pub now: Timestamp,
    /// The last moment, by the store's own clock, at which it may be decided that the batch commits. It is applied
    /// only if its transaction, which holds its number in the order of transactions by then
    /// ([`Horizon`](super::Horizon)), finds the clock not past this moment; otherwise nothing is written and the
    /// answer is [`StoreError::Late`]. Nothing: no limit. A store without [`Store::many_nodes`] refuses a limit with
    /// [`StoreError::Configuration`].
    pub commit_by: Option<StoreTime>,
}

impl Batch {
    /// A batch without a limit of time.
    #[must_use]
    pub fn new(writes: Vec<Write>, now: Timestamp) -> Self {
        Self {
            writes,
            now,
            commit_by: None,
        }
    }

    /// The same, to be committed by `limit` or not at all; with nothing there is no limit.
    #[must_use]
    pub fn commit_by(mut self, limit: Option<StoreTime>) -> Self {
        self.commit_by = limit;
        self
    }
}

/// What became of one write of a batch that committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is in the store under this version.
    Applied {
        /// Issued by the store, or the one the guard brought.
        version: Version,
        /// Whether a live row (one not expired) was there before.
        existed: bool,
    },
    /// A [`Change::Add`] is in the store.
    Added {
        /// The version of the row now.
        version: Version,
        /// Whether a live row was there before.
        existed: bool,
        /// What the row came to.
        value: i64,
        /// The end of life of the row, which an addition leaves as it is.
        expires_at: Option<Timestamp>,
    },
    /// [`Guard::IfNewer`]: the store already has, or remembers deleting, this or a newer version.
    /// [`Guard::Flush`]: exactly this version. [`Guard::Once`]: all of it was applied before.
    Superseded,
    /// [`Guard::Flush`]: the row is not what the write was made over. [`Guard::Once`]: a part of it was applied
    /// before. Nothing was written.
    Conflict {
        /// The newest version the store has of the key, or remembers of its deletion;
        /// [`Version::NONE`] if it knows nothing. For [`Guard::Once`] the mark.
        newest: Version,
    },
    /// [`Guard::Unchanged`]: the row is not as the caller believed; nothing was written.
    Changed,
}

impl Outcome {
    /// The version under which the write is in the store, if it was applied.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Applied { version, .. } | Self::Added { version, .. } => Some(*version),
            Self::Superseded | Self::Conflict { .. } | Self::Changed => None,
        }
    }
}

/// Names a batch whose commit was not answered, for [`Store::resolve`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket(pub u64);

/// What became of a batch whose commit was not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// It is in the store.
    Committed,
    /// It is not and never will be.
    Aborted,
    /// The store is still at it; ask again.
    Pending,
    /// The store is too far on to tell. The writer is gone for certain: nothing more will change.
    Forgotten,
}

/// What a sweep did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Expired rows removed.
    pub expired: u64,
    /// Remembered versions of deleted keys dropped.
    pub forgotten: u64,
}

/// What a store is good at, for those who size work for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// How many lanes make sense: about how many batches the store commits at once with profit.
    pub lanes: usize,
    /// The most keys that one call of `load` or `apply` should carry.
    pub batch_max: usize,
    /// Rows survive the end of the process.
    pub durable: bool,
}

/// Why a store did not do as asked. Cloneable, because one failure answers many callers.
///
/// Messages name tables, columns, constraints and codes, and never a value.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// This batch will never succeed as it is: a constraint, a type, a privilege. Nothing was written.
    #[error("the store refused the write: {message}{}", code.as_deref().map(|c| format!(" (code {c})")).unwrap_or_default())]
    Refused {
        /// The index in the batch of the write at fault, where the store can tell.
        item: Option<usize>,
        /// The store's own code (SQLSTATE, SQLite's extended code), where there is one.
        code: Option<Arc<str>>,
        /// What was refused, in words.
        message: Arc<str>,
    },
    /// The store could not be reached, or asked to be tried again. Nothing was written.
    #[error("the store is unavailable: {message}")]
    Unavailable {
        /// What went wrong.
        message: Arc<str>,
    },
    /// The batch came to its commit past [`Batch::commit_by`]. Nothing was written, and nothing will be.
    #[error("the write came too late: {message}")]
    Late {
        /// What was late.
        message: Arc<str>,
    },
    /// The batch was sent to be committed and the answer was lost: it is wholly in the store, or wholly not.
    #[error("the outcome of the write is unknown: {message}")]
    Unknown {
        /// To ask later with, where the store can tell later.
        ticket: Option<Ticket>,
        /// What went wrong.
        message: Arc<str>,
    },
    /// The configuration and the store disagree: a table, a column, a type, an address.
    #[error("{message}")]
    Configuration {
        /// What disagrees, naming the table and column.
        message: Arc<str>,
    },
}

impl StoreError {
    /// A permanent refusal without a known culprit.
    pub fn refused(code: Option<&str>, message: impl fmt::Display) -> Self {
        Self::Refused {
            item: None,
            code: code.map(Arc::from),
            message: message.to_string().into(),
        }
    }

    /// A permanent refusal of the write at `item`.
    pub fn refused_item(item: usize, message: impl fmt::Display) -> Self {
        Self::Refused {
            item: Some(item),
            code: None,
            message: message.to_string().into(),
        }
    }

    /// A failure to try again after.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::Unavailable {
            message: message.to_string().into(),
        }
    }

    /// A batch past its limit of time.
    pub fn late(message: impl fmt::Display) -> Self {
        Self::Late {
            message: message.to_string().into(),
        }
    }

    /// A commit without an answer.
    pub fn unknown(ticket: Option<Ticket>, message: impl fmt::Display) -> Self {
        Self::Unknown {
            ticket,
            message: message.to_string().into(),
        }
    }

    /// A disagreement between configuration and store.
    pub fn configuration(message: impl fmt::Display) -> Self {
        Self::Configuration {
            message: message.to_string().into(),
        }
    }
}

/// The system of record.
///
/// Implementations are shared by all lanes and take calls concurrently. Every call makes its own way to the
/// database: a lost connection is made anew by the next call, not by a restart.
///
/// Inputs are hostile: a key or value that the table's types cannot hold is [`StoreError::Refused`] with the
/// item's index; it is never cut, replaced or a panic.
pub trait Store: Send + Sync + 'static {
    /// One word for people: `postgres`, `sqlite`, `memory`.
    fn name(&self) -> &'static str;

    /// What this store is good at. Constant.
    fn capabilities(&self) -> Capabilities;

    /// Opens a table: makes it if `spec.create` and it is missing, otherwise reads it from the catalogue and
    /// refuses what does not fit with [`StoreError::Configuration`], naming the column. Opening the same
    /// spec twice returns the same id; the same name with other columns is refused.
    fn open_table<'a>(&'a self, spec: &'a TableSpec) -> BoxFuture<'a, Result<TableId, StoreError>>;

    /// Takes a new generation, durably: greater than every one taken before and at least `at_least`. On
    /// return, every version this store issues is at least [`Version::compose`]`(generation, 0)`.
    fn open_generation(&self, at_least: u64) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Reads rows: one answer per key, in the order asked; absent and expired rows are `None`. The state read
    /// is the state at some moment between call and return, never an earlier one. Keys may repeat. A key the
    /// table's key type cannot hold is simply absent. Safe to drop.
    fn load<'a>(
        &'a self,
        keys: &'a [RowKey],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Option<Entry>>, StoreError>>;

    /// Whether a write can be seen to be refused without asking the database: a key or an end of life that
    /// its column cannot hold. Asked before a write-back write is acknowledged, so that its caller learns of
    /// it. A store that sees nothing wrong may still refuse when it is to [`apply`](Store::apply).
    ///
    /// # Errors
    /// [`StoreError::Refused`], as `apply` would answer.
    fn check(&self, write: &Write) -> Result<(), StoreError> {
        let _ = write;
        Ok(())
    }

    /// Applies a batch in one transaction: one outcome per write, in the order given, or an error and none
    /// of it. On return with outcomes the batch is durable and seen by every later `load`.
    ///
    /// Versions issued for a key rise strictly in commit order and are never used again, also after a
    /// delete. A delete that removed a row, and a guarded delete in any case, leaves its version remembered
    /// until [`Store::sweep`] drops it.
    ///
    /// A [`Change::Add`] reads the row under its lock, as text of a whole number
    /// ([`integer`](crate::integer)), and answers [`Outcome::Added`]; a live row keeps its end of life. What is no
    /// such number, or would leave the range of `i64`, is [`StoreError::Refused`] with the item's index.
    ///
    /// If the future is dropped the batch is wholly applied or wholly not, and which is not known.
    ///
    /// # Errors
    /// [`StoreError::Refused`], [`StoreError::Unavailable`] and [`StoreError::Late`] mean that nothing was written;
    /// [`StoreError::Unknown`] that the commit was sent and its answer lost.
    fn apply<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Vec<Outcome>, StoreError>>;

    /// Tells what became of a batch that ended in [`StoreError::Unknown`].
    fn resolve(&self, ticket: Ticket) -> BoxFuture<'_, Result<Resolution, StoreError>>;

    /// The live rows of a table with a key greater than `after`, in the order of key bytes, at most `limit`.
    /// Fewer than `limit` means the end was reached.
    fn scan<'a>(
        &'a self,
        table: TableId,
        after: Option<&'a Key>,
        limit: usize,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<(Key, Entry)>, StoreError>>;

    /// The number of live rows in a table.
    fn count(&self, table: TableId, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Removes at most `limit` expired rows of a table, remembering their versions, and drops at most
    /// `limit` of the table's remembered versions older than `remember`, and as many marks of
    /// [`Guard::Once`].
    fn sweep(
        &self,
        table: TableId,
        now: Timestamp,
        remember: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Swept, StoreError>>;

    /// What the store offers to several nodes that share it; nothing if it is for one node only.
    fn many_nodes(&self) -> Option<&dyn ManyNodes> {
        None
    }

    /// Returns if the store answers.
    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Finishes what is under way and lets go of connections, files and threads. Later calls answer
    /// [`StoreError::Unavailable`]. Closing twice is the same as once.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// The value of a put, if the write is one.
impl Write {
    /// The bytes to be put, or nothing for a delete.
    #[must_use]
    pub fn value(&self) -> Option<&Bytes> {
        match &self.change {
            Change::Put { value, .. } => Some(value),
            Change::Add { .. } | Change::Delete => None,
        }
    }

    /// When the row to be put dies, if it does.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        match self.change {
            Change::Put { expires_at, .. } => expires_at,
            Change::Add { .. } | Change::Delete => None,
        }
    }
}
