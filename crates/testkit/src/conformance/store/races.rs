//! Many writers at once. Whatever the order was, the highest version must be what is left, no version is used
//! twice for a key, and no change that depends on the one before may be lost.

use std::collections::HashMap;

use tidegate_core::port::{Guard, Outcome, StoreError, Write};
use tidegate_core::{Change, Key, Version};
use tokio::task::JoinSet;

use super::case_table;
use super::scene::Scene;

case_table!(
    the_highest_version_is_what_is_left,
    no_increment_is_lost,
    flushes_out_of_order_end_in_the_newest,
    puts_and_deletes_of_the_same_keys_keep_their_order,
    mixed_batches_do_not_stand_in_each_others_way,
    sweeps_and_writes_keep_their_order,
);

const TASKS: u64 = 8;

/// What a write made of its key, under the version it took.
type History = HashMap<Key, Vec<(Version, Change)>>;

/// Applies a batch, again as long as the store asks for that.
async fn apply(scene: &Scene, writes: Vec<Write>) -> Vec<Outcome> {
    for _ in 0..1000 {
        match scene.try_apply(writes.clone()).await {
            Ok(outcomes) => return outcomes,
            Err(StoreError::Unavailable { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
    panic!("a batch was put off a thousand times");
}

fn note(history: &mut History, write: Write, outcome: Outcome) {
    if let Outcome::Applied { version, .. } = outcome {
        let writes = history.entry(write.key).or_default();
        writes.push((version, write.change));
    }
}

/// Runs a task several times at once, every other one on another opening of the database if there is one.
async fn at_once<F>(scene: &Scene, task: impl Fn(u64, Scene) -> F) -> History
where
    F: Future<Output = History> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        let mut scene = scene.clone();
        if let Some((again, table)) = scene.again.clone()
            && number % 2 == 1
        {
            (scene.store, scene.table) = (again, table);
        }
        tasks.spawn(task(number, scene));
    }
    let mut all = History::new();
    while let Some(history) = tasks.join_next().await {
        for (key, writes) in history.unwrap() {
            all.entry(key).or_default().extend(writes);
        }
    }
    all
}

/// Fails unless versions are unique per key and the newest write of each key is what the store holds.
async fn expect_newest(scene: &Scene, history: History) {
    assert!(!history.is_empty());
    for (key, mut writes) in history {
        writes.sort_by_key(|write| write.0);
        for pair in writes.windows(2) {
            assert_ne!(pair[0].0, pair[1].0, "a version of {key:?} was used twice");
        }
        let (version, change) = writes.pop().unwrap();
        let keys = [(scene.table, key.clone())];
        let found = scene.store.load(&keys, scene.now).await.unwrap().remove(0);
        match change {
            Change::Delete => assert_eq!(found, None, "{key:?} was deleted by {version}"),
            Change::Put { value, .. } => {
                let found = found.unwrap_or_else(|| panic!("{key:?} was put by {version}"));
                assert_eq!(found.version, version, "of {key:?}");
                assert_eq!(found.value, value, "of {key:?}");
            }
            Change::Add { .. } => unreachable!("nothing is added here"),
        }
    }
}

fn random(task: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(0x7469_6465 + task)
}

async fn the_highest_version_is_what_is_left(scene: Scene) {
    let task = |task, scene: Scene| async move {
        let mut history = History::new();
        for i in 0..40 {
            let key = format!("k{}", i % 2);
            let write = scene.put(&key, &format!("{task}-{i}"), Guard::Always);
            let outcome = apply(&scene, vec![write.clone()]).await[0];
            note(&mut history, write, outcome);
        }
        history
    };
    let history = at_once(&scene, task).await;
    let writes: usize = history.values().map(Vec::len).sum();
    assert_eq!(writes as u64, TASKS * 40);
    expect_newest(&scene, history).await;
}

async fn no_increment_is_lost(scene: Scene) {
    const EACH: u64 = 15;
    let task = |_, scene: Scene| async move {
        let mut done = 0;
        let mut history = History::new();
        while done < EACH {
            let row = scene.load("counter").await;
            let text = row
                .as_ref()
                .map(|row| String::from_utf8(row.value.to_vec()).unwrap());
            let count = text.map_or(0, |text| text.trim_matches('"').parse::<u64>().unwrap());
            let guard = Guard::Unchanged(row.map(|row| row.version));
            let write = scene.put("counter", &(count + 1).to_string(), guard);
            let outcome = apply(&scene, vec![write.clone()]).await[0];
            done += u64::from(matches!(outcome, Outcome::Applied { .. }));
            note(&mut history, write, outcome);
        }
        history
    };
    let history = at_once(&scene, task).await;
    let mut counts = history[&Key::from("counter")].clone();
    counts.sort_by_key(|write| write.0);
    for (i, (_, change)) in counts.iter().enumerate() {
        let Change::Put { value, .. } = change else {
            panic!("{change:?}");
        };
        assert_eq!(
            *value,
            scene.value(&(i + 1).to_string()),
            "versions follow commits"
        );
    }
    assert_eq!(counts.len() as u64, TASKS * EACH);
    expect_newest(&scene, history).await;
}

async fn flushes_out_of_order_end_in_the_newest(scene: Scene) {
    const KEYS: u64 = 5;
    let task = |task: u64, scene: Scene| async move {
        let mut random = random(task);
        let mut history = History::new();
        let mut numbers: Vec<u64> = (0..30).collect();
        random.shuffle(&mut numbers);
        for number in numbers {
            let guard = Guard::IfNewer(scene.version(1 + number * TASKS + task));
            let mut writes: Vec<_> = (0..KEYS)
                .map(|key| match random.u8(0..4) {
                    0 => scene.delete(&format!("k{key}"), guard),
                    _ => scene.put(&format!("k{key}"), &format!("{task}-{number}"), guard),
                })
                .collect();
            random.shuffle(&mut writes);
            let outcomes = apply(&scene, writes.clone()).await;
            for (write, outcome) in writes.into_iter().zip(outcomes) {
                note(&mut history, write, outcome);
            }
        }
        history
    };
    let history = at_once(&scene, task).await;
    // Each key saw every number once, so the newest of all must have been taken.
    let newest = scene.version(1 + 29 * TASKS + TASKS - 1);
    for (key, writes) in &history {
        assert!(writes.iter().any(|write| write.0 == newest), "{key:?}");
    }
    assert_eq!(history.len() as u64, KEYS);
    expect_newest(&scene, history).await;
}

async fn puts_and_deletes_of_the_same_keys_keep_their_order(scene: Scene) {
    let task = |task, scene: Scene| async move {
        let mut random = random(task);
        let mut history = History::new();
        for i in 0..60 {
            let key = format!("k{}", random.u8(0..2));
            let write = match random.u8(0..5) {
                0 | 1 => scene.put(&key, &format!("{task}-{i}"), Guard::Always),
                2 => scene.delete(&key, Guard::Unchanged(None)),
                3 => scene.put(&key, &format!("{task}-{i}"), Guard::Unchanged(None)),
                _ => scene.delete(&key, Guard::Always),
            };
            let outcome = apply(&scene, vec![write.clone()]).await[0];
            note(&mut history, write, outcome);
        }
        history
    };
    let history = at_once(&scene, task).await;
    expect_newest(&scene, history).await;
}

async fn mixed_batches_do_not_stand_in_each_others_way(scene: Scene) {
    let task = |task, scene: Scene| async move {
        let mut random = random(task);
        let mut history = History::new();
        for i in 0..15_u64 {
            let mut keys: Vec<u64> = (0..12).collect();
            random.shuffle(&mut keys);
            keys.truncate(8);
            let mut writes = Vec::new();
            for key in keys {
                let guard = match random.u8(0..3) {
                    0 => Guard::Always,
                    1 => Guard::Unchanged(None),
                    _ => Guard::IfNewer(scene.version(1 + (i * TASKS + task) * 1000)),
                };
                let key = format!("k{key}");
                writes.push(match random.u8(0..3) {
                    0 => scene.delete(&key, guard),
                    _ => scene.put(&key, &format!("{task}-{i}"), guard),
                });
            }
            let outcomes = apply(&scene, writes.clone()).await;
            for (write, outcome) in writes.into_iter().zip(outcomes) {
                note(&mut history, write, outcome);
            }
        }
        history
    };
    let history = at_once(&scene, task).await;
    expect_newest(&scene, history).await;
}

async fn sweeps_and_writes_keep_their_order(scene: Scene) {
    let task = |task: u64, scene: Scene| async move {
        let mut random = random(task);
        let mut history = History::new();
        for i in 0..40_u64 {
            if task < 2 {
                let remember = std::time::Duration::from_secs(1 << 40);
                // A deadlock with a writer may be answered by asking to try again; so it is.
                let swept = scene
                    .store
                    .sweep(scene.table, scene.now, remember, 10)
                    .await;
                assert!(matches!(swept, Ok(_) | Err(StoreError::Unavailable { .. })));
                tokio::task::yield_now().await;
                continue;
            }
            let key = format!("k{}", random.u8(0..3));
            let until = (random.u8(0..2) == 0).then_some(scene.now);
            let guard = match random.u8(0..2) {
                0 => Guard::Always,
                _ => Guard::IfNewer(scene.version(1 + i * TASKS + task)),
            };
            let write = scene.put_until(&key, &format!("{task}-{i}"), until, guard);
            let outcome = apply(&scene, vec![write.clone()]).await[0];
            if until.is_some() {
                // Born dead: what is left of it is what a delete leaves.
                note(&mut history, scene.delete(&key, guard), outcome);
            } else {
                note(&mut history, write, outcome);
            }
        }
        history
    };
    let history = at_once(&scene, task).await;
    expect_newest(&scene, history).await;
}
