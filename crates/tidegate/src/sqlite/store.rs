//! The port: work is handed to the threads, answers come back.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use tidegate_core::port::{
    Batch, BoxFuture, Capabilities, Outcome, Resolution, RowKey, Store, StoreError, Swept, TableId,
    TableSpec, Ticket, Timestamp, Write,
};
use tidegate_core::{Change, Entry, Key};
use tokio::sync::oneshot;

use super::apply::{self, Waiting};
use super::connect::{Job, Threads};
use super::table::{self, Table};
use super::{SqliteConfig, error};

/// A SQLite database as the store.
pub struct SqliteStore {
    /// Nothing once it is closed.
    threads: Mutex<Option<Threads>>,
    tables: Arc<RwLock<Vec<Arc<Table>>>>,
    durable: bool,
}

impl SqliteStore {
    /// Opens the database, makes the file and the store's own tables if they are missing, and starts the
    /// threads. Dropping the future leaves nothing running.
    ///
    /// # Errors
    /// [`StoreError::Configuration`] if the file cannot be used.
    pub async fn open(config: SqliteConfig) -> Result<Self, StoreError> {
        let durable = config.path.is_some();
        let threads = tokio::task::spawn_blocking(move || Threads::start(&config))
            .await
            .map_err(|_| StoreError::unavailable("the runtime is shutting down"))??;
        Ok(Self {
            threads: Mutex::new(Some(threads)),
            tables: Arc::default(),
            durable,
        })
    }

    fn sender(&self, of: impl FnOnce(&Threads) -> &Sender<Job>) -> Result<Sender<Job>, StoreError> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let threads = threads.as_ref().ok_or_else(closed)?;
        Ok(of(threads).clone())
    }

    fn tables(&self) -> Vec<Arc<Table>> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.clone()
    }

    fn table(&self, id: TableId) -> Result<Arc<Table>, StoreError> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables
            .get(usize::from(id.0))
            .cloned()
            .ok_or_else(|| no_table(id))
    }

    /// Does the work on the thread that writes.
    async fn write<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        call(self.sender(|threads| &threads.write)?, work).await
    }

    /// Does the work on a thread that reads.
    async fn read<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let work = |connection: &Connection| work(connection).map_err(|e| error::unavailable(&e));
        call(self.sender(|threads| &threads.read)?, work).await
    }
}

async fn call<T, W>(sender: Sender<Job>, work: W) -> Result<T, StoreError>
where
    T: Send + 'static,
    W: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let job = Job::Call(Box::new(move |connection| {
        let _ = reply.send(work(connection));
    }));
    sender.send(job).map_err(|_| closed())?;
    answer.await.map_err(|_| closed())?
}

fn closed() -> StoreError {
    StoreError::unavailable("the store is closed")
}

fn no_table(id: TableId) -> StoreError {
    StoreError::configuration(format_args!("no table has the id {}", id.0))
}

/// Value, version and end of life from three columns.
fn entry(row: &Row<'_>, first: usize) -> rusqlite::Result<Entry> {
    Ok(Entry {
        value: Bytes::from(table::bytes(row.get_ref(first)?)),
        version: table::version(row.get_ref(first + 1)?),
        expires_at: table::end(row.get_ref(first + 2)?),
    })
}

impl Store for SqliteStore {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            // One thread writes, and commits what waits for it together.
            lanes: 1,
            batch_max: 1000,
            durable: self.durable,
        }
    }

    fn open_table<'a>(&'a self, spec: &'a TableSpec) -> BoxFuture<'a, Result<TableId, StoreError>> {
        Box::pin(async move {
            let (tables, spec) = (Arc::clone(&self.tables), spec.clone());
            // The thread that writes opens one table after the other.
            self.write(move |connection| {
                let table = Table::open(connection, &spec);
                let mut tables = tables.write().unwrap_or_else(PoisonError::into_inner);
                let same = |t: &Arc<Table>| t.spec.name.eq_ignore_ascii_case(&spec.name);
                if let Some(index) = tables.iter().position(same) {
                    if tables[index].spec.columns != spec.columns {
                        return Err(StoreError::configuration(format_args!(
                            "table {} is already open with other columns",
                            spec.name
                        )));
                    }
                    return Ok(TableId(u16::try_from(index).unwrap_or(u16::MAX)));
                }
                let id = u16::try_from(tables.len())
                    .map_err(|_| StoreError::configuration("more than 65536 tables"))?;
                tables.push(Arc::new(table?));
                Ok(TableId(id))
            })
            .await
        })
    }

    fn open_generation(&self, at_least: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.write(move |connection| apply::open_generation(connection, at_least)))
    }

    fn load<'a>(
        &'a self,
        keys: &'a [RowKey],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Option<Entry>>, StoreError>> {
        Box::pin(async move {
            let tables = self.tables();
            if let Some((id, _)) = keys
                .iter()
                .find(|key| tables.get(usize::from(key.0.0)).is_none())
            {
                return Err(no_table(*id));
            }
            let keys = keys.to_vec();
            let now = table::millis(now);
            self.read(move |connection| {
                // One transaction, so that all answers are of one moment.
                let transaction = connection.unchecked_transaction()?;
                let mut found = Vec::with_capacity(keys.len());
                let mut statement = None;
                for (id, key) in &keys {
                    let reuse = statement.take_if(|(of, _)| of == id);
                    let mut load = match reuse {
                        Some((_, load)) => load,
                        None => transaction.prepare_cached(&tables[usize::from(id.0)].sql.load)?,
                    };
                    let row = load.query_row(params![table::key(key), now], |row| entry(row, 0));
                    found.push(row.optional()?);
                    statement = Some((*id, load));
                }
                Ok(found)
            })
            .await
        })
    }

    fn check(&self, write: &Write) -> Result<(), StoreError> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        match (tables.get(usize::from(write.table.0)), &write.change) {
            (Some(table), Change::Put { value, expires_at }) => {
                table.value(value)?;
                table.expiry(*expires_at)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn apply<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Vec<Outcome>, StoreError>> {
        Box::pin(async move {
            if batch.commit_by.is_some() {
                return Err(StoreError::configuration(
                    "a database of SQLite is for one node only and takes no limit of time for a commit",
                ));
            }
            let (reply, answer) = oneshot::channel();
            let waiting = Waiting {
                batch: batch.clone(),
                tables: self.tables(),
                reply,
            };
            let sender = self.sender(|threads| &threads.write)?;
            sender.send(Job::Apply(waiting)).map_err(|_| closed())?;
            let lost = |_| StoreError::unknown(None, "the thread that writes has ended");
            answer.await.map_err(lost)?
        })
    }

    fn resolve(&self, _: Ticket) -> BoxFuture<'_, Result<Resolution, StoreError>> {
        // No error of this store carries a ticket.
        Box::pin(std::future::ready(Ok(Resolution::Forgotten)))
    }

    fn scan<'a>(
        &'a self,
        table: TableId,
        after: Option<&'a Key>,
        limit: usize,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<(Key, Entry)>, StoreError>> {
        Box::pin(async move {
            let table = self.table(table)?;
            let after = after.cloned();
            let now = table::millis(now);
            let rows_max = i64::try_from(limit).unwrap_or(i64::MAX);
            self.read(move |connection| {
                let transaction = connection.unchecked_transaction()?;
                let from = after.as_ref().map_or(&[][..], Key::as_bytes);
                let which = usize::from(after.is_some());
                // Text keys and others are kept apart, each in order; together they are in order again.
                let text = (&table.sql.scan_text[which], ValueRef::Text(from));
                let bytes = (&table.sql.scan_bytes[which], ValueRef::Blob(from));
                let mut found = Vec::new();
                for (sql, from) in [text, bytes] {
                    let mut statement = transaction.prepare_cached(sql)?;
                    let from = ToSqlOutput::Borrowed(from);
                    let rows = statement.query_map(params![from, now, rows_max], |row| {
                        Ok((Key::from(&*table::bytes(row.get_ref(0)?)), entry(row, 1)?))
                    })?;
                    for row in rows {
                        found.push(row?);
                    }
                }
                found.sort_by(|a, b| a.0.cmp(&b.0));
                found.truncate(limit);
                Ok(found)
            })
            .await
        })
    }

    fn count(&self, table: TableId, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let table = self.table(table)?;
            self.read(move |connection| {
                let mut count = connection.prepare_cached(&table.sql.count)?;
                let count = count.query_row([table::millis(now)], |row| row.get::<_, i64>(0))?;
                Ok(count.unsigned_abs())
            })
            .await
        })
    }

    fn sweep(
        &self,
        table: TableId,
        now: Timestamp,
        remember: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Swept, StoreError>> {
        Box::pin(async move {
            let table = self.table(table)?;
            self.write(move |connection| apply::sweep(connection, &table, now, remember, limit))
                .await
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.read(|connection| connection.query_row("select 1", [], |_| Ok(()))))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let threads = self
                .threads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let Some(Threads { write, read, ended }) = threads else {
                return;
            };
            drop((write, read));
            for thread in ended {
                // Either way the thread is gone.
                let _ = thread.await;
            }
        })
    }
}
