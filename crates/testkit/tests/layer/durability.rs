//! More durability for one write than its class promises.

use tidegate_core::{Class, Durability, ErrorKind, State, Strategy};

use crate::world::{World, ms, text};

fn back(durability: Durability) -> Class {
    Class::new("b", "b:*")
        .strategy(Strategy::WriteBack)
        .durability(durability)
        .linger(ms(3_600_000))
}

#[tokio::test(start_paused = true)]
async fn a_write_can_wait_for_the_store() {
    for class in [Durability::Journal, Durability::Memory] {
        let world = World::new();
        let gate = world.gate([back(class)]).await;
        gate.set("b:other", "v").await.unwrap();
        let written = gate
            .set_durable("b:1", "v", None, Durability::Store, ms(5_000))
            .await
            .unwrap();
        assert_eq!(written.receipt.durability, Durability::Store);
        let row = world.row("b", "b:1").unwrap();
        assert_eq!(row.version, written.receipt.version);
        let deleted = gate
            .delete_durable("b:1", Durability::Store, ms(5_000))
            .await;
        assert!(deleted.unwrap().existed);
        assert_eq!(world.row("b", "b:1"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_of_a_memory_class_can_wait_for_the_journal() {
    let world = World::new();
    let gate = world.gate([back(Durability::Memory)]).await;
    world.set_down(true);
    gate.set("b:risk", "v").await.unwrap();
    let written = gate.set("b:1", "v").await.unwrap();
    assert_eq!(written.receipt.durability, Durability::Memory);
    assert!(world.disk.is_empty());
    let reached = gate.secure("b:1", Durability::Journal, ms(5_000)).await;
    assert_eq!(reached.unwrap().durability, Durability::Journal);
    assert_eq!(world.disk.len(), 1);
    let again = gate.secure("b:1", Durability::Journal, ms(5_000)).await;
    assert_eq!(again.unwrap().durability, Durability::Journal);
    assert_eq!(world.disk.len(), 1, "it has a record already");
    assert!(gate.audit().is_empty(), "{:?}", gate.audit());
    drop(gate);
    let gate = world.gate([back(Durability::Memory)]).await;
    assert_eq!(text(&gate, "b:1").await.as_deref(), Some("v"));
    assert_eq!(gate.explain(b"b:risk").state, State::Absent);
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_is_told_where_the_write_is() {
    for (class, place) in [
        (Durability::Journal, "in the journal"),
        (Durability::Memory, "in the memory of this process"),
    ] {
        let world = World::new();
        let gate = world.gate([back(class)]).await;
        world.set_down(true);
        gate.set("b:1", "v").await.unwrap();
        let error = gate
            .secure("b:1", Durability::Store, ms(1_000))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(place), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_write_that_is_refused_is_told_so() {
    let world = World::new();
    let gate = world.gate([back(Durability::Journal)]).await;
    let error = gate
        .set_durable("b:1", "!poison", None, Durability::Store, ms(5_000))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("23514"), "{error}");
    assert!(!error.to_string().contains("poison"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_written_all_the_time_can_be_waited_for() {
    let world = World::new();
    let gate = world.gate([back(Durability::Journal)]).await;
    let first = gate.set("b:hot", "0").await.unwrap();
    let waiting = gate.secure("b:hot", Durability::Store, ms(5_000));
    tokio::pin!(waiting);
    let reached = 'reached: {
        for i in 1..1_000 {
            if let std::task::Poll::Ready(reached) = futures_util::poll!(&mut waiting) {
                break 'reached reached;
            }
            gate.set("b:hot", format!("{i}")).await.unwrap();
        }
        panic!("a thousand writes, and none was flushed");
    };
    assert_eq!(reached.unwrap().durability, Durability::Store);
    let row = world.row("b", "b:hot").unwrap();
    assert!(row.version >= first.receipt.version);
}

#[tokio::test(start_paused = true)]
async fn what_has_no_store_cannot_be_brought_there() {
    let world = World::new();
    let cache = Class::new("c", "c:*").strategy(Strategy::CacheOnly);
    let gate = world.gate([cache, Class::new("t", "t:*")]).await;
    gate.set("c:1", "v").await.unwrap();
    let error = gate.secure("c:1", Durability::Store, ms(100)).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Invalid);
    gate.set("t:1", "v").await.unwrap();
    let reached = gate.secure("t:1", Durability::Store, ms(100)).await;
    assert_eq!(reached.unwrap().durability, Durability::Store);
}
