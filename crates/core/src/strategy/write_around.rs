//! Write-around: the store only; the cached copy is invalidated and reads fill it.
//!
//! - What the caller is told: acknowledged means that the store has committed the write, and that no read
//!   through this process returns anything older from then on.
//! - When: after the commit that holds the key (group commit, as for write-through).
//! - What a crash costs: as for write-through. The cache never holds what was not read, so data written once
//!   and read seldom takes no room in it.

use std::sync::Arc;

use super::present::prepare;
use super::settle::{settle, unloaded};
use super::write_through::to_store;
use crate::entry::Entry;
use crate::key::Key;
use crate::lane::{Lane, Road, Work, needs_present};
use crate::layer::Layer;
use crate::shared;
use crate::version::Version;

/// Commits a batch. Every operation of it is answered when this returns, or is back in the queue.
pub(crate) async fn commit(layer: &Arc<Layer>, lane: &Lane, batch: Vec<Work>) {
    // Where nodes share a cache the steps are others: see there.
    if let Some(shared) = &layer.shared {
        return shared::commit(layer, shared, lane, Road::Around, batch).await;
    }

    // 1. Operations that depend on the present value are told it; those of one key become one write.
    let (prepared, failed) = prepare(layer, lane, batch, needs_present).await;
    unloaded(layer, lane, Road::Around, failed);

    // 2. The store commits, all keys in one transaction.
    let committed = to_store(layer, lane, Road::Around, prepared).await;

    // 3. The cached copy is invalidated, under the lane's lock. No load can bring the old value back: loads
    //    under way when the write was queued may no longer fill, and later ones waited for the commit.
    // 4. Then the callers are told.
    settle(layer, lane, Road::Around, committed, invalidate);
}

fn invalidate(layer: &Layer, key: &Key, _: usize, _: Option<&Entry>, _: Version) {
    layer.near.remove(key.as_bytes());
}
