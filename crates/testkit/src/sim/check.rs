//! Whether any order of the operations explains what clients did and saw.
//!
//! Every write has a version that orders the writes of its key, so no search is needed: the events of a key
//! are swept once in real-time order with `floor`, the newest version that a completed operation has
//! acknowledged or returned. An operation must not answer with less than the floor at its invocation. With
//! the order of writes known, that is necessary and sufficient for a register (linearizability, invariant
//! I1), and a violation is already minimal: two operations.
//!
//! Operations that failed definitely must leave no trace; those without an answer may or may not have
//! happened.

use std::collections::HashMap;

use bytes::Bytes;
use tidegate_core::{Key, Version};

use super::history::{Event, History, Kind, Outcome, Row, Violation};

impl History {
    /// Checks that every read and write is explained by one order of the writes of its key that agrees with
    /// real time (I1), and that what was read was written (I5).
    #[must_use]
    pub fn check_reads(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for events in self.by_key().values() {
            check_order(events, &mut violations);
            check_values(events, &mut violations);
        }
        violations
    }

    /// Checks what the store has at the end against what was acknowledged: nothing lost (I4), nothing
    /// invented (I5), nothing resurrected (I6), additions counted exactly (I10), everything accounted for
    /// (I11). `parked` are the versions of entries that the store refuses.
    #[must_use]
    pub fn check_rows(
        &self,
        rows: &HashMap<Key, Row>,
        parked: &HashMap<Key, Version>,
    ) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (key, events) in self.by_key() {
            check_row(
                key,
                &events,
                rows.get(key),
                parked.get(key),
                &mut violations,
            );
        }
        for key in rows
            .keys()
            .filter(|key| self.events().iter().all(|event| event.key != **key))
        {
            let what = format!("key '{key}' has a row and nobody wrote it");
            violations.push(Violation {
                invariant: "I5",
                what,
            });
        }
        violations
    }

    /// Checks of keys that others write too that nothing acknowledged is gone (I11): it, or something newer,
    /// came to the store at some time (`flushed`), or is parked.
    #[must_use]
    pub fn check_conserved(
        &self,
        parked: &HashMap<Key, Version>,
        flushed: impl Fn(&Key) -> Version,
    ) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (key, events) in self.by_key() {
            let Some(newest) = events.iter().filter_map(|event| written(event)).max() else {
                continue;
            };
            let (flushed, parked) = (flushed(key), parked.get(key).copied());
            if flushed < newest && parked.is_none_or(|parked| parked < newest) {
                violations.push(Violation {
                    invariant: "I11",
                    what: format!(
                        "key '{key}': {newest} was acknowledged, {flushed} was flushed, {parked:?} is parked"
                    ),
                });
            }
        }
        violations
    }

    /// Checks of keys that others write too that every row and every value that was read was written by
    /// somebody (I5).
    #[must_use]
    pub fn check_invented(
        &self,
        rows: &HashMap<Key, Row>,
        outside: &[(Key, Bytes)],
    ) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (key, events) in self.by_key() {
            let written = |value: &Bytes| {
                let by_a_client = |event: &&Event| {
                    event.kind == Kind::Put(value.clone()) && event.outcome != Outcome::Failed
                };
                events.iter().any(by_a_client)
                    || outside
                        .iter()
                        .any(|(other, theirs)| other == key && theirs == value)
            };
            let seen = events
                .iter()
                .filter_map(|event| match (&event.kind, &event.outcome) {
                    (Kind::Read, Outcome::Ok { value, .. }) => value.as_ref(),
                    _ => None,
                });
            let stored = rows.get(key).map(|row| &row.value);
            for value in seen.chain(stored).filter(|value| !written(value)) {
                violations.push(Violation {
                    invariant: "I5",
                    what: format!("key '{key}' held {value:?}, which nobody wrote"),
                });
            }
        }
        violations
    }
}

/// The version an operation has written, if it was acknowledged.
fn written(event: &Event) -> Option<Version> {
    match (&event.kind, &event.outcome) {
        (Kind::Read, _) => None,
        (_, Outcome::Ok { version, .. }) => Some(*version),
        _ => None,
    }
}

fn check_order(events: &[&Event], violations: &mut Vec<Violation>) {
    #[derive(Clone, Copy)]
    enum Step {
        Invoke(usize),
        Return(usize),
    }
    let mut steps: Vec<(u64, Step)> = Vec::with_capacity(events.len() * 2);
    for (i, event) in events.iter().enumerate() {
        steps.push((event.invoked, Step::Invoke(i)));
        if let Some(returned) = event.returned {
            steps.push((returned, Step::Return(i)));
        }
    }
    steps.sort_unstable_by_key(|(time, _)| *time);
    let mut floor: Option<usize> = None;
    let version_of = |i: usize| match &events[i].outcome {
        Outcome::Ok { version, .. } => *version,
        _ => Version::NONE,
    };
    let mut floor_at: Vec<Option<usize>> = vec![None; events.len()];
    for (_, step) in steps {
        match step {
            Step::Invoke(i) => floor_at[i] = floor,
            Step::Return(i) => {
                let Outcome::Ok { version, value } = &events[i].outcome else {
                    continue;
                };
                if let Some(before) = floor_at[i] {
                    let below = *version < version_of(before);
                    let absent = events[i].kind == Kind::Read && value.is_none();
                    let explained = absent && *version == Version::NONE;
                    if below && !(explained && may_be_absent(events, before, events[i])) {
                        violations.push(Violation {
                            invariant: "I1",
                            what: format!("{:?} came after {:?}", events[i], events[before]),
                        });
                    }
                }
                if floor.is_none_or(|floor| *version > version_of(floor)) {
                    floor = Some(i);
                }
            }
        }
    }
}

/// Whether a read that began after `floor` was answered may find the key absent: something that deletes must
/// be the floor itself, or have happened after it without having been answered before the read began.
fn may_be_absent(events: &[&Event], floor: usize, read: &Event) -> bool {
    let floor_version = match &events[floor].outcome {
        Outcome::Ok { version, .. } => *version,
        _ => Version::NONE,
    };
    let floor_is_absent = match (&events[floor].kind, &events[floor].outcome) {
        (Kind::Read, Outcome::Ok { value, .. }) => value.is_none(),
        (kind, _) => *kind == Kind::Delete,
    };
    // An absorbed put shares its version with the delete that absorbed it.
    let deletes = events
        .iter()
        .filter(|e| e.kind == Kind::Delete && e.invoked < read.returned.unwrap_or(u64::MAX));
    floor_is_absent
        || deletes.into_iter().any(|delete| match &delete.outcome {
            Outcome::Ok { version, .. } => *version >= floor_version,
            Outcome::Indeterminate => true,
            Outcome::Failed => false,
        })
}

fn check_values(events: &[&Event], violations: &mut Vec<Violation>) {
    for read in events.iter().filter(|event| event.kind == Kind::Read) {
        let Outcome::Ok {
            version,
            value: Some(value),
        } = &read.outcome
        else {
            continue;
        };
        let mut puts = events
            .iter()
            .filter(|event| event.kind == Kind::Put(value.clone()));
        let Some(put) = puts.next() else {
            if events
                .iter()
                .any(|event| matches!(event.kind, Kind::Add(_)))
            {
                continue;
            }
            let what = format!("{read:?} returned what nobody wrote");
            violations.push(Violation {
                invariant: "I5",
                what,
            });
            continue;
        };
        let explained = match &put.outcome {
            Outcome::Ok { version: own, .. } => own == version,
            Outcome::Indeterminate => true,
            Outcome::Failed => false,
        };
        let before = read.returned.is_some_and(|returned| put.invoked < returned);
        if !explained || !before {
            let what = format!("{read:?} does not fit {put:?}");
            violations.push(Violation {
                invariant: "I1",
                what,
            });
        }
    }
}

fn check_row(
    key: &Key,
    events: &[&Event],
    row: Option<&Row>,
    parked: Option<&Version>,
    violations: &mut Vec<Violation>,
) {
    let mut violated = |invariant, what| violations.push(Violation { invariant, what });
    let newest = events.iter().filter_map(|event| written(event)).max();
    let undecided = |kind: &dyn Fn(&Kind) -> bool| {
        events
            .iter()
            .any(|e| e.outcome == Outcome::Indeterminate && kind(&e.kind))
    };
    if let Some(row) = row {
        check_row_value(key, events, row, parked.is_some(), &mut violated);
    }
    if let (Some(parked), Some(newest)) = (parked, newest) {
        if *parked < newest {
            violated(
                "I11",
                format!("key '{key}': {newest} was acknowledged, {parked} is parked"),
            );
        }
        return;
    }
    let Some(newest) = newest else { return };
    let at_newest: Vec<&&Event> = events
        .iter()
        .filter(|event| written(event) == Some(newest))
        .collect();
    match row {
        Some(row) if row.version < newest => {
            violated(
                "I4",
                format!(
                    "key '{key}': {newest} was acknowledged, the row has {}",
                    row.version
                ),
            );
        }
        Some(row) if row.version == newest => {
            // A put without an answer may have absorbed the delete, and so share its version.
            let absorbed = undecided(&|kind| *kind == Kind::Put(row.value.clone()));
            if at_newest.iter().all(|event| event.kind == Kind::Delete) && !absorbed {
                violated(
                    "I6",
                    format!("key '{key}' was deleted by {newest} and has a row"),
                );
            }
        }
        Some(_) => {
            if !undecided(&|kind| *kind != Kind::Read) {
                violated(
                    "I5",
                    format!("key '{key}': the row is newer than all that was written"),
                );
            }
        }
        None => {
            let deleted = at_newest.iter().any(|event| event.kind == Kind::Delete);
            if !deleted && !undecided(&|kind| *kind == Kind::Delete) {
                violated(
                    "I4",
                    format!("key '{key}': {newest} was acknowledged, there is no row"),
                );
            }
        }
    }
}

fn check_row_value(
    key: &Key,
    events: &[&Event],
    row: &Row,
    parked: bool,
    violated: &mut impl FnMut(&'static str, String),
) {
    if events
        .iter()
        .any(|event| matches!(event.kind, Kind::Add(_)))
    {
        let sum = |done: &dyn Fn(&Outcome) -> bool| -> i64 {
            let adds = events.iter().filter(|event| done(&event.outcome));
            adds.map(|event| {
                if let Kind::Add(by) = event.kind {
                    by
                } else {
                    0
                }
            })
            .sum()
        };
        // What is parked, and whatever is newer than the row, is not in it.
        let least = sum(&|outcome| match outcome {
            Outcome::Ok { version, .. } => !parked || *version <= row.version,
            _ => false,
        });
        let most = sum(&|outcome| !matches!(outcome, Outcome::Failed));
        let number = std::str::from_utf8(&row.value)
            .ok()
            .and_then(|text| text.parse::<i64>().ok());
        if number.is_none_or(|number| number < least || number > most) {
            let what = format!("key '{key}' holds {number:?}, additions come to {least} to {most}");
            violated("I10", what);
        }
        return;
    }
    let put = events
        .iter()
        .find(|event| event.kind == Kind::Put(row.value.clone()));
    match put.map(|event| &event.outcome) {
        Some(Outcome::Ok { version, .. }) if *version == row.version => {}
        Some(Outcome::Indeterminate) => {}
        _ => violated(
            "I5",
            format!("key '{key}': its row {row:?} is not what {put:?} wrote"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(version: u64, value: Option<&'static str>) -> Outcome {
        let value = value.map(|text| Bytes::from_static(text.as_bytes()));
        Outcome::Ok {
            version: Version::from_raw(version),
            value,
        }
    }

    fn put(value: &'static str) -> Kind {
        Kind::Put(Bytes::from_static(value.as_bytes()))
    }

    /// Runs operations one after the other.
    fn sequence(operations: Vec<(Kind, Outcome)>) -> History {
        let mut history = History::default();
        for (kind, outcome) in operations {
            let place = history.begin(Key::from("k"), kind);
            history.end(place, outcome);
        }
        history
    }

    fn found(history: &History) -> Vec<&'static str> {
        history
            .check_reads()
            .iter()
            .map(|violation| violation.invariant)
            .collect()
    }

    fn found_rows(history: &History, row: Option<(u64, &'static str)>) -> Vec<&'static str> {
        let row = row.map(|(version, value)| Row {
            version: Version::from_raw(version),
            value: Bytes::from_static(value.as_bytes()),
        });
        let rows = row.map(|row| (Key::from("k"), row)).into_iter().collect();
        let violations = history.check_rows(&rows, &HashMap::new());
        violations
            .iter()
            .map(|violation| violation.invariant)
            .collect()
    }

    #[test]
    fn a_good_history_is_good() {
        let history = sequence(vec![
            (Kind::Read, ok(0, None)),
            (put("a"), ok(1, None)),
            (Kind::Read, ok(1, Some("a"))),
            (Kind::Delete, ok(2, None)),
            (Kind::Read, ok(0, None)),
            (put("b"), ok(3, None)),
        ]);
        assert_eq!(found(&history), Vec::<&str>::new());
        assert_eq!(found_rows(&history, Some((3, "b"))), Vec::<&str>::new());
    }

    #[test]
    fn a_stale_read_is_seen() {
        let history = sequence(vec![
            (put("a"), ok(1, None)),
            (put("b"), ok(2, None)),
            (Kind::Read, ok(1, Some("a"))),
        ]);
        assert_eq!(found(&history), ["I1"]);
    }

    #[test]
    fn a_read_that_forgets_an_acknowledged_write_is_seen() {
        let history = sequence(vec![(put("a"), ok(1, None)), (Kind::Read, ok(0, None))]);
        assert_eq!(found(&history), ["I1"]);
    }

    #[test]
    fn a_read_going_back_behind_another_read_is_seen() {
        let mut history = History::default();
        let pending = history.begin(Key::from("k"), put("b"));
        let first = history.begin(Key::from("k"), put("a"));
        history.end(first, ok(1, None));
        for (version, value) in [(2, "b"), (1, "a")] {
            let read = history.begin(Key::from("k"), Kind::Read);
            history.end(read, ok(version, Some(value)));
        }
        history.end(pending, ok(2, None));
        assert_eq!(found(&history), ["I1"]);
    }

    #[test]
    fn an_invented_value_and_one_of_a_failed_write_are_seen() {
        let history = sequence(vec![(Kind::Read, ok(1, Some("ghost")))]);
        assert_eq!(found(&history), ["I5"]);
        let history = sequence(vec![
            (put("a"), Outcome::Failed),
            (Kind::Read, ok(1, Some("a"))),
        ]);
        assert_eq!(found(&history), ["I1"]);
    }

    #[test]
    fn rows_lost_invented_and_resurrected_are_seen() {
        let written = sequence(vec![(put("a"), ok(1, None)), (put("b"), ok(2, None))]);
        assert_eq!(found_rows(&written, None), ["I4"]);
        assert_eq!(found_rows(&written, Some((1, "a"))), ["I4"]);
        assert_eq!(found_rows(&written, Some((2, "a"))), ["I5"]);
        assert_eq!(found_rows(&written, Some((3, "a"))), ["I5", "I5"]);
        let deleted = sequence(vec![(put("a"), ok(1, None)), (Kind::Delete, ok(2, None))]);
        assert_eq!(found_rows(&deleted, None), Vec::<&str>::new());
        assert_eq!(found_rows(&deleted, Some((1, "a"))), ["I4"]);
        assert!(found_rows(&deleted, Some((2, "a"))).contains(&"I6"));
    }

    #[test]
    fn a_lost_and_a_doubled_addition_are_seen() {
        let adds = sequence(vec![
            (Kind::Add(2), ok(1, None)),
            (Kind::Add(3), ok(2, None)),
            (Kind::Add(5), Outcome::Indeterminate),
        ]);
        assert_eq!(found_rows(&adds, Some((2, "5"))), Vec::<&str>::new());
        assert_eq!(found_rows(&adds, Some((3, "10"))), Vec::<&str>::new());
        assert_eq!(found_rows(&adds, Some((2, "3"))), ["I10"]);
        assert_eq!(found_rows(&adds, Some((3, "12"))), ["I10"]);
    }
}
