//! What a person does about a dead letter of the shared cache: try it once more, write something else in its place, or
//! give it up. Each is done in the cache, by the letter's version.

use std::sync::Arc;

use bytes::Bytes;

use super::Back;
use super::claims::class_of;
use super::letters::{Letter, look, own_key};
use super::write::Writer;
use crate::entry::Change;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::layer::Layer;
use crate::port::{
    Expected, Flushed, Guard, Outcome, SharedKey, StoreError, Value, Write, shard_of,
};
use crate::read::load_apart;
use crate::receipt::Written;
use crate::strategy::commit;
use crate::version::Version;

/// How often a discard is tried over rows that others keep changing.
const ATTEMPTS_MAX: usize = 8;

/// Tries letters of a class, or of all, once more, soon; how many that are known.
pub(crate) fn retry_all(layer: &Arc<Layer>, back: &Back, class: Option<usize>) -> u64 {
    let mut letters = back.letters.all();
    letters.retain(|(key, _)| class.is_none() || class_of(layer, key).0 == class);
    let count = letters.len() as u64;
    start_retry(layer, back, letters);
    count
}

/// Tries the letter of a key once more, soon. False if none is known.
pub(crate) fn retry(layer: &Arc<Layer>, back: &Back, key: &[u8]) -> bool {
    let Some(letter) = back.letters.of(layer, key) else {
        return false;
    };
    start_retry(layer, back, vec![letter]);
    true
}

fn start_retry(layer: &Arc<Layer>, back: &Back, letters: Vec<(SharedKey, Letter)>) {
    back.letters.retried(&letters);
    let task = Arc::clone(layer);
    layer.spawn(async move {
        let Some(back) = super::of(&task) else { return };
        for (key, letter) in letters {
            let shard = shard_of(&key.key, back.shards);
            match back.unpark(&task, &key, letter.held.version).await {
                Ok(true) => back.due.at(shard, task.clock.elapsed()),
                // Gone, or written again. What the cache could not be told is seen at the next look.
                Ok(false) | Err(_) => {
                    back.letters.gone(&key);
                    look(&task, back, shard).await;
                }
            }
        }
        back.due.asked.notify_one();
    });
}

/// The letter of this key and version, as the cache has it now.
async fn current(
    layer: &Layer,
    back: &Back,
    key: &[u8],
    version: Version,
) -> Result<Option<(SharedKey, Letter)>> {
    let shard = shard_of(&Key::copy_from(key), back.shards);
    if !look(layer, back, shard).await {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "the shared cache does not tell its dead letters now",
        ));
    }
    let letter = back.letters.of(layer, key);
    Ok(letter.filter(|(_, letter)| letter.held.version == version))
}

/// Writes a value in place of a letter; nothing if there is none of this version.
pub(crate) async fn edit(
    layer: &Layer,
    back: &Back,
    key: &[u8],
    version: Version,
    value: Bytes,
) -> Result<Option<Written>> {
    let Some((at, letter)) = current(layer, back, key, version).await? else {
        return Ok(None);
    };
    let expires_at = letter.held.value.and_then(|value| value.expires_at);
    let own = own_key(layer, key);
    let class = layer.class_of(key);
    let change = Change::Put {
        value: value.clone(),
        expires_at,
    };
    crate::strategy::write_back::check(layer, &own.key, class, &change)?;
    // A letter in its own place is written over; one that lost has none, and its key holds the row by now.
    let expected = match at == own {
        true => Expected::Version(version),
        false => Expected::Any,
    };
    let _under_way = back.begin(layer)?;
    let value = Value {
        bytes: value,
        expires_at,
    };
    let written = Writer::new(layer, back, class, &own)
        .write(Some(value), expected)
        .await?;
    if written.is_some() {
        if at != own {
            drop(
                back.settle(layer, &[(at.clone(), version, Flushed::Dropped)])
                    .await,
            );
        }
        back.letters.gone(&at);
    }
    Ok(written)
}

/// Gives a letter up. First the store is told that the key is past this version, whatever its row holds: a journal that
/// has the write is not to bring it back.
pub(crate) async fn discard(
    layer: &Layer,
    back: &Back,
    key: &[u8],
    version: Version,
) -> Result<bool> {
    let Some((at, _)) = current(layer, back, key, version).await? else {
        return Ok(false);
    };
    let class = layer.class_of(key);
    pass(layer, class, &at.key, version).await?;
    let settled = back
        .settle(layer, &[(at.clone(), version, Flushed::Dropped)])
        .await;
    if let Some(Err(error)) = settled.into_iter().next() {
        return Err(Error::new(ErrorKind::Unknown, error));
    }
    let own = own_key(layer, key);
    back.kept.stored(&own, version);
    back.letters.gone(&at);
    drop(back.invalidate(layer, &[(own, version)]).await);
    let state = layer.state(class);
    state.counters.discarded.one();
    tracing::warn!(key = %at.key, class = %state.name, %version, "a dead letter was discarded");
    Ok(true)
}

/// Gives the row of a key this version, if it has an older one, and leaves what it holds as it is.
async fn pass(layer: &Layer, class: usize, key: &Key, version: Version) -> Result<()> {
    let Some(table) = layer.state(class).table else {
        return Ok(());
    };
    let keys = [(key.clone(), class)];
    let mut base = None;
    for _ in 0..ATTEMPTS_MAX {
        let row = load_apart(layer, &keys).await.pop().unwrap_or(Ok(None))?;
        let expected = base.take().or(row.as_ref().map(|row| row.version));
        let change = match row {
            Some(row) => Change::Put {
                value: row.value,
                expires_at: row.expires_at,
            },
            None => Change::Delete,
        };
        let guard = Guard::Flush {
            base: Some(expected.unwrap_or(Version::NONE)),
            version,
        };
        let write = Write {
            table,
            key: key.clone(),
            change,
            guard,
        };
        let applied = commit::apply(&*layer.store, vec![write], layer.clock.now(), None).await;
        match applied.into_iter().next() {
            Some(Ok(Outcome::Conflict { newest })) if newest < version => base = Some(newest),
            Some(Ok(_)) => return Ok(()),
            // A row that the store itself would not take is as it was before.
            Some(Err(error @ StoreError::Refused { .. })) => {
                tracing::warn!(%error, %key, "the row of a discarded dead letter keeps its version");
                return Ok(());
            }
            Some(Err(error)) => return Err(error.into()),
            None => break,
        }
    }
    Err(Error::new(
        ErrorKind::Unavailable,
        "the row was changed by others again and again",
    ))
}
