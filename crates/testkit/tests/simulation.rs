//! The layer under simulation: thousands of seeds, each with its own faults, crashes and interleavings.
//!
//! `TIDEGATE_SIM_SEEDS=100000 cargo test -p tidegate-testkit --test simulation` runs longer;
//! `TIDEGATE_SIM_SEED=n` runs one seed and prints what it did.

#![expect(clippy::print_stdout, reason = "the figures of a run are for people")]

use tidegate_core::Mutation as Rule;
use tidegate_testkit::sim::{Figures, Mutation, Report, Scenario, run};

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    if let Some(seed) = number("TIDEGATE_SIM_SEED") {
        return seed..seed + 1;
    }
    0..number("TIDEGATE_SIM_SEEDS").unwrap_or(1000)
}

fn fail(seed: u64, report: &Report) {
    // What happened to the keys that are named, or to all if this seed was asked for.
    let all = std::env::var_os("TIDEGATE_SIM_SEED").is_some();
    let first = &report.violations[0].what;
    for event in report.history.events() {
        if all
            || first.contains(&format!("'{}'", event.key))
            || first.contains(&format!("{:?}", event.key))
        {
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

/// Runs scenarios, fails at the first violation, and prints what happened and how fast.
#[expect(
    clippy::disallowed_methods,
    reason = "the speed of the simulation is of this world"
)]
fn check(seeds: std::ops::Range<u64>, scenario: fn(u64) -> Scenario) -> Figures {
    let began = std::time::Instant::now();
    let mut figures = Figures::default();
    for seed in seeds.clone() {
        let report = run(scenario(seed));
        if !report.violations.is_empty() {
            fail(seed, &report);
        }
        figures = figures.with(&report.figures);
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = seeds.end.saturating_sub(seeds.start) as f64 / seconds * 60.0;
    println!("{seeds:?} in {seconds:.1} s ({rate:.0} a minute): {figures:?}");
    figures
}

#[test]
fn no_seed_loses_invents_or_resurrects_a_write_or_reads_something_stale() {
    let figures = check(seeds(), Scenario::new);
    if seeds().count() > 100 {
        // The faults must have happened, or the run has shown nothing.
        let Figures {
            indeterminate,
            failed,
            forgotten,
            discarded,
            parked,
            replayed,
            crashes_at_the_edge,
            ..
        } = figures;
        let happened = [
            indeterminate,
            failed,
            forgotten,
            discarded,
            parked,
            replayed,
            crashes_at_the_edge,
        ];
        assert!(happened.iter().all(|count| *count > 0), "{figures:?}");
    }
}

#[test]
fn a_disk_that_lies_loses_writes_and_invents_none() {
    check(0..seeds().end.min(300), |seed| Scenario {
        lying_disk: true,
        ..Scenario::new(seed)
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let (a, b) = (run(Scenario::new(seed)), run(Scenario::new(seed)));
        assert_eq!(a.figures, b.figures, "seed {seed}");
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
