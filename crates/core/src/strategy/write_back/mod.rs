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
//! # The ways of a write
//! [`admit`] lets it in, or makes it wait. Then, under the lock of its lane:
//!
//! - At once: no other write of its key waits, and what it depends on is in memory. It is [placed](place)
//!   where it belongs: a journalled one is submitted and [lands](land) with the sync that covers it, one of
//!   durability `memory` is dirty and answered there and then.
//! - Queued: behind other writes of its key, or because something must be loaded first. The driver of the
//!   lane takes it out and places it as above ([`queued`]).
//! - Through: past a bound or past a broken journal, where the class says so, it goes to the store before it
//!   is acknowledged ([`spill`]).
//!
//! The flush is in [`flush`](crate::flush), the replay in [`recover`](crate::recover).

mod admit;
mod at_once;
mod land;
mod place;
mod queued;
mod spill;

use std::time::Duration;

use crate::class::WhenJournalFails;
use crate::entry::{Change, Entry, VALUE_BYTES_MAX};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::lane::{LaneState, Operation, Over, Present};
use crate::layer::Layer;
use crate::port::{Guard, JournalError, TableSpec, ValueType, Write};
use crate::receipt::{Durability, Receipt, Source, Written};
use crate::version::Version;

pub(crate) use admit::pace;
pub(crate) use at_once::{put, submit};
pub(crate) use land::drive_appended;
pub(crate) use queued::commit;

/// A delete needs the present state too: in the store it is only later that anything is deleted.
fn needs_present(operations: &[Operation]) -> bool {
    matches!(
        operations.first(),
        Some(Operation::Update(_) | Operation::Delete { .. })
    )
}

/// What an operation that was shown the present state of its key is made over.
fn shown(present: &Present, added: Option<i64>) -> Over {
    let version = |entry: &Option<Entry>| entry.as_ref().map_or(Version::NONE, |e| e.version);
    Over {
        base: match present {
            Present::Known(entry) => Some(version(entry)),
            Present::Unknown => None,
        },
        added,
    }
}

/// Refuses what must not be acknowledged: what the store can be seen to refuse, and an update that has grown
/// past what any key may hold.
pub(crate) fn check(layer: &Layer, key: &Key, class: usize, change: &Change) -> Result<()> {
    if change.value_bytes() > VALUE_BYTES_MAX {
        return Err(Error::invalid(format_args!(
            "a value is at most {VALUE_BYTES_MAX} bytes long"
        )));
    }
    if let Change::Put { value, .. } = change {
        check_json(&layer.class(class).table, value)?;
    }
    if let Some(table) = layer.state(class).table {
        layer.store.check(&Write {
            table,
            key: key.clone(),
            change: change.clone(),
            guard: Guard::Always,
        })?;
    }
    Ok(())
}

/// Refuses a value that a column declared as JSON cannot hold.
fn check_json(table: &TableSpec, value: &[u8]) -> Result<()> {
    if !matches!(table.value_type, ValueType::Json | ValueType::Jsonb) {
        return Ok(());
    }
    let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(value) else {
        return Ok(());
    };
    // What is nested deeper than is read here may still be good for the store.
    if error.to_string().starts_with("recursion limit exceeded") {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Refused,
        format_args!(
            "the value is not JSON (line {}, column {}), and column {} of table {} takes nothing else",
            error.line(),
            error.column(),
            table.columns.value,
            table.name
        ),
    ))
}

/// What is answered to an operation that left its key as it was.
fn left_as_is(
    state: &LaneState,
    key: &Key,
    entry: Option<&Entry>,
    existed: Option<bool>,
) -> Written {
    let dirty = state.dirty.get(key.as_bytes());
    let (source, durability) = match dirty.map(|dirty| dirty.lsn) {
        None => (Source::Store, Durability::Store),
        Some(None) => (Source::Dirty, Durability::Memory),
        Some(Some(_)) => (Source::Dirty, Durability::Journal),
    };
    Written {
        existed: existed.unwrap_or(entry.is_some()),
        receipt: Receipt {
            version: entry.map_or(Version::NONE, |entry| entry.version),
            source,
            age_bound: Duration::ZERO,
            durability,
        },
    }
}

/// Whether the flusher has a reason to look after a write of this class: it may sleep while nothing new is due.
fn wakes_flusher(layer: &Layer, state: &LaneState, class: usize) -> bool {
    let batch = layer.class(class).batch;
    let batch = batch.min(layer.batch_max).max(1);
    let (ready, bytes) = state.dirty.ready_of(class);
    ready == 1
        || ready.is_multiple_of(batch)
        || bytes >= layer.class(class).batch_bytes
        || layer.state(class).budget.is_past_soft()
}

/// What to do about a record that the journal did not take.
enum NotTaken {
    /// Ask the journal for room, and try again.
    Wait,
    /// Go through the store.
    Through,
    Refuse(Error),
}

fn not_taken(layer: &Layer, class: usize, error: JournalError) -> NotTaken {
    layer.note_journal_failure(&error);
    let kind = match &error {
        JournalError::Busy { .. } => return NotTaken::Wait,
        JournalError::Poisoned { .. } | JournalError::Unavailable { .. } => {
            if layer.class(class).when_journal_fails == WhenJournalFails::WriteThrough {
                return NotTaken::Through;
            }
            ErrorKind::Unavailable
        }
        _ => return NotTaken::Refuse(error.into()),
    };
    NotTaken::Refuse(Error::new(kind, error))
}
