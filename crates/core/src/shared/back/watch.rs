//! Looking at what is dirty in the cache: for the bounds, for figures, and for what other nodes wrote and nobody
//! flushes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;

use super::Back;
use super::letters;
use crate::class::Strategy;
use crate::layer::Layer;
use crate::port::{Shard, ShardDirty};

/// How often all shards are looked at, of which there are at most so many.
const INTERVAL: Duration = Duration::from_millis(500);
const SHARDS_USUAL: u32 = 256;
/// The same while much is dirty, or somebody waits for room.
const INTERVAL_CROWDED: Duration = Duration::from_millis(100);

/// Looks at all shards, unless that was done since `since`. One does it for all who ask at the same time.
pub(super) async fn look(layer: &Layer, back: &Back, since: Duration) {
    let _turn = back.room.looking.lock().await;
    if back.room.is_known_since(since) {
        return;
    }
    let began = layer.clock.elapsed();
    let shards: Vec<Shard> = (0..back.shards).map(Shard).collect();
    let looked = looked(layer, back, &shards).await;
    let all = looked.len() == shards.len();
    back.room.learn_all(&looked, all.then_some(began));
}

/// What is dirty in some shards; those of which it cannot be told are left out.
pub(super) async fn looked(
    layer: &Layer,
    back: &Back,
    shards: &[Shard],
) -> Vec<(Shard, ShardDirty)> {
    let answers = back.dirty(layer, shards).await;
    let known = shards.iter().zip(answers);
    known
        .filter_map(|(shard, dirty)| Some((*shard, dirty.ok()?)))
        .collect()
}

/// Looks again and again, until the layer stops.
pub(crate) async fn drive(layer: Arc<Layer>) {
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
        let interval = interval(&layer, back);
        let wait = layer.jittered(interval, 0.5);
        select(stopped, layer.clock.sleep(wait)).await;
        if layer.is_stopping() {
            return;
        }
        look(&layer, back, layer.clock.elapsed()).await;
        for shard in (0..back.shards).map(Shard) {
            schedule(&layer, back, shard, interval);
        }
        letters::refresh(&layer, back).await;
    }
}

fn interval(layer: &Layer, back: &Back) -> Duration {
    let now = layer.clock.now();
    let crowded = back.room.is_awaited()
        || covered(layer).any(|class| back.room.is_past_soft(layer.class(class), now));
    let usual = match crowded {
        true => INTERVAL_CROWDED,
        false => INTERVAL,
    };
    usual * u32::from(back.shards).div_ceil(SHARDS_USUAL)
}

/// Write-back classes over the shared cache.
pub(super) fn covered(layer: &Layer) -> impl Iterator<Item = usize> {
    (0..layer.states.len()).filter(|class| layer.class(*class).strategy == Strategy::WriteBack)
}

/// How long an entry waits for others to share its batch, of whatever class it is.
pub(super) fn linger(layer: &Layer) -> Duration {
    covered(layer)
        .map(|class| layer.class(class).linger)
        .min()
        .unwrap_or_default()
}

/// Tells the flusher when what is known of a shard is due. Nodes that see the same entries do not all come at once:
/// each adds a random part of `spread`.
fn schedule(layer: &Layer, back: &Back, shard: Shard, spread: Duration) {
    let dirty = back.room.of(shard);
    if dirty.entries <= dirty.parked {
        return;
    }
    let age = dirty.oldest.map(|oldest| layer.clock.now().since(oldest));
    let lingers = linger(layer).saturating_sub(age.unwrap_or_default());
    let at = layer.clock.elapsed().saturating_add(lingers);
    back.due
        .at(shard, at.saturating_add(layer.jittered(spread, 1.0)));
}
