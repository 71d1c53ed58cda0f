//! Shutdown in order: no new work, finish what callers wait for, flush, stop the drivers, close journal and
//! store.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;

use crate::error::{Error, Result};
use crate::flush::flush;
use crate::layer::Layer;
use crate::receipt::FlushReport;
use crate::recover::last_checkpoint;
use crate::shared::back::upkeep;

/// What the tasks get to come to their end, also where no time is left.
const TASKS_END: Duration = Duration::from_secs(1);
/// What the store gets to finish and close, also where no time is left.
const STORE_CLOSES: Duration = Duration::from_millis(500);

pub(super) async fn drain(layer: &Arc<Layer>, deadline: Duration) -> Result<FlushReport> {
    if !layer.close() {
        return Err(Error::closed());
    }
    let until = layer.clock.elapsed().saturating_add(deadline);
    let idle = std::pin::pin!(writes_answered(layer));
    // At most half of the time: a commit that is stuck must not cost the dirty entries theirs.
    select(idle, layer.clock.sleep(deadline / 2)).await;
    let report = flush(layer, None, until.saturating_sub(layer.clock.elapsed())).await;
    if let (Some(shared), Some(_)) = (&layer.shared, &layer.journal) {
        // Which records the store has, also where other nodes brought them there.
        let looked = std::pin::pin!(upkeep::look(layer, &shared.back, Duration::ZERO));
        let left = until.saturating_sub(layer.clock.elapsed());
        select(looked, layer.clock.sleep(left)).await;
    }
    layer.stop();
    // From here on others may change the store.
    layer.near.clear();
    // A driver in the middle of a commit that does not end is left behind: it holds nothing that is not in
    // the journal or already answered as unknown.
    let ended = std::pin::pin!(async {
        for task in layer.take_tasks() {
            // A task that panicked has said so.
            drop(task.await);
        }
    });
    let left = |least: Duration| until.saturating_sub(layer.clock.elapsed()).max(least);
    select(ended, layer.clock.sleep(left(TASKS_END))).await;
    last_checkpoint(layer).await;
    if let Some(journal) = &layer.journal {
        journal.close().await;
    }
    if let Some(shared) = &layer.shared {
        select(shared.cache.close(), layer.clock.sleep(left(STORE_CLOSES))).await;
    }
    // A store that hangs finishes what it has by itself, or with the process.
    select(layer.store.close(), layer.clock.sleep(left(STORE_CLOSES))).await;
    Ok(report)
}

/// Returns when no write waits or is in flight.
async fn writes_answered(layer: &Layer) {
    for lane in &layer.lanes {
        loop {
            let settled = lane.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if lane.lock().is_idle() {
                break;
            }
            settled.await;
        }
    }
    if let Some(shared) = &layer.shared {
        shared.back.writes_answered().await;
    }
}
