//! What write-back does to a key: put, claim, settle, park, replay.
//!
//! An entry is dirty until the store is known to have just the version it holds. So a flush that is repeated, or done
//! by two nodes at once, or overtaken by a new write, makes nothing clean that the store does not have. Where somebody
//! else's newer version was told of meanwhile (the floor), or the cache may have lost a newer one of its own (the entry
//! is of an earlier generation), or an older write may still come (the shard is closed), the entry becomes absent
//! instead of clean.

use crate::mutation::Mutation;
use crate::port::{
    Claimed, ENTRY_OVERHEAD_BYTES, Expected, Flushed, Held, Put, PutOutcome, Replay, SharedKey,
    Timestamp,
};
use crate::version::Version;

use super::state::{Clean, Dirty, SharedEntry, SharedShard, SharedState};

/// What became of a replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replayed {
    /// The key is dirty again.
    Dirty,
    /// The cache has the same, or something newer.
    Known,
    /// The key is in quarantine: to be tried again.
    Busy,
}

/// What a dirty entry of this key with this content counts.
fn bytes_of(key: &SharedKey, held: Option<&[u8]>) -> u64 {
    let count = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    count(key.key.len())
        .saturating_add(count(held.map_or(0, <[u8]>::len)))
        .saturating_add(ENTRY_OVERHEAD_BYTES)
}

impl SharedEntry {
    /// The dirty or parked entry.
    #[must_use]
    pub fn dirty(&self) -> Option<&Dirty> {
        match &self.state {
            SharedState::Dirty(dirty) => Some(dirty),
            _ => None,
        }
    }

    /// What it counts among the dirty bytes of its shard.
    #[must_use]
    pub fn dirty_bytes(&self, key: &SharedKey) -> u64 {
        let held = self.dirty().map(|dirty| &dirty.held.value);
        held.map_or(0, |value| {
            bytes_of(key, value.as_ref().map(|value| &*value.bytes))
        })
    }

    /// [`SharedDirty::put`](crate::port::SharedDirty::put), in a shard that has `dirty_bytes` dirty, this entry
    /// included.
    pub fn put(&mut self, shard: &mut SharedShard, put: &Put, dirty_bytes: u64) -> PutOutcome {
        self.enter(shard);
        if !shard.open || matches!(self.state, SharedState::Quarantine(_)) {
            return PutOutcome::Busy;
        }
        let known = match &self.state {
            SharedState::Clean(clean) => Some(&clean.held),
            SharedState::Dirty(dirty) => Some(&dirty.held),
            _ => None,
        };
        if let Expected::Version(expected) = put.expected
            && known.map(|held| held.version) != Some(expected)
        {
            return PutOutcome::Changed;
        }
        let grown = bytes_of(&put.key, put.value.as_ref().map(|value| &*value.bytes));
        let others = dirty_bytes.saturating_sub(self.dirty_bytes(&put.key));
        let after = others.saturating_add(grown);
        if after > dirty_bytes && after > put.shard_bytes_max {
            return PutOutcome::Full;
        }
        let existed = known.map(|held| {
            let value = held.value.as_ref();
            value.is_some_and(|value| value.expires_at.is_none_or(|end| end > put.now))
        });
        let version = shard.issue(known.map_or(Version::NONE, |held| held.version));
        let held = Held {
            version,
            value: put.value.clone(),
        };
        self.write(held, put.now);
        PutOutcome::Dirty {
            version,
            existed,
            base: self.dirty().and_then(|dirty| dirty.base),
        }
    }

    /// Makes this the newest write of the key.
    fn write(&mut self, held: Held, now: Timestamp) {
        match &mut self.state {
            SharedState::Dirty(dirty) => {
                dirty.held = held;
                if let Some((_, again)) = &mut dirty.claimed {
                    again.get_or_insert(now);
                }
                if dirty.parked.take().is_some() {
                    dirty.since = now;
                }
            }
            other => {
                let base = match other {
                    SharedState::Clean(clean) => Some(clean.held.version),
                    _ => None,
                };
                *other = SharedState::Dirty(Dirty::new(held, base, now));
            }
        }
    }

    /// Whether it may be claimed, and if so since when it is dirty.
    #[must_use]
    pub fn claimable(&self, now: Timestamp) -> Option<Timestamp> {
        let free = |dirty: &&Dirty| dirty.parked.is_none() && dirty.free_at <= now;
        self.dirty().filter(free).map(|dirty| dirty.since)
    }

    /// Takes a claim that ends at `free_at`. Nothing if it is not dirty.
    pub fn claim(&mut self, key: &SharedKey, free_at: Timestamp) -> Option<Claimed> {
        let SharedState::Dirty(dirty) = &mut self.state else {
            return None;
        };
        dirty.free_at = free_at;
        dirty.claimed = Some((dirty.held.version, None));
        Some(dirty.tell(key))
    }

    /// [`SharedDirty::settle`](crate::port::SharedDirty::settle).
    pub fn settle(&mut self, shard: &mut SharedShard, claimed: Version, flushed: &Flushed) -> bool {
        self.enter(shard);
        let SharedState::Dirty(dirty) = &mut self.state else {
            if let Flushed::Stored(_) = flushed {
                self.invalidate(shard, claimed);
            }
            return true;
        };
        let same =
            dirty.held.version == claimed || shard.rules.breaks(Mutation::UndirtyWithoutComparing);
        // A later write of this cache may be lost, and one of before may still come.
        let keeps = shard.open && dirty.held.version.generation() >= shard.generation
            || shard.rules.breaks(Mutation::NoGenerationFlush);
        match flushed {
            Flushed::Stored(life) if same => {
                let clean = Clean {
                    held: dirty.held.clone(),
                    life: *life,
                    refresh: None,
                };
                let fits = keeps && dirty.floor <= dirty.held.version;
                self.state = match fits {
                    true => SharedState::Clean(clean),
                    false => SharedState::Absent,
                };
                return true;
            }
            // The cache lost a newer write of its own, which the store has.
            Flushed::Stored(_) if claimed > dirty.held.version => {
                self.state = SharedState::Absent;
                return true;
            }
            Flushed::Stored(_) => {
                dirty.base = dirty.base.max(Some(claimed));
                if let Some((last, Some(again))) = dirty.claimed
                    && last <= claimed
                {
                    dirty.since = again;
                }
                dirty.claim_ends(Timestamp::default());
            }
            Flushed::Again(_) | Flushed::Over(_) if dirty.parked.is_some() => {}
            Flushed::Again(at) => dirty.claim_ends(*at),
            Flushed::Over(row) => {
                dirty.base = match same {
                    true => Some(*row),
                    false => dirty.base.max(Some(*row)),
                };
                dirty.held.version = shard.issue(dirty.held.version.max(*row));
                // The new version is of this generation, and the write is not: above this floor is nothing.
                if !keeps {
                    dirty.floor = Version::from_raw(u64::MAX);
                }
                dirty.claim_ends(Timestamp::default());
            }
            Flushed::Parked(said) if same => {
                dirty.parked = Some(said.clone());
                dirty.claim_ends(Timestamp::default());
            }
            Flushed::Dropped if same => {
                self.state = SharedState::Absent;
                return true;
            }
            Flushed::Parked(_) | Flushed::Dropped => dirty.claim_ends(Timestamp::default()),
        }
        dirty.parked.is_some()
    }

    /// [`SharedDirty::unpark`](crate::port::SharedDirty::unpark).
    pub fn unpark(&mut self, version: Version, now: Timestamp) -> bool {
        match &mut self.state {
            SharedState::Dirty(dirty) if dirty.held.version == version => {
                let parked = dirty.parked.take().is_some();
                if parked {
                    dirty.since = now;
                }
                parked
            }
            _ => false,
        }
    }

    /// [`SharedDirty::replay`](crate::port::SharedDirty::replay).
    pub fn replay(&mut self, shard: &mut SharedShard, replay: &Replay) -> Replayed {
        self.enter(shard);
        let known = match &self.state {
            SharedState::Quarantine(_) => return Replayed::Busy,
            SharedState::Clean(clean) => Some(clean.held.version),
            SharedState::Dirty(dirty) => Some(dirty.held.version),
            SharedState::Absent | SharedState::Lease(_) => None,
        };
        if known >= Some(replay.held.version) {
            return Replayed::Known;
        }
        let mut dirty = Dirty::new(replay.held.clone(), replay.base, replay.now);
        if let Some(older) = self.dirty() {
            dirty.base = dirty.base.max(older.base);
            dirty.floor = older.floor;
            if older.parked.is_none() {
                dirty.since = dirty.since.min(older.since);
            }
        }
        shard.issued = shard.issued.max(replay.held.version);
        self.state = SharedState::Dirty(dirty);
        Replayed::Dirty
    }
}

impl Dirty {
    fn new(held: Held, base: Option<Version>, since: Timestamp) -> Self {
        Self {
            held,
            base,
            since,
            free_at: Timestamp::default(),
            claimed: None,
            floor: Version::NONE,
            parked: None,
        }
    }

    fn claim_ends(&mut self, free_at: Timestamp) {
        self.free_at = free_at;
        self.claimed = None;
    }

    /// What a flusher is told.
    #[must_use]
    pub fn tell(&self, key: &SharedKey) -> Claimed {
        Claimed {
            key: key.clone(),
            held: self.held.clone(),
            base: self.base,
            since: self.since,
        }
    }
}
