//! What the shared cache in Redis costs, each figure beside the alternative in the same run:
//!
//! - a hit by `get` beside a bare GET of the same value through the same client, with 1, 16 and 64 readers;
//! - what a miss adds to its load (ask and fill), and what a write adds to its commit (mark and release), for each key,
//!   alone and in batches of 64, beside a bare SET in a pipeline of as many.
//!
//! `cargo bench -p tidegate --features redis --bench shared [hit|miss|write]`. Starts its own Redis, and uses one thread
//! on both sides, for the server needs the other. Rounds alternate between the two sides; medians of five are printed,
//! and the median of the ratios of neighbours. Nothing here fails.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and ends at an error"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tidegate::port::{
    Ask, Ended, Fill, Held, Life, Mark, Release, Shard, SharedCache, SharedKey, StoreTime,
    Timestamp, Token, Value,
};
use tidegate::redis::{RedisConfig, RedisSharedCache};
use tidegate::{Key, SystemClock, Version};
use tidegate_testkit::servers::Redis;

const KEYS: usize = 10_000;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);
const VALUE: [u8; 100] = [b'v'; 100];

struct Scene {
    cache: Arc<RedisSharedCache>,
    bare: MultiplexedConnection,
    keys: Arc<Vec<SharedKey>>,
    _server: Redis,
}

fn bare_key(at: usize) -> String {
    format!("bare:{{s{}}}:session:key-{at:06}", at % 256)
}

async fn scene() -> Scene {
    let server = Redis::start();
    let config = RedisConfig::from_url(&server.url()).unwrap();
    let cache = RedisSharedCache::open(config, Arc::new(SystemClock::new()));
    let cache = Arc::new(cache.await.unwrap());
    let shards: Vec<_> = (0..cache.shards()).map(Shard).collect();
    for state in cache.open_generation(&shards, 1).await {
        state.unwrap();
    }
    for opened in cache.open(&shards, 1).await {
        assert!(opened.unwrap());
    }
    let client = redis::Client::open(server.url()).unwrap();
    let mut bare = client.get_multiplexed_async_connection().await.unwrap();
    let key = |at: usize| SharedKey {
        class: "session".into(),
        key: Key::from(format!("key-{at:06}")),
    };
    let keys: Vec<_> = (0..KEYS).map(key).collect();
    for chunk in keys.chunks(500) {
        miss(&cache, chunk).await;
    }
    for at in 0..KEYS {
        let set = redis::cmd("SET")
            .arg(bare_key(at))
            .arg(&VALUE[..])
            .to_owned();
        bare.send_packed_command(&set).await.unwrap();
    }
    Scene {
        cache,
        bare,
        keys: Arc::new(keys),
        _server: server,
    }
}

fn held(version: u64) -> Held {
    Held {
        version: Version::from_raw(version),
        value: Some(Value {
            bytes: VALUE.to_vec().into(),
            expires_at: None,
        }),
    }
}

fn life() -> Life {
    Life {
        fresh_until: Timestamp::from_millis(u64::MAX),
        kept_for: Duration::from_secs(3600),
    }
}

/// Asks and fills.
async fn miss(cache: &RedisSharedCache, keys: &[SharedKey]) {
    let token = Token(7);
    let ask = |key: &SharedKey| Ask {
        key: key.clone(),
        token,
    };
    let asks: Vec<_> = keys.iter().map(ask).collect();
    for asked in cache.ask(&asks, Timestamp::from_millis(1)).await {
        asked.unwrap();
    }
    let fill = |key: &SharedKey| Fill {
        key: key.clone(),
        token,
        held: held(1),
        life: life(),
    };
    let fills: Vec<_> = keys.iter().map(fill).collect();
    for filled in cache.fill(&fills).await {
        assert!(filled.unwrap());
    }
}

/// Marks and releases.
async fn write(cache: &RedisSharedCache, keys: &[SharedKey], version: u64) {
    let token = Token(version);
    let mark = |key: &SharedKey| Mark {
        key: key.clone(),
        token,
        commit_by: StoreTime::from_micros(1),
    };
    let marks: Vec<_> = keys.iter().map(mark).collect();
    for marked in cache.mark(&marks).await {
        marked.unwrap();
    }
    let release = |key: &SharedKey| Release {
        key: key.clone(),
        token,
        ended: Ended::Committed {
            held: held(version),
            life: life(),
        },
    };
    let releases: Vec<_> = keys.iter().map(release).collect();
    for released in cache.release(&releases).await {
        released.unwrap();
    }
}

/// The middle of some figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Microseconds for each of what `readers` do at the same time, over and over.
async fn cost<F, G>(readers: usize, keys_each: usize, work: G) -> f64
where
    F: Future<Output = ()> + Send,
    G: Fn(usize) -> F + Clone + Send + 'static,
{
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for reader in 0..readers {
        let work = work.clone();
        tasks.push(tokio::spawn(async move {
            let mut done = 0;
            while begun.elapsed() < ROUND {
                work(reader * 101 + done * 7).await;
                done += 1;
            }
            done
        }));
    }
    let mut done = 0;
    for task in tasks {
        done += task.await.unwrap();
    }
    begun.elapsed().as_secs_f64() * 1e6 / (done * keys_each) as f64
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
            theirs.push(
                cost(readers, 1, move |at| {
                    let mut bare = bare.clone();
                    async move {
                        let mut get = redis::cmd("GET");
                        get.arg(bare_key(at % KEYS));
                        let value: Vec<u8> = get.query_async(&mut bare).await.unwrap();
                        assert_eq!(value.len(), VALUE.len());
                    }
                })
                .await,
            );
            let (cache, keys) = (Arc::clone(&scene.cache), Arc::clone(&scene.keys));
            ours.push(
                cost(readers, 1, move |at| {
                    let (cache, keys) = (Arc::clone(&cache), Arc::clone(&keys));
                    async move {
                        let key = &keys[at % KEYS];
                        let got = cache.get(std::slice::from_ref(key)).await.pop().unwrap();
                        assert!(matches!(got, Ok(tidegate::port::Got::Clean { .. })));
                    }
                })
                .await,
            );
        }
        tell(&format!("hit, {readers} readers"), ours, theirs, "bare GET");
    }
}

async fn bare_sets(bare: &mut MultiplexedConnection, at: usize, count: usize) {
    let mut sets = redis::Pipeline::new();
    for at in at..at + count {
        sets.cmd("SET")
            .arg(bare_key(at % KEYS))
            .arg(&VALUE[..])
            .ignore();
    }
    sets.query_async::<()>(bare).await.unwrap();
}

async fn changes(scene: &Scene, is_write: bool) {
    for batch in [1, 64] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let bare = scene.bare.clone();
            theirs.push(
                cost(1, batch, move |at| {
                    let mut bare = bare.clone();
                    async move { bare_sets(&mut bare, at, batch).await }
                })
                .await,
            );
            let (cache, keys) = (Arc::clone(&scene.cache), Arc::clone(&scene.keys));
            if !is_write {
                cache.clear().await.unwrap();
            }
            let ends = Arc::new(std::sync::atomic::AtomicUsize::new(0));
            ours.push(
                cost(1, batch, move |_| {
                    let (cache, keys) = (Arc::clone(&cache), Arc::clone(&keys));
                    let round = ends.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    async move {
                        let from = round * batch % (KEYS - KEYS % batch);
                        let keys = &keys[from..from + batch];
                        if is_write {
                            write(&cache, keys, round as u64 + 2).await;
                        } else {
                            if from == 0 && round > 0 {
                                cache.clear().await.unwrap();
                            }
                            miss(&cache, keys).await;
                        }
                    }
                })
                .await,
            );
        }
        let what = match is_write {
            true => format!("mark and release, batches of {batch}"),
            false => format!("ask and fill, batches of {batch}"),
        };
        tell(&what, ours, theirs, "bare SET");
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
        if wants("miss") {
            changes(&scene, false).await;
        }
        if wants("write") {
            changes(&scene, true).await;
        }
    });
}
