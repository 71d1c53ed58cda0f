//! What is wrong with the bytes, in the words a Redis client already knows.
//!
//! Each violated limit and each malformed construct has its own name, so a program can count them. The texts are those
//! of Redis 7 where Redis has one. None of them repeats what the peer sent, but for the one byte that Redis shows too.

use std::fmt;

/// A request that cannot be understood. The stream is out of step after it: answer with [`ProtocolError::write_reply`]
/// and close the connection.
///
/// # Examples
/// ```
/// use bytes::BytesMut;
/// use tidegate_resp::{ProtocolError, RequestDecoder};
///
/// let mut buffer = BytesMut::from(&b"*1\r\nPING\r\n"[..]);
/// let error = RequestDecoder::default().decode(&mut buffer).expect_err("no bulk string");
/// assert_eq!(error, ProtocolError::ExpectedBulk { got: b'P' });
/// assert_eq!(error.to_string(), "Protocol error: expected '$', got 'P'");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The number of arguments is not a number.
    InvalidCount,
    /// More arguments than [`arguments_max`](crate::RequestLimits::arguments_max) are announced.
    TooManyArguments,
    /// The line that announces the number of arguments does not end.
    CountLineTooLong,
    /// Something other than a bulk string stands where an argument must.
    ExpectedBulk {
        /// The byte found instead of `$`.
        got: u8,
    },
    /// The length of an argument is negative or not a number.
    InvalidLength,
    /// An argument longer than [`bulk_bytes_max`](crate::RequestLimits::bulk_bytes_max) is announced.
    BulkTooLong,
    /// The line that announces the length of an argument does not end.
    LengthLineTooLong,
    /// An argument is not followed by a line break, so its announced length is wrong.
    BulkNotTerminated,
    /// An inline command is longer than [`inline_bytes_max`](crate::RequestLimits::inline_bytes_max).
    InlineTooLong,
    /// An inline command leaves a quote open, or goes on directly after a closing one.
    UnbalancedQuotes,
    /// The whole request is longer than [`request_bytes_max`](crate::RequestLimits::request_bytes_max).
    RequestTooLong,
}

impl ProtocolError {
    /// Writes the error reply that tells the client, ready for the wire.
    pub fn write_reply(self, out: &mut bytes::BytesMut) {
        crate::reply::encode_error(out, format!("ERR {self}").as_bytes());
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Protocol error: ")?;
        formatter.write_str(match self {
            Self::InvalidCount | Self::TooManyArguments => "invalid multibulk length",
            Self::CountLineTooLong => "too big mbulk count string",
            Self::ExpectedBulk { got } => {
                // A byte that is no visible character would make the log line or the reply unreadable.
                let shown = if got.is_ascii_graphic() {
                    char::from(*got)
                } else {
                    ' '
                };
                return write!(formatter, "expected '$', got '{shown}'");
            }
            Self::InvalidLength | Self::BulkTooLong => "invalid bulk length",
            Self::LengthLineTooLong => "too big bulk count string",
            Self::BulkNotTerminated => "expected a line break after the bulk string",
            Self::InlineTooLong => "too big inline request",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
            Self::RequestTooLong => "too big request",
        })
    }
}

impl std::error::Error for ProtocolError {}

/// A reply that cannot be understood. The stream is out of step after it: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyError {
    /// No reply begins with this byte.
    UnknownKind {
        /// The byte found.
        got: u8,
    },
    /// A line break is missing or stands in the wrong place.
    InvalidLine,
    /// A count, a length or an integer is malformed or negative.
    InvalidNumber,
    /// A double, a boolean, a big number, a null or a verbatim string is malformed.
    InvalidValue,
    /// A push inside another reply, or an attribute with nothing to describe.
    Misplaced,
    /// A line is longer than [`line_bytes_max`](crate::ReplyLimits::line_bytes_max).
    LineTooLong,
    /// A bulk string is longer than [`bulk_bytes_max`](crate::ReplyLimits::bulk_bytes_max).
    BulkTooLong,
    /// The reply has more values than [`values_max`](crate::ReplyLimits::values_max).
    TooManyValues,
    /// The reply is nested deeper than [`depth_max`](crate::ReplyLimits::depth_max).
    TooDeep,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::UnknownKind { got } => {
                return write!(formatter, "no reply begins with byte 0x{got:02x}");
            }
            Self::InvalidLine => "a line break is missing",
            Self::InvalidNumber => "a count, a length or an integer is malformed",
            Self::InvalidValue => {
                "a double, boolean, big number, null or verbatim string is malformed"
            }
            Self::Misplaced => "a push or an attribute stands where none may",
            Self::LineTooLong => "a line is too long",
            Self::BulkTooLong => "a bulk string is too long",
            Self::TooManyValues => "the reply has too many values",
            Self::TooDeep => "the reply is nested too deeply",
        })
    }
}

impl std::error::Error for ReplyError {}
