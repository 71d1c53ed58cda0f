//! Additions: to what is there, once, whatever happens to the row in between.

use std::time::Duration;

use bytes::Bytes;
use tidegate_core::port::{Guard, Outcome, StoreError, Timestamp, Write};
use tidegate_core::{Change, Version};

use super::case_table;
use super::scene::{Plus, Scene};

case_table!(
    an_addition_adds_to_what_is_there,
    an_addition_sent_again_is_once,
    additions_sent_together_count_once,
    an_addition_is_applied_over_what_others_wrote,
    marks_of_generations_are_apart,
    an_addition_keeps_the_end_of_life,
    what_cannot_be_added_to_is_refused_alone,
    additions_mix_with_other_writes,
    a_mark_is_forgotten_with_the_deletions,
    no_addition_is_lost_among_others,
);

fn add(scene: &Scene, key: &str, by: i64, guard: Guard) -> Write {
    Write {
        table: scene.table,
        key: key.into(),
        change: Change::Add { by },
        guard,
    }
}

/// The guard of a single addition.
fn once_at(version: Version) -> Guard {
    Guard::Once {
        since: version,
        version,
    }
}

fn number(scene: &Scene, key: &str, number: i64, guard: Guard) -> Write {
    let change = Change::Put {
        value: Bytes::from(number.to_string()),
        expires_at: None,
    };
    let write = add(scene, key, 0, guard);
    Write { change, ..write }
}

async fn added(scene: &Scene, write: Write) -> (Version, bool, i64) {
    match scene.one(write).await {
        Outcome::Added {
            version,
            existed,
            value,
            ..
        } => (version, existed, value),
        other => panic!("not added: {other:?}"),
    }
}

async fn expect(scene: &Scene, key: &str, number: i64) {
    let entry = scene.load(key).await.expect("the key is present");
    assert_eq!(entry.value, number.to_string(), "{key}");
}

async fn an_addition_adds_to_what_is_there(scene: Scene) {
    let once = |number| once_at(scene.version(number));
    let at = |number| scene.version(number);
    let write = add(&scene, "k", 5, once(1));
    assert_eq!(added(&scene, write).await, (at(1), false, 5));
    let write = add(&scene, "k", -7, once(2));
    assert_eq!(added(&scene, write).await, (at(2), true, -2));
    expect(&scene, "k", -2).await;
    assert_eq!(scene.load("k").await.unwrap().version, at(2));
    // Under the other guards too.
    let (version, _, value) = added(&scene, add(&scene, "k", 1, Guard::Always)).await;
    assert!(version > at(2) && value == -1);
    let unchanged = Guard::Unchanged(Some(version));
    let (version, _, value) = added(&scene, add(&scene, "k", 1, unchanged)).await;
    assert_eq!(value, 0);
    let newer = Guard::IfNewer(version.plus(1));
    assert_eq!(added(&scene, add(&scene, "k", 3, newer)).await.2, 3);
    // Over a deletion it begins at nought.
    scene.applied(scene.delete("k", Guard::Always)).await;
    let write = add(&scene, "k", 9, once(3));
    let (version, existed, value) = added(&scene, write).await;
    assert!(!existed && version >= at(3) && value == 9);
}

async fn an_addition_sent_again_is_once(scene: Scene) {
    let once = |number| once_at(scene.version(number));
    let first = add(&scene, "k", 5, once(3));
    added(&scene, first.clone()).await;
    for _ in 0..3 {
        assert_eq!(scene.one(first.clone()).await, Outcome::Superseded);
    }
    // An earlier one is taken for applied too: those of a key come one after the other.
    let earlier = add(&scene, "k", 5, once(2));
    assert_eq!(scene.one(earlier).await, Outcome::Superseded);
    expect(&scene, "k", 5).await;
    added(&scene, add(&scene, "k", 2, once(4))).await;
    assert_eq!(scene.one(first).await, Outcome::Superseded);
    expect(&scene, "k", 7).await;
    // A mark is of its key and table alone.
    added(&scene, add(&scene, "other", 1, once(3))).await;
    let elsewhere = Write {
        table: scene.other,
        ..add(&scene, "k", 1, once(3))
    };
    assert!(matches!(
        scene.one(elsewhere).await,
        Outcome::Added { value: 1, .. }
    ));
}

async fn additions_sent_together_count_once(scene: Scene) {
    let at = |number| scene.version(number);
    let from = |since, version| Guard::Once {
        since: at(since),
        version: at(version),
    };
    // Three in one, and the three again with two later ones.
    added(&scene, add(&scene, "k", 3, from(2, 6))).await;
    let more = scene.one(add(&scene, "k", 5, from(2, 10))).await;
    assert_eq!(more, Outcome::Conflict { newest: at(6) });
    expect(&scene, "k", 3).await;
    added(&scene, add(&scene, "k", 2, from(8, 10))).await;
    expect(&scene, "k", 5).await;
    // Any part of what is applied is applied.
    for guard in [from(2, 6), from(4, 4), from(2, 10), from(8, 10)] {
        let again = scene.one(add(&scene, "k", 1, guard)).await;
        assert_eq!(again, Outcome::Superseded, "{guard:?}");
    }
    // All five at once where none was applied, and then the three of them come late.
    added(&scene, add(&scene, "late", 5, from(2, 10))).await;
    let late = scene.one(add(&scene, "late", 3, from(2, 6))).await;
    assert_eq!(late, Outcome::Superseded);
    expect(&scene, "late", 5).await;
}

async fn an_addition_is_applied_over_what_others_wrote(scene: Scene) {
    let once = |number| once_at(scene.version(number));
    let first = add(&scene, "k", 5, once(1));
    added(&scene, first.clone()).await;
    // A version far beyond, as another process or a trigger makes it.
    let beyond = scene.version(1_000_001);
    let write = number(&scene, "k", 100, Guard::IfNewer(beyond));
    scene.applied(write).await;
    assert_eq!(scene.one(first).await, Outcome::Superseded);
    let (version, existed, value) = added(&scene, add(&scene, "k", 2, once(2))).await;
    assert!(version > beyond && existed && value == 102);
    assert_eq!(scene.load("k").await.unwrap().version, version);
    // Deleted by others, far beyond too.
    let beyond = scene.version(2_000_001);
    let gone = scene.delete("k", Guard::IfNewer(beyond));
    scene.applied(gone).await;
    let (version, existed, value) = added(&scene, add(&scene, "k", 3, once(3))).await;
    assert!(version > beyond && !existed && value == 3);
}

async fn marks_of_generations_are_apart(scene: Scene) {
    let older = Version::compose(scene.generation, 5);
    let newer = Version::compose(scene.generation + 1, 5);
    added(&scene, add(&scene, "k", 1, once_at(newer))).await;
    let (version, _, value) = added(&scene, add(&scene, "k", 1, once_at(older))).await;
    assert!(version > newer && value == 2);
    for version in [older, newer] {
        let again = add(&scene, "k", 1, once_at(version));
        assert_eq!(scene.one(again).await, Outcome::Superseded);
    }
    expect(&scene, "k", 2).await;
}

async fn an_addition_keeps_the_end_of_life(mut scene: Scene) {
    let once = |scene: &Scene, number| once_at(scene.version(number));
    let until = Some(scene.later(50));
    let Write { table, key, .. } = add(&scene, "k", 0, Guard::Always);
    let change = Change::Put {
        value: Bytes::from_static(b"3"),
        expires_at: until,
    };
    let write = Write {
        table,
        key,
        change,
        guard: Guard::Always,
    };
    scene.applied(write).await;
    let write = add(&scene, "k", 4, once(&scene, 1));
    match scene.one(write).await {
        Outcome::Added {
            value, expires_at, ..
        } => assert_eq!((value, expires_at), (7, until)),
        other => panic!("not added: {other:?}"),
    }
    assert_eq!(scene.load("k").await.unwrap().expires_at, until);
    // After its end it is absent, and begins at nought without an end.
    scene.now = scene.later(50);
    let (_, existed, value) = added(&scene, add(&scene, "k", 4, once(&scene, 2))).await;
    assert!(!existed && value == 4);
    assert_eq!(scene.load("k").await.unwrap().expires_at, None);
}

async fn what_cannot_be_added_to_is_refused_alone(scene: Scene) {
    let once = |number| once_at(scene.version(number));
    scene
        .applied(scene.put("text", "some", Guard::Always))
        .await;
    scene
        .applied(number(&scene, "most", i64::MAX, Guard::Always))
        .await;
    scene
        .applied(number(&scene, "least", i64::MIN, Guard::Always))
        .await;
    for (key, by) in [("text", 1), ("most", 1), ("least", -1)] {
        let writes = vec![
            add(&scene, "fine", 1, once(1)),
            add(&scene, key, by, once(1)),
        ];
        let error = scene.try_apply(writes).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Refused { item: Some(1), .. }),
            "{key}: {error:?}"
        );
        assert!(!error.to_string().contains("some"), "no value in an error");
    }
    scene.expect_absent("fine").await;
    // No mark is left: where it can be done it still can.
    added(&scene, add(&scene, "most", -1, once(1))).await;
    added(&scene, add(&scene, "fine", 1, once(1))).await;
    expect(&scene, "most", i64::MAX - 1).await;
}

async fn additions_mix_with_other_writes(scene: Scene) {
    let once = |number| once_at(scene.version(number));
    scene.applied(number(&scene, "b", 10, Guard::Always)).await;
    scene.applied(scene.put("d", "old", Guard::Always)).await;
    let writes = vec![
        add(&scene, "z", 1, once(1)),
        scene.put("a", "new", Guard::IfNewer(scene.version(2))),
        add(&scene, "b", 2, once(3)),
        scene.delete("d", Guard::Always),
        Write {
            table: scene.other,
            ..add(&scene, "b", 7, once(4))
        },
        scene.put("c", "new", Guard::Always),
    ];
    let outcomes = scene.apply(writes.clone()).await;
    let values: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Added { value, .. } => Some(*value),
            Outcome::Applied { .. } => None,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(values, [Some(1), None, Some(12), None, Some(7), None]);
    let again = scene.apply(writes).await;
    assert_eq!(again[0], Outcome::Superseded);
    assert_eq!(again[2], Outcome::Superseded);
    assert_eq!(again[4], Outcome::Superseded);
    expect(&scene, "b", 12).await;
}

async fn a_mark_is_forgotten_with_the_deletions(mut scene: Scene) {
    let write = add(&scene, "k", 1, once_at(scene.version(1)));
    added(&scene, write.clone()).await;
    let remember = Duration::from_secs(100);
    scene.now = scene.later(99_000);
    let sweep = |now: Timestamp| scene.store.sweep(scene.table, now, remember, 10);
    assert_eq!(sweep(scene.now).await.unwrap().forgotten, 0);
    assert_eq!(scene.one(write.clone()).await, Outcome::Superseded);
    let later = scene.later(3_000);
    assert_eq!(sweep(later).await.unwrap().forgotten, 1);
    expect(&scene, "k", 1).await;
}

/// Many tasks add to the same keys while others write them directly: every addition counts exactly once, also
/// those that are sent twice.
async fn no_addition_is_lost_among_others(scene: Scene) {
    const TASKS: u64 = 6;
    const ROUNDS: u64 = 12;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let mut scene = scene.clone();
        if let Some((again, table)) = scene.again.clone()
            && task % 2 == 1
        {
            (scene.store, scene.table) = (again, table);
        }
        tasks.spawn(async move {
            for round in 0..ROUNDS {
                // A generation of its own, as every process has one.
                let version = Version::compose(scene.generation + 1 + task, 2 * round + 2);
                let writes: Vec<Write> = ["x", "y", "z"]
                    .map(|key| add(&scene, key, 1, once_at(version)))
                    .into();
                for _ in 0..2 {
                    let mut tries = 0;
                    while let Err(error) = scene.try_apply(writes.clone()).await {
                        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
                        tries += 1;
                        assert!(tries < 1000, "put off a thousand times");
                        tokio::task::yield_now().await;
                    }
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    for key in ["x", "y", "z"] {
        expect(&scene, key, (TASKS * ROUNDS).cast_signed()).await;
    }
}
