//! Keeping this node's journal small: which of its records the store has by now, whichever node brought it there, and
//! moving old ones that are still needed to the end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;

use super::Back;
use super::claims::lost;
use super::kept::KeptWrite;
use super::replay::{replay, stored};
use crate::keeper;
use crate::layer::Layer;
use crate::port::{Got, Journal, Lsn, SharedError, SharedKey};
use crate::version::Version;

/// How often records are looked at, how many at once, and how old they are at least.
const INTERVAL: Duration = Duration::from_millis(500);
const CHUNK: usize = 512;
const AGE_MIN: Duration = Duration::from_secs(1);
/// A dead letter that the cache has not had for so long was discarded, or taken by the store.
const LETTER_GONE: Duration = Duration::from_secs(10);
/// Records moved at once.
const MOVED_MAX: usize = 1024;

/// Keeps the journal until the layer stops.
pub(crate) async fn drive(layer: Arc<Layer>, journal: Arc<dyn Journal>) {
    let Some(back) = super::of(&layer) else {
        return;
    };
    while !layer.is_stopping() {
        let stopped = back.stopped.notified();
        tokio::pin!(stopped);
        stopped.as_mut().enable();
        if layer.is_stopping() {
            return;
        }
        let wait = layer.jittered(INTERVAL, 0.5);
        select(stopped, layer.clock.sleep(wait)).await;
        if layer.is_stopping() || layer.journal_failure().is_some() {
            continue;
        }
        look(&layer, back, AGE_MIN).await;
        make_room(&layer, back, &*journal).await;
        keeper::trim(&layer).await;
    }
}

/// Looks at all records older than `age`, and lets go of those whose writes the store has.
pub(crate) async fn look(layer: &Layer, back: &Back, age: Duration) {
    let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let now = layer.clock.now().as_millis();
    let before = crate::port::Timestamp::from_millis(now.saturating_sub(age));
    let mut from = Some(Lsn(0));
    while let Some(at) = from {
        let (writes, next) = back.kept.older(at, before, CHUNK);
        from = next;
        if !writes.is_empty() && !look_at(layer, back, writes).await {
            return;
        }
    }
}

/// False if the cache does not tell.
async fn look_at(layer: &Layer, back: &Back, writes: Vec<KeptWrite>) -> bool {
    // A write that loses is in its second place before it leaves the first, so that is looked at first.
    let mut keys: Vec<SharedKey> = Vec::with_capacity(writes.len() * 2);
    for write in &writes {
        keys.push(write.key.clone());
        keys.push(lost(&write.key));
    }
    let found = back.get_many(layer, &keys).await;
    if found.iter().all(Result::is_err) {
        return false;
    }
    let mut asked = Vec::new();
    for (write, found) in writes.into_iter().zip(found.chunks(2)) {
        let version = write.held.version;
        match found {
            [own, other] if is_waiting(own, version) || is_waiting(other, version) => {
                back.kept.found(&write.key);
                if is_waiting(other, version) && write.lost.is_none() {
                    lose(layer, back, write).await;
                }
            }
            [Err(_), _] | [_, Err(_)] => {}
            // Whoever loses what the cache had has the keeper give it back.
            _ if write.lost.is_some() => {
                if back.kept.missing_for(&write.key, layer.clock.elapsed()) >= LETTER_GONE {
                    back.kept.stored(&write.key, version);
                }
            }
            [Ok(Got::Clean { held, .. }), _] if held.version >= version => {
                back.kept.stored(&write.key, version);
            }
            _ => asked.push(write),
        }
    }
    let known = stored(layer, back, &asked).await;
    let mut missing = Vec::new();
    for (write, is_stored) in asked.into_iter().zip(known) {
        match is_stored {
            Some(true) => back.kept.stored(&write.key, write.held.version),
            Some(false) => missing.push(write),
            None => {}
        }
    }
    if !missing.is_empty() {
        tracing::warn!(
            writes = missing.len(),
            "the shared cache has lost writes that this node's journal has: they are given back"
        );
        replay(layer, back, missing).await;
    }
    true
}

/// Notes that a write is a dead letter because it lost: given back as a write it would go over the row it lost against.
async fn lose(layer: &Layer, back: &Back, write: KeptWrite) {
    if layer.journal_failure().is_some() {
        return;
    }
    let Some(refusal) = back.letters.refusal(&lost(&write.key), write.held.version) else {
        return;
    };
    let lost = Some(refusal);
    if let Err(error) = back.journal(layer, &KeptWrite { lost, ..write }).await {
        layer.note_journal_failure(&error);
    }
}

/// Whether the cache has this version, or a newer one, and the store does not.
fn is_waiting(found: &Result<Got, SharedError>, version: Version) -> bool {
    match found {
        Ok(Got::Dirty(held) | Got::Parked(held)) => held.version >= version,
        _ => false,
    }
}

/// If the journal is crowded: appends the needed ones of its oldest records anew.
async fn make_room(layer: &Layer, back: &Back, journal: &dyn Journal) {
    let Some(place) = journal.crowded_before() else {
        return;
    };
    if back.kept.size().1 > journal.size_bytes() / 2 {
        // It is large because it must be: copies would only go round in circles.
        return;
    }
    loop {
        // What does not go now is worth no wait: there will be another time.
        let Ok(Some(copies)) = back.kept.copy_before(journal, place, MOVED_MAX) else {
            return;
        };
        let is_last = copies.len() < MOVED_MAX;
        if let Err(error) = journal.wait(copies.last).await {
            layer.note_journal_failure(&error);
            return;
        }
        back.kept.moved(copies);
        if is_last {
            return;
        }
    }
}
