//! Writing replies: one function per construct, no allocation beyond the growth of the buffer.
//!
//! A function takes the protocol only if the two versions write the construct differently. A header of n must be
//! followed by n replies (2n for a map).

use super::Protocol;
use crate::number::DoubleText;
use bytes::BytesMut;

/// A kind byte, the digits of any 64-bit integer, a line break.
const NUMBER_LINE_BYTES: usize = 1 + 20 + 2;

/// Appends a simple string. Line breaks in it become spaces, so that it cannot forge a reply.
pub fn encode_simple(out: &mut BytesMut, text: &[u8]) {
    safe_line(out, b'+', text);
}

/// Appends an error. The text begins with its code (`ERR …`). Line breaks in it become spaces.
pub fn encode_error(out: &mut BytesMut, text: &[u8]) {
    safe_line(out, b'-', text);
}

/// Appends an integer.
#[inline]
pub fn encode_integer(out: &mut BytesMut, value: i64) {
    number_line(out, b':', value);
}

/// Appends a bulk string: any bytes, unchanged.
#[inline]
pub fn encode_bulk(out: &mut BytesMut, bytes: &[u8]) {
    out.reserve(NUMBER_LINE_BYTES + bytes.len() + 2);
    count_line(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends the null that stands for an absent value.
#[inline]
pub fn encode_null(out: &mut BytesMut, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// Appends the null that stands for an absent array.
pub fn encode_null_array(out: &mut BytesMut, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"*-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// Appends the header of an array of so many replies.
#[inline]
pub fn encode_array_header(out: &mut BytesMut, len: usize) {
    count_line(out, b'*', len);
}

/// Appends the header of a map of so many entries; twice as many replies must follow.
pub fn encode_map_header(out: &mut BytesMut, entries: usize, protocol: Protocol) {
    match protocol {
        Protocol::Resp2 => count_line(out, b'*', entries.saturating_mul(2)),
        Protocol::Resp3 => count_line(out, b'%', entries),
    }
}

/// Appends the header of a set of so many replies.
pub fn encode_set_header(out: &mut BytesMut, len: usize, protocol: Protocol) {
    count_line(out, aggregate(b'~', protocol), len);
}

/// Appends the header of a push message of so many replies.
pub fn encode_push_header(out: &mut BytesMut, len: usize, protocol: Protocol) {
    count_line(out, aggregate(b'>', protocol), len);
}

/// Appends a double; see [`DoubleText`] for its text.
pub fn encode_double(out: &mut BytesMut, value: f64, protocol: Protocol) {
    let text = DoubleText::new(value);
    match protocol {
        Protocol::Resp2 => encode_bulk(out, text.as_str().as_bytes()),
        Protocol::Resp3 => safe_line(out, b',', text.as_str().as_bytes()),
    }
}

/// Appends a boolean.
pub fn encode_boolean(out: &mut BytesMut, value: bool, protocol: Protocol) {
    out.extend_from_slice(match (protocol, value) {
        (Protocol::Resp2, true) => b":1\r\n",
        (Protocol::Resp2, false) => b":0\r\n",
        (Protocol::Resp3, true) => b"#t\r\n",
        (Protocol::Resp3, false) => b"#f\r\n",
    });
}

/// Appends an integer of any size, given as its decimal digits. Line breaks in it become spaces.
pub fn encode_big_number(out: &mut BytesMut, digits: &[u8], protocol: Protocol) {
    match protocol {
        Protocol::Resp2 => encode_bulk(out, digits),
        Protocol::Resp3 => safe_line(out, b'(', digits),
    }
}

/// Appends a text for people, with a format of three characters such as `txt`.
pub fn encode_verbatim(out: &mut BytesMut, format: [u8; 3], text: &[u8], protocol: Protocol) {
    match protocol {
        Protocol::Resp2 => encode_bulk(out, text),
        Protocol::Resp3 => {
            count_line(out, b'=', text.len().saturating_add(4));
            out.extend_from_slice(&format);
            out.extend_from_slice(b":");
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn aggregate(kind: u8, protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Resp2 => b'*',
        Protocol::Resp3 => kind,
    }
}

/// A line of text in which line breaks have become spaces.
fn safe_line(out: &mut BytesMut, kind: u8, text: &[u8]) {
    out.reserve(text.len() + 3);
    out.extend_from_slice(&[kind]);
    let start = out.len();
    out.extend_from_slice(text);
    for byte in &mut out[start..] {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[inline]
fn count_line(out: &mut BytesMut, kind: u8, count: usize) {
    if count < 10 {
        // `count` is one digit, so the cast keeps it whole.
        out.extend_from_slice(&[kind, b'0' + count as u8, b'\r', b'\n']);
    } else {
        number_line(out, kind, i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// A kind byte, a number and a line break, appended in one piece.
#[inline]
fn number_line(out: &mut BytesMut, kind: u8, value: i64) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value).as_bytes();
    let mut line = [0; NUMBER_LINE_BYTES];
    let end = 1 + digits.len();
    line[0] = kind;
    line[1..end].copy_from_slice(digits);
    line[end..end + 2].copy_from_slice(b"\r\n");
    out.extend_from_slice(&line[..end + 2]);
}

#[cfg(test)]
mod tests {
    use crate::reply::{Protocol, Reply};
    use bytes::{Bytes, BytesMut};

    /// Writes a reply in both protocols.
    fn check(reply: &Reply, resp2: &str, resp3: &str) {
        for (protocol, expected) in [(Protocol::Resp2, resp2), (Protocol::Resp3, resp3)] {
            let mut out = BytesMut::new();
            reply.encode(&mut out, protocol);
            assert_eq!(
                out.escape_ascii().to_string(),
                expected,
                "{reply:?} {protocol:?}"
            );
        }
    }

    fn check_same(reply: &Reply, expected: &str) {
        check(reply, expected, expected);
    }

    #[test]
    fn lines() {
        check_same(&Reply::ok(), r"+OK\r\n");
        check_same(&Reply::error("ERR no"), r"-ERR no\r\n");
        check_same(&Reply::Integer(0), r":0\r\n");
        check_same(&Reply::Integer(i64::MIN), r":-9223372036854775808\r\n");
        check_same(&Reply::Integer(i64::MAX), r":9223372036854775807\r\n");
    }

    #[test]
    fn bulk_strings_keep_every_byte() {
        check_same(&Reply::bulk(""), r"$0\r\n\r\n");
        check_same(&Reply::bulk("a\r\nb"), r"$4\r\na\r\nb\r\n");
        check_same(&Reply::bulk("0123456789"), r"$10\r\n0123456789\r\n");
    }

    #[test]
    fn nulls_and_booleans() {
        check(&Reply::Null, r"$-1\r\n", r"_\r\n");
        check(&Reply::NullArray, r"*-1\r\n", r"_\r\n");
        check(&Reply::Boolean(true), r":1\r\n", r"#t\r\n");
        check(&Reply::Boolean(false), r":0\r\n", r"#f\r\n");
    }

    #[test]
    fn aggregates() {
        let one = || vec![Reply::Integer(1)];
        check_same(&Reply::Array(vec![]), r"*0\r\n");
        check_same(&Reply::Array(one()), r"*1\r\n:1\r\n");
        check(&Reply::Set(one()), r"*1\r\n:1\r\n", r"~1\r\n:1\r\n");
        check(&Reply::Push(one()), r"*1\r\n:1\r\n", r">1\r\n:1\r\n");
        check(
            &Reply::Map(vec![(Reply::bulk("a"), Reply::Null)]),
            r"*2\r\n$1\r\na\r\n$-1\r\n",
            r"%1\r\n$1\r\na\r\n_\r\n",
        );
    }

    #[test]
    fn numbers_and_texts_of_the_third_version() {
        check(&Reply::Double(3.1), r"$3\r\n3.1\r\n", r",3.1\r\n");
        check(
            &Reply::Double(f64::NEG_INFINITY),
            r"$4\r\n-inf\r\n",
            r",-inf\r\n",
        );
        check(
            &Reply::BigNumber(Bytes::from("12")),
            r"$2\r\n12\r\n",
            r"(12\r\n",
        );
        check(
            &Reply::Verbatim {
                format: *b"txt",
                text: Bytes::from("a\nb"),
            },
            r"$3\r\na\nb\r\n",
            r"=7\r\ntxt:a\nb\r\n",
        );
    }

    #[test]
    fn line_breaks_cannot_forge_a_reply() {
        check_same(
            &Reply::error("ERR unknown 'a\r\n+OK\r\n'"),
            r"-ERR unknown \'a  +OK  \'\r\n",
        );
        check_same(&Reply::simple("\n\r"), r"+  \r\n");
        check(
            &Reply::BigNumber(Bytes::from("1\r\n+OK")),
            r"$6\r\n1\r\n+OK\r\n",
            r"(1  +OK\r\n",
        );
    }
}
