//! Two caches side by side: the same random commands to both, and after each the same answers and the same state.

mod act;
mod chance;

use std::fmt::Write;
use std::sync::Arc;

use tidegate_core::port::{Shard, SharedCache, SharedKey, shard_of};

use self::act::{act, each, kind};
use self::chance::{Chance, remember};
use super::Scene;
use super::stage::store_time;

/// What is done to both.
#[derive(Clone, Copy, Debug)]
pub struct Differential {
    /// Of all chance. Printed when the two differ.
    pub seed: u64,
    /// How many commands.
    pub steps: usize,
    /// How many keys, spread over a few shards.
    pub keys: usize,
    /// Both scenes can lose everything, and do.
    pub losses: bool,
    /// Both scenes can restart, save and fail over, and do.
    pub failovers: bool,
}

impl Default for Differential {
    fn default() -> Self {
        Self {
            seed: 1,
            steps: 2000,
            keys: 6,
            losses: false,
            failovers: false,
        }
    }
}

/// All that can be seen of the keys and shards, and whether a shard is not open.
async fn seen(cache: &dyn SharedCache, keys: &[SharedKey], shards: &[Shard]) -> (String, bool) {
    let mut seen = String::new();
    let states = each(cache.shard_states(shards).await);
    let closed = states
        .iter()
        .any(|state| !state.as_ref().is_ok_and(|state| state.is_open));
    // Writing to a string does not fail.
    let _ = writeln!(seen, "shards {states:?}");
    for (key, got) in keys.iter().zip(each(cache.get(keys).await)) {
        let _ = writeln!(seen, "{key:?} {got:?}");
    }
    let _ = writeln!(seen, "dirty {:?}", each(cache.dirty(shards).await));
    for shard in shards {
        let before = store_time(i64::from(i32::MAX));
        let left = cache.leftovers(*shard, before, 1000).await;
        let left = left.map(|mut left| {
            left.sort_by_key(|left| (left.commit_by, left.key.clone(), left.token));
            left
        });
        let parked = cache.parked(*shard, 1000).await;
        let parked = parked.map(|mut parked| {
            parked.sort_by_key(|(parked, _)| parked.key.clone());
            parked
        });
        let (left, parked) = (left.map_err(kind), parked.map_err(kind));
        let _ = writeln!(seen, "{shard:?} leftovers {left:?} parked {parked:?}");
    }
    (seen, closed)
}

/// Does the same to both and compares all that they tell. Both are empty, have the same number of shards, and leases
/// that hold longer than this takes.
///
/// # Panics
/// When they differ; the message has the seed, the last commands and both answers.
pub async fn differential(settings: Differential, one: Arc<dyn Scene>, other: Arc<dyn Scene>) {
    let count = one.cache().shards();
    assert_eq!(
        count,
        other.cache().shards(),
        "not the same number of shards"
    );
    let keys: Vec<SharedKey> = (0..settings.keys)
        .map(|n| SharedKey {
            class: if n % 3 == 2 { "other" } else { "one" }.into(),
            key: format!("key {}", n / 2).as_str().into(),
        })
        .collect();
    let mut shards: Vec<Shard> = keys.iter().map(|key| shard_of(&key.key, count)).collect();
    shards.sort();
    shards.dedup();
    let mut chance = Chance::new(settings.seed, &keys, &shards);
    let mut done: Vec<String> = Vec::new();
    let mut closed = true;
    for step in 0..settings.steps {
        let command = chance.command(&settings, closed);
        remember(&mut done, format!("{command:?}"));
        let (left, told) = act(&*one, &command).await;
        let (right, _) = act(&*other, &command).await;
        let context = |what: &str| {
            format!(
                "{what} differ at step {step} of seed {}; the last commands:\n{}",
                settings.seed,
                done.join("\n")
            )
        };
        assert!(left == right, "{}\n{left}\n{right}", context("answers"));
        let (left, is_closed) = seen(&*one.cache(), &keys, &shards).await;
        let (right, _) = seen(&*other.cache(), &keys, &shards).await;
        assert!(left == right, "{}\n{left}\n{right}", context("states"));
        closed = is_closed;
        chance.learn(&command, told);
    }
}
