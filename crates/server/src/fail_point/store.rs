//! A store with points around reads and commits.

use std::sync::Arc;
use std::time::Duration;

use tidegate::port::{
    Batch, BoxFuture, Capabilities, ManyNodes, Outcome, Resolution, RowKey, Store, StoreError,
    Swept, TableId, TableSpec, Ticket, Timestamp, Write,
};
use tidegate::{Entry, Key};

use super::hit;

pub(crate) struct FailingStore(pub(crate) Arc<dyn Store>);

impl Store for FailingStore {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn open_table<'a>(&'a self, spec: &'a TableSpec) -> BoxFuture<'a, Result<TableId, StoreError>> {
        self.0.open_table(spec)
    }

    fn open_generation(&self, at_least: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.0.open_generation(at_least)
    }

    fn load<'a>(
        &'a self,
        keys: &'a [RowKey],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Option<Entry>>, StoreError>> {
        Box::pin(async move {
            hit("load", "before");
            let rows = self.0.load(keys, now).await?;
            hit("load", "after");
            Ok(rows)
        })
    }

    fn check(&self, write: &Write) -> Result<(), StoreError> {
        self.0.check(write)
    }

    fn apply<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Vec<Outcome>, StoreError>> {
        Box::pin(async move {
            hit("apply", "before");
            let outcomes = self.0.apply(batch).await?;
            hit("apply", "after");
            Ok(outcomes)
        })
    }

    fn resolve(&self, ticket: Ticket) -> BoxFuture<'_, Result<Resolution, StoreError>> {
        self.0.resolve(ticket)
    }

    fn scan<'a>(
        &'a self,
        table: TableId,
        after: Option<&'a Key>,
        limit: usize,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<(Key, Entry)>, StoreError>> {
        self.0.scan(table, after, limit, now)
    }

    fn count(&self, table: TableId, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.0.count(table, now)
    }

    fn sweep(
        &self,
        table: TableId,
        now: Timestamp,
        remember: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Swept, StoreError>> {
        self.0.sweep(table, now, remember, limit)
    }

    fn many_nodes(&self) -> Option<&dyn ManyNodes> {
        self.0.many_nodes()
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.ping()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.0.close()
    }
}
