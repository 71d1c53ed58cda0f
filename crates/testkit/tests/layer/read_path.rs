//! Single-flight, batched loads, negative entries, ttl and jitter, stale-if-error, timeouts.

use futures_util::future::join_all;
use tidegate_core::{Class, ErrorKind, Lookup, Source, Strategy};

use crate::world::{World, ms, pass, text};

#[tokio::test(start_paused = true)]
async fn one_thousand_readers_of_a_cold_key_cause_one_load() {
    let world = World::new();
    let gate = world.gate([]).await;
    world.write_outside("entries", "k", "v").await;
    let readers = (0..1000).map(|_| {
        let gate = gate.clone();
        tokio::spawn(async move { text(&gate, "k").await })
    });
    for read in join_all(readers).await {
        assert_eq!(read.unwrap().as_deref(), Some("v"));
    }
    assert_eq!(world.store.calls().loads, 1);
    assert_eq!(world.store.calls().loaded_keys, 1);
}

#[tokio::test(start_paused = true)]
async fn keys_asked_for_while_a_load_is_in_flight_go_out_as_one() {
    let world = World::new();
    let gate = world.builder().lanes(1).open().await.unwrap();
    for i in 0..100 {
        world.write_outside("entries", &format!("k{i}"), "v").await;
    }
    let keys: Vec<String> = (0..100).map(|i| format!("k{i}")).collect();
    assert!(
        gate.get_many(&keys)
            .await
            .unwrap()
            .iter()
            .all(Option::is_some)
    );
    // The store of these tests takes 8 keys at a time.
    let calls = world.store.calls();
    assert_eq!(calls.loaded_keys, 100);
    assert!(calls.loads <= 14, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_goes_away_does_not_take_the_load_along() {
    let world = World::new();
    let gate = world.gate([]).await;
    world.write_outside("entries", "k", "v").await;
    let leader = {
        let gate = gate.clone();
        tokio::spawn(async move { text(&gate, "k").await })
    };
    tokio::task::yield_now().await;
    let follower = {
        let gate = gate.clone();
        tokio::spawn(async move { text(&gate, "k").await })
    };
    tokio::task::yield_now().await;
    leader.abort();
    assert_eq!(follower.await.unwrap().as_deref(), Some("v"));
    assert_eq!(world.store.calls().loads, 1);
}

#[tokio::test(start_paused = true)]
async fn absence_is_remembered_for_a_short_while() {
    let world = World::new();
    let gate = world
        .gate([Class::new("u", "u:*").negative_ttl(ms(500))])
        .await;
    assert_eq!(text(&gate, "u:1").await, None);
    assert_eq!(gate.lookup(b"u:1"), Lookup::Negative);
    world.write_outside("u", "u:1", "v").await;
    assert_eq!(text(&gate, "u:1").await, None, "the negative entry answers");
    assert_eq!(world.store.calls().loads, 1);
    pass(ms(501)).await;
    assert_eq!(text(&gate, "u:1").await.as_deref(), Some("v"));
}

#[tokio::test(start_paused = true)]
async fn a_write_ends_a_negative_entry_at_once() {
    let world = World::new();
    let gate = world.gate([]).await;
    assert_eq!(text(&gate, "k").await, None);
    gate.set("k", "v").await.unwrap();
    assert_eq!(text(&gate, "k").await.as_deref(), Some("v"));
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_used_for_its_ttl_and_loaded_anew_after_it() {
    let world = World::new();
    let gate = world.gate([Class::new("u", "u:*").ttl(ms(1000))]).await;
    world.write_outside("u", "u:1", "old").await;
    assert_eq!(text(&gate, "u:1").await.as_deref(), Some("old"));
    world.write_outside("u", "u:1", "new").await;
    pass(ms(890)).await;
    assert_eq!(text(&gate, "u:1").await.as_deref(), Some("old"));
    pass(ms(120)).await;
    assert_eq!(text(&gate, "u:1").await.as_deref(), Some("new"));
}

#[tokio::test(start_paused = true)]
async fn copies_made_together_do_not_all_end_together() {
    let world = World::new();
    let gate = world.gate([Class::new("u", "u:*").ttl(ms(1000))]).await;
    let keys: Vec<String> = (0..200).map(|i| format!("u:{i}")).collect();
    for key in &keys {
        world.write_outside("u", key, "v").await;
    }
    gate.get_many(&keys).await.unwrap();
    let loaded = world.store.calls().loaded_keys;
    pass(ms(950)).await;
    gate.get_many(&keys).await.unwrap();
    let again = world.store.calls().loaded_keys - loaded;
    assert!(
        (20..180).contains(&again),
        "{again} of 200 ended within the first 95 hundredths"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stale_copy_is_served_only_while_the_store_is_away_and_not_for_ever() {
    let world = World::new();
    let class = Class::new("u", "u:*")
        .ttl(ms(1000))
        .stale_if_error(ms(60_000));
    let gate = world.gate([class]).await;
    world.write_outside("u", "u:1", "v").await;
    assert_eq!(text(&gate, "u:1").await.as_deref(), Some("v"));
    world.set_down(true);
    pass(ms(2000)).await;
    let read = gate.read(b"u:1").await.unwrap();
    assert_eq!(read.receipt.source, Source::Stale);
    assert!(read.receipt.age_bound >= ms(1900));
    pass(ms(60_000)).await;
    assert_eq!(
        gate.read(b"u:1").await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    world.set_down(false);
    assert_eq!(
        gate.read(b"u:1").await.unwrap().receipt.source,
        Source::Store
    );
}

#[tokio::test(start_paused = true)]
async fn without_stale_if_error_a_store_that_is_away_is_an_error_that_names_the_key() {
    let world = World::new();
    let gate = world.gate([]).await;
    world.set_down(true);
    let error = gate.get("k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("'k'"), "{error}");
    world.set_down(false);
    assert_eq!(text(&gate, "k").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_reader_waits_no_longer_than_its_class_says() {
    let world = World::new();
    let mut class = Class::new("u", "u:*");
    class.load_timeout = ms(50);
    let gate = world.gate([class]).await;
    let mut faults = tidegate_testkit::sim::StoreFaults::none(ms(100_000));
    faults.stall = 1.0;
    world.store.set_faults(faults);
    let error = gate.get("u:1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("load_timeout"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn data_past_its_life_is_absent_at_once_in_cache_and_store() {
    let world = World::new();
    for strategy in [
        Strategy::WriteThrough,
        Strategy::WriteBack,
        Strategy::WriteAround,
    ] {
        let name = strategy.as_str();
        let gate = world
            .gate([Class::new(name, &format!("{name}:*")).strategy(strategy)])
            .await;
        let key = format!("{name}:1");
        let at = gate.now().after(ms(100));
        gate.set_with(&key, "v", Some(at)).await.unwrap();
        assert_eq!(text(&gate, &key).await.as_deref(), Some("v"), "{name}");
        pass(ms(101)).await;
        assert_eq!(text(&gate, &key).await, None, "{name}");
        gate.drain(ms(10_000)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_sweeper_removes_expired_rows_from_the_store() {
    let world = World::new();
    let gate = world.gate([]).await;
    let at = gate.now().after(ms(100));
    gate.set_with("k", "v", Some(at)).await.unwrap();
    assert!(world.row("entries", "k").is_some());
    pass(ms(12_000)).await;
    assert!(world.row("entries", "k").is_none());
}

#[tokio::test(start_paused = true)]
async fn the_near_cache_stays_within_its_bound_and_loses_nothing_dirty() {
    let world = World::new();
    let class = Class::new("b", "b:*")
        .strategy(Strategy::WriteBack)
        .linger(ms(3_600_000))
        .batch(1_000_000);
    let gate = world
        .builder()
        .near_bytes(256 << 10)
        .class(class)
        .open()
        .await
        .unwrap();
    for i in 0..500 {
        gate.set(format!("b:{i}"), vec![1; 100]).await.unwrap();
    }
    for i in 0..5_000 {
        gate.set(format!("other:{i}"), vec![2; 100]).await.unwrap();
        if i % 500 == 0 {
            assert!(gate.stats().near.bytes <= 256 << 10);
        }
    }
    let calls = world.store.calls().loads;
    for i in 0..500 {
        assert_eq!(
            gate.get(format!("b:{i}")).await.unwrap().as_deref(),
            Some(&[1; 100][..])
        );
    }
    assert_eq!(
        world.store.calls().loads,
        calls,
        "a dirty entry is never asked of the store"
    );
    assert!(gate.stats().near.evictions > 3_000);
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}
