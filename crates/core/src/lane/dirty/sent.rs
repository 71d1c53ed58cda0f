//! What the answers of the store say of the dirty entries that were sent.

use super::{Claim, Dirty, DirtyEntry, DirtyState};
use crate::entry::Change;
use crate::port::Guard;
use crate::version::Version;

impl Claim {
    /// Whether it is a sum of additions.
    pub(crate) fn is_sum(&self) -> bool {
        matches!(self.guard, Guard::Once { .. })
    }
}

impl Dirty {
    fn claimed_mut(&mut self, claim: &Claim) -> Option<&mut DirtyEntry> {
        let entry = self.entries.get_mut(&claim.key)?;
        (entry.state == DirtyState::Claimed).then_some(entry)
    }

    /// The store has the claim, and the row this version. What comes next goes over that.
    pub(crate) fn stored(&mut self, claim: &Claim, row: Version) {
        if let Some(entry) = self.claimed_mut(claim) {
            entry.lineage.stored(claim.version, row);
        }
    }

    /// The claim failed, for certain or with an unknown outcome.
    pub(crate) fn failed(&mut self, claim: &Claim, is_unknown: bool) {
        if let Some(entry) = self.claimed_mut(claim) {
            let is_sum = claim.is_sum();
            entry.lineage.failed(claim.version, is_sum, is_unknown);
        }
    }

    /// The store refused the claim. Returns the claim to be parked: of an additive entry the whole of it, for
    /// what came later adds to what was refused.
    pub(crate) fn refused(&mut self, claim: &Claim) -> Claim {
        let mut whole = claim.clone();
        if let Some(entry) = self.claimed_mut(claim) {
            entry.lineage.refused(claim.version);
            if entry.lineage.is_additive() {
                whole.version = entry.version;
            }
        }
        whole
    }

    /// The mark that the store told of a sum: what it covers is there, the rest of the claim is not.
    pub(crate) fn marked(&mut self, claim: &Claim, mark: Version) {
        if let Some(entry) = self.claimed_mut(claim) {
            entry.lineage.marked(mark, claim.version);
        }
    }

    /// Whether a row of this version, met by the claim, is an earlier write of our own.
    pub(crate) fn is_own(&self, claim: &Claim, row: Version) -> bool {
        let entry = self.entries.get(&claim.key);
        entry.is_some_and(|entry| entry.lineage.is_own(row))
    }

    /// Whether a row of this version is newer than what an earlier start left behind of the claim's key, of which
    /// the store has told nothing since.
    pub(crate) fn is_after_restored(&self, claim: &Claim, row: Version) -> bool {
        let entry = self.entries.get(&claim.key);
        entry.is_some_and(|entry| entry.lineage.is_after_restored(row))
    }

    /// The entry goes over a row of this version from now on.
    pub(crate) fn rebase(&mut self, claim: &Claim, row: Version) {
        if let Some(entry) = self.claimed_mut(claim) {
            entry.lineage.rebase(row);
        }
    }

    /// Whether the claim is still what its key holds.
    pub(crate) fn is_current(&self, claim: &Claim) -> bool {
        let entry = self.entries.get(&claim.key);
        entry.is_some_and(|e| e.state == DirtyState::Claimed && e.version == claim.version)
    }

    /// A claim that is still what its key holds is written anew: as this change, over the row it met. Its
    /// record stays: a start meets the same row, and does the same again. Returns the bytes before and after.
    pub(crate) fn rewrite(
        &mut self,
        claim: &Claim,
        change: Change,
        version: Version,
        row: Version,
    ) -> Option<(u64, u64)> {
        if !self.is_current(claim) {
            return None;
        }
        let entry = self.entries.get_mut(&claim.key)?;
        let before = entry.bytes(&claim.key);
        (entry.change, entry.version) = (change, version);
        entry.lineage.rebase(row);
        let after = entry.bytes(&claim.key);
        if entry.lsn.is_some() {
            self.recorded_bytes = self.recorded_bytes + after - before;
        }
        let turn = entry.turn;
        self.release(&claim.key, turn);
        Some((before, after))
    }

    /// Whether the record of this key can be copied to the end of the journal: not behind a discard of it that is on
    /// its way, for the copy could outlive the discard there.
    pub(super) fn is_movable(&self, key: &[u8]) -> bool {
        let letter = self.letters.get(key);
        if letter.is_some_and(|letter| letter.discarding) {
            return false;
        }
        let entry = self.entries.get(key);
        entry.is_some_and(|e| e.lineage.is_movable(e.state == DirtyState::Parked))
    }
}
