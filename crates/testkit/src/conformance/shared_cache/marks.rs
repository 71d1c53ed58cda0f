//! Marks, releases, sweeps and invalidations.

use tidegate_core::port::{Ended, Leftover, Marked, SharedKey};

use super::past;
use super::stage::{Stage, clean, committed, held, key, store_time, token, version};

pub(super) async fn a_marked_key_is_not_served(stage: Stage) {
    let [absent, leased, filled] = stage.keys();
    stage.lease(&leased, 1).await;
    stage.make_clean(&filled, &held(5, "five")).await;
    for key in [&absent, &leased, &filled] {
        stage.quarantine(key, 2).await;
        stage.expect_quarantine(key).await;
    }
    // The lease is gone for good.
    assert!(!stage.fill(&leased, 1, &held(5, "five")).await);
    stage.expect_quarantine(&leased).await;
    stage.release(&leased, 2, Ended::Aborted).await;
    assert!(!stage.fill(&leased, 1, &held(5, "five")).await);
    stage.expect_absent(&leased).await;
}

pub(super) async fn a_release_makes_clean_what_it_brought(stage: Stage) {
    let [filled, absent] = stage.keys();
    stage.make_clean(&filled, &held(5, "five")).await;
    for key in [&filled, &absent] {
        stage.quarantine(key, 1).await;
        stage.release(key, 1, committed(6, "six")).await;
        assert_eq!(stage.get(key).await, clean(&held(6, "six")));
    }
    // A delete is brought like anything.
    stage.quarantine(&filled, 2).await;
    let mut gone = held(7, "");
    gone.value = None;
    let ended = Ended::Committed {
        held: gone.clone(),
        life: super::stage::life(),
    };
    stage.release(&filled, 2, ended).await;
    assert_eq!(stage.get(&filled).await, clean(&gone));
}

pub(super) async fn marks_add_up_and_the_newest_stays(stage: Stage) {
    // The newest may end first, last, or between.
    for (n, order) in [[5, 6, 7], [7, 6, 5], [6, 7, 5]].into_iter().enumerate() {
        let key = key(&format!("order {n}"));
        for number in [5, 6, 7] {
            stage.quarantine(&key, number).await;
        }
        for number in order {
            stage.expect_quarantine(&key).await;
            let value = format!("value {number}");
            stage.release(&key, number, committed(number, &value)).await;
        }
        assert_eq!(
            stage.get(&key).await,
            clean(&held(7, "value 7")),
            "{order:?}"
        );
    }
}

pub(super) async fn an_aborted_write_leaves_nothing(stage: Stage) {
    let [alone, beside] = stage.keys();
    stage.make_clean(&alone, &held(5, "five")).await;
    stage.quarantine(&alone, 1).await;
    stage.release(&alone, 1, Ended::Aborted).await;
    stage.expect_absent(&alone).await;
    stage.quarantine(&beside, 1).await;
    stage.quarantine(&beside, 2).await;
    stage.release(&beside, 1, committed(6, "six")).await;
    stage.release(&beside, 2, Ended::Aborted).await;
    assert_eq!(stage.get(&beside).await, clean(&held(6, "six")));
}

pub(super) async fn a_write_that_is_not_to_be_seen_leaves_nothing_older(stage: Stage) {
    let [alone, older, newer] = stage.keys();
    let unseen = || Ended::CommittedUnseen(version(6));
    stage.quarantine(&alone, 1).await;
    stage.release(&alone, 1, unseen()).await;
    stage.expect_absent(&alone).await;
    for (key, number) in [(&older, 5), (&newer, 7)] {
        for first_is_unseen in [false, true] {
            stage.quarantine(key, 1).await;
            stage.quarantine(key, 2).await;
            let mut ends = [(1, unseen()), (2, committed(number, "brought"))];
            if !first_is_unseen {
                ends.reverse();
            }
            for (number, ended) in ends {
                stage.release(key, number, ended).await;
            }
            if number == 5 {
                stage.expect_absent(key).await;
            } else {
                assert_eq!(stage.get(key).await, clean(&held(7, "brought")));
            }
        }
    }
}

pub(super) async fn a_mark_made_twice_is_one(stage: Stage) {
    let key = key("a");
    stage.quarantine(&key, 1).await;
    stage.quarantine(&key, 1).await;
    assert_eq!(stage.marks(&key).await, 1);
    stage.release(&key, 1, committed(6, "six")).await;
    assert_eq!(stage.get(&key).await, clean(&held(6, "six")));
    assert_eq!(stage.marks(&key).await, 0);
}

pub(super) async fn a_release_without_its_mark_brings_nothing(stage: Stage) {
    let keys: [SharedKey; 6] = stage.keys();
    let [absent, leased, older, same, marked, dirty] = &keys;
    for ended in [
        committed(6, "six"),
        Ended::CommittedUnseen(version(6)),
        Ended::Aborted,
    ] {
        let is_aborted = ended == Ended::Aborted;
        for key in [absent, leased, older, same] {
            stage.evict(key).await;
        }
        stage.lease(leased, 1).await;
        stage.make_clean(older, &held(5, "five")).await;
        stage.make_clean(same, &held(6, "other")).await;
        stage.quarantine(marked, 2).await;
        let written = stage.put(dirty, "dirty").await;
        for key in &keys {
            stage.release(key, 77, ended.clone()).await;
        }
        stage.expect_absent(absent).await;
        assert!(!stage.fill(leased, 1, &held(6, "six")).await, "{ended:?}");
        stage.expect_absent(leased).await;
        if is_aborted {
            assert_eq!(stage.get(older).await, clean(&held(5, "five")));
        } else {
            stage.expect_absent(older).await;
        }
        assert_eq!(stage.get(same).await, clean(&held(6, "other")));
        // Tainted: whatever ends now leaves nothing.
        stage.expect_quarantine(marked).await;
        stage.release(marked, 2, committed(9, "nine")).await;
        stage.expect_absent(marked).await;
        stage.expect_dirty(dirty, written, "dirty").await;
    }
}

pub(super) async fn a_sweep_takes_a_mark_and_taints(stage: Stage) {
    let [alone, beside, other] = stage.keys();
    stage.quarantine(&alone, 1).await;
    stage.sweep(&alone, 1).await;
    stage.expect_absent(&alone).await;
    stage.quarantine(&beside, 1).await;
    stage.quarantine(&beside, 2).await;
    stage.sweep(&beside, 1).await;
    stage.expect_quarantine(&beside).await;
    // Another joins meanwhile: it is the same quarantine.
    stage.quarantine(&beside, 3).await;
    stage.release(&beside, 2, committed(6, "six")).await;
    stage.expect_quarantine(&beside).await;
    stage.release(&beside, 3, committed(7, "seven")).await;
    stage.expect_absent(&beside).await;
    // A mark that is not there does not count.
    stage.quarantine(&other, 1).await;
    stage.sweep(&other, 9).await;
    stage.release(&other, 1, committed(6, "six")).await;
    stage.sweep(&other, 1).await;
    assert_eq!(stage.get(&other).await, clean(&held(6, "six")));
}

pub(super) async fn leftovers_are_marks_of_before(stage: Stage) {
    let [one, other, released, swept] = stage.keys();
    let shard = stage.shard(&one);
    let left = async |before: i64, limit: usize| {
        let cache = stage.cache();
        let mut left = cache
            .leftovers(shard, store_time(before), limit)
            .await
            .unwrap();
        left.sort_by_key(|left| left.commit_by);
        left
    };
    assert!(left(i64::from(i32::MAX), 100).await.is_empty());
    for (key, number, commit_by) in [
        (&one, 1, 100),
        (&one, 2, 300),
        (&other, 3, 200),
        (&released, 4, 50),
        (&swept, 5, 60),
        (&swept, 6, 400),
    ] {
        let marked = stage.mark_until(key, number, store_time(commit_by)).await;
        assert_eq!(marked, Marked::Quarantined);
    }
    stage.release(&released, 4, Ended::Aborted).await;
    stage.sweep(&swept, 5).await;
    let expected: Vec<Leftover> = [
        (&one, 1, 100),
        (&other, 3, 200),
        (&one, 2, 300),
        (&swept, 6, 400),
    ]
    .into_iter()
    .map(|(key, number, commit_by)| Leftover {
        key: key.clone(),
        token: token(number),
        commit_by: store_time(commit_by),
    })
    .collect();
    for (before, count) in [
        (100, 0),
        (101, 1),
        (200, 1),
        (201, 2),
        (301, 3),
        (1_000_000, 4),
    ] {
        assert_eq!(
            left(before, 100).await,
            expected[..count],
            "before {before}"
        );
    }
    assert_eq!(left(1_000_000, 2).await.len(), 2);
    for other in stage.all_shards() {
        if other != shard {
            let left = stage
                .cache()
                .leftovers(other, store_time(1_000_000), 9)
                .await;
            assert!(left.unwrap().is_empty(), "{other:?}");
        }
    }
}

pub(super) async fn an_invalidation_takes_what_is_older(stage: Stage) {
    let [absent, leased, older, same, newer] = stage.keys();
    stage.lease(&leased, 1).await;
    for (key, number) in [(&older, 5), (&same, 6), (&newer, 7)] {
        stage.make_clean(key, &held(number, "clean")).await;
    }
    for key in [&absent, &leased, &older, &same, &newer] {
        stage.invalidate(key, 6).await;
    }
    stage.expect_absent(&absent).await;
    assert!(!stage.fill(&leased, 1, &held(6, "six")).await);
    stage.expect_absent(&leased).await;
    stage.expect_absent(&older).await;
    assert_eq!(stage.get(&same).await, clean(&held(6, "clean")));
    assert_eq!(stage.get(&newer).await, clean(&held(7, "clean")));
}

pub(super) async fn a_quarantine_remembers_what_others_wrote(stage: Stage) {
    for (number, stays) in [(5, false), (6, true), (7, true)] {
        let key = key(&format!("floor {number}"));
        stage.quarantine(&key, 1).await;
        stage.quarantine(&key, 2).await;
        stage.release(&key, 1, committed(number, "brought")).await;
        stage.invalidate(&key, 6).await;
        // An older one does not lower it.
        stage.invalidate(&key, 3).await;
        stage.expect_quarantine(&key).await;
        stage.release(&key, 2, Ended::Aborted).await;
        match stays {
            true => assert_eq!(stage.get(&key).await, clean(&held(number, "brought"))),
            false => stage.expect_absent(&key).await,
        }
    }
    // It is forgotten with the quarantine.
    let key = key("later");
    stage.quarantine(&key, 1).await;
    stage.invalidate(&key, 6).await;
    stage.release(&key, 1, Ended::Aborted).await;
    stage.make_clean(&key, &held(5, "five")).await;
}

pub(super) async fn a_quarantine_does_not_end_by_itself(stage: Stage) {
    let [filled, leased, dirty] = stage.keys();
    stage.make_clean(&filled, &held(5, "five")).await;
    stage.lease(&leased, 1).await;
    stage.quarantine(&filled, 2).await;
    stage.quarantine(&leased, 2).await;
    let short = tidegate_core::port::Life {
        kept_for: std::time::Duration::from_millis(100),
        ..super::stage::life()
    };
    stage.lease(&dirty, 3).await;
    assert!(stage.fill_with(&dirty, 3, &held(5, "five"), short).await);
    let written = stage.put(&dirty, "dirty").await;
    stage.pass(past(stage.cache().lease_time() * 2)).await;
    stage.expect_quarantine(&filled).await;
    stage.expect_quarantine(&leased).await;
    assert_eq!(stage.marks(&filled).await, 2);
    stage.expect_dirty(&dirty, written, "dirty").await;
}
