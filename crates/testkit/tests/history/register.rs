//! A correct register, seen by clients through delays: what it does must pass, whatever the delays.

use proptest::prelude::*;
use std::time::Duration;

use tidegate_core::Key;
use tidegate_testkit::history::{
    Answer, Commit, History, Kind, Operation, Outcome, Value, Verdict, WriteOrder,
};
use tidegate_testkit::sim::Random;

/// A run: clients one operation after the other, each taking effect at a moment between its ends.
pub(crate) struct Run {
    pub(crate) operations: Vec<Operation>,
    pub(crate) commits: Vec<(Key, Commit)>,
    /// Whether each operation took effect.
    happened: Vec<bool>,
}

impl Run {
    pub(crate) fn history(&self) -> History {
        self.operations.iter().cloned().collect()
    }

    pub(crate) fn order(&self) -> WriteOrder {
        WriteOrder::of(self.commits.iter().cloned())
    }

    /// The same, every other change absorbed by the next one where that may be: the next one had begun before it was
    /// acknowledged, and nobody read in between. The operations lie in the order of their effects.
    pub(crate) fn coalesced(&self, random: &Random) -> WriteOrder {
        let mut order = Vec::new();
        for key in ["a", "b"].map(Key::from) {
            let of_key = |operation: &&Operation| operation.key == key;
            // What happened, and whether the change can still be absorbed: until when the next one must begin.
            let mut state = None;
            let mut pending: Option<(Option<Value>, u64)> = None;
            let mut commits = Vec::new();
            for (i, operation) in self.operations.iter().enumerate() {
                if !of_key(&operation) || !self.happened[i] {
                    continue;
                }
                let new = match operation.kind {
                    Kind::Read if operation.answer().is_none() => continue,
                    Kind::Read => None,
                    Kind::Write(value) => Some(Some(value)),
                    Kind::Delete => Some(None),
                };
                let until = match operation.outcome {
                    Outcome::Ok(_) => operation.returned.unwrap(),
                    _ => 0,
                };
                let absorbs = |until: u64| new.is_some() && operation.invoked <= until;
                let kept = pending.take_if(|(_, until)| !absorbs(*until) || random.chance(0.5));
                if let Some((value, _)) = kept.filter(|(value, _)| *value != state) {
                    state = value;
                    commits.push(value);
                }
                let until = pending.map_or(until, |(_, before)| before.min(until));
                pending = new.map(|new| (new, until));
            }
            commits.extend(
                pending
                    .map(|(value, _)| value)
                    .filter(|value| *value != state),
            );
            let commit = |value| Commit {
                version: None,
                value,
            };
            order.extend(
                commits
                    .into_iter()
                    .map(|value| (key.clone(), commit(value))),
            );
        }
        WriteOrder::of(order).coalesced()
    }
}

/// What a client does at random: reads mostly, writes, and deletes if asked for; some without an answer.
pub(crate) fn run(seed: u64, clients: u32, each: u64, deletes: bool) -> Run {
    let random = Random::new(seed);
    // When it takes effect, and the operation.
    let mut planned: Vec<(u64, Operation, bool)> = Vec::new();
    for client in 0..clients {
        let mut now = random.below(50);
        for number in 0..each {
            let (invoked, effect) = (now, now + 1 + random.below(100));
            let returned = effect + 1 + random.below(100);
            now = returned + 1 + random.below(30);
            let value = Value {
                writer: client,
                number,
            };
            let kind = match random.below(10) {
                0..6 => Kind::Read,
                6 if deletes => Kind::Delete,
                _ => Kind::Write(value),
            };
            let answered = random.below(12) > 0;
            // Without an answer it may happen any time later, or never.
            let (effect, happens) = match (answered, random.below(3)) {
                (true, _) => (effect, true),
                (false, 0) => (effect, false),
                (false, _) => (effect + random.below(500), true),
            };
            let outcome = if answered {
                Outcome::Ok(Answer::default())
            } else {
                Outcome::Indeterminate
            };
            let key = if random.chance(0.5) { "a" } else { "b" };
            let operation = Operation {
                client,
                node: 0,
                key: Key::from(key),
                kind,
                invoked,
                returned: Some(returned),
                outcome,
            };
            planned.push((effect, operation, happens));
        }
    }
    planned.sort_by_key(|(effect, operation, _)| (*effect, operation.client));
    let mut states = std::collections::BTreeMap::<Key, Option<Value>>::new();
    let mut run = Run {
        operations: Vec::new(),
        commits: Vec::new(),
        happened: Vec::new(),
    };
    for (_, mut operation, happens) in planned {
        let state = states.entry(operation.key.clone()).or_default();
        let new = match operation.kind {
            Kind::Read => *state,
            Kind::Write(value) => Some(value),
            Kind::Delete => None,
        };
        if let (Kind::Read, Outcome::Ok(answer)) = (operation.kind, &mut operation.outcome) {
            answer.value = *state;
        }
        if happens && new != *state {
            *state = new;
            let commit = Commit {
                version: Some(run.commits.len() as u64 + 1),
                value: new,
            };
            run.commits.push((operation.key.clone(), commit));
        }
        run.operations.push(operation);
        run.happened.push(happens);
    }
    run
}

fn verdicts(history: &History) -> Vec<Verdict> {
    let found = history.search(Duration::from_secs(20));
    found.into_iter().map(|(_, verdict)| verdict).collect()
}

/// The history with one read turned into one of a value that a write had replaced before the read began; nothing if
/// there is no such read.
fn spoiled(run: &Run, pick: usize) -> Option<History> {
    let replaced = |read: &Operation| {
        // An older value of the key than the last write that had ended before the read began.
        let commits: Vec<_> = run.commits.iter().filter(|c| c.0 == read.key).collect();
        let ended = run
            .operations
            .iter()
            .filter(|write| write.answer().is_some() && write.returned.unwrap() < read.invoked);
        let positions = ended.filter_map(|write| {
            let value = write.written()?;
            commits.iter().position(|c| c.1.value == Some(value))
        });
        let newest = positions.max()?;
        let mut older = commits[..newest].iter().filter_map(|c| c.1.value);
        older.next_back()
    };
    let reads: Vec<(usize, Value)> = run
        .operations
        .iter()
        .enumerate()
        .filter(|(_, o)| o.kind == Kind::Read && o.answer().is_some())
        .filter_map(|(i, read)| Some((i, replaced(read)?)))
        .collect();
    let (i, old) = *reads.get(pick % reads.len().max(1))?;
    let mut operations = run.operations.clone();
    operations[i].outcome = Outcome::Ok(Answer {
        value: Some(old),
        version: None,
    });
    Some(operations.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_correct_register_passes(seed: u64, clients in 1_u32..12, each in 1_u64..40, deletes: bool) {
        let run = run(seed, clients, each, deletes);
        let (history, order) = (run.history(), run.order());
        prop_assert_eq!(history.check_linearizable(&order), []);
        prop_assert_eq!(history.check_bounded(&order, Duration::ZERO), []);
        prop_assert_eq!(history.check_sessions(&order, |o| o.client.into()), []);
        prop_assert_eq!(history.check_end(&order, &[]), []);
        prop_assert!(verdicts(&history).iter().all(|v| *v == Verdict::Linearizable));
    }

    #[test]
    fn one_that_takes_several_writes_as_one_passes(seed: u64, clients in 1_u32..12, each in 1_u64..40, deletes: bool) {
        let run = run(seed, clients, each, deletes);
        let (history, order) = (run.history(), run.coalesced(&Random::new(seed)));
        prop_assert_eq!(history.check_linearizable(&order), []);
        prop_assert_eq!(history.check_bounded(&order, Duration::ZERO), []);
        prop_assert_eq!(history.check_end(&order, &[]), []);
    }

    #[test]
    fn one_stale_read_in_it_is_found(seed: u64, clients in 2_u32..8, pick: usize, deletes: bool) {
        let run = run(seed, clients, 30, deletes);
        if let Some(bad) = spoiled(&run, pick) {
            let order = run.order();
            prop_assert!(!bad.check_linearizable(&order).is_empty());
            prop_assert!(bad.check_bounded(&order, Duration::ZERO).iter().any(|v| v.invariant == "I2"));
            // Another order of writes may explain it to who does not know theirs.
            let known = verdicts(&bad);
            prop_assert!(!known.contains(&Verdict::Unknown));
        }
    }
}

#[test]
fn a_long_history_of_many_clients_is_searched_quickly() {
    let run = run(7, 16, 3000, true);
    let clock = tidegate_testkit::history::RunClock::start();
    assert_eq!(run.history().check_linearizable(&run.order()), []);
    let swept = clock.now();
    assert!(
        verdicts(&run.history())
            .iter()
            .all(|v| *v == Verdict::Linearizable)
    );
    println!(
        "48000 operations: swept in {} ms, searched in {} ms",
        swept / 1_000_000,
        (clock.now() - swept) / 1_000_000
    );
}
