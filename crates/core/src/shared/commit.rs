//! Writes over the shared cache, a whole batch of a lane at once.
//!
//! 1. One pipeline marks all keys, with the moment by which the store is to commit. From its answer on no node serves
//!    them from the cache, and no reader that loaded before can fill it.
//! 2. One transaction commits them, unless the store's clock is past that moment when it does: then it is undone. A
//!    write whose mark may have been forgotten by then is never made.
//! 3. The callers are told. Readers go to the store until the marks are gone, so nothing waits for that.
//! 4. One pipeline [releases](super::release) the marks, in the background.
//!
//! A write that could not be marked is not sent to the store. One whose outcome is not known is not released: its key
//! is read from the store until it is known, or [proven](super::sweep) to be over.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;

use super::life::{held, life};
use super::release::{Unknown, release_later, resolve_later};
use super::{Shared, away, fit, shared_key, token};
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::lane::{Lane, Road, Work, needs_present};
use crate::layer::Layer;
use crate::mutation::Mutation;
use crate::port::{
    Ended, Mark, Marked, Outcome, Release, SharedError, StoreError, StoreTime, Token, Write,
};
use crate::strategy::commit::{self, Committed};
use crate::strategy::present::{Prepared, prepare};
use crate::strategy::settle::{settle, unloaded};
use crate::strategy::write_through::to_write;
use crate::version::Version;

/// How often marks are tried again while the keeper gives their shards a generation.
const PAUSE: Duration = Duration::from_millis(20);

/// A write of one key, marked or not.
struct Going {
    prepared: Prepared,
    write: Write,
    token: Token,
}

/// Commits a batch. Every operation of it is answered when this returns, or is back in the queue.
pub(crate) async fn commit(
    layer: &Arc<Layer>,
    shared: &Shared,
    lane: &Lane,
    road: Road,
    batch: Vec<Work>,
) {
    let (prepared, failed) = prepare(layer, lane, batch, needs_present).await;
    unloaded(layer, lane, road, failed);
    let mut waiting: Vec<Going> = to_write(layer, lane, road, prepared)
        .into_iter()
        .map(|(prepared, write)| Going {
            prepared,
            write,
            token: token(layer),
        })
        .collect();
    let until = layer
        .clock
        .elapsed()
        .saturating_add(shared.settings.mark_timeout);
    while !waiting.is_empty() {
        let Some(now) = shared.store_now(layer) else {
            let error = Error::new(ErrorKind::Unavailable, "the store's clock is not known yet");
            return refuse(layer, lane, road, waiting, &error);
        };
        let commit_by = now.after(shared.settings.mark_timeout);
        let (marked, unopened) = mark(layer, shared, lane, road, waiting, commit_by).await;
        if !marked.is_empty() {
            to_store(layer, shared, lane, road, marked, commit_by).await;
        }
        waiting = unopened;
        if waiting.is_empty() {
            return;
        }
        if layer.clock.elapsed() >= until {
            let error = Error::new(
                ErrorKind::Unavailable,
                "the shared cache may have lost something, and could not be made ready for writes in time",
            );
            return refuse(layer, lane, road, waiting, &error);
        }
        let looked = std::pin::pin!(shared.needs.looked());
        select(looked, layer.clock.sleep(PAUSE)).await;
    }
}

/// Nothing of these was sent to the store.
fn refuse(layer: &Layer, lane: &Lane, road: Road, going: Vec<Going>, error: &Error) {
    let refused = going.into_iter();
    let refused = refused.map(|going| (going.prepared.work, error.clone()));
    unloaded(layer, lane, road, refused.collect());
}

/// Marks, and answers those that could not be marked. The second list is of shards that need a generation.
async fn mark(
    layer: &Arc<Layer>,
    shared: &Shared,
    lane: &Lane,
    road: Road,
    going: Vec<Going>,
    commit_by: StoreTime,
) -> (Vec<Going>, Vec<Going>) {
    let Some(pass) = shared.reach.pass(&*layer.clock) else {
        shared.counters.marks_failed.add(going.len() as u64);
        refuse(layer, lane, road, going, &away());
        return (Vec::new(), Vec::new());
    };
    let marks: Vec<Mark> = going
        .iter()
        .map(|going| Mark {
            key: shared_key(layer, going.prepared.work.class, &going.write.key),
            token: going.token,
            commit_by,
        })
        .collect();
    let answers = fit(shared.cache.mark(&marks).await, marks.len());
    pass.tell(&answers, &*layer.clock);
    if !layer.mutations.breaks(Mutation::ForgetLate) {
        // Whatever this node kept before the mark, or asked for before it: its writers are not shown it any more.
        for mark in &marks {
            shared.copies.forget(layer, mark.key.key.as_bytes());
        }
    }
    let mut marked = Vec::with_capacity(going.len());
    let (mut unopened, mut failed, mut perhaps) = (Vec::new(), Vec::new(), Vec::new());
    for ((going, mark), answer) in going.into_iter().zip(marks).zip(answers) {
        let error = match answer {
            Ok(Marked::Quarantined) => {
                shared.counters.marks.one();
                marked.push(going);
                continue;
            }
            Err(SharedError::NeedsGeneration { .. }) => {
                unopened.push(going);
                continue;
            }
            Ok(Marked::Dirty) => Error::new(
                ErrorKind::Unavailable,
                "the key has a write from when its class was write-back, which is not in the store yet: flush it first",
            ),
            Err(error) => {
                perhaps.push(Release {
                    key: mark.key,
                    token: mark.token,
                    ended: Ended::Aborted,
                });
                Error::new(ErrorKind::Unavailable, error)
            }
        };
        failed.push((going.prepared.work, error));
    }
    shared.counters.marks_failed.add(failed.len() as u64);
    unloaded(layer, lane, road, failed);
    // What was not answered may have been marked, and is not on its way to the store.
    release_later(layer, perhaps);
    if !unopened.is_empty() {
        shared.needs.tell();
    }
    (marked, unopened)
}

/// Has the store commit what is marked, answers, and takes the marks away.
async fn to_store(
    layer: &Arc<Layer>,
    shared: &Shared,
    lane: &Lane,
    road: Road,
    marked: Vec<Going>,
    commit_by: StoreTime,
) {
    let mut writes = Vec::with_capacity(marked.len());
    let mut going = Vec::with_capacity(marked.len());
    for marked in marked {
        writes.push(marked.write);
        going.push((marked.prepared, marked.token));
    }
    let now = layer.clock.now();
    let committed = commit::apply(&*layer.store, writes, now, Some(commit_by)).await;
    let mut releases = Vec::with_capacity(going.len());
    let mut unknown = Vec::new();
    let mut settled = Vec::with_capacity(going.len());
    for ((prepared, token), committed) in going.into_iter().zip(committed) {
        if matches!(committed, Err(StoreError::Late { .. })) {
            shared.counters.late.one();
        }
        let key = shared_key(layer, prepared.work.class, &prepared.work.key);
        match ended(layer, road, &prepared, &committed) {
            Some(ended) => releases.push(Release { key, token, ended }),
            None => unknown.push(Unknown {
                key,
                token,
                ticket: ticket(&committed),
            }),
        }
        settled.push((prepared, committed));
    }
    settle(layer, lane, road, settled, forget);
    release_later(layer, releases);
    resolve_later(layer, unknown);
}

fn ticket(committed: &Committed) -> Option<crate::port::Ticket> {
    match committed {
        Err(StoreError::Unknown { ticket, .. }) => *ticket,
        _ => None,
    }
}

/// How a marked write ended, if that is known for certain.
fn ended(layer: &Layer, road: Road, prepared: &Prepared, committed: &Committed) -> Option<Ended> {
    let version = match committed {
        Ok(Outcome::Applied { version, .. }) => *version,
        Err(StoreError::Unknown { .. }) => {
            return layer
                .mutations
                .breaks(Mutation::ReleaseUnknown)
                .then_some(Ended::Aborted);
        }
        Ok(_) | Err(_) => return Some(Ended::Aborted),
    };
    let unseen = Some(Ended::CommittedUnseen(version));
    if road == Road::Around {
        return unseen;
    }
    let change = prepared.folded.change.as_ref();
    let entry = change.and_then(|change| change.to_entry(version));
    let entry = entry.filter(|entry| !entry.is_expired(layer.clock.now()));
    let held = held(entry.as_ref(), version);
    match life(layer, prepared.work.class, held.value.as_ref()) {
        Some(life) => Some(Ended::Committed { held, life }),
        None => unseen,
    }
}

/// The near cache has nothing of a write until it is read.
fn forget(layer: &Layer, key: &Key, _: usize, _: Option<&Entry>, _: Version) {
    if !layer.mutations.breaks(Mutation::ForgetLate) {
        layer.near.remove(key.as_bytes());
    }
}
