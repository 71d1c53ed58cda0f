//! Waiting until the store has a write of the shared cache.

use std::time::Duration;

use futures_util::future::select;

use super::claims::{class_of, lost};
use super::probe::newest;
use super::{Back, said};
use crate::dead_letters::Refusal;
use crate::key::Key;
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
    let keys = [key.clone(), lost(key)];
    loop {
        // Registered before looking, so that no round is missed.
        let settled = back.due.settled.notified();
        tokio::pin!(settled);
        settled.as_mut().enable();
        match stands(layer, back, &keys, version).await {
            Stands::Stored => return Ok(()),
            Stands::Refused(parked) => {
                return Err(NotStored::Refused(refusal(layer, back, parked).await));
            }
            Stands::Waits => {}
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

enum Stands<'a> {
    Stored,
    /// The entry of this name is parked.
    Refused(&'a SharedKey),
    /// The store does not have it, or nobody tells.
    Waits,
}

/// Where a write stands, of which the first key is the name and the second its name if it lost.
async fn stands<'a>(
    layer: &Layer,
    back: &Back,
    keys: &'a [SharedKey; 2],
    version: Version,
) -> Stands<'a> {
    let found = back.get_many(layer, keys).await;
    let [Ok(own), Ok(other)] = found.as_slice() else {
        return Stands::Waits;
    };
    match (own, other) {
        (Got::Dirty(held), _) | (_, Got::Dirty(held)) if held.version >= version => Stands::Waits,
        (Got::Parked(held), _) if held.version >= version => Stands::Refused(&keys[0]),
        (_, Got::Parked(held)) if held.version >= version => Stands::Refused(&keys[1]),
        (Got::Clean { held, .. }, _) if held.version >= version => Stands::Stored,
        _ => {
            // The cache has forgotten it, flushed or not: the store knows.
            let class = class_of(layer, &keys[0]).0;
            let asked: Vec<(usize, Key)> = class
                .map(|class| (class, keys[0].key.clone()))
                .into_iter()
                .collect();
            match newest(layer, &asked).await.pop() {
                Some(Ok(newest)) if newest >= version => Stands::Stored,
                _ => Stands::Waits,
            }
        }
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
