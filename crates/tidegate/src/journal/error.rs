//! Words for what went wrong: the operation, the file, the offset; never what is in a record.

use std::fmt::Display;
use std::io;
use std::path::Path;

use tidegate_core::port::JournalError;

/// A journal that cannot be opened or read, because of the operating system.
pub(super) fn unavailable(operation: &str, path: &Path, error: &io::Error) -> JournalError {
    JournalError::unavailable(format_args!("{operation} {}: {error}", path.display()))
}

/// A disk that no longer does what it should.
pub(super) fn poisoned(operation: &str, path: &Path, error: &io::Error) -> JournalError {
    JournalError::poisoned(format_args!("{operation} {}: {error}", path.display()))
}

/// Damage at a place of a file.
pub(super) fn corrupt(path: &Path, offset: u64, what: impl Display) -> JournalError {
    JournalError::corrupt(format_args!(
        "{} at offset {offset}: {what}",
        path.display()
    ))
}
