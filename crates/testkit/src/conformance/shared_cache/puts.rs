//! Writes that are acknowledged before the store has them.

use tidegate_core::Version;
use tidegate_core::port::{
    Asked, ENTRY_OVERHEAD_BYTES, Ended, Expected, Flushed, Got, Held, Marked, PutOutcome, Value,
};

use super::stage::{NOW, Stage, clean, committed, held, key, later, life, value, version};

fn dirty(outcome: PutOutcome) -> (Version, Option<bool>) {
    match outcome {
        PutOutcome::Dirty {
            version, existed, ..
        } => (version, existed),
        other => panic!("it is not dirty: {other:?}"),
    }
}

pub(super) async fn a_put_is_dirty_and_served(stage: Stage) {
    let key = key("a");
    let first = stage.put(&key, "first").await;
    stage.expect_dirty(&key, first, "first").await;
    let second = stage.put(&key, "second").await;
    stage.expect_dirty(&key, second, "second").await;
    let (third, existed) = dirty(stage.try_put(&stage.put_of(&key, None, NOW)).await);
    assert_eq!(existed, Some(true));
    let gone = Held {
        version: third,
        value: None,
    };
    assert_eq!(stage.get(&key).await, Got::Dirty(gone.clone()));
    let found = Asked::Found(Got::Dirty(gone));
    assert_eq!(stage.ask(&key, 1).await, found);
    let (_, existed) = dirty(stage.try_put(&stage.put_of(&key, Some("x"), NOW)).await);
    assert_eq!(existed, Some(false));
}

pub(super) async fn a_put_knows_what_was_there(stage: Stage) {
    let keys: [_; 5] = stage.keys();
    let [absent, present, gone, expired, lives] = &keys;
    let ends = |at| Held {
        value: Some(Value {
            expires_at: Some(at),
            ..value("ends")
        }),
        ..held(5, "")
    };
    stage.make_clean(present, &held(5, "five")).await;
    let nothing = Held {
        version: version(5),
        value: None,
    };
    stage.make_clean(gone, &nothing).await;
    stage.make_clean(expired, &ends(NOW)).await;
    stage.make_clean(lives, &ends(later(1))).await;
    let known = [None, Some(true), Some(false), Some(false), Some(true)];
    for (n, (key, known)) in keys.iter().zip(known).enumerate() {
        let put = stage.put_of(key, Some("put"), later(n as u64 / 5));
        let (_, existed) = dirty(stage.try_put(&put).await);
        assert_eq!(existed, known, "key {n}");
        // The second goes over the first, which no row has.
        let second = stage.put_of(key, Some("put"), later(1));
        let PutOutcome::Dirty { base, .. } = stage.try_put(&second).await else {
            panic!("key {n} is not dirty");
        };
        assert_eq!(base, known.map(|_| version(5)), "key {n}");
    }
    let claimed = stage.claim_at(stage.shard(absent), NOW).await;
    assert_eq!(claimed.len(), 5);
    for claimed in claimed {
        let base = (claimed.key != *absent).then(|| version(5));
        assert_eq!(claimed.base, base, "{:?}", claimed.key);
        assert_eq!(claimed.since, NOW);
    }
}

pub(super) async fn versions_rise_within_a_shard(stage: Stage) {
    let [one, other, late] = stage.keys();
    let mut last = Version::compose(stage.generation, 0);
    for n in 0..6 {
        let key = if n % 2 == 0 { &one } else { &other };
        let put = stage.put(key, "put").await;
        assert!(put > last, "{put} after {last}");
        assert_eq!(put.raw() % 2, 0, "{put} is odd");
        assert_eq!(put.raw(), last.raw() + 2, "{put} is not the next");
        assert_eq!(put.generation(), stage.generation);
        last = put;
    }
    // Over something of a later generation, and odd.
    let ahead = Held {
        version: Version::from_raw(Version::compose(70_000, 5).raw() | 1),
        value: None,
    };
    stage.make_clean(&late, &ahead).await;
    let put = stage.put(&late, "put").await;
    assert_eq!(put.raw(), ahead.version.raw() + 1);
    assert!(stage.put(&late, "put").await > put);
}

pub(super) async fn a_put_expects_a_version(stage: Stage) {
    let [absent, leased, filled, dirtied] = stage.keys();
    let put = async |key: &_, expected| {
        let mut put = stage.put_of(key, Some("put"), NOW);
        put.expected = expected;
        stage.try_put(&put).await
    };
    let five = Expected::Version(version(5));
    stage.lease(&leased, 1).await;
    stage.make_clean(&filled, &held(5, "five")).await;
    for key in [&absent, &leased] {
        for expected in [five, Expected::Version(Version::NONE)] {
            assert_eq!(put(key, expected).await, PutOutcome::Changed, "{key:?}");
        }
    }
    assert!(
        stage.fill(&leased, 1, &held(5, "five")).await,
        "the lease is gone"
    );
    for other in [version(4), version(6), Version::NONE] {
        let outcome = put(&filled, Expected::Version(other)).await;
        assert_eq!(outcome, PutOutcome::Changed);
    }
    assert_eq!(stage.get(&filled).await, clean(&held(5, "five")));
    let (written, _) = dirty(put(&filled, five).await);
    assert_eq!(put(&filled, five).await, PutOutcome::Changed);
    let (again, _) = dirty(put(&filled, Expected::Version(written)).await);
    assert!(again > written);
    let parked = stage.park(&dirtied, "parked").await;
    assert_eq!(put(&dirtied, five).await, PutOutcome::Changed);
    dirty(put(&dirtied, Expected::Version(parked)).await);
    // A key of which nothing is known but that it is absent.
    let nothing = Held {
        version: Version::NONE,
        value: None,
    };
    stage.make_clean(&absent, &nothing).await;
    dirty(put(&absent, Expected::Version(Version::NONE)).await);
}

pub(super) async fn a_put_waits_for_quarantine_and_grace(mut stage: Stage) {
    let [marked, dirtied] = stage.keys();
    stage.quarantine(&marked, 1).await;
    let mut put = stage.put_of(&marked, Some("put"), NOW);
    // Before anything else is looked at.
    put.expected = Expected::Version(version(5));
    put.shard_bytes_max = 0;
    assert_eq!(stage.try_put(&put).await, PutOutcome::Busy);
    stage.release(&marked, 1, committed(5, "five")).await;
    assert_eq!(stage.try_put(&put).await, PutOutcome::Full);
    put.expected = Expected::Version(version(6));
    assert_eq!(stage.try_put(&put).await, PutOutcome::Changed);
    let written = stage.put(&dirtied, "dirty").await;
    if !stage.scene.restart().await {
        return;
    }
    stage.answers().await;
    stage.raise().await;
    for key in [&marked, &dirtied] {
        let put = stage.put_of(key, Some("put"), NOW);
        assert_eq!(stage.try_put(&put).await, PutOutcome::Busy);
    }
    stage.expect_dirty(&dirtied, written, "dirty").await;
    stage.open().await;
    stage.put(&dirtied, "put").await;
}

pub(super) async fn a_shard_is_full_by_bytes(stage: Stage) {
    let [one, other] = stage.keys();
    let weight = |key: &tidegate_core::port::SharedKey, bytes: usize| {
        (key.key.len() + bytes) as u64 + ENTRY_OVERHEAD_BYTES
    };
    let mut put = stage.put_of(&one, Some("0123456789"), NOW);
    put.shard_bytes_max = weight(&one, 10) - 1;
    assert_eq!(stage.try_put(&put).await, PutOutcome::Full);
    assert_eq!(stage.get(&one).await, Got::Nothing);
    assert_eq!(stage.dirty(&one).await.bytes, 0);
    put.shard_bytes_max += 1;
    dirty(stage.try_put(&put).await);
    assert_eq!(stage.dirty(&one).await.bytes, weight(&one, 10));
    // The same size and less are let in whatever the bound; more, and another key, are not.
    put.shard_bytes_max = 0;
    dirty(stage.try_put(&put).await);
    put.value = Some(value("01234"));
    dirty(stage.try_put(&put).await);
    assert_eq!(stage.dirty(&one).await.bytes, weight(&one, 5));
    put.value = Some(value("012345"));
    put.shard_bytes_max = weight(&one, 5);
    assert_eq!(stage.try_put(&put).await, PutOutcome::Full);
    put.value = None;
    dirty(stage.try_put(&put).await);
    assert_eq!(stage.dirty(&one).await.bytes, weight(&one, 0));
    let mut another = stage.put_of(&other, Some("0"), NOW);
    another.shard_bytes_max = weight(&one, 0) + weight(&other, 1) - 1;
    assert_eq!(stage.try_put(&another).await, PutOutcome::Full);
    another.shard_bytes_max += 1;
    dirty(stage.try_put(&another).await);
}

pub(super) async fn a_put_takes_the_lease_away(stage: Stage) {
    let [leased, anew] = stage.keys();
    stage.lease(&leased, 1).await;
    let written = stage.put(&leased, "put").await;
    assert!(!stage.fill(&leased, 1, &held(5, "five")).await);
    stage.expect_dirty(&leased, written, "put").await;
    // Also the lease to load anew, for good.
    stage.make_clean(&anew, &held(5, "five")).await;
    let late = NOW.after(super::stage::FRESH);
    assert!(matches!(
        stage.ask_at(&anew, 2, late).await,
        Asked::Lease(_)
    ));
    let written = stage.put(&anew, "put").await;
    assert!(stage.settle(&anew, written, Flushed::Stored(life())).await);
    let newer = Held {
        version: Version::from_raw(written.raw() + 2),
        value: None,
    };
    assert!(!stage.fill(&anew, 2, &newer).await);
}

pub(super) async fn a_dirty_key_is_not_marked_nor_leased(stage: Stage) {
    let [dirtied, parked] = stage.keys();
    let written = stage.put(&dirtied, "dirty").await;
    stage.park(&parked, "parked").await;
    for key in [&dirtied, &parked] {
        let before = stage.get(key).await;
        assert_eq!(stage.mark(key, 1).await, Marked::Dirty);
        assert_eq!(stage.ask(key, 1).await, Asked::Found(before.clone()));
        assert!(!stage.fill(key, 1, &held(1 << 40, "fill")).await);
        stage.release(key, 1, Ended::Aborted).await;
        stage.release(key, 2, committed(1 << 40, "newer")).await;
        stage.sweep(key, 1).await;
        stage.evict(key).await;
        assert_eq!(stage.get(key).await, before);
    }
    assert_eq!(stage.marks(&dirtied).await, 0);
    stage.expect_dirty(&dirtied, written, "dirty").await;
}

pub(super) async fn what_is_dirty_is_counted(stage: Stage) {
    let [one, two, parked] = stage.keys();
    let empty = stage.dirty(&one).await;
    assert_eq!(empty, tidegate_core::port::ShardDirty::default());
    stage.put_at(&two, "0123", later(5)).await;
    stage.put_at(&one, "012", later(7)).await;
    // Its age is that of the first write that the store does not have.
    stage.put_at(&two, "01", later(9)).await;
    let refused = stage.put_at(&parked, "", later(1)).await;
    assert_eq!(stage.dirty(&one).await.oldest, Some(later(1)));
    let said = Flushed::Parked("no".into());
    assert!(stage.settle(&parked, refused, said).await);
    let counted = stage.dirty(&one).await;
    let keys = [&one, &two, &parked].map(|key| key.key.len() as u64);
    let bytes = keys.iter().sum::<u64>() + 5 + 3 * ENTRY_OVERHEAD_BYTES;
    assert_eq!((counted.entries, counted.parked), (3, 1));
    assert_eq!(counted.bytes, bytes);
    assert_eq!(counted.oldest, Some(later(5)));
    let elsewhere = stage.all_shards();
    let elsewhere = elsewhere
        .iter()
        .filter(|shard| **shard != stage.shard(&one));
    let elsewhere: Vec<_> = elsewhere.copied().collect();
    for dirty in stage.cache().dirty(&elsewhere).await {
        assert_eq!(dirty.unwrap().entries, 0);
    }
    for claimed in stage.claim_at(stage.shard(&one), later(10)).await {
        let stored = Flushed::Stored(life());
        assert!(
            stage
                .settle(&claimed.key, claimed.held.version, stored)
                .await
        );
    }
    assert!(stage.settle(&parked, refused, Flushed::Dropped).await);
    assert_eq!(stage.dirty(&one).await, empty);
    assert_eq!(stage.get(&parked).await, Got::Nothing);
}
