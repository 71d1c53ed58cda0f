//! A flush applies over what it was made over, and tells what it found instead.

use tidegate_core::Version;
use tidegate_core::port::{Guard, Outcome, Write};

use super::case_table;
use super::scene::{Plus, Scene};

case_table!(
    a_flush_over_its_base_applies,
    a_flush_over_anything_else_tells_what_is_there,
    a_flush_over_an_absent_key_finds_it_absent,
    a_blind_flush_goes_over_what_is_older,
    a_flush_sent_again_is_once,
    flushes_of_all_kinds_mix_in_a_batch,
);

fn over(base: Version, version: Version) -> Guard {
    let base = Some(base);
    Guard::Flush { base, version }
}

fn blind(version: Version) -> Guard {
    Guard::Flush {
        base: None,
        version,
    }
}

fn conflict(newest: Version) -> Outcome {
    Outcome::Conflict { newest }
}

async fn a_flush_over_its_base_applies(scene: Scene) {
    let at = |number| scene.version(number);
    let write = scene.put("k", "one", over(Version::NONE, at(1)));
    assert_eq!(scene.applied(write).await, (at(1), false));
    let write = scene.put("k", "three", over(at(1), at(3)));
    assert_eq!(scene.applied(write).await, (at(3), true));
    scene.expect("k", "three", at(3)).await;
    let write = scene.delete("k", over(at(3), at(5)));
    assert_eq!(scene.applied(write).await, (at(5), true));
    scene.expect_absent("k").await;
    // Also over a deletion that is remembered.
    let write = scene.put("k", "six", over(at(5), at(6)));
    assert_eq!(scene.applied(write).await, (at(6), false));
    scene.expect("k", "six", at(6)).await;
    // And over what the store numbered.
    let (direct, _) = scene.applied(scene.put("d", "x", Guard::Always)).await;
    let write = scene.put("d", "y", over(direct, direct.plus(2)));
    assert_eq!(scene.applied(write).await, (direct.plus(2), true));
}

async fn a_flush_over_anything_else_tells_what_is_there(scene: Scene) {
    let at = |number| scene.version(number);
    scene.applied(scene.put("k", "four", blind(at(4)))).await;
    for guard in [
        // Older, newer, and never there.
        over(at(3), at(6)),
        over(at(5), at(6)),
        over(Version::NONE, at(6)),
        // The base is right, but the write is older than it.
        over(at(4), at(2)),
        // Not looked at, and older.
        blind(at(3)),
    ] {
        for write in [scene.put("k", "no", guard), scene.delete("k", guard)] {
            assert_eq!(scene.one(write).await, conflict(at(4)), "{guard:?}");
        }
    }
    scene.expect("k", "four", at(4)).await;
    let gone = over(at(3), at(6));
    for write in [scene.put("none", "no", gone), scene.delete("none", gone)] {
        assert_eq!(scene.one(write).await, conflict(Version::NONE));
    }
    scene.expect_absent("none").await;
    scene.applied(scene.delete("k", over(at(4), at(7)))).await;
    let write = scene.put("k", "no", over(at(4), at(8)));
    assert_eq!(scene.one(write).await, conflict(at(7)));
    // Nothing is remembered of a flush that did not apply.
    let oldest = Guard::IfNewer(Version::from_raw(1));
    scene.applied(scene.put("none", "x", oldest)).await;
}

async fn a_flush_over_an_absent_key_finds_it_absent(mut scene: Scene) {
    let at = |scene: &Scene, number| scene.version(number);
    let absent = |version| over(Version::NONE, version);
    // Deleted before, by a version older than this one: absent all the same.
    let five = at(&scene, 5);
    scene.applied(scene.delete("k", blind(five))).await;
    let late = scene.put("k", "late", absent(at(&scene, 4)));
    assert_eq!(scene.one(late).await, conflict(five));
    let write = scene.put("k", "six", absent(at(&scene, 6)));
    assert_eq!(scene.applied(write).await, (at(&scene, 6), false));
    // An expired row is absent, and still has its version.
    let until = Some(scene.later(10));
    let ten = at(&scene, 10);
    let write = scene.put_until("e", "x", until, blind(ten));
    scene.applied(write).await;
    scene.now = scene.later(10);
    let late = scene.put("e", "late", absent(at(&scene, 9)));
    assert_eq!(scene.one(late).await, conflict(ten));
    let write = scene.put("e", "new", absent(at(&scene, 11)));
    assert_eq!(scene.applied(write).await, (at(&scene, 11), false));
    scene.expect("e", "new", at(&scene, 11)).await;
}

async fn a_blind_flush_goes_over_what_is_older(scene: Scene) {
    let at = |number| scene.version(number);
    assert_eq!(
        scene.applied(scene.put("k", "two", blind(at(2)))).await,
        (at(2), false)
    );
    assert_eq!(
        scene.applied(scene.put("k", "four", blind(at(4)))).await,
        (at(4), true)
    );
    let late = scene.put("k", "three", blind(at(3)));
    assert_eq!(scene.one(late).await, conflict(at(4)));
    scene.applied(scene.delete("k", blind(at(5)))).await;
    let late = scene.put("k", "late", blind(at(4)));
    assert_eq!(scene.one(late).await, conflict(at(5)));
    scene.expect_absent("k").await;
}

async fn a_flush_sent_again_is_once(scene: Scene) {
    let at = |number| scene.version(number);
    for (key, first) in [("a", over(Version::NONE, at(1))), ("b", blind(at(1)))] {
        scene.applied(scene.put(key, "one", first)).await;
        let again = scene.put(key, "other", first);
        assert_eq!(scene.one(again).await, Outcome::Superseded);
        scene.expect(key, "one", at(1)).await;
        let gone = over(at(1), at(2));
        scene.applied(scene.delete(key, gone)).await;
        let again = scene.delete(key, gone);
        assert_eq!(scene.one(again).await, Outcome::Superseded);
        scene.expect_absent(key).await;
    }
}

async fn flushes_of_all_kinds_mix_in_a_batch(scene: Scene) {
    let at = |number| scene.version(number);
    let setup = ["a", "b", "c", "d", "e"].map(|key| scene.put(key, "old", blind(at(1))));
    scene.apply(setup.into()).await;
    let elsewhere = |write| Write {
        table: scene.other,
        ..write
    };
    let writes = vec![
        scene.put("new", "x", over(Version::NONE, at(9))),
        scene.put("a", "new", over(at(1), at(10))),
        scene.put("b", "no", over(at(2), at(11))),
        elsewhere(scene.put("a", "new", blind(at(12)))),
        scene.put("c", "new", blind(at(13))),
        scene.delete("d", over(at(1), at(14))),
        scene.put("e", "no", blind(at(1))),
        scene.put("gone", "no", over(at(5), at(15))),
    ];
    let applied = |number, existed| Outcome::Applied {
        version: at(number),
        existed,
    };
    let expected = vec![
        applied(9, false),
        applied(10, true),
        conflict(at(1)),
        applied(12, false),
        applied(13, true),
        applied(14, true),
        Outcome::Superseded,
        conflict(Version::NONE),
    ];
    assert_eq!(scene.apply(writes).await, expected);
    scene.expect("a", "new", at(10)).await;
    scene.expect("b", "old", at(1)).await;
    scene.expect("e", "old", at(1)).await;
    scene.expect_absent("d").await;
    scene.expect_absent("gone").await;
}
