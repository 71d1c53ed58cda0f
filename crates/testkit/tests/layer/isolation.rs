//! What is slow, broken, full or foreign in one place is not felt in another, and nothing acknowledged goes
//! with it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tidegate_core::port::{Store, TableSpec};
use tidegate_core::{Change, Class, Entry, ErrorKind, Strategy, WhenFull};
use tidegate_testkit::sim::StoreFaults;

use crate::world::{World, ms, pass, text};

fn back(name: &str) -> Class {
    Class::new(name, &format!("{name}:*")).strategy(Strategy::WriteBack)
}

fn put(value: &'static str) -> impl FnMut(Option<&Entry>) -> (Option<Change>, ()) + Send {
    move |current| match current {
        Some(_) => (None, ()),
        None => (
            Some(Change::Put {
                value: Bytes::from(value),
                expires_at: None,
            }),
            (),
        ),
    }
}

#[tokio::test(start_paused = true)]
async fn a_class_that_lingers_long_does_not_hold_up_another() {
    let world = World::new();
    let (slow, quick) = (
        back("slow").linger(ms(600_000)),
        back("quick").linger(ms(50)),
    );
    let gate = world
        .builder()
        .lanes(1)
        .class(slow)
        .class(quick)
        .open()
        .await
        .unwrap();
    gate.set("slow:1", "v").await.unwrap();
    gate.set("quick:1", "v").await.unwrap();
    pass(ms(200)).await;
    assert_eq!(world.value("quick", "quick:1").as_deref(), Some("v"));
    assert_eq!(world.row("slow", "slow:1"), None);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_cannot_be_read_does_not_fail_the_keys_of_others() {
    let world = World::new();
    let gate = world
        .builder()
        .lanes(1)
        .class(Class::new("good", "good:*"))
        .class(Class::new("bad", "bad:*"))
        .open()
        .await
        .unwrap();
    let mut faults = StoreFaults::none(ms(1));
    faults.broken_table = Some(
        world
            .rows
            .open_table(&TableSpec::named("bad"))
            .await
            .unwrap(),
    );
    world.store.set_faults(faults);
    let keys: Vec<String> = (0..6)
        .map(|i| format!("{}:{i}", if i % 2 == 0 { "good" } else { "bad" }))
        .collect();
    for (key, read) in keys
        .iter()
        .zip(join_all(keys.iter().map(|key| gate.get(key))).await)
    {
        assert_eq!(read.is_ok(), key.starts_with("good"), "{key}: {read:?}");
    }
    let updates = join_all(keys.iter().map(|key| gate.update(key, put("v")))).await;
    for (key, update) in keys.iter().zip(updates) {
        assert_eq!(update.is_ok(), key.starts_with("good"), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_does_not_depend_on_a_copy_past_its_ttl() {
    let world = World::new();
    let gate = world
        .gate([Class::new("u", "u:*").ttl(ms(1_000)).negative_ttl(ms(500))])
        .await;
    gate.set("u:1", "v").await.unwrap();
    world.delete_outside("u", "u:1").await;
    pass(ms(1_500)).await;
    gate.update("u:1", put("new")).await.unwrap();
    assert_eq!(
        world.value("u", "u:1").as_deref(),
        Some("new"),
        "the stale copy said it was there"
    );
    assert_eq!(text(&gate, "u:2").await, None);
    world.write_outside("u", "u:2", "outside").await;
    pass(ms(600)).await;
    gate.update("u:2", put("new")).await.unwrap();
    assert_eq!(
        world.value("u", "u:2").as_deref(),
        Some("outside"),
        "the stale absence is not believed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_row_that_others_wrote_newer_parks_the_write_and_later_ones_are_newer() {
    let world = World::new();
    world
        .write_outside_as("b", "b:1", "theirs", 1_760_000_000_000_000_000)
        .await;
    let gate = world.gate([back("b")]).await;
    gate.set("b:1", "ours").await.unwrap();
    let report = gate.flush(ms(10_000)).await.unwrap();
    assert_eq!((report.left, report.parked), (0, 1));
    assert!(gate.explain(b"b:1").refused.is_some());
    let letter = gate.dead_letter(b"b:1").unwrap();
    assert_eq!(letter.value.as_deref(), Some(b"ours".as_slice()), "kept");
    assert_eq!(world.value("b", "b:1").as_deref(), Some("theirs"));
    assert_eq!(text(&gate, "b:1").await.as_deref(), Some("theirs"));
    // A restart forgets nothing of it.
    drop(gate);
    let gate = world.gate([back("b")]).await;
    assert_eq!(gate.flush(ms(10_000)).await.unwrap().parked, 1);
    assert_eq!(gate.dead_letter(b"b:1").as_ref(), Some(&letter));
    assert_eq!(text(&gate, "b:1").await.as_deref(), Some("theirs"));
    gate.set("b:1", "ours again").await.unwrap();
    assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
    assert_eq!(world.value("b", "b:1").as_deref(), Some("ours again"));
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

#[tokio::test(start_paused = true)]
async fn a_flushed_record_does_not_come_back_over_a_row_deleted_since() {
    let world = World::new();
    let gate = world.gate([back("b")]).await;
    gate.set("b:1", "v").await.unwrap();
    gate.flush(ms(10_000)).await.unwrap();
    pass(ms(6_000)).await;
    world.delete_outside("b", "b:1").await;
    // No drain: the process is gone.
    drop(gate);
    let gate = world.gate([back("b")]).await;
    assert_eq!(text(&gate, "b:1").await, None);
    pass(ms(1_000)).await;
    assert_eq!(world.row("b", "b:1"), None);
}

#[tokio::test(start_paused = true)]
async fn an_update_that_grows_past_the_bound_is_refused() {
    let world = World::new();
    let gate = world
        .gate([back("b").dirty_bytes_max(4_000, WhenFull::Reject)])
        .await;
    world.set_down(true);
    gate.set("b:0", "v").await.unwrap();
    let large = || {
        |_: Option<&Entry>| {
            (
                Some(Change::Put {
                    value: Bytes::from(vec![1; 10_000]),
                    expires_at: None,
                }),
                (),
            )
        }
    };
    let error = gate.update("b:0", large()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.to_string().contains("dirty_max"), "{error}");
    let (set, update) = tokio::join!(gate.set("b:0", "w"), gate.update("b:0", large()));
    assert!(
        set.is_ok() && update.is_err(),
        "only the guilty one of a chain"
    );
    assert_eq!(text(&gate, "b:0").await.as_deref(), Some("w"));
    assert!(gate.stats().classes[0].dirty_bytes <= 4_000);
    world.set_down(false);
    assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

#[tokio::test(start_paused = true)]
async fn a_full_class_takes_a_write_in_place_of_a_parked_one() {
    let world = World::new();
    let gate = world
        .gate([back("b").dirty_bytes_max(1_600, WhenFull::Reject)])
        .await;
    gate.set("b:1", "!poison").await.unwrap();
    gate.set("b:2", "!poison").await.unwrap();
    gate.flush(ms(10_000)).await.unwrap();
    assert_eq!(
        gate.set("b:3", "v").await.unwrap_err().kind(),
        ErrorKind::Overloaded
    );
    gate.set("b:1", "good").await.unwrap();
    gate.delete("b:2").await.unwrap();
    assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
    gate.set("b:3", "v").await.unwrap();
    assert!(gate.drain(ms(10_000)).await.unwrap().is_complete());
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

#[tokio::test(start_paused = true)]
async fn what_the_near_cache_cannot_hold_is_not_acknowledged_by_a_class_that_has_nothing_else() {
    let world = World::new();
    let class = Class::new("c", "c:*").strategy(Strategy::CacheOnly);
    let gate = world
        .builder()
        .near_bytes(1 << 20)
        .class(class)
        .open()
        .await
        .unwrap();
    gate.set("c:1", "small").await.unwrap();
    let error = gate.set("c:1", vec![0; 2 << 20]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(text(&gate, "c:1").await.as_deref(), Some("small"));
}

#[tokio::test(start_paused = true)]
async fn the_sweeper_leaves_the_tables_of_read_only_classes_alone() {
    let world = World::new();
    let gate = world.gate([Class::new("x", "x:*")]).await;
    let soon = gate.now().after(ms(100));
    gate.set_with("x:1", "v", Some(soon)).await.unwrap();
    gate.drain(ms(1_000)).await.unwrap();
    let gate = world
        .gate([Class::new("x", "x:*").strategy(Strategy::ReadOnly)])
        .await;
    pass(ms(60_000)).await;
    assert_eq!(text(&gate, "x:1").await, None, "absent to readers");
    assert!(world.row("x", "x:1").is_some(), "and still there");
}

#[tokio::test(start_paused = true)]
async fn durations_without_end_are_no_panic() {
    let world = World::new();
    let mut class = back("b").ttl(Duration::MAX).linger(Duration::MAX);
    class.negative_ttl = Duration::MAX;
    let gate = world.gate([class]).await;
    gate.set("b:1", "v").await.unwrap();
    assert_eq!(text(&gate, "b:none").await, None);
    pass(ms(1_000)).await;
    assert!(gate.drain(Duration::MAX).await.unwrap().is_complete());
    assert_eq!(world.value("b", "b:1").as_deref(), Some("v"));
}
