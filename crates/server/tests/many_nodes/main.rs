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

mod faults;
mod naive;
mod redis_wire;
mod run;
mod subject;
mod tidegate;
mod world;

use std::sync::Arc;
use std::time::Duration;

use self::tidegate::Tidegate;
use naive::{CacheUse, Naive};
use run::{Plan, Summary, run};
use tidegate_testkit::history::{History, Violation, WriteOrder};
use world::World;

/// A run longer than this is several, each with keys of its own: a history is kept in memory.
const RUN: Duration = Duration::from_secs(60);

fn seed() -> u64 {
    let given = std::env::var("TIDEGATE_SEED").ok();
    let given = given.map(|text| text.parse().expect("TIDEGATE_SEED is a number"));
    given.unwrap_or_else(|| fastrand::Rng::new().u64(..))
}

/// How long nodes of tidegate are tried.
fn time() -> Duration {
    let given = std::env::var("TIDEGATE_FAULTS_SECONDS").ok();
    let seconds = given.map(|text| text.parse().expect("TIDEGATE_FAULTS_SECONDS is a number"));
    Duration::from_secs(seconds.unwrap_or(20))
}

fn linearizable(history: &History, order: &WriteOrder) -> Vec<Violation> {
    history.check_linearizable(order)
}

/// Three naive nodes, until something is found: at most so often for so long.
fn try_naive(cache_use: CacheUse, with_faults: bool, time: Duration, runs: usize) -> Summary {
    let seed = seed();
    let mut world = World::new(3, true, seed);
    let subject = Arc::new(Naive::new(&mut world, cache_use));
    let plan = Plan {
        seed,
        time,
        with_faults,
        clients: 12,
        classes: vec!["hot"],
        keys_per_class: 8,
        is_coalesced: false,
    };
    let mut summary = Summary::default();
    for number in 0..runs {
        summary.add(run(&mut world, &subject, &plan, number, linearizable));
        if !summary.violations.is_empty() {
            break;
        }
    }
    println!("{cache_use:?}, seed {seed}: {summary}");
    assert!(summary.figure("acknowledged") > 300, "seed {seed}");
    assert_eq!(summary.faults() > 0, with_faults);
    summary
}

fn expect_caught(cache_use: CacheUse) {
    for (with_faults, seconds) in [(false, 2), (true, 4)] {
        let summary = try_naive(cache_use, with_faults, Duration::from_secs(seconds), 5);
        let mut violations = summary.violations.iter();
        let seen = violations.any(|violation| violation.invariant == "I1");
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
fn expect_linearizable(nodes: usize, with_shared: bool, classes: &str, tables: &[&'static str]) {
    let seed = seed();
    println!("seed {seed}");
    let mut world = World::new(nodes, with_shared, seed);
    let subject = Arc::new(Tidegate::new(&mut world, classes, tables));
    let mut plan = Plan {
        seed,
        time: RUN,
        with_faults: true,
        clients: 12,
        classes: tables.to_vec(),
        keys_per_class: 12 / tables.len(),
        is_coalesced: true,
    };
    let mut summary = Summary::default();
    let mut left = time();
    for number in 0.. {
        plan.time = left.min(RUN);
        left -= plan.time;
        summary.add(run(&mut world, &subject, &plan, number, linearizable));
        if left.is_zero() || !summary.violations.is_empty() {
            break;
        }
    }
    println!("{nodes} nodes, seed {seed}: {summary}");
    assert!(
        summary.violations.is_empty(),
        "seed {seed}: {summary}\n{}",
        subject.stderr()
    );
    assert!(summary.figure("acknowledged") > 1000, "seed {seed}");
}

#[test]
fn one_node_over_postgresql_is_linearizable() {
    let classes = "
        [[class]]
        name = 'through'
        keys = 'through:*'
        strategy = 'write-through'
        value_type = 'text'
        [[class]]
        name = 'around'
        keys = 'around:*'
        strategy = 'write-around'
        value_type = 'text'
    ";
    expect_linearizable(1, false, classes, &["through", "around"]);
}
