//! Commands that talk to a running server: `tidegate flush` and `tidegate dead-letters`.
//!
//! Data goes to stdout, as a table or as JSON; words for the person go to stderr. How it ended is in the exit code.

mod connection;
mod dead_letters;
mod fields;
mod flush;
mod letter;
mod moment;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

pub(crate) use dead_letters::run as dead_letters;
pub(crate) use flush::run as flush;

use crate::console;
use crate::exit_codes::Exit;

/// Why a command did not do what was asked.
#[derive(PartialEq, Eq, Debug)]
enum Failure {
    /// The server cannot be reached, or went away.
    Unreachable(String),
    /// What the server answered instead, its first word included.
    Said(String),
    /// An answer that this program does not understand.
    Odd(String),
    /// A file, or the terminal.
    Local(String),
}

type Result<T> = std::result::Result<T, Failure>;

/// The first word of the server's answer when there is no such dead letter.
const NO_LETTER: &str = "NOLETTER ";

impl Failure {
    /// Tells the person, and gives the code to end with.
    fn end(self) -> Exit {
        let (text, exit) = match self {
            Self::Said(text) if text.starts_with(NO_LETTER) => {
                (text[NO_LETTER.len()..].to_owned(), Exit::NoLetter)
            }
            Self::Said(text) => (format!("the server answered: {text}"), Exit::Server),
            Self::Unreachable(text) => (text, Exit::Server),
            Self::Odd(text) => (
                format!(
                    "the server's answer is not understood: {text}; is it a tidegate of this version?"
                ),
                Exit::Server,
            ),
            Self::Local(text) => (text, Exit::Failure),
        };
        // What comes from elsewhere in it may be anything.
        console::say(format!("tidegate: {}", shown(text.as_bytes())));
        exit
    }
}

fn print(line: impl AsRef<str>) -> Result<()> {
    console::print(line).map_err(|error| Failure::Local(format!("cannot print: {error}")))
}

fn bytes(text: &OsStr) -> &[u8] {
    text.as_bytes()
}

/// A key as people read it: no byte of it may move the cursor or hide another.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text
            .chars()
            .map(|c| {
                if c.is_control() || "\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}".contains(c) {
                    c.escape_default().to_string()
                } else {
                    c.to_string()
                }
            })
            .collect(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_cannot_move_the_cursor() {
        assert_eq!(shown("order:ä 1".as_bytes()), "order:ä 1");
        assert_eq!(shown(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(shown(b"\xff\x00"), "\\xff\\x00");
        assert_eq!(shown("a\u{202e}b".as_bytes()), "a\\u{202e}b");
    }
}
