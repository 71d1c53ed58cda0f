//! Write-through and write-around over a shared cache: what several nodes promise together.

use std::time::Duration;

use futures_util::future::join_all;
use tidegate_core::port::{Clock, SharedCache};
use tidegate_core::{Class, ErrorKind, Gate, Mutation, Source, Strategy, integer};
use tidegate_testkit::sim::StoreFaults;

use crate::hooked::Hooked;
use crate::shared_nodes::{Nodes, all_read};
use crate::world::{ms, pass, text};

fn through() -> Class {
    Class::new("b", "b:*")
}

fn around() -> Class {
    through().strategy(Strategy::WriteAround)
}

/// Gates over one cache, all shards open.
async fn gates(nodes: &Nodes, class: &Class) -> Vec<Gate> {
    let gates = nodes.gates(class).await;
    nodes.opened().await;
    gates
}

#[tokio::test(start_paused = true)]
async fn a_write_of_any_node_is_read_by_all_at_once() {
    for class in [through(), around()] {
        let nodes = Nodes::new(3);
        let gates = gates(&nodes, &class).await;
        for round in 0..60 {
            let key = format!("b:{}", round % 4);
            let writer = &gates[round % 3];
            if round % 7 == 6 {
                writer.delete(&key).await.unwrap();
                all_read(&gates, &key, None).await;
            } else {
                let value = format!("v{round}");
                writer.set(&key, value.clone()).await.unwrap();
                all_read(&gates, &key, Some(&value)).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_written_is_a_hit_for_all_and_around_only_what_was_read() {
    let nodes = Nodes::new(2);
    let gates = gates(&nodes, &through()).await;
    gates[0].set("b:1", "x").await.unwrap();
    pass(ms(50)).await;
    let loads = nodes.store.calls().loads;
    let read = gates[1].read(b"b:1").await.unwrap();
    assert_eq!(read.receipt.source, Source::Shared);
    assert_eq!(read.receipt.age_bound, Duration::ZERO);
    assert_eq!(nodes.store.calls().loads, loads);

    let nodes = Nodes::new(2);
    let gates = self::gates(&nodes, &around()).await;
    gates[0].set("b:1", "x").await.unwrap();
    pass(ms(50)).await;
    let source = async |gate: &Gate| gate.read(b"b:1").await.unwrap().receipt.source;
    assert_eq!(source(&gates[1]).await, Source::Store);
    pass(ms(50)).await;
    assert_eq!(source(&gates[0]).await, Source::Shared);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_readers_of_a_cold_key_on_three_nodes_load_it_once() {
    let nodes = Nodes::new(3);
    let gates = gates(&nodes, &through()).await;
    nodes.outside("b:cold", Some("row"));
    let before = nodes.store.calls().loaded_keys;
    let reads = (0..1000).map(|n| gates[n % 3].read(b"b:cold"));
    for read in join_all(reads).await {
        assert_eq!(&read.unwrap().entry.unwrap().value[..], b"row");
    }
    assert_eq!(nodes.store.calls().loaded_keys - before, 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_holder_that_dies_delays_others_by_no_more_than_the_lease() {
    let nodes = Nodes::new(2);
    let gates = gates(&nodes, &through()).await;
    nodes.outside("b:1", Some("row"));
    nodes.lease("b", "b:1").await;
    let began = nodes.clock.elapsed();
    assert_eq!(text(&gates[0], "b:1").await.as_deref(), Some("row"));
    let waited = nodes.clock.elapsed() - began;
    let lease = nodes.cache.lease_time();
    assert!(waited > lease / 2, "it waited for the holder: {waited:?}");
    assert!(waited < lease + ms(100), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn updates_of_all_nodes_come_one_after_the_other() {
    let nodes = Nodes::new(3);
    let gates = gates(&nodes, &through()).await;
    let adds = (0..60).map(|n| gates[n % 3].add("b:n", 1));
    let added = join_all(adds).await.into_iter();
    let mut seen: Vec<i64> = added.map(|added| added.unwrap().0).collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..=60).collect::<Vec<i64>>());
    let row = nodes.row("b:n").unwrap();
    assert_eq!(integer(&row.value), Some(60));
    all_read(&gates, "b:n", Some("60")).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_outcome_is_unknown_is_never_served_before_it_is_known() {
    for seed in 0..40 {
        let nodes = Nodes::of_seed(2, seed);
        let gates = gates(&nodes, &through()).await;
        gates[0].set("b:1", "old").await.unwrap();
        let mut faults = StoreFaults::none(ms(5));
        faults.unknown = 1.0;
        nodes.store.set_faults(faults);
        let error = gates[0].set("b:1", "new").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown);
        nodes.set_down(false);
        let mut news = 0;
        for _ in 0..200 {
            for gate in &gates {
                let read = text(gate, "b:1").await.unwrap();
                let row = nodes.value("b:1").unwrap();
                assert!(read == row || read == "old", "seed {seed}");
                assert!(news == 0 || read == "new", "seed {seed}: back in time");
                news += usize::from(read == "new");
            }
            pass(ms(2)).await;
        }
        pass(Duration::from_secs(3)).await;
        assert_eq!(
            text(&gates[1], "b:1").await,
            nodes.value("b:1"),
            "seed {seed}"
        );
        pass(ms(20)).await;
        let read = gates[0].read(b"b:1").await.unwrap();
        assert_eq!(read.receipt.source, Source::Shared, "the mark is gone");
    }
}

/// What a reader is given that came after a write of another node was acknowledged, while its own node was loading.
async fn joins_a_load(relaxed: bool) -> Option<String> {
    let nodes = Nodes::new(2);
    let mut builder = nodes.builder(0);
    if relaxed {
        builder = builder.without(Mutation::RelaxedFlight);
    }
    let gate = builder.class(around()).open().await.unwrap();
    let other = nodes.gate(1, around()).await;
    nodes.opened().await;
    nodes.outside("b:1", Some("old"));
    for _ in 0..200 {
        nodes.cache.clear().await.unwrap();
        nodes.store.set_faults(StoreFaults::none(ms(40)));
        let later = async {
            pass(ms(5)).await;
            other.set("b:1", "new").await.unwrap();
            text(&gate, "b:1").await
        };
        let (_, later) = tokio::join!(text(&gate, "b:1"), later);
        if later.as_deref() != Some("new") {
            return later;
        }
        nodes.set_down(false);
        other.set("b:1", "old").await.unwrap();
        pass(ms(50)).await;
    }
    Some("new".to_owned())
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_a_write_of_another_node_shares_no_load_of_before() {
    assert_eq!(joins_a_load(false).await.as_deref(), Some("new"));
    assert_eq!(
        joins_a_load(true).await.as_deref(),
        Some("old"),
        "the test notices"
    );
}

#[tokio::test(start_paused = true)]
async fn marks_of_a_node_that_died_are_swept_when_its_write_cannot_commit_any_more() {
    let nodes = Nodes::new(2);
    let gates = gates(&nodes, &through()).await;
    gates[0].set("b:1", "one").await.unwrap();
    pass(ms(50)).await;
    nodes.mark("b", "b:1", ms(200)).await;
    let source = async || gates[0].read(b"b:1").await.unwrap().receipt.source;
    assert_eq!(source().await, Source::Store);
    pass(ms(100)).await;
    assert_eq!(source().await, Source::Store, "it may still commit");
    pass(ms(600)).await;
    source().await;
    pass(ms(10)).await;
    assert_eq!(source().await, Source::Shared);
    let swept = gates.iter().map(|gate| gate.stats().shared.unwrap().swept);
    assert!(swept.sum::<u64>() >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_comes_too_late_to_its_commit_is_not_made() {
    let nodes = Nodes::new(2);
    let gates = gates(&nodes, &through()).await;
    gates[0].set("b:1", "old").await.unwrap();
    nodes.store.set_faults(StoreFaults::none(ms(3_000)));
    let mut late = 0;
    for n in 0..20 {
        match gates[0].set("b:1", format!("v{n}")).await {
            Ok(_) => assert_eq!(nodes.value("b:1"), Some(format!("v{n}"))),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                assert_ne!(nodes.value("b:1"), Some(format!("v{n}")));
                late += 1;
            }
        }
    }
    assert!(late > 10, "{late}");
    assert!(gates[0].stats().shared.unwrap().late >= late);
}

#[tokio::test(start_paused = true)]
async fn while_the_cache_is_away_reads_go_to_the_store_and_writes_are_refused() {
    let nodes = Nodes::new(2);
    let gates = gates(&nodes, &through()).await;
    gates[0].set("b:1", "x").await.unwrap();
    nodes.cache.refuse(true);
    for _ in 0..30 {
        all_read(&gates, "b:1", Some("x")).await;
        let error = gates[0].set("b:1", "y").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("shared cache"), "{error}");
    }
    assert_eq!(nodes.value("b:1").as_deref(), Some("x"), "nothing was sent");
    assert_ne!(
        gates[0].stats().shared.unwrap().breaker,
        tidegate_core::BreakerState::Closed
    );
    nodes.cache.refuse(false);
    pass(Duration::from_secs(3)).await;
    gates[1].set("b:1", "z").await.unwrap();
    all_read(&gates, "b:1", Some("z")).await;
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_lost_everything_serves_nothing_old() {
    let nodes = Nodes::new(3);
    let gates = gates(&nodes, &through()).await;
    for round in 0..12 {
        let snapshot = nodes.cache.snapshot();
        let (key, value) = (format!("b:{}", round % 3), format!("v{round}"));
        gates[round % 3].set(&key, value.clone()).await.unwrap();
        match round % 3 {
            0 => nodes.cache.lose_everything(),
            1 => nodes.cache.restart(None),
            // A replica that had not heard of the last write takes over.
            _ => nodes.cache.restart(Some(snapshot)),
        }
        all_read(&gates, &key, Some(&value)).await;
        let written = gates[(round + 1) % 3].set("b:w", value.clone()).await;
        written.unwrap();
        all_read(&gates, "b:w", Some(&value)).await;
        if round % 2 == 0 {
            nodes.opened().await;
            all_read(&gates, &key, Some(&value)).await;
        }
    }
    let stats = gates.iter().map(|gate| gate.stats().shared.unwrap());
    assert!(stats.map(|stats| stats.generations).sum::<u64>() >= 12);
}

#[tokio::test(start_paused = true)]
async fn a_node_with_other_settings_is_refused_until_the_others_are_gone() {
    let nodes = Nodes::new(2);
    let first = nodes.gate(0, through()).await;
    let refused = nodes.builder(1).class(around()).open().await;
    let error = refused.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let told = error.to_string();
    assert!(
        told.contains("'b'") && told.contains("`strategy`"),
        "{told}"
    );
    let refused = nodes.builder(1).class(through()).mark_timeout(ms(300));
    let error = refused.open().await.err().unwrap().to_string();
    assert!(error.contains("`mark_timeout`"), "{error}");
    first.drain(Duration::from_secs(5)).await.unwrap();
    nodes.gate(1, around()).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_for_one_node_is_refused() {
    let nodes = Nodes::new(1);
    let alone = Hooked::new(nodes.rows.clone());
    let refused = nodes.builder(0).store(alone).class(through());
    let error = refused.open().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("several nodes"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_others_change_in_sql_is_told_to_the_cache() {
    let nodes = Nodes::new(2);
    let mut class = through();
    class.table.outbox = true;
    let gates = gates(&nodes, &class).await;
    gates[0].set("b:1", "ours").await.unwrap();
    pass(ms(50)).await;
    for round in 0..10 {
        let value = format!("theirs{round}");
        nodes.outside("b:1", (round % 4 != 3).then_some(&value));
        pass(ms(250)).await;
        let expected = (round % 4 != 3).then_some(&*value);
        all_read(&gates, "b:1", expected).await;
    }
    nodes.rows.outside_truncate("b");
    pass(ms(250)).await;
    all_read(&gates, "b:1", None).await;
    let stats = gates[0].stats().shared.unwrap();
    assert!(stats.outside_changes >= 11);
}

#[tokio::test(start_paused = true)]
async fn evicting_is_for_all_nodes_and_loses_nothing() {
    let nodes = Nodes::new(2);
    let gates = gates(&nodes, &through()).await;
    let source = async |gate: &Gate| gate.read(b"b:1").await.unwrap().receipt.source;
    gates[0].set("b:1", "x").await.unwrap();
    pass(ms(20)).await;
    assert_eq!(source(&gates[1]).await, Source::Shared);
    assert_eq!(gates[0].evict_shared(&["b:1", "b:2"]).await.unwrap(), 1);
    assert_eq!(source(&gates[1]).await, Source::Store);
    pass(ms(20)).await;
    assert_eq!(source(&gates[1]).await, Source::Shared);
    gates[1].evict_all_shared().await.unwrap();
    assert_eq!(source(&gates[0]).await, Source::Store);
    all_read(&gates, "b:1", Some("x")).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_stale_is_served_only_where_the_store_cannot_be_read() {
    let nodes = Nodes::new(1);
    let class = through()
        .ttl(ms(500))
        .stale_if_error(Duration::from_secs(60));
    let gates = gates(&nodes, &class).await;
    gates[0].set("b:1", "old").await.unwrap();
    pass(ms(20)).await;
    nodes.outside("b:1", Some("theirs"));
    assert_eq!(text(&gates[0], "b:1").await.as_deref(), Some("old"));
    pass(ms(600)).await;
    nodes.set_down(true);
    let read = gates[0].read(b"b:1").await.unwrap();
    assert_eq!(read.receipt.source, Source::Stale);
    assert!(read.receipt.age_bound > ms(500));
    nodes.set_down(false);
    pass(ms(500)).await;
    assert_eq!(text(&gates[0], "b:1").await.as_deref(), Some("theirs"));
}

#[tokio::test(start_paused = true)]
async fn many_keys_are_read_with_one_question() {
    let nodes = Nodes::new(2);
    let gates = gates(&nodes, &through()).await;
    let pairs = (0..50).map(|n| (format!("b:{n}"), format!("v{n}")));
    gates[0].set_many(pairs).await.unwrap();
    pass(ms(50)).await;
    let keys: Vec<String> = (0..60).map(|n| format!("b:{n}")).collect();
    let got = gates[1].get_many(&keys).await.unwrap();
    for (n, got) in got.iter().enumerate() {
        let expected = (n < 50).then(|| format!("v{n}"));
        assert_eq!(got.as_deref(), expected.as_deref().map(str::as_bytes));
    }
    let hits: u64 = gates[1]
        .stats()
        .classes
        .iter()
        .map(|class| class.shared_hits)
        .sum();
    assert_eq!(hits, 50);
}
