//! The short way to a store: a database that can read, write and list rows becomes a [`Store`] by
//! [`RowStore`], which brings the rest: guards, versions, generations, the memory of deleted keys, expiry and
//! sweeping.
//!
//! Meant for embedded ordered databases, files and services behind a blocking client. One [`RowStore`] in one
//! process owns the database: a batch reads rows, decides, and writes them under one lock. A database that
//! several processes write to needs a [`Store`] of its own, which decides inside a transaction.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::{
    Batch, BoxFuture, Capabilities, Guard, Known, Outcome, Resolution, RowKey, Store, StoreError,
    Swept, TableId, TableSpec, Ticket, Timestamp, Write,
};
use crate::delta::sum;
use crate::entry::{Change, Entry};
use crate::key::Key;
use crate::version::{GENERATION_MAX, Version};

/// A row as the database keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Row {
    /// What the key holds. It may have expired: that is not the database's concern.
    Present(Entry),
    /// The key was deleted: its version is remembered for a while, so that a late write cannot bring it back.
    Deleted {
        /// The version of the delete.
        version: Version,
        /// When it was deleted.
        at: Timestamp,
    },
}

impl Row {
    fn version(&self) -> Version {
        match self {
            Self::Present(entry) => numbered(entry.version),
            Self::Deleted { version, .. } => *version,
        }
    }

    fn live(self, now: Timestamp) -> Option<Entry> {
        match self {
            Self::Present(mut entry) => {
                entry.version = numbered(entry.version);
                Some(entry).filter(|entry| !entry.is_expired(now))
            }
            Self::Deleted { .. } => None,
        }
    }
}

/// The version of a row, also of one that others made without a number.
fn numbered(version: Version) -> Version {
    version.max(Version::of_row(0))
}

/// One row to be written, or (with nothing) removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowChange {
    /// The table.
    pub table: Arc<str>,
    /// The key.
    pub key: Key,
    /// What to keep under it.
    pub row: Option<Row>,
}

/// A database that keeps rows, by table and key. Calls may block; they come one at a time, on a thread that
/// may wait.
pub trait Rows: Send + 'static {
    /// The row of `key`, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it cannot be read now.
    fn get(&mut self, table: &str, key: &Key) -> Result<Option<Row>, StoreError>;

    /// Writes rows, all of them or none; on return they are as durable as this database makes them, and seen
    /// by every later call. A table comes into being with its first row. No key stands in `changes` twice.
    ///
    /// # Errors
    /// [`StoreError::Refused`] and [`StoreError::Unavailable`] if nothing was written;
    /// [`StoreError::Unknown`] if that is not certain.
    fn put(&mut self, changes: Vec<RowChange>) -> Result<(), StoreError>;

    /// The rows of a table with a key greater than `after`, in the order of key bytes, at most `limit`, the
    /// deleted and the expired ones too. Fewer than `limit` means the end was reached.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if they cannot be read now.
    fn list(
        &mut self,
        table: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Row)>, StoreError>;

    /// Lets go of the database; nothing is called after it. The default body does nothing.
    fn close(&mut self) {}
}

/// A [`Store`] over [`Rows`]. Beside the tables of classes it keeps one row in the table `tidegate_meta`; names
/// that begin with `tidegate_` are its own.
///
/// Counting and sweeping read the whole table in pages: right for a database that is as fast as memory or
/// small.
pub struct RowStore<R> {
    name: &'static str,
    capabilities: Capabilities,
    state: Arc<Mutex<State<R>>>,
    closed: AtomicBool,
}

struct State<R> {
    rows: R,
    tables: Vec<(TableSpec, Arc<str>)>,
    /// The last version issued; its generation is the open one.
    issued: Version,
}

const META: &str = "tidegate_meta";
const GENERATION: &str = "generation";
const PAGE: usize = 1000;

impl<R: Rows> RowStore<R> {
    /// A store called `name` over `rows`. `durable` tells whether rows survive the end of the process.
    pub fn new(name: &'static str, durable: bool, rows: R) -> Self {
        let state = State {
            rows,
            tables: Vec::new(),
            issued: Version::NONE,
        };
        Self {
            name,
            capabilities: Capabilities {
                lanes: 1,
                batch_max: PAGE,
                durable,
            },
            state: Arc::new(Mutex::new(state)),
            closed: AtomicBool::new(false),
        }
    }

    /// Runs `work` on a thread that may wait. Dropping the future does not stop it.
    fn run<'a, T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State<R>) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        if self.closed.load(Ordering::Acquire) {
            let closed = StoreError::unavailable("the store is closed");
            return Box::pin(std::future::ready(Err(closed)));
        }
        let state = Arc::clone(&self.state);
        Box::pin(async move {
            let task = tokio::task::spawn_blocking(move || {
                work(&mut state.lock().unwrap_or_else(PoisonError::into_inner))
            });
            let broken =
                |_| StoreError::unknown(None, "the database's code panicked or was cut off");
            task.await.map_err(broken)?
        })
    }
}

impl<R: Rows> State<R> {
    fn table(&self, id: TableId) -> Result<Arc<str>, StoreError> {
        let table = self.tables.get(usize::from(id.0));
        table
            .map(|(_, name)| Arc::clone(name))
            .ok_or_else(|| StoreError::configuration(format_args!("no table has the id {}", id.0)))
    }

    fn open(&mut self, spec: TableSpec) -> Result<TableId, StoreError> {
        let name = &spec.name;
        if name.is_empty() || name.contains('\0') || name.starts_with("tidegate_") {
            return Err(StoreError::configuration(format_args!(
                "'{}' cannot be the name of a table",
                name.escape_debug()
            )));
        }
        if !spec.create && self.rows.list(name, None, 1)?.is_empty() {
            return Err(StoreError::configuration(format_args!(
                "table {name} does not exist"
            )));
        }
        if spec.outbox {
            return Err(StoreError::configuration(format_args!(
                "table {name}: this store does not know what others change, so there is no outbox"
            )));
        }
        let found = self.tables.iter().position(|(t, _)| t.name == spec.name);
        let index = match found {
            Some(index) if self.tables[index].0.columns != spec.columns => {
                return Err(StoreError::configuration(format_args!(
                    "table {} is already open with other columns",
                    spec.name
                )));
            }
            Some(index) => index,
            None => {
                let name = Arc::from(spec.name.as_str());
                self.tables.push((spec, name));
                self.tables.len() - 1
            }
        };
        u16::try_from(index)
            .map(TableId)
            .map_err(|_| StoreError::configuration("more than 65536 tables"))
    }

    fn open_generation(&mut self, at_least: u64) -> Result<u64, StoreError> {
        let last = self.rows.get(META, &Key::from(GENERATION))?;
        let last = last.map_or(0, |row| row.version().generation());
        let generation = at_least.max(last + 1);
        if generation > GENERATION_MAX {
            return Err(StoreError::configuration(format_args!(
                "generation {generation} is asked for and {GENERATION_MAX} is the last there is"
            )));
        }
        let version = Version::compose(generation, 0);
        let entry = Entry {
            value: Bytes::new(),
            expires_at: None,
            version,
        };
        self.rows.put(vec![RowChange {
            table: META.into(),
            key: Key::from(GENERATION),
            row: Some(Row::Present(entry)),
        }])?;
        self.issued = self.issued.max(version);
        Ok(generation)
    }

    /// A version greater than every one issued before and than `known`, which may have come with a guard.
    fn issue(&mut self, known: Version) -> Result<Version, StoreError> {
        self.issued = Version::from_raw(self.issued.raw() + 1);
        in_range(
            self.issued
                .max(Version::from_raw(known.raw().saturating_add(1))),
        )
    }

    fn apply(&mut self, batch: &Batch) -> Result<Vec<Outcome>, StoreError> {
        if batch.commit_by.is_some() {
            return Err(StoreError::configuration(
                "this store is for one node only and takes no limit of time for a commit",
            ));
        }
        let mut changes = Vec::with_capacity(batch.writes.len());
        let mut outcomes = Vec::with_capacity(batch.writes.len());
        for (item, write) in batch.writes.iter().enumerate() {
            let at = |error| match error {
                StoreError::Refused { message, .. } | StoreError::Configuration { message } => {
                    StoreError::refused_item(item, message)
                }
                other => other,
            };
            let (outcome, change) = self.decide(write, batch.now).map_err(at)?;
            outcomes.push(outcome);
            changes.extend(change);
        }
        if !changes.is_empty() {
            self.rows.put(changes)?;
        }
        Ok(outcomes)
    }

    fn decide(
        &mut self,
        write: &Write,
        now: Timestamp,
    ) -> Result<(Outcome, Vec<RowChange>), StoreError> {
        let table = self.table(write.table)?;
        let row = self.rows.get(&table, &write.key)?;
        let newest = row.as_ref().map_or(Version::NONE, Row::version);
        let empty = row.is_none();
        let live = row.and_then(|row| row.live(now));
        let mark = write.guard.once_key(&write.key);
        let once = match &mark {
            Some(mark) => self.rows.get(&marks(&table), mark)?,
            None => None,
        };
        let known = Known {
            live: live.as_ref().map(|entry| entry.version),
            newest,
            once: once.as_ref().map_or(Version::NONE, Row::version),
        };
        let admitted = match write.guard.admit(known) {
            Err(outcome) => return Ok((outcome, Vec::new())),
            Ok(admitted) => admitted,
        };
        let brought = in_range(write.guard.version().unwrap_or(Version::NONE))?;
        let version = match admitted {
            Some(version) => in_range(version)?,
            None => self.issue(newest)?,
        };
        let existed = live.is_some();
        let (outcome, row) = match &write.change {
            Change::Add { by } => {
                let present = live.as_ref().map(|entry| &*entry.value);
                let value = sum(present, *by).map_err(|e| StoreError::refused(None, e))?;
                let expires_at = live.and_then(|entry| entry.expires_at);
                let entry = Entry {
                    value: Bytes::from(value.to_string()),
                    expires_at,
                    version,
                };
                let added = Outcome::Added {
                    version,
                    existed,
                    value,
                    expires_at,
                };
                (added, Row::Present(entry))
            }
            change => {
                let row = match change.to_entry(version) {
                    Some(entry) => Row::Present(entry),
                    None => Row::Deleted { version, at: now },
                };
                (Outcome::Applied { version, existed }, row)
            }
        };
        let mut changes = Vec::new();
        if let Some(key) = mark {
            let (table, version) = (marks(&table), brought);
            let row = Some(Row::Deleted { version, at: now });
            changes.push(RowChange { table, key, row });
        }
        // Deletes of keys that never were must not fill the database, unless a late write is to be expected.
        let forgettable = empty && write.change == Change::Delete && write.guard == Guard::Always;
        if !forgettable {
            let (key, row) = (write.key.clone(), Some(row));
            changes.push(RowChange { table, key, row });
        }
        Ok((outcome, changes))
    }

    /// Hands every row of a table after `after` to `visit`, until that says stop.
    fn each(
        &mut self,
        table: &str,
        after: Option<Key>,
        mut visit: impl FnMut(Key, Row) -> bool,
    ) -> Result<(), StoreError> {
        let mut after = after;
        loop {
            let page = self.rows.list(table, after.as_ref(), PAGE)?;
            let last = page.last().map(|(key, _)| key.clone());
            let full = page.len() >= PAGE;
            for (key, row) in page {
                if !visit(key, row) {
                    return Ok(());
                }
            }
            if !full {
                return Ok(());
            }
            after = last;
        }
    }

    fn sweep(
        &mut self,
        table: &Arc<str>,
        now: Timestamp,
        remember: Duration,
        limit: usize,
    ) -> Result<Swept, StoreError> {
        let (mut expired, mut old) = (Vec::new(), Vec::new());
        self.each(table, None, |key, row| {
            match row {
                Row::Present(entry) if entry.is_expired(now) && expired.len() < limit => {
                    let version = entry.version;
                    expired.push((key, Some(Row::Deleted { version, at: now })));
                }
                Row::Deleted { at, .. } if now.since(at) > remember && old.len() < limit => {
                    old.push((key, None));
                }
                Row::Present(_) | Row::Deleted { .. } => {}
            }
            expired.len() < limit || old.len() < limit
        })?;
        let (of_marks, mut old_marks) = (marks(table), Vec::new());
        self.each(&of_marks, None, |key, row| {
            if matches!(row, Row::Deleted { at, .. } if now.since(at) > remember) {
                old_marks.push(key);
            }
            old_marks.len() < limit
        })?;
        let swept = Swept {
            expired: expired.len() as u64,
            forgotten: (old.len() + old_marks.len()) as u64,
        };
        let change = |(key, row)| RowChange {
            table: Arc::clone(table),
            key,
            row,
        };
        let mut changes: Vec<_> = expired.into_iter().chain(old).map(change).collect();
        changes.extend(old_marks.into_iter().map(|key| RowChange {
            table: Arc::clone(&of_marks),
            key,
            row: None,
        }));
        if !changes.is_empty() {
            self.rows.put(changes)?;
        }
        Ok(swept)
    }
}

/// Where the marks of writes that apply once are kept, each as the version of a deleted key.
fn marks(table: &str) -> Arc<str> {
    format!("tidegate_once:{table}").into()
}

/// Databases count in signed integers.
fn in_range(version: Version) -> Result<Version, StoreError> {
    match i64::try_from(version.raw()) {
        Ok(_) => Ok(version),
        Err(_) => Err(StoreError::refused(None, "no version is left for this key")),
    }
}

impl<R: Rows> Store for RowStore<R> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn open_table<'a>(&'a self, spec: &'a TableSpec) -> BoxFuture<'a, Result<TableId, StoreError>> {
        let spec = spec.clone();
        self.run(|state| state.open(spec))
    }

    fn open_generation(&self, at_least: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.run(move |state| state.open_generation(at_least))
    }

    fn load<'a>(
        &'a self,
        keys: &'a [RowKey],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Option<Entry>>, StoreError>> {
        let keys = keys.to_vec();
        self.run(move |state| {
            let mut answer = Vec::with_capacity(keys.len());
            for (table, key) in &keys {
                let table = state.table(*table)?;
                let row = state.rows.get(&table, key)?;
                answer.push(row.and_then(|row| row.live(now)));
            }
            Ok(answer)
        })
    }

    fn apply<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Vec<Outcome>, StoreError>> {
        let batch = batch.clone();
        self.run(move |state| state.apply(&batch))
    }

    fn resolve(&self, _: Ticket) -> BoxFuture<'_, Result<Resolution, StoreError>> {
        // Calls come one at a time: whoever asks finds the writer gone.
        Box::pin(std::future::ready(Ok(Resolution::Forgotten)))
    }

    fn scan<'a>(
        &'a self,
        table: TableId,
        after: Option<&'a Key>,
        limit: usize,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<(Key, Entry)>, StoreError>> {
        let after = after.cloned();
        self.run(move |state| {
            let table = state.table(table)?;
            let mut found = Vec::new();
            if limit > 0 {
                state.each(&table, after, |key, row| {
                    found.extend(row.live(now).map(|entry| (key, entry)));
                    found.len() < limit
                })?;
            }
            Ok(found)
        })
    }

    fn count(&self, table: TableId, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.run(move |state| {
            let table = state.table(table)?;
            let mut count = 0;
            state.each(&table, None, |_, row| {
                count += u64::from(row.live(now).is_some());
                true
            })?;
            Ok(count)
        })
    }

    fn sweep(
        &self,
        table: TableId,
        now: Timestamp,
        remember: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Swept, StoreError>> {
        self.run(move |state| {
            let table = state.table(table)?;
            state.sweep(&table, now, remember, limit)
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.run(|state| state.rows.get(META, &Key::from(GENERATION)).map(drop))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        if self.closed.load(Ordering::Acquire) {
            return Box::pin(std::future::ready(()));
        }
        let closing = self.run(|state| {
            state.rows.close();
            Ok(())
        });
        self.closed.store(true, Ordering::Release);
        Box::pin(async move { drop(closing.await) })
    }
}
