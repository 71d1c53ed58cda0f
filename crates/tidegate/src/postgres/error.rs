//! What an error of PostgreSQL means for the caller: refused, unavailable, or wrongly configured.

use tidegate_core::port::StoreError;
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity};

/// Why a transaction did not come to its commit.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Another writer was in between: the same again, in a stronger way.
    Race,
    /// The table of this name took fewer rows than it was given: another writer, or a trigger.
    Short(String),
    /// The connection is of no more use.
    Lost(StoreError),
    /// The server answered with an error; the connection is fine.
    Failed(StoreError),
}

/// What a batch fails with that comes to its commit past its limit of time.
const TOO_LATE: &str = "TG003";

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Race => Self::unavailable("other writers were at the same rows all the time"),
            Trouble::Short(table) => Self::refused(
                None,
                format_args!(
                    "table {table} did not take a row: a trigger or rule left it out, or gave it another key"
                ),
            ),
            Trouble::Lost(error) | Trouble::Failed(error) => error,
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let Some(answer) = error.as_db_error() else {
            return Self::Lost(lost(&error));
        };
        if is_end(answer) {
            return Self::Lost(unavailable(answer));
        }
        let code = answer.code().code();
        match &code[..2] {
            // The last step of a batch with a limit of time said so, and the transaction ended with it.
            "TG" if code == TOO_LATE => {
                let what =
                    "the database's clock is past the moment by which the batch was to commit";
                Self::Failed(StoreError::late(what))
            }
            // Whatever code a trigger chose, what it says of a row it will say again, and other rows are not to wait
            // for it.
            "53" | "55" | "57" | "58" | "25" | "08" | "XX" | "0A" if is_raised(answer) => {
                Self::Failed(refused(answer))
            }
            // A deadlock, or a snapshot that others overtook.
            "40" => Self::Race,
            // No resources, an operator's doing, a statement that took too long, a server that only reads.
            "53" | "55" | "57" | "58" | "25" | "08" | "XX" => Self::Failed(unavailable(answer)),
            // A table was changed under a prepared statement: the next connection prepares it anew.
            "0A" => Self::Lost(unavailable(answer)),
            _ => Self::Failed(refused(answer)),
        }
    }
}

/// True if the server ended the connection with this answer.
pub(super) fn is_end(answer: &DbError) -> bool {
    matches!(
        answer.parsed_severity(),
        Some(Severity::Fatal | Severity::Panic)
    ) || answer.code().code().starts_with("57P")
}

fn lost(error: &Error) -> StoreError {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    StoreError::unavailable(format_args!("{error}{}", cause.unwrap_or_default()))
}

fn unavailable(answer: &DbError) -> StoreError {
    // The messages of these classes hold no values, unless it is not the server that says so.
    let message = match is_raised(answer) {
        true => "a trigger",
        false => answer.message(),
    };
    StoreError::unavailable(format_args!("{message} (code {})", answer.code().code()))
}

/// Whether a function of the user raised it, in words of its own.
fn is_raised(answer: &DbError) -> bool {
    answer.routine() == Some("exec_stmt_raise")
}

/// Says in words what was refused, by the names the server gives and never by its message, which may
/// hold values.
fn refused(answer: &DbError) -> StoreError {
    let code = answer.code().code();
    let what = match code {
        _ if is_raised(answer) => "a trigger",
        "22001" => "a value is too long for its column",
        "22003" => "a number is out of range; no version may be left for this key",
        "22P02" | "22032" => "a value is not of its column's type",
        "22P05" | "22021" => "a value holds a character that the database cannot hold",
        "23502" => "a column may not be null",
        "23503" => "a row that is referred to is missing, or one that refers to it is not",
        "23505" => "a unique constraint",
        "23514" => "a check constraint",
        "42501" => "the user has no privilege for it",
        "42P01" => "a table is gone",
        "42703" => "a column is gone",
        "54000" => "a row is longer than its index takes",
        _ => match &code[..2] {
            "22" => "a value is not fit for its column",
            "23" => "a constraint",
            "42" => "a statement does not fit the table any more",
            "54" => "a limit of the database",
            "P0" => "a trigger",
            _ => "the statement failed",
        },
    };
    let names = [
        ("table", answer.table()),
        ("column", answer.column()),
        ("constraint", answer.constraint()),
    ];
    let names = names
        .into_iter()
        .filter_map(|(kind, name)| Some((kind, name?)));
    let names: String = names
        .map(|(kind, name)| format!(", {kind} {name}"))
        .collect();
    StoreError::refused(Some(code), format_args!("{what}{names}"))
}

/// An error while connecting for the first time, or while tables are made and checked.
pub(super) fn configuration(what: &str, error: &Error) -> StoreError {
    match error.as_db_error() {
        Some(answer) if is_end(answer) && !is_ours(answer) => unavailable(answer),
        Some(answer) if matches!(&answer.code().code()[..2], "53" | "55" | "57" | "40") => {
            unavailable(answer)
        }
        Some(answer) => StoreError::configuration(format_args!(
            "{what}: {} (code {})",
            answer.message(),
            answer.code().code()
        )),
        None => lost(error),
    }
}

/// A wrong user, password or database name ends a connection and is still our mistake.
fn is_ours(answer: &DbError) -> bool {
    matches!(&answer.code().code()[..2], "28" | "3D" | "22" | "42")
}
