//! A shared cache in memory: the state machine of the port, and around it a lock, time, and what a test does to it.
//!
//! In reading order: [`state`] (what a key and a shard are), [`through`] (leases, marks, invalidations),
//! [`generation`], [`dirty`] (write-back), the server that holds it all, and its dirty half as a port. The
//! machine is public as [`machine`](super::machine), for whoever holds another implementation against it.

mod dirty;
mod generation;
mod server;
mod state;
mod through;
mod write_back;

use std::future::ready as answer;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::memory::store::ready;
use crate::port::{
    Ask, Asked, BoxFuture, Clock, Each, Facts, Fill, Got, LEASE, Leftover, Mark, Marked, Release,
    SHARDS, Shard, ShardState, SharedCache, SharedError, SharedKey, StoreTime, Timestamp, Token,
    Watcher, shard_of,
};
use crate::version::Version;

use server::{Keys, Server, Watch};

pub use dirty::Replayed;
pub use server::SharedSnapshot;
pub use state::{Clean, Dirty, Quarantine, SharedEntry, SharedShard, SharedState};

/// A shared cache that forgets everything with the process.
///
/// A clone is a connection of its own to the same cache, as another node has it, open also when the one it came from
/// is closed. A watcher is told while the cache is locked, so it must not call the cache.
pub struct MemorySharedCache {
    server: Arc<Mutex<Server>>,
    shards: u16,
    closed: Arc<AtomicBool>,
}

/// How a [`MemorySharedCache`] is made.
#[derive(Clone, Copy, Debug)]
pub struct SharedSettings {
    /// How many shards there are; at least one.
    pub shards: u16,
    /// How long a lease is kept for its reader.
    pub lease: Duration,
}

impl Default for SharedSettings {
    fn default() -> Self {
        Self {
            shards: SHARDS,
            lease: LEASE,
        }
    }
}

impl Clone for MemorySharedCache {
    fn clone(&self) -> Self {
        Self {
            server: Arc::clone(&self.server),
            shards: self.shards,
            closed: Arc::default(),
        }
    }
}

impl MemorySharedCache {
    /// An empty cache, of which every shard needs a generation. Leases and lives end by `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, settings: SharedSettings) -> Self {
        let shards = settings.shards.max(1);
        Self {
            server: Arc::new(Mutex::new(Server {
                clock,
                lease: settings.lease,
                shards: vec![Keys::default(); usize::from(shards)],
                empty: Keys::default(),
                identity: 1,
                refuses: false,
                says_synced: false,
                watches: Vec::new(),
            })),
            shards,
            closed: Arc::default(),
        }
    }

    /// An empty cache without one of its rules.
    #[cfg(feature = "mutation")]
    #[doc(hidden)]
    #[must_use]
    pub fn without(
        rule: crate::mutation::Mutation,
        clock: Arc<dyn Clock>,
        settings: SharedSettings,
    ) -> Self {
        let new = Self::new(clock, settings);
        let mut server = new.lock();
        server.empty.shard = SharedShard::new().without(rule);
        server.shards = server.emptied();
        drop(server);
        new
    }

    /// Loses everything, generations too, and goes on as the same server. For tests.
    pub fn lose_everything(&self) {
        let mut server = self.lock();
        let shards = server.emptied();
        server.become_of(shards, false);
    }

    /// What it holds now. For tests.
    #[must_use]
    pub fn snapshot(&self) -> SharedSnapshot {
        SharedSnapshot(self.lock().shards.clone())
    }

    /// Another server takes over with what is in the snapshot, or with nothing: a restart, or a replica that lags. For
    /// tests.
    pub fn restart(&self, with: Option<SharedSnapshot>) {
        let mut server = self.lock();
        let shards = with.map_or_else(|| server.emptied(), |snapshot| snapshot.0);
        server.become_of(shards, true);
    }

    /// Answers nothing but [`SharedError::Unavailable`] from now on, or does again. For tests.
    pub fn refuse(&self, refuses: bool) {
        let mut server = self.lock();
        server.refuses = refuses;
        if refuses {
            server.tell(|watcher| watcher.lost());
        }
    }

    /// Says of itself from now on that it syncs what it acknowledges. For tests that bring back all it had.
    pub fn say_synced(&self) {
        self.lock().says_synced = true;
    }

    fn lock(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, Server>, SharedError> {
        let server = self.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err(SharedError::unavailable("it is closed"));
        }
        match server.refuses {
            true => Err(SharedError::unavailable("it does not answer")),
            false => Ok(server),
        }
    }

    /// A shard that is current.
    fn shard(server: &mut Server, shard: Shard) -> Result<&mut Keys, SharedError> {
        let identity = server.identity;
        let keys = server.keys(shard).ok_or_else(|| unknown(shard))?;
        match keys.shard.is_current(identity) {
            true => Ok(keys),
            false => Err(SharedError::NeedsGeneration { shard }),
        }
    }

    /// Does one transition for each of `asks`.
    fn each<A, T>(
        &self,
        asks: &[A],
        key: impl Fn(&A) -> &SharedKey,
        mut act: impl FnMut(&A, &mut SharedEntry, &mut SharedShard, u64) -> T,
    ) -> Each<T> {
        let one = |ask: &A| {
            let mut server = self.open()?;
            let key = key(ask);
            let shard = shard_of(&key.key, self.shards);
            Self::shard(&mut server, shard)?;
            let stepped = server.step(shard, key, |entry, shard, bytes| {
                act(ask, entry, shard, bytes)
            });
            stepped.ok_or_else(|| unknown(shard))
        };
        asks.iter().map(one).collect()
    }

    /// Does one thing for each of some shards, whether they are current or not.
    fn each_shard<T>(
        &self,
        shards: &[Shard],
        mut act: impl FnMut(&mut SharedShard, Shard, u64) -> Result<T, SharedError>,
    ) -> Each<T> {
        let one = |shard: &Shard| {
            let mut server = self.open()?;
            let identity = server.identity;
            let keys = server.keys(*shard).ok_or_else(|| unknown(*shard))?;
            act(&mut keys.shard, *shard, identity)
        };
        shards.iter().map(one).collect()
    }
}

fn unknown(shard: Shard) -> SharedError {
    SharedError::configuration(format_args!("there is no shard {}", shard.0))
}

impl SharedCache for MemorySharedCache {
    fn shards(&self) -> u16 {
        self.shards
    }

    fn lease_time(&self) -> Duration {
        self.lock().lease
    }

    fn facts(&self) -> BoxFuture<'_, Result<Facts, SharedError>> {
        ready(self.open().map(|server| Facts {
            server: "memory".to_owned(),
            evicts_what_must_stay: false,
            eviction: "none".to_owned(),
            syncs_always: server.says_synced,
            persistence: "none".to_owned(),
            replicas: 0,
        }))
    }

    fn get<'a>(&'a self, keys: &'a [SharedKey]) -> BoxFuture<'a, Each<Got>> {
        ready(self.each(keys, |key| key, |_, entry, shard, _| entry.get(shard)))
    }

    fn ask<'a>(&'a self, asks: &'a [Ask], now: Timestamp) -> BoxFuture<'a, Each<Asked>> {
        ready(self.each(
            asks,
            |ask| &ask.key,
            |ask, entry, shard, _| entry.ask(shard, ask.token, now),
        ))
    }

    fn fill<'a>(&'a self, fills: &'a [Fill]) -> BoxFuture<'a, Each<bool>> {
        ready(self.each(
            fills,
            |fill| &fill.key,
            |fill, entry, shard, _| entry.fill(shard, fill),
        ))
    }

    fn mark<'a>(&'a self, marks: &'a [Mark]) -> BoxFuture<'a, Each<Marked>> {
        ready(self.each(
            marks,
            |mark| &mark.key,
            |mark, entry, shard, _| entry.mark(shard, mark),
        ))
    }

    fn release<'a>(&'a self, releases: &'a [Release]) -> BoxFuture<'a, Each<()>> {
        ready(self.each(
            releases,
            |release| &release.key,
            |release, entry, shard, _| entry.release(shard, release.token, &release.ended),
        ))
    }

    fn leftovers(
        &self,
        shard: Shard,
        before: StoreTime,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Leftover>, SharedError>> {
        let find = |server: &mut Server| {
            let keys = Self::shard(server, shard)?;
            let slots = keys.slots.iter();
            let mut marks: Vec<_> = slots
                .flat_map(|(key, slot)| slot.entry.leftovers(&keys.shard, key, before))
                .collect();
            marks.sort_by_key(|mark| mark.commit_by);
            marks.truncate(limit);
            Ok(marks)
        };
        ready(self.open().and_then(|mut server| find(&mut server)))
    }

    fn sweep<'a>(&'a self, marks: &'a [(SharedKey, Token)]) -> BoxFuture<'a, Each<()>> {
        ready(self.each(
            marks,
            |(key, _)| key,
            |(_, token), entry, shard, _| entry.sweep(shard, *token),
        ))
    }

    fn invalidate<'a>(&'a self, changed: &'a [(SharedKey, Version)]) -> BoxFuture<'a, Each<()>> {
        ready(self.each(
            changed,
            |(key, _)| key,
            |(_, version), entry, shard, _| entry.invalidate(shard, *version),
        ))
    }

    fn evict<'a>(&'a self, keys: &'a [SharedKey]) -> BoxFuture<'a, Each<()>> {
        ready(self.each(
            keys,
            |key| key,
            |_, entry, shard, _| {
                entry.evict(shard);
            },
        ))
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), SharedError>> {
        let clear = |server: &mut Server| {
            let shards = server.shards.iter().zip(0..self.shards);
            let keys: Vec<_> = shards
                .flat_map(|(keys, shard)| {
                    keys.slots
                        .keys()
                        .map(move |key| (Shard(shard), key.clone()))
                })
                .collect();
            for (shard, key) in keys {
                server.step(shard, &key, |entry, shard, _| entry.evict(shard));
            }
        };
        ready(self.open().map(|mut server| clear(&mut server)))
    }

    fn shard_states<'a>(&'a self, shards: &'a [Shard]) -> BoxFuture<'a, Each<ShardState>> {
        ready(self.each_shard(shards, |of, shard, identity| Ok(of.tell(shard, identity))))
    }

    fn open_generation<'a>(
        &'a self,
        shards: &'a [Shard],
        generation: u64,
    ) -> BoxFuture<'a, Each<ShardState>> {
        ready(self.each_shard(shards, |of, shard, identity| {
            of.open_generation(generation, identity);
            Ok(of.tell(shard, identity))
        }))
    }

    fn open<'a>(&'a self, shards: &'a [Shard], generation: u64) -> BoxFuture<'a, Each<bool>> {
        ready(self.each_shard(
            shards,
            |of, shard, identity| match of.is_current(identity) {
                true => Ok(of.open(generation)),
                false => Err(SharedError::NeedsGeneration { shard }),
            },
        ))
    }

    fn watch(
        &self,
        watcher: Arc<dyn Watcher>,
        every: Duration,
    ) -> BoxFuture<'_, Result<(), SharedError>> {
        Box::pin(async move {
            let runtime = tokio::runtime::Handle::try_current().map_err(|_| {
                SharedError::configuration("fences need a tokio runtime, and there is none")
            })?;
            let clock = {
                let mut server = self.open()?;
                let watch = Watch {
                    closed: Arc::downgrade(&self.closed),
                    watcher: Arc::clone(&watcher),
                };
                server.watches.push(watch);
                Arc::clone(&server.clock)
            };
            let (server, closed) = (Arc::downgrade(&self.server), Arc::downgrade(&self.closed));
            drop(runtime.spawn(async move {
                loop {
                    clock.sleep(every).await;
                    let (Some(server), Some(closed)) = (server.upgrade(), closed.upgrade()) else {
                        return;
                    };
                    // Changes are told under this lock, so all of before it were.
                    let server = server.lock().unwrap_or_else(PoisonError::into_inner);
                    if closed.load(Ordering::Acquire) {
                        return;
                    }
                    if !server.refuses {
                        watcher.fence(clock.elapsed());
                    }
                }
            }));
            Ok(())
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), SharedError>> {
        ready(self.open().map(drop))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.closed.store(true, Ordering::Release);
        Box::pin(answer(()))
    }
}
