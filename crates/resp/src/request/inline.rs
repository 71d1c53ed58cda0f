//! Inline commands: one line, arguments separated by blanks, with quotes and escapes.
//!
//! - In double quotes `\n \r \t \b \a` are control characters, `\xHH` is any byte, and a backslash before anything else
//!   stands for that character.
//! - In single quotes only `\'` is an escape.
//! - A quote may open in the middle of an argument; after a closing one a blank or the end must follow.
//! - An argument without quotes takes backslashes literally.

use super::arguments::{Span, Spans};
use crate::error::ProtocolError;

/// The arguments of a line, unescaped one after the other into one piece of memory that is never longer than the line.
pub(super) fn split_line(line: &[u8]) -> Result<(Vec<u8>, Spans), ProtocolError> {
    let mut unescaped = Vec::with_capacity(line.len());
    let mut spans = Spans::default();
    let mut rest = line;
    loop {
        rest = skip_blanks(rest);
        if rest.is_empty() {
            return Ok((unescaped, spans));
        }
        let start = unescaped.len();
        rest = read_argument(rest, &mut unescaped)?;
        spans.push(Span::new(start, unescaped.len()).ok_or(ProtocolError::RequestTooLong)?);
    }
}

fn is_blank(byte: u8) -> bool {
    // Vertical tab and form feed separate arguments but do not end one, as in Redis.
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn skip_blanks(line: &[u8]) -> &[u8] {
    let blanks = line.iter().take_while(|byte| is_blank(**byte)).count();
    &line[blanks..]
}

/// Appends one argument and returns what follows it.
fn read_argument<'a>(
    mut rest: &'a [u8],
    unescaped: &mut Vec<u8>,
) -> Result<&'a [u8], ProtocolError> {
    loop {
        match rest {
            [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => return Ok(rest),
            [b'"', quoted @ ..] => return after_quote(read_double_quoted(quoted, unescaped)?),
            [b'\'', quoted @ ..] => return after_quote(read_single_quoted(quoted, unescaped)?),
            [byte, after @ ..] => {
                unescaped.push(*byte);
                rest = after;
            }
        }
    }
}

fn after_quote(rest: &[u8]) -> Result<&[u8], ProtocolError> {
    match rest.first() {
        Some(byte) if !is_blank(*byte) => Err(ProtocolError::UnbalancedQuotes),
        _ => Ok(rest),
    }
}

fn read_double_quoted<'a>(
    mut rest: &'a [u8],
    unescaped: &mut Vec<u8>,
) -> Result<&'a [u8], ProtocolError> {
    loop {
        let (byte, after) = match rest {
            [] => return Err(ProtocolError::UnbalancedQuotes),
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex_digit(*high) << 4 | hex_digit(*low), after)
            }
            [b'\\', escaped, after @ ..] => (
                match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                },
                after,
            ),
            [byte, after @ ..] => (*byte, after),
        };
        unescaped.push(byte);
        rest = after;
    }
}

fn read_single_quoted<'a>(
    mut rest: &'a [u8],
    unescaped: &mut Vec<u8>,
) -> Result<&'a [u8], ProtocolError> {
    loop {
        let (byte, after) = match rest {
            [] => return Err(ProtocolError::UnbalancedQuotes),
            [b'\'', after @ ..] => return Ok(after),
            [b'\\', b'\'', after @ ..] => (b'\'', after),
            [byte, after @ ..] => (*byte, after),
        };
        unescaped.push(byte);
        rest = after;
    }
}

fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &[u8], expected: &[&[u8]]) {
        let (bytes, spans) = split_line(line).expect("balanced");
        let arguments: Vec<&[u8]> = (0..spans.len())
            .map(|place| &bytes[spans.get(place).expect("a place").range()])
            .collect();
        assert_eq!(arguments, expected, "{}", line.escape_ascii());
    }

    #[test]
    fn blanks_separate() {
        check(b"", &[]);
        check(b" \t\r\x0b\x0c ", &[]);
        check(b"  SET  a\tb  ", &[b"SET", b"a", b"b"]);
        check(b"a\x0bb \x0bc", &[b"a\x0bb", b"c"]);
        check(b"PI\0NG", &[b"PI\0NG"]);
    }

    #[test]
    fn double_quotes_escape() {
        check(
            br#""a b" "" "\n\r\t\b\a\\\"\q""#,
            &[b"a b", b"", b"\n\r\t\x08\x07\\\"q"],
        );
        check(br#""\x00\xfF\x4" "\xzz""#, &[b"\x00\xffx4", b"xzz"]);
        check(br#"pre"fix ed""#, &[b"prefix ed"]);
    }

    #[test]
    fn single_quotes_take_backslashes_literally() {
        check(br"'a \n b' '\'' 'x\y'", &[br"a \n b", b"'", br"x\y"]);
        check(br"a\nb", &[br"a\nb"]);
    }

    #[test]
    fn open_quotes_are_refused() {
        for line in [
            &br#"""#[..],
            br#"a "b"#,
            br#""a"b"#,
            br"'a",
            br"'a'b",
            br#""a\"#,
            br#""a\""#,
            br"'a\'",
            br#""a"'b'"#,
        ] {
            assert_eq!(
                split_line(line).map(|_| ()),
                Err(ProtocolError::UnbalancedQuotes),
                "{}",
                line.escape_ascii()
            );
        }
    }
}
