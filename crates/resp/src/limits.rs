//! How large a peer may make things: one named field per thing, with a default, and one error per field.
//!
//! No limit reserves memory: memory grows with the bytes that really came.

/// Bounds on the requests of one connection.
///
/// # Examples
/// ```
/// use tidegate_resp::{RequestDecoder, RequestLimits};
///
/// let limits = RequestLimits { bulk_bytes_max: 1024, ..RequestLimits::default() };
/// let decoder = RequestDecoder::new(limits);
/// assert_eq!(decoder.limits().bulk_bytes_max, 1024);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Arguments of one request, the command's name among them. Default 1,048,576.
    /// Beyond it: [`TooManyArguments`](crate::ProtocolError::TooManyArguments).
    pub arguments_max: usize,
    /// Bytes of one argument. Default 512 MiB, as in Redis.
    /// Beyond it: [`BulkTooLong`](crate::ProtocolError::BulkTooLong).
    pub bulk_bytes_max: usize,
    /// Bytes of one line: an inline command, or the line that announces a count or a length. Default 64 KiB, as in
    /// Redis. Beyond it: [`InlineTooLong`](crate::ProtocolError::InlineTooLong),
    /// [`CountLineTooLong`](crate::ProtocolError::CountLineTooLong) or
    /// [`LengthLineTooLong`](crate::ProtocolError::LengthLineTooLong).
    pub inline_bytes_max: usize,
    /// Bytes of one whole request on the wire. Default 1 GiB; values above 4 GiB - 1 count as 4 GiB - 1.
    /// Beyond it: [`RequestTooLong`](crate::ProtocolError::RequestTooLong).
    pub request_bytes_max: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            arguments_max: 1024 * 1024,
            bulk_bytes_max: 512 * 1024 * 1024,
            inline_bytes_max: 64 * 1024,
            request_bytes_max: 1024 * 1024 * 1024,
        }
    }
}

/// Bounds on the replies that a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Aggregates inside aggregates. Default 32. Beyond it: [`TooDeep`](crate::ReplyError::TooDeep).
    pub depth_max: usize,
    /// Values in one whole reply, at all depths; a map's entry is two. Default 1,048,576.
    /// Beyond it: [`TooManyValues`](crate::ReplyError::TooManyValues).
    pub values_max: usize,
    /// Bytes of one bulk string, bulk error or verbatim string. Default 512 MiB.
    /// Beyond it: [`BulkTooLong`](crate::ReplyError::BulkTooLong).
    pub bulk_bytes_max: usize,
    /// Bytes of one line. Default 64 KiB. Beyond it: [`LineTooLong`](crate::ReplyError::LineTooLong).
    pub line_bytes_max: usize,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self {
            depth_max: 32,
            values_max: 1024 * 1024,
            bulk_bytes_max: 512 * 1024 * 1024,
            line_bytes_max: 64 * 1024,
        }
    }
}
