//! Dead letters of the shared cache: parked entries, and writes that lost against a row of somebody else.
//!
//! They are in the cache, and every node sees all of them. What a node knows of them is as of its last look, or of
//! what it parked itself; whatever changes one is done in the cache, by version.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::claims::{Claim, class_of, lost};
use super::kept::value_of;
use super::{Back, said};
use crate::dead_letters::{DeadLetter, Refusal};
use crate::key::Key;
use crate::layer::Layer;
use crate::port::{Claimed, ENTRY_OVERHEAD_BYTES, Held, Shard, SharedKey, shard_of};
use crate::version::Version;

/// Dead letters of one shard that a node knows at once.
const SHARD_MAX: usize = 1000;
/// A shard whose count of letters has not changed is looked at again after this: one may have come for another.
const AGAIN: Duration = Duration::from_secs(5);

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
pub(super) struct Letter {
    pub(super) held: Held,
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

    /// These are being tried once more.
    pub(super) fn retried(&self, letters: &[(SharedKey, Letter)]) {
        let mut state = self.lock();
        for (key, letter) in letters {
            state.by_key.remove(key);
            state.retried.insert(key.clone(), letter.clone());
        }
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

    /// How many of a class are known, and about how many bytes they are.
    pub(crate) fn size(&self, layer: &Layer, class: usize) -> (u64, u64) {
        let state = self.lock();
        let mine = state.by_key.iter();
        let mine = mine.filter(|(key, _)| class_of(layer, key).0 == Some(class));
        mine.fold((0, 0), |(count, bytes), (key, letter)| {
            let value = letter.held.value.as_ref();
            let value = value.map_or(0, |value| value.bytes.len());
            let content = key.key.len() as u64 + value as u64;
            (count + 1, bytes + content + ENTRY_OVERHEAD_BYTES)
        })
    }

    pub(super) fn all(&self) -> Vec<(SharedKey, Letter)> {
        let state = self.lock();
        let all = state.by_key.iter();
        all.map(|(key, letter)| (key.clone(), letter.clone()))
            .collect()
    }

    /// The letter of a key: of its own entry, or of a write of it that lost.
    pub(super) fn of(&self, layer: &Layer, key: &[u8]) -> Option<(SharedKey, Letter)> {
        let own = own_key(layer, key);
        let other = lost(&own);
        let state = self.lock();
        let letter = |key: SharedKey| Some((key.clone(), state.by_key.get(&key)?.clone()));
        letter(own).or_else(|| letter(other))
    }

    /// Why the entry of this name and version is a dead letter, if that is known.
    pub(super) fn refusal(&self, key: &SharedKey, version: Version) -> Option<Refusal> {
        let state = self.lock();
        let letter = state.by_key.get(key)?;
        (letter.held.version == version).then(|| letter.refusal.clone())
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

pub(super) fn own_key(layer: &Layer, key: &[u8]) -> SharedKey {
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
pub(super) async fn look(layer: &Layer, back: &Back, shard: Shard) -> bool {
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
