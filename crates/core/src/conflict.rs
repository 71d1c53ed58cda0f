//! Conflicts: a dirty entry on its way to the store meets a row that is not what it was made over.
//!
//! First it is asked whose row that is. A version that this process sent itself, and of which it had no
//! answer, is no stranger's: the entry goes out once more, over that. Otherwise somebody else wrote the row,
//! and the class decides:
//!
//! - store-wins: the entry becomes a dead letter and readers get the row; nothing is lost, and a person sees
//!   both.
//! - cache-wins: the entry is written over the row, under a version above it.
//! - merge: a function of the application makes one of the two, which is written over the row.
//!
//! The last two do not touch the journal: a start that comes in between meets the same row and does the same.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::class::Conflict;
use crate::delta::sum;
use crate::entry::{Change, Entry};
use crate::key::Key;
use crate::lane::{Claim, LaneState};
use crate::layer::Layer;
use crate::port::Outcome;
use crate::read::load_apart;
use crate::strategy::commit::Committed;
use crate::version::Version;

/// What merge functions made of conflicts, by key.
pub(crate) type Merged = HashMap<Key, Result<Resolved, &'static str>>;

/// What a merge function made of two states, and the version of the row it was shown.
pub(crate) struct Resolved {
    change: Change,
    row: Option<Version>,
}

/// What became of a conflict.
pub(crate) enum Decision {
    /// The entry goes out once more.
    Again,
    /// An earlier life of this process wrote the row, or deleted it, after the entry.
    Superseded,
    /// The store wins, for this reason.
    Lost(String),
    /// The row could not be looked at: the claim failed as if it had not been tried.
    Later,
}

/// Loads the rows of claims that met a conflict and whose class merges, and lets its function make one of the
/// two. Under no lock, for it is a function of the application.
pub(crate) async fn merge(layer: &Layer, claims: &[Claim], committed: &[Committed]) -> Merged {
    let mut merging = Vec::new();
    for (claim, committed) in claims.iter().zip(committed) {
        if let Conflict::Merge(merge) = &layer.class(claim.class).conflict
            && matches!(committed, Ok(Outcome::Conflict { .. }))
            && !claim.is_sum()
        {
            merging.push((claim, merge));
        }
    }
    if merging.is_empty() {
        return Merged::new();
    }
    let keys: Vec<(Key, usize)> = merging
        .iter()
        .map(|(claim, _)| (claim.key.clone(), claim.class))
        .collect();
    let rows = load_apart(layer, &keys).await;
    let now = layer.clock.now();
    let mut merged = Merged::new();
    for ((claim, merge), row) in merging.into_iter().zip(rows) {
        let Ok(row) = row else { continue };
        let ours = claim.change.to_entry(claim.version);
        let ours = ours.filter(|entry| !entry.is_expired(now));
        let made = AssertUnwindSafe(|| merge.merge(&claim.key, row.as_ref(), ours.as_ref()));
        let made = match catch_unwind(made) {
            Err(_) => Err("the merge function panicked"),
            Ok(change) => absolute(change, row.as_ref())
                .map(|change| Resolved {
                    change,
                    row: row.map(|row| row.version),
                })
                .ok_or("the merge function adds to what is no whole number"),
        };
        merged.insert(claim.key.clone(), made);
    }
    merged
}

/// Decides on a claim that met a row of version `newest`. Called under the lane's lock.
pub(crate) fn decide(
    layer: &Layer,
    state: &mut LaneState,
    claim: &Claim,
    newest: Version,
    merged: &mut Merged,
) -> Decision {
    if claim.is_sum() {
        // A part of it was applied before.
        state.dirty.marked(claim, newest);
        state.dirty.unclaim(claim);
        return Decision::Again;
    }
    if state.dirty.is_own(claim, newest) {
        state.dirty.rebase(claim, newest);
        state.dirty.unclaim(claim);
        return Decision::Again;
    }
    if state.dirty.is_after_restored(claim, newest) && is_of_earlier_life(layer, newest) {
        // The journal has no word of it: it went through the store, or is of a class that journals nothing.
        if newest > claim.version {
            return Decision::Superseded;
        }
        state.dirty.rebase(claim, newest);
        state.dirty.unclaim(claim);
        return Decision::Again;
    }
    if !state.dirty.is_current(claim) {
        // What was written meanwhile takes its place, and meets the row itself.
        state.dirty.unclaim(claim);
        return Decision::Again;
    }
    match &layer.class(claim.class).conflict {
        Conflict::StoreWins => Decision::Lost(describe(claim, newest)),
        Conflict::CacheWins => {
            write_over(layer, state, claim, claim.change.clone(), newest);
            Decision::Again
        }
        Conflict::Merge(_) => match merged.remove(&claim.key) {
            None => Decision::Later,
            Some(Err(why)) => Decision::Lost(why.into()),
            Some(Ok(resolved)) => {
                let met = resolved.row.unwrap_or(newest);
                write_over(layer, state, claim, resolved.change, met);
                Decision::Again
            }
        },
    }
}

/// Even versions before this start's first were issued by earlier ones.
fn is_of_earlier_life(layer: &Layer, row: Version) -> bool {
    row.raw().is_multiple_of(2) && row.generation() < layer.newest_issued().generation()
}

fn describe(claim: &Claim, newest: Version) -> String {
    let version = claim.version;
    if newest == Version::NONE {
        return format!("the row is gone, and {version} was written over one that was there");
    }
    format!(
        "the row has version {newest}, which this process did not write and over which {version} was not made"
    )
}

/// A change that stands for itself.
pub(crate) fn absolute(change: Change, row: Option<&Entry>) -> Option<Change> {
    let Change::Add { by } = change else {
        return Some(change);
    };
    let value = sum(row.map(|row| &*row.value), by).ok()?;
    Some(Change::Put {
        value: value.to_string().into(),
        expires_at: row.and_then(|row| row.expires_at),
    })
}

/// Makes the entry a write over the row it met, and shows that to readers.
fn write_over(layer: &Layer, state: &mut LaneState, claim: &Claim, change: Change, met: Version) {
    let version = layer.issue_over(Some(met));
    let entry = change.to_entry(version);
    let entry = entry.filter(|entry| !entry.is_expired(layer.clock.now()));
    let Some((before, after)) = state.dirty.rewrite(claim, change, version, met) else {
        return;
    };
    let budget = &layer.state(claim.class).budget;
    budget.take(after);
    budget.give(before);
    layer.fill(&claim.key, claim.class, entry.as_ref(), version);
}
