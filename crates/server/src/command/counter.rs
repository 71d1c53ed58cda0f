//! Numbers kept as text: `INCR` and its kin.

use std::sync::Arc;

use bytes::Bytes;
use tidegate::{Change, Entry};
use tidegate_resp::number::parse_integer;
use tidegate_resp::{Reply, Request};

use super::arguments::{at, integer, own};
use super::errors;
use super::long_double::LongDouble;
use super::row::Prepared;
use super::string::update;
use crate::server::Server;

type Result<T> = std::result::Result<T, Reply>;

pub(super) fn incr(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    Ok(add(server, request, 1))
}

pub(super) fn decr(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    Ok(add(server, request, -1))
}

pub(super) fn incrby(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    Ok(add(server, request, integer(request, 2)?))
}

pub(super) fn decrby(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    let by = integer(request, 2)?
        .checked_neg()
        .ok_or_else(|| Reply::error("ERR decrement would overflow"))?;
    Ok(add(server, request, by))
}

/// In a class of deltas what is added stays an addition all the way to the store, as with [`tidegate::Gate::add`]; the
/// errors are those of Redis.
fn add(server: &Arc<Server>, request: &Request, by: i64) -> Prepared {
    let key = own(request, 1);
    let is_delta = server.gate.class_of(&key).delta;
    let change = move |entry: Option<&Entry>| match sum(entry, by) {
        Ok(sum) if is_delta => (Some(Change::Add { by }), Reply::Integer(sum)),
        sum => changed(entry, sum.map(|sum| (sum.to_string(), Reply::Integer(sum)))),
    };
    Prepared::change(update(server.gate.clone(), key, change))
}

/// The number a key holds, plus `by`; a missing key holds zero.
fn sum(entry: Option<&Entry>, by: i64) -> Result<i64> {
    let present = match entry {
        None => 0,
        Some(entry) => parse_integer(&entry.value).ok_or_else(errors::not_an_integer)?,
    };
    present
        .checked_add(by)
        .ok_or_else(|| Reply::error("ERR increment or decrement would overflow"))
}

pub(super) fn incrbyfloat(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    // What the key holds is judged first, as Redis does, so a wrong argument waits for its turn.
    let by = LongDouble::parse(at(request, 2));
    let change = move |entry: Option<&Entry>| {
        let sum = float_sum(entry, by);
        changed(entry, sum.map(|sum| (sum.clone(), Reply::bulk(sum))))
    };
    Ok(Prepared::change(update(
        server.gate.clone(),
        own(request, 1),
        change,
    )))
}

fn float_sum(entry: Option<&Entry>, by: Option<LongDouble>) -> Result<String> {
    let present = LongDouble::parse(entry.map_or(b"0", |entry| &entry.value));
    let (Some(present), Some(by)) = (present, by) else {
        return Err(errors::not_a_float());
    };
    let sum = present.add(by);
    let sum = sum.ok_or_else(|| Reply::error("ERR increment would produce NaN or Infinity"))?;
    Ok(sum.text())
}

/// Writes the new text, keeping the end of life; leaves the key as it is if there is none.
fn changed(entry: Option<&Entry>, new: Result<(String, Reply)>) -> (Option<Change>, Reply) {
    match new {
        Err(refused) => (None, refused),
        Ok((text, reply)) => {
            let expires_at = entry.and_then(|entry| entry.expires_at);
            (
                Some(Change::Put {
                    value: Bytes::from(text),
                    expires_at,
                }),
                reply,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate::Version;
    use tidegate::port::Timestamp;

    use super::*;

    fn entry(value: &str) -> Entry {
        Entry {
            value: Bytes::copy_from_slice(value.as_bytes()),
            expires_at: Some(Timestamp::from_millis(7)),
            version: Version::NONE,
        }
    }

    #[test]
    fn sums_stay_in_range() {
        assert_eq!(sum(None, -3), Ok(-3));
        assert_eq!(
            sum(Some(&entry("-9223372036854775808")), 1),
            Ok(i64::MIN + 1)
        );
        let overflow = Err(Reply::error("ERR increment or decrement would overflow"));
        assert_eq!(sum(Some(&entry("9223372036854775807")), 1), overflow);
        assert_eq!(sum(Some(&entry("-9223372036854775808")), -1), overflow);
        for text in ["", " 1", "01", "1.0", "+1", "a", "9223372036854775808"] {
            assert_eq!(
                sum(Some(&entry(text)), 1),
                Err(errors::not_an_integer()),
                "{text}"
            );
        }
    }

    #[test]
    fn a_number_keeps_its_end_of_life() {
        let old = entry("1");
        let (change, reply) = changed(Some(&old), Ok(("2".to_owned(), Reply::Integer(2))));
        let expires_at = old.expires_at;
        assert_eq!(
            change,
            Some(Change::Put {
                value: Bytes::from("2"),
                expires_at
            })
        );
        assert_eq!(reply, Reply::Integer(2));
        assert_eq!(changed(Some(&old), Err(Reply::Null)), (None, Reply::Null));
    }

    #[test]
    fn floats_that_are_none_are_refused() {
        let one = LongDouble::parse(b"1");
        assert_eq!(
            float_sum(Some(&entry("abc")), one),
            Err(errors::not_a_float())
        );
        assert_eq!(float_sum(None, None), Err(errors::not_a_float()));
        assert_eq!(float_sum(None, one).as_deref(), Ok("1"));
        let infinite = Reply::error("ERR increment would produce NaN or Infinity");
        assert_eq!(float_sum(None, LongDouble::parse(b"inf")), Err(infinite));
    }
}
