//! A database with a store in it, and clients that are not ours.

use std::sync::Arc;
use std::time::Duration;

use tidegate::postgres::{PostgresConfig, PostgresStore};
use tidegate_core::port::{
    Batch, Guard, Horizon, ManyNodes, Outside, OutsideCursor, Store, StoreTime, TableId, TableSpec,
    Write,
};
use tidegate_core::{Change, Key};
use tidegate_testkit::servers::Postgres;
use tokio_postgres::Client;

use crate::NOW;

/// A database whose tables `kv` and `other` are open, with an outbox.
pub(crate) struct Opened {
    pub(crate) postgres: &'static Postgres,
    pub(crate) database: String,
    pub(crate) store: Arc<PostgresStore>,
    pub(crate) table: TableId,
    pub(crate) other: TableId,
}

pub(crate) fn watched(name: &str) -> TableSpec {
    TableSpec {
        outbox: true,
        ..TableSpec::named(name)
    }
}

impl Opened {
    pub(crate) async fn new() -> Self {
        let postgres = Postgres::shared();
        let database = postgres.fresh_database();
        let store = open(&postgres.url(&database)).await;
        let table = store.open_table(&watched("kv")).await.unwrap();
        let other = store.open_table(&watched("other")).await.unwrap();
        Self {
            postgres,
            database,
            store,
            table,
            other,
        }
    }

    pub(crate) fn nodes(&self) -> &dyn ManyNodes {
        self.store.many_nodes().unwrap()
    }

    pub(crate) fn sql(&self, statements: &str) -> String {
        self.postgres.sql(&self.database, statements)
    }

    /// A connection of somebody else.
    pub(crate) async fn client(&self) -> Client {
        let url = self.postgres.url(&self.database);
        let connected = tokio_postgres::connect(&url, tokio_postgres::NoTls).await;
        let (client, connection) = connected.unwrap();
        tokio::spawn(connection);
        client
    }

    pub(crate) fn put(&self, key: &str, value: &str) -> Write {
        Write {
            table: self.table,
            key: Key::from(key),
            change: Change::Put {
                value: value.to_owned().into(),
                expires_at: None,
            },
            guard: Guard::Always,
        }
    }

    pub(crate) fn delete(&self, key: &str) -> Write {
        Write {
            change: Change::Delete,
            ..self.put(key, "")
        }
    }

    pub(crate) async fn apply(&self, writes: Vec<Write>) {
        self.store.apply(&Batch::new(writes, NOW)).await.unwrap();
    }

    pub(crate) async fn version(&self, key: &str) -> u64 {
        let rows = self.store.load(&[(self.table, key.into())], NOW).await;
        rows.unwrap()[0].as_ref().unwrap().version.raw()
    }

    pub(crate) async fn horizon(&self) -> Horizon {
        self.nodes().horizon().await.unwrap()
    }

    /// A moment of the database's clock, so much from now.
    pub(crate) async fn soon(&self, by: Duration) -> StoreTime {
        self.horizon().await.now.after(by)
    }

    /// Returns when the database's clock is past this moment.
    pub(crate) async fn wait_past(&self, moment: StoreTime) {
        while self.horizon().await.now <= moment {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn outside(&self, after: Option<OutsideCursor>, limit: usize) -> Outside {
        self.nodes().outside_changes(after, limit).await.unwrap()
    }

    /// All that others changed after a cursor, as `key@version` or `*`, each with its table; other databases of the
    /// server may hold it up for a while. Where to read on.
    pub(crate) async fn told(
        &self,
        after: Option<OutsideCursor>,
        count: usize,
    ) -> (Vec<(TableId, String)>, OutsideCursor) {
        let mut all = Vec::new();
        let mut next = after;
        for _ in 0..10_000 {
            let outside = self.outside(next, 2).await;
            assert!(!outside.missed);
            assert!(outside.changes.len() <= 2);
            next = Some(outside.next);
            for change in outside.changes {
                let named = match change.key {
                    Some(key) => {
                        let key = String::from_utf8(key.as_bytes().to_vec()).unwrap();
                        format!("{key}@{}", change.version.raw())
                    }
                    None => "*".into(),
                };
                all.push((change.table, named));
            }
            if all.len() >= count && !outside.more {
                return (all, next.unwrap());
            }
        }
        panic!("only {all:?} was told");
    }

    /// Returns when so many statements of the store wait for a lock.
    pub(crate) async fn wait_until_locked(&self, count: usize) {
        let ask = "select count(*) from pg_stat_activity where datname = current_database()
             and application_name = 'tidegate' and wait_event_type = 'Lock'";
        for _ in 0..500 {
            if self.sql(ask) == count.to_string() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("not {count} wait for a lock");
    }
}

pub(crate) async fn open(url: &str) -> Arc<PostgresStore> {
    let config = PostgresConfig::from_url(url).unwrap();
    Arc::new(PostgresStore::open(config).await.unwrap())
}
