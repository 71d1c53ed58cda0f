//! The layer over a shared cache: what several nodes do with one cache in front of one store.
//!
//! A node is a gate with a shared cache. Nodes know nothing of each other. What a key holds is decided by the store, in
//! which one write comes after another, and whether a copy of it may be served by the state that the key has in the
//! shared cache ([`crate::port::SharedCache`]): a write marks its key before it may commit, and takes the mark away
//! when it is known to have ended; a reader that fills the cache holds a lease that every mark destroys.
//!
//! In reading order: [`read`], [`flights`] and [`load`] (a read), [`present`], [`commit`] and [`release`] (a write),
//! [`sweep`] (marks that nobody takes away), [`generation`] (a cache that may have lost something), [`store_clock`],
//! [`copies`] and [`session`] (levels below linearizable), [`back`] (writes acknowledged before the store has them),
//! [`members`] (settings that all nodes must share), [`outside`] (writes that pass by all of them), [`reach`] (a cache
//! that is away), [`audit`] (one that is set up wrongly).

mod audit;
pub(crate) mod back;
mod commit;
mod copies;
mod counters;
mod flights;
mod generation;
mod life;
mod load;
mod members;
mod outside;
mod present;
mod reach;
mod read;
mod release;
mod session;
mod store_clock;
mod sweep;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub(crate) use audit::check;
pub use audit::{Audit, Demands};
pub(crate) use commit::commit;
pub(crate) use copies::find as find_copy;
pub use counters::SharedStats;
pub(crate) use members::{join, leave};
pub(crate) use present::find as find_present;
pub(crate) use read::{near_read, read, read_many};
pub use session::Session;

use back::Back;
use copies::Copies;
use counters::SharedCounters;
use flights::LaneFlights;
use generation::{Keeper, Needs};
use reach::Reach;
use store_clock::StoreClock;

use crate::class::{Class, Strategy};
use crate::error::{Error, ErrorKind, Result};
use crate::explain::SharedState;
use crate::hash::Hasher;
use crate::key::Key;
use crate::layer::Layer;
use crate::port::{
    Each, Got, ManyNodes, NodeId, SharedCache, SharedError, SharedKey, Store, StoreTime, Token,
};

/// How long after its mark a write may commit, unless the builder says otherwise.
pub(crate) const MARK_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the changes of others are asked for, unless the builder says otherwise.
pub(crate) const OUTSIDE_POLL: Duration = Duration::from_millis(100);

/// What a gate has for its shared cache.
pub(crate) struct Shared {
    pub(crate) cache: Arc<dyn SharedCache>,
    pub(crate) reach: Reach,
    /// Shards need a new generation.
    pub(crate) needs: Needs,
    pub(crate) counters: SharedCounters,
    lanes: Vec<SharedLane>,
    pub(crate) copies: Copies,
    /// Write-back.
    pub(crate) back: Back,
    store_clock: StoreClock,
    settings: SharedSettings,
    node: NodeId,
    /// In what another live node has other settings.
    disagreement: Mutex<Option<String>>,
}

/// How a gate deals with its shared cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedSettings {
    /// How long after its mark a write may commit, by the store's clock.
    pub(crate) mark_timeout: Duration,
    /// How often the changes of others are asked for.
    pub(crate) outside_poll: Duration,
}

impl Default for SharedSettings {
    fn default() -> Self {
        Self {
            mark_timeout: MARK_TIMEOUT,
            outside_poll: OUTSIDE_POLL,
        }
    }
}

/// What a lane has for the shared cache.
struct SharedLane {
    flights: LaneFlights,
}

impl Shared {
    pub(crate) fn new(
        cache: Arc<dyn SharedCache>,
        settings: SharedSettings,
        node: NodeId,
        lanes: usize,
        hasher: &Hasher,
    ) -> Self {
        let lane = || SharedLane {
            flights: LaneFlights::new(hasher),
        };
        Self {
            back: Back::new(&cache, hasher),
            cache,
            reach: Reach::default(),
            needs: Needs::default(),
            counters: SharedCounters::default(),
            lanes: (0..lanes).map(|_| lane()).collect(),
            copies: Copies::new(hasher),
            store_clock: StoreClock::default(),
            settings,
            node,
            disagreement: Mutex::new(None),
        }
    }

    /// Wakes whoever waits, so that each sees that the layer is stopping.
    pub(crate) fn wake_all(&self) {
        self.needs.tell();
        self.lanes.iter().for_each(|lane| lane.flights.wake());
        self.back.wake_all();
    }

    pub(crate) fn stats(&self) -> SharedStats {
        let disagreement = self
            .disagreement
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.counters
            .stats(self.reach.state(), disagreement.clone())
    }

    /// Makes keys absent for all nodes, as far as they are clean. For each, whether there was something to be served.
    pub(crate) async fn evict(&self, layer: &Layer, keys: &[(Key, usize)]) -> Result<Vec<bool>> {
        let named: Vec<SharedKey> = keys
            .iter()
            .map(|(key, class)| shared_key(layer, *class, key))
            .collect();
        let pass = self.reach.pass(&*layer.clock).ok_or_else(away)?;
        let found = fit(self.cache.get(&named).await, named.len());
        let evicted = fit(self.cache.evict(&named).await, named.len());
        pass.tell(&evicted, &*layer.clock);
        for evicted in evicted {
            match evicted {
                // There is nothing that may be served.
                Ok(()) | Err(SharedError::NeedsGeneration { .. }) => {}
                Err(error) => return Err(Error::new(ErrorKind::Unavailable, error)),
            }
        }
        let was_there = |got| matches!(got, Ok(Got::Clean { .. }));
        Ok(found.into_iter().map(was_there).collect())
    }

    /// What the cache may serve of a key, for a person.
    pub(crate) async fn look(&self, layer: &Layer, key: &Key, class: usize) -> SharedState {
        let key = [shared_key(layer, class, key)];
        let Some(got) = self.cache.get(&key).await.pop() else {
            return SharedState::Away;
        };
        match got {
            Ok(Got::Clean { held, fresh_until }) if fresh_until <= layer.clock.now() => {
                SharedState::Stale(held.version)
            }
            Ok(Got::Clean { held, .. }) => SharedState::Clean(held.version),
            Ok(Got::Dirty(held)) => SharedState::Dirty(held.version),
            Ok(Got::Parked(held)) => SharedState::Parked(held.version),
            Ok(Got::Nothing) => SharedState::Absent,
            Err(SharedError::NeedsGeneration { .. }) => SharedState::Recovering,
            Err(_) => SharedState::Away,
        }
    }

    /// The same of all keys.
    pub(crate) async fn clear(&self, layer: &Layer) -> Result<()> {
        let pass = self.reach.pass(&*layer.clock).ok_or_else(away)?;
        match self.cache.clear().await {
            Ok(()) | Err(SharedError::NeedsGeneration { .. }) => {
                pass.answered();
                Ok(())
            }
            Err(error) => {
                pass.failed(&error, &*layer.clock);
                Err(Error::new(ErrorKind::Unavailable, error))
            }
        }
    }

    /// What the store shows of its clock now, or has shown already.
    fn store_now(&self, layer: &Layer) -> Option<StoreTime> {
        self.store_clock.estimate(layer.clock.elapsed())
    }
}

/// Starts what a gate does by itself with its shared cache.
pub(crate) fn start(layer: &Arc<Layer>) {
    if layer.shared.is_none() {
        return;
    }
    for lane in 0..layer.lanes.len() {
        for _ in 0..load::BATCHES_AT_ONCE {
            layer.spawn(load::drive(Arc::clone(layer), lane));
        }
    }
    layer.spawn(generation::drive(Arc::clone(layer)));
    layer.spawn(sweep::drive(Arc::clone(layer)));
    layer.spawn(members::drive(Arc::clone(layer)));
    back::spawn(layer);
    if outside::is_watched(layer) {
        layer.spawn(outside::drive(Arc::clone(layer)));
    }
}

/// What the store offers to several nodes.
///
/// # Errors
/// Configuration, if that is nothing.
pub(crate) fn many_nodes(store: &dyn Store) -> Result<&dyn ManyNodes> {
    store.many_nodes().ok_or_else(|| {
        Error::configuration(format_args!(
            "a shared cache needs a store that several nodes can share, such as PostgreSQL; {} is not one",
            store.name()
        ))
    })
}

/// Refuses what contradicts itself, naming the option.
pub(crate) fn validate(
    store: &dyn Store,
    settings: SharedSettings,
    classes: &[Class],
) -> Result<()> {
    many_nodes(store)?;
    classes.iter().try_for_each(back::validate)?;
    if settings.mark_timeout.is_zero() {
        return Err(Error::configuration("mark_timeout must not be zero"));
    }
    if settings.outside_poll.is_zero() {
        return Err(Error::configuration("outside_poll must not be zero"));
    }
    Ok(())
}

/// What is done before anything is served: the store's clock is known, and shards that need a generation have one.
///
/// # Errors
/// Unavailable if the store does not answer.
pub(crate) async fn prepare(layer: &Arc<Layer>) -> Result<()> {
    let Some(shared) = &layer.shared else {
        return Ok(());
    };
    Keeper::new(shared).look(layer, shared).await?;
    let watched = copies::watch(layer, shared).await;
    watched.map_err(|error| Error::new(ErrorKind::Unavailable, error))
}

/// The key as the shared cache knows it.
pub(crate) fn shared_key(layer: &Layer, class: usize, key: &Key) -> SharedKey {
    SharedKey {
        class: Arc::clone(&layer.state(class).name),
        key: key.clone(),
    }
}

/// Whether keys of this strategy are in the shared cache.
pub(crate) fn covers(strategy: Strategy) -> bool {
    strategy != Strategy::CacheOnly
}

/// Names a lease or a write.
fn token(layer: &Layer) -> Token {
    Token(layer.clock.random())
}

/// Nothing was sent.
fn away() -> Error {
    Error::new(ErrorKind::Unavailable, "the shared cache is away")
}

/// As many answers as questions. A cache that answers another number has broken its contract: anything may have been
/// done.
fn fit<T>(answers: Each<T>, asked: usize) -> Each<T> {
    if answers.len() == asked {
        return answers;
    }
    let odd = || SharedError::unavailable("it answered another number of things than asked");
    (0..asked).map(|_| Err(odd())).collect()
}
