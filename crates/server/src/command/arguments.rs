//! Arguments of requests: taken by place, read as numbers, copied where they are kept.

use bytes::Bytes;
use tidegate_resp::number::parse_integer;
use tidegate_resp::{Reply, Request};

use super::errors;

/// The argument at a place; empty beyond the last, which the arity check has ruled out for fixed places.
pub(super) fn at(request: &Request, place: usize) -> &[u8] {
    request.argument(place).unwrap_or_default()
}

/// A copy of the argument at a place, so that it does not hold on to the read buffer.
pub(super) fn own(request: &Request, place: usize) -> Bytes {
    Bytes::copy_from_slice(at(request, place))
}

/// Copies of all arguments from a place on.
pub(super) fn own_from(request: &Request, place: usize) -> Vec<Bytes> {
    request
        .arguments()
        .skip(place)
        .map(Bytes::copy_from_slice)
        .collect()
}

/// The integer at a place.
pub(super) fn integer(request: &Request, place: usize) -> Result<i64, Reply> {
    parse_integer(at(request, place)).ok_or_else(errors::not_an_integer)
}

/// Whether an argument is this word, in any mixture of cases.
pub(super) fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}
