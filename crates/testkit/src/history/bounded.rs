//! Reads that may be old, but only so old.

use std::time::Duration;

use super::operation::{History, Kind, Operation};
use super::order::{Line, WriteOrder};
use super::sweep::Sweep;
use super::violation::Violation;

impl History {
    /// Checks that no read was older than `bound` when it began (I2): what it returned had not been replaced, by a
    /// write that was acknowledged, for longer than that. The writes among themselves, and that what was read was
    /// written before, are held to I1 and I5 as in [`check_linearizable`](Self::check_linearizable).
    ///
    /// O(n log n).
    #[must_use]
    pub fn check_bounded(&self, order: &WriteOrder, bound: Duration) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (key, operations) in self.by_key() {
            let (reads, writes): (Vec<_>, Vec<_>) = operations.into_iter().partition(is_read);
            let mut sweep = Sweep::new("I1", order, key, &writes);
            sweep.run(&mut violations);
            let replaced = replaced(&sweep, &writes);
            for read in reads {
                violations.extend(check_read(&sweep, &replaced, read, bound));
            }
        }
        violations
    }

    /// How old the oldest read was when it began: for how long an acknowledged write had replaced what it returned. A
    /// read that nothing explains does not count.
    ///
    /// O(n log n).
    #[must_use]
    pub fn worst_age(&self, order: &WriteOrder) -> Duration {
        let mut worst = Duration::ZERO;
        for (key, operations) in self.by_key() {
            let (reads, writes): (Vec<_>, Vec<_>) = operations.into_iter().partition(is_read);
            let mut sweep = Sweep::new("I1", order, key, &writes);
            sweep.run(&mut Vec::new());
            let replaced = replaced(&sweep, &writes);
            let ages = reads.into_iter().filter_map(|read| {
                let (age, _) = age(&sweep, &replaced, read).ok()??;
                Some(age)
            });
            worst = ages.fold(worst, Duration::max);
        }
        worst
    }
}

fn is_read(operation: &&Operation) -> bool {
    operation.kind == Kind::Read
}

/// For each position the first acknowledgement of a later write, and whose it is.
fn replaced<'a>(sweep: &Sweep<'_>, writes: &[&'a Operation]) -> Vec<Option<&'a Operation>> {
    let mut replaced: Vec<Option<&Operation>> = vec![None; sweep.line.states.len()];
    let is_earlier =
        |a: &Operation, b: Option<&Operation>| b.is_none_or(|b| a.deadline() < b.deadline());
    for (write, position) in writes.iter().zip(&sweep.positions) {
        let Some(before) = position.and_then(|position| position.checked_sub(1)) else {
            continue;
        };
        if write.answer().is_some() && is_earlier(write, replaced[before]) {
            replaced[before] = Some(write);
        }
    }
    for position in (1..replaced.len()).rev() {
        if let Some(later) = replaced[position]
            && is_earlier(later, replaced[position - 1])
        {
            replaced[position - 1] = Some(later);
        }
    }
    replaced
}

fn check_read(
    sweep: &Sweep<'_>,
    replaced: &[Option<&Operation>],
    read: &Operation,
    bound: Duration,
) -> Option<Violation> {
    match age(sweep, replaced, read) {
        Err(violation) => Some(*violation),
        Ok(Some((age, newer))) if age > bound => {
            let what = format!("what was read had been replaced {age:?} before the read began");
            Some(Violation::of("I2", read, what).against(Some(newer)))
        }
        Ok(_) => None,
    }
}

/// How old a read was when it began, and who had replaced what it returned; nothing if nobody had.
fn age<'a>(
    sweep: &Sweep<'_>,
    replaced: &[Option<&'a Operation>],
    read: &Operation,
) -> Result<Option<(Duration, &'a Operation)>, Box<Violation>> {
    let line: &Line = &sweep.line;
    let Some(answer) = read.answer() else {
        return Ok(None);
    };
    let begun = |position: &usize| sweep.begun[*position] <= read.deadline();
    let position = match answer.value {
        // The last moment that explains it: any earlier one would only be older.
        None => line.absent().iter().copied().rfind(begun),
        Some(value) => match line.position(value) {
            None => {
                let what = "a value was read that was never committed";
                return Err(Box::new(Violation::of("I5", read, what)));
            }
            position => position.filter(begun),
        },
    };
    let Some(position) = position else {
        let what = "a read returned what was written only afterwards";
        return Err(Box::new(Violation::of("I1", read, what)));
    };
    Ok(replaced[position].map(|newer| {
        let age = read.invoked.saturating_sub(newer.deadline());
        (Duration::from_nanos(age), newer)
    }))
}
