//! Write-back: acknowledged after the sync, read while dirty, coalesced, flushed, drained, replayed, parked,
//! bounded.

use futures_util::future::join_all;
use tidegate_core::{
    Class, Durability, ErrorKind, Gate, GateBuilder, Source, State, Strategy, WhenFull,
};
use tidegate_testkit::sim::JournalFaults;

use crate::world::{World, ms, pass, text};

fn back() -> Class {
    Class::new("b", "b:*")
        .strategy(Strategy::WriteBack)
        .linger(ms(50))
}

async fn open(builder: GateBuilder) -> Gate {
    builder.open().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn acknowledged_before_the_store_has_it_and_read_at_once() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    let written = gate.set("b:1", "v").await.unwrap();
    assert_eq!(written.receipt.durability, Durability::Journal);
    assert_eq!(world.disk.len(), 1, "the journal has it");
    assert_eq!(world.row("b", "b:1"), None, "the store does not");
    assert_eq!(text(&gate, "b:1").await.as_deref(), Some("v"));
    assert_eq!(gate.explain(b"b:1").state, State::Dirty);
    pass(ms(200)).await;
    assert_eq!(world.value("b", "b:1").as_deref(), Some("v"));
    assert_eq!(gate.explain(b"b:1").state, State::Clean);
    assert_eq!(
        world.row("b", "b:1").unwrap().version,
        written.receipt.version
    );
}

#[tokio::test(start_paused = true)]
async fn a_delete_is_a_dirty_tombstone_that_readers_see() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    gate.set("b:1", "v").await.unwrap();
    pass(ms(200)).await;
    assert!(gate.delete("b:1").await.unwrap().existed);
    assert_eq!(text(&gate, "b:1").await, None);
    gate.evict_all();
    let read = gate.read(b"b:1").await.unwrap();
    assert_eq!((read.entry, read.receipt.source), (None, Source::Dirty));
    assert!(world.row("b", "b:1").is_some(), "not flushed yet");
    pass(ms(200)).await;
    assert_eq!(world.row("b", "b:1"), None);
    assert!(!gate.delete("b:1").await.unwrap().existed);
}

#[tokio::test(start_paused = true)]
async fn writes_of_a_hot_key_reach_the_store_as_few() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    for i in 0..500 {
        gate.set("b:hot", format!("{i}")).await.unwrap();
    }
    gate.flush(ms(10_000)).await.unwrap();
    assert_eq!(world.value("b", "b:hot").as_deref(), Some("499"));
    assert!(
        world.store.calls().applied_writes < 30,
        "{:?}",
        world.store.calls()
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_does_not_linger() {
    let world = World::new();
    let gate = world
        .builder()
        .lanes(1)
        .class(back().linger(ms(3_600_000)).batch(8))
        .open()
        .await
        .unwrap();
    for i in 0..8 {
        gate.set(format!("b:{i}"), "v").await.unwrap();
    }
    pass(ms(100)).await;
    assert_eq!(gate.stats().classes[0].dirty_entries, 0);
}

#[tokio::test(start_paused = true)]
async fn with_the_store_away_writes_go_on_and_flush_says_what_is_left() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    world.set_down(true);
    for i in 0..20 {
        gate.set(format!("b:{i}"), "v").await.unwrap();
    }
    let report = gate.flush(ms(5_000)).await.unwrap();
    assert_eq!((report.flushed, report.left), (0, 20));
    assert!(!report.is_complete());
    let oldest = gate.stats().classes[0].oldest_dirty;
    assert!(oldest.is_some_and(|age| age >= ms(5_000)), "{oldest:?}");
    world.set_down(false);
    let report = gate.flush(ms(5_000)).await.unwrap();
    assert_eq!((report.left, report.is_complete()), (0, true));
    assert_eq!(gate.count().await.unwrap(), 20);
}

#[tokio::test(start_paused = true)]
async fn an_unflushed_write_is_replayed_at_start() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    world.set_down(true);
    gate.set("b:1", "v").await.unwrap();
    gate.set("b:2", "gone").await.unwrap();
    gate.delete("b:2").await.unwrap();
    let report = gate.drain(ms(1_000)).await.unwrap();
    assert_eq!(report.left, 2);
    world.set_down(false);
    let gate = world.gate([back()]).await;
    assert_eq!(
        text(&gate, "b:1").await.as_deref(),
        Some("v"),
        "read before it is flushed"
    );
    assert_eq!(text(&gate, "b:2").await, None);
    assert!(gate.drain(ms(10_000)).await.unwrap().is_complete());
    assert_eq!(world.value("b", "b:1").as_deref(), Some("v"));
    assert_eq!(world.row("b", "b:2"), None);
}

#[tokio::test(start_paused = true)]
async fn a_write_after_a_restart_is_newer_than_a_replayed_one() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    world.set_down(true);
    let first = gate.set("b:1", "first").await.unwrap();
    gate.drain(ms(100)).await.unwrap();
    let gate = world.gate([back()]).await;
    let second = gate.set("b:1", "second").await.unwrap();
    assert!(second.receipt.version > first.receipt.version);
    gate.drain(ms(100)).await.unwrap();
    world.set_down(false);
    let gate = world.gate([back()]).await;
    gate.drain(ms(10_000)).await.unwrap();
    assert_eq!(world.value("b", "b:1").as_deref(), Some("second"));
}

#[tokio::test(start_paused = true)]
async fn what_the_journal_keeps_shrinks_as_the_store_catches_up() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    for i in 0..200 {
        gate.set(format!("b:{}", i % 10), format!("{i}"))
            .await
            .unwrap();
    }
    gate.flush(ms(10_000)).await.unwrap();
    pass(ms(1_000)).await;
    assert!(
        world.disk.len() <= 1,
        "{} records are kept",
        world.disk.len()
    );
}

#[tokio::test(start_paused = true)]
async fn a_class_that_was_write_back_is_flushed_before_the_gate_opens() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    world.set_down(true);
    gate.set("b:1", "v").await.unwrap();
    gate.drain(ms(100)).await.unwrap();
    let through = || Class::new("b", "b:*");
    let refused = world.builder().class(through()).open().await;
    assert_eq!(
        refused.err().map(|error| error.kind()),
        Some(ErrorKind::Unavailable)
    );
    world.set_down(false);
    let gate = world.gate([through()]).await;
    assert_eq!(world.value("b", "b:1").as_deref(), Some("v"));
    gate.set("b:1", "w").await.unwrap();
    gate.drain(ms(100)).await.unwrap();
    let gate = world.gate([back()]).await;
    gate.drain(ms(1_000)).await.unwrap();
    assert_eq!(
        world.value("b", "b:1").as_deref(),
        Some("w"),
        "the old record does not come back"
    );
}

#[tokio::test(start_paused = true)]
async fn records_of_a_class_that_is_gone_are_refused_by_name() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    world.set_down(true);
    gate.set("b:1", "v").await.unwrap();
    gate.drain(ms(100)).await.unwrap();
    world.set_down(false);
    let error = world.builder().open().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("'b'"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_class_may_be_taken_out_after_a_drain() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    gate.set("b:1", "v").await.unwrap();
    assert!(gate.drain(ms(10_000)).await.unwrap().is_complete());
    assert!(!world.disk.is_empty(), "the journal still has records");
    let gate = world.gate([]).await;
    gate.set("k", "v").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_forgets_nothing_that_is_not_flushed() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    gate.set("b:1", "flushed").await.unwrap();
    gate.flush(ms(10_000)).await.unwrap();
    world.set_down(true);
    gate.set("b:2", "left").await.unwrap();
    gate.set("b:3", "left").await.unwrap();
    assert_eq!(gate.drain(ms(100)).await.unwrap().left, 2);
    // A second life that does nothing but write another checkpoint.
    let gate = world.gate([back()]).await;
    assert_eq!(gate.drain(ms(100)).await.unwrap().left, 2);
    world.set_down(false);
    let gate = world.gate([back()]).await;
    assert!(gate.drain(ms(10_000)).await.unwrap().is_complete());
    for key in ["b:2", "b:3"] {
        assert_eq!(world.value("b", key).as_deref(), Some("left"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_the_store_refuses_is_parked_alone_and_superseded_by_a_newer_one() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    gate.set("b:bad", "!poison").await.unwrap();
    for i in 0..30 {
        gate.set(format!("b:{i}"), "v").await.unwrap();
    }
    let report = gate.flush(ms(10_000)).await.unwrap();
    assert_eq!(
        (report.left, report.parked),
        (0, 1),
        "a flush does not hang on a bad key"
    );
    assert_eq!(gate.stats().classes[0].parked, 1);
    assert_eq!(
        text(&gate, "b:bad").await.as_deref(),
        Some("!poison"),
        "kept and read"
    );
    let explanation = gate.explain(b"b:bad");
    assert_eq!(explanation.state, State::Parked);
    assert!(explanation.refused.is_some_and(|why| why.contains("23514")));
    assert_eq!(world.row("b", "b:bad"), None);
    gate.set("b:bad", "good").await.unwrap();
    assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
    assert_eq!(world.value("b", "b:bad").as_deref(), Some("good"));
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

#[tokio::test(start_paused = true)]
async fn a_parked_write_survives_a_restart() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    gate.set("b:bad", "!poison").await.unwrap();
    assert_eq!(gate.drain(ms(10_000)).await.unwrap().parked, 1);
    let gate = world.gate([back()]).await;
    assert_eq!(text(&gate, "b:bad").await.as_deref(), Some("!poison"));
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_a_write_waits_for_room_or_is_refused() {
    for (when_full, waits) in [(WhenFull::Block, true), (WhenFull::Reject, false)] {
        let world = World::new();
        let mut class = back().dirty_bytes_max(7_000, when_full);
        class.block_timeout = ms(2_000);
        let gate = world.gate([class]).await;
        world.set_down(true);
        let mut taken = 0;
        let error = loop {
            let before = gate.now();
            match gate.set(format!("b:{taken}"), vec![7; 100]).await {
                Ok(_) => taken += 1,
                Err(error) => {
                    let waited = gate.now().since(before);
                    assert_eq!(waited >= ms(2_000), waits, "{waited:?}");
                    break error;
                }
            }
        };
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert!(error.to_string().contains("dirty_max"), "{error}");
        assert!((5..10).contains(&taken), "{taken}");
        assert!(gate.stats().classes[0].dirty_bytes <= 7_000);
        world.set_down(false);
        if waits {
            let writes = (0..40).map(|i| gate.set(format!("b:more{i}"), vec![7; 100]));
            let failed: Vec<_> = join_all(writes)
                .await
                .into_iter()
                .filter_map(Result::err)
                .collect();
            assert!(
                failed.is_empty(),
                "room comes as the flusher goes: {failed:?}"
            );
        }
        assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
        assert!(gate.audit().is_empty(), "{:?}", gate.audit());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_is_an_unknown_outcome_and_later_writes_are_refused() {
    let world = World::new();
    let faults = JournalFaults {
        sync_max: ms(1),
        fail: 1.0,
        full: 0.0,
        answers_early: false,
    };
    let gate = open(world.builder_with(faults).class(back())).await;
    let error = gate.set("b:1", "v").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    assert_eq!(
        text(&gate, "b:1").await,
        None,
        "what may not survive is not shown"
    );
    let error = gate.set("b:1", "w").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    gate.set("other", "v").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn durability_memory_must_be_named_and_says_so() {
    let world = World::new();
    let gate = world.gate([back().durability(Durability::Memory)]).await;
    let written = gate.set("b:1", "v").await.unwrap();
    assert_eq!(written.receipt.durability, Durability::Memory);
    assert!(world.disk.is_empty());
    assert!(gate.drain(ms(10_000)).await.unwrap().is_complete());
    assert_eq!(world.value("b", "b:1").as_deref(), Some("v"));
}

#[tokio::test(start_paused = true)]
async fn without_a_journal_a_journalled_class_is_refused_by_name() {
    let world = World::new();
    let builder = Gate::builder()
        .clock(tidegate_testkit::sim::SimClock::new(
            0,
            world.random.clone(),
        ))
        .store(world.store.clone());
    let error = builder.class(back()).open().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(
        error.to_string().contains("'b'") && error.to_string().contains("journal"),
        "{error}"
    );
}
