//! Misses with 64 readers, beside single selects: over as many connections, and over the 16 that suit a
//! small machine better.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::Gate;
use tidegate_testkit::servers::{Postgres, PostgresOptions};
use tokio_postgres::NoTls;

use super::keys::key;
use super::median;

const KEYS: usize = 100_000;
const READERS: usize = 64;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);

pub(crate) fn run() {
    let server = Postgres::start_with(PostgresOptions {
        fsync: true,
        ..PostgresOptions::default()
    });
    let url = server.url(&server.fresh_database());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = tidegate::open_store(&url).await.unwrap();
        let gate = tidegate::builder().store_arc(store).open().await.unwrap();
        for chunk in (0..KEYS).collect::<Vec<_>>().chunks(2_000) {
            gate.set_many(chunk.iter().map(|rank| (key(*rank), vec![b'v'; 100]))).await.unwrap();
        }
        let (mut ours, mut many, mut few) = (Vec::new(), Vec::new(), Vec::new());
        let all = connect(&url, READERS).await;
        let some = connect(&url, 16).await;
        for _ in 0..ROUNDS {
            many.push(selects(&all).await);
            few.push(selects(&some).await);
            ours.push(misses(&gate).await);
        }
        let ratio = |theirs: &[f64]| median(ours.iter().zip(theirs).map(|(a, b)| a / b).collect());
        println!(
            "misses, {READERS} readers: {:.0}/s; single selects over {READERS} connections: {:.0}/s, ratio {:.1}; \
             over 16 connections: {:.0}/s, ratio {:.1}",
            median(ours.clone()),
            median(many.clone()),
            ratio(&many),
            median(few.clone()),
            ratio(&few),
        );
        gate.drain(Duration::from_secs(30)).await.unwrap();
    });
}

async fn connect(url: &str, count: usize) -> Arc<Vec<tokio_postgres::Client>> {
    let mut pool = Vec::with_capacity(count);
    for _ in 0..count {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        pool.push(client);
    }
    Arc::new(pool)
}

/// As many readers as connections, each waiting for its own select.
async fn selects(pool: &Arc<Vec<tokio_postgres::Client>>) -> f64 {
    let start = Instant::now();
    let readers: Vec<_> = (0..pool.len())
        .map(|reader| {
            let pool = Arc::clone(pool);
            tokio::spawn(async move {
                let client = &pool[reader];
                let select = "select value, version, expires_at from entries where key = $1";
                let select = client.prepare(select).await.unwrap();
                let mut random = fastrand::Rng::new();
                let mut count = 0_usize;
                while start.elapsed() < ROUND {
                    let key = key(random.usize(..KEYS));
                    client.query_one(&select, &[&key]).await.unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    total(start, readers).await
}

async fn misses(gate: &Gate) -> f64 {
    let start = Instant::now();
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let gate = gate.clone();
            tokio::spawn(async move {
                let mut random = fastrand::Rng::new();
                let mut count = 0_usize;
                while start.elapsed() < ROUND {
                    let key = key(random.usize(..KEYS));
                    gate.evict(key.as_bytes());
                    assert!(gate.get(&key).await.unwrap().is_some());
                    count += 1;
                }
                count
            })
        })
        .collect();
    total(start, readers).await
}

async fn total(start: Instant, readers: Vec<tokio::task::JoinHandle<usize>>) -> f64 {
    let mut count = 0;
    for reader in readers {
        count += reader.await.unwrap();
    }
    count as f64 / start.elapsed().as_secs_f64()
}
