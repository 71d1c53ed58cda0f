//! What is there at the end, when everything is healed and nothing is on its way any more.

use std::collections::{BTreeMap, HashMap};

use tidegate_core::Key;

use super::operation::{Answer, History, Kind, Operation, Outcome, Value};
use super::order::WriteOrder;
use super::violation::Violation;

/// A key at the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndState {
    /// The key.
    pub key: Key,
    /// Its row in the database.
    pub row: Option<Value>,
    /// What each node answers to a read of it, by the number of the node.
    pub nodes: Vec<(u32, Option<Value>)>,
}

impl History {
    /// Checks the end: every row is what was committed last (I4, or I6 if it was a delete); what was committed was
    /// asked for and not refused (I5); nobody's acknowledged write is missing (I4, unless writes are
    /// [coalesced](WriteOrder::coalesced), when [`check_linearizable`](Self::check_linearizable) knows more); and
    /// every node reads what is in the row (I7). Also says what is wrong with the order of writes itself (I9).
    ///
    /// O(n).
    #[must_use]
    pub fn check_end(&self, order: &WriteOrder, end: &[EndState]) -> Vec<Violation> {
        let mut violations = order.violations().to_vec();
        let writers = self.writers();
        for (key, line) in order.keys() {
            self.check_asked(key, &line.states, &writers, &mut violations);
        }
        for operation in self.operations() {
            let written = operation.written().filter(|_| operation.answer().is_some());
            let is_lost = |value| !order.has(&operation.key, value);
            if !order.is_coalesced() && written.is_some_and(is_lost) {
                let what = "an acknowledged write was never committed";
                violations.push(Violation::of("I4", operation, what));
            }
        }
        for state in end {
            let line = order.line(&state.key);
            let last = line.states[line.last()];
            if state.row != last {
                let invariant = if last.is_none() { "I6" } else { "I4" };
                let what = format!(
                    "the row is {}, and the last commit {}",
                    said(state.row),
                    said(last)
                );
                let violation = Violation::new(invariant, &state.key, what);
                let writer = last.and_then(|last| writers.get(&last).copied());
                violations.push(violation.against(writer));
            }
            for (node, read) in state.nodes.iter().filter(|node| node.1 != state.row) {
                let what = format!(
                    "node {node} still reads {} when all is quiet, and the row is {}",
                    said(*read),
                    said(state.row)
                );
                let violation = Violation::new("I7", &state.key, what);
                let writer = state.row.and_then(|row| writers.get(&row).copied());
                violations.push(violation.against(writer));
            }
        }
        violations
    }

    /// What was committed was asked for: every value, and as many deletes at least.
    fn check_asked(
        &self,
        key: &Key,
        states: &[Option<Value>],
        writers: &HashMap<Value, &Operation>,
        violations: &mut Vec<Violation>,
    ) {
        let of_key = |writer: &&&Operation| writer.key == *key;
        for value in states.iter().flatten() {
            match writers.get(value).filter(of_key) {
                None => {
                    let what = format!("{value} was committed, and nobody wrote it");
                    violations.push(Violation::new("I5", key, what));
                }
                Some(writer) if writer.outcome == Outcome::Failed => {
                    let what = "a write that failed for certain was committed";
                    violations.push(Violation::of("I5", writer, what));
                }
                Some(_) => {}
            }
        }
        let gone = states
            .iter()
            .skip(1)
            .filter(|state| state.is_none())
            .count();
        let deletes = self.operations().iter().filter(|operation| {
            operation.key == *key
                && operation.kind == Kind::Delete
                && operation.outcome != Outcome::Failed
        });
        let deletes = deletes.count();
        if gone > deletes {
            let what = format!("the row was deleted {gone} times by {deletes} deletes");
            violations.push(Violation::new("I5", key, what));
        }
    }

    fn writers(&self) -> HashMap<Value, &Operation> {
        let writes = self.operations().iter();
        writes
            .filter_map(|operation| Some((operation.written()?, operation)))
            .collect()
    }

    /// The same history with a read of every row and through every node behind everything else, for the
    /// [search](Self::search): where no order of writes is known, that is how the end is held against the rest.
    #[must_use]
    pub fn with_end(&self, end: &[EndState]) -> Self {
        let times = self.operations().iter().flat_map(|operation| {
            let returned = operation.returned.unwrap_or(operation.invoked);
            [operation.invoked, returned]
        });
        let mut time = times.max().unwrap_or(0);
        let mut operations: Vec<Operation> = self.operations().to_vec();
        for state in end {
            let row = std::iter::once((u32::MAX, state.row));
            for (node, value) in row.chain(state.nodes.iter().copied()) {
                operations.push(Operation {
                    client: u32::MAX,
                    node,
                    key: state.key.clone(),
                    kind: Kind::Read,
                    invoked: time + 1,
                    returned: Some(time + 2),
                    outcome: Outcome::Ok(Answer {
                        value,
                        version: None,
                    }),
                });
                time += 2;
            }
        }
        operations.into_iter().collect()
    }

    /// How many operations there were, by kind and outcome, for a summary.
    #[must_use]
    pub fn figures(&self) -> BTreeMap<&'static str, u64> {
        let mut figures = BTreeMap::new();
        for operation in self.operations() {
            let kind = match operation.kind {
                Kind::Read => "reads",
                Kind::Write(_) => "writes",
                Kind::Delete => "deletes",
            };
            let outcome = match operation.outcome {
                Outcome::Ok(_) => "acknowledged",
                Outcome::Failed => "failed",
                Outcome::Indeterminate => "indeterminate",
            };
            for name in ["operations", kind, outcome] {
                *figures.entry(name).or_default() += 1;
            }
        }
        figures
    }
}

fn said(value: Option<Value>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| value.to_string())
}
