//! Writes out of a journal that come back.

use tidegate_core::Version;
use tidegate_core::port::{Ended, Flushed, Got, Held, Replay, SharedError, SharedKey};

use super::stage::{NOW, Stage, clean, held, later, life, value, version};

fn replay(key: &SharedKey, version: Version, base: Option<Version>) -> Replay {
    Replay {
        key: key.clone(),
        held: Held {
            version,
            value: Some(value("replayed")),
        },
        base,
        now: later(3),
    }
}

pub(super) async fn a_replay_is_dirty_again(stage: Stage) {
    let [absent, leased, gone] = stage.keys();
    stage.lease(&leased, 1).await;
    for key in [&absent, &leased] {
        let again = replay(key, version(9), Some(version(5)));
        assert!(stage.replay(&again).await.unwrap());
        stage.expect_dirty(key, version(9), "replayed").await;
        let claimed = stage.claim(key, NOW).await;
        assert_eq!((claimed.base, claimed.since), (Some(version(5)), later(3)));
        assert!(!stage.replay(&again).await.unwrap(), "once is enough");
        assert!(stage.settle(key, version(9), Flushed::Stored(life())).await);
        assert!(!stage.replay(&again).await.unwrap(), "the store has it");
    }
    assert!(!stage.fill(&leased, 1, &held(10, "ten")).await);
    let mut deleted = replay(&gone, version(9), None);
    deleted.held.value = None;
    assert!(stage.replay(&deleted).await.unwrap());
    assert_eq!(stage.get(&gone).await, Got::Dirty(deleted.held));
}

pub(super) async fn a_replay_does_not_go_back(stage: Stage) {
    let [filled, dirty, parked] = stage.keys();
    stage.make_clean(&filled, &held(9, "nine")).await;
    let written = stage.put(&dirty, "dirty").await;
    let refused = stage.park(&parked, "parked").await;
    for (key, version) in [(&filled, version(9)), (&dirty, written), (&parked, refused)] {
        let before = stage.get(key).await;
        for older in [0, 2] {
            let older = Version::from_raw(version.raw() - older);
            assert!(!stage.replay(&replay(key, older, None)).await.unwrap());
        }
        assert_eq!(stage.get(key).await, before);
    }
}

pub(super) async fn a_replay_raises_what_is_given_out(stage: Stage) {
    let [key, other] = stage.keys();
    let first = stage.put(&other, "first").await;
    let ahead = Version::from_raw(first.raw() + 1000);
    assert!(stage.replay(&replay(&key, ahead, None)).await.unwrap());
    let next = stage.put(&other, "next").await;
    assert_eq!(next.raw(), ahead.raw() + 2);
    assert!(stage.put(&key, "next").await > next);
}

pub(super) async fn a_replay_goes_over_what_is_older(stage: Stage) {
    let keys: [SharedKey; 3] = stage.keys();
    let [filled, dirty, parked] = &keys;
    stage.make_clean(filled, &held(5, "five")).await;
    for key in [dirty, parked] {
        stage.make_clean(key, &held(6, "six")).await;
    }
    stage.put_at(dirty, "dirty", later(1)).await;
    let refused = stage.put_at(parked, "parked", later(1)).await;
    let no = Flushed::Parked("no".into());
    assert!(stage.settle(parked, refused, no).await);
    let ahead = Version::from_raw(refused.raw() + 100);
    for key in &keys {
        let again = replay(key, ahead, Some(version(4)));
        assert!(stage.replay(&again).await.unwrap());
        stage.expect_dirty(key, ahead, "replayed").await;
    }
    assert!(stage.parked(parked).await.is_empty());
    let claimed = stage.claim_at(stage.shard(filled), later(9)).await;
    assert_eq!(claimed.len(), 3);
    for claimed in claimed {
        let expected = match &claimed.key {
            key if key == filled => (Some(version(4)), later(3)),
            // The newer base stays, and the older age of what is dirty.
            key if key == dirty => (Some(version(6)), later(1)),
            _ => (Some(version(6)), later(3)),
        };
        assert_eq!((claimed.base, claimed.since), expected, "{:?}", claimed.key);
    }
}

pub(super) async fn a_replay_waits_for_quarantine(stage: Stage) {
    let [key] = stage.keys();
    stage.quarantine(&key, 1).await;
    let again = replay(&key, version(9), None);
    let busy = stage.replay(&again).await;
    assert!(
        matches!(busy, Err(SharedError::Unavailable { .. })),
        "{busy:?}"
    );
    stage.expect_quarantine(&key).await;
    let ended = Ended::Committed {
        held: held(5, "five"),
        life: life(),
    };
    stage.release(&key, 1, ended).await;
    assert_eq!(stage.get(&key).await, clean(&held(5, "five")));
    assert!(stage.replay(&again).await.unwrap());
}

pub(super) async fn a_replay_goes_into_a_closed_shard(mut stage: Stage) {
    let [key, filled] = stage.keys();
    stage.make_clean(&filled, &held(9, "nine")).await;
    if !stage.scene.restart().await {
        return;
    }
    stage.answers().await;
    stage.raise().await;
    // What is clean in another generation is not there to be compared.
    for key in [&key, &filled] {
        assert!(stage.replay(&replay(key, version(9), None)).await.unwrap());
        stage.expect_dirty(key, version(9), "replayed").await;
    }
    stage.open().await;
    stage.expect_dirty(&key, version(9), "replayed").await;
    assert_eq!(stage.dirty(&key).await.entries, 2);
}
