//! The port, each method sent to where it is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::Value;
use tidegate_core::Version;
use tidegate_core::port::{
    Ask, Asked, BoxFuture, Claimed, Clock, Each, Facts, Fill, Flushed, Got, Leftover, Mark, Marked,
    Put, PutOutcome, Release, Replay, Shard, ShardDirty, ShardState, SharedCache, SharedDirty,
    SharedError, SharedKey, StoreTime, Timestamp, Token, Watcher,
};

use super::call::{Answer, Call};
use super::config::RedisConfig;
use super::connect::Timeouts;
use super::error::odd;
use super::names::Names;
use super::node::Dialling;
use super::route::Servers;
use super::script::Scripts;
use super::watch::Watches;

/// A shared cache in Redis 7 or Valkey, in one server or a cluster. See the [module](super).
pub struct RedisSharedCache {
    pub(super) inner: Arc<Inner>,
    watches: Watches,
}

/// What calls and watches share.
pub(super) struct Inner {
    pub(super) config: RedisConfig,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) names: Names,
    pub(super) scripts: Scripts,
    pub(super) servers: Servers,
    is_closed: AtomicBool,
}

impl RedisSharedCache {
    /// Connects. `clock` is the layer's: [fences](Watcher::fence) are told by it.
    ///
    /// # Errors
    /// Configuration if something in `config` cannot be meant, the server is too old, or it refuses the user;
    /// unavailable if none can be reached that takes writes.
    ///
    /// # Cancel safety
    /// Dropped, it leaves no connection behind.
    pub async fn open(config: RedisConfig, clock: Arc<dyn Clock>) -> Result<Self, SharedError> {
        config.check()?;
        let names = Names::new(&config.prefix, config.shards);
        let dialling = Dialling {
            clock: Arc::clone(&clock),
            timeouts: Timeouts {
                connect: config.connect_timeout,
                response: config.response_timeout,
                replica: config.replica_timeout,
            },
            waits_for_replicas: config.replicas > 0,
        };
        let servers = Servers::open(&config.servers, &names, dialling).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                clock,
                names,
                scripts: Scripts::new(),
                servers,
                is_closed: AtomicBool::new(false),
            }),
            watches: Watches::default(),
        })
    }
}

impl Inner {
    pub(super) fn check_open(&self) -> Result<(), SharedError> {
        match self.is_closed.load(Ordering::Acquire) {
            true => Err(SharedError::unavailable("it is closed")),
            false => Ok(()),
        }
    }

    /// Sends a call for each of `asks`, where one can be made, and reads each answer.
    pub(super) async fn each<'a, A, T>(
        &'a self,
        asks: &'a [A],
        make: impl Fn(&'a A) -> Result<Call<'a>, SharedError>,
        read: impl Fn(&'a A, Answer) -> Result<T, SharedError>,
    ) -> Each<T> {
        self.each_waiting(asks, false, make, read).await
    }

    /// The same, and waits for replicas.
    pub(super) async fn each_waiting<'a, A, T>(
        &'a self,
        asks: &'a [A],
        waits_for_replicas: bool,
        make: impl Fn(&'a A) -> Result<Call<'a>, SharedError>,
        read: impl Fn(&'a A, Answer) -> Result<T, SharedError>,
    ) -> Each<T> {
        let mut calls = Vec::with_capacity(asks.len());
        let mut refused = Vec::with_capacity(asks.len());
        for ask in asks {
            match self.check_open().and_then(|()| make(ask)) {
                Ok(call) => {
                    calls.push(call);
                    refused.push(None);
                }
                Err(error) => refused.push(Some(error)),
            }
        }
        let mut answers = self.call(&calls, waits_for_replicas).await.into_iter();
        let mut shards = calls.iter().map(|call| call.shard);
        let mut one = |(ask, refused): (&'a A, Option<SharedError>)| {
            if let Some(error) = refused {
                return Err(error);
            }
            let shard = shards
                .next()
                .ok_or_else(|| odd("fewer things than were asked"))?;
            let answer = answers
                .next()
                .ok_or_else(|| odd("fewer things than were asked"))??;
            read(ask, generation_or(shard, answer)?)
        };
        asks.iter().zip(refused).map(&mut one).collect()
    }

    /// One call for a shard.
    pub(super) async fn one(&self, call: Call<'_>) -> Result<Answer, SharedError> {
        self.check_open()?;
        let shard = call.shard;
        let mut answers = self.call(&[call], false).await;
        let answer = answers.pop().ok_or_else(|| odd("nothing"))??;
        generation_or(shard, answer)
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.servers.close();
    }
}

/// Reads the letters that every script may answer.
fn generation_or(shard: Shard, answer: Answer) -> Result<Answer, SharedError> {
    match &answer.value {
        Value::BulkString(letter) if letter == b"G" => Err(SharedError::NeedsGeneration { shard }),
        Value::BulkString(letter) if letter == b"X" => {
            Err(SharedError::configuration(format_args!(
                "the shared cache has an entry of shard {} in a form this version of tidegate does not know: let all \
                 nodes run one version, or give them another prefix",
                shard.0
            )))
        }
        _ => Ok(answer),
    }
}

/// What a script said of whether it did it.
pub(super) fn flag(value: &Value) -> Result<bool, SharedError> {
    match value {
        Value::Int(flag) => Ok(*flag == 1),
        _ => Err(odd("a flag")),
    }
}

impl Drop for RedisSharedCache {
    fn drop(&mut self) {
        self.watches.end();
        self.inner.close();
    }
}

impl SharedCache for RedisSharedCache {
    fn shards(&self) -> u16 {
        self.inner.config.shards
    }

    fn lease_time(&self) -> Duration {
        self.inner.config.lease
    }

    fn replicas_needed(&self) -> u32 {
        self.inner.config.replicas
    }

    fn facts(&self) -> BoxFuture<'_, Result<Facts, SharedError>> {
        Box::pin(self.inner.facts())
    }

    fn get<'a>(&'a self, keys: &'a [SharedKey]) -> BoxFuture<'a, Each<Got>> {
        Box::pin(self.inner.get(keys))
    }

    fn ask<'a>(&'a self, asks: &'a [Ask], now: Timestamp) -> BoxFuture<'a, Each<Asked>> {
        Box::pin(self.inner.ask(asks, now))
    }

    fn fill<'a>(&'a self, fills: &'a [Fill]) -> BoxFuture<'a, Each<bool>> {
        Box::pin(self.inner.fill(fills))
    }

    fn mark<'a>(&'a self, marks: &'a [Mark]) -> BoxFuture<'a, Each<Marked>> {
        Box::pin(self.inner.mark(marks))
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> BoxFuture<'a, Each<()>> {
        Box::pin(self.inner.release(releases))
    }

    fn leftovers(
        &self,
        shard: Shard,
        before: StoreTime,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Leftover>, SharedError>> {
        Box::pin(self.inner.leftovers(shard, before, limit))
    }

    fn sweep<'a>(&'a self, marks: &'a [(SharedKey, Token)]) -> BoxFuture<'a, Each<()>> {
        Box::pin(self.inner.sweep(marks))
    }

    fn invalidate<'a>(&'a self, changed: &'a [(SharedKey, Version)]) -> BoxFuture<'a, Each<()>> {
        Box::pin(self.inner.invalidate(changed))
    }

    fn evict<'a>(&'a self, keys: &'a [SharedKey]) -> BoxFuture<'a, Each<()>> {
        Box::pin(self.inner.evict(keys))
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), SharedError>> {
        Box::pin(self.inner.clear())
    }

    fn shard_states<'a>(&'a self, shards: &'a [Shard]) -> BoxFuture<'a, Each<ShardState>> {
        Box::pin(self.inner.shard_states(shards))
    }

    fn open_generation<'a>(
        &'a self,
        shards: &'a [Shard],
        generation: u64,
    ) -> BoxFuture<'a, Each<ShardState>> {
        Box::pin(self.inner.open_generation(shards, generation))
    }

    fn open<'a>(&'a self, shards: &'a [Shard], generation: u64) -> BoxFuture<'a, Each<bool>> {
        Box::pin(self.inner.open(shards, generation))
    }

    fn watch(
        &self,
        watcher: Arc<dyn Watcher>,
        every: Duration,
    ) -> BoxFuture<'_, Result<(), SharedError>> {
        Box::pin(self.watches.begin(&self.inner, watcher, every))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), SharedError>> {
        Box::pin(self.inner.ping())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.watches.end();
        self.inner.close();
        Box::pin(std::future::ready(()))
    }
}

impl SharedDirty for RedisSharedCache {
    fn put<'a>(&'a self, puts: &'a [Put]) -> BoxFuture<'a, Each<PutOutcome>> {
        Box::pin(self.inner.put(puts))
    }

    fn claim(
        &self,
        shard: Shard,
        limit: usize,
        now: Timestamp,
        claim_for: Duration,
    ) -> BoxFuture<'_, Result<Vec<Claimed>, SharedError>> {
        Box::pin(self.inner.claim(shard, limit, now, claim_for))
    }

    fn settle<'a>(
        &'a self,
        flushed: &'a [(SharedKey, Version, Flushed)],
    ) -> BoxFuture<'a, Each<bool>> {
        Box::pin(self.inner.settle(flushed))
    }

    fn parked(
        &self,
        shard: Shard,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Claimed, Arc<str>)>, SharedError>> {
        Box::pin(self.inner.parked(shard, limit))
    }

    fn unpark<'a>(
        &'a self,
        parked: &'a [(SharedKey, Version)],
        now: Timestamp,
    ) -> BoxFuture<'a, Each<bool>> {
        Box::pin(self.inner.unpark(parked, now))
    }

    fn replay<'a>(&'a self, replays: &'a [Replay]) -> BoxFuture<'a, Each<bool>> {
        Box::pin(self.inner.replay(replays))
    }

    fn dirty<'a>(&'a self, shards: &'a [Shard]) -> BoxFuture<'a, Each<ShardDirty>> {
        Box::pin(self.inner.dirty(shards))
    }
}
