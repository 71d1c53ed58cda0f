//! What reads, and writes that go through or around the cache, do to a key: lease and fill, mark, release and sweep,
//! invalidate and evict.
//!
//! A write marks its key before it commits, so that a crash leaves behind what is not served, and never what is stale.
//! A mark is a name in a set, because writes of one key may be under way together; only the last that goes knows the
//! newest. A mark that is swept, or lost, may have been of the newest, so nothing older is installed after it: that is
//! the taint. Others write without a mark; of them there is a floor.

use crate::mutation::Mutation;
use crate::port::{
    Asked, Ended, Fill, Held, Leftover, Life, Mark, Marked, SharedKey, StoreTime, Timestamp, Token,
};
use crate::version::Version;

use super::state::{Clean, Quarantine, SharedEntry, SharedShard, SharedState};

impl SharedState {
    fn clean(held: Held, life: Life) -> Self {
        Self::Clean(Clean {
            held,
            life,
            refresh: None,
        })
    }
}

impl SharedEntry {
    /// [`SharedCache::ask`](crate::port::SharedCache::ask).
    pub fn ask(&mut self, shard: &SharedShard, token: Token, now: Timestamp) -> Asked {
        self.enter(shard);
        let leases = shard.open || shard.rules.breaks(Mutation::NoGrace);
        match &mut self.state {
            SharedState::Absent if leases => {
                self.state = SharedState::Lease(token);
                Asked::Lease(None)
            }
            SharedState::Absent | SharedState::Quarantine(_) => Asked::Bypass,
            SharedState::Lease(_) => Asked::Wait(None),
            SharedState::Clean(clean) if now >= clean.life.fresh_until => {
                let held = Some(clean.held.clone());
                match clean.refresh {
                    Some(_) => Asked::Wait(held),
                    None if leases => {
                        clean.refresh = Some(token);
                        Asked::Lease(held)
                    }
                    None => Asked::Bypass,
                }
            }
            SharedState::Clean(_) | SharedState::Dirty(_) => Asked::Found(self.get(shard)),
        }
    }

    /// [`SharedCache::fill`](crate::port::SharedCache::fill).
    pub fn fill(&mut self, shard: &SharedShard, fill: &Fill) -> bool {
        self.enter(shard);
        let unleased = shard.rules.breaks(Mutation::NoLease);
        let may = match &self.state {
            SharedState::Lease(token) => *token == fill.token || unleased,
            SharedState::Absent => unleased,
            SharedState::Clean(clean) => {
                (clean.refresh == Some(fill.token) || unleased)
                    && fill.held.version >= clean.held.version
            }
            SharedState::Quarantine(_) | SharedState::Dirty(_) => false,
        };
        if may {
            self.state = SharedState::clean(fill.held.clone(), fill.life);
        }
        may
    }

    /// The lease, to load or to load anew, was held for too long.
    pub fn lease_ends(&mut self) {
        match &mut self.state {
            SharedState::Lease(_) => self.state = SharedState::Absent,
            SharedState::Clean(clean) => clean.refresh = None,
            _ => {}
        }
    }

    /// A clean entry was kept for its time.
    pub fn life_ends(&mut self) {
        if matches!(self.state, SharedState::Clean(_)) {
            self.state = SharedState::Absent;
        }
    }

    /// [`SharedCache::mark`](crate::port::SharedCache::mark).
    pub fn mark(&mut self, shard: &SharedShard, mark: &Mark) -> Marked {
        self.enter(shard);
        if matches!(self.state, SharedState::Dirty(_)) {
            return Marked::Dirty;
        }
        if !matches!(self.state, SharedState::Quarantine(_)) {
            self.state = SharedState::Quarantine(Quarantine::default());
        }
        if let SharedState::Quarantine(quarantine) = &mut self.state {
            quarantine.tainted |= !shard.open && !shard.rules.breaks(Mutation::NoGraceTaint);
            let place = quarantine
                .marks
                .binary_search_by_key(&mark.token, |(token, _)| *token);
            if let Err(place) = place {
                quarantine.marks.insert(place, (mark.token, mark.commit_by));
            }
        }
        Marked::Quarantined
    }

    /// [`SharedCache::release`](crate::port::SharedCache::release).
    pub fn release(&mut self, shard: &SharedShard, token: Token, ended: &Ended) {
        self.enter(shard);
        let untaints = shard.rules.breaks(Mutation::NoTaint);
        match &mut self.state {
            SharedState::Quarantine(quarantine) => {
                if quarantine.remove(token) {
                    quarantine.take(ended);
                    self.settle_quarantine();
                } else if untaints {
                    quarantine.take(ended);
                } else {
                    quarantine.tainted = true;
                }
            }
            SharedState::Clean(clean) if ended.version() > Some(clean.held.version) => {
                self.state = match ended {
                    Ended::Committed { held, life } if untaints => {
                        SharedState::clean(held.clone(), *life)
                    }
                    _ => SharedState::Absent,
                };
            }
            SharedState::Lease(_) => self.state = SharedState::Absent,
            SharedState::Absent | SharedState::Clean(_) | SharedState::Dirty(_) => {}
        }
    }

    /// [`SharedCache::sweep`](crate::port::SharedCache::sweep).
    pub fn sweep(&mut self, shard: &SharedShard, token: Token) {
        self.enter(shard);
        if let SharedState::Quarantine(quarantine) = &mut self.state
            && quarantine.remove(token)
        {
            quarantine.tainted |= !shard.rules.breaks(Mutation::NoTaint);
            self.settle_quarantine();
        }
    }

    /// The marks of this key with a `commit_by` before `before`.
    pub fn leftovers(
        &self,
        shard: &SharedShard,
        key: &SharedKey,
        before: StoreTime,
    ) -> Vec<Leftover> {
        let SharedState::Quarantine(quarantine) = &self.state else {
            return Vec::new();
        };
        let marks = quarantine.marks.iter();
        marks
            .filter(|(_, commit_by)| self.generation == shard.generation && *commit_by < before)
            .map(|(token, commit_by)| Leftover {
                key: key.clone(),
                token: *token,
                commit_by: *commit_by,
            })
            .collect()
    }

    /// [`SharedCache::invalidate`](crate::port::SharedCache::invalidate).
    pub fn invalidate(&mut self, shard: &SharedShard, version: Version) {
        self.enter(shard);
        let floors = !shard.rules.breaks(Mutation::NoFloor);
        match &mut self.state {
            SharedState::Clean(clean) if clean.held.version < version => {
                self.state = SharedState::Absent;
            }
            SharedState::Lease(_) => self.state = SharedState::Absent,
            SharedState::Quarantine(quarantine) if floors => {
                quarantine.floor = quarantine.floor.max(version);
            }
            SharedState::Dirty(dirty) if floors => dirty.floor = dirty.floor.max(version),
            _ => {}
        }
    }

    /// [`SharedCache::evict`](crate::port::SharedCache::evict). True if there was something to evict.
    pub fn evict(&mut self, shard: &SharedShard) -> bool {
        let may = match &self.state {
            SharedState::Lease(_) | SharedState::Clean(_) => true,
            SharedState::Dirty(_) => shard.rules.breaks(Mutation::EvictableDirtyEntry),
            SharedState::Absent | SharedState::Quarantine(_) => false,
        };
        if may {
            self.state = SharedState::Absent;
        }
        may
    }

    /// Ends a quarantine that has no mark left.
    fn settle_quarantine(&mut self) {
        let SharedState::Quarantine(quarantine) = &mut self.state else {
            return;
        };
        if !quarantine.marks.is_empty() {
            return;
        }
        let (tainted, floor) = (quarantine.tainted, quarantine.floor);
        self.state = match quarantine.best.take() {
            Some((held, life)) if !tainted && held.version >= floor => {
                SharedState::clean(held, life)
            }
            _ => SharedState::Absent,
        };
    }
}

impl Quarantine {
    fn remove(&mut self, token: Token) -> bool {
        let before = self.marks.len();
        self.marks.retain(|(marked, _)| *marked != token);
        self.marks.len() < before
    }

    /// What a write that ended leaves.
    fn take(&mut self, ended: &Ended) {
        match ended {
            Ended::Committed { held, life } => {
                let best = self.best.as_ref().map(|(held, _)| held.version);
                if best.is_none_or(|best| best < held.version) {
                    self.best = Some((held.clone(), *life));
                }
            }
            Ended::CommittedUnseen(version) => self.floor = self.floor.max(*version),
            Ended::Aborted => {}
        }
    }
}

impl Ended {
    /// The version under which the write is in the store, if it is.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Committed { held, .. } => Some(held.version),
            Self::CommittedUnseen(version) => Some(*version),
            Self::Aborted => None,
        }
    }
}
