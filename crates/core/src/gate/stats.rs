//! Gathering the figures of a gate.

use crate::lane::DirtyState;
use crate::layer::Layer;
use crate::stats::{ClassStats, Stats};

/// Looks at every dirty entry, under one lane's lock at a time.
pub(super) fn stats(layer: &Layer) -> Stats {
    let mut classes: Vec<ClassStats> = layer
        .classes
        .classes()
        .iter()
        .zip(&layer.states)
        .map(|(class, state)| {
            let counters = &state.counters;
            ClassStats {
                name: class.name.clone(),
                strategy: class.strategy,
                hits: counters.hits.get(),
                negative_hits: counters.negative_hits.get(),
                misses: counters.misses.get(),
                stale: counters.stale.get(),
                loads: counters.loads.get(),
                coalesced: counters.coalesced.get(),
                writes: counters.writes.get(),
                refused: counters.refused.get(),
                failed: counters.failed.get(),
                unknown: counters.unknown.get(),
                flushed: counters.flushed.get(),
                superseded: counters.superseded.get(),
                parked: 0,
                dirty_entries: 0,
                dirty_bytes: 0,
                oldest_dirty: None,
            }
        })
        .collect();
    let elapsed = layer.clock.elapsed();
    let mut quarantined = 0;
    for lane in &layer.lanes {
        let state = lane.lock();
        quarantined += state.quarantine.len() as u64;
        for (key, entry) in state.dirty.iter() {
            let class = &mut classes[entry.class];
            class.dirty_bytes += entry.bytes(key);
            if matches!(entry.state, DirtyState::Parked(_)) {
                class.parked += 1;
                continue;
            }
            class.dirty_entries += 1;
            let age = elapsed.saturating_sub(entry.since);
            class.oldest_dirty = class.oldest_dirty.max(Some(age));
        }
    }
    Stats {
        near: layer.near.stats(),
        classes,
        journal_bytes: layer.journal.as_ref().map(|journal| journal.size_bytes()),
        quarantined,
    }
}
