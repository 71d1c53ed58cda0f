//! The keeper of generations: a shard of a cache that may have lost something gets a new one, and is opened when no
//! write of before can still commit.
//!
//! 1. Shards without a current generation get one that the store has just given out. From then on nothing of before is
//!    served, and they are closed: no reader gets a lease, and no quarantine that opens meanwhile ends clean.
//! 2. Whoever finds shards closed, also ones that another node closed, reads the store's clock after that. A write
//!    marked in the cache of before is one whose mark nobody can see any more. Its limit of time is at most the mark's
//!    timeout after that reading, because what nodes take for the store's clock is never ahead of it.
//! 3. What the journal of this node has of them is given back to the cache.
//! 4. When the store proves that no transaction with such a limit is left ([`Proof`]), they are opened. Any node may:
//!    each has a proof of its own. Where classes rely on journals every node looks several times in the time that this
//!    takes, so that each has [given back](super::back::give_back) what its journal has; one that is away gives it
//!    back when it returns.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::Notify;

use super::back::give_back::is_given_back;
use super::store_clock::deadline;
use super::{Shared, fit, many_nodes};
use crate::backoff::Backoff;
use crate::error::Result;
use crate::layer::Layer;
use crate::port::{Horizon, Proof, Shard, ShardState, SharedError};

/// How often shards are looked at when nobody says that they need it.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often while some are closed.
const CLOSED_INTERVAL: Duration = Duration::from_millis(50);

/// Who asks for the keeper, and who waits for it.
#[derive(Default)]
pub(crate) struct Needs {
    told: Notify,
    looked: Notify,
}

impl Needs {
    /// A shard needs a generation.
    pub(crate) fn tell(&self) {
        self.told.notify_one();
    }

    /// Returns when the keeper has looked once more.
    pub(super) async fn looked(&self) {
        self.looked.notified().await;
    }
}

/// Keeps the generations of all shards until the layer stops.
pub(super) async fn drive(layer: Arc<Layer>) {
    let Some(shared) = &layer.shared else {
        return;
    };
    let mut keeper = Keeper::new(shared);
    let mut backoff = Backoff::default();
    while !layer.is_stopping() {
        let looked = keeper.look(&layer, shared).await;
        shared.needs.looked.notify_waiters();
        let wait = match looked {
            Ok(()) => {
                backoff.reset();
                match keeper.closed.is_empty() {
                    true => INTERVAL,
                    false => CLOSED_INTERVAL,
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the shards of the shared cache could not be looked at");
                backoff.next(&*layer.clock).min(INTERVAL)
            }
        };
        let told = std::pin::pin!(shared.needs.told.notified());
        let wait = layer.jittered(wait, 0.5);
        if let Either::Left(_) = select(told, layer.clock.sleep(wait)).await {
            // Many are told the same at once. Whoever asks in vain must not make the keeper spin.
            layer.clock.sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The store's clock and the bounds of its transactions; remembers the clock.
pub(super) async fn horizon(layer: &Layer, shared: &Shared) -> Result<Horizon> {
    let horizon = many_nodes(&*layer.store)?.horizon().await?;
    shared.store_clock.learn(horizon.now, layer.clock.elapsed());
    Ok(horizon)
}

/// See the [module](self).
pub(super) struct Keeper {
    shards: Vec<Shard>,
    /// Shards that are closed, as this node found them.
    closed: BTreeMap<Shard, Closed>,
}

struct Closed {
    generation: u64,
    proof: Proof,
}

impl Keeper {
    pub(super) fn new(shared: &Shared) -> Self {
        Self {
            shards: (0..shared.cache.shards()).map(Shard).collect(),
            closed: BTreeMap::new(),
        }
    }

    /// One look at all shards, and what is to be done about them.
    pub(super) async fn look(&mut self, layer: &Layer, shared: &Shared) -> Result<()> {
        let states = self.states(layer, shared).await;
        let closed = states.iter().filter(|state| !state.is_open);
        let closed: BTreeMap<Shard, u64> = closed
            .map(|state| (state.shard, state.generation))
            .collect();
        shared.counters.shards_closed.set(closed.len() as u64);
        self.closed
            .retain(|shard, known| closed.get(shard) == Some(&known.generation));
        // Also where nothing is closed: writes go by what is known of the store's clock.
        let horizon = horizon(layer, shared).await?;
        for (shard, generation) in closed {
            self.closed.entry(shard).or_insert_with(|| Closed {
                generation,
                proof: Proof::of(deadline(horizon.now, shared.settings.mark_timeout)),
            });
        }
        let mut proven: BTreeMap<u64, Vec<Shard>> = BTreeMap::new();
        for (shard, closed) in &mut self.closed {
            let is_given_back = is_given_back(layer, &shared.back, *shard, closed.generation);
            if closed.proof.learn(&horizon) && is_given_back {
                proven.entry(closed.generation).or_default().push(*shard);
            }
        }
        for (generation, shards) in proven {
            self.open(layer, shared, &shards, generation).await;
        }
        Ok(())
    }

    /// The state of all shards that tell it, after those that need a generation got one.
    async fn states(&self, layer: &Layer, shared: &Shared) -> Vec<ShardState> {
        let Some(pass) = shared.reach.pass(&*layer.clock) else {
            return Vec::new();
        };
        let states = fit(
            shared.cache.shard_states(&self.shards).await,
            self.shards.len(),
        );
        pass.tell(&states, &*layer.clock);
        let states: Vec<ShardState> = states.into_iter().filter_map(Result::ok).collect();
        let (mut current, outdated): (Vec<_>, Vec<_>) =
            states.into_iter().partition(|state| state.is_current);
        if !outdated.is_empty() {
            match self.raise(layer, shared, &outdated).await {
                Ok(raised) => current.extend(raised),
                Err(error) => tracing::warn!(
                    %error,
                    shards = outdated.len(),
                    "shards of the shared cache need a new generation and could not get one: their keys are read from \
                     the store and cannot be written"
                ),
            }
        }
        current
    }

    async fn raise(
        &self,
        layer: &Layer,
        shared: &Shared,
        outdated: &[ShardState],
    ) -> Result<Vec<ShardState>> {
        let newest = outdated.iter().map(|state| state.generation).max();
        // Greater than what is there, should the store have forgotten what it gave out.
        let above = newest.unwrap_or(0).saturating_add(1);
        let generation = layer.store.open_generation(above).await?;
        let shards: Vec<Shard> = outdated.iter().map(|state| state.shard).collect();
        let Some(pass) = shared.reach.pass(&*layer.clock) else {
            return Ok(Vec::new());
        };
        let raised = fit(
            shared.cache.open_generation(&shards, generation).await,
            shards.len(),
        );
        pass.tell(&raised, &*layer.clock);
        shared.counters.generations.one();
        let raised: Vec<ShardState> = raised.into_iter().filter_map(Result::ok).collect();
        tracing::info!(
            shards = raised.len(),
            generation,
            "shards of the shared cache have a new generation: what they held is not served any more"
        );
        Ok(raised
            .into_iter()
            .filter(|state| state.is_current)
            .collect())
    }

    async fn open(&mut self, layer: &Layer, shared: &Shared, shards: &[Shard], generation: u64) {
        let Some(pass) = shared.reach.pass(&*layer.clock) else {
            return;
        };
        let opened = fit(shared.cache.open(shards, generation).await, shards.len());
        pass.tell(&opened, &*layer.clock);
        for (shard, opened) in shards.iter().zip(opened) {
            match opened {
                Ok(true) => {
                    shared.counters.shards_opened.one();
                    self.closed.remove(shard);
                }
                // It has another generation by now, of which another look tells.
                Ok(false) | Err(SharedError::NeedsGeneration { .. }) => {
                    self.closed.remove(shard);
                    shared.needs.tell();
                }
                Err(_) => {}
            }
        }
        shared.counters.shards_closed.set(self.closed.len() as u64);
    }
}
