//! What the PostgreSQL store tells of a batch whose commit was lost when the server crashed.
//!
//! A server that crashes before anything of a transaction is on its disk gives the number of that transaction to
//! another one.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, reason = "tests fail by panic")]
#![allow(
    clippy::disallowed_methods,
    reason = "the server is real, and its time too"
)]

#[path = "store_postgres/wire.rs"]
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tidegate::postgres::{PostgresConfig, PostgresStore};
use tidegate_core::port::{
    Batch, Guard, Outcome, Store, StoreError, TableId, TableSpec, Timestamp, Write,
};
use tidegate_core::{Change, Key};
use tidegate_testkit::servers::{Postgres, PostgresOptions};
use wire::{Proxy, Wire};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

async fn open(url: &str) -> (Arc<PostgresStore>, [TableId; 2]) {
    let config = PostgresConfig::from_url(url).unwrap();
    let store = Arc::new(PostgresStore::open(config).await.unwrap());
    let mut tables = [TableId(0); 2];
    for (table, name) in tables.iter_mut().zip(["kv", "other"]) {
        *table = store.open_table(&TableSpec::named(name)).await.unwrap();
    }
    (store, tables)
}

/// A batch of two tables, whose commit is sent for itself.
fn of_both(tables: [TableId; 2], value: &str) -> Batch {
    let write = |table| Write {
        table,
        key: Key::from("k"),
        change: Change::Put {
            value: value.to_owned().into(),
            expires_at: None,
        },
        guard: Guard::Always,
    };
    Batch::new(tables.into_iter().map(write).collect(), NOW)
}

async fn value(store: &PostgresStore, table: TableId) -> String {
    let found = store.load(&[(table, "k".into())], NOW).await.unwrap();
    let entry = found.into_iter().next().flatten().unwrap();
    String::from_utf8(entry.value.to_vec()).unwrap()
}

/// Loses a commit, crashes the server, and has another store make so many batches of the same rows before the first
/// one can ask. What that one is told, and what the row is then.
async fn crash_over_a_commit(
    writes_of_others: usize,
) -> (Result<Vec<Outcome>, StoreError>, String) {
    let mut postgres = Postgres::start_with(PostgresOptions {
        // Nothing is written before a commit asks for it.
        settings: vec!["wal_writer_delay=10s".into()],
        ..PostgresOptions::default()
    });
    let url = postgres.url(&postgres.fresh_database());
    let proxy = Proxy::start(postgres.port(), b"commit\0");
    let wired = url.replace(&postgres.port().to_string(), &proxy.port.to_string());
    let (wired, tables) = open(&wired).await;
    let (other, others) = open(&url).await;
    wired.apply(&of_both(tables, "before")).await.unwrap();
    // What is on disk from here on is what commits ask for.
    postgres.sql("postgres", "checkpoint");
    proxy.set(Wire::LosesCommit, Wire::Cut);
    let lost = tokio::spawn({
        let wired = Arc::clone(&wired);
        async move { wired.apply(&of_both(tables, "lost")).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    postgres.kill9();
    postgres.restart();
    for _ in 0..writes_of_others {
        other.apply(&of_both(others, "of others")).await.unwrap();
    }
    proxy.set(Wire::Fine, Wire::Fine);
    let told = lost.await.unwrap();
    (told, value(&other, others[0]).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_number_went_to_another_one_is_not_taken_for_committed() {
    let (told, value) = crash_over_a_commit(5).await;
    assert_eq!(value, "of others");
    assert!(
        matches!(
            told,
            Err(StoreError::Unknown { .. } | StoreError::Unavailable { .. })
        ),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_number_nobody_has_was_not_made() {
    let (told, value) = crash_over_a_commit(0).await;
    assert_eq!(value, "before");
    assert!(
        matches!(told, Err(StoreError::Unavailable { .. })),
        "{told:?}"
    );
}
