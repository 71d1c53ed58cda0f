//! Keys and their lives: `DEL`, `EXISTS`, `EXPIRE`, `TTL` and their kin.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use tidegate::port::Timestamp;
use tidegate::{Change, Entry};
use tidegate_resp::{Reply, Request};

use super::arguments::{at, own, own_from};
use super::errors;
use super::expiry::{self, Condition, End, Unit};
use super::row::Prepared;
use super::string::{count, read, update};
use crate::server::Server;

type Result<T> = std::result::Result<T, Reply>;

/// How many deletes of one command are under way at once.
const DELETES_AT_ONCE: usize = 4096;

/// Deletes keys in the store too. Not atomic across keys: if one fails, the others may be gone.
pub(super) fn del(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    let gate = server.gate.clone();
    let keys: HashSet<Bytes> = own_from(request, 1).into_iter().collect();
    let keys: Vec<Bytes> = keys.into_iter().collect();
    Ok(Prepared::change(async move {
        let mut deleted = 0;
        for keys in keys.chunks(DELETES_AT_ONCE) {
            match try_join_all(keys.iter().map(|key| gate.delete(key))).await {
                Ok(all) => deleted += all.iter().filter(|written| written.existed).count(),
                Err(error) => return errors::of_gate(&error),
            }
        }
        count(deleted)
    }))
}

pub(super) fn unlink(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    del(server, request)
}

/// Counts the keys that are present, each as often as it is named.
pub(super) fn exists(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    let (gate, keys) = (server.gate.clone(), own_from(request, 1));
    Ok(Prepared::read(async move {
        match gate.get_many(&keys).await {
            Ok(values) => count(values.iter().flatten().count()),
            Err(error) => errors::of_gate(&error),
        }
    }))
}

pub(super) fn touch(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    exists(server, request)
}

pub(super) fn type_of(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    let name =
        |entry: Option<&Entry>| Reply::simple(if entry.is_some() { "string" } else { "none" });
    Ok(Prepared::read(read(
        server.gate.clone(),
        own(request, 1),
        name,
    )))
}

pub(super) fn expire(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    set_end_of_life(server, request, expiry::SECONDS, "expire")
}

pub(super) fn pexpire(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    set_end_of_life(server, request, expiry::MILLISECONDS, "pexpire")
}

pub(super) fn expireat(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    set_end_of_life(server, request, expiry::UNIX_SECONDS, "expireat")
}

pub(super) fn pexpireat(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    set_end_of_life(server, request, expiry::UNIX_MILLISECONDS, "pexpireat")
}

fn set_end_of_life(
    server: &Arc<Server>,
    request: &Request,
    unit: Unit,
    command: &str,
) -> Result<Prepared> {
    let condition = Condition::parse(request.arguments().skip(3))?;
    let (millis, end) = expiry::any_end_of_life(at(request, 2), unit, server.gate.now(), command)?;
    let change = move |entry: Option<&Entry>| with_end(entry, condition, millis, end);
    Ok(Prepared::change(update(
        server.gate.clone(),
        own(request, 1),
        change,
    )))
}

/// Gives an entry another end of life if the condition allows it.
fn with_end(
    entry: Option<&Entry>,
    condition: Condition,
    millis: i64,
    end: End,
) -> (Option<Change>, Reply) {
    match entry {
        Some(entry) if condition.allows(entry.expires_at, millis) => {
            let change = match end {
                End::Past => Change::Delete,
                End::At(at) => Change::Put {
                    value: entry.value.clone(),
                    expires_at: Some(at),
                },
            };
            (Some(change), Reply::Integer(1))
        }
        _ => (None, Reply::Integer(0)),
    }
}

pub(super) fn persist(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    let change = |entry: Option<&Entry>| match entry {
        Some(entry) if entry.expires_at.is_some() => {
            let change = Change::Put {
                value: entry.value.clone(),
                expires_at: None,
            };
            (Some(change), Reply::Integer(1))
        }
        _ => (None, Reply::Integer(0)),
    };
    Ok(Prepared::change(update(
        server.gate.clone(),
        own(request, 1),
        change,
    )))
}

pub(super) fn ttl(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    Ok(life(server, request, |end, now| to_seconds(left(end, now))))
}

pub(super) fn pttl(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    Ok(life(server, request, left))
}

pub(super) fn expiretime(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    Ok(life(server, request, |end, _| to_seconds(end)))
}

pub(super) fn pexpiretime(server: &Arc<Server>, request: &Request) -> Result<Prepared> {
    Ok(life(server, request, |end, _| end))
}

/// Answers of the end of life and the present: -2 for a missing key, -1 for one without an end.
fn life(server: &Arc<Server>, request: &Request, answer: fn(i64, i64) -> i64) -> Prepared {
    let gate = server.gate.clone();
    Prepared::read(read(server.gate.clone(), own(request, 1), move |entry| {
        Reply::Integer(match entry.map(|entry| entry.expires_at) {
            None => -2,
            Some(None) => -1,
            Some(Some(end)) => answer(millis(end), millis(gate.now())),
        })
    }))
}

fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

fn left(end: i64, now: i64) -> i64 {
    end.saturating_sub(now).max(0)
}

/// Rounded, not cut: of 999 milliseconds a second is left.
fn to_seconds(millis: i64) -> i64 {
    millis.saturating_add(500) / 1000
}

#[cfg(test)]
mod tests {
    use tidegate::Version;

    use super::*;

    #[test]
    fn an_end_of_life_in_the_past_deletes() {
        let entry = Entry {
            value: Bytes::from("v"),
            expires_at: None,
            version: Version::NONE,
        };
        let always = Condition::default();
        assert_eq!(
            with_end(Some(&entry), always, 5, End::Past),
            (Some(Change::Delete), Reply::Integer(1))
        );
        assert_eq!(
            with_end(None, always, 5, End::Past),
            (None, Reply::Integer(0))
        );
        let at = Timestamp::from_millis(5);
        let put = Change::Put {
            value: Bytes::from("v"),
            expires_at: Some(at),
        };
        assert_eq!(
            with_end(Some(&entry), always, 5, End::At(at)),
            (Some(put), Reply::Integer(1))
        );
    }

    #[test]
    fn seconds_are_rounded() {
        assert_eq!([0, 499, 500, 1499, 1500].map(to_seconds), [0, 0, 1, 1, 2]);
        assert_eq!(left(5, 9), 0);
    }
}
