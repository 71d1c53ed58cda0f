//! What was applied to the rows of a store, and whether in the order of its versions.

use std::collections::HashMap;

use tidegate_core::port::{Batch, Outcome, RowKey, TableId};
use tidegate_core::{Key, Version};

/// The newest version of each row, and what came out of order.
#[derive(Default)]
pub(super) struct Applied {
    pub(super) tables: HashMap<String, TableId>,
    /// Whoever wrote it.
    newest: HashMap<RowKey, Version>,
    /// All that were written through the store that keeps this, oldest first.
    own: HashMap<RowKey, Vec<Version>>,
    pub(super) disorder: Vec<String>,
}

impl Applied {
    /// Notes what a batch did.
    pub(super) fn note(&mut self, batch: &Batch, outcomes: &[Outcome]) {
        for (write, outcome) in batch.writes.iter().zip(outcomes) {
            let (Outcome::Applied { version, .. } | Outcome::Added { version, .. }) = outcome
            else {
                continue;
            };
            let row = (write.table, write.key.clone());
            self.own.entry(row.clone()).or_default().push(*version);
            let before = self.newest.insert(row, *version).unwrap_or_default();
            if *version <= before {
                self.disorder.push(format!(
                    "key '{}': {version} was applied after {before}",
                    write.key
                ));
            }
        }
    }

    /// Notes that a stranger wrote a row. A row that was not there begins with version 0.
    pub(super) fn outside(&mut self, row: &RowKey, version: Version) {
        self.newest.insert(row.clone(), version);
    }

    /// The newest version of a row, no newer than `most`, that was written through this store.
    pub(super) fn newest(&self, table: &str, key: &Key, most: Version) -> Version {
        let own = self
            .tables
            .get(table)
            .and_then(|table| self.own.get(&(*table, key.clone())));
        let versions = own.into_iter().flatten().copied();
        versions
            .filter(|version| *version <= most)
            .max()
            .unwrap_or_default()
    }
}
