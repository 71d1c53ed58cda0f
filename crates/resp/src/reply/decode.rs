//! Reading replies: the client's side, for tests, the command line and benchmarks.
//!
//! The decoder takes each finished value out of the buffer and keeps the unfinished aggregates around it in a list of
//! its own, so nesting costs no call depth, input in pieces is read once, and what a header announces is compared with
//! the limits but never reserved.

use super::Reply;
use crate::error::ReplyError;
use crate::limits::ReplyLimits;
use crate::number::parse_integer;
use bytes::{Buf, Bytes, BytesMut};

/// Turns the bytes of one connection into replies of either protocol version.
///
/// Attributes (`|`) are read and dropped. The streamed forms of RESP3 (`$?`, `*?`), which Redis never sends, are
/// refused. A bulk error (`!`) becomes [`Reply::Error`].
///
/// # Examples
/// ```
/// use bytes::BytesMut;
/// use tidegate_resp::{Reply, ReplyDecoder};
///
/// let mut buffer = BytesMut::from(&b"*2\r\n:1\r\n"[..]);
/// let mut decoder = ReplyDecoder::default();
/// assert_eq!(decoder.decode(&mut buffer)?, None);
/// buffer.extend_from_slice(b"$1\r\na\r\n");
/// let whole = Reply::Array(vec![Reply::Integer(1), Reply::bulk("a")]);
/// assert_eq!(decoder.decode(&mut buffer)?, Some(whole));
/// # Ok::<(), tidegate_resp::ReplyError>(())
/// ```
#[derive(Default)]
pub struct ReplyDecoder {
    limits: ReplyLimits,
    /// Aggregates whose last value has not come, the outermost first.
    open: Vec<Aggregate>,
    /// A string whose header has been read.
    body: Option<Body>,
    /// No line end lies before this byte of the buffer.
    searched: usize,
    /// Values of the current reply so far, those announced among them.
    values: usize,
    failed: Option<ReplyError>,
}

struct Aggregate {
    kind: AggregateKind,
    items: Vec<Reply>,
    left: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AggregateKind {
    Array,
    Map,
    Set,
    Push,
    Attribute,
}

struct Body {
    kind: BodyKind,
    len: usize,
}

#[derive(Clone, Copy)]
enum BodyKind {
    Bulk,
    Error,
    Verbatim,
}

/// What one step took from the buffer.
enum Step {
    Value(Reply),
    Opened,
    Incomplete,
}

impl ReplyDecoder {
    /// A decoder at the start of a connection.
    #[must_use]
    pub fn new(limits: ReplyLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Takes the next whole reply from the front of the buffer; `None` if more bytes are needed. The caller may append
    /// to the buffer between calls, nothing else.
    ///
    /// # Errors
    /// The stream is malformed or breaks a limit. Every later call returns the same error: close the connection.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Reply>, ReplyError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let outcome = self.decode_next(buffer);
        if let Err(error) = outcome {
            self.failed = Some(error);
            self.open = Vec::new();
        }
        outcome
    }

    fn decode_next(&mut self, buffer: &mut BytesMut) -> Result<Option<Reply>, ReplyError> {
        loop {
            match self.step(buffer)? {
                Step::Incomplete => return Ok(None),
                Step::Opened => {}
                Step::Value(value) => {
                    if let Some(whole) = self.place(value)? {
                        self.values = 0;
                        return Ok(Some(whole));
                    }
                }
            }
        }
    }

    /// Puts a value into the innermost open aggregate and closes those that it fills. Gives back the whole reply.
    fn place(&mut self, mut value: Reply) -> Result<Option<Reply>, ReplyError> {
        while let Some(aggregate) = self.open.last_mut() {
            aggregate.items.push(value);
            aggregate.left -= 1;
            if aggregate.left > 0 {
                return Ok(None);
            }
            let Some(Aggregate { kind, items, .. }) = self.open.pop() else {
                return Ok(None);
            };
            match close(kind, items) {
                Some(closed) => value = closed,
                None => return Ok(None),
            }
        }
        Ok(Some(value))
    }

    fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, ReplyError> {
        if let Some(body) = &self.body {
            let (kind, len) = (body.kind, body.len);
            return self.take_body(buffer, kind, len);
        }
        let Some(line) = self.take_line(buffer)? else {
            return Ok(Step::Incomplete);
        };
        let [kind, text @ ..] = &line[..] else {
            return Err(ReplyError::InvalidLine);
        };
        let value = match kind {
            b'+' => Reply::Simple(line.slice(1..)),
            b'-' => Reply::Error(line.slice(1..)),
            b':' => Reply::Integer(parse_integer(text).ok_or(ReplyError::InvalidNumber)?),
            b'$' if text == b"-1" => Reply::Null,
            b'*' if text == b"-1" => Reply::NullArray,
            b'$' => return self.open_body(BodyKind::Bulk, text),
            b'!' => return self.open_body(BodyKind::Error, text),
            b'=' => return self.open_body(BodyKind::Verbatim, text),
            b'*' => return self.open_aggregate(AggregateKind::Array, text),
            b'%' => return self.open_aggregate(AggregateKind::Map, text),
            b'~' => return self.open_aggregate(AggregateKind::Set, text),
            b'>' => return self.open_aggregate(AggregateKind::Push, text),
            b'|' => return self.open_aggregate(AggregateKind::Attribute, text),
            b'_' if text.is_empty() => Reply::Null,
            b'#' if text == b"t" => Reply::Boolean(true),
            b'#' if text == b"f" => Reply::Boolean(false),
            b',' => Reply::Double(parse_double(text).ok_or(ReplyError::InvalidValue)?),
            b'(' if is_big_number(text) => Reply::BigNumber(line.slice(1..)),
            b'_' | b'#' | b'(' => return Err(ReplyError::InvalidValue),
            got => return Err(ReplyError::UnknownKind { got: *got }),
        };
        self.count(1)?;
        Ok(Step::Value(value))
    }

    /// Counts values of the current reply.
    fn count(&mut self, values: usize) -> Result<(), ReplyError> {
        self.values = self.values.saturating_add(values);
        if self.values > self.limits.values_max {
            return Err(ReplyError::TooManyValues);
        }
        Ok(())
    }

    fn open_body(&mut self, kind: BodyKind, text: &[u8]) -> Result<Step, ReplyError> {
        let len = parse_len(text)?;
        if len > self.limits.bulk_bytes_max {
            return Err(ReplyError::BulkTooLong);
        }
        self.count(1)?;
        self.body = Some(Body { kind, len });
        Ok(Step::Opened)
    }

    fn open_aggregate(&mut self, kind: AggregateKind, text: &[u8]) -> Result<Step, ReplyError> {
        // A push answers nothing, so it stands alone.
        if kind == AggregateKind::Push && !self.open.is_empty() {
            return Err(ReplyError::Misplaced);
        }
        let pairs = matches!(kind, AggregateKind::Map | AggregateKind::Attribute);
        let left = parse_len(text)?.saturating_mul(if pairs { 2 } else { 1 });
        self.count(1)?;
        // Announced values are compared now, and counted when they come.
        if left > self.limits.values_max - self.values {
            return Err(ReplyError::TooManyValues);
        }
        if self.open.len() >= self.limits.depth_max {
            return Err(ReplyError::TooDeep);
        }
        if left == 0 {
            return Ok(match close(kind, Vec::new()) {
                Some(empty) => Step::Value(empty),
                None => Step::Opened,
            });
        }
        self.open.push(Aggregate {
            kind,
            items: Vec::new(),
            left,
        });
        Ok(Step::Opened)
    }

    fn take_body(
        &mut self,
        buffer: &mut BytesMut,
        kind: BodyKind,
        len: usize,
    ) -> Result<Step, ReplyError> {
        match buffer.get(len..len + 2) {
            None => return Ok(Step::Incomplete),
            Some(b"\r\n") => {}
            Some(_) => return Err(ReplyError::InvalidLine),
        }
        self.body = None;
        let mut bytes = buffer.split_to(len).freeze();
        buffer.advance(2);
        Ok(Step::Value(match kind {
            BodyKind::Bulk => Reply::Bulk(bytes),
            BodyKind::Error => Reply::Error(bytes),
            BodyKind::Verbatim => {
                let format = match &bytes[..] {
                    [a, b, c, b':', ..] => [*a, *b, *c],
                    _ => return Err(ReplyError::InvalidValue),
                };
                bytes.advance(4);
                Reply::Verbatim {
                    format,
                    text: bytes,
                }
            }
        }))
    }

    /// Takes one line, without its line break.
    fn take_line(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, ReplyError> {
        let found = memchr::memchr2(b'\r', b'\n', &buffer[self.searched..])
            .map(|found| self.searched + found);
        if found.unwrap_or(buffer.len()) > self.limits.line_bytes_max {
            return Err(ReplyError::LineTooLong);
        }
        let line_end = match found {
            None => {
                self.searched = buffer.len();
                return Ok(None);
            }
            Some(line_end) => line_end,
        };
        match buffer.get(line_end..line_end + 2) {
            Some(b"\r\n") => {}
            None if buffer[line_end] == b'\r' => {
                self.searched = line_end;
                return Ok(None);
            }
            _ => return Err(ReplyError::InvalidLine),
        }
        self.searched = 0;
        let line = buffer.split_to(line_end).freeze();
        buffer.advance(2);
        Ok(Some(line))
    }
}

/// The value of a filled aggregate; nothing for an attribute.
fn close(kind: AggregateKind, items: Vec<Reply>) -> Option<Reply> {
    Some(match kind {
        AggregateKind::Array => Reply::Array(items),
        AggregateKind::Set => Reply::Set(items),
        AggregateKind::Push => Reply::Push(items),
        AggregateKind::Attribute => return None,
        AggregateKind::Map => {
            let mut entries = Vec::with_capacity(items.len() / 2);
            let mut items = items.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                entries.push((key, value));
            }
            Reply::Map(entries)
        }
    })
}

fn parse_len(text: &[u8]) -> Result<usize, ReplyError> {
    parse_integer(text)
        .and_then(|value| usize::try_from(value).ok())
        .ok_or(ReplyError::InvalidNumber)
}

fn parse_double(text: &[u8]) -> Option<f64> {
    match text {
        b"inf" => Some(f64::INFINITY),
        b"-inf" => Some(f64::NEG_INFINITY),
        b"nan" | b"-nan" => Some(f64::NAN),
        // What is left must begin like a number, which keeps out the other words that Rust reads.
        [b'0'..=b'9', ..] | [b'-', b'0'..=b'9', ..] => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

fn is_big_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes the bytes whole and one at a time; both must give the same.
    fn decode(input: &[u8], limits: ReplyLimits) -> Result<Option<Reply>, ReplyError> {
        let mut buffer = BytesMut::from(input);
        let whole = ReplyDecoder::new(limits).decode(&mut buffer);
        let mut buffer = BytesMut::new();
        let mut decoder = ReplyDecoder::new(limits);
        let mut piecewise = Ok(None);
        for byte in input {
            buffer.extend_from_slice(&[*byte]);
            piecewise = decoder.decode(&mut buffer);
            if !matches!(piecewise, Ok(None)) {
                break;
            }
        }
        assert_eq!(whole, piecewise, "{}", input.escape_ascii());
        whole
    }

    fn check(input: &str, expected: Result<Option<Reply>, ReplyError>) {
        assert_eq!(
            decode(input.as_bytes(), ReplyLimits::default()),
            expected,
            "{input:?}"
        );
    }

    #[test]
    fn values() {
        check("+OK\r\n", Ok(Some(Reply::ok())));
        check("-ERR a\r\n", Ok(Some(Reply::error("ERR a"))));
        check("!5\r\nERR a\r\n", Ok(Some(Reply::error("ERR a"))));
        check(":-3\r\n", Ok(Some(Reply::Integer(-3))));
        check("$4\r\na\r\nb\r\n", Ok(Some(Reply::bulk("a\r\nb"))));
        check("$-1\r\n", Ok(Some(Reply::Null)));
        check("*-1\r\n", Ok(Some(Reply::NullArray)));
        check("_\r\n", Ok(Some(Reply::Null)));
        check("#t\r\n", Ok(Some(Reply::Boolean(true))));
        check(",1.5e3\r\n", Ok(Some(Reply::Double(1500.0))));
        check(",-inf\r\n", Ok(Some(Reply::Double(f64::NEG_INFINITY))));
        check("(-123\r\n", Ok(Some(Reply::BigNumber(Bytes::from("-123")))));
        check(
            "=5\r\ntxt:a\r\n",
            Ok(Some(Reply::Verbatim {
                format: *b"txt",
                text: Bytes::from("a"),
            })),
        );
    }

    #[test]
    fn aggregates() {
        let one = || vec![Reply::Integer(1)];
        check("*0\r\n", Ok(Some(Reply::Array(vec![]))));
        check("~1\r\n:1\r\n", Ok(Some(Reply::Set(one()))));
        check(">1\r\n:1\r\n", Ok(Some(Reply::Push(one()))));
        check(
            "%1\r\n+a\r\n*2\r\n*0\r\n%0\r\n",
            Ok(Some(Reply::Map(vec![(
                Reply::simple("a"),
                Reply::Array(vec![Reply::Array(vec![]), Reply::Map(vec![])]),
            )]))),
        );
        check(
            "|1\r\n+ttl\r\n:9\r\n*1\r\n|0\r\n:1\r\n",
            Ok(Some(Reply::Array(one()))),
        );
    }

    #[test]
    fn malformed_input_is_named() {
        for (input, error) in [
            ("?\r\n", ReplyError::UnknownKind { got: b'?' }),
            ("\r\n", ReplyError::InvalidLine),
            ("+a\n", ReplyError::InvalidLine),
            ("+a\rb", ReplyError::InvalidLine),
            (":1x\r\n", ReplyError::InvalidNumber),
            ("$-2\r\n", ReplyError::InvalidNumber),
            ("$?\r\n", ReplyError::InvalidNumber),
            ("*99999999999999999999\r\n", ReplyError::InvalidNumber),
            ("$1\r\nabc", ReplyError::InvalidLine),
            ("_x\r\n", ReplyError::InvalidValue),
            ("#x\r\n", ReplyError::InvalidValue),
            ("(1x\r\n", ReplyError::InvalidValue),
            (",infinity\r\n", ReplyError::InvalidValue),
            ("=3\r\ntxt\r\n", ReplyError::InvalidValue),
            ("*1\r\n>0\r\n", ReplyError::Misplaced),
            ("%9223372036854775807\r\n", ReplyError::TooManyValues),
            ("$536870913\r\n", ReplyError::BulkTooLong),
        ] {
            check(input, Err(error));
        }
    }

    #[test]
    fn limits_hold() {
        let limits = ReplyLimits {
            depth_max: 2,
            values_max: 5,
            bulk_bytes_max: 3,
            line_bytes_max: 4,
        };
        let check = |input: &str, expected: Result<(), ReplyError>| {
            assert_eq!(
                decode(input.as_bytes(), limits).map(|_| ()),
                expected,
                "{input:?}"
            );
        };
        check("*1\r\n*1\r\n:1\r\n", Ok(()));
        check("*1\r\n*1\r\n*1\r\n", Err(ReplyError::TooDeep));
        check("*4\r\n:1\r\n:1\r\n:1\r\n:1\r\n", Ok(()));
        check("*5\r\n", Err(ReplyError::TooManyValues));
        check(
            "*2\r\n*2\r\n:1\r\n:1\r\n*1\r\n",
            Err(ReplyError::TooManyValues),
        );
        check("$3\r\nabc\r\n", Ok(()));
        check("$4\r\n", Err(ReplyError::BulkTooLong));
        check("+abc\r\n", Ok(()));
        check("+abcd\r\n", Err(ReplyError::LineTooLong));
    }
}
