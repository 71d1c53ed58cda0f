//! The order in which the database took the writes of each key.

use std::collections::{BTreeMap, HashMap};

use tidegate_core::Key;

use super::operation::{Operation, Value};
use super::violation::Violation;

/// One change of a row, as a trigger saw it under the lock of the row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Commit {
    /// The version of the row, where it has one.
    pub version: Option<u64>,
    /// The value; nothing if the row was deleted.
    pub value: Option<Value>,
}

/// The changes of each key in the order of their commits. Every key begins absent.
///
/// By default a write that was acknowledged must be among them. Where a system writes several values of a key as
/// one, each acknowledged by the commit of the last ([`coalesced`](Self::coalesced)), the others took effect right
/// before it, and were never to be seen; also those before a delete of what was not there, which is no change.
#[derive(Clone, Default, Debug)]
pub struct WriteOrder {
    keys: BTreeMap<Key, Line>,
    coalesced: bool,
    violations: Vec<Violation>,
}

/// The states of one key. The first is the one before everything.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) states: Vec<Option<Value>>,
    by_value: HashMap<Value, usize>,
    by_version: HashMap<u64, usize>,
    /// The positions at which the key is absent.
    absent: Vec<usize>,
    newest: Option<u64>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            states: vec![None],
            by_value: HashMap::new(),
            by_version: HashMap::new(),
            absent: vec![0],
            newest: None,
        }
    }
}

impl WriteOrder {
    /// Changes in the order of their commits, of all keys together.
    #[must_use]
    pub fn of(commits: impl IntoIterator<Item = (Key, Commit)>) -> Self {
        let mut order = Self::default();
        for (key, commit) in commits {
            let line = order.keys.entry(key.clone()).or_default();
            if let Some(what) = line.push(commit) {
                order.violations.push(Violation::new("I9", &key, what));
            }
        }
        order
    }

    /// The same where several writes of a key may reach the database as one.
    #[must_use]
    pub fn coalesced(mut self) -> Self {
        self.coalesced = true;
        self
    }

    /// What is wrong with the order itself (I9): versions that do not rise, and values that came twice with others
    /// in between.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How many changes there were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.values().map(|line| line.states.len() - 1).sum()
    }

    /// Whether there was none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn is_coalesced(&self) -> bool {
        self.coalesced
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (&Key, &Line)> {
        self.keys.iter()
    }

    pub(super) fn has(&self, key: &Key, value: Value) -> bool {
        let line = self.keys.get(key);
        line.is_some_and(|line| line.position(value).is_some())
    }

    pub(super) fn line(&self, key: &Key) -> Line {
        self.keys.get(key).cloned().unwrap_or_default()
    }
}

impl Line {
    /// What is wrong with the change, if something is.
    fn push(&mut self, commit: Commit) -> Option<String> {
        let mut wrong = None;
        if let Some(version) = commit.version {
            if let Some(newest) = self.newest.filter(|newest| *newest >= version) {
                wrong = Some(format!("version {version} was given after {newest}"));
            }
            self.newest = self.newest.max(Some(version));
        }
        // The same value once more is the same write, tried again by somebody who was not told.
        let again = commit.value.is_some() && self.states.last() == Some(&commit.value);
        if !again {
            self.states.push(commit.value);
        }
        let position = self.states.len() - 1;
        if let Some(version) = commit.version {
            self.by_version.insert(version, position);
        }
        match commit.value {
            None => self.absent.push(position),
            Some(_) if again => {}
            Some(value) => {
                if let Some(before) = self.by_value.insert(value, position) {
                    // The first one counts: what was read in between was read after it.
                    self.by_value.insert(value, before);
                    wrong = Some(format!(
                        "{value} was written twice, with other changes in between"
                    ));
                }
            }
        }
        wrong
    }

    pub(super) fn last(&self) -> usize {
        self.states.len() - 1
    }

    pub(super) fn position(&self, value: Value) -> Option<usize> {
        self.by_value.get(&value).copied()
    }

    pub(super) fn position_of_version(&self, version: u64) -> Option<usize> {
        self.by_version.get(&version).copied()
    }

    /// The first position from `from` on at which the key is absent.
    pub(super) fn absent_from(&self, from: usize) -> Option<usize> {
        let at = self.absent.partition_point(|position| *position < from);
        self.absent.get(at).copied()
    }

    /// The positions at which the key is absent, in order.
    pub(super) fn absent(&self) -> &[usize] {
        &self.absent
    }

    /// For each position, when the last of the writes up to it began that is known: the key was not there before.
    pub(super) fn begun(&self, operations: &[&Operation]) -> Vec<u64> {
        let mut begun = vec![0; self.states.len()];
        for operation in operations {
            if let Some(position) = operation.written().and_then(|value| self.position(value)) {
                begun[position] = operation.invoked;
            }
        }
        let mut last = 0;
        for at in &mut begun {
            last = last.max(*at);
            *at = last;
        }
        begun
    }
}
