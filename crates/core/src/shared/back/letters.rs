//! Dead letters of the shared cache: parked entries, and writes that lost against a row of somebody else.
//!
//! They are in the cache, and every node sees all of them. What a node knows of them is as of its last look, or of
//! what it parked itself; whatever changes one is done in the cache, by version.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::claims::{Claim, class_of, lost};
use super::kept::value_of;
use super::write::Writer;
use super::{Back, said};
use crate::dead_letters::{DeadLetter, Refusal};
use crate::entry::Change;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::layer::Layer;
use crate::port::{
    Claimed, Expected, Flushed, Guard, Held, Outcome, Shard, SharedKey, StoreError, Value, Write,
    shard_of,
};
use crate::read::load_apart;
use crate::receipt::Written;
use crate::strategy::commit;
use crate::version::Version;

/// Dead letters of one shard that a node knows at once.
const SHARD_MAX: usize = 1000;
/// A shard whose count of letters has not changed is looked at again after this: one may have come for another.
const AGAIN: Duration = Duration::from_secs(5);
/// How often a discard is tried over rows that others keep changing.
const ATTEMPTS_MAX: usize = 8;

/// What is known of the dead letters.
pub(crate) struct Letters {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    by_key: BTreeMap<SharedKey, Letter>,
    /// Those that are being tried again, for the count of attempts.
    retried: BTreeMap<SharedKey, Letter>,
    /// By shard, how many letters it had when they were last looked at, and when that was.
    looked: BTreeMap<Shard, (u64, Duration)>,
}

#[derive(Clone)]
struct Letter {
    held: Held,
    refusal: Refusal,
}

impl Letters {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State::default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A claimed write becomes a dead letter. The refusal, as one more of the same write if it was one before.
    pub(super) fn refused(&self, claim: &Claim, refusal: Refusal) -> Refusal {
        let mut state = self.lock();
        let earlier = state.retried.remove(&claim.key);
        let earlier = earlier.filter(|earlier| earlier.held.version == claim.version);
        let refusal = match earlier {
            Some(earlier) => refusal.after(&earlier.refusal),
            None => refusal,
        };
        let letter = Letter {
            held: Held {
                version: claim.version,
                value: value_of(&claim.change),
            },
            refusal: refusal.clone(),
        };
        state.by_key.insert(claim.key.clone(), letter);
        refusal
    }

    /// There is no dead letter of this key any more.
    pub(super) fn gone(&self, key: &SharedKey) {
        let mut state = self.lock();
        state.by_key.remove(key);
        state.retried.remove(key);
    }

    /// How many of a class, or of all, are known.
    pub(super) fn count(&self, layer: &Layer, class: Option<usize>) -> u64 {
        let state = self.lock();
        let of = |key: &&SharedKey| class.is_none() || class_of(layer, key).0 == class;
        state.by_key.keys().filter(of).count() as u64
    }

    fn all(&self) -> Vec<(SharedKey, Letter)> {
        let state = self.lock();
        let all = state.by_key.iter();
        all.map(|(key, letter)| (key.clone(), letter.clone()))
            .collect()
    }

    /// The letter of a key: of its own entry, or of a write of it that lost.
    fn of(&self, layer: &Layer, key: &[u8]) -> Option<(SharedKey, Letter)> {
        let own = own_key(layer, key);
        let other = lost(&own);
        let state = self.lock();
        let letter = |key: SharedKey| Some((key.clone(), state.by_key.get(&key)?.clone()));
        letter(own).or_else(|| letter(other))
    }

    fn learn(&self, layer: &Layer, back: &Back, shard: Shard, letters: Vec<(Claimed, Arc<str>)>) {
        let now = layer.clock.now();
        let mut state = self.lock();
        let count = letters.len() as u64;
        state
            .by_key
            .retain(|key, _| shard_of(&key.key, back.shards) != shard);
        for (claimed, said) in letters {
            let letter = Letter {
                held: claimed.held,
                refusal: said::read(&said, now),
            };
            state.by_key.insert(claimed.key, letter);
        }
        let looked = (count, layer.clock.elapsed());
        state.looked.insert(shard, looked);
    }

    /// Whether the letters of a shard that has so many now are to be looked at.
    fn is_due(&self, shard: Shard, count: u64, now: Duration) -> bool {
        match self.lock().looked.get(&shard) {
            None => count > 0,
            Some((known, at)) => *known != count || (count > 0 && now >= *at + AGAIN),
        }
    }
}

fn own_key(layer: &Layer, key: &[u8]) -> SharedKey {
    SharedKey {
        class: Arc::clone(&layer.state(layer.class_of(key)).name),
        key: Key::copy_from(key),
    }
}

/// Looks at the letters of shards of which something may have changed.
pub(super) async fn refresh(layer: &Layer, back: &Back) {
    for shard in (0..back.shards).map(Shard) {
        let count = back.room.of(shard).parked;
        if back.letters.is_due(shard, count, layer.clock.elapsed()) {
            look(layer, back, shard).await;
        }
    }
}

/// Looks at the letters of a shard now. True if that could be done.
async fn look(layer: &Layer, back: &Back, shard: Shard) -> bool {
    let Ok(letters) = back.parked(layer, shard, SHARD_MAX).await else {
        return false;
    };
    back.letters.learn(layer, back, shard, letters);
    true
}

/// The letters of a class, or of all, after a key, in the order of keys, at most `limit`; without their values.
pub(crate) fn list(
    layer: &Layer,
    back: &Back,
    class: Option<usize>,
    after: Option<&[u8]>,
    limit: usize,
) -> Vec<DeadLetter> {
    let mut letters: Vec<DeadLetter> = back
        .letters
        .all()
        .into_iter()
        .filter(|(key, _)| after.is_none_or(|after| key.key.as_bytes() > after))
        .filter(|(key, _)| class.is_none() || class_of(layer, key).0 == class)
        .map(|(key, letter)| shown(layer, &key, &letter, false))
        .collect();
    letters.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    letters.truncate(limit);
    letters
}

/// The letter of a key with its value.
pub(crate) fn get(layer: &Layer, back: &Back, key: &[u8]) -> Option<DeadLetter> {
    let (key, letter) = back.letters.of(layer, key)?;
    Some(shown(layer, &key, &letter, true))
}

fn shown(layer: &Layer, key: &SharedKey, letter: &Letter, with_value: bool) -> DeadLetter {
    let value = letter.held.value.as_ref();
    let class = match class_of(layer, key).0 {
        Some(class) => layer.state(class).name.to_string(),
        None => key.class.to_string(),
    };
    let refusal = &letter.refusal;
    DeadLetter {
        key: key.key.clone(),
        class,
        version: letter.held.version,
        is_delete: value.is_none(),
        is_addition: false,
        added: None,
        value: value
            .filter(|_| with_value)
            .map(|value| value.bytes.clone()),
        value_bytes: value.map_or(0, |value| value.bytes.len()),
        expires_at: value.and_then(|value| value.expires_at),
        reason: refusal.reason,
        code: refusal.code.as_deref().map(str::to_owned),
        message: refusal.message.to_string(),
        attempts: refusal.attempts,
        first_at: refusal.first_at,
        last_at: refusal.last_at,
    }
}

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
    {
        let mut state = back.letters.lock();
        for (key, letter) in &letters {
            state.by_key.remove(key);
            state.retried.insert(key.clone(), letter.clone());
        }
    }
    let task = Arc::clone(layer);
    layer.spawn(async move {
        let Some(back) = super::of(&task) else { return };
        for (key, letter) in letters {
            let shard = shard_of(&key.key, back.shards);
            match back.unpark(&task, &key, letter.held.version).await {
                Ok(true) => back.due.at(shard, task.clock.elapsed()),
                // Gone, or written again. What the cache could not be told is seen at the next look.
                Ok(false) | Err(_) => {
                    back.letters.lock().retried.remove(&key);
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
            drop(back.settle(layer, &[(at.clone(), version, Flushed::Dropped)]).await);
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
    let settled = back.settle(layer, &[(at.clone(), version, Flushed::Dropped)]).await;
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
