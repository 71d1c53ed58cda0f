//! Giving a cache that lost something what this node's journal has of it, before its shards are opened.
//!
//! That is a task of its own, which waits for nothing else: whichever node proves first that a shard may be opened does
//! not ask the others whether they are done. So each looks several times in the time that such a proof takes, and an
//! answer that does not come is given up and asked for again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::Notify;

use super::replay::{CHUNK, replay};
use super::{Back, is_journalled};
use crate::layer::Layer;
use crate::port::{Shard, ShardState, shard_of};
use crate::shared::fit;

/// How often it is looked where no class relies on journals.
const INTERVAL: Duration = Duration::from_secs(1);
/// What is waited for an answer at most. At first it is as long as the time between two looks, and more each time
/// that this was not enough.
const PATIENCE_MAX: Duration = Duration::from_secs(10);

/// In which generation of each shard the journal gave back what it has.
pub(crate) struct GivenBack {
    shards: Vec<GivenShard>,
    /// Somebody waits for it.
    awaited: Notify,
}

#[derive(Default)]
struct GivenShard {
    /// Of this one it was begun: what is kept from then on may not be among it.
    begun: AtomicU64,
    done: AtomicU64,
}

impl GivenBack {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            shards: (0..shards).map(|_| GivenShard::default()).collect(),
            awaited: Notify::new(),
        }
    }

    fn of(&self, shard: Shard) -> Option<&GivenShard> {
        self.shards.get(usize::from(shard.0))
    }

    fn has(&self, shard: Shard, generation: u64) -> bool {
        let of = self.of(shard);
        of.is_some_and(|of| of.done.load(Ordering::Acquire) == generation)
    }

    /// The last generation of the shard for which it was begun. If that is the same before a write is put and after
    /// its record is kept, the write is in the cache or among what will be given back.
    pub(super) fn begun(&self, shard: Shard) -> u64 {
        self.of(shard)
            .map_or(0, |of| of.begun.load(Ordering::Acquire))
    }
}

/// Whether all that this node's journal has of a shard was given back in this generation of it. If not, it will be soon.
pub(crate) fn is_given_back(layer: &Layer, back: &Back, shard: Shard, generation: u64) -> bool {
    let is_done = layer.journal.is_none() || back.given_back.has(shard, generation);
    if !is_done {
        back.given_back.awaited.notify_one();
    }
    is_done
}

/// Gives back until the layer stops.
pub(super) async fn drive(layer: Arc<Layer>) {
    let Some(shared) = &layer.shared else {
        return;
    };
    let back = &shared.back;
    let usual = interval(&layer, shared.settings.mark_timeout);
    let mut patience = usual;
    while !layer.is_stopping() {
        if look(&layer, back, &mut patience).await {
            patience = usual;
        }
        let wait = layer.jittered(usual, 0.5);
        let awaited = std::pin::pin!(back.given_back.awaited.notified());
        let stopped = std::pin::pin!(back.stopped.notified());
        select(select(awaited, stopped), layer.clock.sleep(wait)).await;
    }
}

fn interval(layer: &Layer, mark_timeout: Duration) -> Duration {
    match layer.classes.classes().iter().any(is_journalled) {
        true => INTERVAL.min(mark_timeout / 4),
        false => INTERVAL,
    }
}

/// Gives shards of another generation than before what the journal has of them. False if something was not answered.
async fn look(layer: &Layer, back: &Back, patience: &mut Duration) -> bool {
    let Some(states) = in_time(layer, patience, states(layer, back)).await else {
        return false;
    };
    let anew: Vec<ShardState> = states
        .into_iter()
        .filter(|state| state.is_current && !back.given_back.has(state.shard, state.generation))
        .collect();
    if anew.is_empty() {
        return true;
    }
    for state in &anew {
        back.known.saw(state.generation);
        if let Some(of) = back.given_back.of(state.shard) {
            of.begun.store(state.generation, Ordering::Release);
        }
    }
    let is_anew = |shard: Shard| anew.iter().any(|state| state.shard == shard);
    let writes = back
        .kept
        .all(|key| is_anew(shard_of(&key.key, back.shards)));
    // What is too much for the time there is goes piece by piece.
    for chunk in writes.chunks(CHUNK) {
        match in_time(layer, patience, replay(layer, back, chunk.to_vec())).await {
            Some(left) if left.is_empty() => {}
            _ => return false,
        }
    }
    for state in &anew {
        if let Some(of) = back.given_back.of(state.shard) {
            of.done.store(state.generation, Ordering::Release);
        }
    }
    true
}

/// The states of the shards that tell them.
async fn states(layer: &Layer, back: &Back) -> Vec<ShardState> {
    let Some(shared) = &layer.shared else {
        return Vec::new();
    };
    let Some(pass) = shared.reach.pass(&*layer.clock) else {
        return Vec::new();
    };
    let shards: Vec<Shard> = (0..back.shards).map(Shard).collect();
    let states = fit(shared.cache.shard_states(&shards).await, shards.len());
    pass.tell(&states, &*layer.clock);
    states.into_iter().filter_map(Result::ok).collect()
}

/// The answer, if it comes in time; if not, more time is given to the next.
async fn in_time<T>(
    layer: &Layer,
    patience: &mut Duration,
    answer: impl Future<Output = T>,
) -> Option<T> {
    let answer = std::pin::pin!(answer);
    match select(answer, layer.clock.sleep(*patience)).await {
        Either::Left((answer, _)) => Some(answer),
        Either::Right(_) => {
            *patience = (*patience * 2).min(PATIENCE_MAX);
            None
        }
    }
}
