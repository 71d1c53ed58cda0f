//! What the tests of the shared cache in Redis have in common: a server, a cache over it, and short words for things.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate::port::{
    Ask, Ended, Expected, Fill, Held, Life, Mark, Put, Release, Shard, SharedCache, SharedError,
    SharedKey, StoreTime, Timestamp, Token, Value,
};
use tidegate::redis::{RedisConfig, RedisSharedCache};
use tidegate::{Key, SystemClock, Version};

/// A class name and a key.
pub(crate) fn key(key: impl AsRef<[u8]>) -> SharedKey {
    SharedKey {
        class: "session".into(),
        key: Key::copy_from(key.as_ref()),
    }
}

pub(crate) fn held(version: u64, value: impl Into<Bytes>) -> Held {
    Held {
        version: Version::from_raw(version),
        value: Some(Value {
            bytes: value.into(),
            expires_at: None,
        }),
    }
}

/// Fresh for long.
pub(crate) fn life() -> Life {
    Life {
        fresh_until: Timestamp::from_millis(u64::MAX),
        kept_for: Duration::from_secs(3600),
    }
}

pub(crate) fn ask(key: &SharedKey, token: u64) -> Ask {
    Ask {
        key: key.clone(),
        token: Token(token),
    }
}

pub(crate) fn fill(key: &SharedKey, token: u64, held: Held) -> Fill {
    Fill {
        key: key.clone(),
        token: Token(token),
        held,
        life: life(),
    }
}

pub(crate) fn mark(key: &SharedKey, token: u64) -> Mark {
    Mark {
        key: key.clone(),
        token: Token(token),
        commit_by: StoreTime::from_micros(1000),
    }
}

pub(crate) fn release(key: &SharedKey, token: u64, ended: Ended) -> Release {
    Release {
        key: key.clone(),
        token: Token(token),
        ended,
    }
}

pub(crate) fn put(key: &SharedKey, value: impl Into<Bytes>) -> Put {
    Put {
        key: key.clone(),
        value: held(0, value).value,
        expected: Expected::Any,
        now: Timestamp::from_millis(1),
        shard_bytes_max: u64::MAX,
    }
}

pub(crate) fn clock() -> Arc<SystemClock> {
    Arc::new(SystemClock::new())
}

pub(crate) async fn open(
    urls: &[String],
    change: impl FnOnce(&mut RedisConfig),
) -> Result<RedisSharedCache, SharedError> {
    let mut config = RedisConfig::from_urls(urls.iter().map(String::as_str))?;
    config.shards = 4;
    config.response_timeout = Duration::from_secs(5);
    change(&mut config);
    RedisSharedCache::open(config, clock()).await
}

/// Opens with defaults, by the same clock as the test.
pub(crate) async fn open_with(urls: &[String], clock: &Arc<SystemClock>) -> RedisSharedCache {
    let mut config = RedisConfig::from_urls(urls.iter().map(String::as_str)).unwrap();
    config.shards = 4;
    let clock: Arc<SystemClock> = Arc::clone(clock);
    RedisSharedCache::open(config, clock).await.unwrap()
}

/// Gives every shard this generation and opens it.
pub(crate) async fn raise(cache: &dyn SharedCache, generation: u64) {
    let shards: Vec<_> = (0..cache.shards()).map(Shard).collect();
    for state in cache.open_generation(&shards, generation).await {
        state.expect("a generation is taken");
    }
    for opened in cache.open(&shards, generation).await {
        assert!(opened.expect("a shard is opened"));
    }
}

/// The only answer.
#[track_caller]
pub(crate) fn one<T>(answers: Vec<Result<T, SharedError>>) -> Result<T, SharedError> {
    let mut answers = answers.into_iter();
    let answer = answers.next().expect("there is an answer");
    assert!(answers.next().is_none(), "there is one answer");
    answer
}

pub(crate) fn needs_generation<T>(answer: &Result<T, SharedError>) -> bool {
    matches!(answer, Err(SharedError::NeedsGeneration { .. }))
}

/// Waits until something is so, looking again and again.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let patience = Duration::from_secs(20);
    let looking = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(
        tokio::time::timeout(patience, looking).await.is_ok(),
        "waited too long for {what}"
    );
}
