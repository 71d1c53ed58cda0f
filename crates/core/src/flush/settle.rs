//! What follows a batch: each claim gets its end, under the lane's lock.

use crate::dead_letters::{DeadLetterReason, Refusal};
use crate::key::Key;
use crate::lane::{Claim, Lane, LaneState};
use crate::layer::Layer;
use crate::mutation::Mutation;
use crate::port::{Outcome, StoreError};
use crate::read::load;
use crate::strategy::commit::Committed;
use crate::version::Version;

/// Of claims that the store has something newer than: the versions of rows that hold it. A row of the same
/// version is an earlier try of the same flush that did reach the store. A newer one was written by somebody
/// else, for what this process writes of a key goes through one lane.
pub(super) async fn newer_rows(
    layer: &Layer,
    claims: &[Claim],
    committed: &[Committed],
) -> Vec<(Key, Version)> {
    let superseded = claims
        .iter()
        .zip(committed)
        .filter(|(_, c)| matches!(c, Ok(Outcome::Superseded)));
    let claims: Vec<&Claim> = superseded.map(|(claim, _)| claim).collect();
    if claims.is_empty() {
        return Vec::new();
    }
    let keys: Vec<(Key, usize)> = claims
        .iter()
        .map(|claim| (claim.key.clone(), claim.class))
        .collect();
    let Ok(rows) = load(layer, &keys).await else {
        return Vec::new();
    };
    let newer = claims.into_iter().zip(rows).filter_map(|(claim, row)| {
        let version = row?.version;
        (version > claim.version).then(|| (claim.key.clone(), version))
    });
    newer.collect()
}

/// Gives each claim of a batch, all of one class, its end, and returns the failure after which to wait.
pub(super) fn settle(
    layer: &Layer,
    lane: &Lane,
    claims: Vec<(Claim, Committed)>,
    foreign: &[(Key, Version)],
) -> Option<StoreError> {
    let mut failure = None;
    let mut stored = 0;
    let class = claims.first().map(|(claim, _)| claim.class);
    let mut state = lane.lock();
    for (claim, committed) in claims {
        match committed {
            Ok(outcome) => {
                let newer = foreign.iter().find(|(key, _)| *key == claim.key);
                if let Some((_, version)) = newer {
                    lost(layer, &mut state, &claim, *version);
                    continue;
                }
                clean(layer, &mut state, &claim);
                stored += 1;
                let counters = &layer.state(claim.class).counters;
                match outcome {
                    Outcome::Superseded | Outcome::Changed => counters.superseded.one(),
                    _ => counters.flushed.one(),
                }
            }
            Err(StoreError::Refused { .. })
                if layer.mutations.breaks(Mutation::DropOnPermanentError) =>
            {
                clean(layer, &mut state, &claim);
            }
            Err(error @ StoreError::Refused { .. }) => {
                let refusal = Refusal::of(&error, layer.clock.now());
                park(layer, &mut state, &claim, refusal);
            }
            Err(error) => {
                state.dirty.unclaim(&claim);
                failure = Some(error);
            }
        }
    }
    drop(state);
    if let Some(class) = class {
        let counters = &layer.state(class).counters;
        counters.flush_rounds.one();
        counters.flush_failures.add(u64::from(failure.is_some()));
        counters.flush_rate.add(stored, layer.clock.elapsed());
    }
    failure
}

/// The store has it: clean, unless it was written again meanwhile.
fn clean(layer: &Layer, state: &mut LaneState, claim: &Claim) {
    let hidden = state.dirty.get(claim.key.as_bytes()).is_none();
    let Some(entry) = state.dirty.settle(claim) else {
        return;
    };
    layer
        .state(entry.class)
        .budget
        .give(entry.bytes(&claim.key));
    if hidden {
        // Readers were shown the row that was there before.
        state.loads.invalidate(claim.key.as_bytes());
        layer.near.remove(claim.key.as_bytes());
    }
}

/// Acknowledged and overtaken by a stranger: kept, and said, never dropped. Readers get the stranger's row,
/// and later writes are numbered above it.
fn lost(layer: &Layer, state: &mut LaneState, claim: &Claim, newer: Version) {
    layer.issue_above(newer);
    let message = format!(
        "the row has version {newer}, which this process did not write and which is newer than {}",
        claim.version
    );
    let now = layer.clock.now();
    let refusal = Refusal::new(DeadLetterReason::Conflict, None, &message, now);
    park(layer, state, claim, refusal);
}

/// Makes a claim a dead letter, if it is still what its key holds.
pub(super) fn park(layer: &Layer, state: &mut LaneState, claim: &Claim, refusal: Refusal) {
    let class = &layer.state(claim.class).name;
    let reason = refusal.reason;
    let (why, code) = (refusal.message.clone(), refusal.code.clone());
    if !state.dirty.park(claim, refusal) {
        return;
    }
    if reason == DeadLetterReason::Conflict {
        state.loads.invalidate(claim.key.as_bytes());
        layer.near.remove(claim.key.as_bytes());
    }
    tracing::error!(
        key = %claim.key, %class, %why, ?code, %reason,
        "a dirty entry is parked: it is a dead letter now"
    );
}
