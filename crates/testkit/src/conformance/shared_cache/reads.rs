//! Leases and fills, freshness, evictions, and what ends by time.

use std::time::Duration;

use bytes::Bytes;
use tidegate_core::Key;
use tidegate_core::port::{Ask, Asked, Flushed, Got, Held, Life, SharedKey, Value};

use super::past;
use super::stage::{FRESH, NOW, Stage, clean, committed, held, key, life, token, value, version};

pub(super) async fn an_absent_key_is_leased_to_one(stage: Stage) {
    let key = key("a");
    // Looking changes nothing.
    assert_eq!(stage.get(&key).await, Got::Nothing);
    assert_eq!(stage.get(&key).await, Got::Nothing);
    assert_eq!(stage.ask(&key, 1).await, Asked::Lease(None));
    assert_eq!(stage.ask(&key, 2).await, Asked::Wait(None));
    assert_eq!(stage.get(&key).await, Got::Nothing);
}

pub(super) async fn what_the_holder_of_a_lease_fills_is_served(stage: Stage) {
    let [there, gone, ends] = stage.keys();
    stage.lease(&there, 1).await;
    assert!(stage.fill(&there, 1, &held(5, "five")).await);
    assert_eq!(stage.get(&there).await, clean(&held(5, "five")));
    let found = Asked::Found(clean(&held(5, "five")));
    assert_eq!(stage.ask(&there, 2).await, found);
    // A key that is known to be absent, by a version or none.
    let nothing = Held {
        version: tidegate_core::Version::NONE,
        value: None,
    };
    stage.lease(&gone, 1).await;
    assert!(stage.fill(&gone, 1, &nothing).await);
    assert_eq!(stage.get(&gone).await, clean(&nothing));
    // A value that ends; that is the layer's to see.
    let short = Held {
        version: version(3),
        value: Some(Value {
            expires_at: Some(NOW),
            ..value("short")
        }),
    };
    stage.lease(&ends, 1).await;
    assert!(stage.fill(&ends, 1, &short).await);
    assert_eq!(stage.get(&ends).await, clean(&short));
}

pub(super) async fn a_fill_without_the_lease_does_nothing(stage: Stage) {
    let [absent, leased, filled] = stage.keys();
    assert!(!stage.fill(&absent, 1, &held(5, "five")).await);
    stage.expect_absent(&absent).await;
    stage.lease(&leased, 1).await;
    assert!(!stage.fill(&leased, 2, &held(5, "five")).await);
    assert_eq!(stage.get(&leased).await, Got::Nothing);
    assert!(stage.fill(&leased, 1, &held(5, "five")).await);
    // Used up, also for something newer.
    stage.make_clean(&filled, &held(5, "five")).await;
    assert!(!stage.fill(&filled, 999, &held(6, "six")).await);
    assert_eq!(stage.get(&filled).await, clean(&held(5, "five")));
}

pub(super) async fn what_is_not_fresh_is_leased_and_stays(stage: Stage) {
    let key = key("a");
    let five = held(5, "five");
    stage.make_clean(&key, &five).await;
    let fresh = NOW.after(FRESH - Duration::from_millis(1));
    let found = Asked::Found(clean(&five));
    assert_eq!(stage.ask_at(&key, 1, fresh).await, found);
    let late = NOW.after(FRESH);
    let leased = Asked::Lease(Some(five.clone()));
    assert_eq!(stage.ask_at(&key, 1, late).await, leased);
    assert_eq!(stage.get(&key).await, clean(&five));
    let wait = Asked::Wait(Some(five.clone()));
    assert_eq!(stage.ask_at(&key, 2, late).await, wait);
    // To whom it is still fresh it is served.
    assert_eq!(stage.ask(&key, 3).await, found);
    let six = held(6, "six");
    assert!(!stage.fill(&key, 2, &six).await, "the lease is another's");
    let longer = Life {
        fresh_until: late.after(FRESH),
        ..life()
    };
    assert!(stage.fill_with(&key, 1, &six, longer).await);
    let found = Asked::Found(Got::Clean {
        held: six.clone(),
        fresh_until: longer.fresh_until,
    });
    assert_eq!(stage.ask_at(&key, 4, late).await, found);
    assert!(!stage.fill(&key, 1, &held(7, "seven")).await, "used up");
}

pub(super) async fn a_load_anew_does_not_go_back(stage: Stage) {
    let key = key("a");
    stage.make_clean(&key, &held(5, "five")).await;
    let late = NOW.after(FRESH);
    let leased = Asked::Lease(Some(held(5, "five")));
    assert_eq!(stage.ask_at(&key, 1, late).await, leased);
    assert!(!stage.fill(&key, 1, &held(4, "four")).await);
    assert_eq!(stage.get(&key).await, clean(&held(5, "five")));
    // The same again is as good as new.
    assert!(stage.fill(&key, 1, &held(5, "five")).await);
}

pub(super) async fn a_lease_ends_by_itself(stage: Stage) {
    let key = key("a");
    stage.lease(&key, 1).await;
    stage.pass(past(stage.cache().lease_time())).await;
    stage.lease(&key, 2).await;
    assert!(!stage.fill(&key, 1, &held(5, "five")).await);
    assert!(stage.fill(&key, 2, &held(6, "six")).await);
    assert_eq!(stage.get(&key).await, clean(&held(6, "six")));
}

pub(super) async fn a_lease_to_load_anew_ends_by_itself(stage: Stage) {
    let key = key("a");
    let five = held(5, "five");
    stage.make_clean(&key, &five).await;
    let late = NOW.after(FRESH);
    let leased = Asked::Lease(Some(five.clone()));
    assert_eq!(stage.ask_at(&key, 1, late).await, leased);
    stage.pass(past(stage.cache().lease_time())).await;
    assert_eq!(stage.ask_at(&key, 2, late).await, leased);
    assert!(!stage.fill(&key, 1, &held(6, "six")).await);
    assert!(stage.fill(&key, 2, &held(6, "six")).await);
}

pub(super) async fn a_clean_entry_ends_by_itself(stage: Stage) {
    let [filled, released, flushed, kept] = stage.keys();
    let short = Life {
        kept_for: Duration::from_millis(300),
        ..life()
    };
    stage.lease(&filled, 1).await;
    assert!(stage.fill_with(&filled, 1, &held(5, "five"), short).await);
    stage.quarantine(&released, 2).await;
    let ended = tidegate_core::port::Ended::Committed {
        held: held(5, "five"),
        life: short,
    };
    stage.release(&released, 2, ended).await;
    let dirty = stage.put(&flushed, "five").await;
    assert!(stage.settle(&flushed, dirty, Flushed::Stored(short)).await);
    stage.make_clean(&kept, &held(5, "five")).await;
    stage.pass(past(short.kept_for)).await;
    for gone in [&filled, &released, &flushed] {
        stage.expect_absent(gone).await;
    }
    assert_eq!(stage.get(&kept).await, clean(&held(5, "five")));
}

/// Keys in every state, the clean one and the leased one first.
async fn every_state(stage: &Stage) -> [SharedKey; 5] {
    let keys: [SharedKey; 5] = stage.keys();
    stage.make_clean(&keys[0], &held(5, "five")).await;
    stage.lease(&keys[1], 1).await;
    stage.quarantine(&keys[2], 2).await;
    stage.put(&keys[3], "dirty").await;
    stage.park(&keys[4], "parked").await;
    keys
}

async fn expect_what_stays(stage: &Stage, keys: &[SharedKey; 5]) {
    stage.expect_absent(&keys[0]).await;
    assert!(
        !stage.fill(&keys[1], 1, &held(5, "five")).await,
        "no lease is left"
    );
    stage.expect_absent(&keys[1]).await;
    stage.expect_quarantine(&keys[2]).await;
    stage.release(&keys[2], 2, committed(5, "five")).await;
    assert_eq!(stage.get(&keys[2]).await, clean(&held(5, "five")));
    assert!(matches!(stage.get(&keys[3]).await, Got::Dirty(_)));
    assert!(matches!(stage.get(&keys[4]).await, Got::Parked(_)));
}

pub(super) async fn an_eviction_takes_what_is_clean_or_leased_only(stage: Stage) {
    let keys = every_state(&stage).await;
    for evicted in stage.cache().evict(&keys).await {
        evicted.unwrap();
    }
    expect_what_stays(&stage, &keys).await;
}

pub(super) async fn a_clear_takes_what_is_clean_or_leased_only(stage: Stage) {
    let keys = every_state(&stage).await;
    let other = SharedKey {
        class: "other-class_1".into(),
        key: Key::from("in another shard perhaps"),
    };
    stage.make_clean(&other, &held(5, "five")).await;
    stage.cache().clear().await.unwrap();
    expect_what_stays(&stage, &keys).await;
    stage.expect_absent(&other).await;
}

pub(super) async fn classes_are_apart(stage: Stage) {
    let one = key("a");
    let other = SharedKey {
        class: "other".into(),
        ..one.clone()
    };
    stage.make_clean(&one, &held(5, "five")).await;
    stage.expect_absent(&other).await;
    stage.make_clean(&other, &held(6, "six")).await;
    stage.quarantine(&one, 1).await;
    assert_eq!(stage.get(&other).await, clean(&held(6, "six")));
}

pub(super) async fn many_are_answered_one_by_one(stage: Stage) {
    let keys: Vec<SharedKey> = (0..40).map(|n| key(&format!("many {n}"))).collect();
    for (n, key) in keys.iter().enumerate().step_by(3) {
        stage.make_clean(key, &held(n as u64, "clean")).await;
    }
    let got = stage.cache().get(&keys).await;
    let asks: Vec<Ask> = keys
        .iter()
        .zip(1_u64..)
        .map(|(key, n)| Ask {
            key: key.clone(),
            token: token(n),
        })
        .collect();
    let asked = stage.cache().ask(&asks, NOW).await;
    assert_eq!((got.len(), asked.len()), (40, 40));
    for (n, (got, asked)) in got.into_iter().zip(asked).enumerate() {
        let (got, asked) = (got.unwrap(), asked.unwrap());
        if n % 3 == 0 {
            assert_eq!(got, clean(&held(n as u64, "clean")), "{n}");
            assert_eq!(asked, Asked::Found(got), "{n}");
        } else {
            assert_eq!((got, asked), (Got::Nothing, Asked::Lease(None)), "{n}");
        }
    }
    assert!(stage.cache().get(&[]).await.is_empty());
}

pub(super) async fn any_bytes_are_kept(stage: Stage) {
    let all: Vec<u8> = (0..=255).collect();
    let long = vec![b'x'; 10_000];
    let big: Vec<u8> = all.iter().copied().cycle().take(1 << 20).collect();
    let keys: [&[u8]; 6] = [b"", b"{s1}:a:b", b"\r\n\0", &all, &long, b":"];
    for (n, bytes) in keys.into_iter().enumerate() {
        let key = SharedKey {
            class: "c".into(),
            key: Key::copy_from(bytes),
        };
        let five = Held {
            version: version(5),
            value: Some(Value {
                bytes: Bytes::copy_from_slice(if n % 2 == 0 { &big } else { keys[n - 1] }),
                expires_at: Some(NOW),
            }),
        };
        stage.make_clean(&key, &five).await;
        stage.quarantine(&key, 1).await;
        assert_eq!(stage.marks(&key).await, 1);
        let ended = tidegate_core::port::Ended::Committed {
            held: five.clone(),
            life: life(),
        };
        stage.release(&key, 1, ended).await;
        assert_eq!(stage.get(&key).await, clean(&five), "{key:?}");
        let mut put = stage.put_of(&key, None, NOW);
        put.value.clone_from(&five.value);
        stage.try_put(&put).await;
        let claimed = stage.claim(&key, NOW).await;
        assert_eq!(claimed.held.value, five.value, "{key:?}");
        let version = claimed.held.version;
        let said = Flushed::Parked("said\0\r\n".into());
        assert!(stage.settle(&key, version, said).await);
        let parked = stage.parked(&key).await;
        assert_eq!(parked.len(), 1);
        assert_eq!((&parked[0].0, &*parked[0].1), (&claimed, "said\0\r\n"));
        assert!(stage.settle(&key, version, Flushed::Dropped).await);
        stage.expect_absent(&key).await;
    }
}

pub(super) async fn the_facts_are_told(stage: Stage) {
    let facts = stage.cache().facts().await.unwrap();
    assert!(!facts.server.is_empty() && !facts.eviction.is_empty());
    assert!(!facts.persistence.is_empty());
    stage.cache().ping().await.unwrap();
}
