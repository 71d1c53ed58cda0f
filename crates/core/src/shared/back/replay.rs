//! What a journal gives back to a cache that may have lost it.
//!
//! At start, before a node serves, and whenever shards got a new generation, before they are opened: every write of
//! this node's journal that neither the store nor the cache has is dirty again under its own version, so whoever has
//! something newer keeps it. Whether the store has it is asked first; in the moment between that answer and the
//! replay another node would have to write the key, flush it, and have it evicted, for a reader to see the older write
//! until the next flush finds that the store is past it.
//!
//! A node that starts also raises the versions of every shard above all that the store gave out before: a write over
//! the cache is then newer than whatever a row was written with, also where its class was of another strategy until
//! now.

use std::time::Duration;

use super::Back;
use super::claims::FLOOR;
use super::kept::KeptWrite;
use super::probe::newest;
use super::said;
use crate::dead_letters::Refusal;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::layer::Layer;
use crate::port::{Flushed, Held, Lsn, Replay, SharedError, SharedKey, shard_of};
use crate::shared::shared_key;
use crate::version::Version;

/// What is replayed at once.
pub(super) const CHUNK: usize = 512;
/// How long a start waits for the cache to take what the journal has, and how long between two attempts.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// A write that the journal had at start, its record, and why it was a dead letter, if it was one.
pub(crate) type Recovered = (KeptWrite, Lsn, Option<Refusal>);

/// Brings the cache up to what the journal and the store know. Before anything is served.
///
/// # Errors
/// Unavailable if the cache or the store does not answer.
pub(crate) async fn start(layer: &Layer, back: &Back, recovered: Vec<Recovered>) -> Result<()> {
    raise(layer, back).await?;
    let mut waiting = Vec::with_capacity(recovered.len());
    let mut letters = Vec::new();
    for (write, lsn, refusal) in recovered {
        back.kept.restore(write.clone(), lsn);
        if let Some(refusal) = refusal
            && write.lost.is_none()
        {
            let parked = Flushed::Parked(said::write(&refusal));
            letters.push((write.key.clone(), write.held.version, parked));
        }
        waiting.push(write);
    }
    let until = layer.clock.elapsed().saturating_add(PATIENCE);
    loop {
        waiting = replay(layer, back, waiting).await;
        if waiting.is_empty() {
            break;
        }
        if layer.clock.elapsed() >= until {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format_args!(
                    "{} writes of the journal could not be given back to the shared cache",
                    waiting.len()
                ),
            ));
        }
        layer.clock.sleep(PAUSE).await;
    }
    drop(back.settle(layer, &letters).await);
    Ok(())
}

/// Gives the cache back what neither it nor the store has. Returns what could not be given now.
pub(super) async fn replay(layer: &Layer, back: &Back, writes: Vec<KeptWrite>) -> Vec<KeptWrite> {
    let mut left = Vec::new();
    for chunk in writes.chunks(CHUNK) {
        let mut wanted: Vec<&KeptWrite> = Vec::with_capacity(chunk.len());
        for (write, is_stored) in chunk.iter().zip(stored(layer, back, chunk).await) {
            match is_stored {
                Some(true) => back.kept.stored(&write.key, write.held.version),
                Some(false) => wanted.push(write),
                None => left.push(write.clone()),
            }
        }
        let replays: Vec<Replay> = wanted.iter().map(|write| write.replay()).collect();
        let replayed = back.replay(layer, &replays).await;
        let mut letters = Vec::new();
        for ((write, replay), replayed) in wanted.into_iter().zip(replays).zip(replayed) {
            let shard = shard_of(&write.key.key, back.shards);
            match (replayed, &write.lost) {
                (Ok(true), Some(refusal)) => {
                    let parked = Flushed::Parked(said::write(refusal));
                    letters.push((replay.key, write.held.version, parked));
                }
                (Ok(true), None) => back.due.at(shard, layer.clock.elapsed()),
                (Ok(false), _) => {}
                (Err(error), _) => {
                    tracing::debug!(%error, "the shared cache does not take a write of the journal now");
                    left.push(write.clone());
                }
            }
        }
        // One that is not parked here meets its row once more, and is.
        drop(back.settle(layer, &letters).await);
    }
    left
}

/// Tells the cache what was flushed past it at start, whatever class has the keys by now.
///
/// # Errors
/// Unavailable if the cache does not answer.
pub(super) async fn tell(
    layer: &Layer,
    back: &Back,
    moved: &[(Key, usize, Version)],
) -> Result<()> {
    let mut left: Vec<(SharedKey, Version)> = Vec::with_capacity(moved.len() * 2);
    for (key, class, version) in moved {
        left.push((shared_key(layer, *class, key), *version));
        let now_of = layer.class_of(key.as_bytes());
        if now_of != *class {
            left.push((shared_key(layer, now_of, key), *version));
        }
    }
    let until = layer.clock.elapsed().saturating_add(PATIENCE);
    while !left.is_empty() {
        let told = back.invalidate(layer, &left).await;
        let late = layer.clock.elapsed() >= until;
        let mut again = Vec::new();
        for (one, told) in left.into_iter().zip(told) {
            match told {
                // What needs a generation serves nothing of before.
                Ok(()) | Err(SharedError::NeedsGeneration { .. }) => {}
                Err(error) if late => return Err(Error::new(ErrorKind::Unavailable, error)),
                Err(_) => again.push(one),
            }
        }
        left = again;
        if !left.is_empty() {
            layer.clock.sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Whether the store has each of these writes, or is past it; nothing where it cannot tell.
pub(super) async fn stored(layer: &Layer, back: &Back, writes: &[KeptWrite]) -> Vec<Option<bool>> {
    let keys: Vec<(usize, Key)> = writes
        .iter()
        .filter_map(|write| {
            let class = super::claims::class_of(layer, &write.key).0?;
            Some((class, write.key.key.clone()))
        })
        .collect();
    if keys.len() != writes.len() {
        // Records of classes that are not here are refused at start.
        return vec![None; writes.len()];
    }
    let mut known = Vec::with_capacity(writes.len());
    for (write, newest) in writes.iter().zip(newest(layer, &keys).await) {
        known.push(match newest {
            Ok(newest) => is_past(layer, back, write, newest).await,
            Err(_) => None,
        });
    }
    known
}

/// Whether a row of this version has a write or is past it; nothing if that cannot be told now.
async fn is_past(layer: &Layer, back: &Back, write: &KeptWrite, row: Version) -> Option<bool> {
    let version = write.held.version;
    if row <= version {
        return Some(row == version);
    }
    match write.lost {
        // That the row is another's is why it lost.
        Some(_) => back.known.is_own(layer, row).await,
        // A version beyond all that were given out says nothing of ours: the flush finds out what it is.
        None => back.known.is_given_out(layer, row).await,
    }
}

/// Raises the versions of all shards above what the store gave out until now.
async fn raise(layer: &Layer, back: &Back) -> Result<()> {
    let floor = Version::compose(layer.newest_issued().generation(), 0);
    back.saw(floor);
    let mut keys: Vec<Option<Key>> = vec![None; usize::from(back.shards)];
    let mut missing = keys.len();
    for n in 0_u64.. {
        if missing == 0 {
            break;
        }
        let key = Key::from(n.to_string());
        if let Some(slot @ None) = keys.get_mut(usize::from(shard_of(&key, back.shards).0)) {
            *slot = Some(key);
            missing -= 1;
        }
    }
    let floors: Vec<Replay> = keys
        .into_iter()
        .flatten()
        .map(|key| Replay {
            key: SharedKey {
                class: FLOOR.into(),
                key,
            },
            held: Held {
                version: floor,
                value: None,
            },
            base: None,
            now: layer.clock.now(),
        })
        .collect();
    let mut left: Vec<Replay> = floors;
    let until = layer.clock.elapsed().saturating_add(PATIENCE);
    while !left.is_empty() {
        let raised = back.replay(layer, &left).await;
        let mut again = Vec::new();
        let mut done = Vec::new();
        for (floor, raised) in left.into_iter().zip(raised) {
            match raised {
                Ok(_) => done.push((floor.key, floor.held.version, Flushed::Dropped)),
                // The generation it gets is newer than anything.
                Err(SharedError::NeedsGeneration { .. }) => {}
                Err(error) if layer.clock.elapsed() >= until => {
                    return Err(Error::new(ErrorKind::Unavailable, error));
                }
                Err(_) => again.push(floor),
            }
        }
        drop(back.settle(layer, &done).await);
        left = again;
        if !left.is_empty() {
            layer.clock.sleep(PAUSE).await;
        }
    }
    Ok(())
}
