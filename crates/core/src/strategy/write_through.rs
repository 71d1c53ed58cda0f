//! Write-through: the store first, then the cache.
//!
//! - What the caller is told: acknowledged means that the store has committed the write, and that no read
//!   through this process returns anything older from then on.
//! - When: after the commit that holds the key. Writes that arrive while a commit is under way share the next
//!   one (group commit), so strong consistency comes at the speed of batches.
//! - What a crash costs: before the commit, nothing was acknowledged and the store has nothing of it; between
//!   commit and acknowledgement, the store has a write whose caller does not know; the cache dies with the
//!   process and cannot be behind.

use std::sync::Arc;

use super::commit;
use super::present::{Prepared, prepare};
use super::settle::{Answers, settle, unchanged, unloaded};
use crate::lane::{Lane, Road, Work, needs_present};
use crate::layer::Layer;
use crate::port::Write;
use crate::shared;

/// Commits a batch. Every operation of it is answered when this returns, or is back in the queue.
pub(crate) async fn commit(layer: &Arc<Layer>, lane: &Lane, batch: Vec<Work>) {
    // Where nodes share a cache the steps are others: see there.
    if let Some(shared) = &layer.shared {
        return shared::commit(layer, shared, lane, Road::Through, batch).await;
    }

    // 1. Operations that depend on the present value are told it; those of one key become one write.
    let (prepared, failed) = prepare(layer, lane, batch, needs_present).await;
    unloaded(layer, lane, Road::Through, failed);

    // 2. The store commits, all keys in one transaction. Until here a read may return the old value, for
    //    nothing newer has been acknowledged.
    let committed = to_store(layer, lane, Road::Through, prepared).await;

    // 3. The cache takes what was committed, under the lane's lock, in the order of the commits. Where the
    //    outcome is unknown the cached copy goes and the key is quarantined: unservable, never stale.
    // 4. Then the callers are told.
    settle(layer, lane, Road::Through, committed, Layer::fill);
}

/// Applies what is to be written; what is not is answered here. Shared with write-around.
pub(super) async fn to_store(
    layer: &Layer,
    lane: &Lane,
    road: Road,
    prepared: Vec<Prepared>,
) -> Vec<(Prepared, commit::Committed)> {
    let (changed, writes): (Vec<_>, Vec<_>) =
        to_write(layer, lane, road, prepared).into_iter().unzip();
    if writes.is_empty() {
        return Vec::new();
    }
    let committed = commit::apply(&*layer.store, writes, layer.clock.now(), None).await;
    changed.into_iter().zip(committed).collect()
}

/// What is to be written; what is not is answered here.
pub(crate) fn to_write(
    layer: &Layer,
    lane: &Lane,
    road: Road,
    prepared: Vec<Prepared>,
) -> Vec<(Prepared, Write)> {
    let mut answers = Answers::default();
    let mut writes = Vec::with_capacity(prepared.len());
    for prepared in prepared {
        let table = layer.state(prepared.work.class).table;
        match (prepared.folded.change.clone(), table) {
            (Some(change), Some(table)) => {
                let key = prepared.work.key.clone();
                let guard = prepared.folded.guard;
                let write = Write {
                    table,
                    key,
                    change,
                    guard,
                };
                writes.push((prepared, write));
            }
            _ => unchanged(layer, &mut lane.lock(), road, prepared, &mut answers),
        }
    }
    answers.send();
    writes
}
