//! The port: each call takes a connection, asks, and gives it back.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tidegate_core::port::{
    Batch, BoxFuture, Capabilities, ManyNodes, Outcome, Resolution, RowKey, Store, StoreError,
    Swept, TableId, TableSpec, Ticket, Timestamp, Write,
};
use tidegate_core::{Entry, GENERATION_MAX, Key, Version};
use tokio_postgres::{Error, Row};

use super::PostgresConfig;
use super::apply::{self, Common};
use super::connect::{Asked, Lease, Parameters, Pool, pipeline};
use super::error::Trouble;
use super::exact;
use super::many_nodes;
use super::moment::Moment;
use super::plan;
use super::settle;
use super::support::Support;
use super::table::{Keys, Table, Values};

/// A PostgreSQL database as the store.
pub struct PostgresStore {
    pool: Pool,
    support: Support,
    common: Common,
    pub(super) nodes: many_nodes::Statements,
    tables: RwLock<Vec<Arc<Table>>>,
    /// Held while a table is opened, so that two callers cannot give one table two ids.
    opening: tokio::sync::Mutex<()>,
}

impl PostgresStore {
    /// Connects, checks the database, and makes the store's own sequence and tables if they are missing and
    /// the configuration does not forbid it. Safe to drop.
    ///
    /// # Errors
    /// [`StoreError::Configuration`] if the database cannot be used as it is; [`StoreError::Unavailable`] if
    /// it cannot be reached.
    pub async fn open(config: PostgresConfig) -> Result<Self, StoreError> {
        let create = config.create;
        let pool = Pool::new(config);
        let support = {
            let lease = pool.get_first().await?;
            let opened =
                tokio::time::timeout(pool.timeout(), Support::open(lease.client(), create));
            let opened = opened.await.map_err(|_| late())??;
            lease.give_back();
            opened
        };
        Ok(Self {
            common: Common::of(&support),
            nodes: many_nodes::Statements::of(&support),
            support,
            pool,
            tables: RwLock::default(),
            opening: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn tables(&self) -> Vec<Arc<Table>> {
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

    /// Does what may be done twice on a connection, and once more on a new one if the first was dead.
    pub(super) async fn call<'p, T, F>(
        &'p self,
        work: impl Fn(Lease<'p>) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = (Lease<'p>, Result<T, Error>)>,
    {
        loop {
            let lease = self.pool.get().await?;
            let is_new = lease.is_new;
            let done = tokio::time::timeout(self.pool.timeout(), work(lease)).await;
            let (lease, done) = done.map_err(|_| late())?;
            let trouble = match done {
                Ok(done) => {
                    lease.give_back();
                    return Ok(done);
                }
                Err(e) => Trouble::from(e),
            };
            match trouble {
                // The server may have been away since the connection was last used.
                Trouble::Lost(_) if !is_new => self.pool.forget_idle(),
                Trouble::Lost(error) => return Err(error),
                other => {
                    lease.roll_back().await;
                    return Err(other.into());
                }
            }
        }
    }

    async fn take_generation(&self, at_least: u64) -> Result<Option<u64>, StoreError> {
        let Ok(at_least) = i64::try_from(at_least) else {
            return Ok(None);
        };
        // The row's lock makes processes that start at once take theirs one after the other.
        let take = format!(
            "update {} set value = greatest(value + 1, $1)
             where name = 'generation' and greatest(value + 1, $1) <= $2 returning value",
            self.support.meta
        );
        // Never backwards. It is moved before the generation is committed: nobody has it too early.
        let forward = format!(
            "select setval($1::text::regclass, $2) from {} where last_value < $2",
            self.support.sequence
        );
        let (take, forward) = (take.as_str(), forward.as_str());
        let sequence = self.support.sequence.as_str();
        self.call(move |lease| async move {
            let done = async {
                let client = lease.client();
                client
                    .batch_execute("begin isolation level read committed read write")
                    .await?;
                let max = GENERATION_MAX.cast_signed();
                let taken = client.query_opt(take, &[&at_least, &max]).await?;
                let taken = taken.map(|row| row.get::<_, i64>(0).unsigned_abs());
                if let Some(generation) = taken {
                    let floor = Version::compose(generation, 0).raw().cast_signed();
                    client.query_opt(forward, &[&sequence, &floor]).await?;
                }
                client.batch_execute("commit").await?;
                Ok(taken)
            };
            let done = done.await;
            (lease, done)
        })
        .await
    }
}

fn late() -> StoreError {
    StoreError::unavailable("the database did not answer in time")
}

fn no_table(id: TableId) -> StoreError {
    StoreError::configuration(format_args!("no table has the id {}", id.0))
}

/// Version, end of life and value from the columns after the first.
pub(super) fn entry(row: &Row, values: Values) -> Result<Entry, Error> {
    let text = |column| {
        let text: Option<&str> = row.try_get(column)?;
        Ok(text.map(|text| Bytes::copy_from_slice(text.as_bytes())))
    };
    let bytes = |column| {
        let bytes: Option<&[u8]> = row.try_get(column)?;
        Ok::<_, Error>(bytes.map(Bytes::copy_from_slice))
    };
    let value = match values {
        Values::Bytes => bytes(3)?,
        Values::Text | Values::Json | Values::Jsonb => text(3)?,
        Values::Auto => match text(3)? {
            Some(value) => Some(value),
            None => bytes(4)?,
        },
    };
    let expires_at: Option<Moment> = row.try_get(2)?;
    Ok(Entry {
        value: value.unwrap_or_default(),
        version: Version::of_row(row.try_get(1)?),
        expires_at: expires_at.and_then(Moment::timestamp),
    })
}

/// The part of a key to start from that is text, for a column of text.
fn text_before(key: &[u8]) -> &str {
    let text = match std::str::from_utf8(key) {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(&key[..e.valid_up_to()]).unwrap_or_default(),
    };
    text.split('\0').next().unwrap_or_default()
}

impl Store for PostgresStore {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn capabilities(&self) -> Capabilities {
        // More lanes overlap more commits and make each smaller: on two cores, 64 writers got 15 % more out of
        // one lane than out of four, while long flushes got 60 % more out of two than out of one.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Capabilities {
            lanes: (cores / 2).clamp(1, 4),
            batch_max: 1000,
            durable: true,
        }
    }

    fn open_table<'a>(&'a self, spec: &'a TableSpec) -> BoxFuture<'a, Result<TableId, StoreError>> {
        Box::pin(async move {
            let _opening = self.opening.lock().await;
            let already = |tables: &[Arc<Table>], same: &dyn Fn(&Table) -> bool| {
                let index = tables.iter().position(|table| same(table))?;
                Some(match tables[index].spec.columns == spec.columns {
                    true => Ok(TableId(u16::try_from(index).unwrap_or(u16::MAX))),
                    false => Err(StoreError::configuration(format_args!(
                        "table {} is already open with other columns",
                        spec.name
                    ))),
                })
            };
            if let Some(answer) = already(&self.tables(), &|table| table.spec.name == spec.name) {
                return answer;
            }
            let lease = self.pool.get().await?;
            let opened = Table::open(lease.client(), &self.support, spec);
            let table = tokio::time::timeout(self.pool.timeout(), opened).await;
            let table = table.map_err(|_| late())??;
            lease.give_back();
            // The same table by another name.
            if let Some(answer) = already(&self.tables(), &|open| open.name == table.name) {
                return answer;
            }
            let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
            let id = u16::try_from(tables.len())
                .map_err(|_| StoreError::configuration("more than 65536 tables"))?;
            tables.push(Arc::new(table));
            Ok(TableId(id))
        })
    }

    fn open_generation(&self, at_least: u64) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            self.take_generation(at_least).await?.ok_or_else(|| {
                StoreError::configuration(format_args!(
                    "generation {at_least} or the next one is asked for and {GENERATION_MAX} is the last there is"
                ))
            })
        })
    }

    fn load<'a>(
        &'a self,
        keys: &'a [RowKey],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Option<Entry>>, StoreError>> {
        Box::pin(async move {
            // Per table: the places in the question of the keys that it can have.
            let mut asked: Vec<(Arc<Table>, Vec<usize>)> = Vec::new();
            for (place, (id, _)) in keys.iter().enumerate() {
                let index = match asked.iter().position(|(_, at)| keys[at[0]].0 == *id) {
                    Some(index) => index,
                    None => {
                        asked.push((self.table(*id)?, vec![place]));
                        asked.len() - 1
                    }
                };
                let places = &mut asked[index].1;
                if places[0] != place {
                    places.push(place);
                }
            }
            for (table, places) in &mut asked {
                if table.keys == Keys::Text {
                    places.retain(|place| plan::text(keys[*place].1.as_bytes()).is_some());
                }
            }
            let mut found = vec![None; keys.len()];
            if keys.is_empty() {
                return Ok(found);
            }
            let now = Moment::at_most(now).end();
            let asked = &asked;
            let answers = self
                .call(move |mut lease| async move {
                    let done = async {
                        let mut statements = Vec::new();
                        for (table, places) in asked {
                            let of = places.iter().map(|place| &keys[*place].1);
                            let of = plan::keys(table, of);
                            statements.push((lease.prepare(&table.sql.load).await?, of));
                        }
                        let lease = &lease;
                        let sent = statements.iter();
                        let sent = sent.map(|(load, of)| -> Asked<'_> {
                            lease.ask(load.clone(), vec![&**of, &now])
                        });
                        pipeline(sent.collect()).await
                    };
                    let done = done.await;
                    (lease, done)
                })
                .await?;
            for ((table, places), rows) in asked.iter().zip(answers) {
                for row in rows {
                    let place = usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(usize::MAX);
                    let entry = entry(&row, table.values).map_err(Trouble::from)?;
                    if let Some(place) = places.get(place) {
                        found[*place] = Some(entry);
                    }
                }
            }
            Ok(found)
        })
    }

    fn check(&self, write: &Write) -> Result<(), StoreError> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        match tables.get(usize::from(write.table.0)) {
            Some(table) => {
                plan::check(table, write).map_err(|what| StoreError::refused(None, what))
            }
            None => Ok(()),
        }
    }

    fn apply<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Vec<Outcome>, StoreError>> {
        Box::pin(async move {
            let tables = self.tables();
            apply::apply(&self.pool, &self.common, &tables, batch).await
        })
    }

    fn resolve(&self, ticket: Ticket) -> BoxFuture<'_, Result<Resolution, StoreError>> {
        Box::pin(settle::resolve(&self.pool, &self.common, ticket))
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
            let now = Moment::at_most(now).end();
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let after = after.map(Key::as_bytes);
            let from = after.unwrap_or_default();
            let text = text_before(from);
            let table_ref = &table;
            let rows = self
                .call(move |mut lease| async move {
                    let done = async {
                        let scan = lease.prepare(&table_ref.sql.scan).await?;
                        let client = lease.client();
                        match table_ref.keys {
                            Keys::Text => client.query(&scan, &[&text, &after, &now, &limit]).await,
                            Keys::Bytes => {
                                client.query(&scan, &[&from, &after, &now, &limit]).await
                            }
                        }
                    };
                    let done = done.await;
                    (lease, done)
                })
                .await?;
            let mut found = Vec::with_capacity(rows.len());
            for row in rows {
                let key = match table.keys {
                    Keys::Text => Key::from(row.get::<_, &str>(0)),
                    Keys::Bytes => Key::from(row.get::<_, &[u8]>(0)),
                };
                found.push((key, entry(&row, table.values).map_err(Trouble::from)?));
            }
            Ok(found)
        })
    }

    fn count(&self, table: TableId, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let table = self.table(table)?;
            let now = Moment::at_most(now).end();
            let table = &table;
            let row = self.call(move |mut lease| async move {
                let done = async {
                    let count = lease.prepare(&table.sql.count).await?;
                    lease.client().query_one(&count, &[&now]).await
                };
                let done = done.await;
                (lease, done)
            });
            Ok(row.await?.get::<_, i64>(0).unsigned_abs())
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
            let millis = u128::from(now.as_millis()).saturating_sub(remember.as_millis());
            let millis = Timestamp::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
            let before = Moment::at_most(millis);
            let now = Moment::at_most(now);
            let end = now.end();
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let once_name = exact::once_name(&table);
            let (table, common, once_name) = (&table, &self.common, &once_name);
            let outbox = &self.nodes.sweep;
            let swept = self.call(move |mut lease| async move {
                let done = async {
                    let name = &table.name;
                    let mut statements: Vec<(_, Parameters<'_>)> = Vec::new();
                    if let Some(sweep) = &table.sql.sweep {
                        let sweep = lease.prepare(sweep).await?;
                        statements.push((sweep, vec![&end, &limit, name, &now]));
                    }
                    let forget = lease.prepare(&table.sql.forget).await?;
                    if table.spec.outbox {
                        let outbox = lease.prepare(outbox).await?;
                        let swept = lease.client().execute(&outbox, &[&limit]).await;
                        swept?;
                    }
                    statements.push((forget.clone(), vec![name, &before, &limit]));
                    statements.push((forget, vec![once_name, &before, &limit]));
                    let mut rows =
                        apply::under_shared_lock(common, &mut lease, table, statements).await?;
                    let forgotten = rows.split_off(rows.len().saturating_sub(2));
                    let forgotten = forgotten.iter().map(|rows| rows.len() as u64).sum();
                    let removed = rows.iter().flatten().next();
                    let expired = removed.map_or(0, |row| row.get::<_, i64>(0).unsigned_abs());
                    let swept = Swept { expired, forgotten };
                    Ok(swept)
                };
                let done = done.await;
                (lease, done)
            });
            swept.await
        })
    }

    fn many_nodes(&self) -> Option<&dyn ManyNodes> {
        Some(self)
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.call(move |lease| async move {
            let done = async { lease.client().batch_execute("select 1").await };
            let done = done.await;
            (lease, done)
        }))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.pool.close())
    }
}
