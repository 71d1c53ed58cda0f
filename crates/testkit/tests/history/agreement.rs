//! Sweep, search and all orders tried one by one say the same of small histories, good and bad.

use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::Key;
use tidegate_testkit::history::{Commit, Kind, Operation, Outcome, Verdict, WriteOrder};

use super::told::{KEY, delete, history, read, unknown, value, write};

/// An operation at random moments: 0 to 2 are reads of what four writes put or of nothing.
fn operations(deletes: bool) -> impl Strategy<Value = Vec<Operation>> {
    let one = (0_u32..10, 0_u64..5, 0_u64..40, 1_u64..20, 0_u32..5);
    proptest::collection::vec(one, 1..9).prop_map(move |drawn| {
        let mut written = 0;
        let mut operations = Vec::new();
        for (kind, number, from, length, answered) in drawn {
            let to = from + length;
            let operation = match kind {
                0..4 if written < 4 => {
                    written += 1;
                    write(written, from, to)
                }
                4 if deletes => delete(from, to),
                _ => read(number, from, to),
            };
            let is_read = operation.kind == Kind::Read;
            operations.push(if answered == 0 && !is_read {
                unknown(operation)
            } else {
                operation
            });
        }
        operations
    })
}

/// Whether some order of all that was answered and some of what was not is one of a register and agrees with time.
fn some_order_explains(operations: &[Operation]) -> bool {
    fn go_on(operations: &[Operation], done: &mut Vec<bool>, state: Option<u64>) -> bool {
        let is_left = |i: &usize| operations[*i].outcome != Outcome::Indeterminate;
        let left: Vec<usize> = (0..operations.len())
            .filter(|i| !done[*i])
            .filter(is_left)
            .collect();
        if left.is_empty() {
            return true;
        }
        for i in 0..operations.len() {
            let mut ended = left.iter().map(|j| operations[*j].returned.unwrap());
            if done[i] || ended.any(|ended| ended < operations[i].invoked) {
                continue;
            }
            let operation = &operations[i];
            let next = match operation.kind {
                Kind::Write(value) => Some(value.number),
                Kind::Delete => None,
                Kind::Read => {
                    if operation.answer().unwrap().value.map(|v| v.number) != state {
                        continue;
                    }
                    state
                }
            };
            done[i] = true;
            let explained = go_on(operations, done, next);
            done[i] = false;
            if explained {
                return true;
            }
        }
        false
    }
    go_on(operations, &mut vec![false; operations.len()], None)
}

/// All orders of all that was answered and some of what was not, of the writes.
fn orders(operations: &[Operation]) -> Vec<Vec<u64>> {
    fn go_on(left: &[(u64, bool)], taken: &mut Vec<u64>, all: &mut Vec<Vec<u64>>) {
        if left.iter().all(|(_, needed)| !needed) {
            all.push(taken.clone());
        }
        for i in 0..left.len() {
            let mut rest = left.to_vec();
            taken.push(rest.remove(i).0);
            go_on(&rest, taken, all);
            taken.pop();
        }
    }
    let writes = operations.iter().filter_map(|operation| {
        let answered = operation.outcome != Outcome::Indeterminate;
        Some((operation.written()?.number, answered))
    });
    let mut all = Vec::new();
    go_on(&writes.collect::<Vec<_>>(), &mut Vec::new(), &mut all);
    all
}

fn order(numbers: &[u64]) -> WriteOrder {
    WriteOrder::of(numbers.iter().map(|number| {
        let commit = Commit {
            version: None,
            value: Some(value(*number)),
        };
        (Key::from(KEY), commit)
    }))
}

fn searched(operations: &[Operation]) -> bool {
    let verdicts = history(operations).search(Duration::from_secs(20));
    match &verdicts[0].1 {
        Verdict::Linearizable => true,
        Verdict::Violated(_) => false,
        Verdict::Unknown => panic!("too slow"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_search_finds_an_order_if_there_is_one(operations in operations(true)) {
        prop_assert_eq!(searched(&operations), some_order_explains(&operations));
    }

    #[test]
    fn the_sweep_accepts_some_order_of_writes_if_and_only_if_the_search_does(operations in operations(false)) {
        let history = history(&operations);
        let swept = orders(&operations)
            .iter()
            .any(|numbers| history.check_linearizable(&order(numbers)).is_empty());
        prop_assert_eq!(swept, searched(&operations));
    }
}
