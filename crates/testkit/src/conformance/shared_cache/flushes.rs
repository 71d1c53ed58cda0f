//! Claims, and what became of them.

use tidegate_core::Version;
use tidegate_core::port::{Claimed, Flushed, Got, Held, Life, SharedKey};

use super::stage::{CLAIM, NOW, Stage, clean, held, later, life, value, version};

fn stored() -> Flushed {
    Flushed::Stored(life())
}

fn refused() -> Flushed {
    Flushed::Parked("refused".into())
}

fn plus(version: Version, by: u64) -> Version {
    Version::from_raw(version.raw() + by)
}

/// Clean with this.
async fn expect_clean(stage: &Stage, key: &SharedKey, version: Version, text: &str) {
    let held = Held {
        version,
        value: Some(value(text)),
    };
    assert_eq!(stage.get(key).await, clean(&held), "{key:?}");
}

pub(super) async fn the_oldest_are_claimed_first(stage: Stage) {
    let keys: [SharedKey; 4] = stage.keys();
    let shard = stage.shard(&keys[0]);
    for (n, at) in [(0, 40), (1, 10), (2, 30), (3, 20)] {
        stage
            .put_at(&keys[n], &format!("value {n}"), later(at))
            .await;
    }
    // Written again, it is no younger.
    stage.put_at(&keys[1], "value 1", later(50)).await;
    let claim = async |limit| {
        let claimed = stage.cache().claim(shard, limit, later(60), CLAIM).await;
        let claimed = claimed.unwrap();
        let told = claimed.iter().map(|claimed: &Claimed| {
            let n = keys.iter().position(|key| *key == claimed.key).unwrap();
            assert_eq!(claimed.held.value, Some(value(&format!("value {n}"))));
            assert_eq!(claimed.base, None);
            (n, claimed.since)
        });
        told.collect::<Vec<_>>()
    };
    assert!(claim(0).await.is_empty());
    assert_eq!(claim(2).await, [(1, later(10)), (3, later(20))]);
    assert_eq!(claim(2).await, [(2, later(30)), (0, later(40))]);
    assert!(claim(2).await.is_empty());
}

pub(super) async fn a_claim_is_for_a_while(stage: Stage) {
    let [key, other] = stage.keys();
    let shard = stage.shard(&key);
    let first = stage.put(&key, "first").await;
    assert_eq!(stage.claim(&key, later(1)).await.held.version, first);
    let over = later(1).after(CLAIM);
    let just_before = later(1 + CLAIM.as_secs() - 1);
    assert!(stage.claim_at(shard, just_before).await.is_empty());
    // A write does not end it, and is no reason to claim again.
    let second = stage.put_at(&key, "second", later(2)).await;
    assert!(stage.claim_at(shard, just_before).await.is_empty());
    let again = stage.claim(&key, over).await;
    assert_eq!((again.held.version, again.since), (second, NOW));
    // Others are claimed meanwhile.
    stage.put_at(&other, "other", later(3)).await;
    stage.claim(&other, over).await;
    assert!(stage.claim_at(shard, over).await.is_empty());
    // What is dirty is served also while it is claimed.
    stage.expect_dirty(&key, second, "second").await;
}

pub(super) async fn a_claim_ends_with_its_flush(stage: Stage) {
    let [key] = stage.keys();
    for flushed in [
        stored(),
        refused(),
        Flushed::Dropped,
        Flushed::Over(version(5)),
    ] {
        let first = stage.put(&key, "first").await;
        assert_eq!(stage.claim(&key, NOW).await.held.version, first);
        stage.put_at(&key, "second", later(1)).await;
        assert!(!stage.settle(&key, first, flushed.clone()).await);
        let claimed = stage.claim(&key, later(1)).await;
        let version = claimed.held.version;
        assert!(stage.settle(&key, version, stored()).await, "{flushed:?}");
    }
}

pub(super) async fn what_is_stored_becomes_clean(stage: Stage) {
    let [present, gone, parked, absent] = stage.keys();
    let short = Life {
        fresh_until: later(3),
        ..life()
    };
    let first = stage.put(&present, "first").await;
    assert!(stage.settle(&present, first, Flushed::Stored(short)).await);
    let expected = Got::Clean {
        held: Held {
            version: first,
            value: Some(value("first")),
        },
        fresh_until: later(3),
    };
    assert_eq!(stage.get(&present).await, expected);
    // Once more, or of something else, changes nothing.
    for (number, stored) in [(first, stored()), (plus(first, 2), Flushed::Dropped)] {
        for flushed in [
            stored,
            refused(),
            Flushed::Dropped,
            Flushed::Again(NOW),
            Flushed::Over(plus(first, 9)),
        ] {
            assert!(stage.settle(&present, number, flushed).await);
            assert_eq!(stage.get(&present).await, expected);
        }
    }
    assert!(stage.settle(&absent, first, stored()).await);
    stage.expect_absent(&absent).await;
    // One that ends when the key is long something else tells of a version in the store.
    let [older, leased, marked] = ["older", "leased", "marked"].map(super::stage::key);
    stage.make_clean(&older, &held(5, "five")).await;
    stage.lease(&leased, 1).await;
    stage.quarantine(&marked, 1).await;
    for key in [&older, &leased, &marked] {
        assert!(stage.settle(key, version(6), stored()).await);
    }
    stage.expect_absent(&older).await;
    assert!(!stage.fill(&leased, 1, &held(5, "five")).await);
    stage
        .release(&marked, 1, super::stage::committed(5, "five"))
        .await;
    stage.expect_absent(&marked).await;
    stage.try_put(&stage.put_of(&gone, None, NOW)).await;
    let claimed = stage.claim(&gone, NOW).await;
    assert!(stage.settle(&gone, claimed.held.version, stored()).await);
    assert_eq!(stage.get(&gone).await, clean(&claimed.held));
    // What another flusher parked meanwhile is in the store all the same.
    let first = stage.park(&parked, "first").await;
    assert!(stage.settle(&parked, first, stored()).await);
    expect_clean(&stage, &parked, first, "first").await;
    // The next write is made over it.
    stage.put(&parked, "second").await;
    assert_eq!(stage.claim(&parked, NOW).await.base, Some(first));
}

pub(super) async fn what_was_written_again_stays_dirty(stage: Stage) {
    let [key] = stage.keys();
    stage.make_clean(&key, &held(5, "five")).await;
    let first = stage.put_at(&key, "first", later(1)).await;
    assert_eq!(stage.claim(&key, later(2)).await.base, Some(version(5)));
    stage.put_at(&key, "second", later(3)).await;
    let third = stage.put_at(&key, "third", later(4)).await;
    assert!(!stage.settle(&key, first, stored()).await);
    stage.expect_dirty(&key, third, "third").await;
    let claimed = stage.claim(&key, later(5)).await;
    assert_eq!(claimed.held.version, third);
    assert_eq!(claimed.base, Some(first));
    // The first write that the store does not have is the second.
    assert_eq!(claimed.since, later(3));
    assert_eq!(stage.dirty(&key).await.oldest, Some(later(3)));
    assert!(stage.settle(&key, third, stored()).await);
    expect_clean(&stage, &key, third, "third").await;
}

pub(super) async fn an_old_flush_takes_nothing_back(stage: Stage) {
    let [key] = stage.keys();
    let first = stage.put_at(&key, "first", later(1)).await;
    stage.claim(&key, later(1)).await;
    let second = stage.put_at(&key, "second", later(2)).await;
    let late = later(2).after(CLAIM);
    assert_eq!(stage.claim(&key, late).await.held.version, second);
    let third = stage.put_at(&key, "third", late).await;
    assert!(!stage.settle(&key, second, stored()).await);
    // The one before it answers last.
    assert!(!stage.settle(&key, first, stored()).await);
    let claimed = stage.claim(&key, late).await;
    assert_eq!(claimed.held.version, third);
    assert_eq!((claimed.base, claimed.since), (Some(second), late));
    // Nor is anything lost by one that gave up, or was refused.
    for flushed in [Flushed::Dropped, refused()] {
        assert!(!stage.settle(&key, second, flushed).await);
        stage.expect_dirty(&key, third, "third").await;
    }
}

pub(super) async fn what_is_put_off_is_claimed_later(stage: Stage) {
    let [key] = stage.keys();
    let shard = stage.shard(&key);
    let first = stage.put(&key, "first").await;
    stage.claim(&key, NOW).await;
    assert!(!stage.settle(&key, first, Flushed::Again(later(5))).await);
    assert!(stage.claim_at(shard, later(4)).await.is_empty());
    let again = stage.claim(&key, later(5)).await;
    assert_eq!((again.held.version, again.since), (first, NOW));
    stage.put_at(&key, "second", later(6)).await;
    assert!(!stage.settle(&key, first, Flushed::Again(later(8))).await);
    assert!(stage.claim_at(shard, later(7)).await.is_empty());
    let again = stage.claim(&key, later(8)).await;
    assert_eq!((again.base, again.since), (None, NOW));
}

pub(super) async fn what_goes_over_a_row_is_newer_than_it(stage: Stage) {
    let [key] = stage.keys();
    let first = stage.put(&key, "first").await;
    stage.claim(&key, NOW).await;
    let row = plus(first, 1001);
    assert!(!stage.settle(&key, first, Flushed::Over(row)).await);
    let claimed = stage.claim(&key, NOW).await;
    assert_eq!(claimed.base, Some(row));
    let second = claimed.held.version;
    assert!(second > row && second.raw() % 2 == 0, "{second} over {row}");
    stage.expect_dirty(&key, second, "first").await;
    // Over something older than itself too.
    assert!(!stage.settle(&key, second, Flushed::Over(version(1))).await);
    let claimed = stage.claim(&key, NOW).await;
    let third = claimed.held.version;
    assert_eq!(claimed.base, Some(version(1)));
    assert!(third > second);
    // Written again since: over the newer of what is known.
    let fourth = stage.put(&key, "fourth").await;
    assert!(!stage.settle(&key, third, Flushed::Over(row)).await);
    let claimed = stage.claim(&key, NOW).await;
    assert_eq!(claimed.base, Some(row));
    assert!(claimed.held.version > fourth);
    assert!(!stage.settle(&key, third, Flushed::Over(version(1))).await);
    let claimed = stage.claim(&key, NOW).await;
    assert_eq!(claimed.base, Some(row));
    stage
        .expect_dirty(&key, claimed.held.version, "fourth")
        .await;
}

pub(super) async fn what_is_refused_is_parked(stage: Stage) {
    let [key, other] = stage.keys();
    stage.make_clean(&key, &held(5, "five")).await;
    let first = stage.put_at(&key, "first", later(1)).await;
    stage.claim(&key, later(1)).await;
    assert!(stage.settle(&key, first, refused()).await);
    let of = Held {
        version: first,
        value: Some(value("first")),
    };
    assert_eq!(stage.get(&key).await, Got::Parked(of.clone()));
    // Never claimed, and listed with what the store said.
    let long = later(1_000_000);
    assert!(stage.claim_at(stage.shard(&key), long).await.is_empty());
    let claimed = Claimed {
        key: key.clone(),
        held: of.clone(),
        base: Some(version(5)),
        since: later(1),
    };
    let parked = stage.parked(&key).await;
    assert_eq!(parked, [(claimed.clone(), "refused".into())]);
    // A flush that was put off, or is to go over a row, does not free it.
    for flushed in [Flushed::Again(NOW), Flushed::Over(version(9))] {
        assert!(stage.settle(&key, first, flushed).await);
        assert_eq!(stage.get(&key).await, Got::Parked(of.clone()));
    }
    let said = Flushed::Parked("refused again".into());
    assert!(stage.settle(&key, first, said).await);
    assert_eq!(
        stage.parked(&key).await,
        [(claimed, "refused again".into())]
    );
    stage.park(&other, "other").await;
    assert_eq!(stage.parked(&key).await.len(), 2);
    let limited = stage.cache().parked(stage.shard(&key), 1).await.unwrap();
    assert_eq!(limited.len(), 1);
}

pub(super) async fn a_write_takes_the_place_of_a_parked_one(stage: Stage) {
    let [key] = stage.keys();
    stage.make_clean(&key, &held(5, "five")).await;
    stage.put_at(&key, "first", later(1)).await;
    let first = stage.claim(&key, later(1)).await.held.version;
    assert!(stage.settle(&key, first, refused()).await);
    let second = stage.put_at(&key, "second", later(4)).await;
    stage.expect_dirty(&key, second, "second").await;
    assert!(stage.parked(&key).await.is_empty());
    let claimed = stage.claim(&key, later(4)).await;
    assert_eq!((claimed.base, claimed.since), (Some(version(5)), later(4)));
}

pub(super) async fn what_is_parked_can_be_dirty_again(stage: Stage) {
    let [key, dirty] = stage.keys();
    let first = stage.park(&key, "first").await;
    let unpark = async |key: &SharedKey, version, at| {
        let mut done = stage.cache().unpark(&[(key.clone(), version)], at).await;
        done.remove(0).unwrap()
    };
    assert!(!unpark(&key, plus(first, 2), NOW).await);
    assert!(matches!(stage.get(&key).await, Got::Parked(_)));
    assert!(unpark(&key, first, later(7)).await);
    assert!(
        !unpark(&key, first, later(8)).await,
        "it is not parked any more"
    );
    stage.expect_dirty(&key, first, "first").await;
    let claimed = stage.claim(&key, later(7)).await;
    assert_eq!((claimed.held.version, claimed.since), (first, later(7)));
    let written = stage.put(&dirty, "dirty").await;
    assert!(!unpark(&dirty, written, NOW).await);
}

pub(super) async fn what_is_given_up_is_absent(stage: Stage) {
    let [dirty, parked, kept] = stage.keys();
    let first = stage.put(&dirty, "first").await;
    assert!(stage.settle(&dirty, first, Flushed::Dropped).await);
    stage.expect_absent(&dirty).await;
    let first = stage.park(&parked, "first").await;
    assert!(stage.settle(&parked, first, Flushed::Dropped).await);
    stage.expect_absent(&parked).await;
    assert!(stage.parked(&parked).await.is_empty());
    let first = stage.put(&kept, "first").await;
    let second = stage.put(&kept, "second").await;
    assert!(!stage.settle(&kept, first, Flushed::Dropped).await);
    stage.expect_dirty(&kept, second, "second").await;
}

pub(super) async fn what_others_wrote_meanwhile_makes_absent(stage: Stage) {
    let [key, parked, older] = stage.keys();
    let invalidate = async |key: &SharedKey, version| {
        let mut done = stage.cache().invalidate(&[(key.clone(), version)]).await;
        done.remove(0).unwrap();
    };
    let first = stage.put(&key, "first").await;
    let refused = stage.park(&parked, "first").await;
    for (key, version) in [(&key, first), (&parked, refused)] {
        let before = stage.get(key).await;
        invalidate(key, plus(version, 1)).await;
        invalidate(key, Version::NONE).await;
        assert_eq!(stage.get(key).await, before, "it stays");
        assert!(stage.settle(key, version, stored()).await);
        stage.expect_absent(key).await;
    }
    // What goes over theirs is as good as any.
    let first = stage.put(&key, "first").await;
    invalidate(&key, plus(first, 1)).await;
    assert!(
        !stage
            .settle(&key, first, Flushed::Over(plus(first, 1)))
            .await
    );
    let second = stage.claim(&key, NOW).await.held.version;
    assert!(stage.settle(&key, second, stored()).await);
    expect_clean(&stage, &key, second, "first").await;
    // Something older was known already.
    let first = stage.put(&older, "first").await;
    invalidate(&older, Version::from_raw(first.raw() - 1)).await;
    assert!(stage.settle(&older, first, stored()).await);
    expect_clean(&stage, &older, first, "first").await;
}

pub(super) async fn what_is_stored_while_closed_is_absent(mut stage: Stage) {
    let [key, again, over, late] = stage.keys();
    let first = stage.put(&key, "first").await;
    let early = stage.put(&over, "early").await;
    let before = stage.put(&late, "before").await;
    let old = stage.put(&again, "old").await;
    let new = stage.put(&again, "new").await;
    if !stage.scene.restart().await {
        return;
    }
    stage.answers().await;
    stage.raise().await;
    assert!(stage.settle(&key, first, stored()).await);
    assert_eq!(stage.get(&key).await, Got::Nothing);
    // Also what got a version of the new generation, while closed or after.
    assert!(!stage.settle(&over, early, Flushed::Over(early)).await);
    assert!(!stage.settle(&late, before, Flushed::Over(before)).await);
    let claimed = stage.claim_at(stage.shard(&over), NOW).await;
    let version_of = |key: &SharedKey| {
        let claimed = claimed.iter().find(|claimed| claimed.key == *key);
        claimed.unwrap().held.version
    };
    assert_eq!(version_of(&over).generation(), stage.generation);
    assert!(stage.settle(&over, version_of(&over), stored()).await);
    assert_eq!(stage.get(&over).await, Got::Nothing);
    // What was written again stays.
    assert!(!stage.settle(&again, old, stored()).await);
    stage.expect_dirty(&again, new, "new").await;
    stage.open().await;
    stage.expect_absent(&key).await;
    assert!(stage.settle(&late, version_of(&late), stored()).await);
    stage.expect_absent(&late).await;
    // An earlier generation: a newer write of it may have been lost.
    assert!(stage.settle(&again, new, stored()).await);
    stage.expect_absent(&again).await;
    let newest = stage.put(&again, "newest").await;
    assert!(stage.settle(&again, newest, stored()).await);
    expect_clean(&stage, &again, newest, "newest").await;
}

pub(super) async fn a_flush_of_what_the_cache_lost_takes_the_older(stage: Stage) {
    let [key] = stage.keys();
    let first = stage.put(&key, "first").await;
    // As if a replica that lags behind had taken over.
    assert!(stage.settle(&key, plus(first, 4), stored()).await);
    stage.expect_absent(&key).await;
    assert_eq!(stage.dirty(&key).await.entries, 0);
}
