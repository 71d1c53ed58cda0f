//! What clients asked for, and what they were answered.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use tidegate_core::{Key, Version};

/// What a client asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Put this value, which no other operation puts.
    Put(Bytes),
    /// Delete the key.
    Delete,
    /// Add this to the number in the key, as text; an absent key holds 0.
    Add(i64),
    /// Read the key.
    Read,
}

/// What a client was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Done.
    Ok {
        /// The version read or written; none if nothing is known of an absent key.
        version: Version,
        /// What was read; nothing for writes and absent keys.
        value: Option<Bytes>,
    },
    /// Not done, for certain.
    Failed,
    /// No answer, or the answer that nobody knows.
    Indeterminate,
}

/// One operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The key.
    pub key: Key,
    /// What was asked.
    pub kind: Kind,
    /// When it began, in the order of all events.
    pub invoked: u64,
    /// When it was answered; nothing if it never was.
    pub returned: Option<u64>,
    /// The answer.
    pub outcome: Outcome,
}

/// A row as the store has it at the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its version.
    pub version: Version,
    /// Its value.
    pub value: Bytes,
}

/// Two things that cannot both be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The invariant, by its number in the list of invariants.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// All operations of a run, in the order in which they began.
#[derive(Clone, Default, Debug)]
pub struct History {
    events: Vec<Event>,
    time: u64,
}

impl History {
    /// An operation begins. Returns its place, for [`end`](Self::end).
    pub fn begin(&mut self, key: Key, kind: Kind) -> usize {
        self.time += 1;
        let outcome = Outcome::Indeterminate;
        self.events.push(Event {
            key,
            kind,
            invoked: self.time,
            returned: None,
            outcome,
        });
        self.events.len() - 1
    }

    /// An operation is answered.
    pub fn end(&mut self, place: usize, outcome: Outcome) {
        self.time += 1;
        if let Some(event) = self.events.get_mut(place) {
            event.returned = Some(self.time);
            event.outcome = outcome;
        }
    }

    /// The operations.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    pub(super) fn by_key(&self) -> BTreeMap<&Key, Vec<&Event>> {
        let mut keys: BTreeMap<&Key, Vec<&Event>> = BTreeMap::new();
        for event in &self.events {
            keys.entry(&event.key).or_default().push(event);
        }
        keys
    }

    /// What these operations did may be undone: writes may or may not have happened, and what was read of
    /// them says nothing. How many there are. The caller guarantees that nothing is still to
    /// [end](Self::end).
    pub fn forget(&mut self, lost: impl Fn(&Event) -> bool) -> usize {
        let before = self.events.len();
        self.events
            .retain(|event| event.kind != Kind::Read || !lost(event));
        let mut count = before - self.events.len();
        for event in self.events.iter_mut().filter(|event| lost(event)) {
            event.outcome = Outcome::Indeterminate;
            event.returned = None;
            count += 1;
        }
        count
    }

    /// Takes operations out into a history of their own.
    #[must_use]
    pub fn split(&mut self, wanted: impl FnMut(&Event) -> bool) -> Self {
        let (wanted, rest) = std::mem::take(&mut self.events)
            .into_iter()
            .partition(wanted);
        self.events = rest;
        Self {
            events: wanted,
            time: self.time,
        }
    }
}
