//! Random calls to Redis and to the reference in memory: every answer the same, and what can be seen after it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidegate::memory::{MemorySharedCache, SharedSettings};
use tidegate::port::{
    Ended, Expected, Flushed, Held, Life, Mark, Put, Replay, Shard, SharedCache, SharedDirty,
    SharedKey, StoreTime, Timestamp, Token, Value,
};
use tidegate::redis::RedisSharedCache;
use tidegate::{Key, SystemClock, Version};
use tidegate_testkit::servers::Redis;

use super::scene;

const SHARDS: u16 = 2;
const LONG: Duration = Duration::from_secs(3600);

struct Pair {
    memory: MemorySharedCache,
    redis: RedisSharedCache,
    random: fastrand::Rng,
    keys: Vec<SharedKey>,
    generation: u64,
    said: Vec<String>,
    /// What was answered at least once.
    seen: BTreeSet<&'static str>,
}

/// Answers that must come up, or the runs show little.
const TO_BE_SEEN: &[&str] = &[
    "Ok(Clean",
    "Ok(Dirty(",
    "Ok(Parked(",
    "Ok(Found(Clean",
    "Ok(Found(Dirty",
    "Ok(Lease(None",
    "Ok(Lease(Some",
    "Ok(Wait(None",
    "Ok(Wait(Some",
    "Ok(Bypass",
    "Ok(Quarantined",
    "Ok(Dirty)",
    "Ok(Dirty {",
    "existed: None",
    "existed: Some(true)",
    "existed: Some(false)",
    "Ok(Changed",
    "Ok(Busy",
    "Ok(Full",
    "Ok([Claimed",
    "base: Some",
    "Ok([(Claimed",
    "is_open: true",
    "is_current: true, is_open: false",
    "NeedsGeneration",
    "in quarantine",
];

/// Does the same to both and compares.
macro_rules! both {
    ($pair:expr, $($call:tt)+) => {{
        let memory = $pair.memory.$($call)+.await;
        let redis = $pair.redis.$($call)+.await;
        let (memory, redis) = (format!("{memory:?}"), format!("{redis:?}"));
        let said = format!("{} = {memory}", stringify!($($call)+));
        $pair.seen.extend(TO_BE_SEEN.iter().filter(|answer| memory.contains(**answer)));
        assert_eq!(memory, redis, "{said}\nafter\n{}", $pair.said.join("\n"));
        $pair.said.push(said);
    }};
}

impl Pair {
    fn below(&mut self, bound: u64) -> u64 {
        self.random.u64(0..bound)
    }

    fn key(&mut self) -> SharedKey {
        let at = self.random.usize(0..self.keys.len());
        self.keys[at].clone()
    }

    fn token(&mut self) -> Token {
        // The first and the last byte differ, and all are used.
        Token([1, 0xff00_0000_0000_0002, u64::MAX, 0][usize::try_from(self.below(4)).unwrap()])
    }

    fn version(&mut self) -> Version {
        let generation = self.below(3) + self.generation.saturating_sub(1);
        Version::compose(generation, self.below(6) + (self.below(2) << 32))
    }

    fn value(&mut self) -> Option<Value> {
        let length = usize::try_from(self.below(12)).unwrap();
        let bytes: Vec<u8> = (0..length).map(|_| self.random.u8(..)).collect();
        let end = self.below(3);
        (self.below(4) > 0).then(|| Value {
            bytes: bytes.into(),
            expires_at: (end > 0).then(|| Timestamp::from_millis(end * 1000)),
        })
    }

    fn held(&mut self) -> Held {
        Held {
            version: self.version(),
            value: self.value(),
        }
    }

    fn now(&mut self) -> Timestamp {
        Timestamp::from_millis(500 + self.below(5) * 500)
    }

    fn life(&mut self) -> Life {
        Life {
            fresh_until: self.now(),
            kept_for: LONG,
        }
    }

    fn ended(&mut self) -> Ended {
        match self.below(4) {
            0 => Ended::Aborted,
            1 => Ended::CommittedUnseen(self.version()),
            _ => Ended::Committed {
                held: self.held(),
                life: self.life(),
            },
        }
    }

    fn flushed(&mut self) -> Flushed {
        match self.below(8) {
            0 => Flushed::Again(self.now()),
            1 => Flushed::Over(self.version()),
            2 | 3 => Flushed::Parked("no such column\u{0}ä".into()),
            4 => Flushed::Dropped,
            _ => Flushed::Stored(self.life()),
        }
    }

    /// The version of what the key holds, so that not all guesses are wrong.
    async fn version_of(&mut self, key: &SharedKey) -> Version {
        use tidegate::port::Got;
        let guess = self.version();
        let got = self.memory.get(std::slice::from_ref(key)).await.pop();
        match got {
            Some(Ok(Got::Clean { held, .. } | Got::Dirty(held) | Got::Parked(held)))
                if self.below(4) > 0 =>
            {
                held.version
            }
            _ => guess,
        }
    }

    async fn step(&mut self, server: &Redis) {
        let (key, token, now) = (self.key(), self.token(), self.now());
        match self.below(42) {
            0..4 => both!(self, ask(&[scene::ask(&key, token.0)], now)),
            4..8 => {
                let mut fill = scene::fill(&key, token.0, self.held());
                fill.life = self.life();
                both!(self, fill(std::slice::from_ref(&fill)));
            }
            8..12 => {
                let micros = [-5, 1, 3, i64::MAX][usize::try_from(self.below(4)).unwrap()];
                let commit_by = StoreTime::from_micros(micros);
                let mark = Mark {
                    key,
                    token,
                    commit_by,
                };
                both!(self, mark(std::slice::from_ref(&mark)));
            }
            12..17 => {
                let release = scene::release(&key, token.0, self.ended());
                both!(self, release(std::slice::from_ref(&release)));
            }
            17 => both!(self, sweep(&[(key.clone(), token)])),
            18 | 19 => {
                let version = self.version();
                both!(self, invalidate(&[(key.clone(), version)]));
            }
            20 => both!(self, evict(std::slice::from_ref(&key))),
            // A copy past its freshness, for which two ask.
            21 if self.below(2) == 0 => {
                let mut fill = scene::fill(&key, token.0, self.held());
                fill.life.fresh_until = now;
                both!(self, evict(std::slice::from_ref(&key)));
                both!(self, ask(&[scene::ask(&key, token.0)], now));
                both!(self, fill(std::slice::from_ref(&fill)));
                both!(self, ask(&[scene::ask(&key, token.0)], now));
                both!(self, ask(&[scene::ask(&key, token.0 ^ 1)], now));
            }
            21 if self.below(2) == 0 => both!(self, clear()),
            21..28 => {
                let expected = match self.below(3) {
                    0 => Expected::Version(self.version_of(&key).await),
                    _ => Expected::Any,
                };
                let put = Put {
                    key,
                    value: self.value(),
                    expected,
                    now,
                    shard_bytes_max: [u64::MAX, 420, 150][usize::try_from(self.below(3)).unwrap()],
                };
                both!(self, put(std::slice::from_ref(&put)));
            }
            28..31 => {
                let (shard, limit) = (Shard(u16::try_from(self.below(2)).unwrap()), self.below(3));
                let limit = usize::try_from(limit).unwrap();
                let claim_for = Duration::from_millis(self.below(3) * 500);
                both!(self, claim(shard, limit, now, claim_for));
            }
            31..36 => {
                let version = self.version_of(&key).await;
                let flushed = self.flushed();
                both!(self, settle(&[(key.clone(), version, flushed.clone())]));
            }
            36 => {
                let version = self.version_of(&key).await;
                both!(self, unpark(&[(key.clone(), version)], now));
            }
            37 => {
                let base = self.version();
                let replay = Replay {
                    key,
                    held: self.held(),
                    base: (self.below(2) == 0).then_some(base),
                    now,
                };
                both!(self, replay(std::slice::from_ref(&replay)));
            }
            38 if self.below(4) == 0 => {
                self.said.push("everything is lost".to_owned());
                self.memory.lose_everything();
                server.flush_all();
            }
            39 if self.below(4) == 0 => {
                self.said.push("another server takes over".to_owned());
                let snapshot = self.memory.snapshot();
                self.memory.restart(Some(snapshot));
                server.tell(&["DEBUG", "CHANGE-REPL-ID"]);
                // The connection is left when a generation is to be raised, or soon by itself.
                let before = Duration::from_secs(20);
                let taken = async {
                    while !matches!(
                        self.redis.get(&self.keys[..1]).await.pop(),
                        Some(Err(tidegate::port::SharedError::NeedsGeneration { .. }))
                    ) {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(before, taken)
                    .await
                    .expect("it becomes another");
            }
            38 | 39 => {
                self.generation += self.below(3);
                let generation = self.generation;
                both!(self, open_generation(&[Shard(0), Shard(1)], generation));
            }
            _ => {
                let generation = self.generation - self.below(2).min(self.generation);
                both!(self, open(&[Shard(0), Shard(1)], generation));
            }
        }
        let keys = self.keys.clone();
        let shards = [Shard(0), Shard(1), Shard(2)];
        both!(self, get(&keys));
        both!(self, shard_states(&shards));
        both!(self, dirty(&shards));
        for shard in [Shard(0), Shard(1)] {
            // Equal deadlines are in no order.
            let before = StoreTime::from_micros(4);
            let sorted = |marks: Vec<tidegate::port::Leftover>| {
                let mut marks: Vec<_> = marks.iter().map(|mark| format!("{mark:?}")).collect();
                marks.sort();
                marks
            };
            let memory = self.memory.leftovers(shard, before, 100).await.map(sorted);
            let redis = self.redis.leftovers(shard, before, 100).await.map(sorted);
            let (memory, redis) = (format!("{memory:?}"), format!("{redis:?}"));
            assert_eq!(memory, redis, "leftovers after\n{}", self.said.join("\n"));
            both!(self, parked(shard, 100));
        }
        let told = self.said.len().saturating_sub(120);
        self.said.drain(..told);
    }
}

async fn run(seed: u64, steps: u32, server: &Redis) -> BTreeSet<&'static str> {
    server.flush_all();
    let clock = Arc::new(SystemClock::new());
    let memory = MemorySharedCache::new(
        clock,
        SharedSettings {
            shards: SHARDS,
            lease: LONG,
        },
    );
    let urls = [server.url()];
    let redis = scene::open(&urls, |config| {
        config.shards = SHARDS;
        config.lease = LONG;
    });
    let key = |bytes: &[u8]| SharedKey {
        class: "a-b_1".into(),
        key: Key::copy_from(bytes),
    };
    let mut pair = Pair {
        memory,
        redis: redis.await.expect("the server is there"),
        random: fastrand::Rng::with_seed(seed),
        keys: vec![key(b"a"), key(b"}:{\0\r\n\xff"), key(b"")],
        generation: 1,
        said: vec![format!("seed {seed}")],
        seen: BTreeSet::new(),
    };
    both!(pair, open_generation(&[Shard(0), Shard(1)], 1));
    both!(pair, open(&[Shard(0), Shard(1)], 1));
    for _ in 0..steps {
        pair.step(server).await;
    }
    pair.seen
}

#[tokio::test]
async fn redis_and_memory_answer_the_same() {
    let server = Redis::start_with(&["--enable-debug-command", "yes"]);
    let seeds = std::env::var("TIDEGATE_SEEDS").ok();
    let seeds = seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(12);
    let mut seen = BTreeSet::new();
    for seed in 0..seeds {
        seen.append(&mut run(seed, 250, &server).await);
    }
    let unseen: Vec<_> = TO_BE_SEEN
        .iter()
        .filter(|answer| !seen.contains(*answer))
        .collect();
    assert!(unseen.is_empty(), "{unseen:?}");
}
