//! Where a write goes once it is decided: into the journal, and from there (or at once) among the dirty.
//!
//! All under the lane's lock, so that versions, records and dirty entries of a lane have one order.

use std::time::Duration;

use crate::budget::Admitted;
use crate::entry::Change;
use crate::key::Key;
use crate::lane::{
    Appended, Callers, DirtyEntry, DirtyState, Lane, LaneState, Lineage, Over, Road, dirty_bytes,
};
use crate::layer::Layer;
use crate::near::{Copy, Freshness};
use crate::port::{Journal, JournalError, Lsn};
use crate::receipt::{Durability, Read, Receipt, Source, Written};
use crate::record::Record;
use crate::strategy::settle::Answers;
use crate::version::Version;

/// A write that is decided and not yet anywhere.
pub(super) struct Decided {
    pub(super) key: Key,
    pub(super) class: usize,
    pub(super) change: Change,
    pub(super) over: Over,
    pub(super) admitted: Admitted,
}

/// A write that the journal did not take.
pub(super) struct NotPlaced {
    pub(super) decided: Decided,
    pub(super) callers: Callers,
    pub(super) error: JournalError,
}

/// What a write that became dirty shows.
pub(super) struct Shown {
    pub(super) read: Read,
    /// Whether memory knew the key before. A put is not made to wait for a load just to tell more.
    remembered: bool,
}

impl Shown {
    /// What the caller of the write is told.
    pub(super) fn written(&self, existed: Option<bool>) -> Written {
        Written {
            existed: existed.unwrap_or(self.remembered),
            receipt: Receipt {
                source: Source::Dirty,
                ..self.read.receipt
            },
        }
    }

    /// Answers everybody.
    pub(super) fn tell(&self, callers: Callers, answers: &mut Answers) {
        match callers {
            Callers::One(reply) => answers.one(reply, Ok(self.written(None))),
            Callers::Many(operations) => {
                for (operation, existed) in operations {
                    answers.write(operation, Ok(self.written(existed)));
                }
            }
        }
    }
}

/// The journal of a class that is journalled.
pub(super) fn journal_of(layer: &Layer, class: usize) -> Option<&dyn Journal> {
    let journalled = layer.class(class).durability == Durability::Journal;
    layer.journal.as_deref().filter(|_| journalled)
}

/// Submits a journalled write, which becomes dirty and is answered when its record is synced; makes any other
/// dirty, with its answers. Those who wait to read the key wait for it, or are answered by it.
pub(super) fn place(
    layer: &Layer,
    lane: &Lane,
    state: &mut LaneState,
    mut decided: Decided,
    callers: Callers,
    answers: &mut Answers,
) -> Result<(), Box<NotPlaced>> {
    let over = over(layer, state, &decided);
    decided.over.added = over.added;
    let version = layer.issue_over(over.base);
    let Some(journal) = journal_of(layer, decided.class) else {
        let mut readers = state.loads.overtake(decided.key.as_bytes());
        readers.append(&mut state.road(Road::Back).land(&decided.key));
        let shown = to_dirty(layer, state, decided, version, None);
        shown.tell(callers, answers);
        answers.read(readers, Ok(shown.read));
        return Ok(());
    };
    let name = &layer.state(decided.class).name;
    let record = Record::encode_over(name, &decided.key, version, over, &decided.change);
    let lsn = match journal.submit(std::slice::from_ref(&record)) {
        Ok(lsn) => lsn,
        Err(error) => {
            return Err(Box::new(NotPlaced {
                decided,
                callers,
                error,
            }));
        }
    };
    let mut readers = state.loads.overtake(decided.key.as_bytes());
    readers.append(&mut state.road(Road::Back).land(&decided.key));
    if state.dirty.get(decided.key.as_bytes()).is_some() {
        // Until the record is synced it may be flushed, and then that is what the write goes over.
        decided.over.base = None;
    }
    let write = Appended {
        key: decided.key,
        class: decided.class,
        change: decided.change,
        over: decided.over,
        version,
        lsn,
        admitted: decided.admitted,
        callers,
    };
    if state.appended.push(write, readers) {
        lane.appended_waiting.notify_one();
    }
    Ok(())
}

/// What a write is made over: what is dirty, unsynced or cached of its key, or what it was shown. It is nothing
/// but an addition only if nothing else is on its way of the key.
pub(super) fn over(layer: &Layer, state: &LaneState, decided: &Decided) -> Over {
    let key = decided.key.as_bytes();
    if let Some(dirty) = state.dirty.get(key) {
        return Over {
            base: dirty.lineage.base(),
            added: decided.over.added.filter(|_| dirty.lineage.is_additive()),
        };
    }
    if state.appended.last_of(key).is_some() {
        return Over::default();
    }
    Over {
        base: decided.over.base.or_else(|| cached(layer, key)),
        added: decided.over.added,
    }
}

/// The version of what is cached of a key, if that may be served.
fn cached(layer: &Layer, key: &[u8]) -> Option<Version> {
    version_of(layer, &layer.near.peek(key)?)
}

fn version_of(layer: &Layer, copy: &Copy) -> Option<Version> {
    let fresh = copy.freshness(layer.clock.now(), layer.clock.elapsed()) == Freshness::Fresh;
    fresh.then(|| match copy.is_negative() {
        true => Version::NONE,
        false => copy.version(),
    })
}

/// A write that is as durable as it was promised becomes dirty, and the cache takes it.
pub(super) fn to_dirty(
    layer: &Layer,
    state: &mut LaneState,
    decided: Decided,
    version: Version,
    lsn: Option<Lsn>,
) -> Shown {
    let Decided {
        key,
        class,
        change,
        over,
        admitted,
    } = decided;
    let (remembered, base) = remembered(layer, state, &key);
    let over = Over {
        base: over.base.or(base),
        ..over
    };
    let entry = change
        .to_entry(version)
        .filter(|entry| !entry.is_expired(layer.clock.now()));
    admitted.settle(dirty_bytes(&key, change.value_bytes()));
    let dirty = DirtyEntry {
        class,
        change,
        version,
        lineage: Lineage::of(over, version, lsn),
        lsn,
        since: layer.clock.elapsed(),
        turn: 0,
        state: DirtyState::Waiting,
    };
    if let Some(old) = state.dirty.insert(key.clone(), dirty) {
        let room = layer.state(old.class).budget.give_later(old.bytes(&key));
        state.dirty.give_back(&key, room);
        layer.state(class).counters.coalesced.one();
    }
    layer.fill(&key, class, entry.as_ref(), version);
    let durability = match lsn {
        Some(_) => Durability::Journal,
        None => Durability::Memory,
    };
    let receipt = Receipt {
        version,
        source: Source::Near,
        age_bound: Duration::ZERO,
        durability,
    };
    Shown {
        read: Read { entry, receipt },
        remembered,
    }
}

/// Whether memory knows the key as present, and the version of what is cached of it. One look at the cache, for
/// every write comes here.
fn remembered(layer: &Layer, state: &LaneState, key: &Key) -> (bool, Option<Version>) {
    let now = layer.clock.now();
    if let Some(dirty) = state.dirty.get(key.as_bytes()) {
        let entry = dirty.change.to_entry(dirty.version);
        let present = entry.is_some_and(|entry| !entry.is_expired(now));
        return (present, cached(layer, key.as_bytes()));
    }
    let Some(copy) = layer.near.peek(key.as_bytes()) else {
        return (false, None);
    };
    let version = version_of(layer, &copy);
    let present = copy
        .into_entry()
        .is_some_and(|entry| !entry.is_expired(now));
    (present, version)
}
