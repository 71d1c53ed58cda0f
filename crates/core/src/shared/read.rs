//! Reads over the shared cache: a [copy](super::copies) in this process where the class's level allows it; then one
//! question by the caller itself, without a lane or a task in between; a miss goes to the key's
//! [flights](super::flights).
//!
//! A reader never waits for a write of its own process and never trusts this process's knowledge of one, as reads
//! without a shared cache do. The trap: a local write commits, and before its caller is told a write of another node
//! commits too and is acknowledged. A reader that began after that acknowledgement and is answered with the local
//! write goes back in time. What the shared cache and the store say is never older.

use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use tokio::sync::oneshot;

use super::back;
use super::copies::{Near, Sent, allowed, find as find_copy};
use super::flights::Boarded;
use super::life::entry;
use super::{Shared, fit, shared_key};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::layer::Layer;
use crate::mutation::Mutation;
use crate::port::{Got, Held, SharedError, SharedKey};
use crate::receipt::{Durability, Read, Receipt, Source};
use crate::version::Version;

/// What a look into the cache found.
pub(super) enum Looked {
    Fresh(Read),
    /// Past its freshness by so much.
    Stale(Held, Duration),
    Nothing,
}

/// Reads one key of a class that is over the shared cache. A copy in this process will do if the level of the class
/// allows it and it is not older than `least`.
pub(crate) async fn read(
    layer: &Layer,
    shared: &Shared,
    key: &[u8],
    class: usize,
    least: Version,
) -> Result<Read> {
    if layer.is_closing() {
        return Err(Error::closed());
    }
    if let Some(near) = find_copy(layer, shared, key, class, least) {
        return Ok(near_read(layer, class, near));
    }
    let keys = [shared_key(layer, class, &Key::copy_from(key))];
    let sent = sent(layer, shared, key, class);
    let mut answer = None;
    if let Some(pass) = shared.reach.pass(&*layer.clock) {
        let mut answers = shared.cache.get(&keys).await;
        pass.tell(&answers, &*layer.clock);
        answer = answers.pop();
    }
    let got = answered(layer, shared, (&keys[0], class), sent, answer);
    match got {
        Looked::Fresh(read) => {
            layer.state(class).counters.shared_hits.one();
            Ok(read)
        }
        got => Box::pin(miss(layer, shared, &keys[0].key, class, got)).await,
    }
}

/// Reads several keys of such classes with one question for all, each with the least version that will do. Answers in
/// the order of `keys`.
pub(crate) async fn read_many(
    layer: &Layer,
    shared: &Shared,
    keys: &[(Key, usize, Version)],
) -> Vec<Result<Read>> {
    if layer.is_closing() {
        return keys.iter().map(|_| Err(Error::closed())).collect();
    }
    let mut reads: Vec<Option<Result<Read>>> = Vec::with_capacity(keys.len());
    let mut asked = Vec::with_capacity(keys.len());
    for (place, (key, class, least)) in keys.iter().enumerate() {
        let near = find_copy(layer, shared, key.as_bytes(), *class, *least);
        if near.is_none() {
            asked.push((place, sent(layer, shared, key.as_bytes(), *class)));
        }
        reads.push(near.map(|near| Ok(near_read(layer, *class, near))));
    }
    let named: Vec<SharedKey> = asked
        .iter()
        .map(|(place, _)| shared_key(layer, keys[*place].1, &keys[*place].0))
        .collect();
    let mut answers = Vec::new();
    if !named.is_empty()
        && let Some(pass) = shared.reach.pass(&*layer.clock)
    {
        let got = fit(shared.cache.get(&named).await, named.len());
        pass.tell(&got, &*layer.clock);
        answers = got.into_iter().map(Some).collect();
    }
    answers.resize_with(named.len(), || None);
    let mut misses = Vec::new();
    for (((place, sent), key), answer) in asked.into_iter().zip(&named).zip(answers) {
        let class = keys[place].1;
        match answered(layer, shared, (key, class), sent, answer) {
            Looked::Fresh(read) => {
                layer.state(class).counters.shared_hits.one();
                reads[place] = Some(Ok(read));
            }
            got => misses.push(async move {
                let read = miss(layer, shared, &keys[place].0, class, got).await;
                (place, read)
            }),
        }
    }
    for (place, read) in join_all(misses).await {
        reads[place] = Some(read);
    }
    let unanswered = || Err(Error::new(ErrorKind::Unavailable, "the key was not read"));
    reads
        .into_iter()
        .map(|read| read.unwrap_or_else(unanswered))
        .collect()
}

/// What a copy in this process answers.
pub(crate) fn near_read(layer: &Layer, class: usize, near: Near) -> Read {
    let counters = &layer.state(class).counters;
    match near.copy.is_negative() {
        true => counters.negative_hits.one(),
        false => counters.hits.one(),
    }
    let version = near.copy.version();
    Read {
        entry: near.copy.into_entry(),
        receipt: Receipt {
            version,
            source: Source::Near,
            age_bound: near.age_bound,
            durability: Durability::Store,
        },
    }
}

/// Before a question is sent whose answer may be kept.
fn sent(layer: &Layer, shared: &Shared, key: &[u8], class: usize) -> Option<Sent> {
    allowed(layer.class(class)).then(|| shared.copies.sent(key))
}

fn answered(
    layer: &Layer,
    shared: &Shared,
    (key, class): (&SharedKey, usize),
    sent: Option<Sent>,
    answer: Option<Result<Got, SharedError>>,
) -> Looked {
    if let Some(Err(SharedError::NeedsGeneration { .. })) = answer {
        shared.needs.tell();
    }
    let got = answer.and_then(Result::ok);
    if let Some(sent) = sent {
        match &got {
            Some(Got::Clean { held, fresh_until }) if *fresh_until > layer.clock.now() => {
                let copies = &shared.copies;
                copies.keep(layer, sent, &key.key, held, *fresh_until);
            }
            // What the reader is given instead may be newer than the copy.
            _ => shared.copies.forget(layer, key.key.as_bytes()),
        }
    }
    got.map_or(Looked::Nothing, |got| looked(layer, class, got))
}

pub(super) fn looked(layer: &Layer, class: usize, got: Got) -> Looked {
    let now = layer.clock.now();
    let fresh = |held: Held, source, durability| {
        let version = held.version;
        Looked::Fresh(Read {
            entry: entry(held, now),
            receipt: Receipt {
                version,
                source,
                age_bound: Duration::ZERO,
                durability,
            },
        })
    };
    match got {
        Got::Clean { held, fresh_until } if fresh_until <= now => {
            Looked::Stale(held, now.since(fresh_until))
        }
        Got::Clean { held, .. } => fresh(held, Source::Shared, Durability::Store),
        Got::Dirty(held) | Got::Parked(held) => {
            fresh(held, Source::Dirty, back::promised(layer.class(class)))
        }
        Got::Nothing => Looked::Nothing,
    }
}

async fn miss(
    layer: &Layer,
    shared: &Shared,
    key: &Key,
    class: usize,
    got: Looked,
) -> Result<Read> {
    let counters = &layer.state(class).counters;
    counters.misses.one();
    let boarded = board(layer, shared, key, class).await;
    if allowed(layer.class(class)) {
        // What was loaded may be newer than what another reader has kept meanwhile.
        shared.copies.forget(layer, key.as_bytes());
    }
    let error = match boarded {
        Ok(read) => return Ok(read),
        Err(error) => error,
    };
    counters.failed.one();
    let limit = layer.class(class).stale_if_error;
    if let Looked::Stale(held, by) = got
        && by < limit
        && error.kind().is_temporary()
    {
        counters.stale.one();
        let version = held.version;
        return Ok(Read {
            entry: entry(held, layer.clock.now()),
            receipt: Receipt {
                version,
                source: Source::Stale,
                age_bound: layer.class(class).ttl.unwrap_or_default() + by,
                durability: Durability::Store,
            },
        });
    }
    Err(error.with_key(key).with_class(&layer.state(class).name))
}

/// Takes a seat in the next flight of the key, and waits at most as long as the class says.
async fn board(layer: &Layer, shared: &Shared, key: &Key, class: usize) -> Result<Read> {
    let flights = &shared.lanes[layer.lane_index(key.as_bytes())].flights;
    let (reply, receiver) = oneshot::channel();
    let relaxed = layer.mutations.breaks(Mutation::RelaxedFlight);
    match flights.lock().board(key, class, reply, relaxed) {
        Boarded::Leads => flights.wake(),
        Boarded::Follows => layer.state(class).counters.coalesced.one(),
        Boarded::Refused => {
            return Err(Error::new(
                ErrorKind::Overloaded,
                "too many loads are waiting for the store",
            ));
        }
    }
    let timeout = layer.clock.sleep(layer.class(class).load_timeout);
    match select(receiver, timeout).await {
        Either::Left((Ok(answer), _)) => answer,
        Either::Left((Err(_), _)) => Err(Error::closed()),
        Either::Right(((), _)) => Err(Error::new(
            ErrorKind::Unavailable,
            format_args!(
                "the store did not answer a load within {:?} (load_timeout)",
                layer.class(class).load_timeout
            ),
        )),
    }
}
