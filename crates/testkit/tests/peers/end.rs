//! The end of a process: what a drain does and says, and what happens without one.

use tidegate_core::ErrorKind;
use tidegate_testkit::sim::StoreFaults;

use crate::back;
use crate::life::{crash, live};
use crate::world::{World, ms, pass, text};

/// redisson/redisson#3768, infinispan/infinispan PR#1319: there was no way to flush before the end.
#[test]
fn a_drain_flushes_before_the_end_and_says_what_it_could_not() {
    let world = World::new();
    live(async {
        let gate = world.gate([back().linger(ms(3_600_000))]).await;
        for i in 0..100 {
            gate.set(format!("b:{i}"), "v").await.unwrap();
        }
        let report = gate.drain(ms(10_000)).await.unwrap();
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(world.value("b", "b:99").as_deref(), Some("v"));
        let error = gate.set("b:1", "late").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    });
    live(async {
        let gate = world.gate([back()]).await;
        world.set_down(true);
        for i in 0..10 {
            gate.set(format!("b:{i}"), "w").await.unwrap();
        }
        let before = gate.now();
        let report = gate.drain(ms(2_000)).await.unwrap();
        assert_eq!((report.left, report.is_complete()), (10, false));
        assert!(gate.now().since(before) < ms(5_000));
    });
    world.set_down(false);
    live(async {
        let gate = world.gate([back()]).await;
        assert!(gate.drain(ms(10_000)).await.unwrap().is_complete());
    });
    assert_eq!(world.value("b", "b:9").as_deref(), Some("w"));
}

/// slatedb/slatedb#1545: there was no `close`, and a drop raced the end of the runtime.
#[test]
fn a_gate_that_is_dropped_anywhere_is_no_panic_and_no_loss() {
    let world = World::new();
    let gate = crash(&world, async {
        let gate = world.gate([back()]).await;
        gate.set("b:1", "kept by a gate that outlives its runtime")
            .await
            .unwrap();
        gate
    });
    // Its runtime is gone.
    drop(gate);
    crash(&world, async {
        let gate = world.gate([back()]).await;
        gate.set("b:2", "kept by a gate that is dropped while it runs")
            .await
            .unwrap();
        drop(gate.clone());
        gate.set("b:3", "a clone that goes takes nothing along")
            .await
            .unwrap();
        drop(gate);
    });
    crash(&world, async {
        let gate = world.gate([back()]).await;
        gate.set("b:4", "kept by a drain that is given up")
            .await
            .unwrap();
        world.store.set_faults(StoreFaults::none(ms(3_600_000)));
        tokio::select! {
            biased;
            report = gate.drain(ms(60_000)) => panic!("{report:?}"),
            () = pass(ms(500)) => {}
        }
    });
    world.set_down(false);
    live(async {
        let gate = world.gate([back()]).await;
        for key in ["b:1", "b:2", "b:3", "b:4"] {
            assert!(text(&gate, key).await.is_some(), "{key}");
        }
        assert!(gate.drain(ms(10_000)).await.unwrap().is_complete());
    });
    for key in ["b:1", "b:2", "b:3", "b:4"] {
        assert!(world.value("b", key).is_some(), "{key}");
    }
}
