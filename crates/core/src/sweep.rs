//! The sweeper: expired rows are absent at once for every reader, and removed from the store in batches, a
//! little at a time.
//!
//! Versions of deleted keys and marks of additions are forgotten when they are old. What they guard against is a
//! write that was sent before and is sent again: so nothing is forgotten that is younger than such a write may be.
//! One that came from the journal may be of any age, and so may an addition whose answer was lost.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;

use crate::class::Strategy;
use crate::lane::{DirtyEntry, DirtyState};
use crate::layer::Layer;
use crate::port::TableId;
use crate::recover::checkpoint_if_due;

/// How often the tables are swept.
const INTERVAL: Duration = Duration::from_secs(5);
/// Rows removed in one transaction.
const BATCH: usize = 1000;
/// How long the version of a deleted key is remembered after the last moment at which a write that is dirty now
/// can have been sent.
const REMEMBER: Duration = Duration::from_secs(7 * 24 * 3600);
/// Every so many rounds something is forgotten: to know what may be, every dirty entry is looked at.
const FORGET_ROUNDS: u64 = 12;

/// Sweeps every table until the layer stops.
pub(crate) async fn drive(layer: Arc<Layer>) {
    let mut tables = written_tables(&layer);
    tables.sort_unstable();
    tables.dedup();
    let mut round: u64 = 0;
    while !layer.is_stopping() {
        let stopped = std::pin::pin!(layer.stopped.notified());
        select(stopped, layer.clock.sleep(INTERVAL)).await;
        round += 1;
        let remember = match round.is_multiple_of(FORGET_ROUNDS) {
            true => remembered(&layer),
            false => Duration::MAX,
        };
        for table in &tables {
            sweep(&layer, *table, remember).await;
        }
        // The last flush before a quiet time may have come too soon after a checkpoint for one of its own.
        if let Some(journal) = &layer.journal {
            checkpoint_if_due(&layer, layer.journal_needed_from(&**journal)).await;
        }
    }
}

/// The tables of classes that take writes: what is read only is left as it is.
fn written_tables(layer: &Layer) -> Vec<TableId> {
    let classes = layer.classes.classes().iter().zip(&layer.states);
    classes
        .filter(|(class, _)| class.strategy != Strategy::ReadOnly)
        .filter_map(|(_, state)| state.table)
        .collect()
}

/// How long deletions and additions are remembered now. Dead letters do not count: the store has refused them.
fn remembered(layer: &Layer) -> Duration {
    let now = layer.clock.elapsed();
    let mut age = Duration::ZERO;
    for lane in &layer.lanes {
        let state = lane.lock();
        let waiting = state.dirty.iter();
        let waiting = waiting.filter(|(_, entry)| entry.state != DirtyState::Parked);
        let of_entry = |(_, entry): (_, &DirtyEntry)| match entry.lineage.is_of_unknown_age() {
            true => Duration::MAX,
            false => now.saturating_sub(entry.since),
        };
        age = waiting.map(of_entry).fold(age, Duration::max);
    }
    REMEMBER.saturating_add(age)
}

async fn sweep(layer: &Layer, table: TableId, remember: Duration) {
    while !layer.is_stopping() {
        match layer
            .store
            .sweep(table, layer.clock.now(), remember, BATCH)
            .await
        {
            Ok(swept) if swept.expired.max(swept.forgotten) < BATCH as u64 => return,
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a sweep failed; the next one will do its work");
                return;
            }
        }
    }
}
