//! What a flush tells, by class, and what the figures of a class say.

use tidegate_core::{Class, ClassFlush, Durability, ErrorKind, Strategy};

use crate::hooked::Hooked;
use crate::world::{World, ms, pass};

fn back(name: &str) -> Class {
    Class::new(name, &format!("{name}:*"))
        .strategy(Strategy::WriteBack)
        .linger(ms(3_600_000))
}

fn of(class: &str, flushed: u64, left: u64, parked: u64) -> ClassFlush {
    ClassFlush {
        class: class.to_owned(),
        flushed,
        left,
        parked,
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_reports_by_class_and_may_be_of_one() {
    let world = World::new();
    let store = Hooked::new(world.rows.clone());
    store.settings().refused = Some("!");
    let builder = world.builder().store(store.clone());
    let builder = builder.class(back("a")).class(back("b"));
    let gate = builder.class(Class::new("t", "t:*")).open().await.unwrap();
    for n in 0..10 {
        gate.set(format!("a:{n}"), "v").await.unwrap();
        gate.set(format!("b:{n}"), if n < 3 { "!" } else { "v" })
            .await
            .unwrap();
        gate.set(format!("t:{n}"), "v").await.unwrap();
    }
    let report = gate.flush_class("b", ms(10_000)).await.unwrap();
    assert_eq!(report.classes, [of("b", 7, 0, 3)]);
    assert_eq!((report.flushed, report.left, report.parked), (7, 0, 3));
    assert_eq!(gate.stats().classes[0].dirty_entries, 10, "of class a");
    for name in ["t", "nobody"] {
        let error = gate.flush_class(name, ms(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(name), "{error}");
    }
    store.settings().away = true;
    let report = gate.flush(ms(1_000)).await.unwrap();
    assert_eq!(report.classes, [of("a", 0, 10, 0), of("b", 0, 0, 3)]);
    store.settings().away = false;
    let report = gate.flush(ms(10_000)).await.unwrap();
    assert_eq!(report.classes, [of("a", 10, 0, 0), of("b", 0, 0, 3)]);
    assert!(!report.is_complete());
    gate.retry_dead_letters(None);
    store.settings().refused = None;
    assert!(gate.drain(ms(10_000)).await.unwrap().is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_drain_flushes_although_a_write_through_the_store_is_stuck() {
    let world = World::new();
    let store = Hooked::new(world.rows.clone());
    store.settings().stuck = Some("t:stuck");
    let classes = [
        back("b").durability(Durability::Memory),
        Class::new("t", "t:*"),
    ];
    let builder = world.builder().store(store.clone()).lanes(1);
    let gate = builder.classes(classes).open().await.unwrap();
    gate.set("b:1", "v").await.unwrap();
    let stuck = gate.clone();
    tokio::spawn(async move { drop(stuck.set("t:stuck", "v").await) });
    pass(ms(10)).await;
    let report = gate.drain(ms(1_000)).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(world.value("b", "b:1").as_deref(), Some("v"));
}

#[tokio::test(start_paused = true)]
async fn the_figures_tell_the_rate_and_how_long_it_takes_to_drain() {
    let world = World::new();
    let store = Hooked::new(world.rows.clone());
    store.settings().costs.0 = ms(100);
    let builder = world.builder().store(store.clone()).lanes(1);
    // Ten to a batch of 100 ms, one batch at a time for a linger that is always over.
    let class = back("b").linger(ms(0)).batch(10);
    let gate = builder.class(class).open().await.unwrap();
    store.settings().away = true;
    for n in 0..20_000 {
        gate.set(format!("b:{n}"), "v").await.unwrap();
    }
    pass(ms(5_000)).await;
    let away = gate.stats();
    assert_eq!(away.classes[0].time_to_drain, None);
    store.settings().away = false;
    pass(ms(10_000)).await;
    let stats = gate.stats();
    let class = &stats.classes[0];
    assert!(class.dirty_entries > 0 && class.flush_rounds > away.classes[0].flush_rounds);
    let before = gate.now();
    let expected = class.time_to_drain.unwrap();
    assert!(gate.flush(ms(600_000)).await.unwrap().is_complete());
    let took = gate.now().since(before);
    assert!(
        took < expected * 2 && expected < took * 2,
        "{expected:?} were expected and it took {took:?}"
    );
}
