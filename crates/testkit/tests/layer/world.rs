//! A gate over faulty ports, for tests that step time themselves.

use std::time::Duration;

use tidegate_core::memory::MemoryStore;
use tidegate_core::port::{Batch, Guard, Store, TableSpec, Timestamp, Write};
use tidegate_core::{Change, Class, Entry, Gate, GateBuilder, Key, Version};
use tidegate_testkit::sim::{
    FaultyJournal, FaultyStore, JournalFaults, Random, SimClock, SimDisk, StoreFaults,
};

/// Everything that outlives a gate.
pub(crate) struct World {
    pub(crate) rows: MemoryStore,
    pub(crate) store: FaultyStore,
    pub(crate) disk: SimDisk,
    pub(crate) random: Random,
}

impl World {
    pub(crate) fn new() -> Self {
        let (rows, random) = (MemoryStore::new(), Random::new(1));
        let faults = StoreFaults::none(Duration::from_millis(1));
        let store = FaultyStore::new(rows.clone(), faults, random.clone());
        Self {
            rows,
            store,
            disk: SimDisk::default(),
            random,
        }
    }

    pub(crate) fn builder(&self) -> GateBuilder {
        self.builder_with(JournalFaults {
            sync_max: Duration::from_millis(1),
            fail: 0.0,
            full: 0.0,
            answers_early: false,
        })
    }

    pub(crate) fn builder_with(&self, journal: JournalFaults) -> GateBuilder {
        Gate::builder()
            .clock(SimClock::new(0, self.random.clone()))
            .store(self.store.clone())
            .journal(FaultyJournal::new(
                self.disk.clone(),
                journal,
                self.random.clone(),
            ))
    }

    pub(crate) async fn gate(&self, classes: impl IntoIterator<Item = Class>) -> Gate {
        self.builder().classes(classes).open().await.unwrap()
    }

    /// The store fails every call, or is well again.
    pub(crate) fn set_down(&self, down: bool) {
        let mut faults = StoreFaults::none(Duration::from_millis(1));
        faults.unavailable = if down { 1.0 } else { 0.0 };
        self.store.set_faults(faults);
    }

    pub(crate) fn row(&self, table: &str, key: &str) -> Option<Entry> {
        self.rows.row(table, &Key::from(key))
    }

    pub(crate) fn value(&self, table: &str, key: &str) -> Option<String> {
        let entry = self.row(table, key)?;
        Some(String::from_utf8(entry.value.to_vec()).unwrap())
    }

    /// Writes a row of this version past the gate.
    pub(crate) async fn write_outside_as(&self, table: &str, key: &str, value: &str, version: u64) {
        let table = self
            .rows
            .open_table(&TableSpec::named(table))
            .await
            .unwrap();
        let change = Change::Put {
            value: value.to_owned().into(),
            expires_at: None,
        };
        let guard = Guard::IfNewer(Version::from_raw(version));
        let write = Write {
            table,
            key: Key::from(key),
            change,
            guard,
        };
        let batch = Batch::new(vec![write], Timestamp::from_millis(1));
        self.rows.apply(&batch).await.unwrap();
    }

    /// Deletes past the gate, as SQL does: nothing is remembered of the row.
    pub(crate) async fn delete_outside(&self, table: &str, key: &str) {
        let table = self
            .rows
            .open_table(&TableSpec::named(table))
            .await
            .unwrap();
        let write = Write {
            table,
            key: Key::from(key),
            change: Change::Delete,
            guard: Guard::Always,
        };
        let batch = Batch::new(vec![write], Timestamp::from_millis(1));
        self.rows.apply(&batch).await.unwrap();
        let (later, none) = (Timestamp::from_millis(2), Duration::ZERO);
        self.rows.sweep(table, later, none, 1_000).await.unwrap();
    }

    /// Writes past the gate.
    pub(crate) async fn write_outside(&self, table: &str, key: &str, value: &str) {
        let table = self
            .rows
            .open_table(&TableSpec::named(table))
            .await
            .unwrap();
        let change = Change::Put {
            value: value.to_owned().into(),
            expires_at: None,
        };
        let write = Write {
            table,
            key: Key::from(key),
            change,
            guard: Guard::Always,
        };
        let batch = Batch::new(vec![write], Timestamp::from_millis(1));
        self.rows.apply(&batch).await.unwrap();
    }
}

/// Lets virtual time pass.
#[expect(clippy::disallowed_methods, reason = "time is paused in these tests")]
pub(crate) async fn pass(duration: Duration) {
    tokio::time::sleep(duration).await;
}

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) async fn text(gate: &Gate, key: &str) -> Option<String> {
    let value = gate.get(key).await.unwrap()?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}
