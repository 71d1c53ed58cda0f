//! What follows a batch: each claim gets its end, under the lane's lock.

use crate::conflict::{self, Decision, Merged};
use crate::dead_letters::{DeadLetterReason, Refusal};
use crate::entry::Entry;
use crate::lane::{Claim, Lane, LaneState};
use crate::layer::Layer;
use crate::mutation::Mutation;
use crate::port::{Outcome, StoreError};
use crate::strategy::commit::Committed;
use crate::version::Version;

/// Gives each claim of a batch, all of one class, its end, and returns the failure after which to wait.
pub(super) fn settle(
    layer: &Layer,
    lane: &Lane,
    claims: Vec<(Claim, Committed)>,
    mut merged: Merged,
) -> Option<StoreError> {
    let mut failure = None;
    let mut stored = 0;
    let class = claims.first().map(|(claim, _)| claim.class);
    let mut state = lane.lock();
    for (claim, committed) in claims {
        match committed {
            Ok(Outcome::Conflict { newest }) => {
                match conflict::decide(layer, &mut state, &claim, newest, &mut merged) {
                    Decision::Again => {}
                    Decision::Superseded => {
                        state.dirty.stored(&claim, newest);
                        clean(layer, &mut state, &claim);
                        let key = claim.key.as_bytes();
                        if state.dirty.get(key).is_none() && !state.is_queued(key) {
                            // Readers were shown what is older than the row.
                            state.loads.invalidate(key);
                            layer.near.remove(key);
                        }
                        stored += 1;
                        layer.state(claim.class).counters.superseded.one();
                    }
                    Decision::Lost(why) => lost(layer, &mut state, &claim, newest, &why),
                    Decision::Later => {
                        state.dirty.unclaim(&claim);
                        failure = Some(StoreError::unavailable("a row could not be loaded"));
                    }
                }
            }
            Ok(outcome) => {
                // A claim that was there already left the row with its version, unless others came after it.
                let row = outcome.version().unwrap_or(claim.version);
                state.dirty.stored(&claim, row);
                clean(layer, &mut state, &claim);
                if claim.is_sum() {
                    show(layer, &mut state, &claim, outcome);
                }
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
                let claim = state.dirty.refused(&claim);
                park(layer, &mut state, &claim, refusal);
            }
            Err(error) => {
                let is_unknown = matches!(error, StoreError::Unknown { .. });
                state.dirty.failed(&claim, is_unknown);
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

/// Readers see what a sum came to, if nothing else of its key is dirty.
fn show(layer: &Layer, state: &mut LaneState, claim: &Claim, outcome: Outcome) {
    let key = claim.key.as_bytes();
    if state.dirty.get(key).is_some() || state.is_queued(key) {
        return;
    }
    state.loads.invalidate(key);
    let Outcome::Added {
        version,
        value,
        expires_at,
        ..
    } = outcome
    else {
        layer.near.remove(key);
        return;
    };
    if layer.near.peek(key).is_some() {
        let value = value.to_string().into();
        let entry = Entry {
            value,
            expires_at,
            version,
        };
        layer.fill(&claim.key, claim.class, Some(&entry), version);
    }
}

/// Acknowledged and overtaken by a stranger: kept, and said, never dropped. Readers get the stranger's row,
/// and later writes are numbered above it.
fn lost(layer: &Layer, state: &mut LaneState, claim: &Claim, newer: Version, why: &str) {
    layer.issue_above(newer);
    let now = layer.clock.now();
    let refusal = Refusal::new(DeadLetterReason::Conflict, None, why, now);
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
