//! A row is absent from the moment its life ends, and is swept later with its version remembered.

use std::time::Duration;

use tidegate_core::Version;
use tidegate_core::port::{Guard, Outcome, Swept};

use super::case_table;
use super::scene::Scene;

case_table!(
    an_expired_row_is_absent_at_once,
    an_expired_row_did_not_exist,
    an_expired_row_still_has_its_version,
    the_life_of_a_row_is_kept_to_the_millisecond,
    a_sweep_removes_what_expired_and_no_more,
    a_swept_row_cannot_come_back,
    what_is_remembered_is_forgotten_in_time,
);

const FOR_EVER: Duration = Duration::from_secs(1 << 40);

async fn an_expired_row_is_absent_at_once(mut scene: Scene) {
    let until = Some(scene.later(1));
    let writes = vec![
        scene.put_until("k", "x", until, Guard::Always),
        scene.put_until("born-dead", "x", Some(scene.now), Guard::Always),
        scene.put("z", "x", Guard::Always),
    ];
    scene.apply(writes).await;
    assert!(scene.load("k").await.is_some());
    scene.expect_absent("born-dead").await;
    scene.now = scene.later(1);
    scene.expect_absent("k").await;
    let page = scene
        .store
        .scan(scene.table, None, 10, scene.now)
        .await
        .unwrap();
    let page: Vec<_> = page.into_iter().map(|row| row.0).collect();
    assert_eq!(page, ["z".into()]);
    assert_eq!(scene.store.count(scene.table, scene.now).await.unwrap(), 1);
}

async fn an_expired_row_did_not_exist(mut scene: Scene) {
    let until = Some(scene.later(10));
    let keys = ["a", "b", "c", "d", "e", "f"];
    let writes = keys.map(|key| scene.put_until(key, "old", until, Guard::Always));
    let outcomes = scene.apply(writes.into()).await;
    let Outcome::Applied { version, .. } = outcomes[5] else {
        panic!("{outcomes:?}");
    };
    scene.now = scene.later(10);
    let at = Guard::IfNewer(scene.version(1));
    let writes = vec![
        scene.put("a", "new", Guard::Always),
        scene.delete("b", Guard::Always),
        scene.put("c", "new", at),
        scene.delete("d", at),
        scene.put("e", "new", Guard::Unchanged(None)),
        scene.put("f", "no", Guard::Unchanged(Some(version))),
    ];
    let outcomes = scene.apply(writes).await;
    for outcome in &outcomes[..5] {
        assert!(
            matches!(outcome, Outcome::Applied { existed: false, .. }),
            "{outcomes:?}"
        );
    }
    assert_eq!(outcomes[5], Outcome::Changed);
    for (key, there) in keys
        .into_iter()
        .zip([true, false, true, false, true, false])
    {
        let entry = scene.load(key).await;
        assert_eq!(
            entry.map(|e| e.value),
            there.then(|| scene.value("new")),
            "{key}"
        );
    }
    // Each kind alone takes its own way through a store.
    for guard in [Guard::Always, at, Guard::Unchanged(None)] {
        let key = format!("alone {guard:?}");
        scene
            .applied(scene.put_until(&key, "old", Some(scene.now), Guard::Always))
            .await;
        let guard = match guard {
            Guard::IfNewer(_) => Guard::IfNewer(scene.version(99)),
            other => other,
        };
        let (version, existed) = scene.applied(scene.put(&key, "new", guard)).await;
        assert!(!existed, "{key}");
        scene.expect(&key, "new", version).await;
    }
}

async fn an_expired_row_still_has_its_version(mut scene: Scene) {
    let until = Some(scene.later(10));
    let at = |number| Guard::IfNewer(scene.version(number));
    scene.applied(scene.put_until("k", "x", until, at(5))).await;
    let late = scene.put("k", "late", at(4));
    let newer = scene.put("k", "newer", at(6));
    scene.now = scene.later(10);
    assert_eq!(scene.one(late).await, Outcome::Superseded);
    scene.expect_absent("k").await;
    let (_, existed) = scene.applied(newer).await;
    assert!(!existed);
}

async fn the_life_of_a_row_is_kept_to_the_millisecond(scene: Scene) {
    for millis in [1, 999, 1000, 86_400_000 * 365 * 50 + 7] {
        let until = Some(scene.later(millis));
        scene
            .applied(scene.put_until("k", "x", until, Guard::Always))
            .await;
        assert_eq!(scene.load("k").await.unwrap().expires_at, until);
        let page = scene
            .store
            .scan(scene.table, None, 1, scene.now)
            .await
            .unwrap();
        assert_eq!(page[0].1.expires_at, until);
    }
    scene.applied(scene.put("k", "x", Guard::Always)).await;
    assert_eq!(scene.load("k").await.unwrap().expires_at, None);
}

async fn a_sweep_removes_what_expired_and_no_more(mut scene: Scene) {
    let mut writes: Vec<_> = (0..25)
        .map(|i| {
            let until = Some(scene.later(10 + i % 2));
            scene.put_until(&format!("dead{i}"), "x", until, Guard::Always)
        })
        .collect();
    writes.push(scene.put("alive", "x", Guard::Always));
    writes.push(scene.put_until("later", "x", Some(scene.later(500)), Guard::Always));
    scene.apply(writes).await;
    let sweep = |scene: &Scene, limit| {
        let (store, table, now) = (scene.store.clone(), scene.table, scene.now);
        async move { store.sweep(table, now, FOR_EVER, limit).await.unwrap() }
    };
    assert_eq!(sweep(&scene, 100).await, Swept::default());
    scene.now = scene.later(11);
    let mut expired = Vec::new();
    for _ in 0..4 {
        let swept = sweep(&scene, 10).await;
        assert_eq!(swept.forgotten, 0);
        expired.push(swept.expired);
    }
    assert_eq!(expired, [10, 10, 5, 0]);
    assert!(scene.load("alive").await.is_some());
    assert!(scene.load("later").await.is_some());
    assert_eq!(scene.store.count(scene.table, scene.now).await.unwrap(), 2);
}

async fn a_swept_row_cannot_come_back(mut scene: Scene) {
    let at = |number| Guard::IfNewer(scene.version(number));
    let late = [scene.put("k", "late", at(5)), scene.put("k", "late", at(4))];
    let newer = scene.put("k", "new", at(6));
    scene
        .applied(scene.put_until("k", "x", Some(scene.later(1)), at(5)))
        .await;
    scene.now = scene.later(1);
    let swept = scene
        .store
        .sweep(scene.table, scene.now, FOR_EVER, 10)
        .await;
    assert_eq!(swept.unwrap().expired, 1);
    for write in late {
        assert_eq!(scene.one(write).await, Outcome::Superseded);
    }
    let (_, existed) = scene.applied(newer).await;
    assert!(!existed);
}

async fn what_is_remembered_is_forgotten_in_time(mut scene: Scene) {
    let at = |number| Guard::IfNewer(scene.version(number));
    let deletes: Vec<_> = (0..5)
        .map(|i| scene.delete(&format!("k{i}"), at(9)))
        .collect();
    let late = scene.put("k0", "late", at(1));
    scene.apply(deletes).await;
    let remember = Duration::from_millis(100);
    let sweep = |scene: &Scene, limit| {
        let (store, table, now) = (scene.store.clone(), scene.table, scene.now);
        async move {
            store
                .sweep(table, now, remember, limit)
                .await
                .unwrap()
                .forgotten
        }
    };
    scene.now = scene.later(100);
    assert_eq!(sweep(&scene, 10).await, 0, "not older than that yet");
    assert_eq!(scene.one(late.clone()).await, Outcome::Superseded);
    scene.now = scene.later(1);
    assert_eq!(sweep(&scene, 3).await, 3);
    assert_eq!(sweep(&scene, 3).await, 2);
    assert_eq!(sweep(&scene, 3).await, 0);
    scene.applied(late).await;
    assert!(scene.load("k0").await.unwrap().version > Version::NONE);
}
