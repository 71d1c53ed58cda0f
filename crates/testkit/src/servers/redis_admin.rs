//! What a test tells a Redis itself: one command on a connection of its own, and its answer.
//!
//! No client for use: it waits for every answer, and knows only what Redis 7 sends in its second protocol.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// The longest an answer is waited for: a paused server gives none.
const PATIENCE: Duration = Duration::from_secs(5);

/// An answer of Redis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RedisAnswer {
    /// A simple or a bulk string.
    Text(Vec<u8>),
    /// An error, its first word included.
    Error(String),
    /// A number.
    Integer(i64),
    /// Nothing: an absent key.
    Nothing,
    /// Several answers.
    List(Vec<RedisAnswer>),
}

impl RedisAnswer {
    /// The text of a string, readable; empty for everything else.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        }
    }

    /// Whether it is `OK`.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        *self == Self::Text(b"OK".to_vec())
    }
}

/// Sends a command to the server on this port of the loopback interface and waits for its answer, at most five
/// seconds.
pub(super) fn ask(port: u16, arguments: &[&[u8]]) -> io::Result<RedisAnswer> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        request.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        request.extend_from_slice(argument);
        request.extend_from_slice(b"\r\n");
    }
    stream.write_all(&request)?;
    read(&mut BufReader::new(stream))
}

fn read(stream: &mut impl BufRead) -> io::Result<RedisAnswer> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line)?;
    let Some((kind, rest)) = line
        .strip_suffix(b"\r\n")
        .and_then(<[u8]>::split_first)
        .map(|(kind, rest)| (*kind, String::from_utf8_lossy(rest).into_owned()))
    else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let number = || rest.parse::<i64>().map_err(io::Error::other);
    Ok(match kind {
        b'+' => RedisAnswer::Text(rest.into_bytes()),
        b'-' => RedisAnswer::Error(rest),
        b':' => RedisAnswer::Integer(number()?),
        b'$' => match usize::try_from(number()?) {
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                stream.read_exact(&mut bytes)?;
                bytes.truncate(length);
                RedisAnswer::Text(bytes)
            }
            Err(_) => RedisAnswer::Nothing,
        },
        b'*' => match usize::try_from(number()?) {
            Ok(count) => RedisAnswer::List(
                (0..count)
                    .map(|_| read(stream))
                    .collect::<io::Result<Vec<_>>>()?,
            ),
            Err(_) => RedisAnswer::Nothing,
        },
        other => {
            return Err(io::Error::other(format!(
                "an answer that begins with {other}"
            )));
        }
    })
}
