//! Rows a second on their way from memory to the store, beside the fastest batch of the same rows by hand.

use std::time::{Duration, Instant};

use tidegate::{Class, Durability, Gate, Strategy, WhenFull};
use tidegate_testkit::servers::{Postgres, PostgresOptions};
use tokio_postgres::NoTls;

use super::median;

const ROWS: usize = 100_000;
const ROUNDS: usize = 3;
/// Rows in a transaction by hand: what does best of 250 to 2,000 here.
const BATCH: usize = 1_000;

pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(sqlite());
    let server = Postgres::start_with(PostgresOptions {
        fsync: true,
        ..PostgresOptions::default()
    });
    let url = server.url(&server.fresh_database());
    runtime.block_on(postgres(&url));
}

fn value(round: usize, row: usize) -> String {
    format!("{round:03}{row:097}")
}

/// Rows a second from the first write to the moment when the store has the last row. The writing is in it, for
/// full batches go out meanwhile. The first round, into an empty table, is for warming up.
async fn flush(gate: &Gate, round: usize) -> f64 {
    let start = Instant::now();
    for row in 0..ROWS {
        let key = format!("key:{row:012}");
        gate.set(key, value(round, row)).await.unwrap();
        if row % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let report = gate.flush(Duration::from_secs(300)).await.unwrap();
    assert!(report.is_complete(), "the store does not keep up");
    ROWS as f64 / start.elapsed().as_secs_f64()
}

async fn open(url: &str) -> Gate {
    let class = Class::new("b", "key:*")
        .strategy(Strategy::WriteBack)
        .durability(Durability::Memory)
        .linger(Duration::from_secs(3_600))
        .batch(1_000_000)
        .dirty_bytes_max(1 << 30, WhenFull::Block);
    tidegate::builder()
        .store_arc(tidegate::open_store(url).await.unwrap())
        .class(class)
        .open()
        .await
        .unwrap()
}

fn report(store: &str, ours: Vec<f64>, by_hand: Vec<f64>) {
    let share = median(ours.iter().zip(&by_hand).map(|(a, b)| a / b).collect());
    println!(
        "{store}: {:.0} rows/s flushed; batches of {BATCH} by hand: {:.0} rows/s; share {share:.2}",
        median(ours),
        median(by_hand),
    );
}

async fn sqlite() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let gate = open(&format!("sqlite:{}/ours.db", folder.path().display())).await;
    let path = folder.path().join("plain.db");
    let plain = rusqlite::Connection::open(path).unwrap();
    plain
        .execute_batch(
            "pragma journal_mode = wal; pragma synchronous = full;
             create table plain (key text primary key, value blob not null, updated_at integer not null) \
             without rowid;",
        )
        .unwrap();
    let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let flushed = flush(&gate, round).await;
        let batched = tokio::task::block_in_place(|| sqlite_by_hand(&plain, round));
        if round > 0 {
            ours.push(flushed);
            by_hand.push(batched);
        }
    }
    report("sqlite", ours, by_hand);
}

fn sqlite_by_hand(plain: &rusqlite::Connection, round: usize) -> f64 {
    let start = Instant::now();
    for first in (0..ROWS).step_by(BATCH) {
        let transaction = plain.unchecked_transaction().unwrap();
        let mut upsert = transaction
            .prepare_cached(
                "insert into plain (key, value, updated_at) values (?1, ?2, ?3) on conflict (key) do update \
                 set value = excluded.value, updated_at = excluded.updated_at",
            )
            .unwrap();
        for row in first..first + BATCH {
            let values = (format!("key:{row:012}"), value(round, row), round as i64);
            upsert.execute(values).unwrap();
        }
        drop(upsert);
        transaction.commit().unwrap();
    }
    ROWS as f64 / start.elapsed().as_secs_f64()
}

async fn postgres(url: &str) {
    let gate = open(url).await;
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let table = "create table plain (key text collate \"C\" primary key, value text not null, \
                 updated_at timestamptz not null default now())";
    client.batch_execute(table).await.unwrap();
    let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let flushed = flush(&gate, round).await;
        let batched = postgres_by_hand(&client, round).await;
        if round > 0 {
            ours.push(flushed);
            by_hand.push(batched);
        }
    }
    report("postgres", ours, by_hand);
}

async fn postgres_by_hand(client: &tokio_postgres::Client, round: usize) -> f64 {
    let upsert = "insert into plain (key, value) select * from unnest($1::text[], $2::text[]) \
                  on conflict (key) do update set value = excluded.value, updated_at = now()";
    let upsert = client.prepare(upsert).await.unwrap();
    let start = Instant::now();
    for first in (0..ROWS).step_by(BATCH) {
        let rows = first..first + BATCH;
        let keys: Vec<String> = rows.clone().map(|row| format!("key:{row:012}")).collect();
        let values: Vec<String> = rows.map(|row| value(round, row)).collect();
        client.execute(&upsert, &[&keys, &values]).await.unwrap();
    }
    ROWS as f64 / start.elapsed().as_secs_f64()
}
