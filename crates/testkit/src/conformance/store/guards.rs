//! When a write applies, and what is remembered of a deleted key.

use tidegate_core::port::{Guard, Outcome, Write};
use tidegate_core::{Key, Version};

use super::case_table;
use super::scene::{Plus, Scene};

case_table!(
    only_a_newer_version_is_taken,
    a_late_put_cannot_bring_a_key_back,
    a_direct_delete_is_remembered_too,
    a_delete_of_nothing_is_remembered_only_if_guarded,
    another_opening_remembers_as_well,
    the_same_flush_twice_is_once,
    an_unchanged_row_can_be_changed,
    a_changed_row_is_left_alone,
    kinds_and_tables_mix_in_a_batch,
);

async fn only_a_newer_version_is_taken(scene: Scene) {
    let at = |number| Guard::IfNewer(scene.version(number));
    let applied = |number, existed| Outcome::Applied {
        version: scene.version(number),
        existed,
    };
    assert_eq!(
        scene.one(scene.put("k", "five", at(5))).await,
        applied(5, false)
    );
    assert_eq!(
        scene.one(scene.put("k", "same", at(5))).await,
        Outcome::Superseded
    );
    assert_eq!(
        scene.one(scene.put("k", "older", at(4))).await,
        Outcome::Superseded
    );
    scene.expect("k", "five", scene.version(5)).await;
    assert_eq!(
        scene.one(scene.put("k", "six", at(6))).await,
        applied(6, true)
    );
    scene.expect("k", "six", scene.version(6)).await;
    assert_eq!(
        scene.one(scene.delete("k", at(6))).await,
        Outcome::Superseded
    );
    scene.expect("k", "six", scene.version(6)).await;
    assert_eq!(scene.one(scene.delete("k", at(7))).await, applied(7, true));
    scene.expect_absent("k").await;
    // A version of nothing is newer than nothing.
    let nothing = Guard::IfNewer(Version::NONE);
    assert_eq!(
        scene.one(scene.put("new", "x", nothing)).await,
        Outcome::Superseded
    );
    scene.expect_absent("new").await;
}

async fn a_late_put_cannot_bring_a_key_back(scene: Scene) {
    let at = |number| Guard::IfNewer(scene.version(number));
    scene.applied(scene.put("k", "one", at(1))).await;
    scene.applied(scene.delete("k", at(5))).await;
    for number in [2, 5] {
        let late = scene.put("k", "late", at(number));
        assert_eq!(scene.one(late).await, Outcome::Superseded);
        let late = scene.delete("k", at(number));
        assert_eq!(scene.one(late).await, Outcome::Superseded);
        scene.expect_absent("k").await;
    }
    let (_, existed) = scene.applied(scene.put("k", "six", at(6))).await;
    assert!(!existed);
    scene.expect("k", "six", scene.version(6)).await;
    // In a batch with others, only the late one is left out.
    scene.applied(scene.delete("k", at(7))).await;
    let writes = vec![
        scene.put("a", "x", at(6)),
        scene.put("k", "late", at(6)),
        scene.put("z", "x", at(6)),
    ];
    let outcomes = scene.apply(writes).await;
    assert!(matches!(outcomes[0], Outcome::Applied { .. }));
    assert_eq!(outcomes[1], Outcome::Superseded);
    assert!(matches!(outcomes[2], Outcome::Applied { .. }));
    scene.expect("z", "x", scene.version(6)).await;
}

async fn a_direct_delete_is_remembered_too(scene: Scene) {
    let (put, _) = scene.applied(scene.put("k", "x", Guard::Always)).await;
    let (deleted, _) = scene.applied(scene.delete("k", Guard::Always)).await;
    for version in [put, deleted] {
        let late = scene.put("k", "late", Guard::IfNewer(version));
        assert_eq!(scene.one(late).await, Outcome::Superseded);
    }
    let newer = Guard::IfNewer(deleted.plus(1));
    scene.applied(scene.put("k", "new", newer)).await;

    let (put, _) = scene.applied(scene.put("u", "x", Guard::Always)).await;
    let write = scene.delete("u", Guard::Unchanged(Some(put)));
    let (deleted, _) = scene.applied(write).await;
    let late = scene.put("u", "late", Guard::IfNewer(deleted));
    assert_eq!(scene.one(late).await, Outcome::Superseded);
}

async fn a_delete_of_nothing_is_remembered_only_if_guarded(scene: Scene) {
    let at = |number| Guard::IfNewer(scene.version(number));
    let (_, existed) = scene.applied(scene.delete("guarded", at(5))).await;
    assert!(!existed);
    let late = scene.put("guarded", "late", at(4));
    assert_eq!(scene.one(late).await, Outcome::Superseded);

    let (_, existed) = scene
        .applied(scene.delete("unchanged", Guard::Unchanged(None)))
        .await;
    assert!(!existed);
    let oldest = Guard::IfNewer(Version::from_raw(1));
    let late = scene.put("unchanged", "late", oldest);
    assert_eq!(scene.one(late).await, Outcome::Superseded);

    // A flood of deletes of keys that never were leaves nothing behind.
    let (version, existed) = scene.applied(scene.delete("direct", Guard::Always)).await;
    assert!(!existed);
    let oldest = Guard::IfNewer(version.minus(1));
    scene.applied(scene.put("direct", "x", oldest)).await;
}

async fn another_opening_remembers_as_well(scene: Scene) {
    let Some((again, table)) = scene.again.clone() else {
        return;
    };
    let at = |number| Guard::IfNewer(scene.version(number));
    scene.applied(scene.put("kept", "x", at(3))).await;
    scene.applied(scene.delete("k", at(5))).await;
    let there = Scene {
        store: again,
        table,
        ..scene.clone()
    };
    there.expect("kept", "x", scene.version(3)).await;
    let late = there.put("k", "late", at(4));
    assert_eq!(there.one(late).await, Outcome::Superseded);
    there.applied(there.put("k", "new", at(6))).await;
    scene.expect("k", "new", scene.version(6)).await;
}

async fn the_same_flush_twice_is_once(scene: Scene) {
    let mut writes = Vec::new();
    for i in 0..50 {
        let guard = Guard::IfNewer(scene.version(i + 1));
        let key = format!("k{:02}", i * 17 % 50);
        writes.push(match i % 5 {
            4 => scene.delete(&key, guard),
            _ => scene.put(&key, &i.to_string(), guard),
        });
    }
    let first = scene.apply(writes.clone()).await;
    assert!(
        first
            .iter()
            .all(|o| matches!(o, Outcome::Applied { existed: false, .. }))
    );
    let page = |scene: &Scene| {
        let (store, table, now) = (scene.store.clone(), scene.table, scene.now);
        async move { store.scan(table, None, 100, now).await.unwrap() }
    };
    let before = page(&scene).await;
    assert_eq!(before.len(), 40);
    assert_eq!(scene.apply(writes).await, [Outcome::Superseded; 50]);
    assert_eq!(page(&scene).await, before);
}

async fn an_unchanged_row_can_be_changed(scene: Scene) {
    let (first, existed) = scene
        .applied(scene.put("k", "1", Guard::Unchanged(None)))
        .await;
    assert!(!existed);
    let guard = Guard::Unchanged(Some(first));
    let (second, existed) = scene.applied(scene.put("k", "2", guard)).await;
    assert!(existed && second > first);
    scene.expect("k", "2", second).await;
    let guard = Guard::Unchanged(Some(second));
    let (third, existed) = scene.applied(scene.delete("k", guard)).await;
    assert!(existed && third > second);
    scene.expect_absent("k").await;
    let (fourth, existed) = scene
        .applied(scene.put("k", "4", Guard::Unchanged(None)))
        .await;
    assert!(!existed && fourth > third);
}

async fn a_changed_row_is_left_alone(scene: Scene) {
    let (first, _) = scene.applied(scene.put("k", "1", Guard::Always)).await;
    let (second, _) = scene.applied(scene.put("k", "2", Guard::Always)).await;
    for guard in [Some(first), None, Some(second.plus(1))].map(Guard::Unchanged) {
        for write in [scene.put("k", "no", guard), scene.delete("k", guard)] {
            assert_eq!(scene.one(write).await, Outcome::Changed, "{guard:?}");
        }
    }
    scene.expect("k", "2", second).await;
    let gone = Guard::Unchanged(Some(second));
    for write in [scene.put("none", "no", gone), scene.delete("none", gone)] {
        assert_eq!(scene.one(write).await, Outcome::Changed);
    }
    scene.expect_absent("none").await;
    // Nothing is remembered of a delete that did not apply.
    let write = scene.put("none", "x", Guard::IfNewer(Version::from_raw(1)));
    scene.applied(write).await;
}

async fn kinds_and_tables_mix_in_a_batch(scene: Scene) {
    let setup = ["a", "b", "c", "d", "e", "f"].map(|key| scene.put(key, "old", Guard::Always));
    let outcomes = scene.apply(setup.into()).await;
    let version = |i: usize| match outcomes[i] {
        Outcome::Applied { version, .. } => version,
        other => panic!("{other:?}"),
    };
    let at = |number| Guard::IfNewer(scene.version(number));
    let elsewhere = |write| Write {
        table: scene.other,
        ..write
    };
    let writes = vec![
        scene.put("z", "new", Guard::Always),
        scene.delete("c", Guard::Unchanged(Some(version(2)))),
        elsewhere(scene.put("a", "other", at(3))),
        scene.delete("b", Guard::Always),
        scene.put("f", "no", Guard::Unchanged(None)),
        scene.put("a", "direct", Guard::Always),
        elsewhere(scene.delete("nothing", at(9))),
        scene.put("d", "flushed", at(4)),
        scene.put("e", "no", Guard::IfNewer(version(4).minus(1))),
        elsewhere(scene.put("y", "other", Guard::Always)),
        scene.delete("x", at(5)),
        scene.put("w", "new", Guard::Unchanged(None)),
    ];
    let outcomes = scene.apply(writes).await;
    let kinds: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Applied { existed: true, .. } => "over",
            Outcome::Applied { existed: false, .. } => "new",
            Outcome::Superseded => "superseded",
            Outcome::Changed => "changed",
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = "new over new over changed over new over superseded new new new";
    assert_eq!(kinds.join(" "), expected);
    let keys = ["a", "b", "c", "d", "e", "f", "w", "x", "z"];
    let mut asked: Vec<_> = keys.map(|key| (scene.table, Key::from(key))).into();
    asked.extend(["a", "nothing", "y"].map(|key| (scene.other, Key::from(key))));
    let found = scene.store.load(&asked, scene.now).await.unwrap();
    let found: Vec<_> = found
        .into_iter()
        .map(|entry| entry.map(|entry| entry.value))
        .collect();
    let expected = [
        "direct", "", "", "flushed", "old", "old", "new", "", "new", "other", "", "other",
    ];
    let expected = expected.map(|text| (!text.is_empty()).then(|| scene.value(text)));
    assert_eq!(found, expected);
}
