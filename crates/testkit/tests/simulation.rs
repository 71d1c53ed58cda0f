//! The layer under simulation: thousands of seeds, each with its own faults, crashes and interleavings.
//!
//! `TIDEGATE_SIM_SEEDS=100000 cargo test -p tidegate-testkit --test simulation` runs longer;
//! `TIDEGATE_SIM_SEED=n` runs one seed and prints what it did.

#![expect(clippy::print_stdout, reason = "the figures of a run are for people")]

use tidegate_core::Mutation as Rule;
use tidegate_testkit::sim::{Mutation, Report, Scenario, run};

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    if let Some(seed) = number("TIDEGATE_SIM_SEED") {
        return seed..seed + 1;
    }
    0..number("TIDEGATE_SIM_SEEDS").unwrap_or(1500)
}

fn fail(seed: u64, report: &Report) {
    if std::env::var_os("TIDEGATE_SIM_SEED").is_some() {
        for event in report.history.events() {
            println!("{event:?}");
        }
    }
    let shown: Vec<String> = report
        .violations
        .iter()
        .take(5)
        .map(ToString::to_string)
        .collect();
    panic!(
        "seed {seed} (repeat it with TIDEGATE_SIM_SEED={seed}):\n{}",
        shown.join("\n")
    );
}

#[test]
fn no_seed_loses_invents_or_resurrects_a_write_or_reads_something_stale() {
    let (mut indeterminate, mut failed, mut parked, mut replayed, mut acknowledged) =
        (0, 0, 0, 0, 0);
    for seed in seeds() {
        let report = run(Scenario::new(seed));
        if !report.violations.is_empty() {
            fail(seed, &report);
        }
        acknowledged += report.acknowledged;
        indeterminate += report.indeterminate;
        failed += report.failed;
        parked += report.parked;
        replayed += report.replayed;
    }
    println!(
        "{} seeds: {acknowledged} acknowledged, {failed} failed, {indeterminate} of unknown outcome, \
         {parked} parked, {replayed} replayed",
        seeds().count()
    );
    if seeds().count() > 100 {
        // The faults must have happened, or the run has shown nothing.
        assert!(indeterminate > 0 && failed > 0 && parked > 0 && replayed > 0);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let (a, b) = (run(Scenario::new(seed)), run(Scenario::new(seed)));
        let figures = |r: &Report| {
            (
                r.operations,
                r.acknowledged,
                r.failed,
                r.indeterminate,
                r.parked,
            )
        };
        assert_eq!(figures(&a), figures(&b), "seed {seed}");
    }
}

/// Runs seeds with a rule switched off until the checker notices; how many that took.
fn seeds_until_caught(mutation: Mutation) -> u64 {
    let caught = (0..500).find(|seed| {
        let scenario = Scenario {
            mutation: Some(mutation),
            ..Scenario::new(*seed)
        };
        !run(scenario).violations.is_empty()
    });
    let seeds = caught.map(|seed| seed + 1);
    println!("{mutation:?}: caught after {seeds:?} seeds");
    seeds.expect("500 seeds with this rule switched off, and nothing was noticed")
}

#[test]
fn an_unguarded_flush_is_caught() {
    seeds_until_caught(Mutation::UnguardedFlush);
}

#[test]
fn a_forgotten_tombstone_is_caught() {
    seeds_until_caught(Mutation::ForgottenTombstone);
}

#[test]
fn an_acknowledgement_before_the_sync_is_caught() {
    seeds_until_caught(Mutation::AcknowledgedBeforeSync);
}

#[test]
fn an_entry_that_is_clean_although_it_was_written_again_is_caught() {
    seeds_until_caught(Mutation::Layer(Rule::UndirtyWithoutComparing));
}

#[test]
fn an_entry_that_is_clean_before_the_store_has_it_is_caught() {
    seeds_until_caught(Mutation::Layer(Rule::CleanOnceClaimed));
}

#[test]
fn a_dirty_entry_that_is_evicted_is_caught() {
    seeds_until_caught(Mutation::Layer(Rule::EvictableDirtyEntry));
}

#[test]
fn an_entry_that_is_dropped_because_the_store_refuses_it_is_caught() {
    seeds_until_caught(Mutation::Layer(Rule::DropOnPermanentError));
}
