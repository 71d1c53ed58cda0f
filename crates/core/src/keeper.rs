//! Keeping the journal small: trimming what the store has, saying so at times, and moving old records that
//! are still needed to the end, so that they do not keep everything after them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select;

use crate::dead_letters;
use crate::lane::{Lane, LaneState, Pin};
use crate::layer::Layer;
use crate::port::{Journal, JournalError, Lsn};
use crate::record::Record;
use crate::recover::checkpoint_if_due;

/// How often the journal is asked whether it is crowded.
const INTERVAL: Duration = Duration::from_millis(250);
/// Records moved at once, and about how many bytes of them.
const MOVED_MAX: usize = 1024;
const MOVED_BYTES_MAX: u64 = 4 << 20;

/// Keeps the journal until the layer stops.
pub(crate) async fn drive(layer: Arc<Layer>, journal: Arc<dyn Journal>) {
    while !layer.is_stopping() {
        let stopped = std::pin::pin!(layer.flusher.stopped.notified());
        select(stopped, layer.clock.sleep(INTERVAL)).await;
        if layer.journal_failure().is_some() {
            continue;
        }
        for lane in &layer.lanes {
            dead_letters::record(&layer, lane).await;
        }
        if make_room(&layer, &*journal).await {
            trim(&layer).await;
        }
    }
}

/// Tells the journal what it need not keep.
pub(crate) async fn trim(layer: &Layer) {
    let Some(journal) = &layer.journal else {
        return;
    };
    let mark = layer.journal_needed_from(&**journal);
    if let Err(error) = journal.trim(mark).await {
        tracing::warn!(%error, "the journal could not be trimmed");
    }
    checkpoint_if_due(layer, mark).await;
}

/// If the journal is crowded: appends the needed ones of its oldest records anew. True if it was.
async fn make_room(layer: &Layer, journal: &dyn Journal) -> bool {
    let Some(place) = journal.crowded_before() else {
        return false;
    };
    let needed: u64 = layer
        .lanes
        .iter()
        .map(|lane| lane.lock().dirty.recorded_bytes())
        .sum();
    if needed > journal.size_bytes() / 2 {
        // It is large because it must be: copies would only go round in circles.
        return true;
    }
    for lane in &layer.lanes {
        loop {
            match move_some(layer, lane, journal, place).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    layer.note_journal_failure(&error);
                    tracing::warn!(%error, "old records could not be moved to the end of the journal");
                    return true;
                }
            }
        }
    }
    true
}

/// Moves some records of a lane that are before `place`; how many.
async fn move_some(
    layer: &Layer,
    lane: &Lane,
    journal: &dyn Journal,
    place: Lsn,
) -> Result<usize, JournalError> {
    let (last, pins) = match submit_copies(layer, &mut lane.lock(), journal, place) {
        Ok(None) => return Ok(0),
        Ok(Some(moved)) => moved,
        // Not worth waiting for: there will be another time.
        Err(JournalError::Busy { .. }) => return Ok(0),
        Err(error) => return Err(error),
    };
    journal.wait(last).await?;
    let mut state = lane.lock();
    let count = pins.len();
    for pin in pins {
        state.dirty.unpin(pin);
    }
    Ok(count)
}

/// Submits copies under the lane's lock, so that none comes after a record that makes it void.
fn submit_copies(
    layer: &Layer,
    state: &mut LaneState,
    journal: &dyn Journal,
    place: Lsn,
) -> Result<Option<(Lsn, Vec<Pin>)>, JournalError> {
    let mut keys = state.dirty.recorded_before(place, MOVED_MAX);
    let mut records: Vec<Bytes> = Vec::with_capacity(keys.len());
    let mut bytes = 0;
    for key in &keys {
        let Some(entry) = state.dirty.entry(key.as_bytes()) else {
            continue;
        };
        bytes += entry.bytes(key);
        let class = &layer.state(entry.class).name;
        records.push(match state.dirty.refusal(key.as_bytes()) {
            Some(refusal) => Record::encode_parked(class, key, entry, refusal),
            None => Record::encode_entry(class, key, entry),
        });
        if bytes >= MOVED_BYTES_MAX {
            break;
        }
    }
    keys.truncate(records.len());
    if records.is_empty() {
        return Ok(None);
    }
    let last = journal.submit(&records)?;
    let first = last.0 + 1 - records.len() as u64;
    let pins = keys
        .iter()
        .zip(first..)
        .map(|(key, lsn)| state.dirty.move_record(key, Lsn(lsn)));
    let pins = pins.collect();
    Ok(Some((last, pins)))
}
