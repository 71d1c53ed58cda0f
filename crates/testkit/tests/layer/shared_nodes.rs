//! Several gates over one shared cache and one store, under stepped time.

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::memory::{MemorySharedCache, MemoryStore, SharedSettings};
use tidegate_core::port::{
    Ask, Asked, Clock, ManyNodes, Mark, Marked, Shard, SharedCache, SharedKey, Token,
};
use tidegate_core::{Class, Entry, Gate, GateBuilder, Key};
use tidegate_testkit::sim::{
    FaultyJournal, FaultyStore, JournalFaults, Random, SimClock, SimDisk, StoreFaults,
};

use crate::shared_lag::{Lag, Lagging};
use crate::world::{ms, pass, text};

/// Few shards, so that keys meet in them.
const SHARDS: u16 = 8;

/// Everything that outlives a gate.
pub(crate) struct Nodes {
    pub(crate) clock: Arc<SimClock>,
    pub(crate) rows: MemoryStore,
    pub(crate) store: FaultyStore,
    pub(crate) cache: MemorySharedCache,
    pub(crate) disks: Vec<SimDisk>,
    pub(crate) random: Random,
}

impl Nodes {
    pub(crate) fn new(nodes: usize) -> Self {
        Self::of_seed(nodes, 1)
    }

    pub(crate) fn of_seed(nodes: usize, seed: u64) -> Self {
        let random = Random::new(seed);
        let clock = Arc::new(SimClock::new(0, random.clone()));
        let rows = MemoryStore::with_clock(clock.clone());
        let store = FaultyStore::new(rows.clone(), StoreFaults::none(ms(1)), random.clone());
        let settings = SharedSettings {
            shards: SHARDS,
            lease: ms(200),
        };
        let cache = MemorySharedCache::new(clock.clone(), settings);
        // What it loses, a test loses on purpose.
        cache.say_synced();
        Self {
            cache,
            clock,
            rows,
            store,
            disks: (0..nodes.max(1)).map(|_| SimDisk::default()).collect(),
            random,
        }
    }

    pub(crate) fn builder(&self, node: usize) -> GateBuilder {
        let faults = JournalFaults {
            sync_max: ms(1),
            fail: 0.0,
            full: 0.0,
            answers_early: false,
        };
        self.builder_with(node, faults)
    }

    /// A node that sees the cache through this.
    pub(crate) fn builder_over(
        &self,
        node: usize,
        cache: impl SharedCache + 'static,
    ) -> GateBuilder {
        self.builder(node).shared(cache)
    }

    /// The cache, with its news held back by `lag`.
    pub(crate) fn lagging(&self, lag: &Arc<Lag>) -> Lagging {
        Lagging {
            cache: self.cache.clone(),
            lag: Arc::clone(lag),
        }
    }

    pub(crate) fn builder_with(&self, node: usize, faults: JournalFaults) -> GateBuilder {
        let journal = FaultyJournal::new(self.disks[node].clone(), faults, self.random.clone());
        Gate::builder()
            .clock_arc(self.clock.clone())
            .store(self.store.clone())
            .shared(self.cache.clone())
            .mark_timeout(ms(200))
            .journal(journal)
    }

    pub(crate) async fn gate(&self, node: usize, class: Class) -> Gate {
        self.builder(node).class(class).open().await.unwrap()
    }

    pub(crate) async fn gates(&self, class: &Class) -> Vec<Gate> {
        let mut gates = Vec::new();
        for node in 0..self.disks.len() {
            gates.push(self.gate(node, class.clone()).await);
        }
        gates
    }

    /// The store fails every call, or is well again.
    pub(crate) fn set_down(&self, down: bool) {
        let mut faults = StoreFaults::none(ms(1));
        faults.unavailable = if down { 1.0 } else { 0.0 };
        self.store.set_faults(faults);
    }

    pub(crate) fn row(&self, key: &str) -> Option<Entry> {
        self.rows.row("b", &Key::from(key))
    }

    pub(crate) fn value(&self, key: &str) -> Option<String> {
        let row = self.row(key)?;
        Some(String::from_utf8(row.value.to_vec()).unwrap())
    }

    /// What somebody else does to a row.
    pub(crate) fn outside(&self, key: &str, value: Option<&str>) {
        self.rows
            .outside("b", &Key::from(key), value.map(str::as_bytes));
    }

    /// What a reader does that dies while it loads.
    pub(crate) async fn lease(&self, class: &str, key: &str) {
        let ask = Ask {
            key: shared_key(class, key),
            token: Token(self.clock.random()),
        };
        let asked = self.cache.ask(&[ask], self.clock.now()).await.remove(0);
        assert_eq!(asked.unwrap(), Asked::Lease(None));
    }

    /// What a writer does that dies before its write is sent to the store.
    pub(crate) async fn mark(&self, class: &str, key: &str, within: Duration) {
        let horizon = self.rows.horizon().await.unwrap();
        let mark = Mark {
            key: shared_key(class, key),
            token: Token(self.clock.random()),
            commit_by: horizon.now.after(within),
        };
        let marked = self.cache.mark(&[mark]).await.remove(0);
        assert_eq!(marked.unwrap(), Marked::Quarantined);
    }

    /// Waits until the keeper has opened all shards.
    pub(crate) async fn opened(&self) {
        let shards: Vec<Shard> = (0..self.cache.shards()).map(Shard).collect();
        for _ in 0..1000 {
            let states = self.cache.shard_states(&shards).await;
            if states.iter().all(|state| state.as_ref().unwrap().is_open) {
                return;
            }
            pass(ms(20)).await;
        }
        panic!("the shards stay closed");
    }
}

fn shared_key(class: &str, key: &str) -> SharedKey {
    SharedKey {
        class: class.into(),
        key: Key::from(key),
    }
}

/// All gates read this.
pub(crate) async fn all_read(gates: &[Gate], key: &str, expected: Option<&str>) {
    for gate in gates {
        assert_eq!(text(gate, key).await.as_deref(), expected, "{key}");
    }
}
