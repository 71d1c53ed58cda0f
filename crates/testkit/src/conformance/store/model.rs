//! Random batches, applied to the store and to the reference, must end the same.
//!
//! Versions differ between the two, so a guard is made from what each of them last said of the key. A failure
//! prints the seed; `TIDEGATE_SEED` repeats it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::memory::MemoryStore;
use tidegate_core::port::{Batch, Guard, Outcome, RowKey, Store, TableId, Timestamp, Write};
use tidegate_core::{Change, Key, Version};

use super::scene::{NOW, Plus, Scene};
use super::{Keys, case_table};

case_table!(random_batches_end_as_in_the_reference);

const ROUNDS: usize = 200;
/// Kinds of guards.
const KINDS: u8 = 10;

/// One of the two stores: what it last said of each key.
struct Side {
    store: Arc<dyn Store>,
    tables: [TableId; 2],
    generation: u64,
    said: HashMap<(usize, Key), Version>,
}

/// A write in terms that mean the same to both.
struct Intent {
    table: usize,
    key: Key,
    change: Change,
    kind: u8,
    ahead: u64,
}

impl Side {
    fn write(&self, intent: &Intent) -> Write {
        let floor = Version::compose(self.generation, 1 << 40);
        let said = self.said.get(&(intent.table, intent.key.clone())).copied();
        let guard = match intent.kind {
            0 | 1 => Guard::Always,
            2 => Guard::Unchanged(said),
            3 => Guard::Unchanged(None),
            4 => Guard::IfNewer(said.unwrap_or(floor).minus(intent.ahead % 2)),
            5 => Guard::IfNewer(said.unwrap_or(floor).plus(1 + intent.ahead)),
            kind => Guard::Flush {
                base: match kind {
                    6 => Some(said.unwrap_or(Version::NONE)),
                    7 => Some(said.map_or(floor, |said| said.minus(1))),
                    8 => Some(Version::NONE),
                    _ => None,
                },
                version: match intent.ahead {
                    0 => said.unwrap_or(floor),
                    ahead => said.unwrap_or(floor).plus(ahead),
                },
            },
        };
        Write {
            table: self.tables[intent.table],
            key: intent.key.clone(),
            change: intent.change.clone(),
            guard,
        }
    }

    async fn apply(&mut self, intents: &[Intent], now: Timestamp) -> Vec<Outcome> {
        let writes: Vec<_> = intents.iter().map(|intent| self.write(intent)).collect();
        let outcomes = self.store.apply(&Batch::new(writes, now)).await.unwrap();
        for (intent, outcome) in intents.iter().zip(&outcomes) {
            if let Outcome::Applied { version, .. } = outcome {
                let said = self
                    .said
                    .insert((intent.table, intent.key.clone()), *version);
                // Kinds that bring what was said before may be taken where nothing was remembered.
                let rises = said.is_none_or(|said| said < *version);
                let brings_said = intent.kind == 4 || (intent.kind > 5 && intent.ahead == 0);
                assert!(rises || brings_said, "{:?}", intent.key);
            }
        }
        outcomes
    }
}

/// The outcome without its version.
fn plain(outcome: &Outcome) -> (u8, bool) {
    match outcome {
        Outcome::Applied { existed, .. } => (0, *existed),
        Outcome::Superseded => (1, false),
        Outcome::Changed => (2, false),
        // Versions differ between the two.
        Outcome::Conflict { newest } => (3, *newest == Version::NONE),
        Outcome::Added { existed, .. } => (4, *existed),
    }
}

async fn random_batches_end_as_in_the_reference(scene: Scene) {
    let seed = std::env::var("TIDEGATE_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::Rng::new().u64(..));
    let seed_shown = Seed(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let reference: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut tables = Vec::new();
    for name in ["a", "b"] {
        let spec = tidegate_core::port::TableSpec::named(name);
        tables.push(reference.open_table(&spec).await.unwrap());
    }
    let mut expected = Side {
        generation: reference.open_generation(0).await.unwrap(),
        store: reference,
        tables: [tables[0], tables[1]],
        said: HashMap::new(),
    };
    let mut found = Side {
        generation: scene.generation,
        store: scene.store.clone(),
        tables: [scene.table, scene.other],
        said: HashMap::new(),
    };
    let mut keys: Vec<Key> = (0..12).map(|i| format!("key:{i}").into()).collect();
    if scene.keys == Keys::Any {
        keys.extend((0..6).map(|i| Key::from(&[0xff, i, b'k'][..])));
    }
    let mut now = NOW;
    for round in 0..ROUNDS {
        now = now.after(Duration::from_millis(random.u64(0..20)));
        let mut intents = Vec::new();
        random.shuffle(&mut keys);
        let one_kind = (random.bool()).then(|| random.u8(0..KINDS));
        for key in &keys[..random.usize(1..=keys.len())] {
            let value = scene.value(&format!("{round}:{}", random.u16(..)));
            let expires_at =
                (random.u8(0..3) == 0).then(|| now.after(Duration::from_millis(random.u64(0..60))));
            let change = match random.u8(0..4) {
                0 => Change::Delete,
                _ => Change::Put { value, expires_at },
            };
            intents.push(Intent {
                table: usize::from(random.u8(0..4) == 0),
                key: key.clone(),
                change,
                kind: one_kind.unwrap_or_else(|| random.u8(0..KINDS)),
                ahead: random.u64(0..5),
            });
        }
        let ours = expected.apply(&intents, now).await;
        let theirs = found.apply(&intents, now).await;
        let plain = |outcomes: &[Outcome]| outcomes.iter().map(plain).collect::<Vec<_>>();
        assert_eq!(plain(&theirs), plain(&ours), "outcomes of round {round}");
        if random.u8(0..5) == 0 {
            let remember = Duration::from_millis(random.u64(0..100));
            for (ours, theirs) in expected.tables.into_iter().zip(found.tables) {
                let ours = expected
                    .store
                    .sweep(ours, now, remember, 1000)
                    .await
                    .unwrap();
                let theirs = found
                    .store
                    .sweep(theirs, now, remember, 1000)
                    .await
                    .unwrap();
                assert_eq!(theirs.expired, ours.expired, "sweep of round {round}");
            }
            // What was remembered of an absent key may be forgotten now, so it is forgotten here.
            for side in [&mut expected, &mut found] {
                let mut present = Vec::new();
                for table in 0..2 {
                    for row in state(side, table, &keys, now).await.1 {
                        present.push((table, row.0));
                    }
                }
                side.said.retain(|key, _| present.contains(key));
            }
        }
        for table in 0..2 {
            let ours = state(&expected, table, &keys, now).await;
            let theirs = state(&found, table, &keys, now).await;
            assert_eq!(theirs, ours, "state of table {table} after round {round}");
        }
    }
    drop(seed_shown);
}

type Row = (Key, bytes::Bytes, Option<Timestamp>);

/// Everything a caller can see of a table, without versions.
async fn state(side: &Side, table: usize, keys: &[Key], now: Timestamp) -> (u64, Vec<Row>) {
    let id = side.tables[table];
    let asked: Vec<RowKey> = keys.iter().map(|key| (id, key.clone())).collect();
    let mut loaded = Vec::new();
    for ((_, key), entry) in asked
        .iter()
        .zip(side.store.load(&asked, now).await.unwrap())
    {
        if let Some(entry) = entry {
            assert_eq!(entry.version, side.said[&(table, key.clone())], "{key:?}");
            loaded.push((key.clone(), entry.value, entry.expires_at));
        }
    }
    loaded.sort();
    let scanned = side.store.scan(id, None, 1000, now).await.unwrap();
    let scanned: Vec<_> = scanned
        .into_iter()
        .map(|(key, entry)| (key, entry.value, entry.expires_at))
        .collect();
    assert_eq!(scanned, loaded, "a scan and a load of table {table}");
    (side.store.count(id, now).await.unwrap(), loaded)
}

struct Seed(u64);

impl Drop for Seed {
    #[expect(clippy::print_stderr, reason = "this is the output of a failing test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat with TIDEGATE_SEED={}", self.0);
        }
    }
}
