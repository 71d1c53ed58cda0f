//! A shared cache whose news comes late: in its order, or, for a test of tests, with the fences first.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_core::Version;

use crate::world::pass;
use tidegate_core::memory::MemorySharedCache;
use tidegate_core::port::{
    Ask, Asked, BoxFuture, Claimed, Each, Facts, Fill, Flushed, Got, Leftover, Mark, Marked,
    ParkedEntry, Put, PutOutcome, Release, Replay, Shard, ShardDirty, ShardState, SharedCache,
    SharedDirty, SharedError, SharedKey, StoreTime, Timestamp, Token, Watcher,
};

/// Something to be told.
enum News {
    Changed(SharedKey),
    Lost,
    Fence(Duration),
}

/// Holds the news of one node back, and lets it go.
#[derive(Default)]
pub(crate) struct Lag(Mutex<Held>);

#[derive(Default)]
struct Held {
    holds: bool,
    news: Vec<News>,
    watcher: Option<Arc<dyn Watcher>>,
    slow: Duration,
}

impl Lag {
    /// From now on nothing is told.
    pub(crate) fn hold(&self) {
        self.lock().holds = true;
    }

    /// Answers take so long on their way.
    pub(crate) fn slow(&self, answers: Duration) {
        self.lock().slow = answers;
    }

    /// Everything is told, in its order, and from now on at once.
    pub(crate) fn release(&self) {
        let mut held = self.lock();
        held.holds = false;
        let watcher = held.watcher.clone();
        for news in std::mem::take(&mut held.news) {
            tell(watcher.as_deref(), &news);
        }
    }

    /// A broken promise: fences are told, and the changes before them are not.
    pub(crate) fn release_fences(&self) {
        let mut held = self.lock();
        let watcher = held.watcher.clone();
        held.news.retain(|news| {
            let is_fence = matches!(news, News::Fence(_));
            if is_fence {
                tell(watcher.as_deref(), news);
            }
            !is_fence
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, news: News) {
        let mut held = self.lock();
        if held.holds {
            held.news.push(news);
        } else {
            tell(held.watcher.clone().as_deref(), &news);
        }
    }
}

fn tell(watcher: Option<&dyn Watcher>, news: &News) {
    let Some(watcher) = watcher else { return };
    match news {
        News::Changed(key) => watcher.changed(key),
        News::Lost => watcher.lost(),
        News::Fence(at) => watcher.fence(*at),
    }
}

struct Ear(Arc<Lag>);

impl Watcher for Ear {
    fn changed(&self, key: &SharedKey) {
        self.0.hear(News::Changed(key.clone()));
    }

    fn lost(&self) {
        self.0.hear(News::Lost);
    }

    fn fence(&self, at: Duration) {
        self.0.hear(News::Fence(at));
    }
}

/// The cache as a node sees it whose news comes late.
pub(crate) struct Lagging {
    pub(crate) cache: MemorySharedCache,
    pub(crate) lag: Arc<Lag>,
}

impl SharedCache for Lagging {
    fn shards(&self) -> u16 {
        self.cache.shards()
    }

    fn lease_time(&self) -> Duration {
        self.cache.lease_time()
    }

    fn facts(&self) -> BoxFuture<'_, Result<Facts, SharedError>> {
        self.cache.facts()
    }

    fn get<'a>(&'a self, keys: &'a [SharedKey]) -> BoxFuture<'a, Each<Got>> {
        Box::pin(async move {
            let got = self.cache.get(keys).await;
            let slow = self.lag.lock().slow;
            if !slow.is_zero() {
                pass(slow).await;
            }
            got
        })
    }

    fn ask<'a>(&'a self, asks: &'a [Ask], now: Timestamp) -> BoxFuture<'a, Each<Asked>> {
        self.cache.ask(asks, now)
    }

    fn fill<'a>(&'a self, fills: &'a [Fill]) -> BoxFuture<'a, Each<bool>> {
        self.cache.fill(fills)
    }

    fn mark<'a>(&'a self, marks: &'a [Mark]) -> BoxFuture<'a, Each<Marked>> {
        self.cache.mark(marks)
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> BoxFuture<'a, Each<()>> {
        self.cache.release(releases)
    }

    fn leftovers(
        &self,
        shard: Shard,
        before: StoreTime,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Leftover>, SharedError>> {
        self.cache.leftovers(shard, before, limit)
    }

    fn sweep<'a>(&'a self, marks: &'a [(SharedKey, Token)]) -> BoxFuture<'a, Each<()>> {
        self.cache.sweep(marks)
    }

    fn invalidate<'a>(&'a self, changed: &'a [(SharedKey, Version)]) -> BoxFuture<'a, Each<()>> {
        self.cache.invalidate(changed)
    }

    fn evict<'a>(&'a self, keys: &'a [SharedKey]) -> BoxFuture<'a, Each<()>> {
        self.cache.evict(keys)
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), SharedError>> {
        self.cache.clear()
    }

    fn shard_states<'a>(&'a self, shards: &'a [Shard]) -> BoxFuture<'a, Each<ShardState>> {
        self.cache.shard_states(shards)
    }

    fn open_generation<'a>(
        &'a self,
        shards: &'a [Shard],
        generation: u64,
    ) -> BoxFuture<'a, Each<ShardState>> {
        self.cache.open_generation(shards, generation)
    }

    fn open<'a>(&'a self, shards: &'a [Shard], generation: u64) -> BoxFuture<'a, Each<bool>> {
        self.cache.open(shards, generation)
    }

    fn watch(
        &self,
        watcher: Arc<dyn Watcher>,
        every: Duration,
    ) -> BoxFuture<'_, Result<(), SharedError>> {
        self.lag.lock().watcher = Some(watcher);
        self.cache.watch(Arc::new(Ear(self.lag.clone())), every)
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), SharedError>> {
        self.cache.ping()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.cache.close()
    }
}

impl SharedDirty for Lagging {
    fn put<'a>(&'a self, puts: &'a [Put]) -> BoxFuture<'a, Each<PutOutcome>> {
        self.cache.put(puts)
    }

    fn claim(
        &self,
        shard: Shard,
        limit: usize,
        now: Timestamp,
        claim_for: Duration,
    ) -> BoxFuture<'_, Result<Vec<Claimed>, SharedError>> {
        self.cache.claim(shard, limit, now, claim_for)
    }

    fn settle<'a>(
        &'a self,
        flushed: &'a [(SharedKey, Version, Flushed)],
    ) -> BoxFuture<'a, Each<bool>> {
        self.cache.settle(flushed)
    }

    fn parked(
        &self,
        shard: Shard,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<ParkedEntry>, SharedError>> {
        self.cache.parked(shard, limit)
    }

    fn unpark<'a>(
        &'a self,
        parked: &'a [(SharedKey, Version)],
        now: Timestamp,
    ) -> BoxFuture<'a, Each<bool>> {
        self.cache.unpark(parked, now)
    }

    fn replay<'a>(&'a self, replays: &'a [Replay]) -> BoxFuture<'a, Each<bool>> {
        self.cache.replay(replays)
    }

    fn dirty<'a>(&'a self, shards: &'a [Shard]) -> BoxFuture<'a, Each<ShardDirty>> {
        self.cache.dirty(shards)
    }
}
