//! The bounds of a write-back class: what counts, who waits, who is refused, what goes through the store.

use std::time::Duration;

use futures_util::future::{join, join_all};
use tidegate_core::port::ValueType;
use tidegate_core::{
    Change, Class, Durability, ErrorKind, Gate, State, Strategy, WhenFull, WhenJournalFails,
};
use tidegate_testkit::sim::{JournalFaults, StoreFaults};

use crate::world::{World, ms, pass, text};

fn back() -> Class {
    Class::new("b", "b:*")
        .strategy(Strategy::WriteBack)
        .linger(ms(50))
        .block_timeout(ms(2_000))
}

fn put(value: &str) -> Change {
    Change::Put {
        value: value.to_owned().into(),
        expires_at: None,
    }
}

/// Writes keys of this prefix until one is refused; how many were taken, and the error.
async fn fill(gate: &Gate, prefix: &str, value_bytes: usize) -> (usize, tidegate_core::Error) {
    for taken in 0..10_000 {
        let key = format!("b:{prefix}{taken}");
        if let Err(error) = gate.set(key, vec![7; value_bytes]).await {
            return (taken, error);
        }
    }
    panic!("ten thousand writes, and no bound was met");
}

#[tokio::test(start_paused = true)]
async fn entries_are_bounded_as_bytes_are() {
    let world = World::new();
    let gate = world
        .gate([back().dirty_entries_max(10).when_full(WhenFull::Reject)])
        .await;
    world.set_down(true);
    let (taken, error) = fill(&gate, "", 1).await;
    assert_eq!((taken, error.kind()), (10, ErrorKind::Overloaded));
    assert!(error.to_string().contains("dirty_entries_max"), "{error}");
    gate.set("b:3", "again").await.unwrap();
    assert_eq!(gate.stats().classes[0].dirty_entries, 10);
    world.set_down(false);
    assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
    gate.set("b:new", "v").await.unwrap();
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_holds_new_writes_back_and_not_for_ever() {
    let world = World::new();
    let class = back().dirty_age_max(ms(1_000)).when_full(WhenFull::Reject);
    let gate = world.gate([class]).await;
    world.set_down(true);
    gate.set("b:old", "v").await.unwrap();
    pass(ms(900)).await;
    gate.set("b:1", "v").await.unwrap();
    pass(ms(300)).await;
    let error = gate.set("b:2", "v").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.to_string().contains("dirty_age_max"), "{error}");
    world.set_down(false);
    assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
    pass(ms(200)).await;
    gate.set("b:2", "v").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_hangs_on_its_way_to_the_store_grows_old_there() {
    let world = World::new();
    let class = back().dirty_age_max(ms(1_000)).when_full(WhenFull::Reject);
    let gate = world.gate([class]).await;
    let mut faults = StoreFaults::none(ms(100));
    faults.stall = 1.0;
    world.store.set_faults(faults);
    gate.set("b:hangs", "v").await.unwrap();
    pass(ms(1_500)).await;
    assert_eq!(gate.stats().flushes_in_flight, 1);
    let error = gate.set("b:1", "v").await.unwrap_err();
    assert!(error.to_string().contains("dirty_age_max"), "{error}");
    world.set_down(false);
    assert!(gate.flush(ms(60_000)).await.unwrap().is_complete());
    pass(ms(200)).await;
    gate.set("b:1", "v").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dead_letters_count_against_the_bounds_but_have_no_age() {
    let world = World::new();
    let class = back()
        .dirty_entries_max(2)
        .dirty_age_max(ms(1_000))
        .when_full(WhenFull::Reject);
    let gate = world.gate([class]).await;
    gate.set("b:bad", "!poison").await.unwrap();
    gate.flush(ms(10_000)).await.unwrap();
    assert_eq!(gate.explain(b"b:bad").state, State::Parked);
    pass(ms(5_000)).await;
    world.set_down(true);
    gate.set("b:1", "v").await.unwrap();
    let error = gate.set("b:2", "v").await.unwrap_err();
    assert!(error.to_string().contains("dirty_entries_max"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn writers_are_paced_between_the_high_mark_and_the_bound() {
    let world = World::new();
    let gate = world.gate([back().dirty_entries_max(100)]).await;
    world.set_down(true);
    let mut waits = Vec::new();
    for i in 0..99 {
        let before = gate.now();
        gate.set(format!("b:{i}"), "v").await.unwrap();
        waits.push(gate.now().since(before));
    }
    // A sync takes a millisecond at most.
    assert!(waits[..80].iter().all(|wait| *wait <= ms(2)), "{waits:?}");
    let mean = |waits: &[Duration]| waits.iter().sum::<Duration>() / waits.len() as u32;
    let (near, nearest) = (mean(&waits[82..90]), mean(&waits[92..]));
    assert!(near < nearest && nearest > ms(5), "{near:?} {nearest:?}");
    assert!(waits.iter().all(|wait| *wait <= ms(30)), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn with_the_store_down_and_many_writers_what_is_kept_stays_within_the_bound() {
    let world = World::new();
    let bound = 100_000;
    let class = back()
        .dirty_bytes_max(bound, WhenFull::Block)
        .block_timeout(ms(50));
    let gate = world.gate([class]).await;
    world.set_down(true);
    gate.set("b:hit", "v").await.unwrap();
    let writers = (0..64).map(|writer| {
        let gate = gate.clone();
        async move {
            for i in 0..200 {
                // Sizes that do not divide the bound, values that grow, and keys written again.
                let key = format!("b:{}", (writer * 31 + i * 17) % 500);
                let _ = gate.set(&key, vec![7; (i * 13) % 700]).await;
                let grow = |entry: Option<&tidegate_core::Entry>| {
                    let len = entry.map_or(0, |entry| entry.value.len());
                    let value = vec![7; len + 50].into();
                    let expires_at = None;
                    (Some(Change::Put { value, expires_at }), ())
                };
                if i % 10 == 0 {
                    let _ = gate.update(&key, grow).await;
                }
                assert!(gate.stats().classes[0].dirty_bytes <= bound * 12 / 10);
                assert_eq!(text(&gate, "b:hit").await.as_deref(), Some("v"));
            }
        }
    });
    join_all(writers).await;
    assert!(gate.stats().classes[0].dirty_bytes > bound / 2);
    world.set_down(false);
    assert!(gate.flush(ms(60_000)).await.unwrap().is_complete());
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

#[tokio::test(start_paused = true)]
async fn an_update_that_outgrows_its_room_waits_for_it_and_keeps_its_place() {
    let world = World::new();
    let gate = world
        .gate([back().dirty_bytes_max(7_000, WhenFull::Block)])
        .await;
    gate.set("b:grows", "0").await.unwrap();
    gate.flush(ms(10_000)).await.unwrap();
    world.set_down(true);
    for i in 0..5 {
        gate.set(format!("b:{i}"), vec![7; 300]).await.unwrap();
    }
    let long = "1".repeat(1_500);
    let (to_write, began) = (long.clone(), gate.now());
    let grows = gate.update("b:grows", move |_| (Some(put(&to_write)), ()));
    let after = async {
        // Issued after the update, so it must come after it, though there is room for it at once.
        pass(ms(10)).await;
        gate.update("b:grows", |entry| {
            let len = entry.map_or(0, |entry| entry.value.len());
            (Some(put("2")), len)
        })
        .await
    };
    let back_again = async {
        pass(ms(500)).await;
        world.set_down(false);
    };
    let ((grown, seen), ()) = join(join(grows, after), back_again).await;
    grown.unwrap();
    assert!(gate.now().since(began) >= ms(500), "it waited for room");
    assert_eq!(seen.unwrap().0, long.len());
    assert_eq!(text(&gate, "b:grows").await.as_deref(), Some("2"));
    assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

#[tokio::test(start_paused = true)]
async fn an_update_that_outgrows_its_room_is_refused_when_it_waited_in_vain() {
    let world = World::new();
    let gate = world
        .gate([back().dirty_bytes_max(8_100, WhenFull::Block)])
        .await;
    world.set_down(true);
    for i in 0..8 {
        gate.set(format!("b:{i}"), vec![7; 200]).await.unwrap();
    }
    let before = gate.now();
    let long = "1".repeat(2_000);
    let error = gate
        .update("b:0", move |_| (Some(put(&long)), ()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(gate.now().since(before) >= ms(2_000));
    assert_eq!(gate.get("b:0").await.unwrap().unwrap().len(), 200);
    gate.set("b:0", vec![7; 100]).await.unwrap();
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

#[tokio::test(start_paused = true)]
async fn past_a_bound_a_write_goes_through_the_store_in_the_order_of_its_key() {
    let world = World::new();
    let class = back()
        .linger(ms(3_600_000))
        .dirty_entries_max(4)
        .when_full(WhenFull::WriteThrough);
    // A flush takes so long that it is still on its way when the writes that go through come.
    world.store.set_faults(StoreFaults::none(ms(100)));
    let gate = world.gate([class]).await;
    for i in 0..4 {
        gate.set(format!("b:{i}"), "dirty").await.unwrap();
    }
    let through = gate.set("b:4", "through").await.unwrap();
    assert_eq!(through.receipt.durability, Durability::Store);
    assert_eq!(world.value("b", "b:4").as_deref(), Some("through"));
    assert_eq!(gate.explain(b"b:4").state, State::Clean);
    // Of a key that is dirty, or on its way, or deleted meanwhile: the last write is what stays.
    for round in 0..20 {
        for i in 0..6 {
            let key = format!("b:{i}");
            let long = format!("{round}-{}", "x".repeat(round * 10));
            match (round + i) % 3 {
                0 => drop(gate.delete(&key).await.unwrap()),
                _ => drop(gate.set(&key, long.clone()).await.unwrap()),
            }
            let seen = text(&gate, &key).await;
            let expected = ((round + i) % 3 != 0).then_some(long);
            assert_eq!(seen, expected, "round {round}, {key}");
        }
        if round % 4 == 0 {
            pass(ms(150)).await;
        }
    }
    assert!(gate.flush(ms(60_000)).await.unwrap().is_complete());
    for i in 0..6 {
        let key = format!("b:{i}");
        gate.evict(key.as_bytes());
        assert_eq!(text(&gate, &key).await, world.value("b", &key));
        assert_eq!(world.value("b", &key).is_some(), (19 + i) % 3 != 0, "{key}");
    }
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

#[tokio::test(start_paused = true)]
async fn what_goes_through_the_store_fails_as_a_write_through_does() {
    let world = World::new();
    let class = back()
        .dirty_entries_max(1)
        .when_full(WhenFull::WriteThrough);
    let gate = world.gate([class]).await;
    world.set_down(true);
    gate.set("b:1", "dirty").await.unwrap();
    let error = gate.set("b:2", "v").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(text(&gate, "b:1").await.as_deref(), Some("dirty"));
    world.set_down(false);
    let (one, two) = join(gate.set("b:2", "!poison"), gate.set("b:3", "good")).await;
    assert!(
        [one, two]
            .iter()
            .all(|answer| answer.as_ref().map_err(|e| e.kind()) != Err(ErrorKind::Unavailable))
    );
    assert!(gate.flush(ms(60_000)).await.unwrap().left == 0);
    assert_eq!(world.value("b", "b:1").as_deref(), Some("dirty"));
    assert_eq!(world.value("b", "b:3").as_deref(), Some("good"));
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_went_through_the_store_is_not_undone_by_a_replay() {
    let world = World::new();
    let class = || {
        back()
            .linger(ms(3_600_000))
            .dirty_entries_max(2)
            .when_full(WhenFull::WriteThrough)
    };
    let gate = world.gate([class()]).await;
    gate.set("b:1", "v").await.unwrap();
    gate.set("b:2", "v").await.unwrap();
    gate.set("b:3", "through").await.unwrap();
    gate.delete("b:3").await.unwrap();
    assert!(gate.delete("b:1").await.unwrap().existed);
    // The process ends without a word.
    let (first, second) = (world.disk.clone(), world.disk.len());
    drop(gate);
    assert!(second > 0 && !first.is_empty());
    let gate = world.gate([class()]).await;
    assert_eq!(text(&gate, "b:1").await, None);
    assert_eq!(text(&gate, "b:3").await, None);
    assert_eq!(text(&gate, "b:2").await.as_deref(), Some("v"));
}

#[tokio::test(start_paused = true)]
async fn when_the_journal_fails_a_class_may_go_through_the_store() {
    for then in [WhenJournalFails::Refuse, WhenJournalFails::WriteThrough] {
        let world = World::new();
        let faults = JournalFaults {
            sync_max: ms(1),
            fail: 1.0,
            answers_early: false,
            full: 0.0,
        };
        let class = back().when_journal_fails(then);
        let gate = world
            .builder_with(faults)
            .class(class)
            .open()
            .await
            .unwrap();
        assert!(!gate.stats().journal_failed);
        let error = gate.set("b:1", "v").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown);
        assert!(gate.stats().journal_failed, "whoever watches is told");
        match (then, gate.set("b:1", "w").await) {
            (WhenJournalFails::Refuse, answer) => {
                assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unavailable);
            }
            (WhenJournalFails::WriteThrough, answer) => {
                assert_eq!(answer.unwrap().receipt.durability, Durability::Store);
                assert_eq!(world.value("b", "b:1").as_deref(), Some("w"));
                assert_eq!(text(&gate, "b:1").await.as_deref(), Some("w"));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_goes_away_changes_nothing() {
    let world = World::new();
    let gate = world.gate([back()]).await;
    {
        let write = gate.set("b:1", "v");
        tokio::pin!(write);
        assert!(futures_util::poll!(&mut write).is_pending());
        // Never looked at again, and held while others read.
        assert_eq!(text(&gate, "b:1").await.as_deref(), Some("v"));
    }
    drop(gate.set("b:2", "never begun"));
    let mut write = Box::pin(gate.delete("b:1"));
    let _ = futures_util::poll!(&mut write);
    drop(write);
    pass(ms(200)).await;
    assert!(gate.drain(ms(10_000)).await.unwrap().is_complete());
    assert_eq!(world.row("b", "b:1"), None);
    assert_eq!(world.row("b", "b:2"), None);
}

#[tokio::test(start_paused = true)]
async fn what_a_json_column_cannot_hold_is_refused_before_it_is_acknowledged() {
    let world = World::new();
    let mut class = back();
    class.table.value_type = ValueType::Jsonb;
    let gate = world.gate([class]).await;
    let error = gate.set("b:1", "{\"secret\":").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(!error.to_string().contains("secret"), "{error}");
    let error = gate.update("b:1", |_| (Some(put("nor is this")), ())).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Refused);
    let deep = format!("{}1{}", "[".repeat(1_000), "]".repeat(1_000));
    for good in ["{\"a\": [1, null]}", "1", "\"text\"", &deep] {
        gate.set("b:1", good.to_owned()).await.unwrap();
    }
    gate.delete("b:1").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_to_a_stalled_store_counts_until_it_is_there() {
    let world = World::new();
    let class = back().dirty_bytes_max(20_500, WhenFull::Reject);
    let gate = world.gate([class]).await;
    let mut faults = StoreFaults::none(ms(1_000));
    faults.stall = 1.0;
    world.store.set_faults(faults);
    let ten = (0..10).map(|key| (format!("b:{key}"), vec![1; 1_000]));
    gate.set_many(ten).await.unwrap();
    // Some are on their way, and their values in memory, whatever is written over them.
    pass(ms(100)).await;
    let mut over = 0;
    for key in 0..10 {
        match gate.set(format!("b:{key}"), vec![2; 1_000]).await {
            Ok(_) => over += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Overloaded),
        }
    }
    assert!((1..10).contains(&over), "{over} of ten were taken over");
    // Over what is not on its way itself a write makes nothing worse.
    gate.set("b:0", vec![3; 1_000]).await.unwrap();
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
    world.set_down(false);
    assert!(gate.flush(ms(60_000)).await.unwrap().is_complete());
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
    gate.set("b:9", vec![4; 14_000]).await.unwrap();
}
