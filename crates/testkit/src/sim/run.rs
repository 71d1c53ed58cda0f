//! One simulation: lives of a gate, its clients, its crashes, and the check at the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::{Gate, Key, Version};

use super::client::{agrees, pause, work};
use super::history::{Outcome, Row, Violation};
use super::scenario::{Figures, Report, Scenario};
use super::world::{Kind, World};

/// What a simulation has found so far.
#[derive(Default)]
struct Found {
    violations: Vec<Violation>,
    /// Versions of what is parked at the end.
    parked: HashMap<Key, Version>,
    figures: Figures,
}

impl Found {
    fn violated(&mut self, invariant: &'static str, what: String) {
        self.violations.push(Violation { invariant, what });
    }
}

/// Runs a scenario and checks it.
///
/// # Panics
/// If no runtime can be built.
#[must_use]
pub fn run(scenario: Scenario) -> Report {
    let world = Arc::new(World::new(scenario));
    let mut found = Found::default();
    let mut elapsed = 0;
    for life in 1..=scenario.lives {
        let last = life == scenario.lives;
        found.figures.replayed += world.disk.len();
        // Every task dies where it stands when its runtime does.
        elapsed += block_on(live(Arc::clone(&world), elapsed, last, &mut found));
        if !last {
            world.disk.crash(&world.random);
            block_on(world.store.crash());
            found.figures.forgotten += forget_memory(&world);
        }
    }
    check(&world, &mut found);
    let history = world.history().clone();
    let count = |wanted: fn(&Outcome) -> bool| {
        let events = history.events().iter();
        events.filter(|event| wanted(&event.outcome)).count()
    };
    Report {
        figures: Figures {
            operations: history.events().len(),
            acknowledged: count(|outcome| matches!(outcome, Outcome::Ok { .. })),
            indeterminate: count(|outcome| matches!(outcome, Outcome::Indeterminate)),
            failed: count(|outcome| matches!(outcome, Outcome::Failed)),
            parked: found.parked.len(),
            outside: world.outside().len(),
            ..found.figures
        },
        violations: found.violations,
        history,
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing that can be missing")
        .block_on(future)
}

/// What a class of durability `memory` had not flushed is gone with its process, as its receipts said, unless
/// it was parked. How many operations that concerns.
fn forget_memory(world: &World) -> usize {
    world.history().forget(|event| {
        let Outcome::Ok { version, .. } = &event.outcome else {
            return false;
        };
        Kind::of(&event.key) == Kind::Memory
            && *version > world.newest_flushed(&event.key, *version)
    })
}

/// What is discarded is gone, and so is what it had taken the place of before that was flushed. How many
/// operations that concerns.
fn forget_discarded(world: &World) -> usize {
    let discarded = world.discarded();
    world.history().forget(|event| {
        let Outcome::Ok { version, .. } = &event.outcome else {
            return false;
        };
        discarded.iter().any(|(key, most)| {
            *key == event.key && version <= most && *version > world.newest_flushed(key, *most)
        })
    })
}

/// One life; returns how long it took in milliseconds.
#[expect(clippy::disallowed_methods, reason = "time is paused here")]
async fn live(world: Arc<World>, elapsed: u64, last: bool, found: &mut Found) -> u64 {
    let start = tokio::time::Instant::now();
    // A calm start now and then; otherwise the gate opens in the middle of an outage.
    let calm = last || world.random.chance(0.5);
    world.store.set_faults(world.store_faults(calm));
    // Mostly in the middle of things; now and then while it opens, or drains.
    let until = Duration::from_micros(match world.random.below(10) {
        0 => world.random.below(10_000),
        1..3 => world.random.below(1_500_000),
        _ => world.random.below(150_000),
    });
    let mut at_the_edge = true;
    let body = async {
        let journal = world.journal_faults(last);
        let gate = match world.builder(elapsed, journal).open().await {
            Ok(gate) => gate,
            Err(error) => {
                found.violated("I4", format!("the gate does not open: {error}"));
                return;
            }
        };
        world.store.set_faults(world.store_faults(false));
        at_the_edge = false;
        let clients: Vec<_> = (0..world.scenario.clients)
            .map(|client| tokio::spawn(work(Arc::clone(&world), gate.clone(), client)))
            .collect();
        for client in clients {
            // A client that panicked leaves its operations without an answer, which the check shows.
            found.violations.extend(client.await.unwrap_or_default());
        }
        if last {
            settle(&world, &gate, found).await;
        } else {
            at_the_edge = true;
            drop(gate.drain(Duration::from_millis(50)).await);
        }
    };
    if last {
        body.await;
    } else {
        tokio::select! {
            biased;
            () = body => {}
            () = tokio::time::sleep(until) => {
                found.figures.crashes += 1;
                found.figures.crashes_at_the_edge += usize::from(at_the_edge);
            }
        }
    }
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Heals everything, flushes, and compares memory with the store (I7, I8); then drains.
async fn settle(world: &World, gate: &Gate, found: &mut Found) {
    world.store.set_faults(world.store_faults(true));
    // Clients went away from calls that go on; let them end.
    pause(60_000).await;
    if world.random.chance(0.5) {
        gate.retry_dead_letters(None);
    }
    let report = gate.flush(Duration::from_secs(600)).await;
    if report.as_ref().is_ok_and(|report| report.left > 0) {
        found.violated(
            "I4",
            format!("a flush with a healthy store leaves {report:?}"),
        );
    }
    for what in gate.audit() {
        found.violated("I8", what);
    }
    let keys = keys(world);
    for key in &keys {
        if let Some(letter) = gate.dead_letter(key.as_bytes()) {
            found.parked.insert(key.clone(), letter.version);
        } else if Kind::of(key) != Kind::Shared {
            found.violations.extend(agrees(world, gate, key));
        }
    }
    match gate.drain(Duration::from_secs(600)).await {
        Ok(report) if report.left == 0 => {}
        other => found.violated(
            "I4",
            format!("a drain with a healthy store ends in {other:?}"),
        ),
    }
}

/// Every key that somebody asked for.
fn keys(world: &World) -> Vec<Key> {
    let mut keys: Vec<Key> = world
        .history()
        .events()
        .iter()
        .map(|event| event.key.clone())
        .collect();
    keys.sort();
    keys.dedup();
    keys
}

/// Checks the history of all lives against the store.
fn check(world: &World, found: &mut Found) {
    found.figures.discarded = forget_discarded(world);
    let mut own = world.history().clone();
    let shared = own.split(|event| Kind::of(&event.key) == Kind::Shared);
    let rows: HashMap<Key, Row> = keys(world)
        .into_iter()
        .filter_map(|key| {
            let row = world.row(&key)?;
            let (version, value) = (row.version, row.value);
            Some((key, Row { version, value }))
        })
        .collect();
    let own_rows = rows
        .iter()
        .filter(|(key, _)| Kind::of(key) != Kind::Shared)
        .map(|(key, row)| (key.clone(), row.clone()))
        .collect();
    let mut violations = own.check_reads();
    violations.extend(own.check_rows(&own_rows, &found.parked));
    violations.extend(shared.check_conserved(&found.parked, |key| {
        world.newest_flushed(key, Version::from_raw(u64::MAX))
    }));
    violations.extend(shared.check_invented(&rows, &world.outside()));
    violations.extend(world.store.disorder().into_iter().map(|what| Violation {
        invariant: "I9",
        what,
    }));
    if world.scenario.lying_disk {
        // Nothing else can be promised of such a disk.
        violations.retain(|violation| ["I5", "I8", "I9"].contains(&violation.invariant));
        found
            .violations
            .retain(|violation| ["I5", "I8", "I9"].contains(&violation.invariant));
    }
    found.violations.extend(violations);
}
