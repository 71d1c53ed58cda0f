//! Building a gate: parts, checks, tables, generation, replay, drivers, in this order.

use std::sync::Arc;
use std::time::Duration;

use super::{Gate, Handle};
use crate::age::AgeWatch;
use crate::budget::DirtyBudget;
use crate::class::{Class, ClassSet, Strategy};
use crate::error::{Error, Result};
use crate::flush;
use crate::keeper;
use crate::lane::Road;
use crate::layer::{ClassState, Layer, Parts};
#[cfg(feature = "mutation")]
use crate::mutation::Mutation;
use crate::mutation::Mutations;
use crate::port::{Clock, Journal, NodeId, SharedCache, Store};
use crate::read;
use crate::receipt::Durability;
use crate::recover;
use crate::shared::{self, SharedSettings};
use crate::stats::Counters;
use crate::strategy::{self, write_back};
use crate::sweep;

/// What a gate is to be made of. A clock and a store are needed, a journal if a class is write-back with
/// durability `journal`; everything else has a default.
#[derive(Default)]
#[must_use = "a builder does nothing until it is opened"]
pub struct GateBuilder {
    near_bytes: Option<u64>,
    lanes: Option<usize>,
    store: Option<Arc<dyn Store>>,
    journal: Option<Arc<dyn Journal>>,
    clock: Option<Arc<dyn Clock>>,
    shared: Option<Arc<dyn SharedCache>>,
    shared_settings: SharedSettings,
    classes: Vec<Class>,
    mutations: Mutations,
}

/// The near cache's bound unless another is given: 256 MiB.
const NEAR_BYTES: u64 = 256 << 20;
const LANES_MAX: usize = 1024;

impl GateBuilder {
    /// Bounds the near cache, in bytes of keys, values and overhead.
    pub fn near_bytes(mut self, bytes: u64) -> Self {
        self.near_bytes = Some(bytes);
        self
    }

    /// Sets the number of lanes; the store knows a good one.
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = Some(lanes);
        self
    }

    /// Sets the store.
    pub fn store(self, store: impl Store) -> Self {
        self.store_arc(Arc::new(store))
    }

    /// Sets the store.
    pub fn store_arc(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Sets the journal.
    pub fn journal(self, journal: impl Journal) -> Self {
        self.journal_arc(Arc::new(journal))
    }

    /// Sets the journal.
    pub fn journal_arc(mut self, journal: Arc<dyn Journal>) -> Self {
        self.journal = Some(journal);
        self
    }

    /// Shares a cache with other nodes: any number of gates, in whatever process, over the same cache and the same
    /// store. Classes have the [`Level`](crate::Level) that they ask for; classes without a store stay in this process.
    ///
    /// The store must be one that several nodes can share. Every node must have the same classes.
    pub fn shared(self, cache: impl SharedCache + 'static) -> Self {
        self.shared_arc(Arc::new(cache))
    }

    /// As [`shared`](Self::shared).
    pub fn shared_arc(mut self, cache: Arc<dyn SharedCache>) -> Self {
        self.shared = Some(cache);
        self
    }

    /// How long after it was announced in the shared cache a write may commit, by the store's clock: 2 seconds unless
    /// it is set. A write that comes later is undone, and its caller told that it was not made. The same on every node.
    pub fn mark_timeout(mut self, timeout: Duration) -> Self {
        self.shared_settings.mark_timeout = timeout;
        self
    }

    /// How often the store is asked what others changed in tables with an
    /// [`outbox`](crate::port::TableSpec::outbox): every 100 milliseconds unless it is set.
    pub fn outside_poll(mut self, every: Duration) -> Self {
        self.shared_settings.outside_poll = every;
        self
    }

    /// Sets the clock.
    pub fn clock(self, clock: impl Clock) -> Self {
        self.clock_arc(Arc::new(clock))
    }

    /// Sets the clock.
    pub fn clock_arc(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Adds a class.
    pub fn class(mut self, class: Class) -> Self {
        self.classes.push(class);
        self
    }

    /// Adds classes.
    pub fn classes(mut self, classes: impl IntoIterator<Item = Class>) -> Self {
        self.classes.extend(classes);
        self
    }

    /// Switches a rule off, for a test of tests.
    #[cfg(feature = "mutation")]
    #[doc(hidden)]
    pub fn without(mut self, rule: Mutation) -> Self {
        self.mutations = self.mutations.with(rule);
        self
    }

    /// Opens the tables, replays the journal and starts. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Configuration, naming the class, option, table or column, if the parts contradict each other or the
    /// store; unavailable if the store cannot be reached.
    pub async fn open(self) -> Result<Gate> {
        let missing = |part: &str| Error::configuration(format_args!("a gate needs a {part}"));
        let store = self.store.ok_or_else(|| missing("store"))?;
        let clock = self.clock.ok_or_else(|| missing("clock"))?;
        let classes = ClassSet::new(self.classes)?;
        let lanes = self.lanes.unwrap_or_else(|| store.capabilities().lanes);
        if lanes == 0 || lanes > LANES_MAX {
            return Err(Error::configuration(format_args!(
                "lanes must be 1 to {LANES_MAX}"
            )));
        }
        for class in classes.classes() {
            check_durability(class, self.journal.is_some(), self.shared.is_some())?;
        }

        if let Some(cache) = &self.shared {
            shared::validate(&*store, self.shared_settings, classes.classes())?;
            shared::check(&**cache, classes.classes()).await?;
        }
        let mut states = Vec::with_capacity(classes.classes().len());
        for class in classes.classes() {
            states.push(open_class(&*store, class).await?);
        }
        let recovered = match &self.journal {
            Some(journal) => recover::read(&**journal).await?,
            None => recover::Recovered::default(),
        };
        // Above every generation in the journal too, should the store have forgotten.
        let generation = store.open_generation(recovered.generation + 1).await?;
        let settings = self.shared_settings;
        let mut shared = None;
        if let Some(cache) = self.shared {
            let node = NodeId(clock.random());
            shared::join(&*store, &*cache, settings, node, classes.classes()).await?;
            shared = Some((cache, settings, node));
        }
        let layer = Arc::new(Layer::new(Parts {
            classes,
            states,
            near_bytes: self.near_bytes.unwrap_or(NEAR_BYTES),
            lanes,
            store,
            journal: self.journal,
            shared,
            clock,
            generation,
            mutations: self.mutations,
        }));
        if let Err(error) = prepare(&layer, recovered).await {
            shared::leave(&layer).await;
            return Err(error);
        }
        start(&layer);
        Ok(Gate {
            handle: Arc::new(Handle { layer }),
        })
    }
}

/// What is done before anything is served.
async fn prepare(layer: &Arc<Layer>, recovered: recover::Recovered) -> Result<()> {
    shared::prepare(layer).await?;
    let restored = recovered.restore(layer).await?;
    shared::back::restore(layer, restored).await
}

/// Refuses a write-back class whose writes could not be kept where it says.
fn check_durability(class: &Class, journal: bool, shared: bool) -> Result<()> {
    if class.strategy != Strategy::WriteBack {
        return Ok(());
    }
    let is_over_shared = matches!(class.durability, Durability::Shared | Durability::Both);
    if is_over_shared && !shared {
        return Err(Error::configuration(format_args!(
            "class '{}': durability '{}' needs a shared cache, and there is none",
            class.name,
            word(class.durability)
        )));
    }
    if shared::back::is_journalled(class) && !journal {
        return Err(Error::configuration(format_args!(
            "class '{}' is write-back with durability '{}', and there is no journal",
            class.name,
            word(class.durability)
        )));
    }
    Ok(())
}

fn word(durability: Durability) -> String {
    format!("{durability:?}").to_lowercase()
}

async fn open_class(store: &dyn Store, class: &Class) -> Result<ClassState> {
    let name: Arc<str> = class.name.as_str().into();
    let table = match class.strategy {
        Strategy::CacheOnly => None,
        _ => {
            let opened = store.open_table(&class.table).await;
            Some(opened.map_err(|error| Error::from(error).with_class(&name))?)
        }
    };
    Ok(ClassState {
        name,
        table,
        counters: Counters::default(),
        budget: Arc::new(DirtyBudget::new(
            class.dirty_bytes_max,
            class.dirty_entries_max,
        )),
        age: AgeWatch::default(),
    })
}

/// Starts the drivers: for each lane its loads, its three roads of writes and its flusher; and the sweeper.
fn start(layer: &Arc<Layer>) {
    for lane in 0..layer.lanes.len() {
        layer.spawn(read::drive_loads(Arc::clone(layer), lane));
        for road in Road::ALL {
            layer.spawn(strategy::drive(Arc::clone(layer), lane, road));
        }
        layer.spawn(flush::drive(Arc::clone(layer), lane));
    }
    if let Some(journal) = &layer.journal {
        for lane in 0..layer.lanes.len() {
            layer.spawn(write_back::drive_appended(
                Arc::clone(layer),
                lane,
                Arc::clone(journal),
            ));
        }
    }
    if let Some(journal) = &layer.journal {
        layer.spawn(keeper::drive(Arc::clone(layer), Arc::clone(journal)));
    }
    layer.spawn(sweep::drive(Arc::clone(layer)));
    shared::start(layer);
}
