//! The one error of the layer: what to do about it, which key and class it concerns, and why.

use std::fmt;
use std::sync::Arc;

use crate::key::Key;
use crate::port::{JournalError, StoreError};

/// What a caller can do about an error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call itself is wrong: a key or value too long, a codec that cannot carry the value. Change it.
    Invalid,
    /// The class takes no writes.
    ReadOnly,
    /// The store will never take this write: a constraint, a type, a privilege. Nothing was written.
    Refused,
    /// The store or the journal could not be reached. Nothing was written; try again later.
    Unavailable,
    /// The write was sent and its outcome is not known: it may be in the store, or appear there later.
    /// Read before deciding what to do.
    Unknown,
    /// A bound was met (loads or writes waiting, dirty bytes, journal size). Nothing was written.
    Overloaded,
    /// A stored value is not what the codec of the class expects.
    Codec,
    /// The gate is closing.
    Closed,
    /// The configuration contradicts itself or the store.
    Configuration,
}

impl ErrorKind {
    /// True if the same call may succeed later without any change.
    #[must_use]
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::Unavailable | Self::Unknown | Self::Overloaded)
    }

    /// One word for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::ReadOnly => "read-only",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Overloaded => "overloaded",
            Self::Codec => "codec",
            Self::Closed => "closed",
            Self::Configuration => "configuration",
        }
    }
}

/// What went wrong. Cloneable, because one failed batch answers many callers. Never holds a value.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: Arc<str>,
    key: Option<Key>,
    class: Option<Arc<str>>,
}

/// What calls of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self {
            kind,
            message: message.to_string().into(),
            key: None,
            class: None,
        }
    }

    pub(crate) fn invalid(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn configuration(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Configuration, message)
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the gate is closed")
    }

    /// The same error, naming the key it concerns.
    #[must_use]
    pub fn with_key(mut self, key: &Key) -> Self {
        self.key = Some(key.clone());
        self
    }

    /// The same error, naming the class it concerns.
    #[must_use]
    pub fn with_class(mut self, class: &Arc<str>) -> Self {
        self.class = Some(Arc::clone(class));
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Why, without the key and the class.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The key it concerns, if it concerns one.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(key) = &self.key {
            write!(f, "; key '{key}'")?;
        }
        if let Some(class) = &self.class {
            write!(f, "; class '{class}'")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.kind.as_str())
    }
}

impl std::error::Error for Error {}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Refused { .. } => ErrorKind::Refused,
            StoreError::Unavailable { .. } | StoreError::Late { .. } => ErrorKind::Unavailable,
            StoreError::Unknown { .. } => ErrorKind::Unknown,
            StoreError::Configuration { .. } => ErrorKind::Configuration,
        };
        Self::new(kind, error)
    }
}

impl From<JournalError> for Error {
    /// A record of a failed append may still be found by a replay, so but for a journal that took
    /// nothing (full, busy, too large), the outcome of the write is unknown.
    fn from(error: JournalError) -> Self {
        let kind = match &error {
            JournalError::Full { .. } | JournalError::Busy { .. } => ErrorKind::Overloaded,
            JournalError::TooLarge { .. } => ErrorKind::Invalid,
            JournalError::Poisoned { .. } | JournalError::Unavailable { .. } => ErrorKind::Unknown,
            JournalError::Corrupt { .. } => ErrorKind::Configuration,
        };
        Self::new(kind, error)
    }
}
