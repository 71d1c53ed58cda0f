//! Whether a write is let in: room under the bounds of its class, and what happens where there is none.
//!
//! Bounds are on bytes, entries and age. Past the high mark writers are paced, at a bound the class decides:
//! wait, refuse, or go through the store.

use std::time::Duration;

use futures_util::future::{Either, select};

use crate::age::is_too_old;
use crate::budget::{Admitted, InLine};
use crate::class::{WhenFull, WhenJournalFails};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::lane::{LaneState, Operation, Pass, dirty_bytes};
use crate::layer::Layer;
use crate::receipt::Durability;

/// What a write waits at most when the class is just below a bound.
const PACE_MAX: Duration = Duration::from_millis(20);

/// Lets a write of so many bytes in if that can be decided now; nothing if it must wait in line.
///
/// # Errors
/// Overloaded or unavailable, as the class says.
pub(super) fn try_admit(
    layer: &Layer,
    key: &Key,
    class: usize,
    bytes: u64,
) -> Result<Option<Pass>> {
    let settings = layer.class(class);
    if settings.durability == Durability::Journal
        && let Some(error) = layer.journal_failure()
    {
        return match settings.when_journal_fails {
            WhenJournalFails::Refuse => Err(error),
            WhenJournalFails::WriteThrough => Ok(Some(Pass::through())),
        };
    }
    if !layer.state(class).budget.is_awaited()
        && let Some(admitted) = take_room(layer, key, class, bytes)
    {
        return Ok(Some(Pass::with(admitted)));
    }
    match settings.when_full {
        WhenFull::Block => Ok(None),
        WhenFull::Reject => Err(full(layer, class, "")),
        WhenFull::WriteThrough => Ok(Some(Pass::through())),
    }
}

/// Waits in line for room. Whoever holds the second of the two is before all who wait: it is let go when the
/// write is in its lane. Dropped half-way nothing is taken.
pub(super) async fn admit_in_line<'a>(
    layer: &'a Layer,
    key: &Key,
    class: usize,
    bytes: u64,
) -> Result<(Pass, InLine<'a>)> {
    let budget = &layer.state(class).budget;
    let room = std::pin::pin!(async {
        let line = budget.line_up().await;
        let admitted = line.retry(|| take_room(layer, key, class, bytes)).await;
        (Pass::with(admitted), line)
    });
    let timeout = layer.clock.sleep(layer.class(class).block_timeout);
    match select(room, timeout).await {
        Either::Left((admitted, _)) => Ok(admitted),
        Either::Right(((), _)) => Err(waited(layer, class)),
    }
}

fn take_room(layer: &Layer, key: &Key, class: usize, bytes: u64) -> Option<Admitted> {
    let budget = &layer.state(class).budget;
    let too_old = is_too_old(layer, class);
    if !too_old && let Some(admitted) = budget.try_take(bytes) {
        return Some(admitted);
    }
    // A write in place of one that is dirty or parked adds no entry, and one that is no larger makes nothing
    // worse.
    let state = layer.lane_of(key.as_bytes()).lock();
    let old = state.dirty.entry(key.as_bytes())?;
    let replaces = !state.dirty.is_on_its_way(key.as_bytes());
    if replaces && old.bytes(key) >= bytes {
        return Some(budget.force_take(bytes));
    }
    if too_old {
        return None;
    }
    budget.try_take_over(bytes)
}

/// What a class that is full answers.
pub(super) fn full(layer: &Layer, class: usize, waited: &str) -> Error {
    let (settings, budget) = (layer.class(class), &layer.state(class).budget);
    let (bytes, entries) = (budget.bytes(), budget.entries());
    let message = if is_too_old(layer, class) {
        format!(
            "the oldest write waits for the store for more than {:?} (dirty_age_max){waited}",
            settings.dirty_age_max.unwrap_or_default()
        )
    } else if entries >= settings.dirty_entries_max {
        format!(
            "{entries} dirty entries of {} (dirty_entries_max) are waiting for the store{waited}",
            settings.dirty_entries_max
        )
    } else {
        format!(
            "{bytes} dirty bytes of {} (dirty_max) are waiting for the store{waited}",
            settings.dirty_bytes_max
        )
    };
    Error::new(ErrorKind::Overloaded, message)
}

/// As [`full`], of a write that waited in vain.
pub(super) fn waited(layer: &Layer, class: usize) -> Error {
    full(layer, class, ", and the write waited its block_timeout")
}

/// What an operation is counted as when it is let in; an update shows only later what it needs.
pub(super) fn bytes_of(key: &Key, operation: &Operation) -> u64 {
    dirty_bytes(key, operation.value_bytes())
}

/// Takes the room that a folded write needs beyond what its operations were let in with. Returns what is
/// missing.
pub(super) fn grow(state: &LaneState, key: &Key, pass: &mut Pass, value_bytes: usize) -> u64 {
    let needed = dirty_bytes(key, value_bytes);
    let Some(admitted) = &mut pass.admitted else {
        return 0;
    };
    let more = needed.saturating_sub(admitted.bytes());
    if more == 0 || admitted.try_grow(more) {
        return 0;
    }
    // A write in place of one that is dirty or parked and no smaller makes nothing worse.
    let old = state.dirty.get(key.as_bytes());
    let replaced = old.filter(|_| !state.dirty.is_on_its_way(key.as_bytes()));
    if replaced.is_some_and(|old| old.bytes(key) >= needed) {
        admitted.grow(more);
        return 0;
    }
    more
}

/// Slows a writer down whose class nears a bound: the closer, the longer. Called after the write is done, so
/// that no write overtakes another of its key.
pub(crate) async fn pace(layer: &Layer, class: usize) {
    if let Some(past) = layer.state(class).budget.past_high() {
        let wait = PACE_MAX.mul_f64(past * past);
        let wait = wait.min(layer.class(class).block_timeout);
        layer.clock.sleep(wait).await;
    }
}
