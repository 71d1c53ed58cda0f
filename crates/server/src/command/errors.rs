//! Errors as clients see them: a first word to match, then a sentence. No value is ever part of one.
//!
//! | first word | what happened | what to do |
//! |---|---|---|
//! | `ERR` | the command itself is wrong | change it |
//! | `READONLY` | the class of the key takes no writes | write elsewhere |
//! | `REFUSED` | the store will never take this write; nothing was written | change the value or the store |
//! | `UNAVAILABLE` | store or journal cannot be reached; nothing was written | try again later |
//! | `UNKNOWN` | the write was sent and not answered; it may be in the store | read before deciding |
//! | `OVERLOADED` | a bound was met; nothing was written | try again later |
//! | `NOLETTER` | there is no such dead letter (any more) | list them again |
//! | `CLOSED` | the server is shutting down | connect elsewhere or later |

use tidegate::{Error, ErrorKind};
use tidegate_resp::{Reply, Request};

/// The longest piece of a request that an error repeats, in bytes.
const REPEATED_BYTES_MAX: usize = 128;

pub(super) fn syntax() -> Reply {
    Reply::error("ERR syntax error")
}

pub(super) fn not_an_integer() -> Reply {
    Reply::error("ERR value is not an integer or out of range")
}

pub(super) fn not_a_float() -> Reply {
    Reply::error("ERR value is not a valid float")
}

pub(super) fn invalid_expiry(command: &str) -> Reply {
    Reply::error(format!("ERR invalid expire time in '{command}' command"))
}

pub(super) fn value_too_long() -> Reply {
    Reply::error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
}

/// An answer of several values that is longer than a client may leave untaken.
pub(super) fn answer_too_long(bytes_max: u64) -> Reply {
    Reply::error(format!(
        "ERR the values asked for have more than {bytes_max} bytes together, which is output_max under [server]; \
         ask for fewer keys at once"
    ))
}

pub(crate) fn key_too_long() -> Reply {
    Reply::error(format!(
        "ERR key is longer than {} bytes",
        tidegate::KEY_BYTES_MAX
    ))
}

/// What a client is told when a command broke down, which is a bug; the log says more.
pub(crate) fn broke_down() -> Reply {
    Reply::error(
        "ERR internal error, the server's log says more; the outcome of the command is unknown",
    )
}

/// `name` is `get`, or `client|id` for a subcommand.
pub(crate) fn wrong_arity(name: &str) -> Reply {
    Reply::error(format!(
        "ERR wrong number of arguments for '{name}' command"
    ))
}

pub(crate) fn unknown_command(request: &Request) -> Reply {
    let mut text = b"ERR unknown command '".to_vec();
    text.extend_from_slice(cut(request.name(), REPEATED_BYTES_MAX));
    text.extend_from_slice(b"', with args beginning with: ");
    let start = text.len();
    for argument in request.arguments().skip(1) {
        let said = text.len() - start;
        if said >= REPEATED_BYTES_MAX {
            break;
        }
        text.push(b'\'');
        text.extend_from_slice(cut(argument, REPEATED_BYTES_MAX - said));
        text.extend_from_slice(b"' ");
    }
    Reply::error(text)
}

pub(crate) fn unknown_subcommand(container: &str, name: &[u8]) -> Reply {
    let mut text = b"ERR unknown subcommand '".to_vec();
    text.extend_from_slice(cut(name, REPEATED_BYTES_MAX));
    text.extend_from_slice(format!("'. Try {} HELP.", container.to_uppercase()).as_bytes());
    Reply::error(text)
}

/// An error that has an argument in its middle.
pub(super) fn naming(before: &str, argument: &[u8], after: &str) -> Reply {
    let mut text = before.as_bytes().to_vec();
    text.extend_from_slice(cut(argument, REPEATED_BYTES_MAX));
    text.extend_from_slice(after.as_bytes());
    Reply::error(text)
}

/// At most so many bytes, and nothing from the first zero byte on.
fn cut(text: &[u8], bytes_max: usize) -> &[u8] {
    let end = text
        .iter()
        .take(bytes_max)
        .take_while(|byte| **byte != 0)
        .count();
    &text[..end]
}

/// An error of the gate, its kind as the first word.
pub(super) fn of_gate(error: &Error) -> Reply {
    let word = match error.kind() {
        ErrorKind::ReadOnly => "READONLY",
        ErrorKind::Refused => "REFUSED",
        ErrorKind::Unavailable => "UNAVAILABLE",
        ErrorKind::Unknown => "UNKNOWN",
        ErrorKind::Overloaded => "OVERLOADED",
        ErrorKind::Closed => "CLOSED",
        _ => "ERR",
    };
    Reply::error(format!("{word} {error}"))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tidegate_resp::RequestDecoder;

    use super::*;

    fn request(arguments: &[&[u8]]) -> Request {
        let mut buffer = BytesMut::new();
        tidegate_resp::encode_request(&mut buffer, arguments);
        RequestDecoder::default()
            .decode(&mut buffer)
            .unwrap()
            .unwrap()
    }

    fn text(reply: Reply) -> String {
        match reply {
            Reply::Error(text) => String::from_utf8(text.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_unknown_command_is_repeated_up_to_a_bound() {
        assert_eq!(
            text(unknown_command(&request(&[b"Foo", b"a", b"b"]))),
            "ERR unknown command 'Foo', with args beginning with: 'a' 'b' "
        );
        let long = [b'x'; 500];
        let said = text(unknown_command(&request(&[&long, b"abc", &long, b"never"])));
        let expected = format!(
            "ERR unknown command '{}', with args beginning with: 'abc' '{}' ",
            "x".repeat(128),
            "x".repeat(122)
        );
        assert_eq!(said, expected);
        assert_eq!(
            text(unknown_subcommand("client", b"f\0oo")),
            "ERR unknown subcommand 'f'. Try CLIENT HELP."
        );
    }

    #[test]
    fn each_kind_of_gate_error_has_its_word() {
        for (kind, word) in [
            (ErrorKind::Invalid, "ERR "),
            (ErrorKind::ReadOnly, "READONLY "),
            (ErrorKind::Refused, "REFUSED "),
            (ErrorKind::Unavailable, "UNAVAILABLE "),
            (ErrorKind::Unknown, "UNKNOWN "),
            (ErrorKind::Overloaded, "OVERLOADED "),
            (ErrorKind::Closed, "CLOSED "),
        ] {
            assert!(text(of_gate(&Error::new(kind, "why"))).starts_with(word));
        }
    }
}
