//! What grows has a bound, what is on its way counts, and what happens at the bound is chosen.

use futures_util::future::join_all;
use tidegate_core::{ErrorKind, State, WhenFull, WhenJournalFails};
use tidegate_testkit::sim::{JournalFaults, StoreFaults};

use crate::back;
use crate::world::{World, ms, pass, text};

/// redisson/redisson#4921: a thousand updates a second of hot keys, a database that takes two hundred, and a
/// queue that lagged ever more behind.
#[tokio::test(start_paused = true)]
async fn a_thousand_updates_a_second_of_hot_keys_do_not_lag_behind_a_store_that_takes_two_hundred()
{
    let world = World::new();
    let gate = world.builder().lanes(1).class(back()).open().await.unwrap();
    // Each batch takes up to eighty milliseconds.
    world.store.set_faults(StoreFaults::none(ms(40)));
    for i in 0..10_000_u64 {
        gate.set(format!("b:{}", world.random.below(7)), format!("{i}"))
            .await
            .unwrap();
        if i % 100 == 0 && i > 1_000 {
            let stats = &gate.stats().classes[0];
            assert!(stats.dirty_entries <= 7);
            assert!(
                stats.oldest_dirty.is_none_or(|age| age < ms(1_000)),
                "{stats:?}"
            );
        }
        pass(ms(1)).await;
    }
    let rows = world.store.calls().applied_writes;
    assert!(rows < 2_000, "{rows} rows for 10000 writes in ten seconds");
    assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
}

/// infinispan/infinispan PR#8783: the real number of pending writes was twice the bound, for what was being
/// written did not count.
#[tokio::test(start_paused = true)]
async fn the_bound_counts_what_is_on_its_way_to_the_store() {
    let world = World::new();
    let class = back()
        .linger(ms(0))
        .dirty_bytes_max(6_000, WhenFull::Reject);
    let gate = world.builder().lanes(1).class(class).open().await.unwrap();
    world.store.set_faults(StoreFaults::none(ms(3_600_000)));
    let mut taken = 0;
    while gate.set(format!("b:{taken}"), vec![7; 100]).await.is_ok() {
        taken += 1;
        pass(ms(20)).await;
    }
    assert_eq!(gate.explain(b"b:0").state, State::Flushing);
    let stats = &gate.stats().classes[0];
    assert_eq!(stats.dirty_entries, taken);
    assert!(
        stats.dirty_bytes <= 6_000 && stats.dirty_bytes > 4_000,
        "{stats:?}"
    );
    world.set_down(false);
}

/// apache/ignite PR#5664 (IGNITE-5003), PR#3040: a write and an eviction of one key waited for each other,
/// and the path taken when the queue is full did less than the usual one.
#[tokio::test(start_paused = true)]
async fn writes_evictions_and_flushes_of_one_key_at_once_all_end_also_where_there_is_no_room() {
    for when_full in [WhenFull::Block, WhenFull::Reject] {
        let world = World::new();
        let class = back().linger(ms(1)).dirty_bytes_max(900, when_full);
        let gate = world.gate([class]).await;
        let work = (0..60).map(|i| {
            let gate = gate.clone();
            async move {
                let key = format!("b:{}", i % 4);
                for n in 0..10 {
                    gate.evict(key.as_bytes());
                    match gate.set(&key, format!("{i}.{n}")).await {
                        Ok(_) => assert!(gate.get(&key).await.unwrap().is_some()),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Overloaded),
                    }
                    if n % 4 == 0 {
                        gate.flush(ms(100)).await.unwrap();
                    }
                }
            }
        });
        let before = gate.now();
        join_all(work).await;
        assert!(gate.now().since(before) < ms(60_000));
        assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
        assert!(gate.audit().is_empty(), "{:?}", gate.audit());
        for key in ["b:0", "b:1", "b:2", "b:3"] {
            assert_eq!(text(&gate, key).await, world.value("b", key));
        }
    }
}

/// apache/geode PR#5509, PR#7422: what a stopped sender remembered of dropped events grew without end.
#[tokio::test(start_paused = true)]
async fn an_outage_leaves_nothing_behind_when_it_is_over() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    let mut faults = StoreFaults::none(ms(1));
    faults.unavailable = 0.5;
    faults.unknown = 1.0;
    faults.late = 0.5;
    world.store.set_faults(faults);
    for i in 0..3_000_u64 {
        gate.set(format!("b:{}", i % 7), format!("{i}"))
            .await
            .unwrap();
    }
    assert!(gate.stats().classes[0].dirty_entries <= 7);
    world.set_down(false);
    assert!(gate.flush(ms(60_000)).await.unwrap().is_complete());
    pass(ms(60_000)).await;
    let stats = gate.stats();
    assert_eq!((stats.quarantined, stats.classes[0].dirty_bytes), (0, 0));
    assert!(
        world.disk.len() <= 2,
        "{} records are kept",
        world.disk.len()
    );
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

/// tapdata/tapdata#3283: a queue without a bound and retries without an end took all memory, and its users
/// built marks outside of it.
#[tokio::test(start_paused = true)]
async fn an_outage_of_hours_keeps_no_more_bytes_and_entries_than_the_class_says() {
    let world = World::new();
    let class = back()
        .dirty_bytes_max(100_000, WhenFull::Reject)
        .dirty_entries_max(50);
    let gate = world.gate([class]).await;
    world.set_down(true);
    for hour in 0..6 {
        for i in 0..100 {
            let key = format!("b:{}", world.random.below(10_000));
            let written = gate.set(key, vec![7; 100 * (1 + i % 40)]).await;
            assert!(written.is_ok() || hour > 0 || i > 10);
            let stats = &gate.stats().classes[0];
            assert!(stats.dirty_bytes <= 100_000, "{stats:?}");
            assert!(stats.dirty_entries <= 50, "{stats:?}");
        }
        pass(ms(3_600_000)).await;
    }
    world.set_down(false);
    assert!(gate.flush(ms(60_000)).await.unwrap().is_complete());
    gate.set("b:again", "v").await.unwrap();
}

/// hazelcast/hazelcast#7231: a full queue could only fail the put, with an exception out of nowhere.
#[tokio::test(start_paused = true)]
async fn what_happens_when_there_is_no_room_is_chosen_by_the_class() {
    for when_full in [WhenFull::Block, WhenFull::Reject, WhenFull::WriteThrough] {
        let world = World::new();
        let class = back()
            .linger(ms(3_600_000))
            .dirty_entries_max(6)
            .block_timeout(ms(500))
            .when_full(when_full);
        let gate = world.gate([class]).await;
        let mut faults = StoreFaults::none(ms(1));
        if when_full != WhenFull::WriteThrough {
            faults.unavailable = 1.0;
        }
        world.store.set_faults(faults);
        let mut last = None;
        for i in 0..20 {
            let before = gate.now();
            last = Some((
                gate.set(format!("b:{i}"), "v").await,
                gate.now().since(before),
            ));
        }
        let (written, waited) = last.unwrap();
        match when_full {
            WhenFull::WriteThrough => {
                assert!(written.is_ok(), "{written:?}");
                assert_eq!(text(&gate, "b:19").await.as_deref(), Some("v"));
            }
            _ => {
                let error = written.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
                assert_eq!(waited >= ms(500), when_full == WhenFull::Block);
            }
        }
        world.set_down(false);
        assert!(gate.flush(ms(60_000)).await.unwrap().is_complete());
        assert_eq!(world.value("b", "b:0").as_deref(), Some("v"));
    }
}

/// hazelcast/hazelcast#7519: there was no going on through the store where the cache could not take writes.
#[tokio::test(start_paused = true)]
async fn a_class_may_go_on_through_the_store_when_its_journal_fails() {
    for (then, goes_on) in [
        (WhenJournalFails::Refuse, false),
        (WhenJournalFails::WriteThrough, true),
    ] {
        let world = World::new();
        let faults = JournalFaults {
            sync_max: ms(1),
            fail: 1.0,
            full: 0.0,
            answers_early: false,
        };
        let class = back().when_journal_fails(then);
        let gate = world
            .builder_with(faults)
            .class(class)
            .open()
            .await
            .unwrap();
        // The first one finds out.
        drop(gate.set("b:1", "v").await);
        let second = gate.set("b:2", "v").await;
        assert_eq!(second.is_ok(), goes_on, "{second:?}");
        assert_eq!(world.row("b", "b:2").is_some(), goes_on);
        assert_eq!(text(&gate, "b:2").await.is_some(), goes_on);
    }
}
