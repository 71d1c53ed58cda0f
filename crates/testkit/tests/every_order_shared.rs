//! Every order of the steps of one key of a shared cache: the rules of the port, and for each of them what happens
//! without it.
//!
//! What is explored is the machine itself (`tidegate_core::memory::machine`), the proof that ends a quarantine, and the
//! guard of the store. The rows with all the rules show nothing; each of the others shows the violation that is known
//! of it, with a shortest way to it, which is printed (`cargo test --test every_order_shared -- --nocapture`).
//!
//! With `EVERY_ORDER_LARGE` set in the environment the rows with all the rules are explored with more writers, more
//! readers and more loads: minutes and some gigabytes, best in a release build.

#![expect(clippy::print_stdout, reason = "the figures of a run are for people")]

#[path = "every_order_shared/explore.rs"]
mod explore;
#[path = "every_order_shared/through.rs"]
mod through;

use std::env::var_os;

use explore::explore;
use through::{STALE, STALE_FOR_EVER, State, Sweep, Variant, Write};
use tidegate_core::Mutation;

/// All the rules.
const RIGHT: Variant = Variant {
    name: "",
    off: &[],
    write: Write::Marked,
    guard: true,
    sweep: Sweep::Proven,
    crashes: true,
    evicts: true,
    evicts_quarantine: false,
    failovers: 0,
    checks_server: true,
    stranger: false,
    writers: 2,
    readers: 1,
    loads: 1,
    shows: &[],
};

const NEW: &str = "something new is served";
const NEW_AFTER: &str = "something new is served in a new generation";

fn is_large() -> bool {
    var_os("EVERY_ORDER_LARGE").is_some()
}

/// Explores a variant and holds what is found against what is known of it.
fn check(variant: &Variant) {
    let found = explore(State::first(variant), variant, variant.shows);
    let shown: Vec<&str> = found.violations.keys().copied().collect();
    println!(
        "{} ({} writers, {} readers, {} loads): {} states, {shown:?}",
        variant.name, variant.writers, variant.readers, variant.loads, found.states
    );
    for (violation, way) in &found.violations {
        println!("    {violation}: {way}");
    }
    for violation in variant.shows {
        assert!(
            shown.contains(violation),
            "{} shows {shown:?} and not that {violation}",
            variant.name
        );
    }
    if variant.shows.is_empty() {
        assert!(shown.is_empty(), "{}: {shown:?}", variant.name);
        let milestones = match variant.failovers {
            0 => &[NEW][..],
            _ => &[NEW, NEW_AFTER],
        };
        for milestone in milestones {
            let times = found.milestones.get(milestone).copied().unwrap_or(0);
            assert!(times > 10, "{}: {milestone} {times} times", variant.name);
        }
    }
}

#[test]
fn deleting_after_the_commit_serves_stale_and_stays_so_after_a_crash() {
    check(&Variant {
        name: "7, 9: leases, commit, then delete",
        write: Write::ThenDelete,
        shows: &[STALE, STALE_FOR_EVER],
        ..RIGHT
    });
}

#[test]
fn with_all_the_rules_nothing_stale_is_served() {
    let all = Variant {
        name: "12: all rules",
        ..RIGHT
    };
    check(&Variant { readers: 2, ..all });
    check(&Variant { writers: 3, ..all });
    if is_large() {
        check(&Variant {
            readers: 2,
            loads: 2,
            ..all
        });
        check(&Variant {
            writers: 3,
            readers: 2,
            ..all
        });
    }
}

#[test]
fn without_the_taint_something_older_becomes_clean() {
    check(&Variant {
        name: "11: no taint",
        off: &[Mutation::NoTaint],
        shows: &[STALE, STALE_FOR_EVER],
        ..RIGHT
    });
}

#[test]
fn a_quarantine_that_can_be_evicted_is_none() {
    check(&Variant {
        name: "13: quarantines may be evicted",
        evicts_quarantine: true,
        shows: &[STALE, STALE_FOR_EVER],
        ..RIGHT
    });
}

#[test]
fn a_mark_with_a_time_to_live_ends_too_early() {
    check(&Variant {
        name: "14: marks have a time to live",
        sweep: Sweep::TimeToLive,
        shows: &[STALE, STALE_FOR_EVER],
        ..RIGHT
    });
}

#[test]
fn without_the_guard_a_swept_write_commits_later() {
    check(&Variant {
        name: "14a: no guard",
        guard: false,
        shows: &[STALE, STALE_FOR_EVER],
        ..RIGHT
    });
}

#[test]
fn one_horizon_does_not_prove_that_a_write_is_over() {
    check(&Variant {
        name: "14b: one horizon instead of two",
        sweep: Sweep::OneHorizon,
        shows: &[STALE, STALE_FOR_EVER],
        ..RIGHT
    });
}

#[test]
fn without_leases_a_late_fill_is_taken() {
    check(&Variant {
        name: "15: no lease",
        off: &[Mutation::NoLease],
        shows: &[STALE, STALE_FOR_EVER],
        ..RIGHT
    });
}

const FAILOVER: Variant = Variant {
    failovers: 1,
    ..RIGHT
};

#[test]
fn a_failover_that_nobody_notices_brings_back_what_was_there() {
    check(&Variant {
        name: "16: another server is not noticed",
        checks_server: false,
        shows: &[STALE, STALE_FOR_EVER],
        ..FAILOVER
    });
}

#[test]
fn without_generations_a_failover_brings_back_what_was_there() {
    check(&Variant {
        name: "16a: no generation",
        off: &[Mutation::NoGeneration],
        shows: &[STALE, STALE_FOR_EVER],
        ..FAILOVER
    });
}

#[test]
fn leases_given_too_early_after_a_failover_fill_what_is_stale() {
    check(&Variant {
        name: "17: leases while closed",
        off: &[Mutation::NoGrace],
        shows: &[STALE, STALE_FOR_EVER],
        ..FAILOVER
    });
}

#[test]
fn a_quarantine_of_a_closed_shard_that_is_not_tainted_becomes_stale() {
    check(&Variant {
        name: "18: no grace taint",
        off: &[Mutation::NoGraceTaint],
        shows: &[STALE, STALE_FOR_EVER],
        ..FAILOVER
    });
}

#[test]
fn after_a_failover_nothing_stale_is_served() {
    let all = Variant {
        name: "19: all rules, a failover",
        ..FAILOVER
    };
    check(&all);
    if is_large() {
        check(&Variant { readers: 2, ..all });
    }
}

const STRANGER: Variant = Variant {
    stranger: true,
    ..RIGHT
};

#[test]
fn without_the_floor_what_a_stranger_wrote_is_covered_for_ever() {
    check(&Variant {
        name: "21: a stranger, no floor",
        off: &[Mutation::NoFloor],
        shows: &[STALE_FOR_EVER],
        ..STRANGER
    });
}

#[test]
fn what_a_stranger_wrote_is_seen_when_it_is_told() {
    let all = Variant {
        name: "22: a stranger, all rules",
        ..STRANGER
    };
    check(&Variant { readers: 2, ..all });
    if is_large() {
        check(&Variant { writers: 3, ..all });
        check(&Variant {
            failovers: 1,
            ..all
        });
    }
}
