//! Versions rise in commit order, also after a delete, a new generation and a version that came from outside.

use tidegate_core::port::{Guard, Outcome, StoreError, Write};
use tidegate_core::{GENERATION_MAX, Version};

use super::case_table;
use super::scene::Scene;

case_table!(
    versions_rise_through_deletes,
    a_generation_is_greater_than_all_before,
    the_store_issues_above_a_version_brought_to_it,
    generations_end,
);

async fn versions_rise_through_deletes(scene: Scene) {
    let mut last = Version::NONE;
    for round in 0..20 {
        let write = match round % 4 {
            3 => scene.delete("k", Guard::Always),
            _ => scene.put("k", &round.to_string(), Guard::Always),
        };
        let (version, existed) = scene.applied(write).await;
        assert!(version > last, "{version} after {last} in round {round}");
        assert_eq!(existed, round % 4 != 0, "in round {round}");
        last = version;
    }
}

async fn a_generation_is_greater_than_all_before(scene: Scene) {
    let (before, _) = scene.applied(scene.put("k", "x", Guard::Always)).await;
    assert!(before >= Version::compose(scene.generation, 0));
    let next = scene.store.open_generation(0).await.unwrap();
    assert!(next > scene.generation);
    let (after, _) = scene.applied(scene.put("k", "x", Guard::Always)).await;
    assert!(after > before && after >= Version::compose(next, 0));

    let far = scene.store.open_generation(next + 7).await.unwrap();
    assert!(far >= next + 7);
    let (last, _) = scene.applied(scene.put("new", "x", Guard::Always)).await;
    assert!(last >= Version::compose(far, 0));

    let Some((again, table)) = &scene.again else {
        return;
    };
    let another = again.open_generation(0).await.unwrap();
    assert!(another > far);
    let scene = Scene {
        store: again.clone(),
        table: *table,
        ..scene.clone()
    };
    let (version, existed) = scene.applied(scene.put("k", "y", Guard::Always)).await;
    assert!(existed && version >= Version::compose(another, 0));
}

async fn the_store_issues_above_a_version_brought_to_it(scene: Scene) {
    let far = scene.version(1_000_000);
    scene
        .applied(scene.put("k", "flushed", Guard::IfNewer(far)))
        .await;
    let (version, existed) = scene.applied(scene.put("k", "direct", Guard::Always)).await;
    assert!(existed && version > far);
    let (deleted, _) = scene.applied(scene.delete("k", Guard::Always)).await;
    assert!(deleted > version);
    let (again, existed) = scene.applied(scene.delete("k", Guard::Always)).await;
    assert!(
        !existed && again > deleted,
        "a delete of what is deleted moves on"
    );
    let (version, existed) = scene.applied(scene.put("k", "new", Guard::Always)).await;
    assert!(!existed && version > again);

    let far = scene.version(2_000_000);
    scene
        .applied(scene.delete("gone", Guard::IfNewer(far)))
        .await;
    let writes = vec![
        scene.put("gone", "back", Guard::Unchanged(None)),
        scene.put("fresh", "x", Guard::Always),
    ];
    scene.apply(writes).await;
    let version = scene.load("gone").await.unwrap().version;
    assert!(version > far);
    let late = scene.put("gone", "late", Guard::IfNewer(far));
    assert_eq!(scene.one(late).await, Outcome::Superseded);
}

async fn generations_end(scene: Scene) {
    let error = scene
        .store
        .open_generation(GENERATION_MAX + 1)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Configuration { .. }), "{error}");
    let error = scene.store.open_generation(u64::MAX).await.unwrap_err();
    assert!(matches!(error, StoreError::Configuration { .. }), "{error}");
    // The last version there is can be held, and nothing can be issued above it.
    let last = Version::from_raw(i64::MAX.unsigned_abs());
    scene
        .applied(scene.put("k", "last", Guard::IfNewer(last)))
        .await;
    let write: Write = scene.put("k", "more", Guard::Always);
    let error = scene.try_apply(vec![write]).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    scene.expect("k", "last", last).await;
    scene
        .applied(scene.put("another", "x", Guard::Always))
        .await;
}
