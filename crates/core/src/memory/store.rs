//! A store in memory: rows in ordered maps behind one lock, which makes every call a transaction.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::delta::sum;
use crate::entry::{Change, Entry};
use crate::key::Key;
use crate::port::{
    Batch, BoxFuture, Capabilities, Guard, Known, ManyNodes, Outcome, Resolution, RowKey, Store,
    StoreError, Swept, TableId, TableSpec, Ticket, Timestamp, Write,
};
use crate::version::{GENERATION_MAX, Version};

use super::many_nodes::Shared;

/// A store that forgets everything with the process.
///
/// A clone is a new connection to the same rows, open also when the one it came from is closed: a test keeps
/// one while the layer is thrown away and built anew.
#[derive(Default)]
pub struct MemoryStore {
    pub(super) rows: Arc<Mutex<Database>>,
    closed: AtomicBool,
}

impl Clone for MemoryStore {
    fn clone(&self) -> Self {
        Self {
            rows: Arc::clone(&self.rows),
            closed: AtomicBool::new(false),
        }
    }
}

#[derive(Default)]
#[cfg_attr(feature = "mutation", derive(Clone))]
pub(super) struct Database {
    generation: u64,
    /// The last version issued.
    issued: Version,
    /// The layer's time as it was last told.
    pub(super) told: Timestamp,
    pub(super) tables: Vec<Table>,
    pub(super) shared: Shared,
}

#[cfg_attr(feature = "mutation", derive(Clone))]
pub(super) struct Table {
    pub(super) spec: TableSpec,
    rows: BTreeMap<Key, Entry>,
    /// Versions of deleted keys, and when they were deleted.
    deleted: HashMap<Key, (Version, Timestamp)>,
    /// Marks of writes that apply once, by their own keys, and when they were set.
    once: HashMap<Key, (Version, Timestamp)>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A store of its own with the same rows.
    #[cfg(feature = "mutation")]
    #[must_use]
    pub(crate) fn fork(&self) -> Self {
        let rows = self.lock().clone();
        Self {
            rows: Arc::new(Mutex::new(rows)),
            closed: AtomicBool::new(false),
        }
    }

    /// The newest version known of `key`: of its row, or remembered of its deletion.
    #[cfg(feature = "mutation")]
    pub(crate) fn known(&self, table: &str, key: &Key) -> Version {
        let database = self.lock();
        let Some(table) = database.tables.iter().find(|t| t.spec.name == table) else {
            return Version::NONE;
        };
        let row = table.rows.get(key).map(|row| row.version);
        let deleted = table.deleted.get(key).map(|deleted| deleted.0);
        row.max(deleted).unwrap_or(Version::NONE)
    }

    /// The row of `key` in the table of this name, expired or not. For tests.
    #[must_use]
    pub fn row(&self, table: &str, key: &Key) -> Option<Entry> {
        let database = self.lock();
        database
            .tables
            .iter()
            .find(|t| t.spec.name == table)?
            .rows
            .get(key)
            .cloned()
    }

    /// How many marks of writes that apply once a table keeps. For tests.
    #[must_use]
    pub fn marks(&self, table: &str) -> usize {
        let database = self.lock();
        let table = database.tables.iter().find(|t| t.spec.name == table);
        table.map_or(0, |table| table.once.len())
    }

    /// What a stranger does to the row of `key` behind the layer's back, in plain SQL: writes this value, or
    /// with nothing removes the row. As in a table that carries the trigger an update raises the version to
    /// the next odd one; a row that was not there is not numbered ([`Version::of_row`]), and nothing is
    /// remembered of one that goes. In a table with an outbox every change raises the version, a deletion is
    /// remembered, and the change can be read ([`ManyNodes::outside_changes`]). For tests; a table that is not
    /// open is left alone.
    pub fn outside(&self, table: &str, key: &Key, value: Option<&[u8]>) {
        let mut database = self.lock();
        let at = database.told;
        let Some(id) = database.tables.iter().position(|t| t.spec.name == table) else {
            return;
        };
        let table = &database.tables[id];
        let outbox = table.spec.outbox;
        let deleted = table.deleted.get(key).map(|deleted| deleted.0);
        let row = table.rows.get(key).cloned();
        let version = match &row {
            Some(row) => row.version.raised_outside(),
            None if value.is_none() => return,
            // Odd, as all that others make, and greater than all that was.
            None if outbox => match database.issue(deleted.unwrap_or(Version::NONE)) {
                Ok(issued) => Version::from_raw(issued.raw() | 1),
                Err(_) => return,
            },
            None => Version::of_row(0),
        };
        let table = &mut database.tables[id];
        if let Some(value) = value {
            let entry = Entry {
                value: Bytes::copy_from_slice(value),
                expires_at: row.and_then(|row| row.expires_at),
                version,
            };
            table.rows.insert(key.clone(), entry);
        } else {
            table.rows.remove(key);
            if outbox {
                table.deleted.insert(key.clone(), (version, at));
            }
        }
        if outbox {
            database.shared.changed(id, Some(key.clone()), version);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Database> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self) -> Result<MutexGuard<'_, Database>, StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::unavailable("the store is closed"));
        }
        Ok(self.lock())
    }
}

impl Table {
    /// Removes all rows, remembering their versions where changes of others are kept.
    pub(super) fn forget_rows(&mut self, at: Timestamp) {
        for (key, row) in std::mem::take(&mut self.rows) {
            if self.spec.outbox {
                let version = row.version.raised_outside();
                self.deleted.insert(key, (version, at));
            }
        }
    }
}

impl Database {
    /// A version greater than every one issued before and than `known`, which may have come with a guard.
    fn issue(&mut self, known: Version) -> Result<Version, StoreError> {
        let floor = Version::compose(self.generation, 0);
        self.issued = Version::from_raw(self.issued.max(floor).raw() + 1);
        let version = self.issued.raw().max(known.raw().saturating_add(1));
        i64::try_from(version)
            .map(|_| Version::from_raw(version))
            .map_err(|_| StoreError::refused(None, "no version is left for this key"))
    }

    fn table(&mut self, id: TableId) -> Result<&mut Table, StoreError> {
        self.tables
            .get_mut(usize::from(id.0))
            .ok_or_else(|| StoreError::configuration(format_args!("no table has the id {}", id.0)))
    }

    /// What is to become of a write; nothing is changed but the counter of versions.
    fn decide(&mut self, write: &Write, now: Timestamp) -> Result<Outcome, StoreError> {
        let table = self.table(write.table)?;
        let row = table.rows.get(&write.key);
        let live = row.filter(|row| !row.is_expired(now)).cloned();
        let deleted = table.deleted.get(&write.key).map(|d| d.0);
        let once = write.guard.once_key(&write.key);
        let once = once.and_then(|key| table.once.get(&key)).map(|mark| mark.0);
        let known = Known {
            live: live.as_ref().map(|row| row.version),
            newest: row
                .map(|row| row.version)
                .max(deleted)
                .unwrap_or(Version::NONE),
            once: once.unwrap_or(Version::NONE),
        };
        let admitted = match write.guard.admit(known) {
            Err(outcome) => return Ok(outcome),
            Ok(admitted) => admitted,
        };
        let brought = write.guard.version().max(admitted);
        if brought.is_some_and(|brought| i64::try_from(brought.raw()).is_err()) {
            return Err(StoreError::refused(None, "the version is out of range"));
        }
        let version = match admitted {
            Some(version) => version,
            None => self.issue(known.newest)?,
        };
        let existed = live.is_some();
        let Change::Add { by } = write.change else {
            return Ok(Outcome::Applied { version, existed });
        };
        let present = live.as_ref().map(|row| &*row.value);
        Ok(Outcome::Added {
            version,
            existed,
            value: sum(present, by).map_err(|e| StoreError::refused(None, e))?,
            expires_at: live.and_then(|row| row.expires_at),
        })
    }

    fn write(&mut self, write: &Write, outcome: Outcome, now: Timestamp) -> Result<(), StoreError> {
        let table = self.table(write.table)?;
        let (version, added) = match outcome {
            Outcome::Applied { version, .. } => (version, None),
            Outcome::Added {
                version,
                value,
                expires_at,
                ..
            } => (version, Some((Bytes::from(value.to_string()), expires_at))),
            Outcome::Superseded | Outcome::Conflict { .. } | Outcome::Changed => return Ok(()),
        };
        if let Some(mark) = write.guard.once_key(&write.key) {
            let brought = write.guard.version().unwrap_or(version);
            table.once.insert(mark, (brought, now));
        }
        let put = match &write.change {
            Change::Put { value, expires_at } => Some((value.clone(), *expires_at)),
            Change::Add { .. } | Change::Delete => added,
        };
        if let Some((value, expires_at)) = put {
            let entry = Entry {
                value,
                expires_at,
                version,
            };
            table.rows.insert(write.key.clone(), entry);
            return Ok(());
        }
        // A delete that changed nothing is remembered only where it is guarded or moves on what is remembered
        // already: deletes of keys that never were must not fill the store.
        let removed = table.rows.remove(&write.key).is_some();
        let remembered = table.deleted.contains_key(&write.key);
        if removed || remembered || write.guard != Guard::Always {
            table.deleted.insert(write.key.clone(), (version, now));
        }
        Ok(())
    }

    /// Applies a batch of which it was decided already that it comes in time.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<Vec<Outcome>, StoreError> {
        self.told = self.told.max(batch.now);
        let mut outcomes = Vec::with_capacity(batch.writes.len());
        for (item, write) in batch.writes.iter().enumerate() {
            outcomes.push(
                self.decide(write, batch.now)
                    .map_err(|e| at_item(item, e))?,
            );
        }
        for (write, outcome) in batch.writes.iter().zip(&outcomes) {
            self.write(write, *outcome, batch.now)?;
        }
        Ok(outcomes)
    }
}

fn at_item(item: usize, error: StoreError) -> StoreError {
    match error {
        StoreError::Refused { message, code, .. } => StoreError::Refused {
            item: Some(item),
            code,
            message,
        },
        other => StoreError::refused_item(item, other),
    }
}

pub(super) fn ready<'a, T: Send + 'a>(answer: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(answer))
}

impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            lanes: 4,
            batch_max: 1000,
            durable: false,
        }
    }

    fn open_table<'a>(&'a self, spec: &'a TableSpec) -> BoxFuture<'a, Result<TableId, StoreError>> {
        ready(self.open().and_then(|mut database| {
            let found = database
                .tables
                .iter()
                .position(|t| t.spec.name == spec.name);
            let index = match found {
                Some(index) if database.tables[index].spec.columns != spec.columns => {
                    return Err(StoreError::configuration(format_args!(
                        "table {} is already open with other columns",
                        spec.name
                    )));
                }
                Some(index) => index,
                None => {
                    database.tables.push(Table {
                        spec: spec.clone(),
                        rows: BTreeMap::new(),
                        deleted: HashMap::new(),
                        once: HashMap::new(),
                    });
                    database.tables.len() - 1
                }
            };
            u16::try_from(index)
                .map(TableId)
                .map_err(|_| StoreError::configuration("more than 65536 tables"))
        }))
    }

    fn open_generation(&self, at_least: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        ready(self.open().and_then(|mut database| {
            let generation = (database.generation + 1).max(at_least);
            if generation > GENERATION_MAX {
                return Err(StoreError::configuration(format_args!(
                    "generation {generation} is asked for and {GENERATION_MAX} is the last there is"
                )));
            }
            database.generation = generation;
            Ok(generation)
        }))
    }

    fn load<'a>(
        &'a self,
        keys: &'a [RowKey],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Option<Entry>>, StoreError>> {
        ready(self.open().and_then(|mut database| {
            let read = |(table, key): &RowKey| {
                let row = database.table(*table)?.rows.get(key);
                Ok(row.filter(|row| !row.is_expired(now)).cloned())
            };
            keys.iter().map(read).collect()
        }))
    }

    fn apply<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Vec<Outcome>, StoreError>> {
        ready(self.open().and_then(|mut database| {
            database.shared.number();
            database.shared.in_time(batch.commit_by)?;
            database.commit(batch)
        }))
    }

    fn resolve(&self, _: Ticket) -> BoxFuture<'_, Result<Resolution, StoreError>> {
        ready(Ok(Resolution::Forgotten))
    }

    fn scan<'a>(
        &'a self,
        table: TableId,
        after: Option<&'a Key>,
        limit: usize,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<(Key, Entry)>, StoreError>> {
        ready(self.open().and_then(|mut database| {
            let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone()));
            let rows = database.table(table)?.rows.range((from, Bound::Unbounded));
            let live = rows.filter(|(_, row)| !row.is_expired(now));
            Ok(live
                .take(limit)
                .map(|(key, row)| (key.clone(), row.clone()))
                .collect())
        }))
    }

    fn count(&self, table: TableId, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        ready(self.open().and_then(|mut database| {
            let rows = database.table(table)?.rows.values();
            Ok(rows.filter(|row| !row.is_expired(now)).count() as u64)
        }))
    }

    fn sweep(
        &self,
        table: TableId,
        now: Timestamp,
        remember: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Swept, StoreError>> {
        ready(self.open().and_then(|mut database| {
            let table = database.table(table)?;
            let dead = table.rows.iter().filter(|(_, row)| row.is_expired(now));
            let dead: Vec<_> = dead
                .take(limit)
                .map(|(k, row)| (k.clone(), row.version))
                .collect();
            for (key, version) in &dead {
                table.rows.remove(key);
                table.deleted.insert(key.clone(), (*version, now));
            }
            let forget = |marks: &mut HashMap<Key, (Version, Timestamp)>| {
                let old = marks.iter();
                let old = old.filter(|(_, (_, at))| now.since(*at) > remember);
                let old: Vec<_> = old.take(limit).map(|(key, _)| key.clone()).collect();
                for key in &old {
                    marks.remove(key);
                }
                old.len() as u64
            };
            let swept = Swept {
                expired: dead.len() as u64,
                forgotten: forget(&mut table.deleted) + forget(&mut table.once),
            };
            database.shared.sweep();
            Ok(swept)
        }))
    }

    fn many_nodes(&self) -> Option<&dyn ManyNodes> {
        Some(self)
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(self.open().map(drop))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.closed.store(true, Ordering::Release);
        ready(())
    }
}
