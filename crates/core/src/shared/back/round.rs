//! One round of the flusher: claim in some shards, write, settle. May be done by any node, by several at once, and as
//! often as one likes: every write is guarded by its version.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::claims::{Claim, Found, batches};
use super::kept::value_of;
use super::meet::{Met, meet};
use super::watch::{linger, looked};
use super::{Back, said};
use crate::dead_letters::Refusal;
use crate::flush::Permit;
use crate::layer::Layer;
use crate::mutation::Mutation;
use crate::port::{Flushed, Outcome, Shard, SharedError, SharedKey, StoreError};
use crate::strategy::commit;
use crate::version::Version;

/// So long nobody else takes what is claimed: longer than any commit should take. A node that dies holds its claims
/// up for so long.
const CLAIM_FOR: Duration = Duration::from_secs(10);
/// How often a batch is written again over rows that turn out to be the cache's own.
const ATTEMPTS_MAX: usize = 8;
/// An entry of a class that is not configured here is looked at again after this.
const STRANGE_FOR: Duration = Duration::from_secs(30);

/// What becomes of the entries of a round.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) settled: Vec<(SharedKey, Version, Flushed)>,
    /// By class, how many reached the store.
    stored: Vec<(usize, bool)>,
}

/// Brings what is dirty in some shards to the store, at most about `limit` entries of them.
///
/// # Errors
/// Transient: what was claimed is dirty as before.
pub(super) async fn round(
    layer: &Layer,
    back: &Back,
    shards: Vec<Shard>,
    limit: usize,
    permit: Permit<'_>,
) -> Result<(), StoreError> {
    let mut ends = Ends::default();
    let (claims, more) = claim(layer, back, &shards, limit, &mut ends).await;
    let is_empty = claims.is_empty();
    let mut failure = None;
    for batch in batches(claims, limit, batch_bytes(layer)) {
        match failure {
            None => failure = flush(layer, back, batch, &mut ends).await,
            // The store went away: nothing more of it now.
            Some(_) => put_off(layer, batch, &mut ends),
        }
    }
    match &failure {
        Some(_) => permit.failed(&*layer.clock),
        // Without a batch there was no answer.
        None if is_empty => drop(permit),
        None => permit.answered(layer.clock.elapsed()),
    }
    // Whatever this does not reach is claimed until the claim runs out, and then flushed once more.
    drop(back.settle(layer, &ends.settled).await);
    ends.count(layer, failure.is_some());
    let looked = looked(layer, back, &shards).await;
    back.room.learn_all(&looked, None);
    let now = layer.clock.elapsed();
    for (shard, dirty) in looked {
        // What is left and was not claimed here is another node's, or put off: the next look finds it.
        if dirty.entries > dirty.parked && !is_empty && failure.is_none() {
            let wait = match more.contains(&shard) {
                true => Duration::ZERO,
                false => linger(layer),
            };
            back.due.at(shard, now.saturating_add(wait));
        }
    }
    // Whoever waits would ask for a round at once: not after one that changed nothing.
    if ends.changed() {
        back.due.settled.notify_waiters();
    }
    failure.map_or(Ok(()), Err)
}

/// Claims in each of the shards; also which of them may have more.
async fn claim(
    layer: &Layer,
    back: &Back,
    shards: &[Shard],
    limit: usize,
    ends: &mut Ends,
) -> (Vec<Claim>, Vec<Shard>) {
    let claims = shards.iter().map(|shard| async {
        let most = most(layer, back, *shard, limit);
        (most, back.claim(layer, *shard, most, CLAIM_FOR).await)
    });
    let (mut found, mut more) = (Vec::new(), Vec::new());
    for (shard, (most, claimed)) in shards.iter().zip(join_all(claims).await) {
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(SharedError::NeedsGeneration { .. }) => continue,
            Err(error) => {
                tracing::debug!(%error, shard = shard.0, "a shard could not be flushed now");
                continue;
            }
        };
        if claimed.len() >= most {
            more.push(*shard);
        }
        for claimed in claimed {
            let (key, version) = (claimed.key.clone(), claimed.held.version);
            back.saw(version);
            match Claim::found(layer, claimed) {
                Found::Claim(claim) => found.push(claim),
                Found::Floor => ends.settled.push((key, version, Flushed::Dropped)),
                Found::Strange => {
                    tracing::error!(
                        class = %key.class, key = %key.key,
                        "the shared cache has an unflushed write of a class that is not configured here"
                    );
                    let later = layer.clock.now().after(STRANGE_FOR);
                    ends.settled.push((key, version, Flushed::Again(later)));
                }
            }
        }
    }
    (found, more)
}

/// How many entries of a shard make about a batch, by their usual size.
fn most(layer: &Layer, back: &Back, shard: Shard, limit: usize) -> usize {
    let dirty = back.room.of(shard);
    let usual = dirty.bytes / dirty.entries.max(1);
    let fit = batch_bytes(layer) / usual.max(1);
    limit.min(usize::try_from(fit).unwrap_or(usize::MAX)).max(1)
}

fn batch_bytes(layer: &Layer) -> u64 {
    let classes = super::watch::covered(layer);
    classes
        .map(|class| layer.class(class).batch_bytes)
        .min()
        .unwrap_or(1)
}

/// Writes a batch, in which no row stands twice. A failure that is transient.
async fn flush(
    layer: &Layer,
    back: &Back,
    batch: Vec<Claim>,
    ends: &mut Ends,
) -> Option<StoreError> {
    let mut waiting = batch;
    for _ in 0..ATTEMPTS_MAX {
        if waiting.is_empty() {
            return None;
        }
        let writes = waiting.iter().map(Claim::write).collect();
        let now = layer.clock.now();
        let applied = AssertUnwindSafe(commit::apply(&*layer.store, writes, now, None));
        // A panic is a bug of an adapter: as good as a lost answer, and like one repeated.
        let lost = || StoreError::unknown(None, "the store panicked");
        let applied = applied.catch_unwind().await;
        let applied = applied.unwrap_or_else(|_| waiting.iter().map(|_| Err(lost())).collect());
        let (mut met, mut failure) = (Vec::new(), None);
        for (claim, outcome) in waiting.into_iter().zip(applied) {
            match outcome {
                Ok(Outcome::Conflict { newest }) => met.push(Met { claim, newest }),
                Ok(outcome) => ends.stored(layer, back, &claim, outcome).await,
                Err(StoreError::Refused { .. })
                    if layer.mutations.breaks(Mutation::DropOnPermanentError) =>
                {
                    ends.end(&claim, Flushed::Dropped);
                }
                Err(error @ StoreError::Refused { .. }) => {
                    let refusal = Refusal::of(&error, layer.clock.now());
                    ends.park(layer, back, &claim, refusal);
                }
                Err(error) => {
                    put_off_one(layer, &claim, ends);
                    failure = Some(error);
                }
            }
        }
        waiting = meet(layer, back, met, ends).await;
        if failure.is_some() {
            put_off(layer, waiting, ends);
            return failure;
        }
    }
    put_off(layer, waiting, ends);
    None
}

/// What was not written now is free for everybody after a moment.
fn put_off(layer: &Layer, claims: Vec<Claim>, ends: &mut Ends) {
    for claim in &claims {
        put_off_one(layer, claim, ends);
    }
}

pub(super) fn put_off_one(layer: &Layer, claim: &Claim, ends: &mut Ends) {
    let mut backoff = crate::backoff::Backoff::default();
    let at = layer.clock.now().after(backoff.next(&*layer.clock));
    ends.end(claim, Flushed::Again(at));
}

impl Ends {
    pub(super) fn end(&mut self, claim: &Claim, flushed: Flushed) {
        self.settled
            .push((claim.key.clone(), claim.version, flushed));
    }

    /// The store has it.
    async fn stored(&mut self, layer: &Layer, back: &Back, claim: &Claim, outcome: Outcome) {
        self.stored.push((claim.class, outcome.version().is_some()));
        if !claim.is_lost {
            back.kept.stored(&claim.key, claim.version);
            let life = back.life(layer, claim.class, value_of(&claim.change).as_ref());
            self.end(claim, Flushed::Stored(life));
            return;
        }
        // Readers have had the row of before.
        let key = SharedKey {
            class: layer.state(claim.class).name.clone(),
            key: claim.key.key.clone(),
        };
        back.kept.stored(&key, claim.version);
        drop(back.invalidate(layer, &[(key, claim.version)]).await);
        back.letters.gone(&claim.key);
        self.end(claim, Flushed::Dropped);
    }

    /// Something of this cache that is newer is in the store already.
    pub(super) fn superseded(&mut self, back: &Back, claim: &Claim) {
        self.stored.push((claim.class, false));
        if !claim.is_lost {
            back.kept.stored(&claim.key, claim.version);
        }
        back.letters.gone(&claim.key);
        self.end(claim, Flushed::Dropped);
    }

    /// The store does not take it.
    pub(super) fn park(&mut self, layer: &Layer, back: &Back, claim: &Claim, refusal: Refusal) {
        let refusal = back.letters.refused(claim, refusal);
        let class = &layer.state(claim.class).name;
        tracing::error!(
            key = %claim.key.key, %class, why = %refusal.message, code = ?refusal.code, reason = %refusal.reason,
            "a dirty entry is parked: it is a dead letter now"
        );
        self.end(claim, Flushed::Parked(said::write(&refusal)));
    }

    /// Whether any entry is not what it was before.
    fn changed(&self) -> bool {
        let again = |flushed: &Flushed| matches!(flushed, Flushed::Again(_));
        self.settled.iter().any(|(_, _, flushed)| !again(flushed))
    }

    fn count(&self, layer: &Layer, failed: bool) {
        let mut classes: Vec<usize> = self.stored.iter().map(|(class, _)| *class).collect();
        classes.sort_unstable();
        classes.dedup();
        for class in classes {
            let counters = &layer.state(class).counters;
            let mine = self.stored.iter().filter(|(of, _)| *of == class);
            let (all, flushed) = mine.fold((0, 0), |(all, flushed), (_, is_flushed)| {
                (all + 1, flushed + u64::from(*is_flushed))
            });
            counters.flushed.add(flushed);
            counters.superseded.add(all - flushed);
            counters.flush_rounds.one();
            counters.flush_rate.add(all, layer.clock.elapsed());
        }
        if failed {
            for class in super::watch::covered(layer) {
                layer.state(class).counters.flush_failures.one();
            }
        }
    }
}
