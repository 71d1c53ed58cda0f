//! Write-through with 64 writers, beside 64 connections that each commit one upsert at a time; and beside the
//! most that batching by hand could give: one connection that commits 64 drawn rows at a time in one statement,
//! without versions, readers or callers to answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate::Gate;
use tidegate_testkit::servers::{Postgres, PostgresOptions};
use tokio::sync::Barrier;
use tokio_postgres::NoTls;

use super::keys::{Zipf, key};
use super::{median, percentile};

const KEYS: usize = 100_000;
const WRITERS: usize = 64;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(4);

/// Writes per second, and the latency of each write.
type Measured = (f64, Vec<Duration>);

pub(crate) fn run() {
    let server = Postgres::start_with(PostgresOptions {
        fsync: true,
        ..PostgresOptions::default()
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    for (name, exponent) in [("uniform", 0.0), ("hot keys (zipf 0.99)", 0.99)] {
        let database = server.fresh_database();
        let url = server.url(&database);
        let zipf = Arc::new(Zipf::new(KEYS, exponent));
        let (mut ours, mut theirs, mut batched) = (Vec::new(), Vec::new(), Vec::new());
        let (mut our_latency, mut their_latency) = (Vec::new(), Vec::new());
        runtime.block_on(async {
            let gate = open(&url).await;
            let pool = connect(&url).await;
            for _ in 0..ROUNDS {
                let (rate, mut latencies) = plain(&pool, &zipf).await;
                theirs.push(rate);
                their_latency.append(&mut latencies);
                batched.push(by_hand(&pool[0], &zipf).await);
                let (rate, mut latencies) = through(&gate, &zipf).await;
                ours.push(rate);
                our_latency.append(&mut latencies);
            }
            gate.drain(Duration::from_secs(30)).await.unwrap();
        });
        let ratio = median(ours.iter().zip(&theirs).map(|(a, b)| a / b).collect());
        let share = median(ours.iter().zip(&batched).map(|(a, b)| a / b).collect());
        println!(
            "write-through, {WRITERS} writers, {name}: {:.0}/s, p50 {:?}, p99 {:?}; one upsert per transaction \
             over {WRITERS} connections: {:.0}/s, p50 {:?}, p99 {:?}; ratio {ratio:.1}; batches of {WRITERS} by \
             hand: {:.0}/s, of which ours is {share:.2}",
            median(ours),
            percentile(&mut our_latency, 0.5),
            percentile(&mut our_latency, 0.99),
            median(theirs),
            percentile(&mut their_latency, 0.5),
            percentile(&mut their_latency, 0.99),
            median(batched),
        );
    }
}

async fn open(url: &str) -> Gate {
    let store = tidegate::open_store(url).await.unwrap();
    let mut builder = tidegate::builder().store_arc(store);
    if let Some(lanes) = std::env::var("TIDEGATE_LANES")
        .ok()
        .and_then(|lanes| lanes.parse().ok())
    {
        builder = builder.lanes(lanes);
    }
    builder.open().await.unwrap()
}

async fn connect(url: &str) -> Arc<Vec<tokio_postgres::Client>> {
    let mut pool = Vec::with_capacity(WRITERS);
    for _ in 0..WRITERS {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        pool.push(client);
    }
    let table = "create table if not exists plain (key text collate \"C\" primary key, value text not null, \
                 updated_at timestamptz not null default now())";
    pool[0].batch_execute(table).await.unwrap();
    Arc::new(pool)
}

/// Keys and values drawn before the clock starts, used in turn.
struct Drawn {
    pairs: Vec<(String, String)>,
    next: usize,
}

impl Drawn {
    fn new(zipf: &Zipf) -> Self {
        let mut random = fastrand::Rng::new();
        let mut pair = || {
            (
                key(zipf.draw(&mut random)),
                format!("{:0100}", random.u64(..)),
            )
        };
        Self {
            pairs: (0..8192).map(|_| pair()).collect(),
            next: 0,
        }
    }

    fn next(&mut self) -> &(String, String) {
        self.next += 1;
        &self.pairs[self.next % self.pairs.len()]
    }
}

async fn plain(pool: &Arc<Vec<tokio_postgres::Client>>, zipf: &Arc<Zipf>) -> Measured {
    let ready = Arc::new(Barrier::new(WRITERS));
    let writers = (0..WRITERS).map(|writer| {
        let (pool, zipf, ready) = (Arc::clone(pool), Arc::clone(zipf), Arc::clone(&ready));
        tokio::spawn(async move {
            let client = &pool[writer];
            let upsert = "insert into plain (key, value) values ($1, $2) \
                          on conflict (key) do update set value = excluded.value, updated_at = now()";
            let upsert = client.prepare(upsert).await.unwrap();
            let mut drawn = Drawn::new(&zipf);
            let mut latencies = Vec::new();
            ready.wait().await;
            let start = Instant::now();
            while start.elapsed() < ROUND {
                let (key, value) = drawn.next();
                let began = Instant::now();
                client.execute(&upsert, &[key, value]).await.unwrap();
                latencies.push(began.elapsed());
            }
            latencies
        })
    });
    gather(writers.collect()).await
}

/// Rows per second of batches of as many writes as there are writers; of a key drawn twice the last counts.
async fn by_hand(client: &tokio_postgres::Client, zipf: &Zipf) -> f64 {
    let upsert = "insert into plain (key, value) select * from unnest($1::text[], $2::text[]) \
                  on conflict (key) do update set value = excluded.value, updated_at = now()";
    let upsert = client.prepare(upsert).await.unwrap();
    let mut drawn = Drawn::new(zipf);
    let (start, mut writes) = (Instant::now(), 0_usize);
    while start.elapsed() < ROUND {
        let rows: BTreeMap<String, String> = (0..WRITERS).map(|_| drawn.next().clone()).collect();
        let (keys, values): (Vec<String>, Vec<String>) = rows.into_iter().unzip();
        client.execute(&upsert, &[&keys, &values]).await.unwrap();
        writes += WRITERS;
    }
    writes as f64 / start.elapsed().as_secs_f64()
}

async fn through(gate: &Gate, zipf: &Arc<Zipf>) -> Measured {
    let ready = Arc::new(Barrier::new(WRITERS));
    let writers = (0..WRITERS).map(|_| {
        let (gate, zipf, ready) = (gate.clone(), Arc::clone(zipf), Arc::clone(&ready));
        tokio::spawn(async move {
            let mut drawn = Drawn::new(&zipf);
            let mut latencies = Vec::new();
            ready.wait().await;
            let start = Instant::now();
            while start.elapsed() < ROUND {
                let (key, value) = drawn.next();
                let began = Instant::now();
                gate.set(key, Bytes::copy_from_slice(value.as_bytes()))
                    .await
                    .unwrap();
                latencies.push(began.elapsed());
            }
            latencies
        })
    });
    gather(writers.collect()).await
}

async fn gather(writers: Vec<tokio::task::JoinHandle<Vec<Duration>>>) -> Measured {
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.append(&mut writer.await.unwrap());
    }
    (latencies.len() as f64 / ROUND.as_secs_f64(), latencies)
}
