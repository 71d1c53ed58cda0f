//! Calls of the shared cache for write-back: nothing is asked while it is away, what goes wrong is told to the breaker
//! and to the keeper of generations, and an answer of another length than the question is none.

use std::sync::Arc;
use std::time::Duration;

use super::Back;
use crate::layer::Layer;
use crate::port::{
    Ask, Asked, BoxFuture, Claimed, Each, Fill, Flushed, Got, Put, PutOutcome, Replay, Shard,
    ShardDirty, SharedCache, SharedError, SharedKey, Timestamp,
};
use crate::shared::Shared;
use crate::version::Version;

impl Back {
    pub(super) async fn put(&self, layer: &Layer, put: Put) -> Result<PutOutcome, SharedError> {
        let puts = [put];
        let put = each(layer, 1, |cache| cache.put(&puts)).await;
        first(put)
    }

    pub(super) async fn get(&self, layer: &Layer, key: &SharedKey) -> Result<Got, SharedError> {
        first(self.get_many(layer, std::slice::from_ref(key)).await)
    }

    pub(super) async fn get_many(&self, layer: &Layer, keys: &[SharedKey]) -> Each<Got> {
        each(layer, keys.len(), |cache| cache.get(keys)).await
    }

    pub(super) async fn ask(
        &self,
        layer: &Layer,
        ask: Ask,
        now: Timestamp,
    ) -> Result<Asked, SharedError> {
        let asks = [ask];
        first(each(layer, 1, |cache| cache.ask(&asks, now)).await)
    }

    pub(super) async fn fill(&self, layer: &Layer, fill: Fill) -> Result<bool, SharedError> {
        let fills = [fill];
        first(each(layer, 1, |cache| cache.fill(&fills)).await)
    }

    pub(super) async fn settle(
        &self,
        layer: &Layer,
        flushed: &[(SharedKey, Version, Flushed)],
    ) -> Each<bool> {
        if flushed.is_empty() {
            return Vec::new();
        }
        each(layer, flushed.len(), |cache| cache.settle(flushed)).await
    }

    pub(super) async fn claim(
        &self,
        layer: &Layer,
        shard: Shard,
        limit: usize,
        claim_for: Duration,
    ) -> Result<Vec<Claimed>, SharedError> {
        let now = layer.clock.now();
        one(layer, |cache| cache.claim(shard, limit, now, claim_for)).await
    }

    pub(super) async fn parked(
        &self,
        layer: &Layer,
        shard: Shard,
        limit: usize,
    ) -> Result<Vec<(Claimed, Arc<str>)>, SharedError> {
        one(layer, |cache| cache.parked(shard, limit)).await
    }

    pub(super) async fn unpark(
        &self,
        layer: &Layer,
        key: &SharedKey,
        version: Version,
    ) -> Result<bool, SharedError> {
        let parked = [(key.clone(), version)];
        let now = layer.clock.now();
        first(each(layer, 1, |cache| cache.unpark(&parked, now)).await)
    }

    pub(super) async fn replay(&self, layer: &Layer, replays: &[Replay]) -> Each<bool> {
        each(layer, replays.len(), |cache| cache.replay(replays)).await
    }

    pub(super) async fn dirty(&self, layer: &Layer, shards: &[Shard]) -> Each<ShardDirty> {
        each(layer, shards.len(), |cache| cache.dirty(shards)).await
    }

    pub(super) async fn invalidate(
        &self,
        layer: &Layer,
        changed: &[(SharedKey, Version)],
    ) -> Each<()> {
        each(layer, changed.len(), |cache| cache.invalidate(changed)).await
    }
}

/// Nothing was sent: the cache is away.
pub(super) fn is_unsent(error: &SharedError) -> bool {
    matches!(error, SharedError::Unavailable { message } if **message == *UNSENT)
}

const UNSENT: &str = "it did not answer several times in a row and is not asked now";

fn first<T>(mut each: Each<T>) -> Result<T, SharedError> {
    each.pop().unwrap_or_else(|| Err(odd()))
}

/// A cache that answers another number of things than it was asked has broken its contract: anything may have been
/// done.
fn odd() -> SharedError {
    SharedError::unavailable("it answered another number of things than asked")
}

/// One answer for each of `count` things.
async fn each<'a, T: Send + 'a>(
    layer: &'a Layer,
    count: usize,
    call: impl FnOnce(&'a dyn SharedCache) -> BoxFuture<'a, Each<T>>,
) -> Each<T> {
    let unsent = || {
        (0..count)
            .map(|_| Err(SharedError::unavailable(UNSENT)))
            .collect()
    };
    let Some(shared) = &layer.shared else {
        return unsent();
    };
    let Some(pass) = shared.reach.pass(&*layer.clock) else {
        return unsent();
    };
    let mut answers = call(&*shared.cache).await;
    if answers.len() != count {
        answers = (0..count).map(|_| Err(odd())).collect();
    }
    pass.tell(&answers, &*layer.clock);
    for answer in &answers {
        if let Err(error) = answer {
            tell(shared, error);
        }
    }
    answers
}

/// One answer.
async fn one<'a, T: Send + 'a>(
    layer: &'a Layer,
    call: impl FnOnce(&'a dyn SharedCache) -> BoxFuture<'a, Result<T, SharedError>>,
) -> Result<T, SharedError> {
    let unsent = || SharedError::unavailable(UNSENT);
    let shared = layer.shared.as_ref().ok_or_else(unsent)?;
    let pass = shared.reach.pass(&*layer.clock).ok_or_else(unsent)?;
    let answer = call(&*shared.cache).await;
    match &answer {
        Err(error @ SharedError::Unavailable { .. }) => pass.failed(error, &*layer.clock),
        _ => pass.answered(),
    }
    if let Err(error) = &answer {
        tell(shared, error);
    }
    answer
}

/// What a shard needs is the keeper's work.
fn tell(shared: &Shared, error: &SharedError) {
    if let SharedError::NeedsGeneration { .. } = error {
        shared.needs.tell();
    }
}
