//! The Redis protocol as a pure codec: bytes to requests, replies to bytes, and back again for those who test or
//! measure a server.
//!
//! The crate knows no socket, no runtime and no cache. It is given a read buffer and says which requests are whole; it
//! is given an answer and a write buffer and writes the form that the client negotiated. So all of it can be tested
//! with plain bytes.
//!
//! - [`request`]: [`RequestDecoder`] turns a read buffer into [`Request`]s. Arguments are ranges of the buffer, nothing
//!   is copied; input that comes in pieces is never read twice.
//! - [`reply`]: [`Reply`] and the `encode_*` functions write answers in RESP2 or RESP3; [`ReplyDecoder`] reads them.
//! - [`limits`]: everything a stranger can make large has a named limit with a default.
//! - [`error`]: what is wrong with the bytes, in the words a Redis client already knows.
//! - [`number`]: integers and doubles as Redis reads and prints them.
//!
//! # What it promises
//! - No input panics, loops for ever, or makes it reserve memory that was merely announced: a header such as
//!   `*1000000000` or `$536870912` costs a few bytes until the data is really there.
//! - How the network cuts the bytes does not matter: the same bytes give the same requests and the same error.
//! - Reading is linear in the bytes received, even if they come one at a time.
//! - What a client sent cannot forge a reply: line breaks inside errors and simple strings become spaces.
//!
//! # Where it is stricter than Redis
//! Redis does not look at the two bytes after a bulk string; a client that announces a wrong length then has its data
//! run as commands. Here that is an error and the connection ends. A zero byte in an inline command is an ordinary byte
//! here, whereas Redis waits for ever.
//!
//! # Examples
//! ```
//! use bytes::BytesMut;
//! use tidegate_resp::{RequestDecoder, reply};
//!
//! let mut buffer = BytesMut::from(&b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING\r\n*2\r\n$3\r\nGE"[..]);
//! let mut decoder = RequestDecoder::default();
//!
//! let get = decoder.decode(&mut buffer)?.expect("the first request is whole");
//! assert_eq!(get.arguments().collect::<Vec<_>>(), [&b"GET"[..], b"a"]);
//! let ping = decoder.decode(&mut buffer)?.expect("the inline command is whole");
//! assert_eq!(ping.name(), b"PING");
//! assert!(decoder.decode(&mut buffer)?.is_none(), "the third waits for more bytes");
//!
//! let mut answers = BytesMut::new();
//! reply::encode_bulk(&mut answers, b"1");
//! reply::encode_simple(&mut answers, b"PONG");
//! assert_eq!(&answers[..], b"$1\r\n1\r\n+PONG\r\n");
//! # Ok::<(), tidegate_resp::ProtocolError>(())
//! ```

pub mod request;

pub mod reply;

pub mod error;
pub mod limits;
pub mod number;

pub use error::{ProtocolError, ReplyError};
pub use limits::{ReplyLimits, RequestLimits};
pub use reply::{Protocol, Reply, ReplyDecoder};
pub use request::{Request, RequestDecoder, encode_request};
