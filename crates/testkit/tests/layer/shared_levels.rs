//! Levels below linearizable: copies in a node are as old as their class allows, and no older; sessions go on anywhere.

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::port::Clock;
use tidegate_core::{Class, Gate, Level, Lookup, Mutation, Session, Source};

use crate::shared_lag::Lag;
use crate::shared_nodes::Nodes;
use crate::world::{ms, pass, text};

fn class(level: Level) -> Class {
    Class::new("b", "b:*")
        .level(level)
        .ttl(Duration::from_secs(60))
}

const BOUND: Duration = Duration::from_millis(400);

/// A gate whose news of the shared cache is held back by `lag`.
async fn gate(nodes: &Nodes, level: Level, lag: &Arc<Lag>) -> Gate {
    let builder = nodes.builder_over(0, nodes.lagging(lag));
    builder.class(class(level)).open().await.unwrap()
}

async fn source(gate: &Gate, key: &str) -> Source {
    gate.read(key.as_bytes()).await.unwrap().receipt.source
}

#[tokio::test(start_paused = true)]
async fn a_bounded_class_answers_from_its_own_copies_and_says_how_old_they_are() {
    let nodes = Nodes::new(2);
    let gates = nodes.gates(&class(Level::Bounded(BOUND))).await;
    nodes.opened().await;
    gates[0].set("b:1", "x").await.unwrap();
    pass(ms(50)).await;
    assert_eq!(source(&gates[1], "b:1").await, Source::Shared);
    let read = gates[1].read(b"b:1").await.unwrap();
    assert_eq!(read.receipt.source, Source::Near);
    assert!(read.receipt.age_bound <= BOUND);
    assert!(matches!(gates[1].lookup(b"b:1"), Lookup::Hit(_)));
    // A change is told at once, so the copy does not live for the bound.
    gates[0].set("b:1", "y").await.unwrap();
    pass(ms(50)).await;
    assert_eq!(text(&gates[1], "b:1").await.as_deref(), Some("y"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hears_of_nothing_serves_its_copies_for_no_longer_than_the_bound() {
    let nodes = Nodes::new(2);
    let lag = Arc::new(Lag::default());
    let deaf = gate(&nodes, Level::Bounded(BOUND), &lag).await;
    let other = nodes.gate(1, class(Level::Bounded(BOUND))).await;
    nodes.opened().await;
    other.set("b:1", "old").await.unwrap();
    pass(ms(100)).await;
    assert_eq!(text(&deaf, "b:1").await.as_deref(), Some("old"));
    assert_eq!(source(&deaf, "b:1").await, Source::Near);
    lag.hold();
    other.set("b:1", "new").await.unwrap();
    let written = nodes.clock.elapsed();
    let mut olds = 0;
    for _ in 0..200 {
        let began = nodes.clock.elapsed();
        let read = text(&deaf, "b:1").await.unwrap();
        let age = began.saturating_sub(written);
        assert!(read == "new" || age <= BOUND, "{age:?} after the write");
        olds += usize::from(read == "old");
        pass(ms(5)).await;
    }
    assert!(olds > 10, "it did serve its copy: {olds}");
    // And without fences it goes to the shared cache each time.
    assert_eq!(source(&deaf, "b:1").await, Source::Shared);
    lag.release();
    pass(ms(600)).await;
    text(&deaf, "b:1").await;
    assert_eq!(source(&deaf, "b:1").await, Source::Near);
}

#[tokio::test(start_paused = true)]
async fn a_node_sees_its_own_writes_and_never_goes_back_however_late_it_hears() {
    for seed in 0..30 {
        let nodes = Nodes::of_seed(2, seed);
        let lag = Arc::new(Lag::default());
        let deaf = gate(&nodes, Level::Bounded(BOUND), &lag).await;
        let other = nodes.gate(1, class(Level::Bounded(BOUND))).await;
        nodes.opened().await;
        let mut last = 0;
        for n in 1..60_u64 {
            match nodes.random.below(8) {
                0 => lag.hold(),
                1 => lag.release(),
                _ => {}
            }
            let writer = if nodes.random.chance(0.5) {
                &deaf
            } else {
                &other
            };
            let by_deaf = std::ptr::eq(writer, &raw const deaf);
            writer.set("b:1", n.to_string()).await.unwrap();
            if by_deaf {
                last = n;
            }
            for _ in 0..3 {
                let read: u64 = text(&deaf, "b:1").await.unwrap().parse().unwrap();
                assert!(read >= last, "seed {seed}: {read} after {last}");
                last = read;
                pass(ms(nodes.random.below(20))).await;
            }
        }
    }
}

/// What a gate without one of its rules serves after a write of its own while it hears of nothing.
async fn own_write(rule: Option<Mutation>) -> Option<String> {
    let nodes = Nodes::new(1);
    let lag = Arc::new(Lag::default());
    let mut builder = nodes.builder_over(0, nodes.lagging(&lag));
    if let Some(rule) = rule {
        builder = builder.without(rule);
    }
    let gate = builder
        .class(class(Level::Bounded(BOUND)))
        .open()
        .await
        .unwrap();
    nodes.opened().await;
    gate.set("b:1", "old").await.unwrap();
    pass(ms(50)).await;
    text(&gate, "b:1").await;
    assert_eq!(source(&gate, "b:1").await, Source::Near);
    lag.hold();
    gate.set("b:1", "new").await.unwrap();
    text(&gate, "b:1").await
}

#[tokio::test(start_paused = true)]
async fn the_test_of_own_writes_notices_a_copy_that_outlives_them() {
    assert_eq!(own_write(None).await.as_deref(), Some("new"));
    assert_eq!(
        own_write(Some(Mutation::ForgetLate)).await.as_deref(),
        Some("old")
    );
}

/// What a gate without one of its rules keeps of an answer that a write of another node overtook.
async fn overtaken_answer(rule: Option<Mutation>) -> Option<String> {
    let nodes = Nodes::new(2);
    let lag = Arc::new(Lag::default());
    let mut builder = nodes.builder_over(0, nodes.lagging(&lag));
    if let Some(rule) = rule {
        builder = builder.without(rule);
    }
    let gate = builder
        .class(class(Level::Bounded(BOUND)))
        .open()
        .await
        .unwrap();
    let other = nodes.gate(1, class(Level::Bounded(BOUND))).await;
    nodes.opened().await;
    other.set("b:1", "old").await.unwrap();
    pass(ms(50)).await;
    lag.slow(ms(50));
    let write = async {
        pass(ms(10)).await;
        other.set("b:1", "new").await.unwrap();
    };
    let (read, ()) = tokio::join!(text(&gate, "b:1"), write);
    assert_eq!(read.as_deref(), Some("old"), "it began before the write");
    pass(2 * BOUND).await;
    text(&gate, "b:1").await
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_news_of_a_change_has_overtaken_is_not_kept() {
    assert_eq!(overtaken_answer(None).await.as_deref(), Some("new"));
    let kept = overtaken_answer(Some(Mutation::KeepOvertaken)).await;
    assert_eq!(kept.as_deref(), Some("old"));
}

/// Whether a fence that overtakes the news of a change makes a node serve more than the bound allows.
async fn overtaken(fences_first: bool) -> bool {
    let nodes = Nodes::new(2);
    let lag = Arc::new(Lag::default());
    let deaf = gate(&nodes, Level::Bounded(BOUND), &lag).await;
    let other = nodes.gate(1, class(Level::Bounded(BOUND))).await;
    nodes.opened().await;
    other.set("b:1", "old").await.unwrap();
    pass(ms(100)).await;
    text(&deaf, "b:1").await;
    lag.hold();
    other.set("b:1", "new").await.unwrap();
    for _ in 0..4 {
        pass(BOUND / 2).await;
        if fences_first {
            lag.release_fences();
        }
    }
    text(&deaf, "b:1").await.as_deref() == Some("old")
}

#[tokio::test(start_paused = true)]
async fn the_bound_rests_on_fences_that_overtake_nothing() {
    assert!(!overtaken(false).await);
    assert!(
        overtaken(true).await,
        "one ping instead of two would do this"
    );
}

#[tokio::test(start_paused = true)]
async fn where_the_news_breaks_off_no_copy_is_served() {
    let nodes = Nodes::new(1);
    let gate = nodes.gate(0, class(Level::Bounded(BOUND))).await;
    nodes.opened().await;
    gate.set("b:1", "x").await.unwrap();
    pass(ms(50)).await;
    text(&gate, "b:1").await;
    assert_eq!(source(&gate, "b:1").await, Source::Near);
    nodes.cache.refuse(true);
    assert_eq!(source(&gate, "b:1").await, Source::Store);
    nodes.cache.refuse(false);
}

#[tokio::test(start_paused = true)]
async fn an_eventual_class_serves_its_copies_for_its_ttl() {
    let nodes = Nodes::new(2);
    let lag = Arc::new(Lag::default());
    let ttl = Duration::from_secs(5);
    let class = class(Level::Eventual).ttl(ttl);
    let builder = nodes.builder_over(0, nodes.lagging(&lag));
    let deaf = builder.class(class.clone()).open().await.unwrap();
    let other = nodes.gate(1, class).await;
    nodes.opened().await;
    other.set("b:1", "old").await.unwrap();
    pass(ms(50)).await;
    text(&deaf, "b:1").await;
    lag.hold();
    other.set("b:1", "new").await.unwrap();
    pass(ms(3_000)).await;
    assert_eq!(text(&deaf, "b:1").await.as_deref(), Some("old"));
    pass(ms(2_500)).await;
    assert_eq!(text(&deaf, "b:1").await.as_deref(), Some("new"));
}

#[tokio::test(start_paused = true)]
async fn a_session_sees_what_it_saw_on_whatever_node_it_goes_on() {
    let nodes = Nodes::new(2);
    let lag = Arc::new(Lag::default());
    let deaf = gate(&nodes, Level::Session, &lag).await;
    let other = nodes.gate(1, class(Level::Session)).await;
    nodes.opened().await;
    for key in ["b:1", "b:2", "b:3"] {
        other.set(key, "old").await.unwrap();
        pass(ms(50)).await;
        text(&deaf, key).await;
    }
    lag.hold();
    let mut session = Session::default();
    // Written, read and deleted over there.
    let written = other.set("b:1", "new").await.unwrap();
    session.saw(b"b:1", &written.receipt);
    other.set("b:2", "new").await.unwrap();
    other.read_in(b"b:2", &mut session).await.unwrap();
    let deleted = other.delete("b:3").await.unwrap();
    session.saw(b"b:3", &deleted.receipt);
    for key in ["b:1", "b:2", "b:3"] {
        assert_eq!(text(&deaf, key).await.as_deref(), Some("old"), "others may");
    }
    let mut session: Session = session.to_string().parse().unwrap();
    for (key, expected) in [("b:1", Some("new")), ("b:2", Some("new")), ("b:3", None)] {
        let read = deaf.read_in(key.as_bytes(), &mut session).await.unwrap();
        let value = read.entry.map(|entry| entry.value);
        assert_eq!(value.as_deref(), expected.map(str::as_bytes), "{key}");
    }
}
