//! What answers behind a [`MemorySharedCache`](super::MemorySharedCache): the shards with their keys, the time to live
//! of leases and clean entries, and who is told of changes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::port::{Clock, Shard, SharedKey, Watcher};

use super::state::{SharedEntry, SharedShard, SharedState};

/// What a server holds, to be brought back later: a replica that lags behind is one.
#[derive(Clone)]
pub struct SharedSnapshot(pub(super) Vec<Keys>);

/// One shard with its keys.
#[derive(Clone, Default)]
pub(super) struct Keys {
    pub(super) shard: SharedShard,
    pub(super) slots: BTreeMap<SharedKey, Slot>,
    /// Of all dirty and parked entries.
    pub(super) dirty_bytes: u64,
}

/// One key with what time does to it.
#[derive(Clone, Default)]
pub(super) struct Slot {
    pub(super) entry: SharedEntry,
    /// When the lease, to load or to load anew, is over.
    lease_ends_at: Option<Duration>,
    /// When the clean entry is gone.
    life_ends_at: Option<Duration>,
}

impl Slot {
    fn pass_time(&mut self, now: Duration) {
        if self.lease_ends_at.is_some_and(|end| end <= now) {
            self.entry.lease_ends();
            self.lease_ends_at = None;
        }
        if self.life_ends_at.is_some_and(|end| end <= now) {
            self.entry.life_ends();
            self.life_ends_at = None;
        }
    }

    /// Sets the ends of what a transition from `before` began.
    fn begin(&mut self, before: &SharedEntry, now: Duration, lease: Duration) {
        let (had_lease, was_clean) = match &before.state {
            SharedState::Lease(token) => (Some(*token), false),
            SharedState::Clean(clean) => (clean.refresh, true),
            _ => (None, false),
        };
        let (lease_now, life_now) = match &self.entry.state {
            SharedState::Lease(token) => (Some(*token), None),
            SharedState::Clean(clean) => (clean.refresh, Some(clean.life.kept_for)),
            _ => (None, None),
        };
        if lease_now != had_lease {
            self.lease_ends_at = lease_now.map(|_| now.saturating_add(lease));
        }
        // A clean entry that was loaded anew begins a new life; one that is only leased does not.
        let anew = had_lease.is_some() && lease_now.is_none();
        if life_now.is_none() || !was_clean || anew {
            let kept_for = life_now.map(|kept_for| kept_for.max(Duration::from_millis(1)));
            self.life_ends_at = kept_for.map(|kept_for| now.saturating_add(kept_for));
        }
    }
}

/// Somebody who is told, for as long as the connection it came by is open.
pub(super) struct Watch {
    pub(super) closed: Weak<AtomicBool>,
    pub(super) watcher: Arc<dyn Watcher>,
}

impl Watch {
    fn is_on(&self) -> bool {
        let closed = self.closed.upgrade();
        closed.is_some_and(|closed| !closed.load(Ordering::Acquire))
    }
}

/// All of it. One lock is around it, so every call is one step.
pub(super) struct Server {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) lease: Duration,
    pub(super) shards: Vec<Keys>,
    /// A shard that was never used.
    pub(super) empty: Keys,
    /// Which server this is: another one after every restart.
    pub(super) identity: u64,
    pub(super) refuses: bool,
    /// What it says of its persistence.
    pub(super) says_synced: bool,
    pub(super) watches: Vec<Watch>,
}

impl Server {
    pub(super) fn keys(&mut self, shard: Shard) -> Option<&mut Keys> {
        self.shards.get_mut(usize::from(shard.0))
    }

    pub(super) fn emptied(&self) -> Vec<Keys> {
        vec![self.empty.clone(); self.shards.len()]
    }

    /// Does one transition to one key; the third argument of it is the dirty bytes of the shard.
    pub(super) fn step<T>(
        &mut self,
        shard: Shard,
        key: &SharedKey,
        act: impl FnOnce(&mut SharedEntry, &mut SharedShard, u64) -> T,
    ) -> Option<T> {
        let (now, lease) = (self.clock.elapsed(), self.lease);
        let keys = self.shards.get_mut(usize::from(shard.0))?;
        let mut slot = keys.slots.remove(key).unwrap_or_default();
        let found = slot.entry.state.clone();
        slot.pass_time(now);
        let before = slot.entry.clone();
        let answer = act(&mut slot.entry, &mut keys.shard, keys.dirty_bytes);
        slot.begin(&before, now, lease);
        let less = keys.dirty_bytes.saturating_sub(before.dirty_bytes(key));
        keys.dirty_bytes = less.saturating_add(slot.entry.dirty_bytes(key));
        let changed = slot.entry.state != found;
        if slot.entry.state != SharedState::Absent {
            keys.slots.insert(key.clone(), slot);
        }
        if changed {
            self.tell(|watcher| watcher.changed(key));
        }
        Some(answer)
    }

    /// Puts the whole of it in this state, as another server if so asked.
    pub(super) fn become_of(&mut self, shards: Vec<Keys>, another: bool) {
        self.shards = shards;
        self.identity += u64::from(another);
        self.tell(|watcher| watcher.lost());
    }

    pub(super) fn tell(&mut self, mut tell: impl FnMut(&dyn Watcher)) {
        self.watches.retain(Watch::is_on);
        for watch in &self.watches {
            tell(&*watch.watcher);
        }
    }
}
