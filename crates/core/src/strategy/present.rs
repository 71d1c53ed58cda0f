//! The step before a commit: what operations depend on, and folding those of a key into one write.

use crate::class::Strategy;
use crate::entry::Entry;
use crate::error::Error;
use crate::key::Key;
use crate::lane::{Folded, Lane, Operation, Present, Work, fold};
use crate::layer::Layer;
use crate::near::Freshness;
use crate::port::StoreError;
use crate::read::load;

/// A key's operations, folded.
pub(crate) struct Prepared {
    pub(crate) work: Work,
    pub(crate) present: Present,
    pub(crate) folded: Folded,
}

/// Finds the present state of every key whose operations need it (in memory, or with one load for all), and
/// folds. The second list could not be loaded.
pub(crate) async fn prepare(
    layer: &Layer,
    lane: &Lane,
    batch: Vec<Work>,
    needs: impl Fn(&[Operation]) -> bool,
) -> (Vec<Prepared>, Vec<(Work, Error)>) {
    let now = layer.clock.now();
    let mut found: Vec<Present> = Vec::with_capacity(batch.len());
    let mut missing: Vec<(usize, (Key, usize))> = Vec::new();
    for (i, work) in batch.iter().enumerate() {
        found.push(Present::Unknown);
        if !needs(&work.operations) {
            continue;
        }
        match in_memory(layer, lane, work) {
            Some(entry) => {
                found[i] = Present::Known(entry.filter(|entry| !entry.is_expired(now)));
            }
            None => missing.push((i, (work.key.clone(), work.class))),
        }
    }
    let mut failed: Option<StoreError> = None;
    if !missing.is_empty() {
        let (places, keys): (Vec<usize>, Vec<(Key, usize)>) = missing.iter().cloned().unzip();
        match load(layer, &keys).await {
            Ok(entries) => {
                for (place, entry) in places.into_iter().zip(entries) {
                    found[place] = Present::Known(entry);
                }
                missing.clear();
            }
            Err(error) => failed = Some(error),
        }
    }
    let mut prepared = Vec::with_capacity(batch.len());
    let mut unloaded = Vec::new();
    for (i, (mut work, present)) in batch.into_iter().zip(found).enumerate() {
        match &failed {
            Some(error) if missing.iter().any(|(place, _)| *place == i) => {
                unloaded.push((work, Error::from(error.clone())));
            }
            _ => {
                let folded = fold(&mut work.operations, &present, now);
                prepared.push(Prepared {
                    work,
                    present,
                    folded,
                });
            }
        }
    }
    (prepared, unloaded)
}

/// The state of a key as this process knows it: its dirty entry, or the cached copy. A stale copy will do
/// where the write is guarded by its version: a miss of that guard leads to a load. A write-back write has no
/// such guard and needs a fresh one.
#[expect(
    clippy::option_option,
    reason = "unknown, known to be absent and present are three things"
)]
fn in_memory(layer: &Layer, lane: &Lane, work: &Work) -> Option<Option<Entry>> {
    if let Some(dirty) = lane.lock().dirty.get(work.key.as_bytes()) {
        return Some(dirty.change.to_entry(dirty.version));
    }
    if work.attempts > 0 {
        return None;
    }
    let copy = layer.near.peek(work.key.as_bytes())?;
    let unguarded = layer.class(work.class).strategy == Strategy::WriteBack;
    if unguarded && copy.freshness(layer.clock.now(), layer.clock.elapsed()) != Freshness::Fresh {
        return None;
    }
    Some(copy.into_entry())
}
