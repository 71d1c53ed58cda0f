//! The client's side: arguments to the bytes of a request.

use crate::reply::{encode_array_header, encode_bulk};
use bytes::BytesMut;

/// Appends a request as an array of bulk strings.
///
/// A list without arguments becomes the empty array, which servers ignore without an answer.
///
/// # Examples
/// ```
/// let mut out = bytes::BytesMut::new();
/// tidegate_resp::encode_request(&mut out, &["GET", "a"]);
/// assert_eq!(&out[..], b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
/// ```
pub fn encode_request<A: AsRef<[u8]>>(out: &mut BytesMut, arguments: &[A]) {
    encode_array_header(out, arguments.len());
    for argument in arguments {
        encode_bulk(out, argument.as_ref());
    }
}
