//! Write-back: the journal and the cache first, acknowledged at once; the store follows in batches.
//!
//! - What the caller is told: acknowledged means that the write is in the journal, synced (or, for a class of
//!   durability `memory`, in this process's memory), and that every read through this process sees it. The
//!   store has it after the linger, or when it can be reached again.
//! - When: after the sync that holds its record. Records that arrive while a sync is under way share the next
//!   one (group commit).
//! - What a crash costs: before the sync, nothing was acknowledged, and the write may or may not be there
//!   afterwards; after it, nothing: the journal is replayed at start and the store has the write after the
//!   next flush. With durability `memory`, everything not yet flushed.
//!
//! The flush is in [`flush`](crate::flush), the replay in [`recover`](crate::recover).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};

use super::present::{Prepared, prepare};
use super::settle::{Answers, unchanged, unloaded};
use crate::class::WhenFull;
use crate::entry::{Change, VALUE_BYTES_MAX};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::lane::{
    DirtyEntry, DirtyState, Lane, LaneState, Operation, Present, Road, Work, dirty_bytes,
};
use crate::layer::Layer;
use crate::port::{Guard, Lsn, Write};
use crate::read::answer_readers;
use crate::receipt::{Durability, Read, Receipt, Source, Written};
use crate::record::Record;
use crate::version::Version;

/// Waits for room under the class's bound on dirty bytes, as the class says, and takes it. Dropped half-way
/// it has taken nothing.
pub(crate) async fn admit(
    layer: &Layer,
    key: &Key,
    class: usize,
    value_bytes: usize,
) -> Result<()> {
    if let Some(error) = layer.journal_failure() {
        return Err(error);
    }
    let (bytes, budget) = (dirty_bytes(key, value_bytes), &layer.state(class).budget);
    if budget.try_take(bytes) {
        return Ok(());
    }
    // A write in place of one that is dirty or parked and no smaller makes nothing worse.
    let lane = layer.lane_of(key.as_bytes());
    let replaces = lane
        .lock()
        .dirty
        .get(key.as_bytes())
        .is_some_and(|old| old.bytes(key) >= bytes);
    if replaces {
        budget.take(bytes);
        return Ok(());
    }
    let settings = layer.class(class);
    let full = |waited: &str| {
        Error::new(
            ErrorKind::Overloaded,
            format_args!(
                "{} dirty bytes of {} (dirty_max) are waiting for the store{waited}",
                budget.used(),
                settings.dirty_bytes_max
            ),
        )
    };
    match settings.when_full {
        WhenFull::Reject => Err(full("")),
        WhenFull::Block | WhenFull::WriteThrough => {
            let room = std::pin::pin!(budget.wait_and_take(bytes));
            match select(room, layer.clock.sleep(settings.block_timeout)).await {
                Either::Left(((), _)) => Ok(()),
                Either::Right(((), _)) => Err(full(", and the write waited its block_timeout")),
            }
        }
    }
}

/// What [`admit`] took for an operation.
pub(crate) fn admitted_bytes(key: &Key, operation: &Operation) -> u64 {
    dirty_bytes(key, operation.value_bytes())
}

/// Journals a batch and makes it dirty. Every operation of it is answered when this returns, or is back in the
/// queue to be tried alone.
pub(crate) async fn commit(layer: &Arc<Layer>, lane: &Lane, batch: Vec<Work>) {
    let admitted: Vec<(usize, u64)> = batch
        .iter()
        .map(|work| {
            let bytes = work
                .operations
                .iter()
                .map(|op| admitted_bytes(&work.key, op))
                .sum();
            (work.class, bytes)
        })
        .collect();

    // 1. Operations that depend on the present value are told it: a dirty entry, a copy, or a load. A delete
    //    depends on it too, for it tells whether the key was there. Those of one key become one write.
    let (prepared, failed) = prepare(layer, lane, batch, needs_present).await;
    unloaded(layer, lane, Road::Back, failed);

    // 2. Each write gets its version, newer than every one before it, and its record.
    let mut answers = Answers::default();
    let mut changed: Vec<(Prepared, Version)> = Vec::with_capacity(prepared.len());
    let mut records: Vec<Bytes> = Vec::with_capacity(prepared.len());
    for prepared in prepared {
        let Some(change) = prepared.folded.change.clone() else {
            unchanged(layer, &mut lane.lock(), Road::Back, prepared, &mut answers);
            continue;
        };
        if let Err(error) = check(layer, &prepared, &change) {
            let absent = matches!(prepared.present, Present::Known(None));
            if change == Change::Delete && absent {
                // A key the store cannot hold is not there to be deleted.
                unchanged(layer, &mut lane.lock(), Road::Back, prepared, &mut answers);
                continue;
            }
            refuse(layer, lane, prepared.work, &error, &mut answers);
            continue;
        }
        let version = layer.issue();
        if is_journalled(layer, &prepared) {
            let class = &layer.state(prepared.work.class).name;
            records.push(Record::encode(class, &prepared.work.key, version, &change));
        }
        changed.push((prepared, version));
    }

    // 3. The journal is synced. Nobody has seen the writes yet: what is read cannot vanish in a crash.
    let journalled = append(layer, lane, records).await;

    // 4. The writes become dirty and the cache takes them, under the lane's lock. Those of a journal that
    //    failed leave no trace here; their callers learn that the outcome is unknown.
    let mut state = lane.lock();
    let mut lsn = journalled.as_ref().ok().copied().flatten();
    for (prepared, version) in changed {
        let error = match &journalled {
            Err(error) if is_journalled(layer, &prepared) => Some(error),
            _ => None,
        };
        let key = prepared.work.key.clone();
        let readers = state.road(Road::Back).land(&key);
        if let Some(error) = error {
            answer_readers(layer, &mut state, &key, readers);
            answers.write_all(prepared.work.operations, error);
            continue;
        }
        let own_lsn = is_journalled(layer, &prepared).then_some(lsn).flatten();
        if own_lsn.is_some() {
            lsn = lsn.map(Lsn::next);
        }
        let remembered = remembers(layer, &state, &key);
        let read = make_dirty(layer, &mut state, &prepared, version, own_lsn);
        for (operation, existed) in prepared
            .work
            .operations
            .into_iter()
            .zip(prepared.folded.existed)
        {
            let receipt = Receipt {
                source: Source::Dirty,
                ..read.receipt
            };
            let existed = existed.unwrap_or(remembered);
            answers.write(operation, Ok(Written { existed, receipt }));
        }
        answers.read(readers, Ok(read));
    }
    state.appending = None;
    drop(state);

    // 5. The callers are told, and the flusher that there is work. What was admitted for each operation is
    //    now counted as the bytes of dirty entries.
    for (class, bytes) in admitted {
        layer.state(class).budget.give(bytes);
    }
    answers.send();
    lane.dirty_waiting.notify_one();
}

/// Refuses what must not be acknowledged: what the store can be seen to refuse, and an update that has grown
/// past a bound. (A put or delete was held against the bounds before it was queued.)
fn check(layer: &Layer, prepared: &Prepared, change: &Change) -> Result<()> {
    let (work, value_bytes) = (&prepared.work, change.value_bytes());
    let state = layer.state(work.class);
    if value_bytes > VALUE_BYTES_MAX {
        return Err(Error::invalid(format_args!(
            "a value is at most {VALUE_BYTES_MAX} bytes long"
        )));
    }
    if let Some(table) = state.table {
        let (key, change) = (work.key.clone(), change.clone());
        layer.store.check(&Write {
            table,
            key,
            change,
            guard: Guard::Always,
        })?;
    }
    let admitted: u64 = work
        .operations
        .iter()
        .map(|op| admitted_bytes(&work.key, op))
        .sum();
    let more = dirty_bytes(&work.key, value_bytes).saturating_sub(admitted);
    let max = layer.class(work.class).dirty_bytes_max;
    if more > 0 && state.budget.used().saturating_add(more) > max {
        return Err(Error::new(
            ErrorKind::Overloaded,
            format_args!("the update would pass the {max} dirty bytes of its class (dirty_max)"),
        ));
    }
    Ok(())
}

/// Answers the caller of a write that was refused; several are tried one by one, to find the guilty one.
fn refuse(layer: &Layer, lane: &Lane, work: Work, error: &Error, answers: &mut Answers) {
    let mut state = lane.lock();
    if work.operations.len() > 1 {
        // Admitted once more, for what this batch admitted is given back at its end.
        let bytes = work
            .operations
            .iter()
            .map(|op| admitted_bytes(&work.key, op))
            .sum();
        layer.state(work.class).budget.take(bytes);
        state.road(Road::Back).put_back(work, true);
        lane.writes_waiting[Road::Back as usize].notify_one();
        return;
    }
    let readers = state.road(Road::Back).land(&work.key);
    answer_readers(layer, &mut state, &work.key, readers);
    answers.write_all(work.operations, error);
}

/// Whether memory knows the key as present. A put is not made to wait for a load just to tell more.
fn remembers(layer: &Layer, state: &LaneState, key: &Key) -> bool {
    let now = layer.clock.now();
    match state.dirty.get(key.as_bytes()) {
        Some(dirty) => dirty
            .change
            .to_entry(dirty.version)
            .is_some_and(|e| !e.is_expired(now)),
        None => {
            let copy = layer
                .near
                .peek(key.as_bytes())
                .and_then(crate::near::Copy::into_entry);
            copy.is_some_and(|entry| !entry.is_expired(now))
        }
    }
}

/// A delete needs the present state too: in the store it is only later that anything is deleted.
fn needs_present(operations: &[Operation]) -> bool {
    matches!(
        operations.first(),
        Some(Operation::Update(_) | Operation::Delete { .. })
    )
}

fn is_journalled(layer: &Layer, prepared: &Prepared) -> bool {
    layer.class(prepared.work.class).durability != Durability::Memory
}

/// Appends `records` and returns the place of the first, if there are any.
async fn append(layer: &Layer, lane: &Lane, records: Vec<Bytes>) -> Result<Option<Lsn>> {
    let count = records.len() as u64;
    let Some(journal) = layer.journal.as_ref().filter(|_| count > 0) else {
        return Ok(None);
    };
    // From here until the writes are dirty the journal must keep what is about to be appended.
    lane.lock().appending = Some(journal.tail());
    match journal.append(records).await {
        Ok(last) => Ok(Some(Lsn(last.0 + 1 - count))),
        Err(error) => {
            layer.note_journal_failure(&error);
            Err(error.into())
        }
    }
}

fn make_dirty(
    layer: &Layer,
    state: &mut LaneState,
    prepared: &Prepared,
    version: Version,
    lsn: Option<Lsn>,
) -> Read {
    let (key, class) = (&prepared.work.key, prepared.work.class);
    let change = prepared.folded.change.clone().unwrap_or(Change::Delete);
    let entry = change
        .to_entry(version)
        .filter(|entry| !entry.is_expired(layer.clock.now()));
    let dirty = DirtyEntry {
        class,
        change,
        version,
        lsn,
        since: layer.clock.elapsed(),
        turn: 0,
        state: DirtyState::Waiting,
    };
    let budget = &layer.state(class).budget;
    budget.take(dirty.bytes(key));
    if let Some(old) = state.dirty.insert(key.clone(), dirty) {
        layer.state(old.class).budget.give(old.bytes(key));
        layer.state(class).counters.coalesced.one();
    }
    layer.fill(key, class, entry.as_ref(), version);
    let durability = if lsn.is_some() {
        Durability::Journal
    } else {
        Durability::Memory
    };
    Read {
        entry,
        receipt: Receipt {
            version,
            source: Source::Near,
            age_bound: Duration::ZERO,
            durability,
        },
    }
}
