//! What outlives a gate: store, disk, history; and the classes and faults of each life.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidegate_core::memory::MemoryStore;
use tidegate_core::{
    Class, Durability, Entry, Gate, GateBuilder, Key, Strategy, Version, WhenFull,
};

use super::history::History;
use super::journal::{FaultyJournal, JournalFaults, SimDisk};
use super::scenario::{Mutation, Scenario};
use super::store::{FaultyStore, StoreFaults};
use super::{Random, SimClock};

/// The classes of a simulation. Each has the table of its name and the keys that begin with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Through,
    Around,
    /// Write-back with durability `journal`.
    Back,
    /// Write-back with a small bound.
    Small,
    /// Write-back with durability `memory`.
    Memory,
    /// Write-back, with rows that others write too.
    Shared,
    /// Write-back of numbers, which reach the store as additions.
    Delta,
}

impl Kind {
    pub(super) const ALL: [Self; 7] = [
        Self::Through,
        Self::Around,
        Self::Back,
        Self::Small,
        Self::Memory,
        Self::Shared,
        Self::Delta,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Through => "through",
            Self::Around => "around",
            Self::Back => "back",
            Self::Small => "small",
            Self::Memory => "memory",
            Self::Shared => "shared",
            Self::Delta => "delta",
        }
    }

    /// The class of a key.
    pub(super) fn of(key: &Key) -> Self {
        let of = |kind: &Self| key.as_bytes().starts_with(kind.name().as_bytes());
        Self::ALL.into_iter().find(of).unwrap_or(Self::Back)
    }
}

/// The bound on the dirty bytes of the class [`Kind::Small`].
pub(super) const SMALL_BYTES: u64 = 1_500;

/// Everything that outlives a gate.
pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) random: Random,
    pub(super) rows: MemoryStore,
    pub(super) store: FaultyStore,
    pub(super) disk: SimDisk,
    history: Mutex<History>,
    /// What was written past the gate.
    outside: Mutex<Vec<(Key, Bytes)>>,
    /// Dead letters that were discarded, or may have been.
    discarded: Mutex<Vec<(Key, Version)>>,
}

impl World {
    pub(super) fn new(scenario: Scenario) -> Self {
        let random = Random::new(scenario.seed);
        let rows = MemoryStore::new();
        let quiet = StoreFaults::none(Duration::from_millis(1));
        Self {
            scenario,
            store: FaultyStore::new(rows.clone(), quiet, random.clone()),
            random,
            rows,
            disk: SimDisk::default(),
            history: Mutex::default(),
            outside: Mutex::default(),
            discarded: Mutex::default(),
        }
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn outside(&self) -> MutexGuard<'_, Vec<(Key, Bytes)>> {
        self.outside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn discarded(&self) -> MutexGuard<'_, Vec<(Key, Version)>> {
        self.discarded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn row(&self, key: &Key) -> Option<Entry> {
        self.rows.row(Kind::of(key).name(), key)
    }

    pub(super) fn journal_faults(&self, last: bool) -> JournalFaults {
        let broken = self.scenario.mutation == Some(Mutation::AcknowledgedBeforeSync);
        JournalFaults {
            sync_max: Duration::from_millis(2),
            fail: match self.random.chance(0.2) && !last {
                true => 0.02,
                false => 0.0,
            },
            full: match self.random.chance(0.2) {
                true => 0.05,
                false => 0.0,
            },
            answers_early: broken || self.scenario.lying_disk,
        }
    }

    pub(super) fn store_faults(&self, healed: bool) -> StoreFaults {
        let mut faults = StoreFaults::none(Duration::from_millis(3));
        if !healed {
            // Some lives see a calm store, so that not everything is overshadowed by failures.
            let calm = self.random.chance(0.3);
            let some = |share: f64| if calm { 0.0 } else { share };
            faults.stall = some(0.02);
            faults.unavailable = some(0.1);
            faults.unknown = some(0.1);
            faults.late = some(0.3);
            faults.refused = if self.random.chance(0.2) { 0.03 } else { 0.0 };
            faults.panics = if self.random.chance(0.1) { 0.02 } else { 0.0 };
        }
        faults.ignores_guards = self.scenario.mutation == Some(Mutation::UnguardedFlush);
        faults.forgets_deletions = self.scenario.mutation == Some(Mutation::ForgottenTombstone);
        faults
    }

    /// A gate of the next life, to be opened.
    pub(super) fn builder(&self, elapsed: u64, journal: JournalFaults) -> GateBuilder {
        let mut builder = Gate::builder();
        if let Some(Mutation::Layer(rule)) = self.scenario.mutation {
            builder = builder.without(rule);
        }
        builder
            .clock(SimClock::new(elapsed, self.random.clone()))
            .store(self.store.clone())
            .journal(FaultyJournal::new(
                self.disk.clone(),
                journal,
                self.random.clone(),
            ))
            .near_bytes(1 << 20)
            .classes(Kind::ALL.map(|kind| self.class(kind)))
    }

    fn class(&self, kind: Kind) -> Class {
        let short = Duration::from_millis(10);
        let class = Class::new(kind.name(), &format!("{}:*", kind.name()));
        let back = || class.clone().strategy(Strategy::WriteBack).linger(short);
        match kind {
            Kind::Through => class.ttl(Duration::from_secs(1)),
            Kind::Around => class.strategy(Strategy::WriteAround).negative_ttl(short),
            Kind::Back => back().batch(4),
            Kind::Memory => back().durability(Durability::Memory),
            Kind::Shared => back(),
            Kind::Delta => back().delta(true),
            Kind::Small => {
                let when_full = match self.random.below(3) {
                    0 => WhenFull::Block,
                    1 => WhenFull::Reject,
                    _ => WhenFull::WriteThrough,
                };
                back()
                    .dirty_bytes_max(SMALL_BYTES, when_full)
                    .block_timeout(Duration::from_millis(self.random.below(30)))
            }
        }
    }

    /// A stranger writes a row of a shared class in plain SQL.
    pub(super) async fn write_outside(&self, key: Key) {
        let value = Bytes::from(format!("outside.{}", self.outside().len()));
        self.outside().push((key.clone(), value.clone()));
        let table = Kind::of(&key).name();
        self.store.outside(table, &key, &value).await;
    }

    /// The newest version of a key, no newer than `most`, that came to the store through the gate.
    pub(super) fn newest_flushed(&self, key: &Key, most: Version) -> Version {
        self.store.newest(Kind::of(key).name(), key, most)
    }
}
