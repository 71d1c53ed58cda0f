//! Histories told in words, for tests.

use tidegate_core::Key;
use tidegate_testkit::history::{
    Answer, Commit, History, Kind, Operation, Outcome, Value, WriteOrder,
};

pub(crate) const KEY: &str = "k";

/// The value `w1.n`.
pub(crate) fn value(number: u64) -> Value {
    Value { writer: 1, number }
}

/// An operation of client 1 from one moment to another, answered.
pub(crate) fn done(kind: Kind, read: Option<u64>, from: u64, to: u64) -> Operation {
    Operation {
        client: 1,
        node: 0,
        key: Key::from(KEY),
        kind,
        invoked: from,
        returned: Some(to),
        outcome: Outcome::Ok(Answer {
            value: read.map(value),
            version: None,
        }),
    }
}

/// A write of `w1.n`.
pub(crate) fn write(number: u64, from: u64, to: u64) -> Operation {
    done(Kind::Write(value(number)), None, from, to)
}

/// A read; 0 is an absent key.
pub(crate) fn read(number: u64, from: u64, to: u64) -> Operation {
    done(Kind::Read, Some(number).filter(|n| *n > 0), from, to)
}

pub(crate) fn delete(from: u64, to: u64) -> Operation {
    done(Kind::Delete, None, from, to)
}

/// The same without an answer.
pub(crate) fn unknown(mut operation: Operation) -> Operation {
    operation.outcome = Outcome::Indeterminate;
    operation
}

/// The same, refused.
pub(crate) fn failed(mut operation: Operation) -> Operation {
    operation.outcome = Outcome::Failed;
    operation
}

/// The same by another client.
pub(crate) fn by(client: u32, mut operation: Operation) -> Operation {
    operation.client = client;
    operation
}

pub(crate) fn history(operations: &[Operation]) -> History {
    operations.iter().cloned().collect()
}

/// Commits of these values; 0 is a delete. Versions are 10, 20, 30 and so on.
pub(crate) fn order(numbers: &[u64]) -> WriteOrder {
    let commits = numbers.iter().enumerate().map(|(i, number)| {
        let commit = Commit {
            version: Some((i as u64 + 1) * 10),
            value: Some(*number).filter(|n| *n > 0).map(value),
        };
        (Key::from(KEY), commit)
    });
    WriteOrder::of(commits)
}
