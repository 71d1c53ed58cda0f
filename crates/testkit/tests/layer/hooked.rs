//! A store over rows in memory that costs time, refuses what it is told to, goes away, gets stuck, and tells
//! how it was used.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_core::memory::MemoryStore;
use tidegate_core::port::{
    Batch, BoxFuture, Capabilities, Outcome, Resolution, RowKey, Store, StoreError, Swept, TableId,
    TableSpec, Ticket, Timestamp,
};
use tidegate_core::{Entry, Key};

use crate::world::pass;

/// Clones are the same store.
#[derive(Clone)]
pub(crate) struct Hooked {
    rows: MemoryStore,
    settings: Arc<Mutex<Settings>>,
}

/// What it does, and what it saw.
#[derive(Default)]
pub(crate) struct Settings {
    /// How long a transaction takes, and how much longer for each row.
    pub(crate) costs: (Duration, Duration),
    /// Values that begin so are refused.
    pub(crate) refused: Option<&'static str>,
    /// Every transaction fails.
    pub(crate) away: bool,
    /// Every answer is lost and this said instead; whether the transaction is done.
    pub(crate) lost: Option<(bool, StoreError)>,
    /// A transaction with this key does not end for an hour.
    pub(crate) stuck: Option<&'static str>,
    /// Transactions begun.
    pub(crate) applies: usize,
    /// The most that were under way at once.
    pub(crate) at_once: usize,
    /// The rows of each transaction.
    pub(crate) sizes: Vec<usize>,
    under_way: usize,
    keys: HashSet<Key>,
}

impl Hooked {
    pub(crate) fn new(rows: MemoryStore) -> Self {
        Self {
            rows,
            settings: Arc::default(),
        }
    }

    pub(crate) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The transaction begins; how long it takes.
    fn begin(&self, batch: &Batch) -> Duration {
        let mut settings = self.settings();
        settings.applies += 1;
        settings.under_way += 1;
        settings.at_once = settings.at_once.max(settings.under_way);
        settings.sizes.push(batch.writes.len());
        for write in &batch.writes {
            let new = settings.keys.insert(write.key.clone());
            assert!(new, "key '{}' is in two transactions at once", write.key);
        }
        let is_stuck = |write: &tidegate_core::port::Write| {
            settings
                .stuck
                .is_some_and(|stuck| write.key.as_bytes() == stuck.as_bytes())
        };
        if batch.writes.iter().any(is_stuck) {
            return Duration::from_secs(3600);
        }
        let (fixed, row) = settings.costs;
        fixed + row * u32::try_from(batch.writes.len()).unwrap_or(u32::MAX)
    }

    fn end(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut settings = self.settings();
        settings.under_way -= 1;
        for write in &batch.writes {
            settings.keys.remove(&write.key);
        }
        if settings.away {
            return Err(StoreError::unavailable("away"));
        }
        let bad = |value: &bytes::Bytes| {
            settings
                .refused
                .is_some_and(|refused| value.starts_with(refused.as_bytes()))
        };
        if batch
            .writes
            .iter()
            .any(|write| write.value().is_some_and(bad))
        {
            return Err(StoreError::refused(
                Some("23514"),
                "violates check constraint \"well_behaved\"",
            ));
        }
        Ok(())
    }
}

impl Store for Hooked {
    fn name(&self) -> &'static str {
        "hooked"
    }

    fn capabilities(&self) -> Capabilities {
        self.rows.capabilities()
    }

    fn open_table<'a>(&'a self, spec: &'a TableSpec) -> BoxFuture<'a, Result<TableId, StoreError>> {
        self.rows.open_table(spec)
    }

    fn open_generation(&self, at_least: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.rows.open_generation(at_least)
    }

    fn load<'a>(
        &'a self,
        keys: &'a [RowKey],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Option<Entry>>, StoreError>> {
        self.rows.load(keys, now)
    }

    fn apply<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Vec<Outcome>, StoreError>> {
        Box::pin(async move {
            let time = self.begin(batch);
            if time > Duration::ZERO {
                pass(time).await;
            }
            self.end(batch)?;
            let lost = self.settings().lost.clone();
            if let Some((done, error)) = lost {
                if done {
                    self.rows.apply(batch).await?;
                }
                return Err(error);
            }
            self.rows.apply(batch).await
        })
    }

    fn resolve(&self, ticket: Ticket) -> BoxFuture<'_, Result<Resolution, StoreError>> {
        self.rows.resolve(ticket)
    }

    fn scan<'a>(
        &'a self,
        table: TableId,
        after: Option<&'a Key>,
        limit: usize,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<(Key, Entry)>, StoreError>> {
        self.rows.scan(table, after, limit, now)
    }

    fn count(&self, table: TableId, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.rows.count(table, now)
    }

    fn sweep(
        &self,
        table: TableId,
        now: Timestamp,
        remember: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Swept, StoreError>> {
        self.rows.sweep(table, now, remember, limit)
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.rows.ping()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
