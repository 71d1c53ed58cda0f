//! Gathering the figures of a gate.

use std::time::Duration;

use crate::class::Strategy;
use crate::lane::DirtyState;
use crate::layer::Layer;
use crate::shared::Shared;
use crate::shared::back::Back;
use crate::stats::{ClassStats, Stats};

/// Looks at every dirty entry, under one lane's lock at a time.
pub(super) fn stats(layer: &Layer) -> Stats {
    let elapsed = layer.clock.elapsed();
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
                shared_hits: counters.shared_hits.get(),
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
                discarded: counters.discarded.get(),
                flush_rounds: counters.flush_rounds.get(),
                flush_failures: counters.flush_failures.get(),
                flush_rate: counters.flush_rate.per_second(elapsed),
                time_to_drain: None,
                parked: 0,
                parked_bytes: 0,
                dirty_entries: 0,
                dirty_bytes: 0,
                oldest_dirty: None,
            }
        })
        .collect();
    let mut quarantined = 0;
    for lane in &layer.lanes {
        let state = lane.lock();
        quarantined += state.quarantine.len() as u64;
        for (key, entry) in state.dirty.iter() {
            let class = &mut classes[entry.class];
            class.dirty_bytes += entry.bytes(key);
            if entry.state == DirtyState::Parked {
                class.parked += 1;
                class.parked_bytes += entry.bytes(key);
                continue;
            }
            class.dirty_entries += 1;
            let age = elapsed.saturating_sub(entry.since);
            class.oldest_dirty = class.oldest_dirty.max(Some(age));
        }
    }
    if let Some(shared) = &layer.shared {
        of_shared(layer, &shared.back, &mut classes);
    }
    for class in &mut classes {
        class.time_to_drain = time_to_drain(class.dirty_entries, class.flush_rate);
    }
    let (flushes_in_flight, flush_window, flush_batch) = layer.flusher.figures();
    let journal = layer.journal.as_ref();
    Stats {
        near: layer.near.stats(),
        classes,
        journal_bytes: journal.map(|journal| journal.size_bytes()),
        journal_bytes_max: journal.and_then(|journal| journal.size_bytes_max()),
        journal_failed: layer.journal_failure().is_some(),
        breaker: layer.flusher.breaker(),
        flushes_in_flight,
        flush_window,
        flush_batch,
        flusher_restarts: layer.flusher.restarts(),
        quarantined,
        shared: layer.shared.as_ref().map(Shared::stats),
    }
}

/// What is dirty in the shared cache is one heap of all classes and nodes: each class whose bounds are held against it
/// shows all of it.
fn of_shared(layer: &Layer, back: &Back, classes: &mut [ClassStats]) {
    let total = back.room.total();
    let now = layer.clock.now();
    for (index, class) in classes.iter_mut().enumerate() {
        if class.strategy != Strategy::WriteBack {
            continue;
        }
        (class.parked, class.parked_bytes) = back.letters.size(layer, index);
        class.dirty_entries = total.entries.saturating_sub(total.parked);
        class.dirty_bytes = total.bytes;
        class.oldest_dirty = total.oldest.map(|oldest| now.since(oldest));
    }
}

/// Less than one entry in this many seconds is no rate to hope by.
const HOPELESS_SECONDS: f64 = 100.0;

fn time_to_drain(entries: u64, rate: f64) -> Option<Duration> {
    if entries == 0 {
        return Some(Duration::ZERO);
    }
    if rate * HOPELESS_SECONDS < 1.0 {
        return None;
    }
    Duration::try_from_secs_f64(entries as f64 / rate).ok()
}
