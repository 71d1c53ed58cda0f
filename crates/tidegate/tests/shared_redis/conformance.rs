//! Redis does what every shared cache must do: one server, and a cluster.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate::SystemClock;
use tidegate::port::{BoxFuture, Clock, SharedCache};
use tidegate::redis::{RedisConfig, RedisSharedCache};
use tidegate_testkit::conformance::shared_cache::{
    Differential, MemoryScene, Scene, differential, run,
};
use tidegate_testkit::proxy::{Faults, Proxy};
use tidegate_testkit::servers::{Redis, RedisAnswer, RedisAppend, RedisCluster, RedisOptions};

use super::scene::clock;

/// A server behind a proxy, which stands for its address when another takes over.
struct Server {
    cache: Arc<RedisSharedCache>,
    clock: Arc<SystemClock>,
    proxy: Proxy,
    servers: Mutex<Servers>,
}

struct Servers {
    primary: Redis,
    replica: Option<Redis>,
}

fn address(redis: &Redis) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, redis.port()))
}

async fn open(urls: &[String], clock: &Arc<SystemClock>, lease: Duration) -> RedisSharedCache {
    let mut config = RedisConfig::from_urls(urls.iter().map(String::as_str)).unwrap();
    config.shards = 8;
    config.lease = lease;
    let clock: Arc<SystemClock> = Arc::clone(clock);
    RedisSharedCache::open(config, clock).await.unwrap()
}

/// A server without replicas takes a new replication history when the first one comes, and with it another identity:
/// a case that has one come would need a new generation in its middle. So the first one comes here.
fn settle_history(server: &Redis) {
    let mut first = TcpStream::connect(address(server)).unwrap();
    first.write_all(b"PSYNC ? -1\r\n").unwrap();
    let mut answer = [0; 11];
    first.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+FULLRESYNC");
}

impl Server {
    async fn start() -> Self {
        let primary = Redis::start_as(RedisOptions {
            append: RedisAppend::Always,
            ..RedisOptions::default()
        });
        settle_history(&primary);
        let proxy = Proxy::start(address(&primary), 1).await.unwrap();
        let urls = [format!("redis://127.0.0.1:{}", proxy.port())];
        let clock = clock();
        let servers = Servers {
            primary,
            replica: None,
        };
        Self {
            cache: Arc::new(open(&urls, &clock, Duration::from_millis(200)).await),
            clock,
            proxy,
            servers: Mutex::new(servers),
        }
    }

    fn servers(&self) -> MutexGuard<'_, Servers> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn done() -> BoxFuture<'static, bool> {
    Box::pin(std::future::ready(true))
}

impl Scene for Server {
    fn cache(&self) -> Arc<dyn SharedCache> {
        Arc::clone(&self.cache) as Arc<dyn SharedCache>
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    fn lose_everything(&self) -> BoxFuture<'_, bool> {
        self.servers().primary.flush_all();
        done()
    }

    fn restart(&self) -> BoxFuture<'_, bool> {
        let mut servers = self.servers();
        servers.primary.kill9();
        servers.primary.restart();
        done()
    }

    fn save(&self) -> BoxFuture<'_, bool> {
        let mut servers = self.servers();
        let mut replica = Redis::start_as(RedisOptions {
            replica_of: Some(servers.primary.port()),
            ..RedisOptions::default()
        });
        replica.wait_until_in_step_with(&servers.primary);
        replica.promote();
        servers.replica = Some(replica);
        done()
    }

    fn fail_over(&self) -> BoxFuture<'_, bool> {
        let mut servers = self.servers();
        servers.primary = servers.replica.take().expect("it was saved");
        self.proxy.set_target(address(&servers.primary));
        self.proxy.cut_all();
        done()
    }

    fn refuse(&self, refuses: bool) -> BoxFuture<'_, bool> {
        if refuses {
            self.proxy.set(Faults {
                refuse: true,
                ..Faults::default()
            });
            self.proxy.cut_all();
        } else {
            self.proxy.heal();
        }
        done()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_keeps_the_contract() {
    run(|_case| async { Arc::new(Server::start().await) as Arc<dyn Scene> }).await;
}

/// A cluster that all cases have one after the other.
struct Cluster {
    cache: Arc<RedisSharedCache>,
    clock: Arc<SystemClock>,
    servers: Arc<RedisCluster>,
}

impl Cluster {
    async fn new(servers: &Arc<RedisCluster>, lease: Duration) -> Self {
        for node in servers.nodes() {
            node.flush_all();
        }
        let clock = clock();
        Self {
            cache: Arc::new(open(&servers.urls(), &clock, lease).await),
            clock,
            servers: Arc::clone(servers),
        }
    }
}

impl Scene for Cluster {
    fn cache(&self) -> Arc<dyn SharedCache> {
        Arc::clone(&self.cache) as Arc<dyn SharedCache>
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    fn lose_everything(&self) -> BoxFuture<'_, bool> {
        for node in self.servers.nodes() {
            node.flush_all();
        }
        done()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_the_contract() {
    let servers = Arc::new(RedisCluster::start());
    let short = Duration::from_millis(200);
    run(|_case| async { Arc::new(Cluster::new(&servers, short).await) as Arc<dyn Scene> }).await;
}

const LONG: Duration = Duration::from_secs(36_000);

/// A key with its time to live and what it holds.
type Saved = (Vec<u8>, i64, Vec<u8>);

/// A server that becomes another, and goes back to what it had, at a word.
struct Changeling {
    cache: Arc<RedisSharedCache>,
    clock: Arc<SystemClock>,
    server: Arc<Redis>,
    saved: Mutex<Vec<Saved>>,
}

impl Changeling {
    /// The server takes a new history, and the connection is made to it.
    async fn become_another(&self) -> bool {
        self.server.tell(&["DEBUG", "CHANGE-REPL-ID"]);
        // The first finds out, and leaves.
        let _ = self.cache.ping().await;
        while self.cache.ping().await.is_err() {
            tokio::task::yield_now().await;
        }
        true
    }

    fn keys(&self) -> Vec<Vec<u8>> {
        let RedisAnswer::List(keys) = self.server.tell(&["KEYS", "*"]) else {
            return Vec::new();
        };
        let key = |answer| match answer {
            RedisAnswer::Text(key) => Some(key),
            _ => None,
        };
        keys.into_iter().filter_map(key).collect()
    }
}

impl Scene for Changeling {
    fn cache(&self) -> Arc<dyn SharedCache> {
        Arc::clone(&self.cache) as Arc<dyn SharedCache>
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    fn lose_everything(&self) -> BoxFuture<'_, bool> {
        self.server.flush_all();
        done()
    }

    fn restart(&self) -> BoxFuture<'_, bool> {
        Box::pin(self.become_another())
    }

    fn save(&self) -> BoxFuture<'_, bool> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        saved.clear();
        for key in self.keys() {
            let life = match self.server.tell(&[b"PTTL", &key[..]]) {
                RedisAnswer::Integer(life) => life.max(0),
                other => panic!("no time to live: {other:?}"),
            };
            if let RedisAnswer::Text(content) = self.server.tell(&[b"DUMP", &key[..]]) {
                saved.push((key, life, content));
            }
        }
        done()
    }

    fn fail_over(&self) -> BoxFuture<'_, bool> {
        self.server.flush_all();
        for (key, life, content) in &*self.saved.lock().unwrap_or_else(PoisonError::into_inner) {
            let life = life.to_string();
            self.server
                .tell(&[b"RESTORE", &key[..], life.as_bytes(), content]);
        }
        Box::pin(self.become_another())
    }
}

/// The number of seeds: few unless more are asked for.
fn seeds() -> u64 {
    let seeds = std::env::var("TIDEGATE_SEEDS").ok();
    seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(4)
}

#[tokio::test]
async fn one_server_and_the_reference_do_not_differ() {
    let server = Arc::new(Redis::start_with(&["--enable-debug-command", "yes"]));
    for seed in 0..seeds() {
        server.flush_all();
        let clock = clock();
        let changeling = Changeling {
            cache: Arc::new(open(&[server.url()], &clock, LONG).await),
            clock,
            server: Arc::clone(&server),
            saved: Mutex::default(),
        };
        let settings = Differential {
            seed,
            steps: 500,
            losses: true,
            failovers: true,
            ..Differential::default()
        };
        differential(settings, reference(), Arc::new(changeling)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_and_the_reference_do_not_differ() {
    let servers = Arc::new(RedisCluster::start());
    for seed in 100..100 + seeds() {
        let settings = Differential {
            seed,
            steps: 500,
            losses: true,
            ..Differential::default()
        };
        let cluster = Arc::new(Cluster::new(&servers, LONG).await);
        differential(settings, reference(), cluster).await;
    }
}

fn reference() -> Arc<dyn Scene> {
    Arc::new(MemoryScene::with(tidegate::memory::SharedSettings {
        shards: 8,
        lease: LONG,
    }))
}
