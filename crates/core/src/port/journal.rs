//! The port that makes write-back durable before the store has the write.
//!
//! A journal is a numbered sequence of records. It knows their bytes and not their meaning.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::BoxFuture;

/// The place of a record in its journal: 1 for the first, one more for each next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The place after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A record as it was found at start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replayed {
    /// Its place.
    pub lsn: Lsn,
    /// Its bytes.
    pub record: Bytes,
}

/// Why a journal did not do as asked. Cloneable, because one failed sync answers many callers.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A write or sync failed earlier. What the disk holds is no longer known, so nothing is accepted until
    /// the journal is opened anew; a sync is never tried twice.
    #[error("the journal is poisoned: {message}")]
    Poisoned {
        /// The first failure.
        message: Arc<str>,
    },
    /// There is no room. Nothing was written; try again when there is.
    #[error("the journal is full: {message}")]
    Full {
        /// Which bound was met.
        message: Arc<str>,
    },
    /// A record is damaged where no crash can have damaged it. The journal refuses to open.
    #[error("the journal is corrupt: {message}")]
    Corrupt {
        /// File, offset, and what is wrong there.
        message: Arc<str>,
    },
    /// The journal was closed, or cannot be opened.
    #[error("the journal is unavailable: {message}")]
    Unavailable {
        /// What went wrong.
        message: Arc<str>,
    },
}

impl JournalError {
    /// A journal that accepts nothing more.
    pub fn poisoned(message: impl fmt::Display) -> Self {
        Self::Poisoned {
            message: message.to_string().into(),
        }
    }

    /// No room.
    pub fn full(message: impl fmt::Display) -> Self {
        Self::Full {
            message: message.to_string().into(),
        }
    }

    /// Damage.
    pub fn corrupt(message: impl fmt::Display) -> Self {
        Self::Corrupt {
            message: message.to_string().into(),
        }
    }

    /// Closed, or never opened.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::Unavailable {
            message: message.to_string().into(),
        }
    }
}

/// A durable sequence of records with group commit.
///
/// Opening one repairs a torn tail (the end of a write that a crash cut short, so never acknowledged) and
/// refuses any other damage.
pub trait Journal: Send + Sync + 'static {
    /// Appends records, in this order and next to each other, and returns the place of the last when all of
    /// them are durable. Records appended meanwhile by others share the sync.
    ///
    /// Dropping the future does not take the records back: they may or may not be in the journal.
    ///
    /// # Errors
    /// After an error the records may still be found by a later [`replay`](Journal::replay), except after
    /// [`JournalError::Full`], which wrote nothing.
    fn append(&self, records: Vec<Bytes>) -> BoxFuture<'_, Result<Lsn, JournalError>>;

    /// The place the next appended record would get, or a smaller one: a lower bound for every append that
    /// has not been called yet.
    fn tail(&self) -> Lsn;

    /// Up to `limit` records from `from` on, oldest first; none means the end. Meant for start-up, before
    /// the first append. Records that were trimmed are left out or not, as it suits the journal.
    fn replay(&self, from: Lsn, limit: usize)
    -> BoxFuture<'_, Result<Vec<Replayed>, JournalError>>;

    /// Records before `to` are no longer needed; the journal may remove them when it suits it. Trimming never
    /// removes a record at or after `to`. Smaller marks than earlier ones are ignored.
    fn trim(&self, to: Lsn) -> BoxFuture<'_, Result<(), JournalError>>;

    /// Bytes the journal occupies where it lives.
    fn size_bytes(&self) -> u64;

    /// Finishes the appends under way, syncs, and lets go of files and threads. Later appends answer
    /// [`JournalError::Unavailable`]. Closing twice is the same as once.
    fn close(&self) -> BoxFuture<'_, ()>;
}
