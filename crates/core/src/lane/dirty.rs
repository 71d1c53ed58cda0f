//! The dirty entries of a lane: acknowledged and not yet in the store. No eviction touches them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use crate::entry::Change;
use crate::error::Error;
use crate::hash::Hasher;
use crate::key::Key;
use crate::mutation::{Mutation, Mutations};
use crate::port::Lsn;
use crate::version::Version;

/// Bytes counted for a dirty entry beside its key and value: its slots in the map and the two queues.
pub(crate) const DIRTY_OVERHEAD_BYTES: u64 = 256;

/// Where a dirty entry stands.
#[derive(Clone, Debug)]
pub(crate) enum DirtyState {
    /// In the queue of the flusher.
    Waiting,
    /// On its way to the store.
    Claimed,
    /// The store refuses it.
    Parked(Error),
}

/// An acknowledged write that the store does not have. A delete is a dirty tombstone.
#[derive(Clone, Debug)]
pub(crate) struct DirtyEntry {
    pub(crate) class: usize,
    pub(crate) change: Change,
    pub(crate) version: Version,
    /// Its record in the journal, if its class is journalled.
    pub(crate) lsn: Option<Lsn>,
    /// Since when the key has been dirty without a break, in elapsed time.
    pub(crate) since: Duration,
    /// Its turn in the queue of the flusher, given by [`Dirty`]: smaller goes first.
    pub(crate) turn: u64,
    pub(crate) state: DirtyState,
}

impl DirtyEntry {
    pub(crate) fn bytes(&self, key: &Key) -> u64 {
        dirty_bytes(key, self.change.value_bytes())
    }
}

/// What a dirty entry of this key and value is counted as.
pub(crate) fn dirty_bytes(key: &Key, value_bytes: usize) -> u64 {
    DIRTY_OVERHEAD_BYTES + key.len() as u64 + value_bytes as u64
}

/// A dirty entry on its way to the store: what is written now, whatever the key holds when it arrives.
#[derive(Clone)]
pub(crate) struct Claim {
    pub(crate) key: Key,
    pub(crate) class: usize,
    pub(crate) change: Change,
    pub(crate) version: Version,
}

/// See the [module](self). Invariant (I8): a key is in `ready` if and only if its state is
/// [`DirtyState::Waiting`].
#[cfg_attr(feature = "mutation", derive(Clone))]
pub(crate) struct Dirty {
    entries: HashMap<Key, DirtyEntry, Hasher>,
    /// Keys to be flushed by turn, for each class: a class that lingers long holds up no other.
    ready: Vec<BTreeMap<u64, Key>>,
    /// Records in the order of the journal (so entries must be inserted in that order); those that no entry
    /// has any more are skipped when they come to the front, and swept out when they are most of the queue.
    records: VecDeque<(Lsn, Key)>,
    waiting: usize,
    claimed: usize,
    /// The first turn of the round that is under way.
    claimed_turn: Option<u64>,
    parked: usize,
    next_turn: u64,
    /// A flush was asked for: do not linger until everything is flushed.
    pub(crate) hurry: bool,
    mutations: Mutations,
}

impl Dirty {
    pub(crate) fn new(hasher: &Hasher, mutations: Mutations) -> Self {
        Self {
            entries: HashMap::with_hasher(hasher.clone()),
            ready: Vec::new(),
            records: VecDeque::new(),
            waiting: 0,
            claimed: 0,
            claimed_turn: None,
            parked: 0,
            next_turn: 0,
            hurry: false,
            mutations,
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&DirtyEntry> {
        self.entries.get(key)
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
        if let Some(lsn) = entry.lsn {
            debug_assert!(
                self.records.back().is_none_or(|(last, _)| *last < lsn),
                "journal order"
            );
            self.records.push_back((lsn, key.clone()));
        }
        entry.state = DirtyState::Waiting;
        let old = self.entries.remove(&key);
        match old.as_ref().map(|old| (&old.state, old.turn)) {
            Some((DirtyState::Waiting, turn)) => {
                // It keeps its place in the queue, and so the age of the oldest write it stands for.
                self.unqueue(old.as_ref());
                entry.since = old
                    .as_ref()
                    .map_or(entry.since, |old| old.since.min(entry.since));
                entry.turn = turn;
            }
            Some((DirtyState::Claimed, turn)) => {
                // As long as the claim has not reached the store, the entry stands for it too.
                self.claimed -= 1;
                entry.turn = turn;
            }
            Some((DirtyState::Parked(_), _)) => {
                self.parked -= 1;
                entry.turn = self.take_turn();
            }
            None => entry.turn = self.take_turn(),
        }
        self.queue(entry.class, entry.turn, key.clone());
        self.entries.insert(key, entry);
        self.sweep_records();
        old
    }

    fn take_turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn - 1
    }

    fn queue(&mut self, class: usize, turn: u64, key: Key) {
        if self.ready.len() <= class {
            self.ready.resize_with(class + 1, BTreeMap::new);
        }
        self.ready[class].insert(turn, key);
        self.waiting += 1;
    }

    fn unqueue(&mut self, entry: Option<&DirtyEntry>) {
        let Some(entry) = entry else { return };
        let queue = self.ready.get_mut(entry.class);
        if queue.and_then(|queue| queue.remove(&entry.turn)).is_some() {
            self.waiting -= 1;
        }
    }

    /// The turn that the next entry to become dirty gets.
    pub(crate) fn next_turn(&self) -> u64 {
        self.next_turn
    }

    /// True if no entry with a turn before `turn` is on its way to the store or waits for it.
    pub(crate) fn is_flushed_before(&self, turn: u64) -> bool {
        let fronts = self.ready.iter().filter_map(|queue| queue.keys().next());
        fronts.chain(&self.claimed_turn).all(|front| *front >= turn)
    }

    /// How many entries with a turn before `turn` are not in the store and not parked.
    pub(crate) fn unflushed_before(&self, turn: u64) -> u64 {
        if self.is_flushed_before(turn) {
            return 0;
        }
        let unflushed = |entry: &&DirtyEntry| {
            entry.turn < turn && !matches!(entry.state, DirtyState::Parked(_))
        };
        self.entries.values().filter(unflushed).count() as u64
    }

    /// The round of claims is over: each was settled, unclaimed or parked.
    pub(crate) fn end_round(&mut self) {
        self.claimed_turn = None;
        if self.unflushed() == 0 {
            self.hurry = false;
        }
    }

    /// Claims at most `limit` entries of a class, longest dirty first.
    pub(crate) fn claim(&mut self, class: usize, limit: usize) -> Vec<Claim> {
        let Some(queue) = self.ready.get_mut(class) else {
            return Vec::new();
        };
        let mut claims = Vec::with_capacity(limit.min(queue.len()));
        while claims.len() < limit {
            let Some((turn, key)) = queue.pop_first() else {
                break;
            };
            self.waiting -= 1;
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            entry.state = DirtyState::Claimed;
            self.claimed += 1;
            self.claimed_turn = Some(self.claimed_turn.map_or(turn, |first| first.min(turn)));
            claims.push(Claim {
                class: entry.class,
                change: entry.change.clone(),
                version: entry.version,
                key,
            });
        }
        claims
    }

    /// The store has this claim, or something newer. The entry is clean, unless it was written again
    /// meanwhile: un-dirty only what is unchanged. Returns the entry if it is now clean.
    pub(crate) fn settle(&mut self, claim: &Claim) -> Option<DirtyEntry> {
        if self.holds(claim) || self.mutations.breaks(Mutation::UndirtyWithoutComparing) {
            return self.remove(claim.key.as_bytes());
        }
        // What was written meanwhile now stands for itself alone.
        let entry = self.entries.get(&claim.key).cloned();
        if let Some(entry) = entry.filter(|entry| matches!(entry.state, DirtyState::Waiting)) {
            self.unqueue(Some(&entry));
            let turn = self.take_turn();
            self.queue(entry.class, turn, claim.key.clone());
            if let Some(entry) = self.entries.get_mut(&claim.key) {
                entry.turn = turn;
            }
        }
        None
    }

    /// Takes the entry of this key out, whatever its state.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<DirtyEntry> {
        let entry = self.entries.remove(key)?;
        match entry.state {
            DirtyState::Waiting => self.unqueue(Some(&entry)),
            DirtyState::Claimed => self.claimed -= 1,
            DirtyState::Parked(_) => self.parked -= 1,
        }
        Some(entry)
    }

    /// The claim did not reach the store: it goes back to its place in the queue.
    pub(crate) fn unclaim(&mut self, claim: &Claim) {
        if !self.holds(claim) {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&claim.key) {
            entry.state = DirtyState::Waiting;
            let turn = entry.turn;
            self.claimed -= 1;
            self.queue(claim.class, turn, claim.key.clone());
        }
    }

    /// The store will not take this claim: kept, and not tried again by itself. False if the key was written
    /// again meanwhile, which supersedes what was refused.
    pub(crate) fn park(&mut self, claim: &Claim, error: Error) -> bool {
        if !self.holds(claim) {
            return false;
        }
        if let Some(entry) = self.entries.get_mut(&claim.key) {
            entry.state = DirtyState::Parked(error);
            self.claimed -= 1;
            self.parked += 1;
        }
        true
    }

    fn holds(&self, claim: &Claim) -> bool {
        self.entries.get(&claim.key).is_some_and(|entry| {
            entry.version == claim.version && matches!(entry.state, DirtyState::Claimed)
        })
    }

    /// Puts every parked entry back into the queue, once more to be tried.
    pub(crate) fn retry_parked(&mut self) {
        if self.parked == 0 {
            return;
        }
        let parked: Vec<Key> = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry.state, DirtyState::Parked(_)))
            .map(|(key, _)| key.clone())
            .collect();
        for key in parked {
            let turn = self.take_turn();
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.state = DirtyState::Waiting;
                entry.turn = turn;
                let class = entry.class;
                self.queue(class, turn, key);
            }
        }
        self.parked = 0;
    }

    /// Each class with entries ready to be claimed: the class, how many, and since when the first of them has
    /// been dirty.
    pub(crate) fn fronts(&self) -> impl Iterator<Item = (usize, usize, Duration)> {
        self.ready.iter().enumerate().filter_map(|(class, queue)| {
            let (_, key) = queue.first_key_value()?;
            Some((class, queue.len(), self.entries.get(key)?.since))
        })
    }

    /// The oldest journal record that an entry still needs.
    pub(crate) fn oldest_lsn(&mut self) -> Option<Lsn> {
        while let Some((lsn, key)) = self.records.front() {
            if self
                .entries
                .get(key)
                .is_some_and(|entry| entry.lsn == Some(*lsn))
            {
                return Some(*lsn);
            }
            self.records.pop_front();
        }
        None
    }

    /// A hot key behind a stuck one would grow the record queue for ever.
    fn sweep_records(&mut self) {
        if self.records.len() > 1024 + 2 * self.entries.len() {
            let entries = &self.entries;
            self.records
                .retain(|(lsn, key)| entries.get(key).is_some_and(|e| e.lsn == Some(*lsn)));
        }
    }

    /// Entries not in the store and not parked.
    pub(crate) fn unflushed(&self) -> usize {
        self.waiting + self.claimed
    }

    /// Compares the queues and counts with the entries; what does not fit, in words.
    pub(crate) fn audit(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let in_state = |which: fn(&DirtyState) -> bool| {
            self.entries
                .values()
                .filter(|entry| which(&entry.state))
                .count()
        };
        let waiting = in_state(|state| matches!(state, DirtyState::Waiting));
        let queued = self.ready.iter().enumerate().flat_map(|(class, queue)| {
            queue.iter().filter(move |(turn, key)| {
                self.entries.get(*key).is_some_and(|entry| {
                    matches!(entry.state, DirtyState::Waiting)
                        && entry.turn == **turn
                        && entry.class == class
                })
            })
        });
        let queued = queued.count();
        let keys: usize = self.ready.iter().map(BTreeMap::len).sum();
        if [waiting, queued, keys] != [self.waiting; 3] {
            wrong.push(format!(
                "{waiting} entries wait, {keys} keys are queued, {queued} of them rightly, counted are {}",
                self.waiting
            ));
        }
        let claimed = in_state(|state| matches!(state, DirtyState::Claimed));
        let parked = in_state(|state| matches!(state, DirtyState::Parked(_)));
        if (claimed, parked) != (self.claimed, self.parked) {
            wrong.push(format!(
                "{claimed} entries are claimed and {parked} parked, counted are {} and {}",
                self.claimed, self.parked
            ));
        }
        wrong
    }

    pub(crate) fn parked(&self) -> usize {
        self.parked
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &DirtyEntry)> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn entry(version: u64, lsn: u64) -> DirtyEntry {
        DirtyEntry {
            class: 0,
            change: Change::Delete,
            version: Version::from_raw(version),
            lsn: Some(Lsn(lsn)),
            since: Duration::from_millis(version),
            turn: 0,
            state: DirtyState::Waiting,
        }
    }

    #[test]
    fn an_entry_written_again_while_claimed_stays_dirty() {
        let mut dirty = Dirty::new(&Hasher::with_seed(1), Mutations::default());
        dirty.insert(Key::from("k"), entry(1, 1));
        let claims = dirty.claim(0, 10);
        dirty.insert(Key::from("k"), entry(2, 2));
        assert!(
            dirty.settle(&claims[0]).is_none(),
            "un-dirty only what is unchanged"
        );
        assert_eq!((dirty.unflushed(), dirty.len()), (1, 1));
        let claims = dirty.claim(0, 10);
        assert_eq!(claims[0].version, Version::from_raw(2));
        assert!(dirty.settle(&claims[0]).is_some());
        assert_eq!(
            (dirty.unflushed(), dirty.len(), dirty.oldest_lsn()),
            (0, 0, None)
        );
    }

    #[test]
    fn an_older_write_is_not_taken() {
        let mut dirty = Dirty::new(&Hasher::with_seed(1), Mutations::default());
        dirty.insert(Key::from("k"), entry(5, 5));
        assert!(
            dirty
                .insert(Key::from("k"), entry(4, 6))
                .is_some_and(|e| e.lsn == Some(Lsn(6)))
        );
        assert_eq!(
            dirty.get(b"k").map(|e| e.version),
            Some(Version::from_raw(5))
        );
    }

    #[test]
    fn coalescing_keeps_the_place_and_the_age() {
        let mut dirty = Dirty::new(&Hasher::with_seed(1), Mutations::default());
        dirty.insert(Key::from("a"), entry(1, 1));
        dirty.insert(Key::from("b"), entry(2, 2));
        dirty.insert(Key::from("a"), entry(3, 3));
        assert_eq!(
            dirty.fronts().next(),
            Some((0, 2, Duration::from_millis(1)))
        );
        assert_eq!(dirty.oldest_lsn(), Some(Lsn(2)));
        assert_eq!(dirty.claim(0, 1)[0].version, Version::from_raw(3));
    }

    #[test]
    fn a_parked_entry_waits_for_a_newer_write_or_a_retry() {
        let mut dirty = Dirty::new(&Hasher::with_seed(1), Mutations::default());
        dirty.insert(Key::from("k"), entry(1, 1));
        let claim = dirty.claim(0, 1).remove(0);
        assert!(dirty.park(&claim, Error::new(ErrorKind::Refused, "no")));
        assert_eq!((dirty.unflushed(), dirty.parked()), (0, 1));
        dirty.retry_parked();
        assert_eq!((dirty.unflushed(), dirty.parked()), (1, 0));
        let claim = dirty.claim(0, 1).remove(0);
        dirty.park(&claim, Error::new(ErrorKind::Refused, "no"));
        dirty.insert(Key::from("k"), entry(2, 2));
        assert_eq!((dirty.unflushed(), dirty.parked()), (1, 0));
    }

    #[test]
    fn a_flush_is_not_done_while_a_claim_that_was_overtaken_is_not_stored() {
        let mut dirty = Dirty::new(&Hasher::with_seed(1), Mutations::default());
        dirty.insert(Key::from("k"), entry(1, 1));
        let claims = dirty.claim(0, 10);
        dirty.insert(Key::from("k"), entry(2, 2));
        let target = dirty.next_turn();
        dirty.unclaim(&claims[0]);
        dirty.end_round();
        assert!(
            !dirty.is_flushed_before(target),
            "no version of the key is stored"
        );
        let claims = dirty.claim(0, 10);
        dirty.insert(Key::from("k"), entry(3, 3));
        assert!(dirty.settle(&claims[0]).is_none());
        dirty.end_round();
        assert!(
            dirty.is_flushed_before(target),
            "what came later is not waited for"
        );
        assert!(dirty.audit().is_empty(), "{:?}", dirty.audit());
    }

    #[test]
    fn a_hot_key_behind_a_stuck_one_does_not_grow_the_record_queue() {
        let mut dirty = Dirty::new(&Hasher::with_seed(1), Mutations::default());
        dirty.insert(Key::from("stuck"), entry(1, 1));
        for n in 2..10_000 {
            dirty.insert(Key::from("hot"), entry(n, n));
        }
        assert!(dirty.records.len() <= 1024 + 2 * 2 + 1);
        assert_eq!(dirty.oldest_lsn(), Some(Lsn(1)));
    }
}
