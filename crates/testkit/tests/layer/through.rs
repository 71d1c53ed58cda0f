//! What goes through the store past a bound, or past a broken journal, over what is dirty, parked or added to.

use tidegate_core::port::{Batch, Guard, Store, TableSpec, Timestamp, Write};
use tidegate_core::{Change, Class, Conflict, Durability, Entry, Key, Strategy, Version, WhenFull};

use crate::life::{crash, live};
use crate::world::{World, ms, text};

fn back() -> Class {
    Class::new("b", "b:*")
        .strategy(Strategy::WriteBack)
        .linger(ms(3_600_000))
        .block_timeout(ms(2_000))
        .dirty_bytes_max(1_000, WhenFull::WriteThrough)
}

/// Appends to what is there.
fn longer(entry: Option<&Entry>) -> (Option<Change>, ()) {
    let mut value = entry.map_or(Vec::new(), |entry| entry.value.to_vec());
    value.extend_from_slice(&[b'x'; 1_000]);
    let (value, expires_at) = (value.into(), None);
    (Some(Change::Put { value, expires_at }), ())
}

#[tokio::test(start_paused = true)]
async fn an_update_of_a_dirty_key_goes_through_over_what_is_dirty() {
    for before in [false, true] {
        let world = World::new();
        if before {
            world.write_outside("b", "b:1", "row").await;
        }
        let gate = world.gate([back()]).await;
        gate.set("b:1", "dirty").await.unwrap();
        let ((), written) = gate.update("b:1", longer).await.unwrap();
        assert_eq!(written.receipt.durability, Durability::Store);
        let expected = format!("dirty{}", "x".repeat(1_000));
        assert_eq!(world.value("b", "b:1").as_deref(), Some(&*expected));
        assert_eq!(text(&gate, "b:1").await, Some(expected));
        assert!(gate.flush(ms(1_000)).await.unwrap().is_complete());
        assert!(gate.audit().is_empty(), "{:?}", gate.audit());
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_goes_through_over_what_others_wrote_under_a_dirty_entry_when_that_is_decided() {
    let world = World::new();
    world.write_outside("b", "b:1", "row").await;
    let gate = world.gate([back()]).await;
    assert_eq!(text(&gate, "b:1").await.as_deref(), Some("row"));
    gate.set("b:1", "dirty").await.unwrap();
    world.rows.outside("b", &Key::from("b:1"), Some(b"theirs"));
    gate.update("b:1", longer).await.unwrap();
    // The dirty entry lost to the row, as the class says, and is kept; the update came after.
    let expected = format!("theirs{}", "x".repeat(1_000));
    assert_eq!(world.value("b", "b:1"), Some(expected));
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

#[tokio::test(start_paused = true)]
async fn an_update_goes_through_over_a_dead_letter() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    gate.set("b:1", "!poison").await.unwrap();
    assert_eq!(gate.flush(ms(1_000)).await.unwrap().parked, 1);
    let good = |entry: Option<&Entry>| {
        let len = entry.map_or(0, |entry| entry.value.len());
        let (value, expires_at) = ("y".repeat(1_000 + len).into(), None);
        (Some(Change::Put { value, expires_at }), len)
    };
    let (seen, written) = gate.update("b:1", good).await.unwrap();
    assert_eq!((seen, written.receipt.durability), (7, Durability::Store));
    assert_eq!(
        world.value("b", "b:1").map(|value| value.len()),
        Some(1_007)
    );
    assert!(gate.dead_letters(None, None, 10).is_empty());
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

#[tokio::test(start_paused = true)]
async fn what_is_added_through_the_store_stays_an_addition() {
    let world = World::new();
    let class = Class::new("n", "n:*")
        .strategy(Strategy::WriteBack)
        .linger(ms(3_600_000))
        .delta(true)
        .dirty_entries_max(1)
        .when_full(WhenFull::WriteThrough);
    let gate = world.gate([class]).await;
    gate.add("n:1", 1).await.unwrap();
    gate.flush(ms(1_000)).await.unwrap();
    gate.set("n:full", "!poison").await.unwrap();
    assert_eq!(gate.flush(ms(1_000)).await.unwrap().parked, 1);
    // Added by others where nothing raises the version of a row.
    let version = world.row("n", "n:1").unwrap().version.raw();
    world.rows.outside("n", &Key::from("n:1"), None);
    world.write_outside_as("n", "n:1", "101", version).await;
    let (_, written) = gate.add("n:1", 1).await.unwrap();
    assert_eq!(written.receipt.durability, Durability::Store);
    assert_eq!(world.value("n", "n:1").as_deref(), Some("102"));
    assert_eq!(text(&gate, "n:1").await.as_deref(), Some("102"));
    let (value, _) = gate.add("n:1", 1).await.unwrap();
    assert_eq!(value, 103);
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

#[test]
fn a_delete_that_the_journal_could_not_be_told_of_is_not_undone_after_a_start() {
    for conflict in [Conflict::StoreWins, Conflict::CacheWins] {
        for write_first in [false, true] {
            let class = || back().conflict(conflict.clone());
            let world = World::new();
            let version = crash(&world, async {
                let gate = world.gate([class()]).await;
                gate.set("b:1", "deleted").await.unwrap().receipt.version
            });
            live(async {
                // As the same life would have done through the store, its journal being broken.
                let table = TableSpec::named("b");
                let write = Write {
                    table: world.rows.open_table(&table).await.unwrap(),
                    key: Key::from("b:1"),
                    change: Change::Delete,
                    guard: Guard::IfNewer(Version::from_raw(version.raw() + 2)),
                };
                let (writes, now) = (vec![write], Timestamp::from_millis(1));
                world.rows.apply(&Batch::new(writes, now)).await.unwrap();
                let gate = world.gate([class()]).await;
                if write_first {
                    gate.set("b:1", "new").await.unwrap();
                }
                assert!(gate.flush(ms(1_000)).await.unwrap().is_complete());
                let expected = write_first.then(|| "new".to_owned());
                assert_eq!(text(&gate, "b:1").await, expected);
                assert_eq!(world.value("b", "b:1"), expected);
                assert!(gate.dead_letters(None, None, 10).is_empty());
                assert!(gate.audit().is_empty(), "{:?}", gate.audit());
            });
        }
    }
}
