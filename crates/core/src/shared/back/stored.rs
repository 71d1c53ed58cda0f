//! Waiting until the store has a write of the shared cache.

use std::time::Duration;

use futures_util::future::select;

use super::{Back, said};
use crate::dead_letters::Refusal;
use crate::layer::Layer;
use crate::port::{Got, SharedKey, shard_of};
use crate::version::Version;

/// How often it is looked whether another node has flushed.
const LOOK: Duration = Duration::from_millis(20);
/// How many dead letters of a shard are looked through for one.
const LETTERS: usize = 1000;

/// Why a wait ended without the store having the write.
pub(super) enum NotStored {
    /// Time is over.
    Late,
    /// The store refuses it, or what was written over it.
    Refused(Refusal),
}

/// Returns when the store has this version of the key, or something newer. The flusher is asked to hurry.
pub(super) async fn until_stored(
    layer: &Layer,
    back: &Back,
    key: &SharedKey,
    version: Version,
    until: Duration,
) -> Result<(), NotStored> {
    let shard = shard_of(&key.key, back.shards);
    loop {
        // Registered before looking, so that no round is missed.
        let settled = back.due.settled.notified();
        tokio::pin!(settled);
        settled.as_mut().enable();
        match back.get(layer, key).await {
            Ok(Got::Dirty(held)) if held.version >= version => {}
            Ok(Got::Parked(held)) if held.version >= version => {
                return Err(NotStored::Refused(refusal(layer, back, key).await));
            }
            Ok(_) => return Ok(()),
            Err(_) => {}
        }
        let now = layer.clock.elapsed();
        if now >= until {
            return Err(NotStored::Late);
        }
        back.due.at(shard, now);
        let pause = layer.clock.sleep(LOOK.min(until - now));
        select(settled, pause).await;
    }
}

/// Why the entry of a key is parked.
async fn refusal(layer: &Layer, back: &Back, key: &SharedKey) -> Refusal {
    let shard = shard_of(&key.key, back.shards);
    let letters = back.parked(layer, shard, LETTERS).await.unwrap_or_default();
    let found = letters.iter().find(|(letter, _)| letter.key == *key);
    let said = found.map_or("the store refuses it", |(_, said)| said);
    said::read(said, layer.clock.now())
}
