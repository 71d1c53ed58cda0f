//! One test for each thing that dirty entries do.

use super::*;
use crate::dead_letters::Refusal;
use crate::port::Timestamp;

fn dirty() -> Dirty {
    Dirty::new(&Hasher::with_seed(1), Mutations::default())
}

fn entry(version: u64, lsn: u64) -> DirtyEntry {
    DirtyEntry {
        lineage: Lineage::default(),
        class: 0,
        change: Change::Delete,
        version: Version::from_raw(version),
        lsn: Some(Lsn(lsn)),
        since: Duration::from_millis(version),
        turn: 0,
        state: DirtyState::Waiting,
    }
}

fn refusal(reason: DeadLetterReason) -> Refusal {
    Refusal::new(reason, Some("23514"), "no", Timestamp::from_millis(7))
}

#[test]
fn an_entry_written_again_while_claimed_stays_dirty() {
    let mut dirty = dirty();
    dirty.insert(Key::from("k"), entry(1, 1));
    let claims = dirty.claim(0, 10, u64::MAX);
    dirty.insert(Key::from("k"), entry(2, 2));
    assert!(
        dirty.claim(0, 10, u64::MAX).is_empty(),
        "no second claim of a key while one is out"
    );
    assert!(
        dirty.settle(&claims[0]).is_none(),
        "un-dirty only what is unchanged"
    );
    assert_eq!((dirty.unflushed(), dirty.len()), (1, 1));
    let claims = dirty.claim(0, 10, u64::MAX);
    assert_eq!(claims[0].version, Version::from_raw(2));
    assert!(dirty.settle(&claims[0]).is_some());
    assert_eq!(
        (dirty.unflushed(), dirty.len(), dirty.oldest_lsn()),
        (0, 0, None)
    );
    assert!(dirty.audit().is_empty(), "{:?}", dirty.audit());
}

#[test]
fn an_older_write_is_not_taken() {
    let mut dirty = dirty();
    dirty.insert(Key::from("k"), entry(5, 5));
    assert!(
        dirty
            .insert(Key::from("k"), entry(4, 6))
            .is_some_and(|e| e.lsn == Some(Lsn(6)))
    );
    assert_eq!(
        dirty.get(b"k").map(|e| e.version),
        Some(Version::from_raw(5))
    );
}

#[test]
fn coalescing_keeps_the_place_and_the_age() {
    let mut dirty = dirty();
    dirty.insert(Key::from("a"), entry(1, 1));
    dirty.insert(Key::from("b"), entry(2, 2));
    dirty.insert(Key::from("a"), entry(3, 3));
    let front = Front {
        class: 0,
        ready: 2,
        ready_bytes: 2 * (DIRTY_OVERHEAD_BYTES + 1),
        since: Duration::from_millis(1),
        urgent: false,
    };
    assert_eq!(dirty.fronts().next(), Some(front));
    assert_eq!(dirty.oldest_lsn(), Some(Lsn(2)));
    assert_eq!(dirty.claim(0, 1, u64::MAX)[0].version, Version::from_raw(3));
}

#[test]
fn a_parked_entry_waits_for_a_newer_write_or_a_retry_and_counts_its_attempts() {
    let mut dirty = dirty();
    dirty.insert(Key::from("k"), entry(1, 1));
    let claim = dirty.claim(0, 1, u64::MAX).remove(0);
    assert!(dirty.park(&claim, refusal(DeadLetterReason::Refused)));
    assert_eq!((dirty.unflushed(), dirty.parked()), (0, 1));
    assert!(dirty.retry_parked(b"k"));
    assert!(!dirty.retry_parked(b"k"), "it is no dead letter now");
    assert_eq!((dirty.unflushed(), dirty.parked()), (1, 0));
    assert!(dirty.fronts().all(|front| front.urgent), "at once");
    let claim = dirty.claim(0, 1, u64::MAX).remove(0);
    dirty.park(&claim, refusal(DeadLetterReason::Refused));
    assert_eq!(dirty.refusal(b"k").map(|refusal| refusal.attempts), Some(2));
    dirty.insert(Key::from("k"), entry(2, 2));
    assert_eq!((dirty.unflushed(), dirty.parked()), (1, 0));
    assert!(dirty.refusal(b"k").is_none(), "the newer write has no past");
    assert!(dirty.audit().is_empty(), "{:?}", dirty.audit());
}

#[test]
fn the_loser_of_a_conflict_is_kept_and_not_read() {
    let mut dirty = dirty();
    dirty.insert(Key::from("k"), entry(1, 1));
    let claim = dirty.claim(0, 1, u64::MAX).remove(0);
    assert!(dirty.park(&claim, refusal(DeadLetterReason::Conflict)));
    assert!(dirty.get(b"k").is_none());
    assert!(dirty.entry(b"k").is_some());
    assert_eq!(dirty.visible().count(), 0);
    assert!(dirty.retry_parked(b"k"));
    assert!(dirty.get(b"k").is_none(), "not while it is retried either");
    dirty.insert(Key::from("k"), entry(2, 2));
    assert!(dirty.get(b"k").is_some());
}

#[test]
fn a_discard_takes_only_the_version_it_names() {
    let mut dirty = dirty();
    dirty.insert(Key::from("k"), entry(1, 1));
    let claim = dirty.claim(0, 1, u64::MAX).remove(0);
    dirty.park(&claim, refusal(DeadLetterReason::Refused));
    let version = Version::from_raw(1);
    assert!(!dirty.begin_discard(b"k", Version::from_raw(2)));
    assert!(dirty.begin_discard(b"k", version));
    assert!(!dirty.retry_parked(b"k"), "not while it is being discarded");
    assert!(dirty.end_discard(b"k", version, false).is_none());
    assert!(dirty.begin_discard(b"k", version));
    dirty.insert(Key::from("k"), entry(2, 2));
    assert!(
        dirty.end_discard(b"k", version, true).is_none(),
        "superseded meanwhile"
    );
    assert_eq!(dirty.len(), 1);
    assert!(dirty.audit().is_empty(), "{:?}", dirty.audit());
}

#[test]
fn a_refused_claim_that_was_overtaken_is_superseded() {
    let mut dirty = dirty();
    dirty.insert(Key::from("k"), entry(1, 1));
    let claim = dirty.claim(0, 1, u64::MAX).remove(0);
    dirty.insert(Key::from("k"), entry(2, 2));
    assert!(!dirty.park(&claim, refusal(DeadLetterReason::Refused)));
    assert_eq!((dirty.unflushed(), dirty.parked()), (1, 0));
    assert_eq!(dirty.claim(0, 1, u64::MAX)[0].version, Version::from_raw(2));
}

#[test]
fn a_flush_is_not_done_while_a_claim_that_was_overtaken_is_not_stored() {
    let mut dirty = dirty();
    dirty.insert(Key::from("k"), entry(1, 1));
    let claims = dirty.claim(0, 10, u64::MAX);
    dirty.insert(Key::from("k"), entry(2, 2));
    let target = dirty.next_turn();
    dirty.unclaim(&claims[0]);
    assert!(
        !dirty.is_flushed_before(0, target),
        "no version of the key is stored"
    );
    assert_eq!(dirty.unflushed_before(0, target), 1);
    let claims = dirty.claim(0, 10, u64::MAX);
    dirty.insert(Key::from("k"), entry(3, 3));
    assert!(dirty.settle(&claims[0]).is_none());
    assert!(
        dirty.is_flushed_before(0, target),
        "what came later is not waited for"
    );
    assert!(dirty.audit().is_empty(), "{:?}", dirty.audit());
}

#[test]
fn two_batches_of_a_lane_hold_different_keys_and_are_given_back_together() {
    let mut dirty = dirty();
    for n in 1..=4 {
        dirty.insert(Key::from(format!("k{n}")), entry(n, n));
    }
    let (first, second) = (dirty.claim(0, 2, u64::MAX), dirty.claim(0, 2, u64::MAX));
    assert_eq!((first.len(), second.len()), (2, 2));
    assert!(dirty.settle(&second[1]).is_some(), "in any order");
    assert!(!dirty.is_flushed_before(0, 1));
    dirty.unclaim_all();
    assert_eq!(dirty.unflushed(), 3);
    assert!(
        dirty.settle(&first[0]).is_none(),
        "the claim is no longer out"
    );
    assert_eq!(dirty.claim(0, 9, u64::MAX).len(), 3);
    assert!(dirty.audit().is_empty(), "{:?}", dirty.audit());
}

#[test]
fn a_record_that_was_moved_lets_the_old_place_go_when_the_new_one_is_durable() {
    let mut dirty = dirty();
    dirty.insert(Key::from("old"), entry(1, 1));
    dirty.insert(Key::from("new"), entry(2, 9));
    assert_eq!(dirty.recorded_before(Lsn(9), 10), [Key::from("old")]);
    let pin = dirty.move_record(&Key::from("old"), Lsn(10));
    assert_eq!(dirty.oldest_lsn(), Some(Lsn(1)));
    dirty.unpin(pin);
    assert_eq!(dirty.oldest_lsn(), Some(Lsn(9)));
    assert!(dirty.recorded_before(Lsn(9), 10).is_empty());
    assert!(dirty.audit().is_empty(), "{:?}", dirty.audit());
}

#[test]
fn a_hot_key_behind_a_stuck_one_does_not_grow_the_record_queue() {
    let mut dirty = dirty();
    dirty.insert(Key::from("stuck"), entry(1, 1));
    for n in 2..10_000 {
        dirty.insert(Key::from("hot"), entry(n, n));
    }
    assert!(dirty.records.len() <= 1024 + 2 * 2 + 1);
    assert_eq!(dirty.oldest_lsn(), Some(Lsn(1)));
}

#[test]
fn a_flush_waits_for_what_was_written_behind_a_claim_before_it_was_asked_for() {
    let mut dirty = dirty();
    dirty.insert(Key::from("k"), entry(1, 1));
    let claims = dirty.claim(0, 10, u64::MAX);
    dirty.insert(Key::from("k"), entry(2, 2));
    let target = dirty.next_turn();
    dirty.insert(Key::from("k"), entry(3, 3));
    assert!(dirty.settle(&claims[0]).is_none());
    assert!(
        !dirty.is_flushed_before(0, target),
        "the second is not stored"
    );
    assert_eq!(dirty.unflushed_before(0, target), 1);
    let claims = dirty.claim(0, 10, u64::MAX);
    dirty.insert(Key::from("k"), entry(4, 4));
    assert!(dirty.settle(&claims[0]).is_none());
    assert!(dirty.is_flushed_before(0, target), "the fourth came later");
    assert!(dirty.audit().is_empty(), "{:?}", dirty.audit());
}

#[test]
fn while_a_discard_is_on_its_way_no_record_of_the_letter_follows_it() {
    let mut dirty = dirty();
    let (key, version) = (Key::from("k"), Version::from_raw(1));
    dirty.insert(key.clone(), entry(1, 1));
    let claim = dirty.claim(0, 1, u64::MAX).remove(0);
    assert!(dirty.park(&claim, refusal(DeadLetterReason::Refused)));
    assert!(dirty.begin_discard(key.as_bytes(), version));
    assert!(dirty.unrecorded_letters(10).is_empty());
    assert!(dirty.recorded_before(Lsn(9), 10).is_empty());
    assert!(dirty.end_discard(key.as_bytes(), version, false).is_none());
    assert_eq!(dirty.unrecorded_letters(10).len(), 1, "it came to nothing");
    assert_eq!(dirty.recorded_before(Lsn(9), 10).len(), 1);
    assert!(dirty.begin_discard(key.as_bytes(), version));
    assert!(dirty.end_discard(key.as_bytes(), version, true).is_some());
    assert_eq!((dirty.len(), dirty.oldest_lsn()), (0, None));
}
