//! Start-up: the journal's records become dirty entries again.
//!
//! The journal is read from its oldest record; of each key only the newest version counts. What the store
//! already has costs nothing but a guarded write that does not apply. Records whose key now belongs to
//! another class, or whose class is no longer write-back, are flushed before the gate opens, into the table
//! of the class that took them; a class that is gone is refused by name, for its rows have no table. Records
//! whose row is as new or newer were flushed before, and are dropped. Dead letters come back as dead letters,
//! with their history, and are not tried again by themselves.
//!
//! Over a shared cache the dirty entries are in it, and it is given what it has not ([`back`](crate::shared::back)).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::class::Strategy;
use crate::dead_letters::{DeadLetterReason, Refusal};
use crate::entry::Change;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::lane::{DirtyEntry, DirtyState, Fate, Lineage, Sum};
use crate::layer::Layer;
use crate::port::{Guard, Held, Journal, Lsn, StoreError, Write};
use crate::read::load_apart;
use crate::record::{Record, WriteRecord};
use crate::shared::back::{self, KeptWrite, value_of};
use crate::shared::shared_key;
use crate::strategy::commit;
use crate::version::Version;

/// How many records are read at a time.
const CHUNK: usize = 4096;

/// The newest unflushed write of each key.
#[derive(Default)]
pub(crate) struct Recovered {
    entries: BTreeMap<Key, Found>,
    /// What was discarded: a copy of its record may stand behind the discard.
    discarded: BTreeMap<Key, Version>,
    /// The newest generation seen.
    pub(crate) generation: u64,
}

/// What a start does beside bringing the lanes up to date.
#[derive(Default)]
pub(crate) struct Restored {
    /// For the shared cache.
    pub(crate) kept: Vec<back::replay::Recovered>,
    /// What was flushed at once, past the shared cache: keys, the classes that took the writes, the versions.
    pub(crate) moved: Vec<(Key, usize, Version)>,
}

struct Found {
    /// By name: only when all is read is it known whether the class is still needed.
    class: String,
    version: Version,
    base: Option<Version>,
    change: Change,
    /// What is to be added, if the write is nothing but that; in the order of versions.
    sums: Vec<Sum>,
    refusal: Option<Refusal>,
    lsn: Lsn,
}

/// Reads the journal.
pub(crate) async fn read(journal: &dyn Journal) -> Result<Recovered> {
    let mut recovered = Recovered::default();
    let mut from = Lsn(0);
    loop {
        let chunk = journal.replay(from, CHUNK).await?;
        let Some(last) = chunk.last() else {
            return Ok(recovered);
        };
        from = last.lsn.next();
        for replayed in chunk {
            match Record::decode(replayed.record) {
                Some(Record::Write(record)) => recovered.take(record, replayed.lsn),
                Some(Record::Discarded(key, version)) => recovered.discard(&key, version),
                Some(Record::Checkpoint(needed)) => recovered.entries.retain(|_, found| {
                    found.sums.retain(|sum| sum.lsn >= Some(needed));
                    found.lsn >= needed || !found.sums.is_empty()
                }),
                None => {
                    return Err(Error::configuration(format_args!(
                        "the journal's record {} was not written by this version of tidegate",
                        replayed.lsn.0
                    )));
                }
            }
        }
    }
}

/// The least time between two checkpoints.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// Notes in the journal what it need not replay at the next start: everything before `mark`. Without it a
/// start after a crash would bring flushed records back, over rows that others have deleted since.
pub(crate) async fn checkpoint(layer: &Layer, mark: Lsn) {
    let Some(journal) = &layer.journal else {
        return;
    };
    if mark <= Lsn(1) || layer.journal_failure().is_some() {
        return;
    }
    *layer
        .checkpointed
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = (mark, layer.clock.elapsed());
    if let Err(error) = journal.append(vec![Record::encode_checkpoint(mark)]).await {
        layer.note_journal_failure(&error);
        // Only a start that replays more than it must.
        tracing::warn!(%error, "the journal took no checkpoint");
    }
}

/// A checkpoint, if the mark has moved and the last one is some time ago.
pub(crate) async fn checkpoint_if_due(layer: &Layer, mark: Lsn) {
    let (last, at) = *layer
        .checkpointed
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    // The record of the last checkpoint itself moves the mark by one.
    if mark.0 > last.0 + 1 && layer.clock.elapsed() >= at + CHECKPOINT_INTERVAL {
        checkpoint(layer, mark).await;
    }
}

/// The last checkpoint of a gate: what it need not replay now.
pub(crate) async fn last_checkpoint(layer: &Layer) {
    if let Some(journal) = &layer.journal {
        checkpoint(layer, layer.journal_needed_from(&**journal)).await;
    }
}

impl Recovered {
    fn take(&mut self, record: WriteRecord, lsn: Lsn) {
        self.generation = self.generation.max(record.version.generation());
        let discarded = self.discarded.get(&record.key);
        if discarded.is_some_and(|discarded| record.version <= *discarded) {
            return;
        }
        let sum = record.added.map(|(by, since)| Sum {
            since,
            version: record.version,
            by,
            lsn: Some(lsn),
            // An earlier life may have sent it.
            fate: Fate::Unknown,
        });
        // Of the same version the later record counts: a dead letter, or a copy of what is still needed.
        if let Some(found) = self.entries.get_mut(&record.key)
            && found.version > record.version
        {
            // A copy may come after an addition that was on its way when it was made, and belongs before it.
            if let Some(sum) = sum.filter(|_| !found.sums.is_empty()) {
                add_sum(&mut found.sums, sum);
            }
            return;
        }
        // Copied, so that a value does not pin the buffer it was read into.
        let change = match record.change {
            Change::Put { value, expires_at } => Change::Put {
                value: Bytes::copy_from_slice(&value),
                expires_at,
            },
            other => other,
        };
        let mut sums = Vec::new();
        if let Some(sum) = sum {
            // Those before it count too, up to the last that was no addition.
            if let Some(old) = self.entries.get_mut(&record.key) {
                sums = std::mem::take(&mut old.sums);
            }
            add_sum(&mut sums, sum);
        }
        let found = Found {
            class: record.class,
            version: record.version,
            base: record.base,
            change,
            sums,
            refusal: record.refusal,
            lsn,
        };
        self.entries.insert(record.key, found);
    }

    fn discard(&mut self, key: &Key, version: Version) {
        self.generation = self.generation.max(version.generation());
        let found = self.entries.get(key);
        if found.is_some_and(|found| found.version <= version) {
            self.entries.remove(key);
        }
        let discarded = self.discarded.entry(key.clone()).or_insert(version);
        *discarded = version.max(*discarded);
    }

    /// Makes dirty what is still write-back and not in the store, and flushes at once what moved to another
    /// class or strategy.
    pub(crate) async fn restore(self, layer: &Arc<Layer>) -> Result<Restored> {
        let mut restored = Restored::default();
        let mut moved: Vec<(usize, Write)> = Vec::new();
        // In the order of the journal, as the lanes keep their records: the first is what may not be trimmed.
        let mut entries: Vec<(Key, Found)> = self.entries.into_iter().collect();
        entries.sort_unstable_by_key(|(_, found)| found.lsn);
        let mut known = Vec::with_capacity(entries.len());
        for (key, found) in entries {
            let class = class_of(layer, &found)?;
            known.push((key, class, found));
        }
        let limit = layer.batch_max;
        while !known.is_empty() {
            let rest = known.split_off(known.len().min(limit));
            let keys: Vec<(Key, usize)> = known
                .iter()
                .map(|(key, class, _)| (key.clone(), *class))
                .collect();
            // Where the store cannot tell, the record counts: to flush what it has changes nothing.
            let rows = load_apart(layer, &keys)
                .await
                .into_iter()
                .map(|row| row.ok().flatten());
            for ((key, class, found), row) in known.into_iter().zip(rows) {
                if back::of_class(layer, class).is_some() && is_its(layer, &key, class) {
                    restored.kept.push(kept(layer, key, class, found)?);
                    continue;
                }
                // Of what was added the store itself knows what it has.
                let is_sum = !found.sums.is_empty();
                if is_sum || !row.is_some_and(|row| is_flushed(layer, &found, row.version)) {
                    restore_one(layer, key, class, found, &mut moved)?;
                }
            }
            known = rest;
        }
        let any_moved = !moved.is_empty();
        let flushed = moved.iter().filter_map(|(class, write)| {
            let version = write.guard.version()?;
            Some((write.key.clone(), *class, version))
        });
        restored.moved = flushed.collect();
        flush_moved(layer, moved).await?;
        // Over a shared cache what is kept is not known to the layer yet, and the next trim says the same.
        if any_moved && layer.shared.is_none() {
            last_checkpoint(layer).await;
        }
        Ok(restored)
    }
}

/// Puts a sum in its place. It may be a copy that stands for many.
fn add_sum(sums: &mut Vec<Sum>, sum: Sum) {
    sums.retain(|old| old.version < sum.since || old.version > sum.version);
    let place = sums.partition_point(|old| old.version < sum.version);
    sums.insert(place, sum);
}

/// Whether a row of this version says that a record was flushed. As new or newer: it was, and its row may have
/// been written since; unless the row is newer than all that was ever issued here, and so not ours. The loser
/// of a conflict is a dead letter because the row is newer, so of it only its own version tells anything.
fn is_flushed(layer: &Layer, found: &Found, row: Version) -> bool {
    match &found.refusal {
        Some(refusal) if refusal.reason == DeadLetterReason::Conflict => {
            if row > layer.newest_issued() {
                // As when it was lost: what is written now is newer than the stranger's.
                layer.issue_above(row);
            }
            row == found.version
        }
        _ => row >= found.version && row <= layer.newest_issued(),
    }
}

/// The class that took a record, if it is there and has a store.
fn class_of(layer: &Layer, found: &Found) -> Result<usize> {
    let classes = layer.classes.classes();
    let index = classes
        .iter()
        .position(|class| class.name == found.class)
        .ok_or_else(|| {
            Error::configuration(format_args!(
                "the journal holds unflushed writes of class '{}', which is not configured: \
             put the class back, or drain before taking it out",
                found.class
            ))
        })?;
    if layer.state(index).table.is_none() {
        return Err(Error::configuration(format_args!(
            "the journal holds unflushed writes of class '{}', which now has no store: \
             change its strategy back and drain first",
            found.class
        )));
    }
    Ok(index)
}

/// Whether the key is still of this class.
fn is_its(layer: &Layer, key: &Key, class: usize) -> bool {
    layer.class_of(key.as_bytes()) == class
}

/// A record as the shared cache is given it.
fn kept(layer: &Layer, key: Key, class: usize, found: Found) -> Result<back::replay::Recovered> {
    if !found.sums.is_empty() {
        return Err(Error::configuration(format_args!(
            "the journal holds unflushed additions of class '{}', which cannot be brought to a shared cache: open the \
             gate without one and drain first",
            found.class
        )));
    }
    let is_lost = |refusal: &Refusal| refusal.reason == DeadLetterReason::Conflict;
    let write = KeptWrite {
        held: Held {
            version: found.version,
            value: value_of(&found.change),
        },
        base: found.base,
        since: layer.clock.now(),
        lost: found.refusal.clone().filter(is_lost),
        key: shared_key(layer, class, &key),
    };
    Ok((write, found.lsn, found.refusal))
}

fn restore_one(
    layer: &Layer,
    key: Key,
    class: usize,
    found: Found,
    moved: &mut Vec<(usize, Write)>,
) -> Result<()> {
    let Some(table) = layer.state(class).table else {
        return Ok(());
    };
    if layer.class(class).strategy != Strategy::WriteBack || !is_its(layer, &key, class) {
        if found.refusal.is_some() {
            return Err(Error::configuration(format_args!(
                "the journal holds a dead letter of key '{key}', which was of the write-back class '{}' and \
                 is not any more: put that back, and retry, edit or discard its dead letters first",
                found.class
            )));
        }
        if found.sums.is_empty() {
            moved.push((
                class,
                Write {
                    table,
                    key,
                    change: found.change,
                    guard: Guard::IfNewer(found.version),
                },
            ));
            return Ok(());
        }
        for sum in found.sums {
            let (since, version) = (sum.since, sum.version);
            moved.push((
                class,
                Write {
                    table,
                    key: key.clone(),
                    change: Change::Add { by: sum.by },
                    guard: Guard::Once { since, version },
                },
            ));
        }
        return Ok(());
    }
    let entry = DirtyEntry {
        class,
        change: found.change,
        version: found.version,
        lineage: Lineage::restored(found.version, found.base, found.sums),
        lsn: Some(found.lsn),
        since: layer.clock.elapsed(),
        turn: 0,
        state: DirtyState::Waiting,
    };
    layer.state(class).budget.take(entry.bytes(&key));
    let mut state = layer.lane_of(key.as_bytes()).lock();
    match found.refusal {
        Some(refusal) => state.dirty.restore_parked(key, entry, refusal),
        None => drop(state.dirty.insert(key, entry)),
    }
    Ok(())
}

async fn flush_moved(layer: &Layer, moved: Vec<(usize, Write)>) -> Result<()> {
    let limit = layer.batch_max;
    // No key stands in a batch twice.
    let mut chunks: Vec<&[(usize, Write)]> = Vec::new();
    for one in moved.chunk_by(|(_, a), (_, b)| (a.table, &a.key) != (b.table, &b.key)) {
        chunks.extend(one.chunks(limit));
    }
    for chunk in chunks {
        let writes = chunk.iter().map(|(_, write)| write.clone()).collect();
        let committed = commit::apply(&*layer.store, writes, layer.clock.now(), None).await;
        for ((class, write), committed) in chunk.iter().zip(committed) {
            let error = match committed {
                Ok(_) => continue,
                Err(error @ StoreError::Refused { .. }) => {
                    Error::new(ErrorKind::Configuration, error)
                }
                Err(error) => Error::from(error),
            };
            tracing::error!("the journal holds writes of a class that is no longer write-back");
            return Err(error
                .with_key(&write.key)
                .with_class(&layer.state(*class).name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Version {
        Version::compose(1, number)
    }

    /// An addition of `by` under the versions `since` to `version`.
    fn added(by: i64, since: u64, version: u64) -> WriteRecord {
        WriteRecord {
            class: "n".into(),
            key: Key::from("n:1"),
            version: at(version),
            base: None,
            change: Change::Put {
                value: "0".into(),
                expires_at: None,
            },
            added: Some((by, at(since))),
            refusal: None,
        }
    }

    fn put(version: u64) -> WriteRecord {
        WriteRecord {
            added: None,
            ..added(0, 0, version)
        }
    }

    #[test]
    fn a_copy_behind_a_discard_does_not_bring_the_letter_back() {
        let mut recovered = Recovered::default();
        recovered.take(put(5), Lsn(1));
        recovered.discard(&Key::from("n:1"), at(5));
        recovered.take(put(5), Lsn(3));
        assert!(recovered.entries.is_empty());
        recovered.take(put(6), Lsn(4));
        assert_eq!(
            recovered.entries.len(),
            1,
            "a newer write is another matter"
        );
    }

    /// What is to be added after these records.
    fn sums(records: impl IntoIterator<Item = WriteRecord>) -> Vec<(u64, i64)> {
        let mut recovered = Recovered::default();
        for (lsn, record) in (1..).zip(records) {
            recovered.take(record, Lsn(lsn));
        }
        let found = &recovered.entries[&Key::from("n:1")];
        assert!(found.sums.is_sorted_by_key(|sum| sum.version));
        let sums = found.sums.iter();
        sums.map(|sum| (sum.version.raw() - at(0).raw(), sum.by))
            .collect()
    }

    #[test]
    fn a_copy_of_an_addition_counts_also_after_a_later_addition() {
        let later = || added(6, 6, 6);
        assert_eq!(sums([later(), added(5, 4, 4)]), [(4, 5), (6, 6)]);
        let again = [added(5, 4, 4), later(), added(5, 4, 4)];
        assert_eq!(sums(again), [(4, 5), (6, 6)], "and once");
        let many = [added(2, 2, 2), added(3, 4, 4), later(), added(5, 2, 4)];
        assert_eq!(
            sums(many),
            [(4, 5), (6, 6)],
            "also one that stands for many"
        );
        let all = [added(5, 4, 4), later(), added(11, 4, 6)];
        assert_eq!(sums(all), [(6, 11)]);
    }

    #[test]
    fn what_was_added_before_a_put_is_in_it() {
        assert_eq!(sums([added(5, 4, 4), put(6)]), []);
        assert_eq!(sums([put(6), added(5, 4, 4)]), []);
        assert_eq!(sums([added(5, 4, 4), put(6), added(1, 8, 8)]), [(8, 1)]);
    }
}
