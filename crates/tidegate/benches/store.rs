//! How fast the stores take batches, as ratios to statements written by hand for the same rows.
//!
//! `cargo bench -p tidegate --features postgres --bench store`. Rounds of both sides alternate, and medians are
//! shown: on a shared machine the ratio means more than the rate. PostgreSQL is a private server that waits
//! for the disk.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people"
)]
#![allow(clippy::disallowed_methods, reason = "it measures the real clock")]

use std::sync::Arc;
use std::time::Instant;

use tidegate_core::port::{Batch, Guard, Store, TableId, TableSpec, Timestamp, Write};
use tidegate_core::{Change, Key, Version};

const KEYS: u64 = 100_000;
const ROUNDS: usize = 15;
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Rows of one round: distinct random keys with a value of 100 bytes.
fn rows(random: &mut fastrand::Rng, count: usize) -> Vec<(String, String)> {
    let mut keys: Vec<u64> = (0..count as u64)
        .map(|i| i * (KEYS / count as u64) + random.u64(0..KEYS / count as u64))
        .collect();
    random.shuffle(&mut keys);
    let value = |key: u64| format!("{key:0>20}").repeat(5);
    keys.into_iter()
        .map(|key| (format!("key:{key:012}"), value(key)))
        .collect()
}

fn batch(table: TableId, rows: &[(String, String)], guard: Guard) -> Batch {
    let write = |(key, value): &(String, String)| Write {
        table,
        key: Key::from(key.as_str()),
        change: Change::Put {
            value: value.clone().into(),
            expires_at: None,
        },
        guard,
    };
    Batch::new(rows.iter().map(write).collect(), NOW)
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Rows per second of each side, and the ratio of the first to each.
fn report(title: &str, rows: usize, sides: Vec<(&str, Vec<f64>)>) {
    println!("{title}");
    let rates: Vec<(&str, f64)> = sides
        .into_iter()
        .map(|(name, times)| (name, rows as f64 / median(times)))
        .collect();
    for (name, rate) in &rates {
        println!(
            "  {name:<44} {rate:>9.0} rows/s   {:>5.2}x",
            rates[0].1 / rate
        );
    }
}

async fn fill(store: &dyn Store, table: TableId) {
    for first in (0..KEYS).step_by(1000) {
        let rows: Vec<_> = (first..first + 1000)
            .map(|key| (format!("key:{key:012}"), "x".repeat(100)))
            .collect();
        store
            .apply(&batch(table, &rows, Guard::Always))
            .await
            .unwrap();
    }
}

/// Versions of a process, rising.
fn newer(number: &mut u64) -> Guard {
    *number += 1;
    Guard::IfNewer(Version::compose(7, *number))
}

#[cfg(feature = "sqlite")]
async fn sqlite() {
    use tidegate::sqlite::{SqliteConfig, SqliteStore};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(SqliteConfig::file(&path)).await.unwrap();
    let table = store.open_table(&TableSpec::named("kv")).await.unwrap();
    fill(&store, table).await;
    let mut hand = rusqlite::Connection::open(folder.path().join("hand.db")).unwrap();
    hand.execute_batch(
        "pragma journal_mode = wal; pragma synchronous = full; pragma cache_size = -65536;
         create table kv (key text primary key, value text, version integer) without rowid",
    )
    .unwrap();
    const UPSERT: &str = "insert into kv values (?1, ?2, ?3) on conflict (key) do update
        set value = excluded.value, version = excluded.version where version < excluded.version";
    {
        let fill = hand.transaction().unwrap();
        for key in 0..KEYS {
            let row = rusqlite::params![format!("key:{key:012}"), "x".repeat(100), 0];
            fill.prepare_cached(UPSERT).unwrap().execute(row).unwrap();
        }
        fill.commit().unwrap();
    }
    let mut random = fastrand::Rng::with_seed(7);
    let mut number = 0;
    for count in [1000, 64] {
        let (mut ours, mut theirs, mut single) = (vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            let rows = rows(&mut random, count);
            let flush = batch(table, &rows, newer(&mut number));
            let start = Instant::now();
            store.apply(&flush).await.unwrap();
            ours.push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            let all = hand.transaction().unwrap();
            for (key, value) in &rows {
                let row = rusqlite::params![key, value, number.cast_signed()];
                all.prepare_cached(UPSERT).unwrap().execute(row).unwrap();
            }
            all.commit().unwrap();
            theirs.push(start.elapsed().as_secs_f64());
            number += 1;
            let start = Instant::now();
            for (key, value) in rows.iter().take(64) {
                let row = rusqlite::params![key, value, number.cast_signed()];
                hand.prepare_cached(UPSERT).unwrap().execute(row).unwrap();
            }
            single.push(start.elapsed().as_secs_f64() * count as f64 / 64.0);
        }
        let sides = vec![
            ("tidegate, one guarded batch", ours),
            ("by hand, the same in one transaction", theirs),
            ("by hand, a transaction per row", single),
        ];
        report(&format!("sqlite, batches of {count}"), count, sides);
    }
}

#[cfg(feature = "postgres")]
async fn postgres() {
    use tidegate::postgres::{PostgresConfig, PostgresStore};
    use tidegate_testkit::servers::{Postgres, PostgresOptions};
    let options = PostgresOptions {
        fsync: true,
        settings: vec!["shared_buffers=256MB".into(), "max_wal_size=4GB".into()],
    };
    let server = tokio::task::spawn_blocking(|| Postgres::start_with(options))
        .await
        .unwrap();
    let url = server.url(&server.fresh_database());
    let config = PostgresConfig::from_url(&url).unwrap();
    let store = Arc::new(PostgresStore::open(config).await.unwrap());
    let table = store.open_table(&TableSpec::named("kv")).await.unwrap();
    fill(&*store, table).await;
    let (hand, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    hand.batch_execute(
        "create table hand (key text collate \"C\" primary key, value text, version bigint not null);
         insert into hand select key, value, version from kv",
    )
    .await
    .unwrap();
    hand.batch_execute("vacuum analyze").await.unwrap();
    let upsert = hand
        .prepare(
            "insert into hand as t select * from unnest($1::text[], $2::text[], $3::bigint[])
             on conflict (key) do update set value = excluded.value, version = excluded.version
             where t.version < excluded.version",
        )
        .await
        .unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut number = 1 << 40;
    for count in [1000, 64] {
        let (mut ours, mut always, mut theirs, mut single) = (vec![], vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            let mut rows = rows(&mut random, count);
            let guard = newer(&mut number);
            let start = Instant::now();
            store.apply(&batch(table, &rows, guard)).await.unwrap();
            ours.push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            store
                .apply(&batch(table, &rows, Guard::Always))
                .await
                .unwrap();
            always.push(start.elapsed().as_secs_f64());
            number += 10;
            let start = Instant::now();
            rows.sort();
            let keys: Vec<_> = rows.iter().map(|row| row.0.as_str()).collect();
            let values: Vec<_> = rows.iter().map(|row| row.1.as_str()).collect();
            let raw = Version::compose(7, number).raw().cast_signed();
            hand.execute(&upsert, &[&keys, &values, &vec![raw; count]])
                .await
                .unwrap();
            theirs.push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            for (key, value) in rows.iter().take(64) {
                let raw = raw + 1;
                let row: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
                    [&vec![key], &vec![value], &vec![raw]];
                hand.execute(&upsert, &row).await.unwrap();
            }
            single.push(start.elapsed().as_secs_f64() * count as f64 / 64.0);
            number += 10;
        }
        let sides = vec![
            ("tidegate, one guarded batch", ours),
            ("tidegate, one write-through batch", always),
            ("by hand, one UNNEST upsert", theirs),
            ("by hand, a transaction per row", single),
        ];
        report(&format!("postgres, batches of {count}"), count, sides);
    }
    // The same keys through more lanes: a lane has keys of its own.
    let mut sides = Vec::new();
    for (name, lanes) in [
        ("1 lane", 1),
        ("2 lanes", 2),
        ("4 lanes", 4),
        ("8 lanes", 8),
    ] {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let rows = rows(&mut random, 8000);
            let guard = newer(&mut number);
            number += 10;
            let start = Instant::now();
            let mut tasks = tokio::task::JoinSet::new();
            for lane in rows.chunks(8000 / lanes) {
                let batches: Vec<_> = lane
                    .chunks(1000)
                    .map(|rows| batch(table, rows, guard))
                    .collect();
                let store = Arc::clone(&store);
                tasks.spawn(async move {
                    for batch in batches {
                        store.apply(&batch).await.unwrap();
                    }
                });
            }
            tasks.join_all().await;
            times.push(start.elapsed().as_secs_f64());
        }
        sides.push((name, times));
    }
    report("postgres, 8 guarded batches of 1000", 8000, sides);
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        #[cfg(feature = "sqlite")]
        sqlite().await;
        #[cfg(feature = "postgres")]
        postgres().await;
    });
}
