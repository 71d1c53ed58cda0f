//! What grows has a bound, what is on its way counts, and what happens at the bound is chosen.

use futures_util::future::join_all;
use tidegate_core::{ErrorKind, State, WhenFull};
use tidegate_testkit::sim::StoreFaults;

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
