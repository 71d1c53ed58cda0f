//! What an error of SQLite means for the caller: refused, unavailable, or wrongly configured.

use rusqlite::{Error, ErrorCode};
use tidegate_core::port::StoreError;

/// `SQLITE_CONSTRAINT_TRIGGER`: the message is the trigger's own and may hold anything.
const CONSTRAINT_TRIGGER: i32 = 1811;

/// An error of a statement of a batch that is not committed.
pub(super) fn of_write(error: &Error) -> StoreError {
    let Some(code) = error.sqlite_error() else {
        return StoreError::refused(None, "the driver cannot pass this value");
    };
    let number = code.extended_code.to_string();
    let words = match (code.code, code.extended_code) {
        (_, CONSTRAINT_TRIGGER) => "a trigger refused it".into(),
        // These name constraints, tables and columns.
        (ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch, _) => error.to_string(),
        (ErrorCode::TooBig, _) => "longer than SQLite can keep".into(),
        (ErrorCode::Unknown, _) => "a statement does not fit the table any more".into(),
        (ErrorCode::ReadOnly | ErrorCode::AuthorizationForStatementDenied, _) => {
            "the database may not be written".into()
        }
        _ => return unavailable(error),
    };
    StoreError::refused(Some(&number), words)
}

/// An error of a read, of a beginning, of a sweep.
pub(super) fn unavailable(error: &Error) -> StoreError {
    match error.sqlite_error() {
        Some(code) => StoreError::unavailable(format_args!(
            "{} (code {})",
            words(code.code),
            code.extended_code
        )),
        None => StoreError::unavailable("a row is not as the table's check said"),
    }
}

/// An error while files are opened and tables checked.
pub(super) fn configuration(what: &str, error: &Error) -> StoreError {
    StoreError::configuration(format_args!("{what}: {error}"))
}

fn words(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => "another process holds the database",
        ErrorCode::DiskFull => "the disk is full",
        ErrorCode::SystemIoFailure => "the disk failed",
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => "the database file is damaged",
        ErrorCode::OutOfMemory => "there is no memory left",
        ErrorCode::CannotOpen => "the database file cannot be opened",
        _ => "SQLite failed",
    }
}
