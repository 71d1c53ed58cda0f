//! A cache whose shards are open, and short words for what the cases do with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_core::port::{
    Ask, Asked, Claimed, Each, Ended, Expected, Fill, Flushed, Got, Held, Life, Mark, Marked, Put,
    PutOutcome, Release, Replay, Shard, ShardDirty, SharedCache, SharedError, SharedKey, StoreTime,
    Timestamp, Token, Value, shard_of,
};
use tidegate_core::{Key, Version};

use super::Scene;

/// The present of every case, until it says otherwise.
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_123);
/// How long clean entries of the cases are fresh.
pub(super) const FRESH: Duration = Duration::from_secs(600);
/// How long a claim holds, by the time that is told.
pub(super) const CLAIM: Duration = Duration::from_secs(30);

pub(super) struct Stage {
    pub(super) scene: Arc<dyn Scene>,
    pub(super) generation: u64,
}

/// A moment of the store.
pub(super) fn store_time(micros: i64) -> StoreTime {
    StoreTime::from_micros(1_700_000_000_000_000 + micros)
}

/// So much later than the present of the cases.
pub(super) fn later(seconds: u64) -> Timestamp {
    NOW.after(Duration::from_secs(seconds))
}

pub(super) fn token(number: u64) -> Token {
    // Tokens are random: all bits are used.
    Token(number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// A version as a store of the first generation gives it out.
pub(super) fn version(number: u64) -> Version {
    Version::compose(1, number * 2)
}

pub(super) fn value(text: &str) -> Value {
    Value {
        bytes: Bytes::copy_from_slice(text.as_bytes()),
        expires_at: None,
    }
}

/// What a key holds in a version.
pub(super) fn held(number: u64, text: &str) -> Held {
    Held {
        version: version(number),
        value: Some(value(text)),
    }
}

pub(super) fn life() -> Life {
    Life {
        fresh_until: NOW.after(FRESH),
        kept_for: Duration::from_secs(3600),
    }
}

pub(super) fn committed(number: u64, text: &str) -> Ended {
    Ended::Committed {
        held: held(number, text),
        life: life(),
    }
}

pub(super) fn clean(held: &Held) -> Got {
    Got::Clean {
        held: held.clone(),
        fresh_until: life().fresh_until,
    }
}

pub(super) fn key(name: &str) -> SharedKey {
    SharedKey {
        class: "session".into(),
        key: Key::from(name),
    }
}

fn one<T>(mut answers: Each<T>) -> T {
    assert_eq!(answers.len(), 1, "one answer for one question");
    answers.remove(0).unwrap()
}

impl Stage {
    pub(super) async fn set(scene: Arc<dyn Scene>) -> Self {
        let mut stage = Self {
            scene,
            generation: 0,
        };
        assert!(stage.cache().shards() >= 4, "the scene has too few shards");
        stage.raise().await;
        stage.open().await;
        stage
    }

    pub(super) fn cache(&self) -> Arc<dyn SharedCache> {
        self.scene.cache()
    }

    pub(super) fn all_shards(&self) -> Vec<Shard> {
        (0..self.cache().shards()).map(Shard).collect()
    }

    pub(super) fn shard(&self, key: &SharedKey) -> Shard {
        shard_of(&key.key, self.cache().shards())
    }

    /// Keys of one shard.
    pub(super) fn keys<const N: usize>(&self) -> [SharedKey; N] {
        let mut found: Vec<SharedKey> = Vec::new();
        for number in 0_u64.. {
            let key = key(&format!("key {number}"));
            if found.len() == N {
                break;
            }
            if found
                .first()
                .is_none_or(|first| self.shard(first) == self.shard(&key))
            {
                found.push(key);
            }
        }
        found.try_into().unwrap()
    }

    /// Gives every shard the next generation, which is closed.
    pub(super) async fn raise(&mut self) {
        self.generation += 1;
        let shards = self.all_shards();
        let states = self.cache().open_generation(&shards, self.generation).await;
        for (state, shard) in states.into_iter().zip(shards) {
            let state = state.unwrap();
            assert_eq!(state.shard, shard);
            assert_eq!(state.generation, self.generation, "{shard:?}");
            assert!(state.is_current && !state.is_open, "{state:?}");
        }
    }

    pub(super) async fn open(&self) {
        let opened = self.cache().open(&self.all_shards(), self.generation).await;
        assert!(
            opened.into_iter().all(Result::unwrap),
            "a shard is not open"
        );
    }

    pub(super) async fn pass(&self, duration: Duration) {
        self.scene.clock().sleep(duration).await;
    }

    /// Waits until the server answers again, after it became another.
    pub(super) async fn answers(&self) {
        for _ in 0..500 {
            if self.cache().ping().await.is_ok() {
                return;
            }
            self.pass(Duration::from_millis(20)).await;
        }
        panic!("the cache does not answer any more");
    }

    pub(super) async fn get(&self, key: &SharedKey) -> Got {
        one(self.cache().get(std::slice::from_ref(key)).await)
    }

    pub(super) async fn ask_at(&self, key: &SharedKey, number: u64, now: Timestamp) -> Asked {
        let ask = Ask {
            key: key.clone(),
            token: token(number),
        };
        one(self.cache().ask(&[ask], now).await)
    }

    pub(super) async fn ask(&self, key: &SharedKey, number: u64) -> Asked {
        self.ask_at(key, number, NOW).await
    }

    /// Leases a key that is absent.
    pub(super) async fn lease(&self, key: &SharedKey, number: u64) {
        assert_eq!(self.ask(key, number).await, Asked::Lease(None), "{key:?}");
    }

    pub(super) async fn fill_with(
        &self,
        key: &SharedKey,
        number: u64,
        held: &Held,
        life: Life,
    ) -> bool {
        let fill = Fill {
            key: key.clone(),
            token: token(number),
            held: held.clone(),
            life,
        };
        one(self.cache().fill(&[fill]).await)
    }

    pub(super) async fn fill(&self, key: &SharedKey, number: u64, held: &Held) -> bool {
        self.fill_with(key, number, held, life()).await
    }

    /// Makes a key that is absent clean.
    pub(super) async fn make_clean(&self, key: &SharedKey, held: &Held) {
        self.lease(key, 999).await;
        assert!(self.fill(key, 999, held).await, "{key:?} is not filled");
        assert_eq!(self.get(key).await, clean(held));
    }

    pub(super) async fn mark(&self, key: &SharedKey, number: u64) -> Marked {
        self.mark_until(key, number, store_time(1000)).await
    }

    pub(super) async fn mark_until(
        &self,
        key: &SharedKey,
        number: u64,
        commit_by: StoreTime,
    ) -> Marked {
        let mark = Mark {
            key: key.clone(),
            token: token(number),
            commit_by,
        };
        one(self.cache().mark(&[mark]).await)
    }

    /// Marks a key that is not dirty.
    pub(super) async fn quarantine(&self, key: &SharedKey, number: u64) {
        assert_eq!(self.mark(key, number).await, Marked::Quarantined, "{key:?}");
    }

    pub(super) async fn release(&self, key: &SharedKey, number: u64, ended: Ended) {
        let release = Release {
            key: key.clone(),
            token: token(number),
            ended,
        };
        one(self.cache().release(&[release]).await);
    }

    pub(super) async fn sweep(&self, key: &SharedKey, number: u64) {
        one(self.cache().sweep(&[(key.clone(), token(number))]).await);
    }

    /// How many marks of the key's shard are there.
    pub(super) async fn marks(&self, key: &SharedKey) -> usize {
        let (cache, shard) = (self.cache(), self.shard(key));
        let found = cache.leftovers(shard, store_time(1_000_000_000), 100).await;
        found.unwrap().len()
    }

    pub(super) async fn invalidate(&self, key: &SharedKey, number: u64) {
        one(self
            .cache()
            .invalidate(&[(key.clone(), version(number))])
            .await);
    }

    pub(super) async fn evict(&self, key: &SharedKey) {
        one(self.cache().evict(std::slice::from_ref(key)).await);
    }

    pub(super) async fn expect_absent(&self, key: &SharedKey) {
        assert_eq!(self.get(key).await, Got::Nothing, "{key:?}");
        // Only what is absent is leased without anything to serve.
        self.lease(key, 998).await;
        self.evict(key).await;
    }

    /// In quarantine, as far as can be seen.
    pub(super) async fn expect_quarantine(&self, key: &SharedKey) {
        assert_eq!(self.get(key).await, Got::Nothing, "{key:?}");
        assert_eq!(self.ask(key, 997).await, Asked::Bypass, "{key:?}");
    }

    pub(super) fn put_of(&self, key: &SharedKey, text: Option<&str>, now: Timestamp) -> Put {
        Put {
            key: key.clone(),
            value: text.map(value),
            expected: Expected::Any,
            now,
            shard_bytes_max: 1 << 30,
        }
    }

    pub(super) async fn try_put(&self, put: &Put) -> PutOutcome {
        one(self.cache().put(std::slice::from_ref(put)).await)
    }

    /// Puts a value and tells its version.
    pub(super) async fn put_at(&self, key: &SharedKey, text: &str, now: Timestamp) -> Version {
        match self.try_put(&self.put_of(key, Some(text), now)).await {
            PutOutcome::Dirty { version, .. } => version,
            other => panic!("{key:?} is not dirty: {other:?}"),
        }
    }

    pub(super) async fn put(&self, key: &SharedKey, text: &str) -> Version {
        self.put_at(key, text, NOW).await
    }

    pub(super) async fn claim_at(&self, shard: Shard, now: Timestamp) -> Vec<Claimed> {
        self.cache().claim(shard, 100, now, CLAIM).await.unwrap()
    }

    /// Claims the only entry of a shard that is free.
    pub(super) async fn claim(&self, key: &SharedKey, now: Timestamp) -> Claimed {
        let mut claimed = self.claim_at(self.shard(key), now).await;
        assert_eq!(claimed.len(), 1, "{claimed:?}");
        let claimed = claimed.remove(0);
        assert_eq!(claimed.key, *key);
        claimed
    }

    pub(super) async fn settle(&self, key: &SharedKey, version: Version, flushed: Flushed) -> bool {
        one(self
            .cache()
            .settle(&[(key.clone(), version, flushed)])
            .await)
    }

    /// Puts a value and parks it.
    pub(super) async fn park(&self, key: &SharedKey, text: &str) -> Version {
        let version = self.put(key, text).await;
        let refused = Flushed::Parked("refused".into());
        assert!(
            self.settle(key, version, refused).await,
            "parked is not dirty"
        );
        version
    }

    pub(super) async fn parked(&self, key: &SharedKey) -> Vec<(Claimed, Arc<str>)> {
        self.cache().parked(self.shard(key), 100).await.unwrap()
    }

    pub(super) async fn dirty(&self, key: &SharedKey) -> ShardDirty {
        one(self.cache().dirty(&[self.shard(key)]).await)
    }

    pub(super) async fn expect_dirty(&self, key: &SharedKey, version: Version, text: &str) {
        let held = Held {
            version,
            value: Some(value(text)),
        };
        assert_eq!(self.get(key).await, Got::Dirty(held), "{key:?}");
    }

    pub(super) async fn replay(&self, replay: &Replay) -> Result<bool, SharedError> {
        let mut answers = self.cache().replay(std::slice::from_ref(replay)).await;
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }
}
