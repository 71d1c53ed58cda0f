//! Write-through, write-around, read-only, cache-only; updates; refusals; unknown outcomes; cancellation.

use bytes::Bytes;
use futures_util::future::join_all;
use tidegate_core::{Change, Class, Durability, Entry, ErrorKind, Lookup, State, Strategy};
use tidegate_testkit::sim::StoreFaults;

use crate::world::{World, ms, pass, text};

fn around() -> Class {
    Class::new("around", "around:*").strategy(Strategy::WriteAround)
}

#[tokio::test(start_paused = true)]
async fn write_through_is_in_store_and_cache_when_acknowledged() {
    let world = World::new();
    let gate = world.gate([]).await;
    let written = gate.set("k", "v").await.unwrap();
    assert_eq!(
        (written.existed, written.receipt.durability),
        (false, Durability::Store)
    );
    assert_eq!(world.value("entries", "k").as_deref(), Some("v"));
    assert!(matches!(gate.lookup(b"k"), Lookup::Hit(entry) if entry.value == "v"));
    assert!(gate.set("k", "w").await.unwrap().existed);
    assert!(gate.delete("k").await.unwrap().existed);
    assert!(!gate.delete("k").await.unwrap().existed);
    assert_eq!(world.row("entries", "k"), None);
    assert_eq!(gate.lookup(b"k"), Lookup::Negative);
}

#[tokio::test(start_paused = true)]
async fn write_through_that_the_store_does_not_take_leaves_no_trace_in_the_cache() {
    let world = World::new();
    let gate = world.gate([]).await;
    gate.set("k", "v").await.unwrap();
    world.set_down(true);
    assert_eq!(
        gate.set("k", "w").await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        gate.delete("k").await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(text(&gate, "k").await.as_deref(), Some("v"));
    world.set_down(false);
    assert_eq!(
        gate.set("k", "!poison").await.unwrap_err().kind(),
        ErrorKind::Refused
    );
    assert_eq!(text(&gate, "k").await.as_deref(), Some("v"));
    assert_eq!(world.value("entries", "k").as_deref(), Some("v"));
}

#[tokio::test(start_paused = true)]
async fn write_around_is_in_the_store_and_reads_fill_the_cache() {
    let world = World::new();
    let gate = world.gate([around()]).await;
    gate.set("around:1", "v").await.unwrap();
    assert_eq!(world.value("around", "around:1").as_deref(), Some("v"));
    assert_eq!(gate.lookup(b"around:1"), Lookup::Miss);
    assert_eq!(text(&gate, "around:1").await.as_deref(), Some("v"));
    assert!(matches!(gate.lookup(b"around:1"), Lookup::Hit(_)));
    gate.set("around:1", "w").await.unwrap();
    assert_eq!(
        gate.lookup(b"around:1"),
        Lookup::Miss,
        "the copy is invalidated"
    );
    assert_eq!(text(&gate, "around:1").await.as_deref(), Some("w"));
}

#[tokio::test(start_paused = true)]
async fn read_only_refuses_and_names_the_class() {
    let world = World::new();
    let gate = world
        .gate([Class::new("ro", "ro:*").strategy(Strategy::ReadOnly)])
        .await;
    world.write_outside("ro", "ro:1", "v").await;
    assert_eq!(text(&gate, "ro:1").await.as_deref(), Some("v"));
    let error = gate.set("ro:1", "w").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    assert!(error.to_string().contains("'ro'"), "{error}");
    assert_eq!(
        gate.delete("ro:1").await.unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    assert_eq!(world.value("ro", "ro:1").as_deref(), Some("v"));
}

#[tokio::test(start_paused = true)]
async fn cache_only_has_no_store_behind_it() {
    let world = World::new();
    let gate = world
        .gate([Class::new("c", "c:*")
            .strategy(Strategy::CacheOnly)
            .ttl(ms(1000))])
        .await;
    gate.set("c:1", "v").await.unwrap();
    assert_eq!(text(&gate, "c:1").await.as_deref(), Some("v"));
    assert_eq!(world.store.calls().applies + world.store.calls().loads, 0);
    assert!(gate.delete("c:1").await.unwrap().existed);
    assert_eq!(text(&gate, "c:1").await, None);
    gate.set("c:1", "v").await.unwrap();
    pass(ms(1001)).await;
    assert_eq!(text(&gate, "c:1").await, None);
    gate.set("c:1", "v").await.unwrap();
    gate.evict_all();
    assert_eq!(text(&gate, "c:1").await, None);
}

#[tokio::test(start_paused = true)]
async fn writes_that_arrive_during_a_commit_share_the_next_one() {
    let world = World::new();
    let gate = world.builder().lanes(1).open().await.unwrap();
    let writes = (0..64).map(|i| gate.set(format!("k{i}"), "v"));
    assert!(join_all(writes).await.iter().all(Result::is_ok));
    let calls = world.store.calls();
    // The store of these tests takes 8 writes at a time; the first may go alone.
    assert!(calls.applies <= 9, "{calls:?}");
    assert_eq!(calls.applied_writes, 64);
}

#[tokio::test(start_paused = true)]
async fn writes_of_one_key_coalesce_and_the_last_one_stays() {
    let world = World::new();
    let gate = world.gate([]).await;
    let writes = (0..100).map(|i| gate.set("k", format!("v{i}")));
    assert!(join_all(writes).await.iter().all(Result::is_ok));
    assert_eq!(world.value("entries", "k").as_deref(), Some("v99"));
    assert!(
        world.store.calls().applied_writes <= 3,
        "{:?}",
        world.store.calls()
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_write_fails_alone() {
    let world = World::new();
    for strategy in [Strategy::WriteThrough, Strategy::WriteAround] {
        let name = strategy.as_str();
        let class = Class::new(name, &format!("{name}:*")).strategy(strategy);
        let gate = world.builder().lanes(1).class(class).open().await.unwrap();
        let writes = (0..40).map(|i| {
            let value = if i == 17 { "!poison" } else { "v" };
            gate.set(format!("{name}:{i}"), value)
        });
        for (i, answer) in join_all(writes).await.into_iter().enumerate() {
            match answer {
                Ok(_) => assert_ne!(i, 17),
                Err(error) => {
                    assert_eq!((i, error.kind()), (17, ErrorKind::Refused), "{error}");
                    assert!(error.to_string().contains(":17"), "{error}");
                }
            }
        }
        assert_eq!(gate.count().await.unwrap(), 39);
        gate.drain(ms(1000)).await.unwrap();
        for i in 0..40 {
            world.write_outside(name, &format!("{name}:{i}"), "").await;
        }
        gate_clear(&world, name).await;
    }
}

async fn gate_clear(world: &World, name: &str) {
    let gate = world.gate([Class::new(name, &format!("{name}:*"))]).await;
    for i in 0..40 {
        gate.delete(format!("{name}:{i}")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn of_operations_on_one_key_only_the_guilty_one_fails() {
    let world = World::new();
    let gate = world.gate([]).await;
    let values = ["a", "!bad", "c", "!worse"];
    let answers = join_all(values.map(|value| gate.set("k", value))).await;
    let failed: Vec<bool> = answers.iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, true, false, true]);
    assert_eq!(world.value("entries", "k").as_deref(), Some("c"));
    assert_eq!(text(&gate, "k").await.as_deref(), Some("c"));
}

fn increment(current: Option<&Entry>) -> (Option<Change>, u64) {
    let text = current.map(|entry| std::str::from_utf8(&entry.value).unwrap());
    let next = text.map_or(0, |text| text.parse::<u64>().unwrap()) + 1;
    (
        Some(Change::Put {
            value: Bytes::from(next.to_string()),
            expires_at: None,
        }),
        next,
    )
}

#[tokio::test(start_paused = true)]
async fn concurrent_updates_lose_nothing_whatever_the_strategy() {
    for strategy in [
        Strategy::WriteThrough,
        Strategy::WriteAround,
        Strategy::WriteBack,
        Strategy::CacheOnly,
    ] {
        let world = World::new();
        let gate = world
            .gate([Class::new("n", "n:*").strategy(strategy)])
            .await;
        let updates = (0..200).map(|_| gate.update("n:1", increment));
        let mut answers: Vec<u64> = join_all(updates)
            .await
            .into_iter()
            .map(|answer| answer.unwrap().0)
            .collect();
        answers.sort_unstable();
        assert_eq!(
            answers,
            (1..=200).collect::<Vec<_>>(),
            "{}",
            strategy.as_str()
        );
        assert_eq!(text(&gate, "n:1").await.as_deref(), Some("200"));
        gate.drain(ms(10_000)).await.unwrap();
        if strategy != Strategy::CacheOnly {
            assert_eq!(
                world.value("n", "n:1").as_deref(),
                Some("200"),
                "{}",
                strategy.as_str()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_sees_what_others_wrote_past_the_gate() {
    let world = World::new();
    let gate = world.gate([]).await;
    assert_eq!(gate.update("k", increment).await.unwrap().0, 1);
    world.write_outside("entries", "k", "41").await;
    assert_eq!(
        gate.update("k", increment).await.unwrap().0,
        42,
        "the guard misses, the row is loaded"
    );
    assert_eq!(world.value("entries", "k").as_deref(), Some("42"));
}

#[tokio::test(start_paused = true)]
async fn an_update_that_panics_fails_alone_and_the_lane_goes_on() {
    let world = World::new();
    let gate = world.builder().lanes(1).open().await.unwrap();
    let panics = gate.update("k", |_| -> (Option<Change>, ()) {
        panic!("a caller's mistake")
    });
    let (panicked, counted) = tokio::join!(panics, gate.update("k", increment));
    assert_eq!(panicked.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(counted.unwrap().0, 1);
    assert_eq!(text(&gate, "k").await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_caller_goes_away_is_done_all_the_same() {
    for strategy in [
        Strategy::WriteThrough,
        Strategy::WriteAround,
        Strategy::WriteBack,
    ] {
        let world = World::new();
        let gate = world
            .gate([Class::new("x", "x:*").strategy(strategy)])
            .await;
        {
            let write = gate.set("x:1", "v");
            tokio::pin!(write);
            assert!(futures_util::poll!(&mut write).is_pending());
        }
        pass(ms(1000)).await;
        assert_eq!(
            world.value("x", "x:1").as_deref(),
            Some("v"),
            "{}",
            strategy.as_str()
        );
        drop(gate.set("x:2", "never polled"));
        pass(ms(1000)).await;
        assert_eq!(world.row("x", "x:2"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_said_and_nothing_is_cached_until_it_is_known() {
    let world = World::new();
    let gate = world.gate([]).await;
    gate.set("k", "before").await.unwrap();
    let mut unknowns = 0;
    for round in 0..30 {
        let mut faults = StoreFaults::none(ms(1));
        faults.unknown = 1.0;
        world.store.set_faults(faults);
        let error = gate.set("k", format!("v{round}")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown);
        assert_eq!(gate.lookup(b"k"), Lookup::Miss, "unservable, never stale");
        faults.unknown = 0.0;
        world.store.set_faults(faults);
        if gate.explain(b"k").state == State::Quarantine {
            unknowns += 1;
            text(&gate, "k").await;
        }
        pass(ms(60_000)).await;
        assert_ne!(
            gate.explain(b"k").state,
            State::Quarantine,
            "the store has told by now"
        );
        assert_eq!(text(&gate, "k").await, world.value("entries", "k"));
    }
    assert!(unknowns > 0, "no round met the quarantine");
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_is_refused_before_anything_is_done() {
    let world = World::new();
    let gate = world.gate([]).await;
    let error = gate.set(vec![b'k'; 70_000], "v").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(world.store.calls().applies, 0);
}

#[tokio::test(start_paused = true)]
async fn after_a_drain_every_call_says_closed() {
    let world = World::new();
    let gate = world.gate([around()]).await;
    gate.set("k", "v").await.unwrap();
    gate.drain(ms(1000)).await.unwrap();
    assert_eq!(
        gate.set("k", "w").await.unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(
        gate.get("unread").await.unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(
        gate.drain(ms(1000)).await.unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[tokio::test(start_paused = true)]
async fn a_walk_meets_every_key_once_present_throughout() {
    let world = World::new();
    let back = Class::new("back", "back:*")
        .strategy(Strategy::WriteBack)
        .linger(ms(3_600_000));
    let gate = world
        .gate([
            back,
            around(),
            Class::new("c", "c:*").strategy(Strategy::CacheOnly),
        ])
        .await;
    let mut expected = Vec::new();
    for i in 0..50 {
        for class in ["back", "around", "c", "other"] {
            gate.set(format!("{class}:{i:02}"), "v").await.unwrap();
            expected.push(format!("{class}:{i:02}"));
        }
    }
    gate.set("back:gone", "v").await.unwrap();
    gate.flush(ms(10_000)).await.unwrap();
    gate.delete("back:gone").await.unwrap();
    for i in 0..50 {
        gate.set(format!("back:new{i}"), "v").await.unwrap();
        expected.push(format!("back:new{i}"));
    }
    let (mut met, mut cursor) = (Vec::new(), tidegate_core::ScanCursor::default());
    loop {
        let (keys, next) = gate.scan(cursor, 7).await.unwrap();
        met.extend(keys.iter().map(ToString::to_string));
        let Some(next) = next else { break };
        cursor = next;
    }
    met.sort();
    met.dedup();
    expected.sort();
    assert_eq!(met, expected);
    assert_eq!(gate.count().await.unwrap(), expected.len() as u64);
}
