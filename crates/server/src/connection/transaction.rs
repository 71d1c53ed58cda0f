//! Transactions, which are refused as a whole.
//!
//! A client that sends `MULTI`, its commands and `EXEC` in one go (redis-py's pipelines do by default) must not
//! have the commands run one by one after the `MULTI` was refused: they were meant to be run together or not
//! at all. So from a `MULTI` to the next `EXEC` or `DISCARD` every command is refused, each with an answer of
//! its own, and nothing is changed.

use tidegate_resp::{Reply, Request};

/// Whether a refused transaction is open on a connection.
#[derive(Default)]
pub(super) struct Refused {
    open: bool,
}

impl Refused {
    /// The answer to a request inside a refused transaction; nothing outside of one.
    pub(super) fn answer(&mut self, request: &Request) -> Option<Reply> {
        if !self.open {
            return None;
        }
        let name = request.name();
        let is = |command: &[u8]| name.eq_ignore_ascii_case(command);
        if is(b"EXEC") {
            self.open = false;
            return Some(Reply::error(
                "EXECABORT Transaction discarded because MULTI is not supported; nothing was run",
            ));
        }
        if is(b"DISCARD") {
            self.open = false;
            return Some(Reply::ok());
        }
        if is(b"RESET") || is(b"QUIT") {
            self.open = false;
            return None;
        }
        Some(Reply::error(
            "ERR MULTI is not supported: this command was not run; send EXEC or DISCARD to go on",
        ))
    }

    /// Opens a refused transaction if that is what an unknown command asks for; its answer.
    pub(super) fn open(&mut self, request: &Request) -> Option<Reply> {
        if !request.name().eq_ignore_ascii_case(b"MULTI") {
            return None;
        }
        self.open = true;
        Some(Reply::error(
            "ERR MULTI is not supported: commands up to EXEC or DISCARD are not run",
        ))
    }
}
