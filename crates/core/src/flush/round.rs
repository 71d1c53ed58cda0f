//! One batch: write, settle, let the journal go. May be repeated at any time, for it is guarded by version.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use super::control::Permit;
use super::settle::settle;
use crate::conflict;
use crate::dead_letters;
use crate::keeper;
use crate::lane::{Claim, Lane};
use crate::layer::Layer;
use crate::mutation::Mutation;
use crate::port::{StoreError, TableId, Write};
use crate::strategy::commit;

/// Brings claims to the store and gives each its end. An error is transient, and every entry is dirty as
/// before.
pub(super) async fn round(
    layer: &Layer,
    lane: &Lane,
    claims: Vec<Claim>,
    permit: Permit<'_>,
) -> Result<(), StoreError> {
    if layer.mutations.breaks(Mutation::CleanOnceClaimed) {
        clean(layer, lane, &claims);
    }
    let writes: Vec<Write> = claims
        .iter()
        .filter_map(|claim| Some(write_of(claim, layer.state(claim.class).table?)))
        .collect();
    dead_letters::record_outlived(layer, lane).await;
    let now = layer.clock.now();
    let applied = AssertUnwindSafe(commit::apply(&*layer.store, writes, now, None))
        .catch_unwind()
        .await;
    // A panic is a bug of an adapter: as good as a lost answer, and like one repeated.
    let lost = || StoreError::unknown(None, "the store panicked");
    let committed = applied.unwrap_or_else(|_| claims.iter().map(|_| Err(lost())).collect());
    let failed = committed.iter().any(|answer| match answer {
        Ok(_) | Err(StoreError::Refused { .. }) => false,
        Err(_) => true,
    });
    if failed {
        permit.failed(&*layer.clock);
    } else {
        permit.answered(layer.clock.elapsed());
    }
    let merged = conflict::merge(layer, &claims, &committed).await;
    let failure = settle(
        layer,
        lane,
        claims.into_iter().zip(committed).collect(),
        merged,
    );
    dead_letters::record(layer, lane).await;
    keeper::trim(layer).await;
    lane.settled.notify_waiters();
    failure.map_or(Ok(()), Err)
}

/// What is asked of the store for a claim.
pub(crate) fn write_of(claim: &Claim, table: TableId) -> Write {
    Write {
        table,
        key: claim.key.clone(),
        change: claim.change.clone(),
        guard: claim.guard,
    }
}

/// Forgets claims that the store does not have: a broken rule, see [`Mutation::CleanOnceClaimed`].
fn clean(layer: &Layer, lane: &Lane, claims: &[Claim]) {
    let mut state = lane.lock();
    for claim in claims {
        if let Some(entry) = state.dirty.settle(claim) {
            layer
                .state(claim.class)
                .budget
                .give(entry.bytes(&claim.key));
        }
    }
}
