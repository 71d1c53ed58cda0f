//! Additions to classes of deltas: each counts exactly once, whatever the store, others and crashes do (I10).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_core::memory::MemoryStore;
use tidegate_core::port::StoreError;
use tidegate_core::{Class, DeadLetterReason, ErrorKind, Gate, Key, Strategy};
use tidegate_testkit::sim::{FaultyStore, Random, SimClock, SimDisk, StoreFaults};

use crate::hooked::Hooked;
use crate::world::{World, ms, pass, text};

fn delta() -> Class {
    Class::new("n", "n:*")
        .strategy(Strategy::WriteBack)
        .linger(ms(20))
        .delta(true)
}

/// Others add in plain SQL.
fn add_outside(rows: &MemoryStore, key: &str, by: i64) {
    let key = Key::from(key);
    let row = rows.row("n", &key);
    let present = row.map_or(0, |row| tidegate_core::integer(&row.value).unwrap());
    let value = (present + by).to_string();
    rows.outside("n", &key, Some(value.as_bytes()));
}

#[tokio::test(start_paused = true)]
async fn additions_coalesce_and_are_flushed_as_one_addition() {
    let world = World::new();
    let gate = world.gate([delta()]).await;
    for (by, expected) in [(5, 5), (-7, -2), (4, 2)] {
        assert_eq!(gate.add("n:1", by).await.unwrap().0, expected);
    }
    assert_eq!(text(&gate, "n:1").await.as_deref(), Some("2"));
    assert_eq!(world.value("n", "n:1"), None, "the store follows later");
    gate.flush(ms(1_000)).await.unwrap();
    assert_eq!(world.value("n", "n:1").as_deref(), Some("2"));
    assert_eq!(world.store.calls().applied_writes, 1);
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

#[tokio::test(start_paused = true)]
async fn what_others_add_to_the_row_is_kept_and_then_seen() {
    let world = World::new();
    let gate = world.gate([delta()]).await;
    gate.add("n:1", 1).await.unwrap();
    gate.flush(ms(1_000)).await.unwrap();
    add_outside(&world.rows, "n:1", 100);
    assert_eq!(gate.add("n:1", 1).await.unwrap().0, 2, "as it is cached");
    gate.flush(ms(1_000)).await.unwrap();
    assert_eq!(world.value("n", "n:1").as_deref(), Some("102"));
    assert_eq!(text(&gate, "n:1").await.as_deref(), Some("102"));
    // Deleted by others, it begins at nought.
    world.rows.outside("n", &Key::from("n:1"), None);
    gate.add("n:1", 3).await.unwrap();
    gate.flush(ms(1_000)).await.unwrap();
    assert_eq!(world.value("n", "n:1").as_deref(), Some("3"));
    assert!(gate.dead_letters(None, None, 10).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_put_and_what_is_added_to_it_are_a_put() {
    let world = World::new();
    let gate = world.gate([delta()]).await;
    gate.set("n:1", "10").await.unwrap();
    assert_eq!(gate.add("n:1", 5).await.unwrap().0, 15);
    gate.delete("n:2").await.unwrap();
    assert_eq!(gate.add("n:2", 5).await.unwrap().0, 5);
    gate.add("n:3", 5).await.unwrap();
    gate.set("n:3", "1").await.unwrap();
    gate.flush(ms(1_000)).await.unwrap();
    for (key, value) in [("n:1", "15"), ("n:2", "5"), ("n:3", "1")] {
        assert_eq!(world.value("n", key).as_deref(), Some(value), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_number_or_too_great_is_refused_and_left_alone() {
    let world = World::new();
    let plain = Class::new("p", "p:*").strategy(Strategy::WriteBack);
    let gate = world.gate([delta(), plain]).await;
    for key in ["n:1", "p:1", "through"] {
        gate.set(key, "text").await.unwrap();
        let error = gate.add(key, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(!error.to_string().contains("text"), "{error}");
        assert_eq!(text(&gate, key).await.as_deref(), Some("text"));
        gate.set(key, i64::MAX.to_string()).await.unwrap();
        let error = gate.add(key, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert_eq!(gate.add(key, -1).await.unwrap().0, i64::MAX - 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_addition_that_the_store_refuses_is_a_dead_letter_with_all_that_came_later() {
    let world = World::new();
    let gate = world.gate([delta()]).await;
    gate.add("n:1", 1).await.unwrap();
    gate.flush(ms(1_000)).await.unwrap();
    world.rows.outside("n", &Key::from("n:1"), Some(b"text"));
    gate.add("n:1", 2).await.unwrap();
    gate.flush(ms(1_000)).await.unwrap();
    let letter = gate.dead_letter(b"n:1").unwrap();
    assert_eq!(letter.reason, DeadLetterReason::Refused);
    gate.add("n:1", 3).await.unwrap();
    gate.flush(ms(1_000)).await.unwrap();
    assert!(gate.dead_letter(b"n:1").is_some());
    drop(gate);
    // After a start it is there, and once the row is a number again all of it is added.
    let gate = world.gate([delta()]).await;
    assert!(gate.dead_letter(b"n:1").is_some());
    world.rows.outside("n", &Key::from("n:1"), Some(b"40"));
    assert!(gate.retry_dead_letter(b"n:1"));
    gate.flush(ms(1_000)).await.unwrap();
    assert_eq!(world.value("n", "n:1").as_deref(), Some("45"));
}

#[tokio::test(start_paused = true)]
async fn an_addition_sent_without_an_answer_is_not_mixed_up_with_later_ones() {
    for done in [true, false] {
        let world = World::new();
        let store = Hooked::new(world.rows.clone());
        let builder = world.builder().store(store.clone()).class(delta());
        let gate = builder.open().await.unwrap();
        let lost = StoreError::unknown(None, "the answer was lost");
        store.settings().lost = Some((done, lost));
        gate.add("n:1", 1).await.unwrap();
        pass(ms(50)).await;
        gate.add("n:1", 10).await.unwrap();
        pass(ms(200)).await;
        add_outside(&world.rows, "n:1", 100);
        store.settings().lost = None;
        gate.flush(ms(60_000)).await.unwrap();
        assert_eq!(world.value("n", "n:1").as_deref(), Some("111"), "{done}");
        assert_eq!(text(&gate, "n:1").await.as_deref(), Some("111"), "{done}");
    }
}

/// A world of its own for each seed.
fn world(random: &Random) -> World {
    let rows = MemoryStore::new();
    let faults = StoreFaults::none(ms(1));
    World {
        store: FaultyStore::new(rows.clone(), faults, random.clone()),
        rows,
        disk: SimDisk::default(),
        random: random.clone(),
    }
}

/// Runs a life of a gate: into a crash at some moment, or until all is answered.
fn live<F>(world: &World, body: impl FnOnce(Gate) -> F)
where
    F: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    world.store.set_faults(StoreFaults::none(ms(1)));
    let ends = world.random.chance(0.3);
    let moment = Duration::from_micros(world.random.below(150_000));
    runtime.block_on(async {
        let class = delta().batch(1 + usize::try_from(world.random.below(4)).unwrap());
        let gate = world.builder().class(class).open().await.unwrap();
        let body = body(gate.clone());
        if ends {
            body.await;
        } else {
            tokio::select! { () = body => {}, () = pass(moment) => {} }
        }
    });
    drop(runtime);
    if !ends {
        world.disk.crash(&world.random);
    }
    // What was under way in the store is done or not.
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(world.store.crash());
}

fn trouble(random: &Random) -> StoreFaults {
    let mut faults = StoreFaults::none(ms(1 + random.below(8)));
    faults.unknown = [0.0, 0.2, 0.5][usize::try_from(random.below(3)).unwrap()];
    faults.unavailable = [0.0, 0.1, 0.4][usize::try_from(random.below(3)).unwrap()];
    faults
}

/// `TIDEGATE_SIM_SEEDS` of them, or the one of `TIDEGATE_SIM_SEED`.
fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    match number("TIDEGATE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIDEGATE_SIM_SEEDS").unwrap_or(300),
    }
}

/// Does what cannot be done while the store does not answer a load; nothing was done then.
async fn again<T, F>(operation: impl Fn() -> F) -> T
where
    F: Future<Output = tidegate_core::Result<T>>,
{
    loop {
        match operation().await {
            Ok(done) => return done,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
        pass(ms(1)).await;
    }
}

/// Many clients add, and others in SQL, through lost answers, late commits and crashes. In the end each row is
/// the sum of what was acknowledged and of what others added, and at most of what was not answered too.
#[test]
fn sums_are_exact_through_lost_answers_strangers_and_crashes() {
    const KEYS: [&str; 3] = ["n:0", "n:1", "n:2"];
    for seed in seeds() {
        let random = Random::new(seed);
        let world = world(&random);
        let sure = Arc::new(Mutex::new([0_i64; 3]));
        let perhaps = Arc::new(Mutex::new([0_i64; 3]));
        for _ in 0..1 + random.below(4) {
            live(&world, |gate| {
                world.store.set_faults(trouble(&random));
                let clients = (0..3).map(|_| {
                    let (gate, random, rows) = (gate.clone(), random.clone(), world.rows.clone());
                    let (sure, perhaps) = (Arc::clone(&sure), Arc::clone(&perhaps));
                    async move {
                        for _ in 0..random.below(25) {
                            let at = usize::try_from(random.below(3)).unwrap();
                            let by = 1 + random.below(9).cast_signed();
                            if random.chance(0.2) {
                                add_outside(&rows, KEYS[at], by);
                                sure.lock().unwrap()[at] += by;
                            } else {
                                perhaps.lock().unwrap()[at] += by;
                                again(|| gate.add(KEYS[at], by)).await;
                                perhaps.lock().unwrap()[at] -= by;
                                sure.lock().unwrap()[at] += by;
                            }
                            pass(Duration::from_micros(random.below(8_000))).await;
                        }
                    }
                });
                let clients: Vec<_> = clients.collect();
                async move {
                    futures_util::future::join_all(clients).await;
                }
            });
        }
        world.store.set_faults(StoreFaults::none(ms(1)));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let gate = world.gate([delta()]).await;
            let report = gate.drain(ms(60_000)).await.unwrap();
            assert!(report.is_complete(), "seed {seed}: {report:?}");
        });
        for (at, key) in KEYS.into_iter().enumerate() {
            let row = world.value("n", key);
            let row: i64 = row.map_or(0, |value| value.parse().unwrap());
            let (sure, perhaps) = (sure.lock().unwrap()[at], perhaps.lock().unwrap()[at]);
            assert!(
                (sure..=sure + perhaps).contains(&row),
                "seed {seed}: {key} holds {row}, for certain were added {sure}, perhaps {perhaps} more"
            );
        }
    }
}

/// One client of each key adds, puts, deletes and reads. Every answer is what a plain number would give, and
/// after a crash only the last operation is in doubt.
#[test]
fn a_counter_is_a_plain_number_through_lost_answers_and_crashes() {
    const KEYS: [&str; 3] = ["n:0", "n:1", "n:2"];
    for seed in seeds() {
        let random = Random::new(seed);
        let world = world(&random);
        // What each key is, and what it is if the last operation was done.
        let model = Arc::new(Mutex::new([(None::<i64>, None::<i64>); 3]));
        for _ in 0..1 + random.below(4) {
            live(&world, |gate| {
                world.store.set_faults(trouble(&random));
                let clients = KEYS.into_iter().enumerate().map(|(at, key)| {
                    let (gate, random) = (gate.clone(), random.clone());
                    let model = Arc::clone(&model);
                    async move {
                        let is = move |gate: Gate| async move {
                            let value = again(|| gate.get(key)).await;
                            value.map(|value| tidegate_core::integer(&value).unwrap())
                        };
                        // After a start: one or the other.
                        let found = is(gate.clone()).await;
                        let (before, after) = model.lock().unwrap()[at];
                        assert!(
                            found == before || found == after,
                            "seed {seed}: {key} is {found:?} after a start, not {before:?} or {after:?}"
                        );
                        model.lock().unwrap()[at] = (found, found);
                        for _ in 0..random.below(25) {
                            let by = random.below(19).cast_signed() - 9;
                            let (now, _) = model.lock().unwrap()[at];
                            let then = match random.below(8) {
                                0 => None,
                                1 => Some(by),
                                2 => now,
                                _ => Some(now.unwrap_or(0) + by),
                            };
                            let kind = (now, then);
                            model.lock().unwrap()[at] = kind;
                            match then {
                                None => {
                                    again(|| gate.delete(key)).await;
                                }
                                Some(value) if random.chance(0.3) => {
                                    again(|| gate.set(key, value.to_string())).await;
                                }
                                Some(value) => {
                                    let by = value - now.unwrap_or(0);
                                    let sum = again(|| gate.add(key, by)).await.0;
                                    assert_eq!(sum, value, "seed {seed}: {key}");
                                }
                            }
                            model.lock().unwrap()[at] = (then, then);
                            assert_eq!(is(gate.clone()).await, then, "seed {seed}: {key}");
                            pass(Duration::from_micros(random.below(8_000))).await;
                        }
                    }
                });
                let clients: Vec<_> = clients.collect();
                async move {
                    futures_util::future::join_all(clients).await;
                }
            });
        }
        world.store.set_faults(StoreFaults::none(ms(1)));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let gate = world.gate([delta()]).await;
            let report = gate.drain(ms(60_000)).await.unwrap();
            assert!(report.is_complete(), "seed {seed}: {report:?}");
        });
        for (at, key) in KEYS.into_iter().enumerate() {
            let row = world.value("n", key).map(|value| value.parse().unwrap());
            let (before, after) = model.lock().unwrap()[at];
            assert!(
                row == before || row == after,
                "seed {seed}: {key} holds {row:?}, not {before:?} or {after:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_was_away_for_long_adds_nothing_twice() {
    let world = World::new();
    let store = Hooked::new(world.rows.clone());
    let builder = world.builder().store(store.clone()).class(delta());
    let gate = builder.open().await.unwrap();
    // The store has it, and the process ends before it knows.
    let lost = StoreError::unknown(None, "the answer was lost");
    store.settings().lost = Some((true, lost));
    gate.add("n:1", 1).await.unwrap();
    gate.add("n:1", 4).await.unwrap();
    pass(ms(100)).await;
    assert_eq!(world.value("n", "n:1").as_deref(), Some("5"));
    drop(gate);
    let days = 30 * 24 * 3_600_000;
    let away = |linger: u64, later: u64| {
        let clock = SimClock::new(days + later, world.random.clone());
        let class = delta().linger(ms(linger));
        world.builder().clock(clock).class(class).open()
    };
    // The sweeper comes by many times before the flush does.
    let gate = away(600_000, 0).await.unwrap();
    assert_eq!(gate.add("n:1", 2).await.unwrap().0, 7);
    pass(ms(500_000)).await;
    assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
    assert_eq!(world.value("n", "n:1").as_deref(), Some("7"));
    assert_eq!(world.rows.marks("n"), 2);
    // What nobody needs any more is forgotten in the end.
    gate.drain(ms(10_000)).await.unwrap();
    let gate = away(20, days).await.unwrap();
    pass(ms(200_000)).await;
    assert_eq!(world.rows.marks("n"), 0);
    assert_eq!(text(&gate, "n:1").await.as_deref(), Some("7"));
}
