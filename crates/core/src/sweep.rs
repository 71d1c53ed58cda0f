//! The sweeper: expired rows are absent at once for every reader, and removed from the store in batches, a
//! little at a time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;

use crate::class::Strategy;
use crate::layer::Layer;
use crate::port::TableId;
use crate::recover::checkpoint_if_due;

/// How often the tables are swept.
const INTERVAL: Duration = Duration::from_secs(5);
/// Rows removed in one transaction.
const BATCH: usize = 1000;
/// How long the version of a deleted key is remembered: longer than any write of it can be on its way.
const REMEMBER: Duration = Duration::from_secs(7 * 24 * 3600);

/// Sweeps every table until the layer stops.
pub(crate) async fn drive(layer: Arc<Layer>) {
    let mut tables = written_tables(&layer);
    tables.sort_unstable();
    tables.dedup();
    while !layer.is_stopping() {
        let stopped = std::pin::pin!(layer.stopped.notified());
        select(stopped, layer.clock.sleep(INTERVAL)).await;
        for table in &tables {
            sweep(&layer, *table).await;
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

async fn sweep(layer: &Layer, table: TableId) {
    while !layer.is_stopping() {
        match layer
            .store
            .sweep(table, layer.clock.now(), REMEMBER, BATCH)
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
