//! A store that fails, refuses, hangs or panics: what is tried again, how often, and who notices.

use futures_util::future::join_all;
use tidegate_core::{Class, Codec, ErrorKind, State};
use tidegate_testkit::sim::StoreFaults;

use crate::back;
use crate::world::{World, ms, pass, text};

/// hazelcast/hazelcast#9265: a store that failed was asked again for ever, without limit or pause, and what
/// it would never take was tried like the rest.
#[tokio::test(start_paused = true)]
async fn an_outage_is_tried_at_a_bounded_rate_and_a_refusal_has_an_end() {
    let world = World::new();
    let gate = world.builder().lanes(1).class(back()).open().await.unwrap();
    gate.set("b:bad", "!poison").await.unwrap();
    pass(ms(10_000)).await;
    let tries = world.store.calls().applies;
    assert_eq!(gate.explain(b"b:bad").state, State::Parked);
    pass(ms(3_600_000)).await;
    assert_eq!(world.store.calls().applies, tries, "it is not tried again");
    assert!(tries < 10, "{tries}");
    world.set_down(true);
    gate.set("b:good", "v").await.unwrap();
    pass(ms(3_600_000)).await;
    let tries = world.store.calls().applies - tries;
    assert!((60..3_600).contains(&tries), "{tries} in an hour");
    world.set_down(false);
    pass(ms(60_000)).await;
    assert_eq!(world.value("b", "b:good").as_deref(), Some("v"));
}

/// ehcache/ehcache3#628, #627: retries and their rate were taken out of write-behind and left to its users.
#[tokio::test(start_paused = true)]
async fn the_pauses_of_an_outage_grow_and_its_end_is_noticed_unasked() {
    let world = World::new();
    let gate = world.builder().lanes(1).class(back()).open().await.unwrap();
    world.set_down(true);
    gate.set("b:1", "v").await.unwrap();
    pass(ms(1_000)).await;
    let at_first = world.store.calls().applies;
    pass(ms(600_000)).await;
    let before = world.store.calls().applies;
    pass(ms(60_000)).await;
    let in_a_minute = world.store.calls().applies - before;
    assert!(at_first >= 3, "{at_first} in the first second");
    assert!(in_a_minute < at_first * 60 / 2, "{in_a_minute} in a minute");
    world.set_down(false);
    pass(ms(60_000)).await;
    assert_eq!(world.value("b", "b:1").as_deref(), Some("v"));
    assert_eq!(gate.stats().classes[0].dirty_entries, 0);
}

/// hazelcast/hazelcast#7762: one value that could not be decoded stopped the persistence of a whole map.
#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_decoded_concerns_nobody_else() {
    let world = World::new();
    let gate = world.gate([back().codec(Codec::Json)]).await;
    let numbers = gate.typed::<Vec<u32>>();
    gate.set("b:bad", "\u{1}no json").await.unwrap();
    for i in 0..20_u32 {
        numbers.set(format!("b:{i}"), &vec![i]).await.unwrap();
    }
    assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
    gate.evict_all();
    assert!(numbers.get("b:bad").await.is_err());
    for i in 0..20_u32 {
        assert_eq!(numbers.get(format!("b:{i}")).await.unwrap(), Some(vec![i]));
    }
    assert!(
        world.row("b", "b:bad").is_some(),
        "stored as it was written"
    );
}

/// hazelcast/hazelcast#11796: `flush()` did not return as long as one entry could not be written.
#[tokio::test(start_paused = true)]
async fn a_flush_with_one_entry_that_cannot_be_written_returns_and_tells() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    gate.set("b:bad", "!poison").await.unwrap();
    join_all((0..100).map(|i| gate.set(format!("b:{i}"), "v"))).await;
    let before = gate.now();
    let report = gate.flush(ms(3_600_000)).await.unwrap();
    assert!(
        gate.now().since(before) < ms(10_000),
        "long before its deadline"
    );
    assert_eq!((report.left, report.parked), (0, 1));
    assert_eq!(world.value("b", "b:99").as_deref(), Some("v"));
    world.set_down(true);
    gate.set("b:101", "v").await.unwrap();
    let before = gate.now();
    let report = gate.flush(ms(500)).await.unwrap();
    assert_eq!(report.left, 1);
    assert!(gate.now().since(before) < ms(600), "and never after it");
}

/// hazelcast/hazelcast#14019: a batch that failed was put back twice, and the queue grew with every failure.
#[tokio::test(start_paused = true)]
async fn the_queue_is_as_long_after_a_failure_as_before() {
    for _ in 0..10 {
        let world = World::new();
        let gate = world.gate([back().linger(ms(1)).batch(4)]).await;
        let mut faults = StoreFaults::none(ms(2));
        faults.unavailable = 0.5;
        faults.unknown = 0.4;
        world.store.set_faults(faults);
        for _ in 0..100 {
            let key = format!("b:{}", world.random.below(10));
            gate.set(key, "v").await.unwrap();
            pass(ms(world.random.below(10))).await;
            assert!(gate.stats().classes[0].dirty_entries <= 10);
        }
        world.set_down(true);
        for i in 0..10 {
            gate.set(format!("b:{i}"), "last").await.unwrap();
        }
        for _ in 0..20 {
            pass(ms(500)).await;
            assert_eq!(gate.stats().classes[0].dirty_entries, 10);
        }
        world.set_down(false);
        assert!(gate.flush(ms(60_000)).await.unwrap().is_complete());
        assert!(gate.audit().is_empty(), "{:?}", gate.audit());
    }
}

/// redisson/redisson#5224: a failed write was not tried again, and cache and database parted silently.
#[tokio::test(start_paused = true)]
async fn a_failure_is_tried_again_and_a_refusal_is_told_without_being_asked_for() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    world.set_down(true);
    gate.set("b:1", "v").await.unwrap();
    gate.set("b:bad", "!poison").await.unwrap();
    pass(ms(5_000)).await;
    world.set_down(false);
    pass(ms(60_000)).await;
    assert_eq!(world.value("b", "b:1").as_deref(), Some("v"));
    assert_eq!(gate.stats().classes[0].parked, 1);
    let why = gate.explain(b"b:bad").refused;
    assert!(why.is_some_and(|why| why.contains("23514")));
    assert_eq!(text(&gate, "b:bad").await.as_deref(), Some("!poison"));
}

/// redisson/redisson#3485, infinispan/infinispan PR#3548: after an exception the writer was never called
/// again, and nobody noticed.
#[tokio::test(start_paused = true)]
async fn a_store_that_panics_is_called_again() {
    let world = World::new();
    let gate = world.gate([back(), Class::new("t", "t:*")]).await;
    let mut faults = StoreFaults::none(ms(1));
    faults.panics = 1.0;
    world.store.set_faults(faults);
    gate.set("b:1", "v").await.unwrap();
    assert_eq!(
        gate.set("t:1", "v").await.unwrap_err().kind(),
        ErrorKind::Unknown
    );
    assert!(gate.get("t:2").await.is_err());
    pass(ms(5_000)).await;
    assert_eq!(
        gate.explain(b"b:1").state,
        State::Dirty,
        "kept, and to be seen"
    );
    assert!(
        gate.stats().classes[0]
            .oldest_dirty
            .is_some_and(|age| age >= ms(5_000))
    );
    world.set_down(false);
    pass(ms(60_000)).await;
    assert_eq!(world.value("b", "b:1").as_deref(), Some("v"));
    gate.set("t:1", "w").await.unwrap();
    assert_eq!(text(&gate, "t:1").await.as_deref(), Some("w"));
    assert!(gate.drain(ms(10_000)).await.unwrap().is_complete());
}

/// ehcache/ehcache3#413: a put into write-behind took as long as the slow writer behind it.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_does_not_wait_for_a_store_that_hangs() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    gate.set("b:0", "v").await.unwrap();
    gate.flush(ms(10_000)).await.unwrap();
    world.store.set_faults(StoreFaults::none(ms(3_600_000)));
    for i in 0..200 {
        let before = gate.now();
        gate.set(format!("b:{}", i % 50), format!("{i}"))
            .await
            .unwrap();
        assert!(text(&gate, "b:0").await.is_some());
        assert!(gate.now().since(before) <= ms(5), "a sync of the journal");
        pass(ms(10)).await;
    }
    world.set_down(false);
}

/// darkweak/souin#849: a load that stalled kept its key from being loaded for hours, and every waiter stayed
/// for good.
#[tokio::test(start_paused = true)]
async fn a_load_that_stalls_ends_for_its_readers_and_does_not_keep_its_key_from_being_loaded() {
    let world = World::new();
    let mut class = Class::new("t", "t:*");
    class.load_timeout = ms(200);
    let gate = world.builder().lanes(1).class(class).open().await.unwrap();
    world.write_outside("t", "t:1", "v").await;
    world.store.set_faults(StoreFaults::none(ms(36_000_000)));
    let before = gate.now();
    let reads = join_all((0..100).map(|_| gate.get("t:1"))).await;
    assert!(reads.iter().all(|read| {
        read.as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Unavailable)
    }));
    assert!(gate.now().since(before) < ms(300));
    world.set_down(false);
    pass(ms(500)).await;
    let before = gate.now();
    assert_eq!(text(&gate, "t:1").await.as_deref(), Some("v"));
    assert!(
        gate.now().since(before) < ms(100),
        "{:?}",
        gate.now().since(before)
    );
}
