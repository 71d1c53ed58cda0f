//! Conflicts: a row that others changed is seen, and the class decides; nothing is lost and nothing of ours is
//! taken for a stranger's.

use tidegate_core::port::StoreError;
use tidegate_core::{
    Change, Class, Conflict, DeadLetterReason, Entry, Gate, Key, Merge, Strategy, Version,
};

use crate::hooked::Hooked;
use crate::world::{World, ms, pass, text};

fn back(conflict: Conflict) -> Class {
    Class::new("b", "b:*")
        .strategy(Strategy::WriteBack)
        .linger(ms(20))
        .conflict(conflict)
}

/// A gate whose key `b:1` others have changed since it was flushed, and which has written it again.
async fn changed(world: &World, conflict: Conflict) -> Gate {
    let gate = world.gate([back(conflict)]).await;
    gate.set("b:1", "first").await.unwrap();
    gate.flush(ms(1_000)).await.unwrap();
    world.rows.outside("b", &Key::from("b:1"), Some(b"theirs"));
    gate.set("b:1", "ours").await.unwrap();
    assert_eq!(text(&gate, "b:1").await.as_deref(), Some("ours"));
    gate
}

#[tokio::test(start_paused = true)]
async fn the_store_wins_unless_the_class_says_otherwise() {
    let world = World::new();
    let gate = changed(&world, Conflict::default()).await;
    let report = gate.flush(ms(1_000)).await.unwrap();
    assert_eq!((report.left, report.parked), (0, 1));
    assert_eq!(world.value("b", "b:1").as_deref(), Some("theirs"));
    assert_eq!(text(&gate, "b:1").await.as_deref(), Some("theirs"));
    let letter = gate.dead_letter(b"b:1").unwrap();
    assert_eq!(letter.reason, DeadLetterReason::Conflict);
    assert_eq!(letter.value.as_deref(), Some(&b"ours"[..]));
    // A later write is made over what readers see.
    gate.set("b:1", "later").await.unwrap();
    assert!(gate.flush(ms(1_000)).await.unwrap().is_complete());
    assert_eq!(world.value("b", "b:1").as_deref(), Some("later"));
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

#[tokio::test(start_paused = true)]
async fn the_cache_wins_where_the_class_says_so() {
    let world = World::new();
    let gate = changed(&world, Conflict::CacheWins).await;
    assert!(gate.flush(ms(1_000)).await.unwrap().is_complete());
    assert_eq!(world.value("b", "b:1").as_deref(), Some("ours"));
    assert_eq!(text(&gate, "b:1").await.as_deref(), Some("ours"));
    // And what comes next is no conflict.
    gate.set("b:1", "next").await.unwrap();
    assert!(gate.flush(ms(1_000)).await.unwrap().is_complete());
    assert_eq!(world.value("b", "b:1").as_deref(), Some("next"));
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

fn joined() -> Conflict {
    let shown = |entry: Option<&Entry>| match entry {
        Some(entry) => String::from_utf8(entry.value.to_vec()).unwrap(),
        None => "nothing".into(),
    };
    Conflict::Merge(Merge::new(move |key, store, ours| Change::Put {
        value: format!("{key}: {} + {}", shown(store), shown(ours)).into(),
        expires_at: None,
    }))
}

#[tokio::test(start_paused = true)]
async fn a_merge_function_makes_one_of_two() {
    let world = World::new();
    let gate = changed(&world, joined()).await;
    assert!(gate.flush(ms(1_000)).await.unwrap().is_complete());
    let merged = Some("b:1: theirs + ours");
    assert_eq!(world.value("b", "b:1").as_deref(), merged);
    assert_eq!(text(&gate, "b:1").await.as_deref(), merged);
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
    // Of a row that others deleted, and of a delete of ours.
    world.rows.outside("b", &Key::from("b:1"), None);
    gate.set("b:1", "ours").await.unwrap();
    assert!(gate.flush(ms(1_000)).await.unwrap().is_complete());
    let merged = Some("b:1: nothing + ours");
    assert_eq!(world.value("b", "b:1").as_deref(), merged);
    world.rows.outside("b", &Key::from("b:1"), Some(b"theirs"));
    gate.delete("b:1").await.unwrap();
    assert!(gate.flush(ms(1_000)).await.unwrap().is_complete());
    let merged = Some("b:1: theirs + nothing");
    assert_eq!(world.value("b", "b:1").as_deref(), merged);
}

#[tokio::test(start_paused = true)]
async fn a_merge_function_that_panics_loses_to_the_store() {
    let world = World::new();
    let panics = Merge::new(|_, _, _| panic!("on purpose"));
    let gate = changed(&world, Conflict::Merge(panics)).await;
    assert_eq!(gate.flush(ms(1_000)).await.unwrap().parked, 1);
    assert_eq!(world.value("b", "b:1").as_deref(), Some("theirs"));
    let letter = gate.dead_letter(b"b:1").unwrap();
    assert_eq!(letter.value.as_deref(), Some(&b"ours"[..]));
    // The lane goes on.
    gate.set("b:2", "x").await.unwrap();
    gate.flush(ms(1_000)).await.unwrap();
    assert_eq!(world.value("b", "b:2").as_deref(), Some("x"));
}

#[tokio::test(start_paused = true)]
async fn what_others_did_to_a_row_that_was_not_there_or_is_gone_is_seen() {
    let world = World::new();
    let gate = world.gate([back(Conflict::StoreWins)]).await;
    // Read and absent; made by others; then written.
    assert_eq!(text(&gate, "b:new").await, None);
    world
        .rows
        .outside("b", &Key::from("b:new"), Some(b"theirs"));
    gate.set("b:new", "ours").await.unwrap();
    // Flushed; deleted by others; then written.
    gate.set("b:gone", "first").await.unwrap();
    gate.flush(ms(1_000)).await.unwrap();
    world.rows.outside("b", &Key::from("b:gone"), None);
    gate.set("b:gone", "ours").await.unwrap();
    gate.flush(ms(1_000)).await.unwrap();
    assert_eq!(world.value("b", "b:new").as_deref(), Some("theirs"));
    assert_eq!(world.value("b", "b:gone"), None);
    let letters = gate.dead_letters(None, None, 10);
    let keys: Vec<_> = letters
        .iter()
        .map(|letter| letter.key.to_string())
        .collect();
    assert_eq!(keys, ["b:gone", "b:new"]);
    // What was never looked at goes over what is older.
    world
        .rows
        .outside("b", &Key::from("b:blind"), Some(b"theirs"));
    gate.set("b:blind", "ours").await.unwrap();
    gate.flush(ms(1_000)).await.unwrap();
    assert_eq!(world.value("b", "b:blind").as_deref(), Some("ours"));
}

#[tokio::test(start_paused = true)]
async fn an_earlier_try_of_our_own_is_no_conflict() {
    for done in [true, false] {
        for crash in [true, false] {
            let world = World::new();
            let store = Hooked::new(world.rows.clone());
            let open = || async {
                let builder = world.builder().store(store.clone());
                let class = back(Conflict::StoreWins);
                builder.class(class).open().await.unwrap()
            };
            let gate = open().await;
            gate.set("b:1", "first").await.unwrap();
            gate.flush(ms(1_000)).await.unwrap();
            let lost = StoreError::unknown(None, "the answer was lost");
            store.settings().lost = Some((done, lost));
            gate.set("b:1", "second").await.unwrap();
            pass(ms(100)).await;
            gate.set("b:1", "third").await.unwrap();
            pass(ms(100)).await;
            gate.delete("b:1").await.unwrap();
            pass(ms(100)).await;
            gate.set("b:1", "fourth").await.unwrap();
            let gate = match crash {
                false => gate,
                true => {
                    drop(gate);
                    open().await
                }
            };
            store.settings().lost = None;
            assert!(gate.flush(ms(60_000)).await.unwrap().is_complete());
            let value = world.value("b", "b:1");
            assert_eq!(value.as_deref(), Some("fourth"), "{done} {crash}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_others_have_changed_often_is_written_over_all_the_same() {
    let world = World::new();
    let gate = world.gate([back(Conflict::StoreWins)]).await;
    gate.set("b:1", "first").await.unwrap();
    gate.flush(ms(1_000)).await.unwrap();
    for _ in 0..1_000 {
        world.rows.outside("b", &Key::from("b:1"), Some(b"theirs"));
    }
    // Read again, so that the write is made over what is there now.
    gate.evict(b"b:1");
    assert_eq!(text(&gate, "b:1").await.as_deref(), Some("theirs"));
    let row = world.row("b", "b:1").unwrap().version;
    let written = gate.set("b:1", "ours").await.unwrap();
    assert!(written.receipt.version > row, "numbered above the row");
    let generation = |version: Version| version.generation();
    assert_eq!(generation(written.receipt.version), generation(row));
    assert!(gate.flush(ms(1_000)).await.unwrap().is_complete());
    assert_eq!(world.value("b", "b:1").as_deref(), Some("ours"));
}

#[tokio::test(start_paused = true)]
async fn a_row_that_others_made_without_a_version_can_be_written_once_it_was_read() {
    let world = World::new();
    let gate = world.gate([back(Conflict::StoreWins)]).await;
    for (key, change) in [("b:1", Some("ours")), ("b:2", None)] {
        world.rows.outside("b", &Key::from(key), Some(b"theirs"));
        assert_eq!(text(&gate, key).await.as_deref(), Some("theirs"));
        match change {
            Some(value) => drop(gate.set(key, value).await.unwrap()),
            None => drop(gate.delete(key).await.unwrap()),
        }
        let report = gate.flush(ms(1_000)).await.unwrap();
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(world.value("b", key).as_deref(), change);
    }
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}
