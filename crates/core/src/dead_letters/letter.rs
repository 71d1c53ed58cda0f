//! A dead letter, as it is shown, and what is kept of why it is one.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;
use crate::key::Key;
use crate::port::{StoreError, Timestamp};
use crate::version::Version;

/// The longest code and message kept, in bytes.
const CODE_BYTES_MAX: usize = 64;
const MESSAGE_BYTES_MAX: usize = 1024;

/// Why a write is a dead letter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DeadLetterReason {
    /// The store refused it for good: a constraint, a type, a privilege. Readers see the write.
    Refused,
    /// Somebody else changed the row, and the class lets the store win. Readers see the row.
    Conflict,
}

impl DeadLetterReason {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Conflict => "conflict",
        }
    }
}

impl fmt::Display for DeadLetterReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A write that was acknowledged and that the store does not take: kept until it is retried with success,
/// edited, discarded, or superseded by a newer write of its key.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The key.
    pub key: Key,
    /// Its class.
    pub class: String,
    /// The version of the write. A retry keeps it, so it never overwrites something newer.
    pub version: Version,
    /// True if the write is a delete.
    pub is_delete: bool,
    /// True if the write is an addition, in a class of [deltas](crate::Class::delta): a retry adds to what the row then
    /// holds.
    pub is_addition: bool,
    /// What is to be added, if the write is an addition; nothing in a list.
    pub added: Option<i128>,
    /// The value, which of an addition is the sum that readers see; nothing for a delete, and in a list.
    pub value: Option<Bytes>,
    /// Length of the value, also where it is not shown.
    pub value_bytes: usize,
    /// When the data dies by itself.
    pub expires_at: Option<Timestamp>,
    /// Why it is a dead letter.
    pub reason: DeadLetterReason,
    /// The store's own code (SQLSTATE, SQLite's extended code), where there is one.
    pub code: Option<String>,
    /// What the store said. Holds no value.
    pub message: String,
    /// How often the store refused it. Failures to reach the store are not counted.
    pub attempts: u32,
    /// When it was first refused.
    pub first_at: Timestamp,
    /// When it was last refused.
    pub last_at: Timestamp,
}

impl fmt::Debug for DeadLetter {
    /// Without the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("key", &self.key)
            .field("class", &self.class)
            .field("version", &self.version)
            .field("is_delete", &self.is_delete)
            .field("is_addition", &self.is_addition)
            .field("value_bytes", &self.value_bytes)
            .field("reason", &self.reason)
            .field("code", &self.code)
            .field("message", &self.message)
            .field("attempts", &self.attempts)
            .field("first_at", &self.first_at)
            .field("last_at", &self.last_at)
            .finish_non_exhaustive()
    }
}

/// Why, how often and since when the store does not take a write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: DeadLetterReason,
    pub(crate) code: Option<Arc<str>>,
    pub(crate) message: Arc<str>,
    pub(crate) attempts: u32,
    pub(crate) first_at: Timestamp,
    pub(crate) last_at: Timestamp,
}

impl Refusal {
    /// A first refusal.
    pub(crate) fn new(
        reason: DeadLetterReason,
        code: Option<&str>,
        message: &str,
        now: Timestamp,
    ) -> Self {
        Self {
            reason,
            code: code.map(|code| cut(code, CODE_BYTES_MAX).into()),
            message: cut(message, MESSAGE_BYTES_MAX).into(),
            attempts: 1,
            first_at: now,
            last_at: now,
        }
    }

    /// What the store said.
    pub(crate) fn of(error: &StoreError, now: Timestamp) -> Self {
        let code = match error {
            StoreError::Refused { code, .. } => code.as_deref(),
            _ => None,
        };
        Self::new(
            DeadLetterReason::Refused,
            code,
            Error::from(error.clone()).message(),
            now,
        )
    }

    /// This refusal as one more of the same write.
    pub(crate) fn after(mut self, earlier: &Self) -> Self {
        self.attempts = earlier.attempts.saturating_add(1);
        self.first_at = earlier.first_at;
        self
    }
}

/// At most `max` bytes of `text`, whole characters.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_says_is_bounded_and_counted() {
        let at = Timestamp::from_millis;
        let long = "ä".repeat(2000);
        let first = Refusal::of(&StoreError::refused(Some("23514"), &long), at(5));
        assert_eq!((first.attempts, first.code.as_deref()), (1, Some("23514")));
        assert!(
            first.message.len() <= MESSAGE_BYTES_MAX,
            "cut between characters"
        );
        let second = Refusal::of(&StoreError::refused(None, "no"), at(9)).after(&first);
        assert_eq!(
            (second.attempts, second.first_at, second.last_at),
            (2, at(5), at(9))
        );
    }
}
