//! Marks that nobody takes away, because their node died, or did not learn how its write ended: every node looks for
//! them, and takes away those whose writes are proven to be over.
//!
//! A mark says by when its write may commit. When the store's clock is past that, and all transactions that were under
//! way then are finished, the write is in the store, where every load sees it, or never will be ([`Proof`]). Until then
//! the key is read from the store: slower, and right.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;

use super::generation::horizon;
use super::{Shared, fit};
use crate::error::Result;
use crate::layer::Layer;
use crate::port::{Leftover, Proof, Shard, SharedError, SharedKey, StoreTime, Token};

/// Marks of a shard that are looked at at once.
const LIMIT: usize = 1000;
/// Shards that are asked at the same time.
const SHARDS_AT_ONCE: usize = 64;

/// Sweeps until the layer stops.
pub(super) async fn drive(layer: Arc<Layer>) {
    let Some(shared) = &layer.shared else {
        return;
    };
    let mut pending = HashMap::new();
    while !layer.is_stopping() {
        // Nodes that begin together do not go on together.
        let wait = layer.jittered(shared.settings.mark_timeout, 0.75);
        layer.sleep_or_stop(wait).await;
        if layer.is_stopping() {
            return;
        }
        if let Err(error) = sweep(&layer, shared, &mut pending).await {
            tracing::debug!(%error, "marks left in the shared cache could not be swept");
        }
    }
}

/// One round. What was found and is not proven yet is kept in `pending`.
async fn sweep(
    layer: &Layer,
    shared: &Shared,
    pending: &mut HashMap<(SharedKey, Token), Proof>,
) -> Result<()> {
    let horizon = horizon(layer, shared).await?;
    let left = leftovers(layer, shared, horizon.now).await;
    let found: HashMap<(SharedKey, Token), StoreTime> = left
        .into_iter()
        .map(|left| ((left.key, left.token), left.commit_by))
        .collect();
    pending.retain(|mark, _| found.contains_key(mark));
    for (mark, commit_by) in found {
        pending.entry(mark).or_insert_with(|| Proof::of(commit_by));
    }
    let mut proven = Vec::new();
    for (mark, proof) in &mut *pending {
        if proof.learn(&horizon) {
            proven.push(mark.clone());
        }
    }
    if proven.is_empty() {
        return Ok(());
    }
    if let Some(pass) = shared.reach.pass(&*layer.clock) {
        let swept = fit(shared.cache.sweep(&proven).await, proven.len());
        pass.tell(&swept, &*layer.clock);
        for (mark, swept) in proven.iter().zip(swept) {
            if swept.is_ok() {
                shared.counters.swept.one();
                pending.remove(mark);
            }
        }
    }
    Ok(())
}

/// Marks whose limit was before this.
async fn leftovers(layer: &Layer, shared: &Shared, before: StoreTime) -> Vec<Leftover> {
    let shards: Vec<Shard> = (0..shared.cache.shards()).map(Shard).collect();
    let mut left = Vec::new();
    for shards in shards.chunks(SHARDS_AT_ONCE) {
        let Some(pass) = shared.reach.pass(&*layer.clock) else {
            return left;
        };
        let asked = shards
            .iter()
            .map(|shard| shared.cache.leftovers(*shard, before, LIMIT));
        let answers = join_all(asked).await;
        for answer in &answers {
            if let Err(SharedError::NeedsGeneration { .. }) = answer {
                shared.needs.tell();
            }
        }
        pass.tell(&answers, &*layer.clock);
        left.extend(answers.into_iter().flatten().flatten());
    }
    left
}
