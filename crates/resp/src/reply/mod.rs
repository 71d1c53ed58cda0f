//! Replies: what a server answers, in the form that the client negotiated.
//!
//! A command that answers one string or number calls an `encode_*` function, which writes straight into the
//! connection's buffer. Whoever needs a nested answer builds a [`Reply`] and writes that. [`ReplyDecoder`] is the client's
//! side.
//!
//! RESP3 has types that RESP2 lacks. This is how each looks in both, as Redis does it:
//!
//! | value | RESP2 | RESP3 |
//! |---|---|---|
//! | simple string, error, integer, bulk string, array | `+` `-` `:` `$` `*` | the same |
//! | null | `$-1` | `_` |
//! | null array | `*-1` | `_` |
//! | map of n entries | array of 2n | `%n` |
//! | set, push | array | `~` `>` |
//! | double | bulk string of its text | `,` |
//! | boolean | integer 1 or 0 | `#t` `#f` |
//! | big number | bulk string of its digits | `(` |
//! | verbatim string | bulk string without its format | `=` |

mod decode;
mod encode;

pub use decode::ReplyDecoder;
pub use encode::{
    encode_array_header, encode_big_number, encode_boolean, encode_bulk, encode_double,
    encode_error, encode_integer, encode_map_header, encode_null, encode_null_array,
    encode_push_header, encode_set_header, encode_simple, encode_verbatim,
};

use bytes::{Bytes, BytesMut};

/// Which version of the protocol a connection speaks. Connections begin with RESP2; `HELLO 3` switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Version 2: strings, errors, integers, arrays, nulls.
    #[default]
    Resp2,
    /// Version 3: also maps, sets, doubles, booleans, big numbers, verbatim strings and pushes.
    Resp3,
}

/// One reply as a value that owns its parts.
///
/// # Examples
/// ```
/// use bytes::BytesMut;
/// use tidegate_resp::{Protocol, Reply};
///
/// let reply = Reply::Map(vec![(Reply::bulk("proto"), Reply::Integer(3))]);
/// let mut out = BytesMut::new();
/// reply.encode(&mut out, Protocol::Resp3);
/// assert_eq!(&out[..], b"%1\r\n$5\r\nproto\r\n:3\r\n");
/// out.clear();
/// reply.encode(&mut out, Protocol::Resp2);
/// assert_eq!(&out[..], b"*2\r\n$5\r\nproto\r\n:3\r\n");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// A short text without line breaks, such as `OK`.
    Simple(Bytes),
    /// An error; its first word is a code such as `ERR`.
    Error(Bytes),
    /// A signed 64-bit integer.
    Integer(i64),
    /// Any bytes.
    Bulk(Bytes),
    /// No value.
    Null,
    /// No array; RESP3 does not tell it from [`Reply::Null`].
    NullArray,
    /// A list.
    Array(Vec<Reply>),
    /// Keys and their values, in the order sent.
    Map(Vec<(Reply, Reply)>),
    /// A list in which order has no meaning.
    Set(Vec<Reply>),
    /// A message that answers no request, such as an invalidation.
    Push(Vec<Reply>),
    /// A floating-point number.
    Double(f64),
    /// True or false.
    Boolean(bool),
    /// The decimal digits of an integer of any size, perhaps with a minus sign.
    BigNumber(Bytes),
    /// A text for people, with a format of three characters such as `txt`.
    Verbatim {
        /// Three characters, such as `txt` or `mkd`.
        format: [u8; 3],
        /// The text.
        text: Bytes,
    },
}

impl Reply {
    /// The simple string `OK`.
    #[must_use]
    pub fn ok() -> Self {
        Self::Simple(Bytes::from_static(b"OK"))
    }

    /// A simple string; line breaks become spaces when it is written.
    #[must_use]
    pub fn simple(text: impl Into<Bytes>) -> Self {
        Self::Simple(text.into())
    }

    /// An error, its code first; line breaks become spaces when it is written.
    #[must_use]
    pub fn error(text: impl Into<Bytes>) -> Self {
        Self::Error(text.into())
    }

    /// A bulk string.
    #[must_use]
    pub fn bulk(bytes: impl Into<Bytes>) -> Self {
        Self::Bulk(bytes.into())
    }

    /// Appends the reply in the form of the given protocol.
    ///
    /// Goes one call deeper per level of nesting, so nest no deeper than a program's own code does.
    pub fn encode(&self, out: &mut BytesMut, protocol: Protocol) {
        match self {
            Self::Simple(text) => encode_simple(out, text),
            Self::Error(text) => encode_error(out, text),
            Self::Integer(value) => encode_integer(out, *value),
            Self::Bulk(bytes) => encode_bulk(out, bytes),
            Self::Null => encode_null(out, protocol),
            Self::NullArray => encode_null_array(out, protocol),
            Self::Array(items) => {
                encode_array_header(out, items.len());
                items.iter().for_each(|item| item.encode(out, protocol));
            }
            Self::Map(entries) => {
                encode_map_header(out, entries.len(), protocol);
                for (key, value) in entries {
                    key.encode(out, protocol);
                    value.encode(out, protocol);
                }
            }
            Self::Set(items) => {
                encode_set_header(out, items.len(), protocol);
                items.iter().for_each(|item| item.encode(out, protocol));
            }
            Self::Push(items) => {
                encode_push_header(out, items.len(), protocol);
                items.iter().for_each(|item| item.encode(out, protocol));
            }
            Self::Double(value) => encode_double(out, *value, protocol),
            Self::Boolean(value) => encode_boolean(out, *value, protocol),
            Self::BigNumber(digits) => encode_big_number(out, digits, protocol),
            Self::Verbatim { format, text } => encode_verbatim(out, *format, text, protocol),
        }
    }
}

impl From<i64> for Reply {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}
