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

#[path = "every_order_shared/back.rs"]
mod back;
#[path = "every_order_shared/explore.rs"]
mod explore;
#[path = "every_order_shared/through.rs"]
mod through;

use std::env::var_os;

use back::{LOST, RESURRECTED};
use explore::{Model, explore};
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

fn is_large() -> bool {
    var_os("EVERY_ORDER_LARGE").is_some()
}

/// Explores a variant and holds what is found against what is known of it.
fn hold<M: Model>(
    name: &str,
    first: M,
    variant: &M::Variant,
    shows: &[&'static str],
    milestones: &[&'static str],
) {
    let found = explore(first, variant, shows);
    let shown: Vec<&str> = found.violations.keys().copied().collect();
    println!("{name}: {} states, {shown:?}", found.states);
    for (violation, way) in &found.violations {
        println!("    {violation}: {way}");
    }
    for violation in shows {
        assert!(
            shown.contains(violation),
            "{name} shows {shown:?} and not that {violation}"
        );
    }
    if !shows.is_empty() {
        return;
    }
    assert!(shown.is_empty(), "{name}: {shown:?}");
    for milestone in milestones {
        let times = found.milestones.get(milestone).copied().unwrap_or(0);
        assert!(times > 10, "{name}: {milestone} {times} times");
    }
}

fn check(variant: &Variant) {
    let name = format!(
        "{} ({} writers, {} readers, {} loads)",
        variant.name, variant.writers, variant.readers, variant.loads
    );
    let milestones = match variant.failovers {
        0 => &[through::SERVED][..],
        _ => &[through::SERVED, through::SERVED_AFTER],
    };
    hold(
        &name,
        State::first(variant),
        variant,
        variant.shows,
        milestones,
    );
}

fn check_back(variant: &back::Variant) {
    let milestones = match variant.failovers {
        0 => &[back::SERVED][..],
        _ => &[back::SERVED, back::SERVED_AFTER],
    };
    let first = back::State::first(variant);
    hold(variant.name, first, variant, variant.shows, milestones);
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

/// All the rules of write-back.
const BACK: back::Variant = back::Variant {
    name: "",
    off: &[],
    guarded: true,
    deadline: true,
    blind: true,
    remembers: true,
    clean_once_claimed: false,
    puts: 2,
    rounds: 2,
    deletes: false,
    crashes: true,
    failovers: 0,
    stranger: false,
    cache_wins: false,
    through: false,
    loads: 1,
    shows: &[],
};

#[test]
fn what_is_clean_once_claimed_is_lost_with_its_flusher() {
    check_back(&back::Variant {
        name: "b: clean once claimed, unguarded",
        clean_once_claimed: true,
        guarded: false,
        remembers: false,
        shows: &[LOST],
        ..BACK
    });
}

#[test]
fn an_unguarded_flush_overwrites_a_newer_one() {
    let unguarded = back::Variant {
        name: "d: unguarded",
        guarded: false,
        remembers: false,
        shows: &[LOST],
        ..BACK
    };
    check_back(&unguarded);
    check_back(&back::Variant {
        name: "c: clean without comparing, unguarded",
        off: &[Mutation::UndirtyWithoutComparing],
        crashes: false,
        ..unguarded
    });
}

#[test]
fn clean_without_comparing_loses_writes_however_well_the_store_guards() {
    check_back(&back::Variant {
        name: "i: clean without comparing",
        off: &[Mutation::UndirtyWithoutComparing],
        deletes: true,
        shows: &[LOST, RESURRECTED],
        ..BACK
    });
}

#[test]
fn a_deletion_that_is_forgotten_is_undone() {
    check_back(&back::Variant {
        name: "f: deletes that are not remembered",
        remembers: false,
        deletes: true,
        shows: &[RESURRECTED],
        ..BACK
    });
    check_back(&back::Variant {
        name: "e: no deletes, and none remembered",
        remembers: false,
        ..BACK
    });
}

#[test]
fn write_back_loses_and_resurrects_nothing() {
    check_back(&back::Variant {
        name: "g: all rules",
        deletes: true,
        ..BACK
    });
    if is_large() {
        check_back(&back::Variant {
            name: "g: all rules, large",
            deletes: true,
            rounds: 3,
            loads: 2,
            ..BACK
        });
    }
}

#[test]
fn an_eviction_of_what_is_dirty_loses_it() {
    check_back(&back::Variant {
        name: "h: what is dirty may be evicted",
        off: &[Mutation::EvictableDirtyEntry],
        deletes: true,
        shows: &[LOST, RESURRECTED, back::STALE],
        ..BACK
    });
}

const BACK_STRANGER: back::Variant = back::Variant {
    stranger: true,
    ..BACK
};

#[test]
fn without_the_floor_a_flush_covers_what_a_stranger_wrote() {
    check_back(&back::Variant {
        name: "j: a stranger, no floor",
        off: &[Mutation::NoFloor],
        shows: &[back::STALE_FOR_EVER],
        ..BACK_STRANGER
    });
}

#[test]
fn what_a_stranger_wrote_makes_way_or_stays() {
    check_back(&back::Variant {
        name: "k: a stranger, the store wins",
        blind: false,
        ..BACK_STRANGER
    });
    check_back(&back::Variant {
        name: "k: a stranger, the cache wins",
        cache_wins: true,
        ..BACK_STRANGER
    });
}

/// A limit, not a rule: an entry that was made over nobody knows what is flushed over anything older, and so also over a
/// row for which another flusher has given it up already.
#[test]
fn a_late_flush_over_nobody_knows_what_goes_over_a_stranger_who_won() {
    check_back(&back::Variant {
        name: "k': a stranger, the store wins, made over nobody knows what",
        shows: &[back::STALE_FOR_EVER],
        ..BACK_STRANGER
    });
}

const BACK_FAILOVER: back::Variant = back::Variant {
    failovers: 1,
    ..BACK
};

#[test]
fn a_failover_loses_nothing_that_the_replica_had() {
    check_back(&back::Variant {
        name: "l: a failover, one write",
        puts: 1,
        ..BACK_FAILOVER
    });
    check_back(&back::Variant {
        name: "l: a failover, two writes",
        crashes: false,
        loads: 0,
        ..BACK_FAILOVER
    });
    if is_large() {
        check_back(&back::Variant {
            name: "l: a failover, large",
            ..BACK_FAILOVER
        });
    }
}

#[test]
fn what_was_written_before_a_failover_and_flushed_after_it_is_not_kept() {
    check_back(&back::Variant {
        name: "l': a failover, clean also of an earlier generation",
        off: &[Mutation::NoGenerationFlush],
        loads: 0,
        crashes: false,
        shows: &[back::STALE_FOR_EVER],
        ..BACK_FAILOVER
    });
}

#[test]
fn a_flush_without_a_deadline_comes_after_the_shard_was_opened() {
    check_back(&back::Variant {
        name: "m: a failover, flushes without a deadline",
        deadline: false,
        puts: 1,
        rounds: 1,
        shows: &[back::STALE_FOR_EVER],
        ..BACK_FAILOVER
    });
}

#[test]
fn who_goes_through_the_store_meets_no_dirty_entry() {
    check_back(&back::Variant {
        name: "n: one goes through",
        through: true,
        puts: 1,
        ..BACK
    });
}

/// A limit, not a rule: a mark that the replica has not is lost with the server, and what was dirty before it is served
/// again until it is flushed.
#[test]
fn a_mark_that_is_lost_brings_back_what_was_dirty_before() {
    check_back(&back::Variant {
        name: "o: one goes through, a failover",
        through: true,
        puts: 1,
        shows: &[back::STALE],
        ..BACK_FAILOVER
    });
}

#[test]
fn what_is_flushed_while_closed_is_not_kept() {
    let all = back::Variant {
        name: "p: one goes through, a stranger, a failover",
        through: true,
        stranger: true,
        cache_wins: true,
        crashes: false,
        loads: 0,
        puts: 1,
        ..BACK_FAILOVER
    };
    check_back(&all);
    check_back(&back::Variant {
        name: "p': the same, clean also while closed and after",
        off: &[Mutation::NoGenerationFlush],
        shows: &[back::STALE_FOR_EVER],
        ..all
    });
}
