//! Strategies: when the store has a write, and what the cache has of it. One file each, the steps in order.
//!
//! | strategy | acknowledged when | the cache after it | a crash costs |
//! |---|---|---|---|
//! | [`write_through`] | the store has committed | has the write | nothing acknowledged |
//! | [`write_around`] | the store has committed | has nothing; reads fill it | nothing acknowledged |
//! | [`write_back`] | the journal is synced | has the write, dirty | nothing acknowledged |
//! | [`cache_only`] | it is in memory | has the write, until evicted | everything |
//! | [`read_only`] | never | | nothing |
//!
//! The three that write to the store share two steps: [`present`] finds what an operation depends on and
//! folds the operations of a key into one write; [`commit`] applies a batch and finds the guilty one.

pub(crate) mod cache_only;
pub(crate) mod commit;
pub(crate) mod present;
pub(crate) mod read_only;
pub(crate) mod settle;
pub(crate) mod write_around;
pub(crate) mod write_back;
pub(crate) mod write_through;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;

use crate::key::Key;
use crate::lane::Road;
use crate::layer::Layer;
use crate::read::answer_readers;

/// The driver of one road of a lane; ends when the layer stops and nothing waits.
pub(crate) async fn drive(layer: Arc<Layer>, lane_index: usize, road: Road) {
    let lane = &layer.lanes[lane_index];
    let limit = layer.batch_max;
    loop {
        let (batch, is_empty) = {
            let mut state = lane.lock();
            let through = !state.spilling;
            let writes = state.road(road);
            (writes.take(limit, through), writes.is_empty())
        };
        if batch.is_empty() {
            // What is still in flight may come back.
            if layer.is_stopping() && is_empty {
                // Who waits for the journal ends after this.
                lane.appended_waiting.notify_one();
                return;
            }
            lane.writes_waiting[road as usize].notified().await;
            continue;
        }
        let keys: Vec<Key> = batch.iter().map(|work| work.key.clone()).collect();
        let committed = async {
            match road {
                Road::Through => write_through::commit(&layer, lane, batch).await,
                Road::Around => write_around::commit(&layer, lane, batch).await,
                Road::Back => write_back::commit(&layer, lane_index, batch).await,
            }
        };
        if AssertUnwindSafe(committed).catch_unwind().await.is_err() {
            abandon(&layer, lane_index, road, &keys);
        }
        lane.settled.notify_waiters();
        // Callers that were just answered often write again at once: let them in, so that they share the next
        // commit instead of a first few having one to themselves while the others wait.
        tokio::task::yield_now().await;
    }
}

/// A panic in a driver is a bug of ours or of an adapter. Its callers have been told that the outcome is
/// unknown (their reply was dropped); nothing cached of its keys may be served, and the lane goes on.
fn abandon(layer: &Layer, lane_index: usize, road: Road, keys: &[Key]) {
    tracing::error!(
        lane = lane_index,
        ?road,
        keys = keys.len(),
        "a batch of writes panicked"
    );
    let lane = &layer.lanes[lane_index];
    let mut state = lane.lock();
    for key in keys {
        layer.near.remove(key.as_bytes());
        let readers = state.road(road).land(key);
        answer_readers(layer, &mut state, key, readers);
    }
}
