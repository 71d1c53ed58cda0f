//! What a shared cache has of one key, and of one shard, as values: the states, and who may leave them how.
//!
//! Together with [`through`](super::through), [`generation`](super::generation) and [`dirty`](super::dirty) this is
//! the state machine of the port ([`SharedCache`](crate::port::SharedCache)): one function for each transition, and no
//! clock, no lock, no chance in it. An implementation elsewhere does the same in its own words, and is held against
//! this one step by step.

use std::sync::Arc;

use crate::mutation::Mutations;
use crate::port::{Got, Held, Life, StoreTime, Timestamp, Token};
use crate::version::Version;

/// What the cache has of one key.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct SharedEntry {
    /// The generation of its shard when it was last changed. What is of another generation is absent, but for
    /// [`SharedState::Dirty`].
    pub generation: u64,
    /// The rest.
    pub state: SharedState,
}

/// The states of a key.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub enum SharedState {
    /// Nothing is known.
    #[default]
    Absent,
    /// The one reader of this token may fill.
    Lease(Token),
    /// May be served.
    Clean(Clean),
    /// Writes are under way, or their end is not known.
    Quarantine(Quarantine),
    /// Acknowledged, and not in the store; also what is parked.
    Dirty(Dirty),
}

/// What may be served, and the store has.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Clean {
    /// What it holds.
    pub held: Held,
    /// For how long.
    pub life: Life,
    /// Of the one reader that loads it anew.
    pub refresh: Option<Token>,
}

/// The writes that keep a key from being served.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Quarantine {
    /// Those that were neither released nor swept, by their tokens.
    pub marks: Vec<(Token, StoreTime)>,
    /// The newest state that a released one brought.
    pub best: Option<(Held, Life)>,
    /// The newest version known to be in the store and not among what was brought.
    pub floor: Version,
    /// The key does not become clean when the last mark goes.
    pub tainted: bool,
}

/// An acknowledged write that the store does not have.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Dirty {
    /// The newest write.
    pub held: Held,
    /// The row it was made over, as far as that is known.
    pub base: Option<Version>,
    /// When the oldest write was made that the store does not have.
    pub since: Timestamp,
    /// From then on it may be claimed.
    pub free_at: Timestamp,
    /// What was claimed last, if it was since it became dirty, and when the first write after that was made.
    pub claimed: Option<(Version, Option<Timestamp>)>,
    /// The newest version of others known to be in the store.
    pub floor: Version,
    /// What the store said when it refused it.
    pub parked: Option<Arc<str>>,
}

/// What the cache has of one shard beside its keys.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct SharedShard {
    /// Its generation; 0 for none.
    pub generation: u64,
    /// The server the generation was raised for.
    pub server: u64,
    /// Whether leases are given.
    pub open: bool,
    /// The last version given out to a dirty entry, or newer.
    pub issued: Version,
    pub(crate) rules: Mutations,
}

impl SharedShard {
    /// A shard that never had a generation.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with this rule switched off.
    #[cfg(feature = "mutation")]
    #[doc(hidden)]
    #[must_use]
    pub fn without(mut self, rule: crate::mutation::Mutation) -> Self {
        self.rules = self.rules.with(rule);
        self
    }

    /// A version for a dirty entry over one that held `known`: the next even one after all that this shard gave out,
    /// and after `known`, in the shard's generation at least.
    pub(super) fn issue(&mut self, known: Version) -> Version {
        let first = Version::compose(self.generation, 0);
        let last = self.issued.max(known).max(first).raw();
        self.issued = Version::from_raw((last | 1).saturating_add(1));
        self.issued
    }
}

impl SharedEntry {
    /// Forgets what is of another generation. Every change of an entry begins with it.
    pub(super) fn enter(&mut self, shard: &SharedShard) {
        if !self.is_current(shard) {
            self.state = SharedState::Absent;
        }
        self.generation = shard.generation;
    }

    fn is_current(&self, shard: &SharedShard) -> bool {
        use crate::mutation::Mutation::NoGeneration;
        self.generation == shard.generation
            || matches!(self.state, SharedState::Dirty(_))
            || shard.rules.breaks(NoGeneration)
    }

    /// What may be served.
    #[must_use]
    pub fn get(&self, shard: &SharedShard) -> Got {
        match &self.state {
            SharedState::Clean(clean) if self.is_current(shard) => Got::Clean {
                held: clean.held.clone(),
                fresh_until: clean.life.fresh_until,
            },
            SharedState::Dirty(dirty) if dirty.parked.is_some() => Got::Parked(dirty.held.clone()),
            SharedState::Dirty(dirty) => Got::Dirty(dirty.held.clone()),
            _ => Got::Nothing,
        }
    }
}
