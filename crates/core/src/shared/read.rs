//! Reads over the shared cache: one question by the caller itself, without a lane or a task in between; a miss goes
//! to the key's [flights](super::flights).
//!
//! A reader never waits for a write of its own process and never trusts this process's knowledge of one, as reads
//! without a shared cache do. The trap: a local write commits, and before its caller is told a write of another node
//! commits too and is acknowledged. A reader that began after that acknowledgement and is answered with the local
//! write goes back in time. What the shared cache and the store say is never older.

use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use tokio::sync::oneshot;

use super::flights::Boarded;
use super::life::entry;
use super::{Shared, fit, shared_key};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::layer::Layer;
use crate::mutation::Mutation;
use crate::port::{Got, Held, SharedError, SharedKey};
use crate::receipt::{Durability, Read, Receipt, Source};

/// What a look into the cache found.
pub(super) enum Looked {
    Fresh(Read),
    /// Past its freshness by so much.
    Stale(Held, Duration),
    Nothing,
}

/// Reads one key of a class that is over the shared cache.
pub(crate) async fn read(layer: &Layer, shared: &Shared, key: &[u8], class: usize) -> Result<Read> {
    if layer.is_closing() {
        return Err(Error::closed());
    }
    let keys = [shared_key(layer, class, &Key::copy_from(key))];
    let mut got = Looked::Nothing;
    if let Some(pass) = shared.reach.pass(&*layer.clock) {
        let mut answers = shared.cache.get(&keys).await;
        pass.tell(&answers, &*layer.clock);
        got = answered(layer, shared, answers.pop());
    }
    match got {
        Looked::Fresh(read) => {
            layer.state(class).counters.shared_hits.one();
            Ok(read)
        }
        got => Box::pin(miss(layer, shared, &keys[0].key, class, got)).await,
    }
}

/// Reads several keys of such classes with one question for all. Answers in the order of `keys`.
pub(crate) async fn read_many(
    layer: &Layer,
    shared: &Shared,
    keys: &[(Key, usize)],
) -> Vec<Result<Read>> {
    if layer.is_closing() {
        return keys.iter().map(|_| Err(Error::closed())).collect();
    }
    let named: Vec<SharedKey> = keys
        .iter()
        .map(|(key, class)| shared_key(layer, *class, key))
        .collect();
    let mut answers = Vec::new();
    if let Some(pass) = shared.reach.pass(&*layer.clock) {
        let got = fit(shared.cache.get(&named).await, named.len());
        pass.tell(&got, &*layer.clock);
        answers = got.into_iter().map(Some).collect();
    }
    answers.resize_with(keys.len(), || None);
    let reads = keys.iter().zip(answers).map(|((key, class), answer)| {
        let got = answered(layer, shared, answer);
        async move {
            match got {
                Looked::Fresh(read) => {
                    layer.state(*class).counters.shared_hits.one();
                    Ok(read)
                }
                got => Box::pin(miss(layer, shared, key, *class, got)).await,
            }
        }
    });
    join_all(reads).await
}

fn answered(layer: &Layer, shared: &Shared, answer: Option<Result<Got, SharedError>>) -> Looked {
    match answer {
        Some(Ok(got)) => looked(layer, got),
        Some(Err(SharedError::NeedsGeneration { .. })) => {
            shared.needs.tell();
            Looked::Nothing
        }
        Some(Err(_)) | None => Looked::Nothing,
    }
}

pub(super) fn looked(layer: &Layer, got: Got) -> Looked {
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
        Got::Dirty(held) | Got::Parked(held) => fresh(held, Source::Dirty, Durability::Memory),
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
    let error = match board(layer, shared, key, class).await {
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
