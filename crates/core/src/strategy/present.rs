//! The step before a commit: what operations depend on, and folding those of a key into one write.

use crate::entry::Entry;
use crate::error::Error;
use crate::key::Key;
use crate::lane::{Folded, Lane, LaneState, Operation, Present, Work, fold};
use crate::layer::Layer;
use crate::near::Freshness;
use crate::read::load_apart;
use crate::shared::find_present;

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
    let mut found: Vec<Result<Present, Error>> = Vec::with_capacity(batch.len());
    let mut places: Vec<usize> = Vec::new();
    let mut keys: Vec<(Key, usize, bool)> = Vec::new();
    for work in &batch {
        let mut present = Present::Unknown;
        if needs(&work.operations) {
            // A copy that was found outdated is not trusted again. Where nodes share a cache this one's memory knows
            // nothing.
            let trust_copy = work.attempts == 0;
            let known = match &layer.shared {
                None => in_memory(layer, &lane.lock(), &work.key, trust_copy),
                Some(_) => None,
            };
            match known {
                Some(entry) => {
                    present = Present::Known(entry.filter(|entry| !entry.is_expired(now)));
                }
                None => {
                    places.push(found.len());
                    keys.push((work.key.clone(), work.class, trust_copy));
                }
            }
        }
        found.push(Ok(present));
    }
    if !keys.is_empty() {
        let loaded = match &layer.shared {
            Some(shared) => find_present(layer, shared, &keys).await,
            None => {
                let keys: Vec<_> = keys
                    .into_iter()
                    .map(|(key, class, _)| (key, class))
                    .collect();
                load_apart(layer, &keys).await
            }
        };
        for (place, loaded) in places.into_iter().zip(loaded) {
            found[place] = loaded.map(Present::Known).map_err(Error::from);
        }
    }
    let mut prepared = Vec::with_capacity(batch.len());
    let mut unloaded = Vec::new();
    for (mut work, found) in batch.into_iter().zip(found) {
        match found {
            Ok(present) => {
                let folded = fold(&mut work.operations, &present, now);
                prepared.push(Prepared {
                    work,
                    present,
                    folded,
                });
            }
            Err(error) => unloaded.push((work, error)),
        }
    }
    (prepared, unloaded)
}

/// The state of a key as this process knows it: its dirty entry, or a cached copy that may still be served. A
/// stale copy will not do even where a write is guarded by its version, for an update that leaves the key as
/// it is writes nothing, and no guard would tell.
#[expect(
    clippy::option_option,
    reason = "unknown, known to be absent and present are three things"
)]
pub(crate) fn in_memory(
    layer: &Layer,
    state: &LaneState,
    key: &Key,
    trust_copy: bool,
) -> Option<Option<Entry>> {
    if let Some(dirty) = state.dirty.get(key.as_bytes()) {
        return Some(dirty.change.to_entry(dirty.version));
    }
    if !trust_copy {
        return None;
    }
    let copy = layer.near.peek(key.as_bytes())?;
    let fresh = copy.freshness(layer.clock.now(), layer.clock.elapsed()) == Freshness::Fresh;
    fresh.then(|| copy.into_entry())
}
