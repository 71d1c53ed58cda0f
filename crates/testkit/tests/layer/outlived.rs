//! Dead letters of classes that journal nothing else: what took their place has no record, and a start after a
//! crash must not bring them back over it.

use tidegate_core::{Class, Durability, Strategy};
use tidegate_testkit::sim::StoreFaults;

use crate::life::{crash, live};
use crate::world::{World, ms, text};

fn memory() -> Class {
    Class::new("b", "b:*")
        .strategy(Strategy::WriteBack)
        .durability(Durability::Memory)
}

/// A start finds neither letter nor row.
fn stays_gone(world: &World) {
    live(async {
        let gate = world.gate([memory()]).await;
        assert_eq!(text(&gate, "b:1").await, None);
        assert_eq!(gate.dead_letter(b"b:1"), None);
        assert_eq!(world.row("b", "b:1"), None);
    });
}

#[test]
fn a_letter_that_was_superseded_stays_gone() {
    let world = World::new();
    crash(&world, async {
        let gate = world.gate([memory()]).await;
        gate.set("b:1", "!poison").await.unwrap();
        assert_eq!(gate.flush(ms(10_000)).await.unwrap().parked, 1);
        gate.delete("b:1").await.unwrap();
        assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
    });
    stays_gone(&world);
}

#[test]
fn a_letter_that_was_taken_when_it_was_tried_again_stays_gone() {
    let world = World::new();
    crash(&world, async {
        let gate = world.gate([memory()]).await;
        let mut faults = StoreFaults::none(ms(1));
        faults.refused = 1.0;
        world.store.set_faults(faults);
        gate.set("b:1", "v").await.unwrap();
        assert_eq!(gate.flush(ms(10_000)).await.unwrap().parked, 1);
        world.set_down(false);
        assert!(gate.retry_dead_letter(b"b:1"));
        assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
        assert_eq!(world.value("b", "b:1").as_deref(), Some("v"));
        gate.delete("b:1").await.unwrap();
        assert!(gate.flush(ms(10_000)).await.unwrap().is_complete());
    });
    stays_gone(&world);
}
