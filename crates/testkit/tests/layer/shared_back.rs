//! Write-back over a shared cache: what several nodes promise together.

use std::time::Duration;

use futures_util::future::join_all;
use tidegate_core::port::{Claimed, Clock, Shard, SharedCache, SharedDirty};
use tidegate_core::{
    Change, Class, Conflict, Durability, ErrorKind, Gate, Merge, Source, Strategy, WhenFull,
    integer,
};
use tidegate_testkit::sim::{JournalFaults, StoreFaults};

use crate::shared_nodes::{Nodes, all_read};
use crate::world::{ms, pass, text};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn a_write_is_seen_by_all_nodes_at_once_and_writes_of_all_share_a_row() {
    let nodes = Nodes::new(3);
    let gates = nodes.gates(&back(Durability::Shared).linger(ms(100))).await;
    let before = nodes.store.calls().applied_writes;
    for (n, gate) in gates.iter().cycle().take(9).enumerate() {
        let written = gate.set("b:1", format!("v{n}")).await.unwrap();
        assert_eq!(written.receipt.durability, Durability::Shared);
        assert_eq!(written.existed, n > 0);
        all_read(&gates, "b:1", Some(&format!("v{n}"))).await;
    }
    let read = gates[0].read(b"b:1").await.unwrap();
    assert_eq!(read.receipt.source, Source::Dirty);
    assert_eq!(nodes.row("b:1"), None);
    pass(ms(400)).await;
    assert_eq!(nodes.value("b:1").as_deref(), Some("v8"));
    assert_eq!(
        nodes.store.calls().applied_writes - before,
        1,
        "coalesced over the nodes"
    );
    all_read(&gates, "b:1", Some("v8")).await;
    assert_eq!(nodes.dirty().await, (0, 0));
}

#[tokio::test(start_paused = true)]
async fn any_node_flushes_what_a_dead_one_wrote_or_had_claimed() {
    let nodes = Nodes::new(2);
    let class = back(Durability::Shared).linger(ms(200));
    let (dead, alive) = (
        nodes.gate(0, class.clone()).await,
        nodes.gate(1, class).await,
    );
    dead.set("b:1", "claimed").await.unwrap();
    let claims = nodes.claim_all(Duration::from_secs(10)).await;
    assert_eq!(claims.len(), 1);
    dead.set("b:2", "written").await.unwrap();
    drop(dead);
    pass(ms(1_500)).await;
    assert_eq!(nodes.value("b:2").as_deref(), Some("written"));
    assert_eq!(nodes.value("b:1"), None, "somebody has it");
    assert_eq!(text(&alive, "b:1").await.as_deref(), Some("claimed"));
    pass(Duration::from_secs(11)).await;
    assert_eq!(
        nodes.value("b:1").as_deref(),
        Some("claimed"),
        "that one is dead"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_written_during_a_flush_stays_dirty_and_a_delete_is_not_taken_back() {
    let nodes = Nodes::new(2);
    let gates = nodes.gates(&back(Durability::Memory)).await;
    nodes.store.set_faults(StoreFaults::none(ms(400)));
    for round in 0..30 {
        let (key, old) = (format!("b:{}", round % 3), format!("old{round}"));
        gates[0].set(&key, old.clone()).await.unwrap();
        pass(ms(20 + round)).await;
        if round % 2 == 0 {
            gates[1].set(&key, format!("new{round}")).await.unwrap();
            all_read(&gates, &key, Some(&format!("new{round}"))).await;
        } else {
            assert!(gates[1].delete(&key).await.unwrap().existed);
            all_read(&gates, &key, None).await;
        }
        pass(ms(7 * round)).await;
        let expected = (round % 2 == 0).then(|| format!("new{round}"));
        all_read(&gates, &key, expected.as_deref()).await;
        if round % 5 == 4 {
            assert!(gates[0].flush(SOON).await.unwrap().is_complete());
            assert_eq!(nodes.value(&key), expected);
        }
    }
    assert!(gates[1].flush(SOON).await.unwrap().is_complete());
    for key in ["b:0", "b:1", "b:2"] {
        assert_eq!(nodes.value(key), text(&gates[0], key).await);
    }
}

#[tokio::test(start_paused = true)]
async fn updates_of_all_nodes_come_one_after_the_other() {
    let nodes = Nodes::new(3);
    let gates = nodes.gates(&back(Durability::Shared)).await;
    let adds = (0..60).map(|n| gates[n % 3].add("b:n", 1));
    let mut seen: Vec<i64> = join_all(adds)
        .await
        .into_iter()
        .map(|added| added.unwrap().0)
        .collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        (1..=60).collect::<Vec<i64>>(),
        "each sees the one before it"
    );
    assert!(gates[0].flush(SOON).await.unwrap().is_complete());
    assert_eq!(nodes.value("b:n").as_deref(), Some("60"));
    let set_once = |gate: &Gate, value: &'static str| {
        let gate = gate.clone();
        async move {
            let change = move |current: Option<&tidegate_core::Entry>| match current {
                Some(_) => (None, false),
                None => {
                    let value = value.into();
                    (
                        Some(Change::Put {
                            value,
                            expires_at: None,
                        }),
                        true,
                    )
                }
            };
            gate.update("b:once", change).await.unwrap().0
        }
    };
    let (a, b) = tokio::join!(set_once(&gates[0], "a"), set_once(&gates[1], "b"));
    assert!(a != b, "one of the two");
    let deletes = gates.iter().map(|gate| gate.delete("b:once"));
    let existed = join_all(deletes)
        .await
        .into_iter()
        .map(|deleted| deleted.unwrap().existed);
    assert_eq!(existed.filter(|existed| *existed).count(), 1);
    assert_eq!(text(&gates[2], "b:once").await, None);
}

#[tokio::test(start_paused = true)]
async fn an_update_sees_the_row_that_others_have_and_goes_over_it() {
    let nodes = Nodes::new(2);
    let gates = nodes.gates(&back(Durability::Shared)).await;
    nodes.outside("b:n", Some("40"));
    assert_eq!(gates[0].add("b:n", 1).await.unwrap().0, 41);
    assert_eq!(gates[1].add("b:n", 1).await.unwrap().0, 42);
    assert!(gates[0].flush(SOON).await.unwrap().is_complete());
    assert_eq!(nodes.value("b:n").as_deref(), Some("42"));
    assert!(!gates[0].delete("b:none").await.unwrap().existed);
}

/// Writes over a row that a stranger changes before the flush.
async fn met(conflict: Conflict) -> (Nodes, Vec<Gate>) {
    let nodes = Nodes::new(2);
    let class = back(Durability::Journal).linger(ms(100)).conflict(conflict);
    let gates = nodes.gates(&class).await;
    gates[0].set("b:1", "5").await.unwrap();
    assert!(gates[0].flush(SOON).await.unwrap().is_complete());
    gates[1].set("b:1", "7").await.unwrap();
    nodes.outside("b:1", Some("100"));
    assert_eq!(text(&gates[0], "b:1").await.as_deref(), Some("7"));
    pass(ms(800)).await;
    (nodes, gates)
}

#[tokio::test(start_paused = true)]
async fn where_the_store_wins_the_write_is_a_dead_letter_and_all_read_the_row() {
    let (nodes, gates) = met(Conflict::StoreWins).await;
    assert_eq!(nodes.value("b:1").as_deref(), Some("100"));
    all_read(&gates, "b:1", Some("100")).await;
    for gate in &gates {
        let letter = gate.dead_letter(b"b:1").unwrap();
        assert_eq!(letter.value.as_deref(), Some(&b"7"[..]));
        assert_eq!(letter.reason, tidegate_core::DeadLetterReason::Conflict);
        assert_eq!(letter.class, "b");
        assert_eq!(gate.dead_letters(Some("b"), None, 10).len(), 1);
    }
    // Tried again it meets the same row, and the attempt is counted.
    assert!(gates[0].retry_dead_letter(b"b:1"));
    pass(ms(1_000)).await;
    assert_eq!(gates[0].dead_letter(b"b:1").unwrap().attempts, 2);
    all_read(&gates, "b:1", Some("100")).await;
    // Its record outlives the loss of everything else.
    nodes.cache.lose_everything();
    drop(gates);
    let gate = nodes.gate(1, back(Durability::Journal)).await;
    nodes.opened().await;
    pass(ms(1_500)).await;
    assert_eq!(text(&gate, "b:1").await.as_deref(), Some("100"));
    let letter = gate.dead_letter(b"b:1").unwrap();
    assert_eq!(letter.value.as_deref(), Some(&b"7"[..]));
    assert!(
        !gate
            .discard_dead_letter("b:1", tidegate_core::Version::NONE)
            .await
            .unwrap()
    );
    assert!(
        gate.discard_dead_letter("b:1", letter.version)
            .await
            .unwrap()
    );
    assert!(gate.dead_letter(b"b:1").is_none());
    // What was discarded does not come back.
    nodes.cache.lose_everything();
    pass(ms(3_000)).await;
    nodes.opened().await;
    assert_eq!(text(&gate, "b:1").await.as_deref(), Some("100"));
    assert_eq!(nodes.dirty().await, (0, 0));
    assert!(gate.drain(SOON).await.unwrap().is_complete());
}

#[tokio::test(start_paused = true)]
async fn where_the_cache_wins_or_both_are_merged_the_row_follows() {
    let (nodes, gates) = met(Conflict::CacheWins).await;
    assert_eq!(nodes.value("b:1").as_deref(), Some("7"));
    all_read(&gates, "b:1", Some("7")).await;
    let sum = Merge::new(|_, store, ours| {
        let number = |entry: Option<&tidegate_core::Entry>| {
            entry.and_then(|entry| integer(&entry.value)).unwrap_or(0)
        };
        Change::Put {
            value: (number(store) + number(ours)).to_string().into(),
            expires_at: None,
        }
    });
    let (nodes, gates) = met(Conflict::Merge(sum)).await;
    assert_eq!(nodes.value("b:1").as_deref(), Some("107"));
    all_read(&gates, "b:1", Some("107")).await;
    assert_eq!(nodes.dirty().await, (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_row_is_parked_and_the_others_go_on() {
    let nodes = Nodes::new(2);
    let gates = nodes.gates(&back(Durability::Shared)).await;
    gates[0].set("b:bad", "!poison").await.unwrap();
    for n in 0..50 {
        gates[n % 2].set(format!("b:{n}"), "good").await.unwrap();
    }
    let report = gates[1].flush(SOON).await.unwrap();
    assert_eq!((report.left, report.parked), (0, 1), "{report:?}");
    for n in 0..50 {
        assert_eq!(nodes.value(&format!("b:{n}")).as_deref(), Some("good"));
    }
    all_read(&gates, "b:bad", Some("!poison")).await;
    pass(ms(1_500)).await;
    for gate in &gates {
        let letters = gate.dead_letters(None, None, 10);
        assert_eq!(letters.len(), 1);
        assert_eq!((letters[0].attempts, &letters[0].value), (1, &None));
    }
    assert_eq!(gates[1].retry_dead_letters(Some("b")), 1);
    pass(ms(1_000)).await;
    let letter = gates[1].dead_letter(b"b:bad").unwrap();
    assert_eq!(letter.attempts, 2);
    let error = gates[0]
        .edit_dead_letter("b:bad", tidegate_core::Version::NONE, "x")
        .await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Invalid);
    gates[0]
        .edit_dead_letter("b:bad", letter.version, "mended")
        .await
        .unwrap();
    assert!(gates[0].flush(SOON).await.unwrap().is_complete());
    assert_eq!(nodes.value("b:bad").as_deref(), Some("mended"));
    assert!(gates[0].dead_letter(b"b:bad").is_none());
    gates[0].set("b:bad", "!again").await.unwrap();
    assert_eq!(gates[0].flush(SOON).await.unwrap().parked, 1);
    let letter = gates[0].dead_letter(b"b:bad").unwrap();
    assert!(
        gates[0]
            .discard_dead_letter("b:bad", letter.version)
            .await
            .unwrap()
    );
    all_read(&gates, "b:bad", Some("mended")).await;
    gates[0].set("b:bad", "!once more").await.unwrap();
    assert_eq!(gates[0].flush(SOON).await.unwrap().parked, 1);
    gates[1].set("b:bad", "newer").await.unwrap();
    assert!(gates[1].flush(SOON).await.unwrap().is_complete());
    assert_eq!(
        nodes.value("b:bad").as_deref(),
        Some("newer"),
        "a newer write takes its place"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_cache_loses_the_journals_give_back() {
    for durability in [Durability::Journal, Durability::Both] {
        let nodes = Nodes::new(2);
        let gates = nodes
            .gates(&back(durability).linger(Duration::from_secs(60)))
            .await;
        for n in 0..20 {
            let written = gates[n % 2]
                .set(format!("b:{n}"), format!("v{n}"))
                .await
                .unwrap();
            assert_eq!(written.receipt.durability, durability);
        }
        gates[0].set("b:0", "newer").await.unwrap();
        gates[1].delete("b:1").await.unwrap();
        nodes.cache.lose_everything();
        nodes.cache.restart(None);
        pass(ms(100)).await;
        nodes.opened().await;
        all_read(&gates, "b:0", Some("newer")).await;
        all_read(&gates, "b:1", None).await;
        for n in 2..20 {
            all_read(&gates, &format!("b:{n}"), Some(&format!("v{n}"))).await;
        }
        assert!(gates[0].flush(SOON).await.unwrap().is_complete());
        assert_eq!(nodes.value("b:0").as_deref(), Some("newer"));
        assert_eq!(nodes.value("b:1"), None);
        assert_eq!(nodes.value("b:19").as_deref(), Some("v19"));
        // Whoever flushed, both journals learn of it.
        pass(Duration::from_secs(5)).await;
        for (node, gate) in gates.iter().enumerate() {
            assert!(gate.drain(SOON).await.unwrap().is_complete());
            assert!(nodes.disks[node].len() <= 2, "nothing but a checkpoint");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_gives_its_journal_back_before_it_serves_and_brings_nothing_old() {
    let nodes = Nodes::new(2);
    let class = back(Durability::Journal).linger(Duration::from_secs(60));
    let (first, second) = (
        nodes.gate(0, class.clone()).await,
        nodes.gate(1, class.clone()).await,
    );
    for key in ["b:kept", "b:over", "b:gone", "b:lost"] {
        first.set(key, "first").await.unwrap();
    }
    drop(first);
    second.set("b:over", "second").await.unwrap();
    second.delete("b:gone").await.unwrap();
    assert!(second.flush(SOON).await.unwrap().is_complete());
    assert!(second.drain(SOON).await.unwrap().is_complete());
    second.evict_all();
    nodes.cache.lose_everything();
    nodes.outside("b:lost", None);
    let first = nodes.gate(0, class).await;
    assert_eq!(text(&first, "b:kept").await.as_deref(), Some("first"));
    assert_eq!(text(&first, "b:over").await.as_deref(), Some("second"));
    assert_eq!(
        text(&first, "b:gone").await,
        None,
        "what was deleted stays so"
    );
    assert!(first.flush(SOON).await.unwrap().left == 0);
    assert_eq!(nodes.value("b:gone"), None);
}

#[tokio::test(start_paused = true)]
async fn the_bounds_hold_over_all_nodes() {
    let nodes = Nodes::new(2);
    let class = back(Durability::Shared)
        .dirty_entries_max(10)
        .block_timeout(ms(500));
    let rejecting = class.clone().when_full(WhenFull::Reject);
    let gates = nodes.gates(&rejecting).await;
    nodes.opened().await;
    nodes.set_down(true);
    let mut refused = 0;
    for n in 0..30 {
        match gates[n % 2].set(format!("b:{n}"), "v").await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
                assert!(error.message().contains("dirty_entries_max"), "{error}");
                refused += 1;
            }
        }
        pass(ms(50)).await;
    }
    assert!((20..=25).contains(&refused), "{refused}");
    let (entries, _) = nodes.dirty().await;
    assert!((5..=10).contains(&entries), "{entries}");
    // The store is back, and so is the room.
    nodes.set_down(false);
    pass(Duration::from_secs(5)).await;
    assert_eq!(nodes.dirty().await, (0, 0));
    gates[0].set("b:after", "v").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_blocks_waits_for_room_and_who_goes_through_has_the_store() {
    let nodes = Nodes::new(1);
    let class = back(Durability::Shared)
        .dirty_bytes_max(2_000, WhenFull::Block)
        .linger(ms(200))
        .block_timeout(ms(2_000));
    let gate = nodes.gate(0, class.clone()).await;
    let writes = (0..40).map(|n| gate.set(format!("b:{n}"), vec![b'x'; 300]));
    for written in join_all(writes).await {
        written.unwrap();
    }
    assert!(gate.flush(SOON).await.unwrap().is_complete());
    nodes.set_down(true);
    for n in 0..4 {
        gate.set(format!("b:full{n}"), vec![b'x'; 300])
            .await
            .unwrap();
    }
    let error = gate.set("b:late", vec![b'x'; 900]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.message().contains("block_timeout"), "{error}");
    nodes.set_down(false);
    assert!(gate.drain(SOON).await.unwrap().is_complete());

    let gate = nodes
        .gate(
            0,
            class
                .when_full(WhenFull::WriteThrough)
                .linger(Duration::from_secs(60)),
        )
        .await;
    // So slow that what is flushed past half of the bound is still dirty.
    nodes.store.set_faults(StoreFaults::none(ms(300)));
    for n in 0..4 {
        let written = gate
            .set(format!("b:more{n}"), vec![b'x'; 300])
            .await
            .unwrap();
        assert_eq!(written.receipt.durability, Durability::Shared);
    }
    let through = gate.set("b:through", vec![b'y'; 900]).await.unwrap();
    assert_eq!(through.receipt.durability, Durability::Store);
    assert!(nodes.row("b:through").is_some());
    pass(Duration::from_secs(2)).await;
    gate.set("b:again", vec![b'x'; 900]).await.unwrap();
    let error = gate.set("b:bad", vec![b'!'; 900]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(text(&gate, "b:bad").await, None, "refused, and not kept");
}

#[tokio::test(start_paused = true)]
async fn where_the_journal_fails_the_store_makes_up_for_it_or_the_caller_is_told() {
    let nodes = Nodes::new(1);
    let fails = JournalFaults {
        sync_max: ms(1),
        fail: 1.0,
        full: 0.0,
        answers_early: false,
    };
    let class = back(Durability::Journal);
    let gate = nodes
        .builder_with(0, fails)
        .class(class.clone())
        .open()
        .await
        .unwrap();
    let written = gate.set("b:1", "v").await.unwrap();
    assert_eq!(written.receipt.durability, Durability::Store);
    let error = gate.set("b:2", "v").await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unavailable,
        "refused before anything is done"
    );
    assert_eq!(text(&gate, "b:2").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_away_is_not_read_past_and_a_write_is_unknown_at_most() {
    let nodes = Nodes::new(2);
    let gates = nodes
        .gates(&back(Durability::Shared).linger(Duration::from_secs(60)))
        .await;
    gates[0].set("b:1", "dirty").await.unwrap();
    nodes.cache.refuse(true);
    let read = gates[1].read(b"b:1").await;
    assert_eq!(
        read.unwrap_err().kind(),
        ErrorKind::Unavailable,
        "the row may be old"
    );
    let error = gates[1].set("b:1", "x").await.unwrap_err();
    assert!(matches!(
        error.kind(),
        ErrorKind::Unknown | ErrorKind::Unavailable
    ));
    for _ in 0..10 {
        drop(gates[1].set("b:1", "x").await);
    }
    let error = gates[1].set("b:1", "x").await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unavailable,
        "nothing is sent any more"
    );
    nodes.cache.refuse(false);
    pass(Duration::from_secs(10)).await;
    all_read(&gates, "b:1", Some("dirty")).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_says_what_is_left_and_another_node_brings_it_to_the_store() {
    let nodes = Nodes::new(2);
    let class = back(Durability::Shared).linger(ms(50));
    let gates = nodes.gates(&class).await;
    nodes.opened().await;
    nodes.set_down(true);
    gates[0].set("b:1", "v").await.unwrap();
    let report = gates[0].drain(ms(500)).await.unwrap();
    assert_eq!((report.left, report.classes[0].left), (1, 1));
    let error = gates[0].set("b:2", "v").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    nodes.set_down(false);
    pass(Duration::from_secs(15)).await;
    assert_eq!(nodes.value("b:1").as_deref(), Some("v"));
}

#[tokio::test(start_paused = true)]
async fn one_write_can_be_made_more_durable() {
    let nodes = Nodes::new(1);
    let gate = nodes
        .gate(0, back(Durability::Memory).linger(Duration::from_secs(60)))
        .await;
    let written = gate.set("b:1", "v").await.unwrap();
    assert_eq!(written.receipt.durability, Durability::Memory);
    let reached = gate.secure("b:1", Durability::Journal, SOON).await.unwrap();
    assert_eq!(reached.durability, Durability::Journal);
    assert_eq!(nodes.disks[0].len(), 1);
    let reached = gate.secure("b:1", Durability::Store, SOON).await.unwrap();
    assert_eq!(
        (reached.durability, nodes.value("b:1").as_deref()),
        (Durability::Store, Some("v"))
    );
    let error = gate
        .set_durable("b:2", "!poison", None, Durability::Store, SOON)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_refused_by_name() {
    let nodes = Nodes::new(1);
    let delta = nodes
        .builder(0)
        .class(back(Durability::Shared).delta(true))
        .open()
        .await;
    let error = delta.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.message().contains("class 'b': delta"), "{error}");
    let world = crate::world::World::new();
    for durability in [Durability::Shared, Durability::Both] {
        let alone = world.builder().class(back(durability)).open().await;
        let error = alone.err().unwrap();
        assert!(error.message().contains("class 'b': durability"), "{error}");
    }
}

/// What only write-back asks of the nodes.
impl Nodes {
    /// Claims all that is dirty, as a flusher does that dies afterwards.
    pub(crate) async fn claim_all(&self, claim_for: Duration) -> Vec<Claimed> {
        let mut claims = Vec::new();
        for shard in 0..self.cache.shards() {
            let now = self.clock.now();
            let claimed = self.cache.claim(Shard(shard), 1000, now, claim_for).await;
            claims.extend(claimed.unwrap());
        }
        claims
    }

    /// Dirty and parked entries in the cache.
    pub(crate) async fn dirty(&self) -> (u64, u64) {
        let shards: Vec<Shard> = (0..self.cache.shards()).map(Shard).collect();
        let dirty = self.cache.dirty(&shards).await;
        let dirty = dirty.into_iter().map(Result::unwrap);
        dirty.fold((0, 0), |(entries, parked), dirty| {
            (entries + dirty.entries, parked + dirty.parked)
        })
    }
}

/// A write-back class that lingers for a moment.
pub(crate) fn back(durability: Durability) -> Class {
    Class::new("b", "b:*")
        .strategy(Strategy::WriteBack)
        .durability(durability)
        .linger(ms(20))
}
