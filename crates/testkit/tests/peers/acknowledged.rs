//! What was acknowledged stays: across crashes and outages, in its order, for every way of asking.

use futures_util::future::join_all;
use tidegate_core::{Lookup, State};
use tidegate_testkit::sim::StoreFaults;

use crate::back;
use crate::life::{crash, live};
use crate::world::{World, ms, pass, text};

/// hazelcast/hazelcast#5757: a member restarted while the database was down, and its dirty entries were gone.
#[test]
fn a_restart_while_the_store_is_down_keeps_what_is_dirty() {
    let world = World::new();
    world.set_down(true);
    crash(&world, async {
        let gate = world.gate([back()]).await;
        join_all((0..50).map(|i| gate.set(format!("b:{i}"), format!("{i}")))).await;
        gate.delete("b:0").await.unwrap();
        gate.set("b:1", "newer").await.unwrap();
    });
    for _ in 0..3 {
        crash(&world, async {
            let gate = world.gate([back()]).await;
            assert_eq!(text(&gate, "b:0").await, None);
            assert_eq!(text(&gate, "b:1").await.as_deref(), Some("newer"));
            assert_eq!(text(&gate, "b:49").await.as_deref(), Some("49"));
            assert!(!gate.flush(ms(1_000)).await.unwrap().is_complete());
        });
    }
    assert_eq!(
        world.row("b", "b:1"),
        None,
        "the store was down all the time"
    );
    world.set_down(false);
    live(async {
        let gate = world.gate([back()]).await;
        assert!(gate.drain(ms(10_000)).await.unwrap().is_complete());
    });
    for i in 2..50 {
        assert_eq!(world.value("b", &format!("b:{i}")), Some(format!("{i}")));
    }
    assert_eq!(world.value("b", "b:1").as_deref(), Some("newer"));
}

/// redisson/redisson#2388: what was popped from the queue and not yet written was lost with the process.
#[test]
fn what_is_on_its_way_to_the_store_stays_dirty_until_the_store_has_it() {
    let world = World::new();
    crash(&world, async {
        let gate = world.gate([back()]).await;
        let slow = StoreFaults::none(ms(3_600_000));
        world.store.set_faults(slow);
        gate.set("b:1", "v").await.unwrap();
        pass(ms(200)).await;
        assert_eq!(gate.explain(b"b:1").state, State::Flushing);
        assert_eq!(gate.stats().classes[0].dirty_entries, 1);
    });
    assert_eq!(world.row("b", "b:1"), None);
    world.set_down(false);
    live(async {
        let gate = world.gate([back()]).await;
        assert_eq!(text(&gate, "b:1").await.as_deref(), Some("v"));
        assert!(gate.drain(ms(10_000)).await.unwrap().is_complete());
    });
    assert_eq!(world.value("b", "b:1").as_deref(), Some("v"));
}

/// redisson/redisson#2210: puts and deletes of one key were queued apart and flushed deletes first.
#[tokio::test(start_paused = true)]
async fn puts_and_deletes_of_one_key_reach_the_store_in_their_order() {
    for order in 0..64_u32 {
        let world = World::new();
        let gate = world.gate([back().linger(ms(0))]).await;
        for step in 0..6 {
            if order >> step & 1 == 1 {
                gate.set("b:1", format!("{step}")).await.unwrap();
            } else {
                gate.delete("b:1").await.unwrap();
            }
            // Some meet in the queue, some find the one before them on its way, some come after it.
            pass(ms(world.random.below(4))).await;
        }
        assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
        let last_is_put = order >> 5 & 1 == 1;
        let expected = last_is_put.then_some("5");
        assert_eq!(world.value("b", "b:1").as_deref(), expected, "{order:06b}");
        assert_eq!(text(&gate, "b:1").await.as_deref(), expected);
    }
}

/// bluetape4k/bluetape4k-projects#1657: a failed write was queued again behind a newer one, and won.
#[tokio::test(start_paused = true)]
async fn a_write_that_is_tried_again_never_wins_over_a_newer_one() {
    for _ in 0..20 {
        let world = World::new();
        let gate = world.gate([back().linger(ms(1))]).await;
        let mut faults = StoreFaults::none(ms(2));
        faults.stall = 0.2;
        faults.unavailable = 0.3;
        faults.unknown = 0.5;
        faults.late = 0.7;
        world.store.set_faults(faults);
        for step in 0..40 {
            gate.set("b:1", format!("{step}")).await.unwrap();
            pass(ms(world.random.below(20))).await;
        }
        world.set_down(false);
        assert!(gate.flush(ms(60_000)).await.unwrap().is_complete());
        pass(ms(60_000)).await;
        assert_eq!(world.value("b", "b:1").as_deref(), Some("39"));
    }
}

/// redisson/redisson#5250: instances that flushed at once raced to create a row.
#[tokio::test(start_paused = true)]
async fn two_that_create_one_row_at_once_leave_the_newer_one_and_a_word_about_the_other() {
    let world = World::new();
    let (first, second) = (world.gate([back()]).await, world.gate([back()]).await);
    let older = first.set("b:1", "older").await.unwrap();
    let newer = second.set("b:1", "newer").await.unwrap();
    assert!(older.receipt.version < newer.receipt.version);
    let (one, two) = tokio::join!(first.flush(ms(10_000)), second.flush(ms(10_000)));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.left, two.left), (0, 0), "nobody waits for the other");
    assert_eq!(world.value("b", "b:1").as_deref(), Some("newer"));
    assert!(two.is_complete());
}

/// foyer-rs/foyer#1334, #1336, #1018: an insert that succeeded was dropped, `contains` said no where `get`
/// found, and after a restart there was nothing.
#[test]
fn what_was_acknowledged_is_there_for_every_way_of_asking_and_after_a_restart() {
    let world = World::new();
    let keys: Vec<String> = (0..40).map(|i| format!("b:{i:02}")).collect();
    let check = async |gate: &tidegate_core::Gate, when: &str| {
        for key in &keys {
            assert_eq!(text(gate, key).await.as_deref(), Some("v"), "{when}: get");
            let read = gate.read(key.as_bytes()).await.unwrap();
            assert!(read.entry.is_some(), "{when}: read");
            let lookup = gate.lookup(key.as_bytes());
            assert!(matches!(lookup, Lookup::Hit(_)), "{when}: {lookup:?}");
            let state = gate.explain(key.as_bytes()).state;
            assert!(!matches!(state, State::Absent | State::Negative), "{when}");
        }
        let mut met = Vec::new();
        let mut from = tidegate_core::ScanCursor::default();
        loop {
            let (page, next) = gate.scan(from, 7).await.unwrap();
            met.extend(page.iter().map(ToString::to_string));
            let Some(next) = next else { break };
            from = next;
        }
        met.sort();
        met.dedup();
        assert_eq!(met, keys, "{when}: scan");
        assert_eq!(gate.count().await.unwrap(), 40, "{when}: count");
    };
    crash(&world, async {
        let gate = world.gate([back().linger(ms(3_600_000))]).await;
        join_all(keys.iter().map(|key| gate.set(key, "v"))).await;
        // Full batches are on their way; the rest lingers.
        pass(ms(1_000)).await;
        check(&gate, "dirty").await;
        gate.evict_all();
        check(&gate, "evicted").await;
    });
    crash(&world, async {
        let gate = world.gate([back()]).await;
        check(&gate, "replayed").await;
        assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
        gate.evict_all();
        check(&gate, "flushed and evicted").await;
    });
    live(async {
        let gate = world.gate([back()]).await;
        check(&gate, "read from the store").await;
    });
}

/// infinispan/infinispan PR#3548, PR#1319: after an eviction or a removal the store was read, which did not
/// have the write, or still had what was removed.
#[tokio::test(start_paused = true)]
async fn a_read_after_an_eviction_or_a_delete_does_not_go_behind_what_is_dirty() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    for i in 0..10 {
        gate.set(format!("b:{i}"), "old").await.unwrap();
    }
    gate.flush(ms(10_000)).await.unwrap();
    world.store.set_faults(StoreFaults::none(ms(200)));
    for i in 0..10 {
        let key = format!("b:{i}");
        match i % 2 {
            0 => gate.set(&key, "new").await.unwrap(),
            _ => gate.delete(&key).await.unwrap(),
        };
        // From dirty over being flushed to clean, with the copy taken away each time.
        let expected = (i % 2 == 0).then_some("new");
        for _ in 0..40 {
            gate.evict(key.as_bytes());
            assert_eq!(text(&gate, &key).await.as_deref(), expected, "{key}");
            pass(ms(10)).await;
        }
    }
}
