//! Start-up: the journal's records become dirty entries again.
//!
//! The journal is read from its oldest record; of each key only the newest version counts. What the store
//! already has costs nothing but a guarded write that does not apply. Records whose key now belongs to
//! another class, or whose class is no longer write-back, are flushed before the gate opens, into the table
//! of the class that took them; a class that is gone is refused by name, for its rows have no table.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::class::{ClassSet, Strategy};
use crate::entry::Change;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::lane::{DirtyEntry, DirtyState};
use crate::layer::Layer;
use crate::port::{Guard, Journal, Lsn, StoreError, Write};
use crate::record::Record;
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
    class: usize,
    version: Version,
    change: Change,
    lsn: Lsn,
}

/// Reads the journal.
pub(crate) async fn read(journal: &dyn Journal, classes: &ClassSet) -> Result<Recovered> {
    let mut recovered = Recovered::default();
    let mut from = Lsn(0);
    loop {
        let chunk = journal.replay(from, CHUNK).await?;
        let Some(last) = chunk.last() else {
            return Ok(recovered);
        };
        from = last.lsn.next();
        for replayed in chunk {
            let record = Record::decode(replayed.record).ok_or_else(|| {
                Error::configuration(format_args!(
                    "the journal's record {} was not written by this version of tidegate",
                    replayed.lsn.0
                ))
            })?;
            recovered.take(record, replayed.lsn, classes)?;
        }
    }
}

impl Recovered {
    fn take(&mut self, record: Record, lsn: Lsn, classes: &ClassSet) -> Result<()> {
        let named = |class: &crate::class::Class| class.name == record.class;
        let class = classes.classes().iter().position(named).ok_or_else(|| {
            Error::configuration(format_args!(
                "the journal holds unflushed writes of class '{}', which is not configured: \
                 put the class back, or drain before taking it out",
                record.class
            ))
        })?;
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
            let found = Found {
                class,
                version: record.version,
                change,
                lsn,
            };
            self.entries.insert(record.key, found);
        }
        Ok(())
    }

    /// Makes dirty what is still write-back, and flushes the rest at once.
    pub(crate) async fn restore(self, layer: &Arc<Layer>) -> Result<()> {
        let mut moved: Vec<(usize, Write)> = Vec::new();
        // In the order of the journal, as the lanes keep their records: the first is what may not be trimmed.
        let mut entries: Vec<(Key, Found)> = self.entries.into_iter().collect();
        entries.sort_unstable_by_key(|(_, found)| found.lsn);
        for (key, found) in entries {
            let class = layer.class(found.class);
            let Some(table) = layer.state(found.class).table else {
                return Err(Error::configuration(format_args!(
                    "the journal holds unflushed writes of class '{}', which now has no store: \
                     change its strategy back and drain first",
                    class.name
                )));
            };
            let same = layer.class_of(key.as_bytes()) == found.class;
            if class.strategy != Strategy::WriteBack || !same {
                let guard = Guard::IfNewer(found.version);
                moved.push((
                    found.class,
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
                class: found.class,
                change: found.change,
                version: found.version,
                lsn: Some(found.lsn),
                since: layer.clock.elapsed(),
                turn: 0,
                state: DirtyState::Waiting,
            };
            layer.state(found.class).budget.take(entry.bytes(&key));
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
