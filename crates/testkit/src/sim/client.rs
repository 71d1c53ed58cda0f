//! What clients do: reads, writes, deletes, additions, evictions, flushes, and going away half-way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_core::{Change, Entry, ErrorKind, Gate, Key, Lookup, Written};

use super::history::{Kind as Asked, Outcome, Violation};
use super::world::{Kind, SMALL_BYTES, World};

/// A client goes away from a call in this share of cases.
const IMPATIENCE: f64 = 0.05;

/// One client, for as many operations as the scenario says.
pub(super) async fn work(world: Arc<World>, gate: Gate, client: usize) -> Vec<Violation> {
    let mut violations = Vec::new();
    for number in 0..world.scenario.operations {
        let random = &world.random;
        pause(random.below(4)).await;
        let kind = match random.below(13) {
            0..2 => Kind::Through,
            2..4 => Kind::Around,
            4..8 => Kind::Back,
            8 => Kind::Small,
            9 => Kind::Memory,
            10 if world.scenario.deltas => Kind::Delta,
            _ => Kind::Shared,
        };
        if random.chance(0.02) {
            gate.evict_all();
        }
        if random.chance(0.02) {
            drop(gate.flush(Duration::from_millis(random.below(50))).await);
        }
        if random.chance(0.05) {
            violations.extend(within_bounds(&gate));
        }
        if random.chance(0.03) {
            attend(&world, &gate).await;
            continue;
        }
        if kind == Kind::Shared && world.scenario.strangers && random.chance(0.15) {
            world.write_outside(key(kind, "", random.below(3))).await;
            continue;
        }
        if kind == Kind::Delta {
            count(&world, &gate, key(kind, "sum", random.below(2))).await;
            continue;
        }
        if kind != Kind::Shared && random.chance(0.3) {
            let key = key(kind, "sum", random.below(2));
            add(&world, &gate, key, 1 + random.below(9) as i64).await;
            continue;
        }
        let key = key(kind, "", random.below(3));
        match random.below(10) {
            0..4 => read(&world, &gate, key).await,
            4 => delete(&world, &gate, key).await,
            5 => {
                gate.evict(key.as_bytes());
            }
            _ => {
                let life = world.history().events().len();
                let poison = if random.chance(0.03) { "!" } else { "" };
                let value = format!("{poison}{client}.{number}.{life}");
                put(&world, &gate, key, value.into()).await;
            }
        }
    }
    violations
}

fn key(kind: Kind, what: &str, number: u64) -> Key {
    Key::from(format!("{}:{what}{number}", kind.name()))
}

/// The bounds hold at every moment, what is on its way and what is parked counted.
fn within_bounds(gate: &Gate) -> Option<Violation> {
    let stats = gate.stats();
    let small = stats
        .classes
        .iter()
        .find(|class| class.name == Kind::Small.name())?;
    // A write in place of another of its key is counted beside it until it takes its place.
    let most = SMALL_BYTES + 600;
    (small.dirty_bytes > most).then(|| Violation {
        invariant: "bound",
        what: format!("{} dirty bytes of {SMALL_BYTES}", small.dirty_bytes),
    })
}

#[expect(clippy::disallowed_methods, reason = "time is paused here")]
pub(super) async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// Runs a call to its end, or goes away from it half-way: the answer is then nothing.
async fn impatient<T>(world: &World, call: impl Future<Output = T>) -> Option<T> {
    if !world.random.chance(IMPATIENCE) {
        return Some(call.await);
    }
    let patience = pause(world.random.below(4));
    tokio::select! {
        biased;
        answer = call => Some(answer),
        () = patience => None,
    }
}

fn failure(error: &tidegate_core::Error) -> Outcome {
    match error.kind() {
        ErrorKind::Unknown => Outcome::Indeterminate,
        _ => Outcome::Failed,
    }
}

async fn read(world: &World, gate: &Gate, key: Key) {
    let place = world.history().begin(key.clone(), Asked::Read);
    let Some(answer) = impatient(world, gate.read(key.as_bytes())).await else {
        return;
    };
    let outcome = match answer {
        Ok(read) => Outcome::Ok {
            version: read.receipt.version,
            value: read.entry.map(|entry| entry.value),
        },
        Err(error) => failure(&error),
    };
    world.history().end(place, outcome);
}

/// Makes a write that is asked for as `asked`, and notes how it ended.
async fn write(
    world: &World,
    key: &Key,
    asked: Asked,
    call: impl Future<Output = tidegate_core::Result<Written>>,
) {
    let place = world.history().begin(key.clone(), asked);
    let Some(answer) = impatient(world, call).await else {
        return;
    };
    let outcome = match answer {
        Ok(written) => Outcome::Ok {
            version: written.receipt.version,
            value: None,
        },
        Err(error) => failure(&error),
    };
    world.history().end(place, outcome);
}

async fn put(world: &World, gate: &Gate, key: Key, value: Bytes) {
    let asked = Asked::Put(value.clone());
    write(world, &key, asked, gate.set(&key, value)).await;
}

async fn delete(world: &World, gate: &Gate, key: Key) {
    write(world, &key, Asked::Delete, gate.delete(&key)).await;
}

async fn add(world: &World, gate: &Gate, key: Key, by: i64) {
    let change = move |current: Option<&Entry>| {
        let text = current.and_then(|entry| std::str::from_utf8(&entry.value).ok());
        let number: i64 = text.and_then(|text| text.parse().ok()).unwrap_or(0);
        let value = Bytes::from((number + by).to_string());
        let change = Change::Put {
            value,
            expires_at: None,
        };
        (Some(change), ())
    };
    let call = async {
        let ((), written) = gate.update(&key, change).await?;
        Ok(written)
    };
    write(world, &key, Asked::Add(by), call).await;
}

/// An operation on a number that reaches the store as additions.
async fn count(world: &World, gate: &Gate, key: Key) {
    match world.random.below(6) {
        0 => read(world, gate, key).await,
        1 => {
            gate.evict(key.as_bytes());
        }
        _ => {
            let by = 1 + world.random.below(9) as i64;
            let call = async { gate.add(&key, by).await.map(|(_, written)| written) };
            write(world, &key, Asked::Add(by), call).await;
        }
    }
}

/// Somebody looks after the dead letters: retries one or all, edits one, discards one.
async fn attend(world: &World, gate: &Gate) {
    let letters = gate.dead_letters(None, None, 20);
    let Some(letter) = letters.get(world.random.below(letters.len() as u64) as usize) else {
        return;
    };
    let (key, version) = (letter.key.clone(), letter.version);
    match world.random.below(6) {
        0 => {
            gate.retry_dead_letters(None);
        }
        1..3 => {
            gate.retry_dead_letter(key.as_bytes());
        }
        3..5 if !key.as_bytes().windows(3).any(|part| part == b"sum") => {
            let value = Bytes::from(format!("edited.{}", world.history().events().len()));
            let asked = Asked::Put(value.clone());
            write(
                world,
                &key,
                asked,
                gate.edit_dead_letter(&key, version, value),
            )
            .await;
        }
        3..5 => {}
        _ => {
            // It may happen from now on, whether its answer is heard or not.
            world.discarded().push((key.clone(), version));
            drop(impatient(world, gate.discard_dead_letter(&key, version)).await);
        }
    }
}

/// What is cached of a key, compared with its row, when nothing is dirty.
pub(super) fn agrees(world: &World, gate: &Gate, key: &Key) -> Option<Violation> {
    let row = world.row(key);
    let cached = gate.lookup(key.as_bytes());
    let agrees = match &cached {
        Lookup::Hit(entry) => row
            .as_ref()
            .is_some_and(|row| row.version == entry.version && row.value == entry.value),
        Lookup::Negative => row.is_none(),
        Lookup::Miss => true,
    };
    (!agrees).then(|| Violation {
        invariant: "I7",
        what: format!("key '{key}': {cached:?} is cached, {row:?} is stored"),
    })
}
