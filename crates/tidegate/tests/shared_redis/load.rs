//! Writers who know what they wrote, and see to it that nothing older is served, whatever becomes of the servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tidegate::port::{Ended, Got, Marked, Shard, SharedCache};
use tidegate::redis::RedisSharedCache;
use tokio::task::JoinHandle;

use super::scene::{held, key, life, mark, one, release};

const WRITERS: u64 = 4;
const KEYS_EACH: u64 = 16;

/// How much was done.
#[derive(Default)]
pub(crate) struct Counts {
    /// Writes that were marked and released.
    pub(crate) done: AtomicU64,
    hits: AtomicU64,
    is_over: AtomicBool,
}

impl Counts {
    /// Whether there are so many of everything.
    pub(crate) fn have(&self, enough: u64) -> bool {
        let more = |count: &AtomicU64| count.load(Ordering::Relaxed) > enough;
        more(&self.done) && more(&self.hits)
    }

    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

pub(crate) struct Load {
    pub(crate) counts: Arc<Counts>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Begins to write through all of the caches in turn, and to read through all of them. Generations are raised where
    /// they are needed, the next being the second.
    pub(crate) fn begin(caches: Vec<Arc<RedisSharedCache>>) -> Self {
        let counts = Arc::new(Counts::default());
        let mut tasks: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(write(writer, caches.clone(), Arc::clone(&counts))))
            .collect();
        let generations = Arc::new(AtomicU64::new(2));
        for cache in caches {
            let (counts, generations) = (Arc::clone(&counts), Arc::clone(&generations));
            tasks.push(tokio::spawn(async move {
                while !counts.is_over.load(Ordering::Relaxed) {
                    keep_current(&*cache, &generations).await;
                    tokio::task::yield_now().await;
                }
            }));
        }
        Self { counts, tasks }
    }

    /// Ends it, with so many of everything done at least.
    pub(crate) async fn end(self, enough: u64) {
        self.counts.is_over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        assert!(self.counts.have(enough));
    }
}

/// Each writer has its keys, so that it knows what they hold.
async fn write(writer: u64, caches: Vec<Arc<RedisSharedCache>>, counts: Arc<Counts>) {
    let keys: Vec<_> = (0..KEYS_EACH)
        .map(|n| key(format!("{writer}:{n}")))
        .collect();
    let mut newest = vec![0; keys.len()];
    let mut token = writer << 32;
    let mut turns = caches.iter().cycle();
    while !counts.is_over.load(Ordering::Relaxed) {
        for (key, newest) in keys.iter().zip(&mut newest) {
            let Some(cache) = turns.next() else { return };
            token += 1;
            // Whatever goes wrong, it is not to be served once its mark was answered.
            if let Ok(Marked::Quarantined) = one(cache.mark(&[mark(key, token)]).await) {
                *newest = token;
                for cache in &caches {
                    let found = one(cache.get(std::slice::from_ref(key)).await);
                    assert!(!matches!(found, Ok(Got::Clean { .. })), "{found:?}");
                }
                let ended = Ended::Committed {
                    held: held(token, token.to_string()),
                    life: life(),
                };
                let released = one(cache.release(&[release(key, token, ended)]).await);
                counts
                    .done
                    .fetch_add(u64::from(released.is_ok()), Ordering::Relaxed);
            }
            for cache in &caches {
                if let Ok(Got::Clean { held, .. }) = one(cache.get(std::slice::from_ref(key)).await)
                {
                    assert_eq!(held.version.raw(), *newest, "{key:?}");
                    counts.hits.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Raises generations where they are needed, as a layer does, with numbers of one sequence.
pub(crate) async fn keep_current(cache: &dyn SharedCache, generations: &AtomicU64) {
    let shards: Vec<_> = (0..cache.shards()).map(Shard).collect();
    for state in cache.shard_states(&shards).await {
        let Ok(state) = state else { continue };
        if !state.is_current {
            let generation = generations.fetch_add(1, Ordering::Relaxed);
            cache.open_generation(&[state.shard], generation).await;
            cache.open(&[state.shard], generation).await;
        } else if !state.is_open {
            cache.open(&[state.shard], state.generation).await;
        }
    }
}
