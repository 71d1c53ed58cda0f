//! The dirty entries of a lane: acknowledged and not yet in the store. No eviction touches them.
//!
//! Life of an entry: waiting → claimed → gone, or parked. At most one claim of a key is out at a time; what
//! is written meanwhile takes the entry's place in the map and waits behind the claim, so several batches of
//! one lane may be on their way at once and never hold the same key.

mod audit;
mod claims;
mod letters;
mod lineage;
mod records;
mod sent;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::budget::Admitted;
use crate::dead_letters::DeadLetterReason;
use crate::entry::Change;
use crate::hash::Hasher;
use crate::key::Key;
use crate::mutation::Mutations;
use crate::port::Lsn;
use crate::version::Version;

use letters::Letter;
use records::Records;

pub(crate) use claims::{Claim, KeyClaim};
pub(crate) use lineage::{Fate, Lineage, Over, Sum};

pub(crate) use records::Pin;

/// Bytes counted for a dirty entry beside its key and value: its slots in the map (which is between half and seven
/// eighths full) and the two queues, and what the allocator takes for its key and value. Measured as the resident
/// memory of a server with a hundred thousand of them.
pub(crate) const DIRTY_OVERHEAD_BYTES: u64 = 768;

/// Where a dirty entry stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DirtyState {
    /// In the queue of the flusher.
    Waiting,
    /// A claim of the key is on its way to the store: of this write, or of one that it has overtaken.
    Claimed,
    /// The store does not take it; why is in its [`Letter`].
    Parked,
}

/// An acknowledged write that the store does not have. A delete is a dirty tombstone.
#[derive(Clone, Debug)]
pub(crate) struct DirtyEntry {
    pub(crate) class: usize,
    pub(crate) change: Change,
    pub(crate) version: Version,
    /// What it was made over, and what of its key may be in the store already.
    pub(crate) lineage: Lineage,
    /// Its record in the journal, if its class is journalled or it is parked.
    pub(crate) lsn: Option<Lsn>,
    /// Since when the key has been dirty without a break, in elapsed time.
    pub(crate) since: Duration,
    /// Its turn in the queue of the flusher, given by [`Dirty`]: smaller goes first.
    pub(crate) turn: u64,
    pub(crate) state: DirtyState,
}

impl DirtyEntry {
    /// What is sent of it.
    fn claim(&mut self, key: Key) -> Claim {
        let (change, version, guard) = self.lineage.claim(&self.change, self.version);
        Claim {
            key,
            class: self.class,
            change,
            version,
            guard,
        }
    }

    pub(crate) fn bytes(&self, key: &Key) -> u64 {
        dirty_bytes(key, self.change.value_bytes())
    }
}

/// What a dirty entry of this key and value is counted as.
pub(crate) fn dirty_bytes(key: &Key, value_bytes: usize) -> u64 {
    DIRTY_OVERHEAD_BYTES + key.len() as u64 + value_bytes as u64
}

/// The entries of one class, by turn: a class that lingers long holds up no other.
#[derive(Clone, Default)]
struct Queue {
    /// Entries to be flushed.
    ready: BTreeMap<u64, Ready>,
    /// The bytes of all of `ready`.
    ready_bytes: u64,
    /// Turns of entries whose claim is out, and since when what was claimed had been dirty.
    claimed: BTreeMap<u64, Duration>,
    /// A flush was asked for: entries before this turn do not linger.
    urgent_before: u64,
}

/// An entry to be flushed.
#[derive(Clone)]
struct Ready {
    key: Key,
    bytes: u64,
}

/// A class with entries ready to be claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Front {
    pub(crate) class: usize,
    /// How many entries are ready.
    pub(crate) ready: usize,
    /// Their bytes.
    pub(crate) ready_bytes: u64,
    /// Since when the first of them has been dirty, in elapsed time.
    pub(crate) since: Duration,
    /// A flush that was asked for waits for the first of them.
    pub(crate) urgent: bool,
}

/// What is kept of an entry that was written again while its claim is out.
#[derive(Clone)]
struct Overtaken {
    /// The turn of the first such write. A flush that is asked for after it waits for it.
    turn: u64,
    /// The room of what is on its way: its bytes are in memory until the claim ends. Dropped, it is given back.
    room: Option<Arc<Admitted>>,
}

/// See the [module](self). Invariants (I8): a key is in `ready` if and only if its state is
/// [`DirtyState::Waiting`], its turn is in `claimed` if and only if it is [`DirtyState::Claimed`], and one
/// that is [`DirtyState::Parked`] has a letter.
#[derive(Clone)]
pub(crate) struct Dirty {
    entries: HashMap<Key, DirtyEntry, Hasher>,
    /// By class.
    queues: Vec<Queue>,
    /// Entries that were refused: parked ones, and those that are being retried.
    letters: BTreeMap<Key, Letter>,
    /// Some of them may not be known to the journal.
    has_unrecorded: bool,
    /// Letters in the journal that are no more, and of whose keys it has no newer record.
    outlived: BTreeMap<Key, Version>,
    /// Entries written again while their claim is out.
    overtaken: HashMap<Key, Overtaken, Hasher>,
    records: Records,
    /// Bytes of keys and values that have a record.
    recorded_bytes: u64,
    waiting: usize,
    claimed: usize,
    parked: usize,
    next_turn: u64,
    mutations: Mutations,
}

impl Dirty {
    pub(crate) fn new(hasher: &Hasher, mutations: Mutations) -> Self {
        Self {
            entries: HashMap::with_hasher(hasher.clone()),
            queues: Vec::new(),
            letters: BTreeMap::new(),
            has_unrecorded: false,
            outlived: BTreeMap::new(),
            overtaken: HashMap::with_hasher(hasher.clone()),
            records: Records::default(),
            recorded_bytes: 0,
            waiting: 0,
            claimed: 0,
            parked: 0,
            next_turn: 0,
            mutations,
        }
    }

    /// The entry that readers of this key see. The loser of a conflict is none: the row is what counts.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&DirtyEntry> {
        let entry = self.entries.get(key)?;
        (!self.is_loser(key)).then_some(entry)
    }

    /// The entry of this key, also one that readers do not see.
    pub(crate) fn entry(&self, key: &[u8]) -> Option<&DirtyEntry> {
        self.entries.get(key)
    }

    fn is_loser(&self, key: &[u8]) -> bool {
        !self.letters.is_empty()
            && self
                .letters
                .get(key)
                .is_some_and(|letter| letter.refusal.reason == DeadLetterReason::Conflict)
    }

    /// Takes a write that was acknowledged, or is about to be, in place of the key's earlier one (coalescing).
    /// Returns what it replaced. One that is not newer than what is there is not taken and is itself
    /// returned.
    pub(crate) fn insert(&mut self, key: Key, mut entry: DirtyEntry) -> Option<DirtyEntry> {
        if self
            .entries
            .get(&key)
            .is_some_and(|old| old.version >= entry.version)
        {
            return Some(entry);
        }
        // One that comes from the journal may need more records than its own.
        for lsn in entry
            .lineage
            .records()
            .filter(|lsn| entry.lsn != Some(*lsn))
        {
            self.records.push(lsn, key.clone());
        }
        if let Some(lsn) = entry.lsn {
            self.records.push(lsn, key.clone());
            self.recorded_bytes += entry.bytes(&key);
        }
        entry.state = DirtyState::Waiting;
        let is_loser = self.is_loser(key.as_bytes());
        let mut old = self.entries.remove(&key);
        if let Some(old) = old.as_mut().filter(|_| !is_loser) {
            let (version, state) = (old.version, old.state);
            entry.lineage.follow(&mut old.lineage, version, state);
        }
        if let Some(old) = old.as_ref().filter(|old| old.lsn.is_some()) {
            self.recorded_bytes -= old.bytes(&key);
        }
        match old.as_ref().map(|old| (old.state, old.turn, old.class)) {
            Some((DirtyState::Waiting, turn, class)) => {
                // It keeps its place in the queue, and so the age of the oldest write it stands for.
                self.unqueue(class, turn);
                entry.since = old
                    .as_ref()
                    .map_or(entry.since, |old| old.since.min(entry.since));
                entry.turn = turn;
                self.queue(entry.class, turn, key.clone(), entry.bytes(&key));
            }
            Some((DirtyState::Claimed, turn, class)) => {
                // It waits behind the claim, and stands for it too as long as that has not arrived.
                entry.turn = turn;
                entry.state = DirtyState::Claimed;
                if !self.overtaken.contains_key(&key) {
                    let turn = self.take_turn();
                    self.overtaken
                        .insert(key.clone(), Overtaken { turn, room: None });
                }
                if class != entry.class
                    && let Some(since) = self.of_class(class).claimed.remove(&turn)
                {
                    self.of_class(entry.class).claimed.insert(turn, since);
                }
            }
            Some((DirtyState::Parked, ..)) => {
                self.parked -= 1;
                entry.turn = self.take_turn();
                self.queue(entry.class, entry.turn, key.clone(), entry.bytes(&key));
            }
            None => {
                entry.turn = self.take_turn();
                self.queue(entry.class, entry.turn, key.clone(), entry.bytes(&key));
            }
        }
        self.supersede_letter(&key, old.as_ref(), entry.lsn);
        self.entries.insert(key, entry);
        let entries = &self.entries;
        self.records
            .sweep(entries.len(), |lsn, key| has_record(entries, lsn, key));
        old
    }

    fn take_turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn - 1
    }

    /// The turn of what was written while a claim of its key was out.
    fn own_turn(&mut self, key: &Key) -> u64 {
        let claimed = self.entries.get(key).map(|entry| entry.turn);
        // Without such a write what is left keeps its place: it is as old as what was claimed.
        let overtaken = self.overtaken.remove(key).map(|overtaken| overtaken.turn);
        match overtaken.or(claimed) {
            Some(turn) => turn,
            None => self.take_turn(),
        }
    }

    /// The turn of the newest write of this key: once the entry's turn is a later one, that write has been
    /// stored, or one that replaced it.
    pub(crate) fn own_turn_of(&self, key: &Key) -> Option<u64> {
        let entry = self.entries.get(key)?;
        let overtaken = self.overtaken.get(key);
        Some(overtaken.map_or(entry.turn, |overtaken| overtaken.turn))
    }

    /// What an entry that was just replaced took of its class's room: kept until its claim ends if it is on its
    /// way to the store, given back at once otherwise.
    pub(crate) fn give_back(&mut self, key: &Key, room: Admitted) {
        // Only the first write after the claim replaces what is on its way.
        if let Some(overtaken) = self.overtaken.get_mut(key)
            && overtaken.room.is_none()
        {
            overtaken.room = Some(Arc::new(room));
        }
    }

    /// The room kept for what is on its way and no entry any more.
    pub(crate) fn kept_rooms(&self) -> impl Iterator<Item = &Admitted> {
        let overtaken = self.overtaken.values();
        overtaken.filter_map(|overtaken| overtaken.room.as_deref())
    }

    /// True if a write of this key puts nothing in the place of what is there: that is on its way to the store.
    pub(crate) fn is_on_its_way(&self, key: &[u8]) -> bool {
        let claimed = |entry: &DirtyEntry| entry.state == DirtyState::Claimed;
        self.entries.get(key).is_some_and(claimed) && !self.overtaken.contains_key(key)
    }

    fn of_class(&mut self, class: usize) -> &mut Queue {
        if self.queues.len() <= class {
            self.queues.resize_with(class + 1, Queue::default);
        }
        &mut self.queues[class]
    }

    fn queue(&mut self, class: usize, turn: u64, key: Key, bytes: u64) {
        let queue = self.of_class(class);
        queue.ready.insert(turn, Ready { key, bytes });
        queue.ready_bytes += bytes;
        self.waiting += 1;
    }

    fn unqueue(&mut self, class: usize, turn: u64) {
        let queue = self.of_class(class);
        if let Some(ready) = queue.ready.remove(&turn) {
            queue.ready_bytes -= ready.bytes;
            self.waiting -= 1;
        }
    }

    /// The turn that the next entry to become dirty gets.
    pub(crate) fn next_turn(&self) -> u64 {
        self.next_turn
    }

    /// Entries of this class with a turn before `turn` go out without lingering.
    pub(crate) fn hurry(&mut self, class: usize, turn: u64) {
        let queue = self.of_class(class);
        queue.urgent_before = queue.urgent_before.max(turn);
    }

    /// True if no entry of this class with a turn before `turn` is on its way to the store or waits for it.
    pub(crate) fn is_flushed_before(&self, class: usize, turn: u64) -> bool {
        self.queues.get(class).is_none_or(|queue| {
            let ready = queue.ready.keys().next();
            ready
                .into_iter()
                .chain(queue.claimed.keys().next())
                .all(|front| *front >= turn)
        })
    }

    /// How many entries of this class with a turn before `turn` are not in the store and not parked.
    pub(crate) fn unflushed_before(&self, class: usize, turn: u64) -> u64 {
        self.queues.get(class).map_or(0, |queue| {
            (queue.ready.range(..turn).count() + queue.claimed.range(..turn).count()) as u64
        })
    }

    /// Takes the entry of this key out, whatever its state.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<DirtyEntry> {
        let (key, entry) = self.entries.remove_entry(key)?;
        match entry.state {
            DirtyState::Waiting => self.unqueue(entry.class, entry.turn),
            DirtyState::Claimed => {
                self.of_class(entry.class).claimed.remove(&entry.turn);
                self.overtaken.remove(&key);
                self.claimed -= 1;
            }
            DirtyState::Parked => self.parked -= 1,
        }
        if entry.lsn.is_some() {
            self.recorded_bytes -= entry.bytes(&key);
        }
        self.supersede_letter(&key, Some(&entry), None);
        Some(entry)
    }

    /// How many entries of this class are ready to be claimed, and their bytes.
    pub(crate) fn ready_of(&self, class: usize) -> (usize, u64) {
        let ready = |queue: &Queue| (queue.ready.len(), queue.ready_bytes);
        self.queues.get(class).map_or((0, 0), ready)
    }

    /// Each class with entries ready to be claimed.
    pub(crate) fn fronts(&self) -> impl Iterator<Item = Front> {
        self.queues.iter().enumerate().filter_map(|(class, queue)| {
            let (turn, first) = queue.ready.first_key_value()?;
            Some(Front {
                class,
                ready: queue.ready.len(),
                ready_bytes: queue.ready_bytes,
                since: self.entries.get(&first.key)?.since,
                urgent: *turn < queue.urgent_before,
            })
        })
    }

    /// Since when the longest waiting entry of this class has been dirty, what is on its way to the store
    /// counted.
    pub(crate) fn oldest_since(&self, class: usize) -> Option<Duration> {
        let queue = self.queues.get(class)?;
        let ready = queue.ready.values().next();
        let ready = ready.and_then(|first| self.entries.get(&first.key));
        let claimed = queue.claimed.values().next().copied();
        ready
            .map(|entry| entry.since)
            .into_iter()
            .chain(claimed)
            .min()
    }

    /// Entries not in the store and not parked.
    #[cfg(test)]
    pub(crate) fn unflushed(&self) -> usize {
        self.waiting + self.claimed
    }

    #[cfg(test)]
    pub(crate) fn parked(&self) -> usize {
        self.parked
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Every entry, also those that readers do not see.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &DirtyEntry)> {
        self.entries.iter()
    }

    /// Every entry that readers see.
    pub(crate) fn visible(&self) -> impl Iterator<Item = (&Key, &DirtyEntry)> {
        self.entries
            .iter()
            .filter(|(key, _)| !self.is_loser(key.as_bytes()))
    }
}

fn has_record(entries: &HashMap<Key, DirtyEntry, Hasher>, lsn: Lsn, key: &Key) -> bool {
    entries
        .get(key)
        .is_some_and(|entry| entry.lsn == Some(lsn) || entry.lineage.needs(lsn))
}

#[cfg(test)]
mod tests;
