//! Nodes over one PostgreSQL and one Redis, under load and under faults, and every answer checked.
//!
//! Clients of every node read, write and delete a few hot keys. Meanwhile processes are killed and paused, connections
//! cut, delayed and held, answers to commits lost, the shared cache emptied and failed over, all from one seed that is
//! printed. Then everything is healed, and the history must have an order that explains it: the one of the commits. At
//! the end every node must read what is in the rows.
//!
//! That the harness sees what it claims to exclude is shown first, on nodes as they are mostly written.
//!
//! `TIDEGATE_SEED` repeats a schedule; `TIDEGATE_FAULTS_SECONDS` is how long nodes of tidegate are tried. `./fault-loop`
//! does so for an hour.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]
#![expect(
    clippy::disallowed_methods,
    reason = "the load and its faults are real time"
)]
#![expect(clippy::print_stdout, reason = "what a run came to is for a reader")]

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod counters;
mod evidence;
mod faults;
mod naive;
mod promise;
mod redis_wire;
mod run;
mod subject;
mod summary;
mod tidegate;
mod world;

use std::sync::Arc;
use std::time::Duration;

use self::tidegate::Tidegate;
use naive::{CacheUse, Naive};
use promise::{Class, Promise};
use run::{Plan, run};
use summary::Summary;
use world::World;

/// A run longer than this is several, each with keys of its own: a history is kept in memory.
const RUN: Duration = Duration::from_secs(60);

fn seed() -> u64 {
    let given = std::env::var("TIDEGATE_SEED").ok();
    let given = given.map(|text| text.parse().expect("TIDEGATE_SEED is a number"));
    given.unwrap_or_else(|| fastrand::Rng::new().u64(..))
}

/// How long nodes of tidegate are tried: so many seconds, unless another time is asked for.
fn time(seconds: u64) -> Duration {
    let given = std::env::var("TIDEGATE_FAULTS_SECONDS").ok();
    let given = given.map(|text| text.parse().expect("TIDEGATE_FAULTS_SECONDS is a number"));
    Duration::from_secs(given.unwrap_or(seconds))
}

/// Three naive nodes, until something is found: at most so often for so long.
fn try_naive(cache_use: CacheUse, with_faults: bool, time: Duration, runs: usize) -> Summary {
    let seed = seed();
    let mut world = World::new(3, true, seed);
    let subject = Arc::new(Naive::new(&world, cache_use));
    let plan = Plan {
        seed,
        time,
        with_faults,
        clients: 12,
        classes: vec![Class {
            name: "hot",
            keys: 8,
            promise: Promise::Linearizable,
            readers: 0,
            settings: "",
        }],
        counters: 0,
        is_coalesced: false,
    };
    let mut summary = Summary::default();
    for number in 0..runs {
        summary.add(run(&mut world, &subject, &plan, number));
        if !summary.violations.is_empty() {
            break;
        }
    }
    println!("naive nodes, {cache_use:?}, seed {seed}: {summary}");
    assert!(summary.writes().acknowledged > 50, "seed {seed}");
    assert_eq!(summary.fault_count > 0, with_faults);
    summary
}

fn expect_caught(cache_use: CacheUse) {
    for (with_faults, seconds) in [(false, 2), (true, 4)] {
        let summary = try_naive(cache_use, with_faults, Duration::from_secs(seconds), 5);
        let mut violations = summary.violations.iter();
        let seen = violations.any(|violation| violation.starts_with("I1 "));
        assert!(seen, "nothing was seen");
    }
}

#[test]
fn setting_the_cache_after_the_commit_is_caught() {
    expect_caught(CacheUse::SetAfterCommit);
}

#[test]
fn deleting_from_the_cache_after_the_commit_is_caught() {
    expect_caught(CacheUse::DeleteAfterCommit);
}

#[test]
fn the_database_alone_is_not_accused() {
    let summary = try_naive(CacheUse::None, true, Duration::from_secs(8), 1);
    assert!(summary.violations.is_empty(), "{summary}");
}

/// Nodes of tidegate, for as long as is asked for; any violation fails.
fn expect_promises_kept(
    nodes: usize,
    with_shared: bool,
    classes: &[Class],
    seconds: u64,
) -> Summary {
    let seed = seed();
    println!("{nodes} nodes of tidegate, seed {seed}");
    let mut world = World::new(nodes, with_shared, seed);
    let subject = Arc::new(Tidegate::new(&world, classes));
    let mut plan = Plan {
        seed,
        time: RUN,
        with_faults: true,
        clients: 12,
        classes: classes.to_vec(),
        counters: 2,
        is_coalesced: true,
    };
    let mut summary = Summary::default();
    let mut left = time(seconds);
    for number in 0.. {
        plan.time = left.min(RUN);
        left -= plan.time;
        summary.add(run(&mut world, &subject, &plan, number));
        if left.is_zero() || !summary.violations.is_empty() {
            break;
        }
    }
    println!("{nodes} nodes of tidegate, seed {seed}: {summary}");
    assert!(summary.violations.is_empty(), "seed {seed}: {summary}");
    summary
}

/// A class of which no read is older than any acknowledged write.
const fn linearizable(name: &'static str, keys: usize, settings: &'static str) -> Class {
    Class {
        name,
        keys,
        promise: Promise::Linearizable,
        readers: 0,
        settings,
    }
}

#[test]
fn one_node_over_postgresql_is_linearizable() {
    let classes = [
        linearizable("through", 6, "strategy = 'write-through'"),
        linearizable("around", 6, "strategy = 'write-around'"),
    ];
    let summary = expect_promises_kept(1, false, &classes, 15);
    assert!(summary.writes().acknowledged > 500, "{summary}");
}

/// All levels in one run: what holds for one class is not to come at the cost of another.
#[test]
fn three_nodes_over_one_redis_keep_the_promise_of_every_level() {
    let classes = [
        linearizable("through", 5, "strategy = 'write-through'"),
        linearizable("around", 3, "strategy = 'write-around'"),
        Class {
            name: "bounded",
            keys: 4,
            promise: Promise::Bounded(Duration::from_millis(200)),
            readers: 3,
            settings: "strategy = 'write-through'\nlevel = 'bounded(200ms)'",
        },
        Class {
            name: "eventual",
            keys: 3,
            promise: Promise::Ttl(Duration::from_millis(500)),
            readers: 3,
            settings: "strategy = 'write-around'\nlevel = 'eventual'\nttl = '500ms'",
        },
    ];
    let summary = expect_promises_kept(3, true, &classes, 60);
    assert!(summary.writes().acknowledged > 500, "{summary}");
    assert!(summary.additions.acknowledged > 50, "{summary}");
    let hits = summary.hits.as_ref().unwrap();
    assert!(hits.shared > 500 && hits.near > 500, "{summary}");
    assert!(summary.classes["through"].hit_share() > 0.1, "{summary}");
    assert!(summary.availability() > 0.7, "{summary}");
}
