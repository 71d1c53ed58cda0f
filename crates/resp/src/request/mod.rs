//! Requests: what a client asks for, as a list of arguments.
//!
//! Redis knows two forms. Programs send an array of bulk strings (`*2\r\n$3\r\nGET\r\n$1\r\na\r\n`); people at a terminal
//! send an inline command (`GET a\r\n`) with quotes and escapes. [`RequestDecoder`] reads both from one stream and gives
//! the same [`Request`].
//!
//! Reading order: `arguments` (where the arguments lie), `inline` (the quoting rules), `decoder` (the stream), `encode`
//! (the client's side).

mod arguments;
mod decoder;
mod encode;
mod inline;

pub use decoder::RequestDecoder;
pub use encode::encode_request;

use arguments::Spans;
use bytes::Bytes;
use std::fmt;

/// One request: a list of at least one argument, of which the first names the command.
///
/// The arguments are ranges of one shared piece of the read buffer, so a request costs one reference count and, up to
/// six arguments, no allocation. While it lives, that buffer lives: copy what is kept for longer.
#[derive(Clone)]
pub struct Request {
    frame: Bytes,
    arguments: Spans,
}

impl Request {
    /// The command's name as it was sent, in any mixture of cases.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.argument(0).unwrap_or_default()
    }

    /// Number of arguments, the name among them: what Redis calls the arity. At least one.
    #[expect(clippy::len_without_is_empty, reason = "a request is never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.arguments.len()
    }

    /// The argument at a place; place 0 is the name. `None` beyond the last.
    #[must_use]
    pub fn argument(&self, place: usize) -> Option<&[u8]> {
        self.frame.get(self.arguments.get(place)?.range())
    }

    /// The argument at a place, sharing the read buffer instead of copying. `None` beyond the last.
    ///
    /// The whole read buffer stays in memory for as long as the answer does.
    #[must_use]
    pub fn argument_shared(&self, place: usize) -> Option<Bytes> {
        Some(self.frame.slice(self.arguments.get(place)?.range()))
    }

    /// All arguments in order, the name first.
    pub fn arguments(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        (0..self.len()).map(|place| self.argument(place).unwrap_or_default())
    }

    /// Bytes of the read buffer that this request holds on to.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.frame.len()
    }
}

/// Shows the number and the lengths of the arguments, never their contents, which may be secrets.
impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths: Vec<usize> = self.arguments().map(<[u8]>::len).collect();
        formatter
            .debug_struct("Request")
            .field("argument_bytes", &lengths)
            .finish()
    }
}

/// Two requests are equal if their arguments are, however they were sent.
impl PartialEq for Request {
    fn eq(&self, other: &Self) -> bool {
        self.arguments().eq(other.arguments())
    }
}

impl Eq for Request {}
