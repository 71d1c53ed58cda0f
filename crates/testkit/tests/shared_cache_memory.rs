//! The shared cache in memory, held against the suite of its port, and two of it against each other.

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::memory::SharedSettings;
use tidegate_testkit::conformance::shared_cache::{
    Differential, MemoryScene, Scene, differential, run,
};

#[tokio::test(start_paused = true)]
async fn the_reference_keeps_the_contract() {
    run(|_case| async { Arc::new(MemoryScene::new()) as Arc<dyn Scene> }).await;
}

fn scene(shards: u16) -> Arc<dyn Scene> {
    Arc::new(MemoryScene::with(SharedSettings {
        shards,
        lease: Duration::from_secs(36_000),
    }))
}

#[tokio::test(start_paused = true)]
async fn two_of_a_kind_do_not_differ() {
    for seed in 0..20 {
        let settings = Differential {
            seed,
            losses: true,
            failovers: true,
            ..Differential::default()
        };
        differential(settings, scene(8), scene(8)).await;
    }
}
