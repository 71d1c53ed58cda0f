//! Dead letters: acknowledged writes that the store does not take. Nothing is ever dropped silently.
//!
//! A dead letter stays among the dirty entries of its lane, parked. The journal gets a record of it with its
//! whole history, also where the class itself is of durability `memory`, so it outlives a restart as what it
//! is and is not tried again by itself. It ends in one of four ways: a retry that the store takes, an edit
//! (which is a new write of the key), a discard, or a newer write of its key. A retry keeps its version, so
//! it never overwrites anything newer.

mod letter;

use std::sync::Arc;

use bytes::Bytes;

pub(crate) use letter::Refusal;
pub use letter::{DeadLetter, DeadLetterReason};

use crate::entry::Change;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::lane::{DirtyEntry, Lane, LaneState, Pin};
use crate::layer::Layer;
use crate::port::{Journal, JournalError, Lsn};
use crate::record::Record;
use crate::version::Version;

/// Letters whose records are submitted at once.
const BATCH: usize = 256;

/// The dead letters of a class, or of all, after a key, in the order of keys, at most `limit`; without their
/// values.
pub(crate) fn list(
    layer: &Layer,
    class: Option<usize>,
    after: Option<&[u8]>,
    limit: usize,
) -> Vec<DeadLetter> {
    let mut letters = Vec::new();
    for lane in &layer.lanes {
        let state = lane.lock();
        let wanted = state
            .dirty
            .letters_after(after)
            .filter(|(_, entry, _)| class.is_none_or(|class| entry.class == class));
        letters.extend(
            wanted
                .take(limit)
                .map(|(key, entry, letter)| shown(layer, key, entry, &letter.refusal, false)),
        );
    }
    letters.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    letters.truncate(limit);
    letters
}

/// The dead letter of `key`, with its value.
pub(crate) fn get(layer: &Layer, key: &[u8]) -> Option<DeadLetter> {
    let state = layer.lane_of(key).lock();
    let (entry, letter) = state.dirty.letter(key)?;
    Some(shown(
        layer,
        &Key::copy_from(key),
        entry,
        &letter.refusal,
        true,
    ))
}

fn shown(
    layer: &Layer,
    key: &Key,
    entry: &DirtyEntry,
    refusal: &Refusal,
    with_value: bool,
) -> DeadLetter {
    let expires_at = match &entry.change {
        Change::Put { expires_at, .. } => *expires_at,
        _ => None,
    };
    DeadLetter {
        key: key.clone(),
        class: layer.state(entry.class).name.to_string(),
        version: entry.version,
        is_delete: entry.change == Change::Delete,
        is_addition: entry.lineage.is_additive(),
        added: entry.lineage.added().filter(|_| with_value),
        value: value_of(&entry.change).filter(|_| with_value),
        value_bytes: value_of(&entry.change).map_or(0, |value| value.len()),
        expires_at,
        reason: refusal.reason,
        code: refusal.code.as_deref().map(str::to_owned),
        message: refusal.message.to_string(),
        attempts: refusal.attempts,
        first_at: refusal.first_at,
        last_at: refusal.last_at,
    }
}

/// What a person is shown of a change; of an addition what was to be added.
fn value_of(change: &Change) -> Option<Bytes> {
    match change {
        Change::Put { value, .. } => Some(value.clone()),
        Change::Add { by } => Some(Bytes::from(format!("{by:+}"))),
        Change::Delete => None,
    }
}

/// Tries the dead letter of `key` once more, at once. False if there is none.
pub(crate) fn retry(layer: &Layer, key: &[u8]) -> bool {
    let lane = layer.lane_of(key);
    let retried = lane.lock().dirty.retry_parked(key);
    if retried {
        lane.dirty_waiting.notify_one();
        lane.flush_asked.notify_one();
    }
    retried
}

/// Tries every dead letter of a class, or of all, once more; how many.
pub(crate) fn retry_all(layer: &Layer, class: Option<usize>) -> u64 {
    let mut total = 0;
    for lane in &layer.lanes {
        let retried = lane.lock().dirty.retry_all_parked(class);
        if retried > 0 {
            lane.dirty_waiting.notify_one();
            lane.flush_asked.notify_one();
        }
        total += retried;
    }
    total
}

/// Gives up the dead letter of `key`, if it is of this version: first in the journal, then here. False if
/// there is no such letter, or not any more.
pub(crate) async fn discard(layer: Arc<Layer>, key: Key, version: Version) -> Result<bool> {
    let lane = layer.lane_of(key.as_bytes());
    if !lane.lock().dirty.begin_discard(key.as_bytes(), version) {
        return Ok(false);
    }
    let noted = note_discard(&layer, lane, &key, version).await;
    let mut state = lane.lock();
    let gone = state
        .dirty
        .end_discard(key.as_bytes(), version, noted.is_ok());
    if let Some(entry) = &gone {
        let class = layer.state(entry.class);
        class.budget.give(entry.bytes(&key));
        class.counters.discarded.one();
        // What readers were shown is gone; the row is what counts now.
        state.loads.invalidate(key.as_bytes());
        layer.near.remove(key.as_bytes());
        tracing::warn!(%key, class = %class.name, %version, "a dead letter was discarded");
    }
    drop(state);
    lane.settled.notify_waiters();
    noted?;
    Ok(gone.is_some())
}

/// Puts a discard into the journal, if the letter is there.
async fn note_discard(layer: &Layer, lane: &Lane, key: &Key, version: Version) -> Result<()> {
    let Some(journal) = &layer.journal else {
        return Ok(());
    };
    let record = [Record::encode_discarded(key, version)];
    loop {
        let submitted = {
            let state = lane.lock();
            let still = state
                .dirty
                .letter(key.as_bytes())
                .filter(|(entry, _)| entry.version == version);
            match still {
                Some((entry, _)) if entry.lsn.is_some() => journal.submit(&record),
                // Superseded, or never in the journal.
                _ => return Ok(()),
            }
        };
        let result = match submitted {
            Ok(lsn) => journal.wait(lsn).await,
            Err(JournalError::Busy { .. }) => match journal.room(&record).await {
                Ok(()) => continue,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        return result.map_err(|error| {
            layer.note_journal_failure(&error);
            Error::from(error)
                .with_key(key)
                .with_class(&layer.state(layer.class_of(key.as_bytes())).name)
        });
    }
}

/// Brings dead letters that the journal does not know into it. What finds no room now is brought later; a
/// restart before that tries the write again, which parks it again.
pub(crate) async fn record(layer: &Layer, lane: &Lane) {
    let Some(journal) = &layer.journal else {
        return;
    };
    loop {
        let submitted = submit(layer, &mut lane.lock(), &**journal);
        match submitted {
            Ok(None) => return,
            Ok(Some((last, pins))) => {
                let durable = journal.wait(last).await;
                if let Err(error) = &durable {
                    layer.note_journal_failure(error);
                    // The older records stay needed.
                    return;
                }
                let mut state = lane.lock();
                for pin in pins {
                    state.dirty.unpin(pin);
                }
            }
            Err((JournalError::Busy { .. }, records)) => {
                if journal.room(&records).await.is_err() {
                    return;
                }
            }
            Err((error, _)) => {
                layer.note_journal_failure(&error);
                tracing::warn!(%error, "the journal took no record of dead letters");
                return;
            }
        }
    }
}

/// Tells the journal of dead letters that are no more, where it has no newer record of their keys: a start after
/// a crash would bring them back over their rows. Those that a write of a class of durability `memory`
/// superseded must be told before that write reaches the store; those that the store took when they were
/// tried again, before the next such write does.
pub(crate) async fn record_outlived(layer: &Layer, lane: &Lane) {
    let Some(journal) = &layer.journal else {
        return;
    };
    let outlived = lane.lock().dirty.outlived_letters();
    if outlived.is_empty() {
        return;
    }
    let records = outlived
        .iter()
        .map(|(key, version)| Record::encode_discarded(key, *version));
    match journal.append(records.collect()).await {
        Ok(_) => lane.lock().dirty.forget_outlived(&outlived),
        Err(error) => {
            layer.note_journal_failure(&error);
            tracing::warn!(%error, "the journal took no word of dead letters that are no more");
        }
    }
}

/// The place of the last record, and what keeps older ones until it is durable.
type Submitted = (Lsn, Vec<Pin>);

/// Submits the records of some letters that the journal does not know, under the lane's lock, so that their
/// order in the journal is the order in which things happened.
fn submit(
    layer: &Layer,
    state: &mut LaneState,
    journal: &dyn Journal,
) -> Result<Option<Submitted>, (JournalError, Vec<Bytes>)> {
    let keys = state.dirty.unrecorded_letters(BATCH);
    let mut records = Vec::with_capacity(keys.len());
    for key in &keys {
        if let Some((entry, letter)) = state.dirty.letter(key.as_bytes()) {
            let class = &layer.state(entry.class).name;
            records.push(Record::encode_parked(class, key, entry, &letter.refusal));
        }
    }
    if records.is_empty() {
        return Ok(None);
    }
    match journal.submit(&records) {
        Ok(last) => {
            let first = last.0 + 1 - records.len() as u64;
            let pins = keys
                .iter()
                .zip(first..)
                .map(|(key, lsn)| state.dirty.letter_recorded(key, Lsn(lsn)));
            let pins = pins.collect();
            Ok(Some((last, pins)))
        }
        Err(error) => Err((error, records)),
    }
}
