//! The stream of requests: which bytes of a read buffer make a whole request.
//!
//! The decoder remembers how far it has understood an incomplete request (which argument, at which byte, and how far it
//! has looked for a line's end), so each received byte is looked at a bounded number of times, however the network cuts
//! the stream. What a header announces is compared with the limits at once and never reserved.

use super::Request;
use super::arguments::{Span, Spans};
use super::inline::split_line;
use crate::error::ProtocolError;
use crate::limits::RequestLimits;
use crate::number::parse_integer;
use bytes::{Buf, Bytes, BytesMut};

/// Most bytes that [`RequestDecoder::bytes_wanted`] asks for at once.
const BYTES_WANTED_MAX: usize = 256 * 1024;

/// Digits, sign and line break of the longest number that can be valid. Longer lines take the slow road.
const NUMBER_LINE_BYTES: usize = 22;

/// Turns the bytes of one connection into requests.
///
/// One decoder belongs to one connection and one read buffer. Between calls the caller may only append to the buffer.
///
/// Empty lines, empty arrays and null arrays are skipped without an answer, as Redis does.
#[derive(Default)]
pub struct RequestDecoder {
    limits: RequestLimits,
    /// Understood bytes of the request at the start of the buffer.
    position: usize,
    /// No line end lies between `position` and this byte. May lag behind `position`, never runs ahead of the line.
    searched: usize,
    /// Arguments still to come; 0 between requests.
    arguments_left: usize,
    /// Length of the argument that begins at `position`, once its header is read.
    body_len: Option<usize>,
    arguments: Spans,
    failed: Option<ProtocolError>,
}

/// A line that holds a number.
enum NumberLine {
    Incomplete,
    Malformed,
    TooLong,
    Number { value: i64, end: usize },
}

impl RequestDecoder {
    /// A decoder at the start of a connection.
    #[must_use]
    pub fn new(limits: RequestLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// The limits it was made with.
    #[must_use]
    pub fn limits(&self) -> &RequestLimits {
        &self.limits
    }

    /// Takes the next whole request from the front of the buffer; `None` if more bytes are needed.
    ///
    /// # Errors
    /// The stream is malformed or breaks a limit. Requests before the bad one have been given by earlier calls. Every
    /// later call returns the same error: answer it and close the connection.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let outcome = self.decode_next(buffer);
        if let Err(error) = outcome {
            self.failed = Some(error);
            self.arguments = Spans::default();
        }
        outcome
    }

    /// How many bytes to make room for before the next read: what the current argument still lacks, at most 256 KiB,
    /// and 0 if that is unknown.
    ///
    /// It is safe to reserve: the bound keeps a client that only announces a large argument from holding memory.
    #[must_use]
    pub fn bytes_wanted(&self, buffer: &BytesMut) -> usize {
        match self.body_len {
            Some(len) => (self.position + len + 2)
                .saturating_sub(buffer.len())
                .min(BYTES_WANTED_MAX),
            None => 0,
        }
    }

    /// Whether the buffer's front is the beginning of a request whose end has not come.
    #[must_use]
    pub fn is_mid_request(&self, buffer: &BytesMut) -> bool {
        self.arguments_left > 0 || !buffer.is_empty()
    }

    fn decode_next(&mut self, buffer: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        while self.arguments_left == 0 {
            match buffer.first() {
                None => return Ok(None),
                Some(b'*') => match self.read_count(buffer)? {
                    None => return Ok(None),
                    Some(0) => {
                        buffer.advance(self.position);
                        self.begin_request();
                    }
                    Some(count) => self.arguments_left = count,
                },
                Some(_) => match self.read_inline(buffer)? {
                    None => return Ok(None),
                    Some(request) if request.len() == 0 => {}
                    Some(request) => return Ok(Some(request)),
                },
            }
        }
        if !self.read_arguments(buffer)? {
            return Ok(None);
        }
        let frame = buffer.split_to(self.position).freeze();
        self.begin_request();
        Ok(Some(Request {
            frame,
            arguments: std::mem::take(&mut self.arguments),
        }))
    }

    /// The buffer's front is the first byte of a request again.
    fn begin_request(&mut self) {
        self.position = 0;
        self.searched = 0;
    }

    /// Reads the header that announces the number of arguments.
    fn read_count(&mut self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        match self.read_number_line(input, 1) {
            NumberLine::Incomplete => Ok(None),
            NumberLine::Malformed => Err(ProtocolError::InvalidCount),
            NumberLine::TooLong => Err(ProtocolError::CountLineTooLong),
            NumberLine::Number { value, end } => {
                // Null arrays, and other negative counts, are taken as empty.
                let count = usize::try_from(value).unwrap_or(0);
                if count > self.limits.arguments_max {
                    return Err(ProtocolError::TooManyArguments);
                }
                self.position = end;
                Ok(Some(count))
            }
        }
    }

    /// Reads arguments until the request is whole (`true`) or the input ends (`false`).
    fn read_arguments(&mut self, input: &[u8]) -> Result<bool, ProtocolError> {
        while self.arguments_left > 0 {
            let len = match self.body_len {
                Some(len) => len,
                None => match self.read_length(input)? {
                    Some(len) => len,
                    None => return Ok(false),
                },
            };
            let start = self.position;
            let end = start + len;
            let Some(line_break) = input.get(end..end + 2) else {
                self.body_len = Some(len);
                return Ok(false);
            };
            if line_break != b"\r\n" {
                return Err(ProtocolError::BulkNotTerminated);
            }
            self.body_len = None;
            self.arguments
                .push(Span::new(start, end).ok_or(ProtocolError::RequestTooLong)?);
            self.position = end + 2;
            self.arguments_left -= 1;
        }
        Ok(true)
    }

    /// Reads the header that announces the length of an argument.
    fn read_length(&mut self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        match input.get(self.position) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(got) => return Err(ProtocolError::ExpectedBulk { got: *got }),
        }
        match self.read_number_line(input, self.position + 1) {
            NumberLine::Incomplete => Ok(None),
            NumberLine::Malformed => Err(ProtocolError::InvalidLength),
            NumberLine::TooLong => Err(ProtocolError::LengthLineTooLong),
            NumberLine::Number { value, end } => {
                let len = usize::try_from(value).map_err(|_| ProtocolError::InvalidLength)?;
                if len > self.limits.bulk_bytes_max {
                    return Err(ProtocolError::BulkTooLong);
                }
                let request_bytes_max = self.limits.request_bytes_max.min(u32::MAX as usize);
                if len.saturating_add(end + 2) > request_bytes_max {
                    return Err(ProtocolError::RequestTooLong);
                }
                self.position = end;
                Ok(Some(len))
            }
        }
    }

    /// Reads a number and its line break from `start`, which lies one byte behind the line's beginning.
    #[inline]
    fn read_number_line(&mut self, input: &[u8], start: usize) -> NumberLine {
        // Nearly every number has one to three digits and is all there.
        let mut value: i64 = 0;
        for (digits, byte) in input[start..].iter().take(4).enumerate() {
            match byte {
                b'0'..=b'9' => value = value * 10 + i64::from(byte - b'0'),
                b'\r' if digits > 0 => {
                    let leads_with_zero = digits > 1 && input[start] == b'0';
                    let end = start + digits + 2;
                    if !leads_with_zero && input.get(end - 1) == Some(&b'\n') {
                        return NumberLine::Number { value, end };
                    }
                    break;
                }
                _ => break,
            }
        }
        self.read_any_number_line(input, start)
    }

    #[cold]
    fn read_any_number_line(&mut self, input: &[u8], start: usize) -> NumberLine {
        let from = self.searched.max(start);
        let line_end = memchr::memchr(b'\r', &input[from..]).map(|found| from + found);
        let line_len = line_end.unwrap_or(input.len()) - (start - 1);
        if line_len > self.limits.inline_bytes_max {
            return NumberLine::TooLong;
        }
        let Some(line_end) = line_end else {
            self.searched = input.len();
            return NumberLine::Incomplete;
        };
        match input.get(line_end + 1) {
            None => {
                self.searched = line_end;
                NumberLine::Incomplete
            }
            Some(b'\n') if line_len <= NUMBER_LINE_BYTES => {
                match parse_integer(&input[start..line_end]) {
                    Some(value) => NumberLine::Number {
                        value,
                        end: line_end + 2,
                    },
                    None => NumberLine::Malformed,
                }
            }
            Some(_) => NumberLine::Malformed,
        }
    }

    /// Reads one line as an inline command; an empty line gives a request without arguments.
    fn read_inline(&mut self, buffer: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        let line_feed =
            memchr::memchr(b'\n', &buffer[self.searched..]).map(|found| self.searched + found);
        // The carriage return may be the last byte so far; it is no part of the command.
        let seen = &buffer[..line_feed.unwrap_or(buffer.len())];
        let line = seen.strip_suffix(b"\r").unwrap_or(seen);
        if line.len() > self.limits.inline_bytes_max {
            return Err(ProtocolError::InlineTooLong);
        }
        let Some(line_feed) = line_feed else {
            self.searched = buffer.len();
            return Ok(None);
        };
        let (unescaped, arguments) = split_line(line)?;
        buffer.advance(line_feed + 1);
        self.begin_request();
        Ok(Some(Request {
            frame: Bytes::from(unescaped),
            arguments,
        }))
    }
}
