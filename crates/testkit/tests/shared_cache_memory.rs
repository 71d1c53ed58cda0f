//! The shared cache in memory, held against the suite of its port, and two of it against each other.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tidegate_core::Mutation;
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

/// The rules of the shared cache, and one of write-back that it keeps too.
const RULES: [Mutation; 9] = [
    Mutation::NoLease,
    Mutation::NoTaint,
    Mutation::NoGeneration,
    Mutation::NoGrace,
    Mutation::NoGraceTaint,
    Mutation::NoFloor,
    Mutation::NoGenerationFlush,
    Mutation::UndirtyWithoutComparing,
    Mutation::EvictableDirtyEntry,
];

#[tokio::test(start_paused = true)]
async fn the_suite_notices_every_rule_that_is_not_kept() {
    for rule in RULES {
        let settings = SharedSettings {
            shards: 8,
            lease: Duration::from_millis(200),
        };
        let broken =
            || async move { Arc::new(MemoryScene::without(rule, settings)) as Arc<dyn Scene> };
        let suite = run(|_case| broken());
        let suite = AssertUnwindSafe(suite).catch_unwind().await;
        assert!(suite.is_err(), "the suite does not notice {rule:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_comparison_notices_every_rule_that_is_not_kept() {
    for rule in RULES {
        let settings = SharedSettings {
            shards: 8,
            lease: Duration::from_secs(36_000),
        };
        let compare = async {
            for seed in 0..100 {
                let with = Differential {
                    seed,
                    losses: true,
                    failovers: true,
                    ..Differential::default()
                };
                let broken = Arc::new(MemoryScene::without(rule, settings));
                differential(with, scene(8), broken).await;
            }
        };
        let compared = AssertUnwindSafe(compare).catch_unwind().await;
        assert!(compared.is_err(), "the comparison does not notice {rule:?}");
    }
}
