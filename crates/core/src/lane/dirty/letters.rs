//! The dead letters among the dirty entries: parked, retried, discarded.

use std::ops::Bound;
use std::sync::{Arc, Weak};

use super::claims::{Claim, Held};
use super::{Dirty, DirtyEntry, DirtyState};
use crate::dead_letters::Refusal;
use crate::key::Key;
use crate::port::Lsn;
use crate::version::Version;

/// What is kept of an entry that the store does not take, as long as the entry is there.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) refusal: Refusal,
    /// The journal does not know this refusal yet.
    pub(super) unrecorded: bool,
    /// Its discard is on its way to the journal.
    pub(super) discarding: bool,
    /// Lives as long as the letter does.
    presence: Arc<()>,
}

impl Letter {
    /// Tells without a lock whether the letter is still there.
    pub(crate) fn presence(&self) -> Weak<()> {
        Arc::downgrade(&self.presence)
    }
}

impl Dirty {
    /// The store will not take this claim: kept, and not tried again by itself. False if the key was written
    /// again meanwhile, which supersedes what was refused.
    pub(crate) fn park(&mut self, claim: &Claim, refusal: Refusal) -> bool {
        match self.claim_of(claim) {
            None => return false,
            Some(Held::ByAnEarlierOne) => {
                let turn = self.own_turn(&claim.key);
                self.release(&claim.key, turn);
                return false;
            }
            Some(Held::ByIt) => {}
        }
        let Some(entry) = self.entries.get_mut(&claim.key) else {
            return false;
        };
        entry.state = DirtyState::Parked;
        let (class, turn) = (entry.class, entry.turn);
        self.of_class(class).claimed.remove(&turn);
        self.claimed -= 1;
        self.parked += 1;
        let (refusal, presence) = match self.letters.get(&claim.key) {
            Some(earlier) => (
                refusal.after(&earlier.refusal),
                Arc::clone(&earlier.presence),
            ),
            None => (refusal, Arc::default()),
        };
        let letter = Letter {
            refusal,
            unrecorded: true,
            discarding: false,
            presence,
        };
        self.letters.insert(claim.key.clone(), letter);
        self.has_unrecorded = true;
        true
    }

    /// The letter of `old` is no more: the store took it, or a write with this record, or without one, takes
    /// its place.
    pub(super) fn supersede_letter(
        &mut self,
        key: &Key,
        old: Option<&DirtyEntry>,
        record: Option<Lsn>,
    ) {
        if self.letters.is_empty() {
            return;
        }
        let Some((letter, old)) = self.letters.remove(key).zip(old) else {
            return;
        };
        let known = !letter.unrecorded && !letter.discarding && old.lsn.is_some();
        if known && record.is_none() {
            self.outlived.insert(key.clone(), old.version);
        }
    }

    /// Letters that are no more, by key and version, where the journal alone would not tell.
    pub(crate) fn outlived_letters(&self) -> Vec<(Key, Version)> {
        let outlived = self.outlived.iter();
        outlived
            .map(|(key, version)| (key.clone(), *version))
            .collect()
    }

    /// The journal knows that these letters are no more.
    pub(crate) fn forget_outlived(&mut self, letters: &[(Key, Version)]) {
        for (key, version) in letters {
            if self.outlived.get(key) == Some(version) {
                self.outlived.remove(key);
            }
        }
    }

    /// Takes a dead letter of an earlier start, whose record is `entry.lsn`.
    pub(crate) fn restore_parked(&mut self, key: Key, mut entry: DirtyEntry, refusal: Refusal) {
        entry.state = DirtyState::Parked;
        entry.turn = self.take_turn();
        if let Some(lsn) = entry.lsn {
            self.records.push(lsn, key.clone());
            self.recorded_bytes += entry.bytes(&key);
        }
        self.parked += 1;
        let letter = Letter {
            refusal,
            unrecorded: false,
            discarding: false,
            presence: Arc::default(),
        };
        self.letters.insert(key.clone(), letter);
        self.entries.insert(key, entry);
    }

    /// The dead letter of this key.
    pub(crate) fn letter(&self, key: &[u8]) -> Option<(&DirtyEntry, &Letter)> {
        let letter = self.letters.get(key)?;
        let entry = self.entries.get(key)?;
        (entry.state == DirtyState::Parked).then_some((entry, letter))
    }

    /// The dead letters after a key, in the order of keys.
    pub(crate) fn letters_after(
        &self,
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = (&Key, &DirtyEntry, &Letter)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let letters = self.letters.range::<[u8], _>((from, Bound::Unbounded));
        letters.filter_map(|(key, letter)| {
            let entry = self.entries.get(key)?;
            (entry.state == DirtyState::Parked).then_some((key, entry, letter))
        })
    }

    /// How many entries of a class are parked.
    pub(crate) fn parked_of(&self, class: usize) -> u64 {
        if self.parked == 0 {
            return 0;
        }
        let of_class = |(_, entry, _): &(&Key, &DirtyEntry, &Letter)| entry.class == class;
        self.letters_after(None).filter(of_class).count() as u64
    }

    /// Puts a parked entry back into the queue, once more to be tried at once. False if there is none.
    pub(crate) fn retry_parked(&mut self, key: &[u8]) -> bool {
        if self.letters.get(key).is_none_or(|letter| letter.discarding) {
            return false;
        }
        let Some((key, entry)) = self.entries.get_key_value(key) else {
            return false;
        };
        if entry.state != DirtyState::Parked {
            return false;
        }
        let (key, class, bytes) = (key.clone(), entry.class, entry.bytes(key));
        let turn = self.take_turn();
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.state = DirtyState::Waiting;
            entry.turn = turn;
        }
        self.parked -= 1;
        self.queue(class, turn, key, bytes);
        self.hurry(class, turn + 1);
        true
    }

    /// Puts every parked entry of a class, or of all, back into the queue; how many.
    pub(crate) fn retry_all_parked(&mut self, class: Option<usize>) -> u64 {
        let wanted = |(_, entry, _): &(&Key, &DirtyEntry, &Letter)| {
            class.is_none_or(|class| entry.class == class)
        };
        let keys: Vec<Key> = self
            .letters_after(None)
            .filter(wanted)
            .map(|(key, ..)| key.clone())
            .collect();
        keys.iter()
            .map(|key| u64::from(self.retry_parked(key.as_bytes())))
            .sum()
    }

    /// Up to `limit` keys of dead letters that the journal does not know.
    pub(crate) fn unrecorded_letters(&mut self, limit: usize) -> Vec<Key> {
        if !self.has_unrecorded {
            return Vec::new();
        }
        let unrecorded = self
            .letters_after(None)
            // One that no single record can stand for keeps the records it has.
            // A discard that is on its way must not be followed by what it discards.
            .filter(|(_, entry, letter)| {
                letter.unrecorded && !letter.discarding && entry.lineage.is_movable(true)
            });
        let keys: Vec<Key> = unrecorded
            .take(limit)
            .map(|(key, ..)| key.clone())
            .collect();
        // One that is being retried is looked at again when it is parked again.
        self.has_unrecorded = !keys.is_empty();
        keys
    }

    /// The refusal of this key's entry, parked or being retried.
    pub(crate) fn refusal(&self, key: &[u8]) -> Option<&Refusal> {
        if self.letters.is_empty() {
            return None;
        }
        self.letters.get(key).map(|letter| &letter.refusal)
    }

    /// The journal has, or will have, the letter of this key in the record `lsn`.
    pub(crate) fn letter_recorded(&mut self, key: &Key, lsn: Lsn) -> super::Pin {
        if let Some(letter) = self.letters.get_mut(key) {
            letter.unrecorded = false;
        }
        self.move_record(key, lsn)
    }

    /// Begins to discard the dead letter of this key, if it is of this version. Until the end it is not
    /// retried.
    pub(crate) fn begin_discard(&mut self, key: &[u8], version: Version) -> bool {
        let found = self.letter(key);
        if found.is_none_or(|(entry, letter)| entry.version != version || letter.discarding) {
            return false;
        }
        if let Some(letter) = self.letters.get_mut(key) {
            letter.discarding = true;
        }
        true
    }

    /// Ends a discard. Returns the entry if it is gone now: not if it was superseded meanwhile.
    pub(crate) fn end_discard(
        &mut self,
        key: &[u8],
        version: Version,
        done: bool,
    ) -> Option<DirtyEntry> {
        let (entry, letter) = self.letter(key)?;
        if entry.version != version || !letter.discarding {
            return None;
        }
        if done {
            return self.remove(key);
        }
        if let Some(letter) = self.letters.get_mut(key) {
            letter.discarding = false;
            self.has_unrecorded = true;
        }
        None
    }
}
