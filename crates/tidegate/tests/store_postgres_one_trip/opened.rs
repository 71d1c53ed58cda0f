//! A database with a store in it, and what it is asked.

use std::sync::Arc;

use tidegate::postgres::{PostgresConfig, PostgresStore};
use tidegate_core::port::{
    Batch, Guard, Outcome, Store, StoreError, TableId, TableSpec, Ticket, Write,
};
use tidegate_core::{Change, Key};
use tidegate_testkit::servers::Postgres;

use crate::NOW;

pub(crate) async fn try_open(url: &str) -> Result<Arc<PostgresStore>, StoreError> {
    let config = PostgresConfig::from_url(url)?;
    PostgresStore::open(config).await.map(Arc::new)
}

/// A database with a store in it, whose table `kv` is open.
pub(crate) struct Opened {
    pub(crate) postgres: &'static Postgres,
    pub(crate) database: String,
    pub(crate) store: Arc<PostgresStore>,
    pub(crate) table: TableId,
}

impl Opened {
    pub(crate) async fn new(options: &str) -> Self {
        let postgres = Postgres::shared();
        let database = postgres.fresh_database();
        let url = format!("{}?{options}", postgres.url(&database));
        let store = try_open(&url).await.unwrap();
        let table = store.open_table(&TableSpec::named("kv")).await.unwrap();
        Self {
            postgres,
            database,
            store,
            table,
        }
    }

    pub(crate) async fn put(&self, keys: &[&str], value: &str) -> Result<Vec<Outcome>, StoreError> {
        self.store.apply(&puts(self.table, keys, value)).await
    }

    /// Puts that are taken, as versions and whether there was a row.
    pub(crate) async fn taken(&self, keys: &[&str], value: &str) -> Vec<(u64, bool)> {
        applied(self.put(keys, value).await.unwrap())
    }

    pub(crate) fn sql(&self, statements: &str) -> String {
        self.postgres.sql(&self.database, statements)
    }

    /// How many batches were one trip, of the sessions there are.
    pub(crate) fn trips(&self) -> String {
        self.sql("select coalesce(sum(batch), 0) from tidegate_session")
    }

    /// The ticket of the next batch of the only session.
    pub(crate) fn next_ticket(&self) -> Ticket {
        let row = self.sql("select id, batch + 1 from tidegate_session");
        let (session, batch) = row.split_once('|').unwrap();
        let (session, batch): (u64, u64) = (session.parse().unwrap(), batch.parse().unwrap());
        Ticket((1 << 63) | (session << 16) | batch)
    }

    /// Returns when so many statements of the store wait for a lock, or run at all.
    pub(crate) async fn wait_until(&self, condition: &str, count: usize) {
        let ask = format!(
            "select count(*) from pg_stat_activity where datname = current_database()
             and application_name = 'tidegate' and state = 'active' and {condition}"
        );
        for _ in 0..500 {
            if self.sql(&ask) == count.to_string() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("there are not {count} with {condition}");
    }
}

pub(crate) fn puts(table: TableId, keys: &[&str], value: &str) -> Batch {
    let writes = keys.iter().map(|key| Write {
        table,
        key: Key::from(*key),
        change: Change::Put {
            value: value.to_owned().into(),
            expires_at: None,
        },
        guard: Guard::Always,
    });
    Batch::new(writes.collect(), NOW)
}

pub(crate) fn applied(outcomes: Vec<Outcome>) -> Vec<(u64, bool)> {
    let applied = outcomes.into_iter().map(|outcome| match outcome {
        Outcome::Applied { version, existed } => (version.raw(), existed),
        other => panic!("{other:?}"),
    });
    applied.collect()
}

pub(crate) async fn client(url: &str) -> tokio_postgres::Client {
    let connected = tokio_postgres::connect(url, tokio_postgres::NoTls).await;
    let (client, connection) = connected.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) async fn value(store: &PostgresStore, table: TableId, key: &str) -> String {
    let mut found = store.load(&[(table, key.into())], NOW).await.unwrap();
    String::from_utf8(found.remove(0).unwrap().value.to_vec()).unwrap()
}
