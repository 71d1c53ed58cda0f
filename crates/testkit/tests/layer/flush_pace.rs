//! How flushes go out: several at once and never of one key, as large as the store can take, one at a time
//! when it is away, and again after a flusher has died.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tidegate_core::memory::MemoryJournal;
use tidegate_core::port::{BoxFuture, Journal, JournalError, Lsn, Replayed};
use tidegate_core::{BreakerState, Class, Durability, Gate, Strategy};

use crate::hooked::Hooked;
use crate::world::{World, ms, pass};

fn back() -> Class {
    Class::new("b", "b:*")
        .strategy(Strategy::WriteBack)
        .durability(Durability::Memory)
        .linger(ms(20))
}

async fn one_lane(world: &World, store: &Hooked, class: Class) -> Gate {
    let builder = world.builder().store(store.clone()).lanes(1);
    builder.class(class).open().await.unwrap()
}

async fn set(gate: &Gate, keys: std::ops::Range<usize>, value: &str) {
    for key in keys {
        gate.set(format!("b:{key}"), value.to_owned())
            .await
            .unwrap();
    }
}

fn assert_audit(gate: &Gate) {
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

#[tokio::test(start_paused = true)]
async fn full_batches_of_one_lane_are_on_their_way_together_and_never_with_the_same_key() {
    let world = World::new();
    let store = Hooked::new(world.rows.clone());
    store.settings().costs.0 = ms(50);
    let gate = one_lane(&world, &store, back().batch(100)).await;
    // The store looks that no key is in two transactions at once.
    for turn in 0..5 {
        set(&gate, 0..1_000, &turn.to_string()).await;
        pass(ms(30)).await;
    }
    assert!(gate.flush(ms(60_000)).await.unwrap().is_complete());
    for key in 0..1_000 {
        let value = world.value("b", &format!("b:{key}"));
        assert_eq!(value.as_deref(), Some("4"));
    }
    let settings = store.settings();
    assert!(settings.at_once >= 3, "{} at once", settings.at_once);
    assert!(settings.at_once <= 8, "{} at once", settings.at_once);
    assert!(settings.sizes.iter().all(|size| *size <= 100));
    drop(settings);
    assert_audit(&gate);
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_batch_is_on_its_way_shares_the_next_one() {
    let world = World::new();
    let store = Hooked::new(world.rows.clone());
    store.settings().costs.0 = ms(20);
    let gate = one_lane(&world, &store, back().linger(Duration::ZERO)).await;
    for key in 0..400 {
        set(&gate, key..key + 1, "v").await;
        pass(ms(1)).await;
    }
    gate.flush(ms(10_000)).await.unwrap();
    let applies = store.settings().applies;
    assert!(
        applies <= 30,
        "{applies} transactions in 400 ms of 20 ms each"
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_stuck_does_not_hold_up_the_lane() {
    let world = World::new();
    let store = Hooked::new(world.rows.clone());
    store.settings().costs.0 = ms(2);
    let gate = one_lane(&world, &store, back()).await;
    set(&gate, 0..1, "v").await;
    gate.flush(ms(1_000)).await.unwrap();
    store.settings().stuck = Some("b:stuck");
    gate.set("b:stuck", "v").await.unwrap();
    pass(ms(100)).await;
    set(&gate, 1..20, "v").await;
    pass(ms(2_000)).await;
    assert_eq!(world.value("b", "b:19").as_deref(), Some("v"));
    let report = gate.flush(ms(1_000)).await.unwrap();
    assert_eq!((report.left, report.parked), (1, 0));
    assert_eq!(gate.stats().flushes_in_flight, 1);
}

#[tokio::test(start_paused = true)]
async fn when_the_store_is_away_one_asks_and_the_others_wait() {
    let world = World::new();
    let store = Hooked::new(world.rows.clone());
    store.settings().costs.0 = ms(1);
    let builder = world.builder().store(store.clone()).lanes(8).class(back());
    let gate = builder.open().await.unwrap();
    store.settings().away = true;
    set(&gate, 0..200, "v").await;
    pass(ms(5_000)).await;
    assert_ne!(gate.stats().breaker, BreakerState::Closed);
    let before = store.settings().applies;
    {
        let mut settings = store.settings();
        settings.at_once = 0;
    }
    pass(ms(60_000)).await;
    {
        let settings = store.settings();
        let tries = settings.applies - before;
        assert!((15..=240).contains(&tries), "{tries} tries in a minute");
        assert_eq!(settings.at_once, 1, "one at a time");
    }
    let stats = gate.stats();
    assert_eq!(stats.classes[0].dirty_entries, 200);
    assert!(stats.classes[0].flush_failures > 15);
    assert_eq!(stats.classes[0].time_to_drain, None, "nothing is flushed");
    // A flush that is asked for does not wait for the next probe.
    store.settings().away = false;
    let asked = gate.now();
    assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
    let took = gate.now().since(asked);
    assert!(took <= ms(100), "{took:?}");
    let stats = gate.stats();
    assert_eq!(stats.breaker, BreakerState::Closed);
    assert_eq!(stats.classes[0].time_to_drain, Some(Duration::ZERO));
    assert_audit(&gate);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_outage_is_noticed_unasked() {
    let world = World::new();
    let store = Hooked::new(world.rows.clone());
    let gate = one_lane(&world, &store, back()).await;
    store.settings().away = true;
    set(&gate, 0..50, "v").await;
    pass(ms(600_000)).await;
    store.settings().away = false;
    pass(ms(3_100)).await;
    assert_eq!(gate.stats().classes[0].dirty_entries, 0);
    assert_eq!(gate.stats().breaker, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn one_poison_row_in_a_thousand_holds_the_others_up_less_than_three_times() {
    let mut took = Vec::new();
    for poison in [None, Some(0), Some(499), Some(999)] {
        let world = World::new();
        let store = Hooked::new(world.rows.clone());
        {
            let mut settings = store.settings();
            settings.refused = Some("!");
            settings.costs = (ms(2), Duration::from_micros(50));
        }
        let gate = one_lane(&world, &store, back().linger(ms(3_600_000)).batch(1_001)).await;
        set(&gate, 0..1_000, "v").await;
        if let Some(poison) = poison {
            gate.set(format!("b:{poison}"), "!poison").await.unwrap();
        }
        let start = gate.now();
        let report = gate.flush(ms(60_000)).await.unwrap();
        assert_eq!(report.left, 0);
        assert_eq!(report.parked, u64::from(poison.is_some()));
        assert_eq!(report.flushed, 1_000 - report.parked);
        took.push(gate.now().since(start));
        let applies = store.settings().applies;
        assert!(applies <= 21, "{applies} transactions");
    }
    for poisoned in &took[1..] {
        assert!(*poisoned < took[0] * 3, "{took:?}");
    }
}

/// A journal whose trim panics now and then: a bug of an adapter.
struct Panicky {
    inner: MemoryJournal,
    panics: Arc<AtomicUsize>,
}

impl Journal for Panicky {
    fn submit(&self, records: &[Bytes]) -> Result<Lsn, JournalError> {
        self.inner.submit(records)
    }
    fn wait(&self, last: Lsn) -> BoxFuture<'_, Result<(), JournalError>> {
        self.inner.wait(last)
    }
    fn room(&self, records: &[Bytes]) -> BoxFuture<'_, Result<(), JournalError>> {
        self.inner.room(records)
    }
    fn tail(&self) -> Lsn {
        self.inner.tail()
    }
    fn synced(&self) -> Lsn {
        self.inner.synced()
    }
    fn replay(
        &self,
        from: Lsn,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Replayed>, JournalError>> {
        self.inner.replay(from, limit)
    }
    fn trim(&self, to: Lsn) -> BoxFuture<'_, Result<(), JournalError>> {
        let left = self.panics.load(Ordering::Relaxed);
        if left > 0 {
            self.panics.store(left - 1, Ordering::Relaxed);
            panic!("a bug of an adapter");
        }
        self.inner.trim(to)
    }
    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

#[tokio::test(start_paused = true)]
async fn a_flusher_that_panics_is_started_anew_and_counted() {
    let world = World::new();
    let panics = Arc::new(AtomicUsize::new(3));
    let journal = Panicky {
        inner: MemoryJournal::new(),
        panics: Arc::clone(&panics),
    };
    let class = back().durability(Durability::Journal).batch(5);
    let builder = world.builder().lanes(1).journal(journal).class(class);
    let gate = builder.open().await.unwrap();
    set(&gate, 0..50, "v").await;
    pass(ms(5_000)).await;
    assert_eq!(panics.load(Ordering::Relaxed), 0);
    let stats = gate.stats();
    assert!((1..=3).contains(&stats.flusher_restarts), "{stats:?}");
    assert_eq!(stats.classes[0].dirty_entries, 0);
    assert_eq!(stats.flushes_in_flight, 0, "what the dead one held is free");
    set(&gate, 0..50, "w").await;
    assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
    assert_eq!(world.value("b", "b:49").as_deref(), Some("w"));
    assert_audit(&gate);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_full_by_bytes_too_and_a_write_that_is_larger_goes_alone() {
    let world = World::new();
    let store = Hooked::new(world.rows.clone());
    let class = back().linger(ms(3_600_000)).batch_bytes(10_000);
    let gate = one_lane(&world, &store, class).await;
    gate.set("b:large", vec![7; 20_000]).await.unwrap();
    pass(ms(10)).await;
    assert!(
        world.value("b", "b:large").is_some(),
        "it did not wait for others"
    );
    let value = "v".repeat(2_000);
    set(&gate, 0..20, &value).await;
    pass(ms(10)).await;
    gate.flush(ms(10_000)).await.unwrap();
    let settings = store.settings();
    assert_eq!(settings.sizes.iter().sum::<usize>(), 21);
    assert!(
        settings.sizes.iter().all(|size| *size <= 3),
        "{:?}",
        settings.sizes
    );
    drop(settings);
    assert_audit(&gate);
}
