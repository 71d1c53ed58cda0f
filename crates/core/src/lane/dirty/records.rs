//! Which journal records the dirty entries of a lane still need.

use std::collections::VecDeque;

use super::{Dirty, DirtyState, has_record};
use crate::key::Key;
use crate::port::Lsn;

/// Records of entries in the order of the journal. Those that no entry has any more are skipped when they
/// come to the front, and swept out when they are most of the queue.
#[derive(Clone, Default)]
pub(crate) struct Records {
    queue: VecDeque<(Lsn, Key)>,
    /// Places that are needed whatever the entries say: of records whose copies are not yet durable.
    pins: Vec<(Pin, Lsn)>,
    next_pin: u64,
}

/// Holds a place in the journal until it is taken off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pin(u64);

impl Records {
    /// An entry has this record now. Mostly the newest of the journal, so the search ends at once.
    pub(super) fn push(&mut self, lsn: Lsn, key: Key) {
        let newer = self.queue.iter().rev().take_while(|(last, _)| *last > lsn);
        let place = self.queue.len() - newer.count();
        self.queue.insert(place, (lsn, key));
    }

    /// The oldest record that is needed, `is_live` telling whether an entry still has it.
    pub(super) fn oldest(&mut self, is_live: impl Fn(Lsn, &Key) -> bool) -> Option<Lsn> {
        let pinned = self.pins.iter().map(|(_, lsn)| *lsn).min();
        while let Some((lsn, key)) = self.queue.front() {
            if is_live(*lsn, key) {
                return Some(pinned.map_or(*lsn, |pinned| pinned.min(*lsn)));
            }
            self.queue.pop_front();
        }
        pinned
    }

    /// A hot key behind a stuck one would grow the queue for ever.
    pub(super) fn sweep(&mut self, entries: usize, is_live: impl Fn(Lsn, &Key) -> bool) {
        if self.queue.len() > 1024 + 2 * entries {
            self.queue.retain(|(lsn, key)| is_live(*lsn, key));
        }
    }

    /// Records before `place`, dead ones among them, oldest first.
    pub(super) fn before(&self, place: Lsn) -> impl Iterator<Item = &(Lsn, Key)> {
        self.queue.iter().take_while(move |(lsn, _)| *lsn < place)
    }

    /// Keeps everything from `lsn` on until the pin is taken off.
    pub(super) fn pin(&mut self, lsn: Lsn) -> Pin {
        self.next_pin += 1;
        let pin = Pin(self.next_pin);
        self.pins.push((pin, lsn));
        pin
    }

    pub(super) fn unpin(&mut self, pin: Pin) {
        self.pins.retain(|(other, _)| *other != pin);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

impl Dirty {
    /// The oldest journal record that an entry still needs.
    pub(crate) fn oldest_lsn(&mut self) -> Option<Lsn> {
        let entries = &self.entries;
        self.records
            .oldest(|lsn, key| has_record(entries, lsn, key))
    }

    /// Up to `limit` keys whose records are before `place`.
    pub(crate) fn recorded_before(&self, place: Lsn, limit: usize) -> Vec<Key> {
        let records = self.records.before(place);
        let live = records.filter(|(lsn, key)| {
            has_record(&self.entries, *lsn, key) && self.is_movable(key.as_bytes())
        });
        live.take(limit).map(|(_, key)| key.clone()).collect()
    }

    /// The entry of `key` has this record from now on. Whatever it had before is needed until the pin is
    /// taken off; nothing if it had none, or is gone.
    pub(crate) fn move_record(&mut self, key: &Key, lsn: Lsn) -> Pin {
        let mut needed = lsn;
        if let Some(entry) = self.entries.get_mut(key) {
            match entry.lsn {
                Some(old) => needed = old.min(lsn),
                None => self.recorded_bytes += entry.bytes(key),
            }
            needed = entry
                .lineage
                .records()
                .min()
                .map_or(needed, |first| first.min(needed));
            entry.lsn = Some(lsn);
            entry.lineage.moved(lsn, entry.state == DirtyState::Parked);
            self.records.push(lsn, key.clone());
        }
        self.records.pin(needed)
    }

    /// Keeps a record that is on its way to the journal and no entry's yet.
    pub(crate) fn pin(&mut self, lsn: Lsn) -> Pin {
        self.records.pin(lsn)
    }

    /// The record that a pin was waiting for is durable.
    pub(crate) fn unpin(&mut self, pin: Pin) {
        self.records.unpin(pin);
    }

    /// About how many bytes the journal must keep for this lane.
    pub(crate) fn recorded_bytes(&self) -> u64 {
        self.recorded_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_record_finds_its_place_and_a_pin_holds_its_own() {
        let mut records = Records::default();
        for lsn in [3, 7, 5, 9] {
            records.push(Lsn(lsn), Key::from(lsn.to_string()));
        }
        let order: Vec<u64> = records.before(Lsn(9)).map(|(lsn, _)| lsn.0).collect();
        assert_eq!(order, [3, 5, 7]);
        assert_eq!(records.oldest(|lsn, _| lsn.0 > 3), Some(Lsn(5)));
        let pin = records.pin(Lsn(4));
        assert_eq!(records.oldest(|lsn, _| lsn.0 > 3), Some(Lsn(4)));
        assert_eq!(records.oldest(|_, _| false), Some(Lsn(4)));
        records.unpin(pin);
        assert_eq!(records.oldest(|_, _| false), None);
    }
}
