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
    /// There is no room. Nothing was taken; try again when there is.
    #[error("the journal is full: {message}")]
    Full {
        /// Which bound was met: the option that sets it, or what the operating system said.
        message: Arc<str>,
    },
    /// Not at this moment: [`submit`](Journal::submit) does not wait. Nothing was taken.
    /// [`room`](Journal::room) waits, and tells whether there will be room.
    #[error("the journal is busy: {message}")]
    Busy {
        /// What is waited for.
        message: Arc<str>,
    },
    /// The records are larger than the journal takes, now and ever. Nothing was taken.
    #[error("too large for the journal: {message}")]
    TooLarge {
        /// Size and limit.
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

    /// Not at this moment.
    pub fn busy(message: impl fmt::Display) -> Self {
        Self::Busy {
            message: message.to_string().into(),
        }
    }

    /// Larger than any room.
    pub fn too_large(message: impl fmt::Display) -> Self {
        Self::TooLarge {
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
///
/// # Keeping it small
/// A journal lets go of its oldest records first: one old record that is still needed keeps all that came
/// after it. The owner therefore asks [`crowded_before`](Journal::crowded_before) now and then. If that names
/// a place, the owner appends those records before it that it still needs once more, waits until the copies
/// are durable, takes their places for those of the originals, and trims. Copies are ordinary records: a
/// crash between the append and the trim leaves both, and a replay must be content with that.
///
/// Copying pays as long as all records still needed are less than about half of
/// [`size_bytes`](Journal::size_bytes); beyond that the journal is large because it must be, and copies would
/// only go round in circles.
pub trait Journal: Send + Sync + 'static {
    /// Takes records, in this order and next to each other, and returns the place of the last at once. It
    /// neither waits nor blocks on the disk, so it may be called under a lock: places follow the order of the
    /// calls. What it takes has room where the journal lives; it is durable when [`wait`](Journal::wait) says
    /// so, and there is no taking it back. Of no records it takes nothing, and returns the place before the
    /// next.
    ///
    /// # Errors
    /// Nothing was taken. [`JournalError::Busy`]: not at this moment; let go of locks and ask
    /// [`room`](Journal::room). [`JournalError::TooLarge`]: never.
    fn submit(&self, records: &[Bytes]) -> Result<Lsn, JournalError>;

    /// Returns when all records up to `last`, which was submitted, are durable. Any number of callers may
    /// wait for one place. Dropping the future changes nothing but that nobody is told.
    ///
    /// # Errors
    /// The records may still be found by a later [`replay`](Journal::replay), or may not.
    fn wait(&self, last: Lsn) -> BoxFuture<'_, Result<(), JournalError>>;

    /// A place up to which all records are durable, as far as is known without waiting: whoever waited for one
    /// record learns of others that the same sync covered. May be behind.
    fn synced(&self) -> Lsn {
        Lsn(0)
    }

    /// After [`JournalError::Busy`]: returns when these records can be submitted, as far as can be foreseen.
    /// It reserves nothing: others may be faster, so submit in a loop.
    ///
    /// # Errors
    /// [`JournalError::Full`]: there is no room, and none is being made. It comes soon, never after a wait
    /// for somebody to trim.
    fn room(&self, records: &[Bytes]) -> BoxFuture<'_, Result<(), JournalError>>;

    /// [`submit`](Journal::submit), with [`room`](Journal::room) as long as the journal is busy, and
    /// [`wait`](Journal::wait). Records appended meanwhile by others share the sync.
    ///
    /// Dropping the future does not take the records back: they may or may not be in the journal.
    ///
    /// # Errors
    /// After an error the records may still be found by a later [`replay`](Journal::replay), except after
    /// [`JournalError::Full`] and [`JournalError::TooLarge`], which took nothing.
    fn append(&self, records: Vec<Bytes>) -> BoxFuture<'_, Result<Lsn, JournalError>> {
        Box::pin(async move {
            let last = loop {
                match self.submit(&records) {
                    Err(JournalError::Busy { .. }) => self.room(&records).await?,
                    submitted => break submitted?,
                }
            };
            self.wait(last).await?;
            Ok(last)
        })
    }

    /// The place the next submitted record would get, or a smaller one: a lower bound for every submission
    /// that has not been made yet.
    fn tail(&self) -> Lsn;

    /// Up to `limit` records from `from` on, oldest first; none means the end. Meant for start-up, before
    /// the first append. Records that were trimmed are left out or not, as it suits the journal.
    fn replay(&self, from: Lsn, limit: usize)
    -> BoxFuture<'_, Result<Vec<Replayed>, JournalError>>;

    /// Records before `to` are no longer needed; the journal may remove them when it suits it. Trimming never
    /// removes a record at or after `to`. Smaller marks than earlier ones are ignored.
    fn trim(&self, to: Lsn) -> BoxFuture<'_, Result<(), JournalError>>;

    /// The place before which the owner should need nothing, because what it needs there keeps more than half
    /// of the journal's room occupied; none as long as there is room enough, or nothing to be gained. See
    /// [Keeping it small](Journal#keeping-it-small). Cheap; a journal without a bound never asks.
    fn crowded_before(&self) -> Option<Lsn> {
        None
    }

    /// Bytes the journal occupies where it lives.
    fn size_bytes(&self) -> u64;

    /// The most bytes it may occupy, if it has a bound. Constant.
    fn size_bytes_max(&self) -> Option<u64> {
        None
    }

    /// Finishes what was submitted, syncs, and lets go of files and threads. Later appends answer
    /// [`JournalError::Unavailable`]. Closing twice is the same as once.
    fn close(&self) -> BoxFuture<'_, ()>;
}
