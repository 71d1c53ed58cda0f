//! The dirty half of the cache in memory.

use std::time::Duration;

use crate::memory::store::ready;
use crate::port::{
    BoxFuture, Claimed, Each, Flushed, Put, PutOutcome, Replay, Shard, ShardDirty, SharedDirty,
    SharedError, SharedKey, Timestamp,
};
use crate::version::Version;

use super::MemorySharedCache;
use super::dirty::Replayed;
use super::server::{Keys, Server};

use std::sync::Arc;

impl SharedDirty for MemorySharedCache {
    fn put<'a>(&'a self, puts: &'a [Put]) -> BoxFuture<'a, Each<PutOutcome>> {
        ready(self.each(
            puts,
            |put| &put.key,
            |put, entry, shard, bytes| entry.put(shard, put, bytes),
        ))
    }

    fn claim(
        &self,
        shard: Shard,
        limit: usize,
        now: Timestamp,
        claim_for: Duration,
    ) -> BoxFuture<'_, Result<Vec<Claimed>, SharedError>> {
        let claim = |server: &mut Server| {
            let slots = Self::shard(server, shard)?.slots.iter();
            let mut free: Vec<_> = slots
                .filter_map(|(key, slot)| Some((slot.entry.claimable(now)?, key.clone())))
                .collect();
            free.sort();
            free.truncate(limit);
            let free_at = now.after(claim_for);
            let take = |(_, key): &(Timestamp, SharedKey)| {
                let claim = server.step(shard, key, |entry, _, _| entry.claim(key, free_at));
                claim.flatten()
            };
            Ok(free.iter().filter_map(take).collect())
        };
        ready(self.open().and_then(|mut server| claim(&mut server)))
    }

    fn settle<'a>(
        &'a self,
        flushed: &'a [(SharedKey, Version, Flushed)],
    ) -> BoxFuture<'a, Each<bool>> {
        ready(self.each(
            flushed,
            |(key, ..)| key,
            |(_, version, flushed), entry, shard, _| entry.settle(shard, *version, flushed),
        ))
    }

    fn parked(
        &self,
        shard: Shard,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Claimed, Arc<str>)>, SharedError>> {
        let parked = |keys: &mut Keys| {
            let of = |(key, slot): (&SharedKey, &super::server::Slot)| {
                let dirty = slot.entry.dirty()?;
                Some((dirty.tell(key), dirty.parked.clone()?))
            };
            keys.slots.iter().filter_map(of).take(limit).collect()
        };
        ready(
            self.open()
                .and_then(|mut server| Self::shard(&mut server, shard).map(parked)),
        )
    }

    fn unpark<'a>(
        &'a self,
        parked: &'a [(SharedKey, Version)],
        now: Timestamp,
    ) -> BoxFuture<'a, Each<bool>> {
        ready(self.each(
            parked,
            |(key, _)| key,
            |(_, version), entry, _, _| entry.unpark(*version, now),
        ))
    }

    fn replay<'a>(&'a self, replays: &'a [Replay]) -> BoxFuture<'a, Each<bool>> {
        let replayed = self.each(
            replays,
            |replay| &replay.key,
            |replay, entry, shard, _| entry.replay(shard, replay),
        );
        let tell = |replayed| match replayed {
            Replayed::Dirty => Ok(true),
            Replayed::Known => Ok(false),
            Replayed::Busy => Err(SharedError::unavailable(
                "a key to be replayed is in quarantine",
            )),
        };
        let replayed = replayed.into_iter();
        ready(replayed.map(|replayed| replayed.and_then(tell)).collect())
    }

    fn dirty<'a>(&'a self, shards: &'a [Shard]) -> BoxFuture<'a, Each<ShardDirty>> {
        let count = |keys: &mut Keys| {
            let mut count = ShardDirty {
                bytes: keys.dirty_bytes,
                ..ShardDirty::default()
            };
            for dirty in keys.slots.values().filter_map(|slot| slot.entry.dirty()) {
                count.entries += 1;
                if dirty.parked.is_some() {
                    count.parked += 1;
                } else {
                    let oldest = count.oldest.unwrap_or(dirty.since);
                    count.oldest = Some(oldest.min(dirty.since));
                }
            }
            count
        };
        let one = |shard: &Shard| {
            let mut server = self.open()?;
            Self::shard(&mut server, *shard).map(count)
        };
        ready(shards.iter().map(one).collect())
    }
}
