//! What the layer knows of one key, for a person.

use std::fmt;
use std::time::Duration;

use crate::class::{Level, Strategy};
use crate::key::Key;
use crate::lane::DirtyState;
use crate::layer::Layer;
use crate::near::Freshness;
use crate::port::Timestamp;
use crate::version::Version;

/// Where a key stands in this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum State {
    /// Nothing is cached; a read asks the store.
    Absent,
    /// A copy of what the store has.
    Clean,
    /// Known to be absent in the store.
    Negative,
    /// The copy is past its ttl.
    Stale,
    /// The data's life is over.
    Expired,
    /// Newer than the store, waiting for the flusher.
    Dirty,
    /// Newer than the store, on its way there.
    Flushing,
    /// Newer than the store, which refuses it.
    Parked,
    /// The outcome of its last write is unknown; reads go to the store.
    Quarantine,
}

impl State {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Clean => "clean",
            Self::Negative => "negative",
            Self::Stale => "stale",
            Self::Expired => "expired",
            Self::Dirty => "dirty",
            Self::Flushing => "flushing",
            Self::Parked => "parked",
            Self::Quarantine => "quarantine",
        }
    }
}

/// Where a key stands in the cache that several nodes share, with its version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SharedState {
    /// Nothing that may be served: nobody has read it, somebody loads it, or a write of it is under way.
    Absent,
    /// What the store has.
    Clean(Version),
    /// Past its ttl.
    Stale(Version),
    /// Newer than the store.
    Dirty(Version),
    /// Newer than the store, which refuses it.
    Parked(Version),
    /// The cache may have lost something, and is being made ready.
    Recovering,
    /// It does not answer.
    Away,
}

impl SharedState {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Clean(_) => "clean",
            Self::Stale(_) => "stale",
            Self::Dirty(_) => "dirty",
            Self::Parked(_) => "parked",
            Self::Recovering => "recovering",
            Self::Away => "away",
        }
    }

    fn version(self) -> Option<Version> {
        match self {
            Self::Clean(version)
            | Self::Stale(version)
            | Self::Dirty(version)
            | Self::Parked(version) => Some(version),
            Self::Absent | Self::Recovering | Self::Away => None,
        }
    }
}

/// What the layer knows of one key. Never holds the value.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The key.
    pub key: Key,
    /// Its class.
    pub class: String,
    /// The class's strategy.
    pub strategy: Strategy,
    /// Its table, if its class has a store.
    pub table: Option<String>,
    /// Its lane.
    pub lane: usize,
    /// Where it stands.
    pub state: State,
    /// The version in memory, if any.
    pub version: Option<Version>,
    /// Length of the value in memory.
    pub value_bytes: Option<usize>,
    /// The end of the data's life.
    pub expires_at: Option<Timestamp>,
    /// How long the cached copy may still be used, if that is limited.
    pub fresh_for: Option<Duration>,
    /// How long it has been dirty.
    pub dirty_for: Option<Duration>,
    /// Why the store does not take a write of it that is kept as a dead letter.
    pub refused: Option<String>,
    /// A write of it is waiting or under way.
    pub writing: bool,
    /// How fresh reads of its class are, and where it stands in the shared cache, if that was asked
    /// ([`Gate::explain_shared`](crate::Gate::explain_shared)).
    pub shared: Option<(Level, SharedState)>,
}

/// Explains `key` without loading it and without counting as a use.
pub(crate) fn explain(layer: &Layer, key: &[u8]) -> Explanation {
    let class = layer.class_of(key);
    let settings = layer.class(class);
    let elapsed = layer.clock.elapsed();
    let state = layer.lane_of(key).lock();
    let mut explanation = Explanation {
        key: Key::copy_from(key),
        class: settings.name.clone(),
        strategy: settings.strategy,
        table: layer
            .state(class)
            .table
            .map(|_| settings.table.name.clone()),
        lane: layer.lane_index(key),
        state: State::Absent,
        version: None,
        value_bytes: None,
        expires_at: None,
        fresh_for: None,
        dirty_for: None,
        refused: None,
        writing: state.is_writing(key),
        shared: None,
    };
    let refusal = state.dirty.refusal(key);
    explanation.refused = refusal.map(|refusal| refusal.message.to_string());
    if let Some(entry) = state.dirty.get(key) {
        explanation.state = match &entry.state {
            DirtyState::Waiting => State::Dirty,
            DirtyState::Claimed => State::Flushing,
            DirtyState::Parked => State::Parked,
        };
        explanation.version = Some(entry.version);
        explanation.dirty_for = Some(elapsed.saturating_sub(entry.since));
        let current = entry.change.to_entry(entry.version);
        explanation.value_bytes = current.as_ref().map(|entry| entry.value.len());
        explanation.expires_at = current.and_then(|entry| entry.expires_at);
    } else if state.quarantine.contains_key(key) {
        explanation.state = State::Quarantine;
    } else if let Some(copy) = layer.near.peek(key) {
        explanation.state = match copy.freshness(layer.clock.now(), elapsed) {
            Freshness::Fresh if copy.is_negative() => State::Negative,
            Freshness::Fresh => State::Clean,
            Freshness::Stale(_) => State::Stale,
            Freshness::Expired => State::Expired,
        };
        explanation.version = Some(copy.version());
        explanation.fresh_for = copy.fresh_for(elapsed);
        explanation.expires_at = copy.expires_at();
        explanation.value_bytes = (!copy.is_negative()).then(|| copy.value_bytes());
    }
    explanation
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "key: {}", self.key)?;
        writeln!(f, "class: {}", self.class)?;
        writeln!(f, "strategy: {}", self.strategy.as_str())?;
        writeln!(f, "table: {}", self.table.as_deref().unwrap_or("none"))?;
        writeln!(f, "lane: {}", self.lane)?;
        write!(f, "state: {}", self.state.as_str())?;
        if let Some(version) = self.version {
            write!(f, "\nversion: {version}")?;
        }
        if let Some(bytes) = self.value_bytes {
            write!(f, "\nvalue_bytes: {bytes}")?;
        }
        if let Some(at) = self.expires_at {
            write!(f, "\nexpires_at_ms: {}", at.as_millis())?;
        }
        if let Some(left) = self.fresh_for {
            write!(f, "\nfresh_for_ms: {}", left.as_millis())?;
        }
        if let Some(dirty) = self.dirty_for {
            write!(f, "\ndirty_for_ms: {}", dirty.as_millis())?;
        }
        if let Some(refused) = &self.refused {
            write!(f, "\nrefused: {refused}")?;
        }
        if self.writing {
            write!(f, "\nwriting: yes")?;
        }
        if let Some((level, state)) = self.shared {
            write!(f, "\nlevel: {}", level.as_str())?;
            if let Level::Bounded(bound) = level {
                write!(f, "\nbound_ms: {}", bound.as_millis())?;
            }
            write!(f, "\nshared_state: {}", state.as_str())?;
            if let Some(version) = state.version() {
                write!(f, "\nshared_version: {version}")?;
            }
        }
        Ok(())
    }
}
