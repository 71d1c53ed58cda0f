//! What a key holds: a value, when it dies, and which write it came from.

use bytes::Bytes;

use crate::port::Timestamp;
use crate::version::Version;

/// The longest value taken, in bytes (512 MiB, as Redis has it).
pub const VALUE_BYTES_MAX: usize = 512 * 1024 * 1024;

/// A present key: its value, the end of its life if it has one, and the version of the write that made it.
///
/// `expires_at` is the life of the data, kept in the store; how long a cached copy may be used is another
/// matter and is never shown here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The bytes as they were written.
    pub value: Bytes,
    /// From this moment on the key is absent.
    pub expires_at: Option<Timestamp>,
    /// Orders this write among all writes of the key.
    pub version: Version,
}

impl Entry {
    /// True from the moment `expires_at` names on.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// What a write makes of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The key holds `value` until `expires_at`, or for ever.
    Put {
        /// The bytes to keep.
        value: Bytes,
        /// When the key dies by itself.
        expires_at: Option<Timestamp>,
    },
    /// The key holds a whole number, in decimal, greater by this than before; one that was absent counts as
    /// nought. Its end of life stays.
    Add {
        /// What is added; less than nothing to subtract.
        by: i64,
    },
    /// The key is absent.
    Delete,
}

impl Change {
    /// What the key holds after the change, as the write of `version`. Nothing for an addition, which alone
    /// does not tell.
    #[must_use]
    pub fn to_entry(&self, version: Version) -> Option<Entry> {
        match self {
            Self::Put { value, expires_at } => Some(Entry {
                value: value.clone(),
                expires_at: *expires_at,
                version,
            }),
            Self::Add { .. } | Self::Delete => None,
        }
    }

    /// Length of the value in bytes; nothing for an addition or a delete.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        match self {
            Self::Put { value, .. } => value.len(),
            Self::Add { .. } | Self::Delete => 0,
        }
    }
}
