//! What a gate over a shared cache costs, Redis and PostgreSQL behind it, each figure beside the alternative in the same
//! run:
//!
//! - a read that the shared cache answers (level linearizable) beside a bare GET of the same value through one
//!   multiplexed client, with 1, 16 and 64 readers;
//! - an acknowledged write-through write beside a bare upsert of the same row that commits by itself, with 1, 16 and 64
//!   writers; the other side has as many connections as writers.
//!
//! `cargo bench -p tidegate --features postgres,redis --bench nodes [hit|write]`. Starts its own servers. Rounds
//! alternate between the two sides; medians of five are printed, and the median of the ratios of neighbours. Nothing
//! here fails.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and ends at an error"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tidegate::port::Clock;
use tidegate::redis::RedisConfig;
use tidegate::{Gate, Source, SystemClock};
use tidegate_testkit::servers::{Postgres, PostgresOptions, Redis};
use tokio_postgres::{Client, NoTls};

const KEYS: usize = 10_000;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);
const VALUE: [u8; 100] = [b'v'; 100];

struct Scene {
    gate: Gate,
    bare: MultiplexedConnection,
    clients: Vec<Arc<Client>>,
    _redis: Redis,
    _postgres: Postgres,
}

fn key(at: usize) -> String {
    format!("key-{:06}", at % KEYS)
}

async fn scene() -> Scene {
    let redis = Redis::start();
    // As a database is that keeps what it acknowledged.
    let postgres = Postgres::start_with(PostgresOptions {
        fsync: true,
        ..PostgresOptions::default()
    });
    let database = postgres.fresh_database();
    let url = postgres.url(&database);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let config = RedisConfig::from_url(&redis.url()).unwrap();
    let cache = tidegate::open_shared_with(config, Arc::clone(&clock))
        .await
        .unwrap();
    let gate = Gate::builder()
        .clock_arc(clock)
        .store_arc(tidegate::open_store(&url).await.unwrap())
        .shared_arc(cache)
        .open()
        .await
        .unwrap();
    while gate.stats().shared.unwrap().shards_closed > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for from in (0..KEYS).step_by(500) {
        let pairs = (from..from + 500).map(|at| (key(at), VALUE.to_vec()));
        gate.set_many(pairs).await.unwrap();
    }
    let client = redis::Client::open(redis.url()).unwrap();
    let mut bare = client.get_multiplexed_async_connection().await.unwrap();
    for at in 0..KEYS {
        let set = redis::cmd("SET").arg(key(at)).arg(&VALUE[..]).to_owned();
        bare.send_packed_command(&set).await.unwrap();
    }
    let mut clients = Vec::new();
    for _ in 0..64 {
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        clients.push(Arc::new(client));
    }
    let table = "create table bare (key text primary key, value bytea not null)";
    clients[0].batch_execute(table).await.unwrap();
    for at in 0..KEYS {
        let insert = "insert into bare values ($1, $2)";
        clients[0]
            .execute(insert, &[&key(at), &&VALUE[..]])
            .await
            .unwrap();
    }
    Scene {
        gate,
        bare,
        clients,
        _redis: redis,
        _postgres: postgres,
    }
}

/// The middle of some figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Microseconds for each of what `callers` do at the same time, over and over.
async fn cost<F, G>(callers: usize, work: G) -> f64
where
    F: Future<Output = ()> + Send,
    G: Fn(usize, usize) -> F + Clone + Send + 'static,
{
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for caller in 0..callers {
        let work = work.clone();
        tasks.push(tokio::spawn(async move {
            let mut done = 0;
            while begun.elapsed() < ROUND {
                work(caller, caller * 101 + done * 7).await;
                done += 1;
            }
            done
        }));
    }
    let mut done = 0;
    for task in tasks {
        done += task.await.unwrap();
    }
    begun.elapsed().as_secs_f64() * 1e6 / done as f64
}

fn tell(what: &str, ours: Vec<f64>, theirs: Vec<f64>, beside: &str) {
    let ratio = median(ours.iter().zip(&theirs).map(|(a, b)| a / b).collect());
    println!(
        "{what}: {:.2} us; {beside}: {:.2} us; ratio {ratio:.2}",
        median(ours),
        median(theirs)
    );
}

async fn hit(scene: &Scene) {
    for readers in [1, 16, 64] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let bare = scene.bare.clone();
            let get = move |_, at| {
                let mut bare = bare.clone();
                async move {
                    let mut get = redis::cmd("GET");
                    get.arg(key(at));
                    let value: Vec<u8> = get.query_async(&mut bare).await.unwrap();
                    assert_eq!(value.len(), VALUE.len());
                }
            };
            theirs.push(cost(readers, get).await);
            let gate = scene.gate.clone();
            let read = move |_, at| {
                let gate = gate.clone();
                async move {
                    let read = gate.read(key(at).as_bytes()).await.unwrap();
                    assert_eq!(read.receipt.source, Source::Shared);
                }
            };
            ours.push(cost(readers, read).await);
        }
        tell(
            &format!("shared hit, {readers} readers"),
            ours,
            theirs,
            "bare GET",
        );
    }
}

async fn write(scene: &Scene) {
    for writers in [1, 16, 64] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let clients = scene.clients.clone();
            let mut statements = Vec::new();
            for client in &clients {
                let upsert = "insert into bare values ($1, $2)
                    on conflict (key) do update set value = excluded.value";
                statements.push(client.prepare(upsert).await.unwrap());
            }
            let upsert = move |caller: usize, at| {
                let client = Arc::clone(&clients[caller]);
                let statement = statements[caller].clone();
                async move {
                    client
                        .execute(&statement, &[&key(at), &&VALUE[..]])
                        .await
                        .unwrap();
                }
            };
            theirs.push(cost(writers, upsert).await);
            let gate = scene.gate.clone();
            let set = move |_, at| {
                let gate = gate.clone();
                async move {
                    gate.set(key(at), VALUE.to_vec()).await.unwrap();
                }
            };
            ours.push(cost(writers, set).await);
        }
        tell(
            &format!("linearizable write, {writers} writers"),
            ours,
            theirs,
            "bare upsert and commit",
        );
    }
}

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|want| want == name);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let scene = scene().await;
        if wants("hit") {
            hit(&scene).await;
        }
        if wants("write") {
            write(&scene).await;
        }
        scene.gate.drain(Duration::from_secs(5)).await.unwrap();
    });
}
