//! Start-up: the journal's records become dirty entries again.
//!
//! The journal is read from its oldest record; of each key only the newest version counts. What the store
//! already has costs nothing but a guarded write that does not apply. Records whose key now belongs to
//! another class, or whose class is no longer write-back, are flushed before the gate opens, into the table
//! of the class that took them; a class that is gone is refused by name, for its rows have no table.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::class::Strategy;
use crate::entry::Change;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::lane::{DirtyEntry, DirtyState};
use crate::layer::Layer;
use crate::port::{Guard, Journal, Lsn, StoreError, Write};
use crate::record::{Record, WriteRecord};
use crate::strategy::commit;
use crate::version::Version;

/// How many records are read at a time.
const CHUNK: usize = 4096;

/// The newest unflushed write of each key.
#[derive(Default)]
pub(crate) struct Recovered {
    entries: BTreeMap<Key, Found>,
    /// The newest generation seen.
    pub(crate) generation: u64,
}

struct Found {
    /// By name: only when all is read is it known whether the class is still needed.
    class: String,
    version: Version,
    change: Change,
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
                Some(Record::Checkpoint(needed)) => {
                    recovered.entries.retain(|_, found| found.lsn >= needed);
                }
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

/// Notes in the journal what it need not replay at the next start.
pub(crate) async fn checkpoint(layer: &Layer) {
    let Some(journal) = &layer.journal else {
        return;
    };
    let mark = layer.journal_needed_from(&**journal);
    if mark == Lsn(1) || layer.journal_failure().is_some() {
        return;
    }
    let record = Record::encode_checkpoint(mark);
    if let Err(error) = journal.append(vec![record]).await {
        // Only a start that replays more than it must.
        tracing::warn!(%error, "the journal took no checkpoint");
    }
}

impl Recovered {
    fn take(&mut self, record: WriteRecord, lsn: Lsn) {
        self.generation = self.generation.max(record.version.generation());
        let newer = self
            .entries
            .get(&record.key)
            .is_none_or(|old| old.version < record.version);
        if newer {
            // Copied, so that a value does not pin the buffer it was read into.
            let change = match record.change {
                Change::Put { value, expires_at } => Change::Put {
                    value: Bytes::copy_from_slice(&value),
                    expires_at,
                },
                Change::Delete => Change::Delete,
            };
            let (class, version) = (record.class, record.version);
            self.entries.insert(
                record.key,
                Found {
                    class,
                    version,
                    change,
                    lsn,
                },
            );
        }
    }

    /// Makes dirty what is still write-back, and flushes the rest at once.
    pub(crate) async fn restore(self, layer: &Arc<Layer>) -> Result<()> {
        let mut moved: Vec<(usize, Write)> = Vec::new();
        // In the order of the journal, as the lanes keep their records: the first is what may not be trimmed.
        let mut entries: Vec<(Key, Found)> = self.entries.into_iter().collect();
        entries.sort_unstable_by_key(|(_, found)| found.lsn);
        for (key, found) in entries {
            let classes = layer.classes.classes();
            let Some(index) = classes.iter().position(|class| class.name == found.class) else {
                return Err(Error::configuration(format_args!(
                    "the journal holds unflushed writes of class '{}', which is not configured: \
                     put the class back, or drain before taking it out",
                    found.class
                )));
            };
            let class = layer.class(index);
            let Some(table) = layer.state(index).table else {
                return Err(Error::configuration(format_args!(
                    "the journal holds unflushed writes of class '{}', which now has no store: \
                     change its strategy back and drain first",
                    class.name
                )));
            };
            let same = layer.class_of(key.as_bytes()) == index;
            if class.strategy != Strategy::WriteBack || !same {
                let guard = Guard::IfNewer(found.version);
                moved.push((
                    index,
                    Write {
                        table,
                        key,
                        change: found.change,
                        guard,
                    },
                ));
                continue;
            }
            let entry = DirtyEntry {
                class: index,
                change: found.change,
                version: found.version,
                lsn: Some(found.lsn),
                since: layer.clock.elapsed(),
                turn: 0,
                state: DirtyState::Waiting,
            };
            layer.state(index).budget.take(entry.bytes(&key));
            layer
                .lane_of(key.as_bytes())
                .lock()
                .dirty
                .insert(key, entry);
        }
        flush_moved(layer, moved).await
    }
}

async fn flush_moved(layer: &Layer, moved: Vec<(usize, Write)>) -> Result<()> {
    let limit = layer.store.capabilities().batch_max.max(1);
    for chunk in moved.chunks(limit) {
        let writes = chunk.iter().map(|(_, write)| write.clone()).collect();
        let committed = commit::apply(&*layer.store, writes, layer.clock.now()).await;
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
