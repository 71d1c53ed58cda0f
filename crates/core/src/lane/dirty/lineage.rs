//! What a dirty entry was made over, and what of its key may be in the store already.
//!
//! An entry is *absolute* (what it holds replaces the row) or *additive* (the row is to become greater by the
//! sum of what was added). An absolute one goes out over its base. Whoever wrote it before under a version
//! whose fate is not known is remembered, so that a row of that version is known for our own. An additive one
//! keeps its sums apart where one was sent: what becomes of a sum that was sent is told by the mark that the
//! store keeps, however late it arrives.

use super::DirtyState;
use crate::entry::Change;
use crate::port::{Guard, Lsn};
use crate::version::Version;

/// Versions of unknown fate that are remembered of one key. More only after as many lost answers in a row.
const TRIED_MAX: usize = 64;

/// What a write is made over, as it is known when it is decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Over {
    /// The version of the row; [`Version::NONE`] if there is none; nothing if nobody looked.
    pub(crate) base: Option<Version>,
    /// What the write adds, if it is nothing but an addition.
    pub(crate) added: Option<i64>,
}

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(crate) struct Lineage {
    base: Option<Version>,
    /// Versions of the key that were sent, fate unknown, since the base.
    tried: Vec<Version>,
    /// What is to be added, in order. Under an absolute entry: what was sent before it and must come to an
    /// end first.
    sums: Vec<Sum>,
    /// The entry is nothing but its sums.
    additive: bool,
    /// The version of the key that came from the journal: what was tried up to it is not known.
    restored: Option<Version>,
}

/// Additions that are sent together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sum {
    /// The version of the first of them.
    pub(crate) since: Version,
    /// The version of the last of them.
    pub(crate) version: Version,
    pub(crate) by: i64,
    /// The first of their records.
    pub(crate) lsn: Option<Lsn>,
    pub(crate) fate: Fate,
}

/// What became of a sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It was not sent, or for certain not written. More may be added to it.
    Waiting,
    /// It is on its way.
    Sent,
    /// It was sent and not answered.
    Unknown,
}

impl Lineage {
    /// Of a new write.
    pub(crate) fn of(over: Over, version: Version, lsn: Option<Lsn>) -> Self {
        let sum = over.added.map(|by| Sum {
            since: version,
            version,
            by,
            lsn,
            fate: Fate::Waiting,
        });
        Self {
            base: over.base,
            additive: sum.is_some(),
            sums: sum.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Of an entry that comes from the journal: additive if there are sums.
    pub(crate) fn restored(version: Version, base: Option<Version>, sums: Vec<Sum>) -> Self {
        Self {
            base,
            additive: !sums.is_empty(),
            sums,
            restored: Some(version),
            ..Self::default()
        }
    }

    pub(crate) fn base(&self) -> Option<Version> {
        self.base
    }

    pub(crate) fn is_additive(&self) -> bool {
        self.additive
    }

    /// What the entry adds in all, if it is nothing but additions.
    pub(crate) fn added(&self) -> Option<i128> {
        let sums = self.sums.iter().map(|sum| i128::from(sum.by));
        self.additive.then(|| sums.sum())
    }

    /// The entry takes the place of an older one of its key, which was in this state.
    pub(super) fn follow(&mut self, old: &mut Self, version: Version, state: DirtyState) {
        self.restored = self.restored.max(old.restored);
        if self.additive && old.additive {
            let new = std::mem::replace(&mut self.sums, std::mem::take(&mut old.sums));
            new.into_iter().for_each(|sum| self.add(sum));
            self.base = old.base;
            return;
        }
        // What was added to an absolute entry is in the value it shows.
        self.additive = false;
        self.base = old.base;
        self.sums = std::mem::take(&mut old.sums);
        self.sums.retain(|sum| sum.fate != Fate::Waiting);
        self.tried = std::mem::take(&mut old.tried);
        if !old.additive && state == DirtyState::Claimed {
            self.try_version(version);
        }
    }

    fn add(&mut self, sum: Sum) {
        let last = self.sums.last_mut().filter(|last| {
            last.fate == Fate::Waiting && last.version.generation() == sum.version.generation()
        });
        if let Some(last) = last
            && let Some(by) = last.by.checked_add(sum.by)
        {
            (last.by, last.version) = (by, sum.version);
            return;
        }
        self.sums.push(sum);
    }

    fn try_version(&mut self, version: Version) {
        if !self.tried.contains(&version) {
            if self.tried.len() >= TRIED_MAX {
                self.tried.remove(0);
            }
            self.tried.push(version);
        }
    }

    /// What is to be sent of an entry with this change and version: the change, its version and its guard.
    pub(super) fn claim(&mut self, change: &Change, version: Version) -> (Change, Version, Guard) {
        let Some(first) = self.sums.first().copied() else {
            let base = self.base;
            return (change.clone(), version, Guard::Flush { base, version });
        };
        let (mut by, mut last) = (0_i64, first.version);
        for sum in &mut self.sums {
            // A mark is of one generation.
            if sum.version.generation() != first.version.generation() {
                break;
            }
            let Some(more) = by.checked_add(sum.by) else {
                break;
            };
            (by, last) = (more, sum.version);
            if sum.fate == Fate::Waiting {
                sum.fate = Fate::Sent;
            }
        }
        let guard = Guard::Once {
            since: first.since,
            version: last,
        };
        (Change::Add { by }, last, guard)
    }

    /// The store has what was sent under this version, and the row has `row`.
    pub(super) fn stored(&mut self, version: Version, row: Version) {
        self.sums.retain(|sum| sum.version > version);
        self.base = Some(row);
        self.tried.clear();
        self.restored = None;
    }

    /// What was sent under this version is not in the store, or that is not known.
    pub(super) fn failed(&mut self, version: Version, is_sum: bool, is_unknown: bool) {
        if !is_sum {
            if is_unknown {
                self.try_version(version);
            }
            return;
        }
        let sent = |sum: &&mut Sum| sum.version <= version && sum.fate == Fate::Sent;
        for sum in self.sums.iter_mut().filter(sent) {
            sum.fate = match is_unknown {
                true => Fate::Unknown,
                false => Fate::Waiting,
            };
        }
        if !self.additive {
            self.sums.retain(|sum| sum.fate != Fate::Waiting);
        }
    }

    /// The store refused a sum: nothing of this try is there. What an earlier one did, if its fate is unknown,
    /// stays unknown.
    pub(super) fn refused(&mut self, version: Version) {
        match self.additive {
            true => {
                let sent = |sum: &&mut Sum| sum.version <= version && sum.fate == Fate::Sent;
                let sums = self.sums.iter_mut().filter(sent);
                sums.for_each(|sum| sum.fate = Fate::Waiting);
            }
            false => self.sums.retain(|sum| sum.version > version),
        }
    }

    /// The mark of the store: sums up to it are applied. The others of a claim up to `version` are not.
    pub(super) fn marked(&mut self, mark: Version, version: Version) {
        self.stored(mark, mark);
        self.failed(version, true, false);
    }

    /// Whether a row of this version is a write of our own: one of unknown fate before this entry's.
    pub(super) fn is_own(&self, row: Version) -> bool {
        if self.tried.contains(&row) {
            return true;
        }
        // Of earlier starts it is only known how they numbered: even, after the base, and up to what they
        // left behind.
        let after_base = row > self.base.unwrap_or(Version::NONE);
        self.restored
            .is_some_and(|restored| after_base && row <= restored && row.raw().is_multiple_of(2))
    }

    /// Whether a row of this version is newer than what came from the journal of the key, of which the store has
    /// told nothing since.
    pub(super) fn is_after_restored(&self, row: Version) -> bool {
        self.restored.is_some_and(|restored| row > restored)
    }

    /// Whoever sent the entry of this version is gone, and with it the answer.
    pub(super) fn abandoned(&mut self, version: Version) {
        let is_sum = self.has_sums();
        let last = self.sums.last().map_or(version, |sum| sum.version);
        self.failed(last.max(version), is_sum, true);
    }

    /// The entry goes out over a row of this version from now on.
    pub(super) fn rebase(&mut self, row: Version) {
        self.base = Some(row);
        self.tried.clear();
        self.restored = None;
    }

    /// Whether something of it may have been sent at any time in the past, and be in the store.
    pub(crate) fn is_of_unknown_age(&self) -> bool {
        self.restored.is_some() || self.sums.iter().any(|sum| sum.fate == Fate::Unknown)
    }

    /// Whether a record of the key's is needed beside the entry's own.
    pub(super) fn needs(&self, lsn: Lsn) -> bool {
        self.additive && self.sums.iter().any(|sum| sum.lsn == Some(lsn))
    }

    /// All that is to be added as one sum, if a single record may stand for it.
    pub(crate) fn as_one(&self, parked: bool) -> Option<Sum> {
        if !self.additive {
            return None;
        }
        match (self.sums.as_slice(), parked) {
            ([one], _) => Some(*one),
            // What is refused and was not sent before is not there, so it does not matter any more where it
            // was cut.
            ([first, .., last], true) if self.sums.iter().all(|sum| sum.fate == Fate::Waiting) => {
                let by = self
                    .sums
                    .iter()
                    .try_fold(0_i64, |by, sum| by.checked_add(sum.by))?;
                Some(Sum {
                    since: first.since,
                    version: last.version,
                    by,
                    lsn: first.lsn,
                    fate: Fate::Waiting,
                })
            }
            _ => None,
        }
    }

    /// The entry's record has moved to this place, with all that is to be added.
    pub(super) fn moved(&mut self, lsn: Lsn, parked: bool) {
        if let Some(mut sum) = self.as_one(parked) {
            sum.lsn = Some(lsn);
            self.sums = vec![sum];
        }
    }

    pub(super) fn has_sums(&self) -> bool {
        !self.sums.is_empty()
    }

    /// Whether a sum was sent, and may be in the store.
    pub(super) fn was_sent(&self) -> bool {
        self.sums.iter().any(|sum| sum.fate != Fate::Waiting)
    }

    /// The records of what is to be added, of each sum the first.
    pub(super) fn records(&self) -> impl Iterator<Item = Lsn> {
        self.sums.iter().filter_map(|sum| sum.lsn)
    }

    /// Whether the record can be moved: a copy holds one sum.
    pub(crate) fn is_movable(&self, parked: bool) -> bool {
        !self.additive || self.as_one(parked).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Version {
        Version::compose(3, number)
    }

    fn added(by: i64, version: u64) -> Lineage {
        let over = Over {
            base: None,
            added: Some(by),
        };
        Lineage::of(over, at(version), Some(Lsn(version)))
    }

    fn over(base: u64) -> Lineage {
        let base = Some(at(base));
        Lineage::of(Over { base, added: None }, at(0), None)
    }

    fn then(mut old: Lineage, version: u64, state: DirtyState, mut new: Lineage) -> Lineage {
        new.follow(&mut old, at(version), state);
        new
    }

    fn claim(lineage: &mut Lineage) -> (Change, Version, Guard) {
        lineage.claim(&Change::Delete, at(99))
    }

    #[test]
    fn what_waits_is_one_sum_and_what_was_sent_is_apart() {
        let mut entry = then(added(1, 2), 2, DirtyState::Waiting, added(2, 4));
        let once = |since, version| Guard::Once {
            since: at(since),
            version: at(version),
        };
        assert_eq!(
            claim(&mut entry),
            (Change::Add { by: 3 }, at(4), once(2, 4))
        );
        let mut entry = then(entry, 4, DirtyState::Claimed, added(4, 6));
        assert!(entry.needs(Lsn(2)) && entry.needs(Lsn(6)));
        // Not answered: sent again with what came later; the mark tells a part.
        entry.failed(at(4), true, true);
        assert_eq!(
            claim(&mut entry),
            (Change::Add { by: 7 }, at(6), once(2, 6))
        );
        entry.marked(at(4), at(6));
        assert_eq!(
            claim(&mut entry),
            (Change::Add { by: 4 }, at(6), once(6, 6))
        );
        entry.stored(at(6), at(6));
        assert!(!entry.needs(Lsn(6)));
    }

    #[test]
    fn what_was_for_certain_not_written_is_one_sum_again() {
        let mut entry = added(1, 2);
        claim(&mut entry);
        entry.failed(at(2), true, false);
        let entry = then(entry, 2, DirtyState::Waiting, added(2, 4));
        assert_eq!(entry.as_one(false).map(|sum| sum.by), Some(3));
    }

    #[test]
    fn a_put_waits_for_the_end_of_what_was_sent_before_it() {
        let mut entry = added(1, 2);
        claim(&mut entry);
        let mut entry = then(entry, 2, DirtyState::Claimed, over(0));
        entry.failed(at(2), true, true);
        assert!(matches!(claim(&mut entry), (Change::Add { by: 1 }, ..)));
        entry.stored(at(2), at(7));
        let guard = Guard::Flush {
            base: Some(at(7)),
            version: at(99),
        };
        assert_eq!(claim(&mut entry), (Change::Delete, at(99), guard));
        // What was not sent is of no use under a put, nor what was for certain not written.
        let entry = then(added(1, 2), 2, DirtyState::Waiting, over(0));
        assert!(entry.sums.is_empty());
        let mut entry = added(1, 2);
        claim(&mut entry);
        let mut entry = then(entry, 2, DirtyState::Claimed, over(0));
        entry.failed(at(2), true, false);
        assert!(entry.sums.is_empty());
    }

    #[test]
    fn what_whoever_sent_it_did_not_hear_of_is_of_unknown_fate() {
        let mut entry = added(1, 2);
        claim(&mut entry);
        entry.abandoned(at(2));
        // Nothing is added to what may be there, also if the next try is for certain in vain.
        claim(&mut entry);
        entry.failed(at(2), true, false);
        let entry = then(entry, 2, DirtyState::Waiting, added(2, 4));
        assert_eq!(entry.sums.len(), 2);
        let mut entry = over(2);
        entry.abandoned(at(4));
        let entry = then(entry, 4, DirtyState::Waiting, over(9));
        assert!(entry.is_own(at(4)));
    }

    #[test]
    fn a_row_of_unknown_fate_is_known_for_our_own() {
        let mut entry = over(2);
        entry.failed(at(4), false, true);
        let entry = then(entry, 4, DirtyState::Waiting, over(9));
        assert_eq!(entry.base(), Some(at(2)), "the base is that of the first");
        let entry = then(entry, 6, DirtyState::Claimed, over(9));
        for (row, own) in [(2, false), (4, true), (5, false), (6, true), (8, false)] {
            assert_eq!(entry.is_own(at(row)), own, "{row}");
        }
    }

    #[test]
    fn after_a_start_even_rows_up_to_what_was_left_behind_are_our_own() {
        let entry = Lineage::restored(at(10), Some(at(2)), Vec::new());
        let entry = then(entry, 10, DirtyState::Waiting, over(9));
        for (row, own) in [(4, true), (5, false), (10, true), (12, false), (2, false)] {
            assert_eq!(entry.is_own(at(row)), own, "{row}");
        }
    }

    #[test]
    fn sums_of_two_generations_go_one_after_the_other() {
        let sum = |generation| Sum {
            since: Version::compose(generation, 2),
            version: Version::compose(generation, 2),
            by: 1,
            lsn: None,
            fate: Fate::Waiting,
        };
        let mut entry = Lineage::restored(at(2), None, vec![sum(1)]);
        entry.add(sum(2));
        let (_, version, _) = claim(&mut entry);
        assert_eq!(version, Version::compose(1, 2));
        entry.stored(version, version);
        let (_, version, _) = claim(&mut entry);
        assert_eq!(version, Version::compose(2, 2));
    }

    #[test]
    fn sums_too_great_for_one_go_one_after_the_other() {
        let entry = added(i64::MAX, 2);
        let mut entry = then(entry, 2, DirtyState::Waiting, added(i64::MAX, 4));
        assert_eq!(claim(&mut entry).0, Change::Add { by: i64::MAX });
        entry.stored(at(2), at(2));
        assert_eq!(claim(&mut entry).1, at(4));
    }
}
