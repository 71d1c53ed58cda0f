//! What is known of each key: what it surely is, and what it may be because an answer did not come.

use std::collections::BTreeMap;
use std::fmt;

/// Values that begin so are refused by the store in keys that begin with `strict:`.
pub(crate) const BAD: &str = "bad";

/// A key that is put and deleted by one writer alone.
#[derive(Clone, Default, Debug)]
struct Value {
    /// By the last answer; nothing if it was deleted.
    sure: Option<String>,
    /// Asked for and not answered.
    maybe: Option<Option<String>>,
}

/// A key that is only added to.
#[derive(Clone, Copy, Default, Debug)]
struct Count {
    sure: i64,
    /// The most that may come on top, of additions that were not answered.
    maybe: i64,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct Ledger {
    values: BTreeMap<String, Value>,
    counts: BTreeMap<String, Count>,
    acknowledged: u64,
    refused: u64,
}

impl Ledger {
    /// What a writer learned; values are those of its own keys, counts what it added.
    pub(crate) fn merge(&mut self, other: Self) {
        self.values.extend(other.values);
        for (key, count) in other.counts {
            let known = self.counts.entry(key).or_default();
            known.sure += count.sure;
            known.maybe += count.maybe;
        }
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
    }

    /// What one writer starts with: its own values, and no counts, which are added up afterwards.
    pub(crate) fn begin(&mut self, writer: usize) {
        let own = [format!("session:{writer}:"), format!("strict:{writer}:")];
        self.values
            .retain(|key, _| own.iter().any(|own| key.starts_with(own)));
        *self = Self {
            values: std::mem::take(&mut self.values),
            ..Self::default()
        };
    }

    pub(crate) fn ask(&mut self, key: &str, value: Option<String>) {
        self.values.entry(key.to_owned()).or_default().maybe = Some(value);
    }

    pub(crate) fn answered(&mut self, key: &str) {
        let known = self.values.entry(key.to_owned()).or_default();
        if let Some(value) = known.maybe.take() {
            self.refused += u64::from(value.as_ref().is_some_and(|value| value.starts_with(BAD)));
            known.sure = value;
        }
        self.acknowledged += 1;
    }

    pub(crate) fn ask_to_add(&mut self, key: &str) {
        self.counts.entry(key.to_owned()).or_default().maybe += 1;
    }

    pub(crate) fn added(&mut self, key: &str) {
        let known = self.counts.entry(key.to_owned()).or_default();
        known.maybe -= 1;
        known.sure += 1;
        self.acknowledged += 1;
    }

    pub(crate) fn added_from_outside(&mut self, key: &str, by: i64) {
        self.counts.entry(key.to_owned()).or_default().sure += by;
    }

    pub(crate) fn value_keys(&self) -> Vec<String> {
        self.values.keys().cloned().collect()
    }

    pub(crate) fn count_keys(&self) -> Vec<String> {
        self.counts.keys().cloned().collect()
    }

    /// Holds what is read after a start against what is known; from then on it is sure.
    pub(crate) fn settle(&mut self, key: &str, read: Option<String>) -> Result<(), String> {
        if let Some(known) = self.values.get_mut(key) {
            if read != known.sure && Some(&read) != known.maybe.as_ref() {
                return Err(format!("{key} reads as {read:?}, known is {known:?}"));
            }
            *known = Value {
                sure: read,
                maybe: None,
            };
        } else if let Some(known) = self.counts.get_mut(key) {
            let read: i64 = read.map_or(0, |text| text.parse().unwrap());
            if !(known.sure..=known.sure + known.maybe).contains(&read) {
                return Err(format!("{key} counts {read}, known is {known:?}"));
            }
            *known = Count {
                sure: read,
                maybe: 0,
            };
        }
        Ok(())
    }

    /// The keys whose newest write the store refuses, in order.
    pub(crate) fn refused(&self) -> Vec<String> {
        let is_bad = |value: &Value| {
            value
                .sure
                .as_ref()
                .is_some_and(|value| value.starts_with(BAD))
        };
        self.values
            .iter()
            .filter(|(_, value)| is_bad(value))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Holds a row after a drain against what is sure.
    pub(crate) fn check_row(&self, key: &str, row: Option<String>, told: &str) {
        if let Some(known) = self.values.get(key) {
            let is_bad = known
                .sure
                .as_ref()
                .is_some_and(|value| value.starts_with(BAD));
            if is_bad {
                assert!(
                    !row.is_some_and(|row| row.starts_with(BAD)),
                    "{told}: {key}"
                );
            } else {
                assert_eq!(row, known.sure, "{told}: the row of {key}");
            }
        } else if let Some(known) = self.counts.get(key) {
            let row: i64 = row.map_or(0, |text| text.parse().unwrap());
            assert_eq!(row, known.sure, "{told}: the row of {key}");
        }
    }

    /// A loop that did next to nothing proves nothing.
    pub(crate) fn expect_work(&self, rounds: u64) {
        assert!(self.acknowledged > rounds * 20, "{self}");
        assert!(self.refused > rounds, "{self}");
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} writes acknowledged, {} of them refused by the store",
            self.acknowledged, self.refused
        )
    }
}
