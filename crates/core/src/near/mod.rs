//! The near cache: copies in this process, bounded in bytes.
//!
//! Every entry here is servable and may be evicted at any moment; none is the only place where something is
//! kept. What must not be forgotten (dirty and parked entries, the quarantine of keys whose last write has an
//! unknown outcome) lives in the key's [lane](crate::lane), in maps that no eviction touches. So the rule that
//! nothing dirty or quarantined is ever evicted holds by construction, and the bound of this cache is a
//! bound: pinned entries could push it to any size. The one exception is the data of cache-only classes,
//! which has no other place and is meant to be evicted.
//!
//! Changed only under the lock of the key's lane, so that a fill cannot overtake a write. Read without it.
//!
//! quick_cache answers hits about nine times as fast as moka here, and is free of moka's races between a load
//! and an invalidation; it has no ttl, so each copy carries its own and is checked when it is read.

mod copy;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

pub(crate) use copy::{Copy, Freshness};

use crate::hash::Hasher;
use crate::key::Key;

/// What an entry costs beside its key and value, in bytes: the slot in the cache's arena (key pointer, copy,
/// links), its share of the hash table at usual load, and the headers of two allocations. Read off the growth
/// of a process full of entries: 216 for values of 10 bytes, 223 for values of 100 (testkit,
/// `tests/near_memory.rs`, which holds this figure to what is taken).
pub(crate) const OVERHEAD_BYTES: u64 = 224;

/// A shard holds at least this many of the largest values meant to be cached.
const SHARD_BYTES_MIN: u64 = 8 << 20;

/// See the [module](self).
pub(crate) struct Near {
    cache: Cache<Key, Copy, ByBytes, Hasher, CountEvictions>,
    capacity_bytes: u64,
    evictions: Arc<AtomicU64>,
}

/// What the near cache holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NearStats {
    /// Entries, negative ones included.
    pub entries: u64,
    /// Bytes of keys, values and overhead.
    pub bytes: u64,
    /// The bound on those bytes.
    pub capacity_bytes: u64,
    /// Entries evicted for want of room since the start.
    pub evictions: u64,
}

impl Near {
    /// A cache of at most `capacity_bytes` bytes of keys, values and overhead.
    pub(crate) fn new(capacity_bytes: u64, hasher: &Hasher) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let shards = (capacity_bytes / SHARD_BYTES_MIN).clamp(1, cores as u64 * 4);
        let items = usize::try_from(capacity_bytes / (OVERHEAD_BYTES + 128)).unwrap_or(usize::MAX);
        let evictions = Arc::new(AtomicU64::new(0));
        let options = OptionsBuilder::new()
            .shards(usize::try_from(shards).unwrap_or(1))
            .weight_capacity(capacity_bytes)
            .estimated_items_capacity(items.clamp(64, 1 << 24))
            .build()
            .unwrap_or_else(|_| unreachable!("both required options are set"));
        let lifecycle = CountEvictions(Arc::clone(&evictions));
        let cache = Cache::with_options(options, ByBytes, hasher.clone(), lifecycle);
        Self {
            cache,
            capacity_bytes,
            evictions,
        }
    }

    /// The copy of `key`, whatever its age.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Copy> {
        self.cache.get(key)
    }

    /// The copy of `key`, without counting as a use.
    pub(crate) fn peek(&self, key: &[u8]) -> Option<Copy> {
        self.cache.peek(key)
    }

    /// Whether a value of so many bytes can be kept at all.
    pub(crate) fn has_room_for(&self, key: &Key, value_bytes: usize) -> bool {
        OVERHEAD_BYTES + key.len() as u64 + value_bytes as u64 <= self.cache.shard_capacity()
    }

    /// Keeps a copy in place of any other of this key. One too large for the cache is not kept, and the one
    /// it replaces is gone all the same.
    pub(crate) fn put(&self, key: Key, copy: Copy) {
        if weight(&key, &copy) > self.cache.shard_capacity() {
            self.cache.remove(&key);
            self.evictions.fetch_add(1, Ordering::Relaxed);
        } else {
            self.cache.insert(key, copy);
        }
    }

    /// Drops the copy of `key`; true if there was one.
    pub(crate) fn remove(&self, key: &[u8]) -> bool {
        self.cache.remove(key).is_some()
    }

    /// Drops every copy.
    pub(crate) fn clear(&self) {
        self.cache.clear();
    }

    /// Calls `visit` with every entry. Others may come and go meanwhile.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Key, &Copy)) {
        for (key, copy) in self.cache.iter() {
            visit(&key, &copy);
        }
    }

    pub(crate) fn stats(&self) -> NearStats {
        NearStats {
            entries: self.cache.len() as u64,
            bytes: self.cache.weight(),
            capacity_bytes: self.capacity_bytes,
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }
}

fn weight(key: &Key, copy: &Copy) -> u64 {
    OVERHEAD_BYTES + key.len() as u64 + copy.value_bytes() as u64
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Copy> for ByBytes {
    fn weight(&self, key: &Key, copy: &Copy) -> u64 {
        weight(key, copy)
    }
}

#[derive(Clone)]
struct CountEvictions(Arc<AtomicU64>);

impl Lifecycle<Key, Copy> for CountEvictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: Key, _: Copy) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::entry::Entry;
    use crate::version::Version;

    fn copy(len: usize) -> Copy {
        let entry = Entry {
            value: Bytes::from(vec![7; len]),
            expires_at: None,
            version: Version::NONE,
        };
        Copy::of(Some(&entry), Version::NONE, None)
    }

    #[test]
    fn a_working_set_far_above_the_bound_stays_within_it() {
        let near = Near::new(1 << 20, &Hasher::with_seed(1));
        for i in 0..100_000_u32 {
            near.put(Key::copy_from(&i.to_be_bytes()), copy(100));
            assert!(near.stats().bytes <= 1 << 20);
        }
        let stats = near.stats();
        assert!(
            stats.entries > 1_000 && stats.evictions > 90_000,
            "{stats:?}"
        );
    }

    #[test]
    fn a_copy_too_large_is_not_kept_and_does_not_leave_the_old_one() {
        let near = Near::new(1 << 20, &Hasher::with_seed(1));
        near.put(Key::from("k"), copy(10));
        near.put(Key::from("k"), copy(2 << 20));
        assert!(near.get(b"k").is_none());
    }
}
