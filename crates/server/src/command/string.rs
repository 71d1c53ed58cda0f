//! Values: `GET`, `SET` and their kin.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidegate::port::Timestamp;
use tidegate::{Change, Entry, Gate, VALUE_BYTES_MAX};
use tidegate_resp::{Reply, Request};

use super::arguments::{at, is, own, own_from};
use super::errors;
use super::expiry::{self, End, Unit};
use super::row::Prepared;
use crate::server::Server;

type Result<T> = std::result::Result<T, Reply>;

/// A value, or the null that stands for an absent one.
pub(super) fn value(entry: Option<&Entry>) -> Reply {
    entry.map_or(Reply::Null, |entry| Reply::Bulk(entry.value.clone()))
}

/// Reads a key and answers from its entry.
pub(super) async fn read(
    gate: Gate,
    key: Bytes,
    answer: impl FnOnce(Option<&Entry>) -> Reply,
) -> Reply {
    match gate.read(&key).await {
        Ok(read) => answer(read.entry.as_ref()),
        Err(error) => errors::of_gate(&error),
    }
}

/// Changes a key depending on what it holds and answers what the change says.
pub(super) async fn update(
    gate: Gate,
    key: Bytes,
    change: impl FnMut(Option<&Entry>) -> (Option<Change>, Reply) + Send + 'static,
) -> Reply {
    match gate.update(&key, change).await {
        Ok((reply, _)) => reply,
        Err(error) => errors::of_gate(&error),
    }
}

pub(super) fn get(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    Ok(Prepared::read(read(
        server.gate.clone(),
        own(request, 1),
        value,
    )))
}

pub(super) fn strlen(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    let length = |entry: Option<&Entry>| count(entry.map_or(0, |entry| entry.value.len()));
    Ok(Prepared::read(read(
        server.gate.clone(),
        own(request, 1),
        length,
    )))
}

/// A length or a number of things.
pub(super) fn count(count: usize) -> Reply {
    Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

pub(super) fn mget(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    let (gate, keys) = (server.gate.clone(), own_from(request, 1));
    let bytes_max = server.config.output_bytes_max;
    Ok(Prepared::read(async move {
        match gate.get_many(&keys).await {
            Ok(values) if bytes_of(&values) > bytes_max => errors::answer_too_long(bytes_max),
            Ok(values) => {
                let value = |value: Option<Bytes>| value.map_or(Reply::Null, Reply::Bulk);
                Reply::Array(values.into_iter().map(value).collect())
            }
            Err(error) => errors::of_gate(&error),
        }
    }))
}

/// The length of all values together. One that is named often counts as often.
fn bytes_of(values: &[Option<Bytes>]) -> u64 {
    values
        .iter()
        .flatten()
        .map(|value| value.len() as u64)
        .sum()
}

/// Which keys `SET` writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Only {
    Always,
    Absent,
    Present,
}

/// How long what `SET` writes lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    ForEver,
    Until(End),
    /// As long as what was there.
    Kept,
}

/// The options of `SET`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SetOptions {
    only: Only,
    life: Life,
    /// Answer the old value.
    get: bool,
}

impl SetOptions {
    fn parse(request: &Request, now: Timestamp) -> Result<Self> {
        let mut options = Self {
            only: Only::Always,
            life: Life::ForEver,
            get: false,
        };
        // The number is read after all options, so that a wrong option is told first, as Redis does.
        let mut given = None;
        let mut place = 3;
        while let Some(option) = request.argument(place) {
            if is(option, "NX") && options.only != Only::Present {
                options.only = Only::Absent;
            } else if is(option, "XX") && options.only != Only::Absent {
                options.only = Only::Present;
            } else if is(option, "GET") {
                options.get = true;
            } else if is(option, "KEEPTTL") && given.is_none() {
                options.life = Life::Kept;
            } else if options.life == Life::ForEver
                && let Some((unit, number)) = life_option(request, place, given)
            {
                given = Some((unit, number));
                place += 1;
            } else {
                return Err(errors::syntax());
            }
            place += 1;
        }
        if let Some((unit, number)) = given {
            options.life = Life::Until(expiry::end_of_life(number, unit, now, "set")?);
        }
        Ok(options)
    }

    /// What to make of a key that holds `entry`, and what to answer.
    fn apply(self, entry: Option<&Entry>, new: &Bytes) -> (Option<Change>, Reply) {
        let writes = match self.only {
            Only::Always => true,
            Only::Absent => entry.is_none(),
            Only::Present => entry.is_some(),
        };
        let reply = match (self.get, writes) {
            (true, _) => value(entry),
            (false, true) => Reply::ok(),
            (false, false) => Reply::Null,
        };
        let end = match self.life {
            Life::ForEver => Some(None),
            Life::Kept => Some(entry.and_then(|entry| entry.expires_at)),
            Life::Until(End::At(at)) => Some(Some(at)),
            Life::Until(End::Past) => None,
        };
        let change = match end {
            Some(expires_at) => Change::Put {
                value: new.clone(),
                expires_at,
            },
            None => Change::Delete,
        };
        // Deleting what is not there would only make work.
        let idle = entry.is_none() && change == Change::Delete;
        ((writes && !idle).then_some(change), reply)
    }
}

pub(super) fn set(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    if request.len() == 3 {
        return Ok(put(server, request, 2, None));
    }
    let options = SetOptions::parse(request, server.gate.now())?;
    if let SetOptions {
        only: Only::Always,
        get: false,
        life,
    } = options
    {
        match life {
            Life::ForEver => return Ok(put(server, request, 2, None)),
            Life::Until(End::At(at)) => return Ok(put(server, request, 2, Some(at))),
            Life::Until(End::Past) | Life::Kept => {}
        }
    }
    let new = own(request, 2);
    let change = move |entry: Option<&Entry>| options.apply(entry, &new);
    Ok(Prepared::change(update(
        server.gate.clone(),
        own(request, 1),
        change,
    )))
}

/// Writes the argument at `value_place` to the key, whatever it holds.
fn put(
    server: &Arc<Server>,
    request: &Request,
    value_place: usize,
    expires_at: Option<Timestamp>,
) -> Prepared {
    let (gate, key, new) = (
        server.gate.clone(),
        own(request, 1),
        own(request, value_place),
    );
    Prepared::overwrite(async move {
        match gate.set_with(&key, new, expires_at).await {
            Ok(_) => Reply::ok(),
            Err(error) => errors::of_gate(&error),
        }
    })
}

pub(super) fn setex(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    set_with_life(server, request, expiry::SECONDS, "setex")
}

pub(super) fn psetex(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    set_with_life(server, request, expiry::MILLISECONDS, "psetex")
}

fn set_with_life(
    server: &Arc<Server>,
    request: &Request,
    unit: Unit,
    command: &str,
) -> Result<Prepared> {
    let end = expiry::end_of_life(at(request, 2), unit, server.gate.now(), command)?;
    let End::At(expires_at) = end else {
        return Err(errors::invalid_expiry(command));
    };
    Ok(put(server, request, 3, Some(expires_at)))
}

pub(super) fn setnx(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    let new = own(request, 2);
    let change = move |entry: Option<&Entry>| match entry {
        Some(_) => (None, Reply::Integer(0)),
        None => (
            Some(Change::Put {
                value: new.clone(),
                expires_at: None,
            }),
            Reply::Integer(1),
        ),
    };
    Ok(Prepared::change(update(
        server.gate.clone(),
        own(request, 1),
        change,
    )))
}

pub(super) fn mset(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    if request.len().is_multiple_of(2) {
        return Err(errors::wrong_arity("mset"));
    }
    // Of a key named twice the last value counts.
    let mut pairs = std::collections::HashMap::new();
    for place in (1..request.len()).step_by(2) {
        pairs.insert(own(request, place), own(request, place + 1));
    }
    let gate = server.gate.clone();
    Ok(Prepared::overwrite(async move {
        match gate.set_many(pairs).await {
            Ok(_) => Reply::ok(),
            Err(error) => errors::of_gate(&error),
        }
    }))
}

pub(super) fn getset(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    let new = own(request, 2);
    let change = move |entry: Option<&Entry>| {
        (
            Some(Change::Put {
                value: new.clone(),
                expires_at: None,
            }),
            value(entry),
        )
    };
    Ok(Prepared::change(update(
        server.gate.clone(),
        own(request, 1),
        change,
    )))
}

pub(super) fn getdel(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    let change = |entry: Option<&Entry>| (entry.map(|_| Change::Delete), value(entry));
    Ok(Prepared::change(update(
        server.gate.clone(),
        own(request, 1),
        change,
    )))
}

/// The option at a place that gives a life, and its number. It may come again in the same unit, and then the last
/// number counts.
fn life_option<'a>(
    request: &'a Request,
    place: usize,
    given: Option<(Unit, &[u8])>,
) -> Option<(Unit, &'a [u8])> {
    let unit = expiry::unit_of_option(request.argument(place)?)?;
    let number = request.argument(place + 1)?;
    given
        .is_none_or(|(before, _)| before == unit)
        .then_some((unit, number))
}

/// What `GETEX` does to the life of a key that is there; a wrong number is told then and not earlier, as Redis does.
fn parse_getex(request: &Request, now: Timestamp) -> Result<Option<Result<Life>>> {
    let mut given = None;
    let mut persist = false;
    let mut place = 2;
    while let Some(option) = request.argument(place) {
        if is(option, "PERSIST") && given.is_none() {
            persist = true;
        } else if !persist && let Some(option) = life_option(request, place, given) {
            given = Some(option);
            place += 1;
        } else {
            return Err(errors::syntax());
        }
        place += 1;
    }
    Ok(match given {
        Some((unit, number)) => {
            Some(expiry::end_of_life(number, unit, now, "getex").map(Life::Until))
        }
        None => persist.then_some(Ok(Life::ForEver)),
    })
}

pub(super) fn getex(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    let Some(life) = parse_getex(request, server.gate.now())? else {
        return get(server, request);
    };
    let change = move |entry: Option<&Entry>| match (entry, &life) {
        (None, _) => (None, Reply::Null),
        (Some(_), Err(refused)) => (None, refused.clone()),
        (Some(entry), Ok(life)) => (with_life(entry, *life), value(Some(entry))),
    };
    Ok(Prepared::change(update(
        server.gate.clone(),
        own(request, 1),
        change,
    )))
}

/// What gives an entry another life; nothing if it has that life already.
fn with_life(entry: &Entry, life: Life) -> Option<Change> {
    let value = entry.value.clone();
    match life {
        Life::Until(End::Past) => Some(Change::Delete),
        Life::Until(End::At(at)) => Some(Change::Put {
            value,
            expires_at: Some(at),
        }),
        Life::ForEver | Life::Kept => entry.expires_at.map(|_| Change::Put {
            value,
            expires_at: None,
        }),
    }
}

pub(super) fn append(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    let tail = own(request, 2);
    let change = move |entry: Option<&Entry>| appended(entry, &tail);
    Ok(Prepared::change(update(
        server.gate.clone(),
        own(request, 1),
        change,
    )))
}

fn appended(entry: Option<&Entry>, tail: &Bytes) -> (Option<Change>, Reply) {
    let Some(entry) = entry else {
        let change = Change::Put {
            value: tail.clone(),
            expires_at: None,
        };
        return (Some(change), count(tail.len()));
    };
    let length = entry.value.len() + tail.len();
    if length > VALUE_BYTES_MAX {
        return (None, errors::value_too_long());
    }
    let mut whole = BytesMut::with_capacity(length);
    whole.extend_from_slice(&entry.value);
    whole.extend_from_slice(tail);
    let change = Change::Put {
        value: whole.freeze(),
        expires_at: entry.expires_at,
    };
    (Some(change), count(length))
}

#[cfg(test)]
mod tests {
    use tidegate::Version;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn request(line: &str) -> Request {
        let mut buffer = BytesMut::from(format!("{line}\r\n").as_bytes());
        let decoded = tidegate_resp::RequestDecoder::default().decode(&mut buffer);
        decoded.expect("well formed").expect("whole")
    }

    fn options(line: &str) -> Result<SetOptions> {
        SetOptions::parse(&request(line), NOW)
    }

    fn entry(value: &str, expires_at: Option<u64>) -> Entry {
        Entry {
            value: Bytes::copy_from_slice(value.as_bytes()),
            expires_at: expires_at.map(Timestamp::from_millis),
            version: Version::NONE,
        }
    }

    fn put(value: &'static str, expires_at: Option<u64>) -> Option<Change> {
        let expires_at = expires_at.map(Timestamp::from_millis);
        Some(Change::Put {
            value: Bytes::from(value),
            expires_at,
        })
    }

    #[test]
    fn options_of_set_that_contradict_are_refused() {
        for line in [
            "set k v NX XX",
            "set k v XX NX",
            "set k v EX",
            "set k v EX 10 PX 10",
            "set k v EX 10 KEEPTTL",
            "set k v KEEPTTL EX 10",
            "set k v FOO",
            "set k v EX x FOO",
            "set k v 10",
        ] {
            assert_eq!(options(line), Err(errors::syntax()), "{line}");
        }
        let twice = options("set k v EX 10 EX 20").unwrap();
        assert_eq!(
            twice.life,
            Life::Until(End::At(Timestamp::from_millis(1_020_000)))
        );
        assert_eq!(options("set k v EX x"), Err(errors::not_an_integer()));
        assert_eq!(
            options("set k v EX 0 NX"),
            Err(errors::invalid_expiry("set"))
        );
    }

    #[test]
    fn set_writes_and_answers_as_its_options_say() {
        let new = Bytes::from("new");
        let old = entry("old", Some(2_000_000));
        let old_value = || Reply::bulk("old");
        for (line, present, change, reply) in [
            ("set k v NX", false, put("new", None), Reply::ok()),
            ("set k v NX NX", true, None, Reply::Null),
            ("set k v xx", true, put("new", None), Reply::ok()),
            ("set k v XX", false, None, Reply::Null),
            ("set k v GET", true, put("new", None), old_value()),
            ("set k v GET", false, put("new", None), Reply::Null),
            ("set k v NX GET", true, None, old_value()),
            ("set k v XX GET", false, None, Reply::Null),
            (
                "set k v KEEPTTL",
                true,
                put("new", Some(2_000_000)),
                Reply::ok(),
            ),
            ("set k v KEEPTTL", false, put("new", None), Reply::ok()),
            (
                "set k v GET EX 1",
                true,
                put("new", Some(1_001_000)),
                old_value(),
            ),
            ("set k v PXAT 1", true, Some(Change::Delete), Reply::ok()),
            ("set k v PXAT 1", false, None, Reply::ok()),
        ] {
            let applied = options(line).unwrap().apply(present.then_some(&old), &new);
            assert_eq!(applied, (change, reply), "{line} {present}");
        }
    }

    #[test]
    fn getex_takes_one_option() {
        let parse = |line: &str| parse_getex(&request(line), NOW);
        assert_eq!(parse("getex k"), Ok(None));
        assert_eq!(
            parse("getex k PERSIST PERSIST"),
            Ok(Some(Ok(Life::ForEver)))
        );
        assert_eq!(
            parse("getex k EX x"),
            Ok(Some(Err(errors::not_an_integer())))
        );
        assert_eq!(
            parse("getex k EXAT 1"),
            Ok(Some(Ok(Life::Until(End::Past))))
        );
        for line in [
            "getex k EX",
            "getex k EX 1 PERSIST",
            "getex k PERSIST EX 1",
            "getex k NX",
        ] {
            assert_eq!(parse(line), Err(errors::syntax()), "{line}");
        }
    }

    #[test]
    fn append_keeps_the_end_of_life() {
        let tail = Bytes::from("x");
        assert_eq!(appended(None, &tail), (put("x", None), Reply::Integer(1)));
        let old = entry("ab", Some(5));
        assert_eq!(
            appended(Some(&old), &tail),
            (put("abx", Some(5)), Reply::Integer(3))
        );
    }
}
