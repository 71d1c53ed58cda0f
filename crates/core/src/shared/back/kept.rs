//! What this node's journal has of writes over the shared cache that the store is not known to have.
//!
//! A record is needed until the store has its write, or a newer one of the key, whichever node brought it there. Until
//! then its content is kept in memory too, so that a cache that lost it gets it back without a look at the disk. What
//! is kept is bounded by the journal's own bound.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::claims::lost;
use crate::dead_letters::Refusal;
use crate::entry::Change;
use crate::hash::Hasher;
use crate::lane::Over;
use crate::port::{Held, Journal, JournalError, Lsn, Replay, SharedKey, Timestamp, Value};
use crate::record::Record;
use crate::version::Version;

/// A write with its record in the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct KeptWrite {
    pub(crate) key: SharedKey,
    pub(crate) held: Held,
    pub(crate) base: Option<Version>,
    /// When it was made, by the clock of the layer.
    pub(crate) since: Timestamp,
    /// Why it is a dead letter, if it lost against a row of somebody else.
    pub(crate) lost: Option<Refusal>,
}

impl KeptWrite {
    pub(super) fn record(&self) -> Bytes {
        let change = change_of(self.held.value.as_ref());
        let (key, version) = (&self.key, self.held.version);
        if let Some(refusal) = &self.lost {
            return Record::encode_lost(
                &key.class,
                &key.key,
                version,
                self.base,
                (&change, refusal),
            );
        }
        let over = Over {
            base: self.base,
            added: None,
        };
        Record::encode_over(&key.class, &key.key, version, over, &change)
    }

    pub(super) fn replay(&self) -> Replay {
        let key = match self.lost {
            Some(_) => lost(&self.key),
            None => self.key.clone(),
        };
        Replay {
            key,
            held: self.held.clone(),
            base: self.base,
            now: self.since,
        }
    }

    fn bytes(&self) -> u64 {
        let value = self
            .held
            .value
            .as_ref()
            .map_or(0, |value| value.bytes.len());
        (self.key.key.len() + self.key.class.len() + value) as u64
    }
}

/// The change that leaves a key with this.
pub(crate) fn change_of(value: Option<&Value>) -> Change {
    match value {
        Some(value) => Change::Put {
            value: value.bytes.clone(),
            expires_at: value.expires_at,
        },
        None => Change::Delete,
    }
}

/// What a change leaves a key with. An addition is none here: it was folded into what it comes to.
pub(crate) fn value_of(change: &Change) -> Option<Value> {
    match change {
        Change::Put { value, expires_at } => Some(Value {
            bytes: value.clone(),
            expires_at: *expires_at,
        }),
        Change::Add { .. } | Change::Delete => None,
    }
}

/// See the [module](self).
pub(crate) struct Kept {
    state: Mutex<State>,
}

struct State {
    /// By key, the oldest version first. Mostly one; a newer one takes an older one's place when it is durable.
    by_key: HashMap<SharedKey, Vec<Slot>, Hasher>,
    by_lsn: BTreeMap<Lsn, SharedKey>,
    bytes: u64,
}

struct Slot {
    write: KeptWrite,
    lsn: Lsn,
    /// Since when the cache is known not to have it, of a dead letter.
    missing_since: Option<Duration>,
}

impl Kept {
    pub(super) fn new(hasher: &Hasher) -> Self {
        Self {
            state: Mutex::new(State {
                by_key: HashMap::with_hasher(hasher.clone()),
                by_lsn: BTreeMap::new(),
                bytes: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Submits the record of a write and keeps it from that moment on: no trim can come in between.
    ///
    /// # Errors
    /// As of [`Journal::submit`]: nothing was taken.
    pub(super) fn submit(
        &self,
        journal: &dyn Journal,
        write: &KeptWrite,
    ) -> Result<Lsn, JournalError> {
        let record = write.record();
        let mut state = self.lock();
        let lsn = journal.submit(&[record])?;
        state.insert(write.clone(), lsn);
        Ok(lsn)
    }

    /// Keeps a write that the journal had at start.
    pub(super) fn restore(&self, write: KeptWrite, lsn: Lsn) {
        self.lock().insert(write, lsn);
    }

    /// The record of this version at this place is durable: older ones of the key are not needed any more.
    pub(super) fn durable(&self, key: &SharedKey, version: Version, lsn: Lsn) {
        self.lock().retain(key, |slot| {
            let has = slot.write.held.version;
            has > version || (has == version && slot.lsn >= lsn)
        });
    }

    /// For how long the cache has not had the newest write of the key, which is a dead letter.
    pub(super) fn missing_for(&self, key: &SharedKey, now: Duration) -> Duration {
        let mut state = self.lock();
        let slot = state.by_key.get_mut(key).and_then(|slots| slots.last_mut());
        slot.map_or(Duration::ZERO, |slot| {
            now.saturating_sub(*slot.missing_since.get_or_insert(now))
        })
    }

    /// The cache has it.
    pub(super) fn found(&self, key: &SharedKey) {
        let mut state = self.lock();
        if let Some(slot) = state.by_key.get_mut(key).and_then(|slots| slots.last_mut()) {
            slot.missing_since = None;
        }
    }

    /// The store has this version of the key, or what it came to afterwards.
    pub(super) fn stored(&self, key: &SharedKey, version: Version) {
        self.lock()
            .retain(key, |slot| slot.write.held.version > version);
    }

    /// The oldest record that is needed.
    pub(crate) fn needed_from(&self) -> Option<Lsn> {
        self.lock().by_lsn.first_key_value().map(|(lsn, _)| *lsn)
    }

    /// At most `limit` writes made before `before`, in the order of their records, of which the first is at or after
    /// `from`; and where to go on.
    pub(super) fn older(
        &self,
        from: Lsn,
        before: Timestamp,
        limit: usize,
    ) -> (Vec<KeptWrite>, Option<Lsn>) {
        let state = self.lock();
        let mut found = Vec::new();
        for (lsn, key) in state.by_lsn.range(from..) {
            if found.len() >= limit {
                return (found, Some(*lsn));
            }
            let slot = state.slot(key, *lsn);
            found.extend(
                slot.filter(|slot| slot.write.since <= before)
                    .map(|slot| slot.write.clone()),
            );
        }
        (found, None)
    }

    /// All writes of keys for which `wanted` says so.
    pub(super) fn all(&self, wanted: impl Fn(&SharedKey) -> bool) -> Vec<KeptWrite> {
        let state = self.lock();
        let keys = state.by_key.iter().filter(|(key, _)| wanted(key));
        // The newest of a key stands for those before it.
        keys.filter_map(|(_, slots)| Some(slots.last()?.write.clone()))
            .collect()
    }

    /// How many keys have a record that is needed, and the bytes of them all.
    pub(crate) fn size(&self) -> (usize, u64) {
        let state = self.lock();
        (state.by_key.len(), state.bytes)
    }

    /// Appends anew at most `limit` of the records before `place`. What they were before is needed until
    /// [`moved`](Self::moved).
    pub(super) fn copy_before(
        &self,
        journal: &dyn Journal,
        place: Lsn,
        limit: usize,
    ) -> Result<Option<Copies>, JournalError> {
        let state = self.lock();
        let mut copies = Vec::new();
        let mut records = Vec::new();
        for (lsn, key) in state.by_lsn.range(..place).take(limit) {
            if let Some(slot) = state.slot(key, *lsn) {
                copies.push((key.clone(), *lsn));
                records.push(slot.write.record());
            }
        }
        if records.is_empty() {
            return Ok(None);
        }
        let last = journal.submit(&records)?;
        Ok(Some(Copies { last, copies }))
    }

    /// Copies are durable: they take the places of the originals.
    pub(super) fn moved(&self, copies: Copies) {
        let mut state = self.lock();
        let first = copies.last.0 + 1 - copies.copies.len() as u64;
        for ((key, old), new) in copies.copies.into_iter().zip(first..) {
            let slots = state.by_key.get_mut(&key);
            let slot = slots.and_then(|slots| slots.iter_mut().find(|slot| slot.lsn == old));
            let Some(slot) = slot else { continue };
            slot.lsn = Lsn(new);
            state.by_lsn.remove(&old);
            state.by_lsn.insert(Lsn(new), key);
        }
    }
}

/// Records that were appended once more.
pub(super) struct Copies {
    pub(super) last: Lsn,
    copies: Vec<(SharedKey, Lsn)>,
}

impl Copies {
    pub(super) fn len(&self) -> usize {
        self.copies.len()
    }
}

impl State {
    fn insert(&mut self, write: KeptWrite, lsn: Lsn) {
        self.bytes += write.bytes();
        self.by_lsn.insert(lsn, write.key.clone());
        let slots = self.by_key.entry(write.key.clone()).or_default();
        let place = slots.partition_point(|slot| slot.write.held.version <= write.held.version);
        let slot = Slot {
            write,
            lsn,
            missing_since: None,
        };
        slots.insert(place, slot);
    }

    fn slot(&self, key: &SharedKey, lsn: Lsn) -> Option<&Slot> {
        self.by_key.get(key)?.iter().find(|slot| slot.lsn == lsn)
    }

    fn retain(&mut self, key: &SharedKey, keep: impl Fn(&Slot) -> bool) {
        let Some(slots) = self.by_key.get_mut(key) else {
            return;
        };
        slots.retain(|slot| {
            let kept = keep(slot);
            if !kept {
                self.by_lsn.remove(&slot.lsn);
                self.bytes -= slot.write.bytes();
            }
            kept
        });
        if slots.is_empty() {
            self.by_key.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::memory::MemoryJournal;

    fn kept() -> Kept {
        Kept::new(&Hasher::with_seed(1))
    }

    fn write(key: &str, version: u64) -> KeptWrite {
        KeptWrite {
            key: SharedKey {
                class: "b".into(),
                key: Key::from(key),
            },
            held: Held {
                version: Version::from_raw(version),
                value: None,
            },
            base: None,
            since: Timestamp::from_millis(version),
            lost: None,
        }
    }

    #[test]
    fn a_record_is_needed_until_a_newer_one_is_durable_or_the_store_has_it() {
        let (kept, journal) = (kept(), MemoryJournal::new());
        let (first, second) = (write("k", 2), write("k", 4));
        let lsn = kept.submit(&journal, &first).unwrap();
        kept.submit(&journal, &second).unwrap();
        assert_eq!(kept.needed_from(), Some(lsn), "the newer may not be synced");
        kept.durable(&second.key, second.held.version, lsn.next());
        assert_eq!(kept.needed_from(), Some(lsn.next()));
        kept.stored(&second.key, Version::from_raw(3));
        assert_eq!(kept.size().0, 1, "the store has an older one");
        kept.stored(&second.key, second.held.version);
        assert_eq!((kept.size(), kept.needed_from()), ((0, 0), None));
    }

    #[test]
    fn records_move_to_the_end() {
        let (kept, journal) = (kept(), MemoryJournal::new());
        for n in 1..=4 {
            kept.submit(&journal, &write(&format!("k{n}"), n)).unwrap();
        }
        let copies = kept.copy_before(&journal, Lsn(3), 10).unwrap().unwrap();
        assert_eq!((copies.len(), kept.needed_from()), (2, Some(Lsn(1))));
        kept.stored(&write("k1", 1).key, Version::from_raw(9));
        kept.moved(copies);
        assert_eq!(kept.needed_from(), Some(Lsn(3)));
        let (all, next) = kept.older(Lsn(4), Timestamp::from_millis(2), 10);
        assert_eq!((all, next), (vec![write("k2", 2)], None));
    }
}
