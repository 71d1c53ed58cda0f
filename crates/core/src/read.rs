//! The read path, the same for every strategy: near cache, then lane, then store, then fill.
//!
//! A hit takes no lock of ours, awaits nothing and allocates nothing. A miss goes to the key's lane, where it
//! is answered by the first of these that exists: a dirty entry, a write of the key that waits or is in
//! flight, a copy that appeared meanwhile, a load that waits or is in flight, a load of its own. Loads that
//! arrive while one is in flight go out together as the next one.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, join_all, select};
use tokio::sync::oneshot;

use crate::class::Strategy;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::lane::{DirtyEntry, Joined, Lane, LaneState, ReadReply};
use crate::layer::Layer;
use crate::near::{Copy, Freshness};
use crate::port::{RowKey, StoreError};
use crate::receipt::{Durability, Read, Receipt, Source};
use crate::shared::{self, Session};
use crate::version::Version;

/// What the near cache has of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lookup {
    /// The key holds this.
    Hit(Entry),
    /// The key is known to be absent.
    Negative,
    /// Nothing that may be served.
    Miss,
}

/// What a look at the near cache found.
pub(crate) enum Found {
    Fresh(Copy),
    Stale(Copy, Duration),
    Nothing,
}

/// Looks into the near cache only.
pub(crate) fn find(layer: &Layer, key: &[u8]) -> Found {
    let Some(copy) = layer.near.get(key) else {
        return Found::Nothing;
    };
    if copy.is_unlimited() {
        return Found::Fresh(copy);
    }
    match copy.freshness(layer.clock.now(), layer.clock.elapsed()) {
        Freshness::Fresh => Found::Fresh(copy),
        Freshness::Stale(by) => Found::Stale(copy, by),
        Freshness::Expired => Found::Nothing,
    }
}

/// Looks into the near cache only, counting a hit.
pub(crate) fn lookup(layer: &Layer, key: &[u8]) -> Lookup {
    if layer.shared.is_some() {
        return lookup_shared(layer, key);
    }
    look(layer, key)
}

fn lookup_shared(layer: &Layer, key: &[u8]) -> Lookup {
    let class = layer.class_of(key);
    let Some(shared) = layer.shared_of(class) else {
        return look(layer, key);
    };
    let Some(near) = shared::find_copy(layer, shared, key, class, Version::NONE) else {
        return Lookup::Miss;
    };
    match shared::near_read(layer, class, near).entry {
        Some(entry) => Lookup::Hit(entry),
        None => Lookup::Negative,
    }
}

fn look(layer: &Layer, key: &[u8]) -> Lookup {
    let Found::Fresh(copy) = find(layer, key) else {
        return Lookup::Miss;
    };
    let counters = &layer.state(layer.class_of(key)).counters;
    match copy.into_entry() {
        Some(entry) => {
            counters.hits.one();
            Lookup::Hit(entry)
        }
        None => {
            counters.negative_hits.one();
            Lookup::Negative
        }
    }
}

/// A read of the key's newest acknowledged state.
pub(crate) async fn read(layer: &Layer, key: &[u8]) -> Result<Read> {
    let class = layer.class_of(key);
    if let Some(shared) = layer.shared_of(class) {
        return shared::read(layer, shared, key, class, Version::NONE).await;
    }
    let found = find(layer, key);
    let counters = &layer.state(class).counters;
    match found {
        Found::Fresh(copy) => {
            let counter = if copy.is_negative() {
                &counters.negative_hits
            } else {
                &counters.hits
            };
            counter.one();
            Ok(near_read(layer, class, copy))
        }
        Found::Stale(copy, by) => Box::pin(miss(layer, key, class, Some((copy, by)))).await,
        Found::Nothing => Box::pin(miss(layer, key, class, None)).await,
    }
}

/// As [`read`], and never older than what the session has seen, which then has seen this too.
pub(crate) async fn read_in(layer: &Layer, key: &[u8], session: &mut Session) -> Result<Read> {
    let class = layer.class_of(key);
    let read = match layer.shared_of(class) {
        Some(shared) => shared::read(layer, shared, key, class, session.least(key)).await,
        None => read(layer, key).await,
    }?;
    session.saw(key, &read.receipt);
    Ok(read)
}

/// Reads several keys; those in the shared cache with one question for all. Answers in the order of `keys`.
pub(crate) async fn read_many(layer: &Layer, keys: &[&[u8]]) -> Vec<Result<Read>> {
    let Some(shared) = &layer.shared else {
        return join_all(keys.iter().map(|key| read(layer, key))).await;
    };
    let mut answers: Vec<Option<Result<Read>>> = vec![None; keys.len()];
    let mut places = Vec::with_capacity(keys.len());
    let mut asked = Vec::with_capacity(keys.len());
    for (place, key) in keys.iter().enumerate() {
        let class = layer.class_of(key);
        match layer.shared_of(class) {
            Some(_) => {
                places.push(place);
                asked.push((Key::copy_from(key), class, Version::NONE));
            }
            None => answers[place] = Some(read(layer, key).await),
        }
    }
    let read = shared::read_many(layer, shared, &asked).await;
    for (place, read) in places.into_iter().zip(read) {
        answers[place] = Some(read);
    }
    let unanswered = || Err(Error::new(ErrorKind::Unavailable, "the key was not read"));
    answers
        .into_iter()
        .map(|answer| answer.unwrap_or_else(unanswered))
        .collect()
}

async fn miss(
    layer: &Layer,
    key: &[u8],
    class: usize,
    stale: Option<(Copy, Duration)>,
) -> Result<Read> {
    let counters = &layer.state(class).counters;
    counters.misses.one();
    let error = match ask(layer, key, class).await {
        Ok(read) => return Ok(read),
        Err(error) => error,
    };
    counters.failed.one();
    let limit = layer.class(class).stale_if_error;
    if let Some((copy, by)) = stale.filter(|(_, by)| *by < limit)
        && error.kind().is_temporary()
    {
        counters.stale.one();
        let mut read = near_read(layer, class, copy);
        read.receipt.source = Source::Stale;
        read.receipt.age_bound = layer.class(class).ttl.unwrap_or_default() + by;
        return Ok(read);
    }
    Err(error
        .with_key(&Key::copy_from(key))
        .with_class(&layer.state(class).name))
}

/// Asks the lane, and waits at most as long as the class says.
async fn ask(layer: &Layer, key: &[u8], class: usize) -> Result<Read> {
    if layer.is_closing() {
        return Err(Error::closed());
    }
    if layer.class(class).strategy == Strategy::CacheOnly {
        return Ok(absent(Source::Near));
    }
    let receiver = match enqueue(layer, key, class) {
        Asked::Answer(read) => return Ok(read),
        Asked::Wait(receiver) => receiver,
        Asked::Refuse(error) => return Err(error),
    };
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

enum Asked {
    Answer(Read),
    Wait(oneshot::Receiver<Result<Read>>),
    Refuse(Error),
}

fn enqueue(layer: &Layer, key: &[u8], class: usize) -> Asked {
    let lane = layer.lane_of(key);
    let mut state = lane.lock();
    if let Some(dirty) = state.dirty.get(key) {
        let read = dirty_read(layer, dirty);
        let class = dirty.class;
        layer.fill(
            &Key::copy_from(key),
            class,
            read.entry.as_ref(),
            read.receipt.version,
        );
        return Asked::Answer(read);
    }
    let (reply, receiver) = oneshot::channel();
    let counters = &layer.state(class).counters;
    let reply = match state.attach(key, reply) {
        Ok(()) => {
            counters.coalesced.one();
            return Asked::Wait(receiver);
        }
        Err(reply) => reply,
    };
    // A load may have ended between the look without the lock and this one.
    if let Found::Fresh(copy) = find(layer, key) {
        return Asked::Answer(near_read(layer, class, copy));
    }
    match state.loads.join(key, class, reply) {
        Joined::Leads => lane.loads_waiting.notify_one(),
        Joined::Follows => counters.coalesced.one(),
        Joined::Refused(_) => {
            return Asked::Refuse(Error::new(
                ErrorKind::Overloaded,
                "too many loads are waiting for the store",
            ));
        }
    }
    Asked::Wait(receiver)
}

/// The driver of a lane's loads; ends when the layer stops and nothing waits.
pub(crate) async fn drive_loads(layer: Arc<Layer>, lane: usize) {
    let lane = &layer.lanes[lane];
    let limit = layer.batch_max;
    loop {
        let batch = lane.lock().loads.take(limit);
        if batch.is_empty() {
            if layer.is_stopping() {
                return;
            }
            lane.loads_waiting.notified().await;
            continue;
        }
        let loaded = load_in_time(&layer, &batch).await;
        land(&layer, lane, batch, loaded);
        // Readers that were just answered often read on at once: let them into the next load.
        tokio::task::yield_now().await;
    }
}

/// As [`load_apart`], and no longer than the most patient class of the batch waits: its readers are gone by
/// then, and a load that hangs must not keep its keys, and those behind it, from being loaded.
pub(crate) async fn load_in_time(
    layer: &Layer,
    batch: &[(Key, usize)],
) -> Vec<Result<Option<Entry>, StoreError>> {
    let patience = batch
        .iter()
        .map(|(_, class)| layer.class(*class).load_timeout);
    let patience = patience.max().unwrap_or_default();
    let load = std::pin::pin!(load_apart(layer, batch));
    match select(load, layer.clock.sleep(patience)).await {
        Either::Left((loaded, _)) => loaded,
        Either::Right(((), _)) => {
            let error = StoreError::unavailable("the store did not answer a load in time");
            vec![Err(error); batch.len()]
        }
    }
}

/// One load of several keys. The answer is as long as `batch`.
pub(crate) async fn load(
    layer: &Layer,
    batch: &[(Key, usize)],
) -> Result<Vec<Option<Entry>>, StoreError> {
    let rows: Vec<RowKey> = batch
        .iter()
        .filter_map(|(key, class)| layer.state(*class).table.map(|table| (table, key.clone())))
        .collect();
    for (_, class) in batch {
        layer.state(*class).counters.loads.one();
    }
    let load = AssertUnwindSafe(layer.store.load(&rows, layer.clock.now()));
    // A panic is a bug of an adapter; it fails this load and not all those after it.
    let loaded = load.catch_unwind().await;
    let loaded = loaded.unwrap_or_else(|_| Err(StoreError::unavailable("the store panicked")))?;
    if loaded.len() != batch.len() {
        return Err(StoreError::unavailable(
            "the store answered another number of keys than asked",
        ));
    }
    Ok(loaded)
}

/// One load if all goes well. One that fails is tried again for each table alone, and where the store refuses
/// (a row it cannot read, a table that is gone) for each key alone, so that what is broken breaks nothing
/// else. Answers in the order of `batch`.
pub(crate) async fn load_apart(
    layer: &Layer,
    batch: &[(Key, usize)],
) -> Vec<Result<Option<Entry>, StoreError>> {
    let error = match load(layer, batch).await {
        Ok(entries) => return entries.into_iter().map(Ok).collect(),
        Err(error) => error,
    };
    let table = |class: usize| layer.state(class).table;
    let mut answers: Vec<Result<Option<Entry>, StoreError>> = vec![Err(error.clone()); batch.len()];
    let mut tables: Vec<_> = batch.iter().map(|(_, class)| table(*class)).collect();
    tables.sort_unstable();
    tables.dedup();
    for only in &tables {
        let places: Vec<usize> = (0..batch.len())
            .filter(|place| table(batch[*place].1) == *only)
            .collect();
        let keys: Vec<(Key, usize)> = places.iter().map(|place| batch[*place].clone()).collect();
        let mut failed = error.clone();
        if tables.len() > 1 {
            match load(layer, &keys).await {
                Ok(entries) => {
                    for (place, entry) in places.into_iter().zip(entries) {
                        answers[place] = Ok(entry);
                    }
                    continue;
                }
                Err(error) => failed = error,
            }
        }
        let alone = matches!(failed, StoreError::Refused { .. }) && places.len() > 1;
        for (place, key) in places.into_iter().zip(keys) {
            answers[place] = match alone {
                true => load(layer, &[key])
                    .await
                    .map(|mut found| found.pop().flatten()),
                false => Err(failed.clone()),
            };
        }
    }
    answers
}

fn land(
    layer: &Layer,
    lane: &Lane,
    batch: Vec<(Key, usize)>,
    loaded: Vec<Result<Option<Entry>, StoreError>>,
) {
    let mut answers: Vec<(Vec<ReadReply>, Result<Read>)> = Vec::with_capacity(batch.len());
    let mut state = lane.lock();
    for ((key, class), loaded) in batch.into_iter().zip(loaded) {
        let Some(flight) = state.loads.land(&key) else {
            continue;
        };
        if state.is_writing(key.as_bytes()) && loaded.is_ok() {
            // The row may be that of the write, which the cache does not serve yet: who is shown it now
            // would see it before others see what came before it.
            for reply in flight.replies {
                if let Err(reply) = state.attach(key.as_bytes(), reply) {
                    drop(reply.send(Err(Error::closed())));
                }
            }
            continue;
        }
        let answer = match loaded {
            Ok(entry) => {
                let quarantined = state.quarantine.contains_key(&key);
                if flight.may_fill && !quarantined {
                    layer.fill(&key, class, entry.as_ref(), Version::NONE);
                }
                Ok(store_read(entry))
            }
            Err(error) => Err(Error::from(error)),
        };
        answers.push((flight.replies, answer));
    }
    drop(state);
    for (replies, answer) in answers {
        reply_all(replies, &answer);
    }
}

/// Gives everyone the same answer.
pub(crate) fn reply_all(replies: Vec<ReadReply>, answer: &Result<Read>) {
    for reply in replies {
        // A reader that went away is no concern.
        drop(reply.send(answer.clone()));
    }
}

/// Answers readers that waited for a write that failed: from the dirty entry if there is one, by the next
/// write of the key if one waits, with a load otherwise. (A load beside a waiting write could fill the cache
/// after that write, with the state before it.)
pub(crate) fn answer_readers(
    layer: &Layer,
    state: &mut LaneState,
    key: &Key,
    replies: Vec<ReadReply>,
) {
    if replies.is_empty() {
        return;
    }
    if let Some(dirty) = state.dirty.get(key.as_bytes()) {
        let read = dirty_read(layer, dirty);
        return reply_all(replies, &Ok(read));
    }
    let class = layer.class_of(key.as_bytes());
    for reply in replies {
        let reply = match state.attach(key.as_bytes(), reply) {
            Ok(()) => continue,
            Err(reply) => reply,
        };
        match state.loads.join(key.as_bytes(), class, reply) {
            Joined::Leads => layer.lane_of(key.as_bytes()).loads_waiting.notify_one(),
            Joined::Follows => {}
            Joined::Refused(reply) => {
                let error = Error::new(
                    ErrorKind::Overloaded,
                    "too many loads are waiting for the store",
                );
                drop(reply.send(Err(error)));
            }
        }
    }
}

fn absent(source: Source) -> Read {
    Read {
        entry: None,
        receipt: Receipt {
            version: Version::NONE,
            source,
            age_bound: Duration::ZERO,
            durability: Durability::Memory,
        },
    }
}

fn near_read(layer: &Layer, class: usize, copy: Copy) -> Read {
    let durability = match layer.class(class).strategy {
        Strategy::WriteThrough | Strategy::WriteAround | Strategy::ReadOnly => Durability::Store,
        Strategy::WriteBack => layer.class(class).durability,
        Strategy::CacheOnly => Durability::Memory,
    };
    let version = copy.version();
    Read {
        entry: copy.into_entry(),
        receipt: Receipt {
            version,
            source: Source::Near,
            age_bound: Duration::ZERO,
            durability,
        },
    }
}

fn dirty_read(layer: &Layer, dirty: &DirtyEntry) -> Read {
    let entry = dirty.change.to_entry(dirty.version);
    let durability = if dirty.lsn.is_some() {
        Durability::Journal
    } else {
        Durability::Memory
    };
    Read {
        entry: entry.filter(|entry| !entry.is_expired(layer.clock.now())),
        receipt: Receipt {
            version: dirty.version,
            source: Source::Dirty,
            age_bound: Duration::ZERO,
            durability,
        },
    }
}

pub(crate) fn store_read(entry: Option<Entry>) -> Read {
    let version = entry.as_ref().map_or(Version::NONE, |entry| entry.version);
    Read {
        entry,
        receipt: Receipt {
            version,
            source: Source::Store,
            age_bound: Duration::ZERO,
            durability: Durability::Store,
        },
    }
}
