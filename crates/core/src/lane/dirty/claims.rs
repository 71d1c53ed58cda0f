//! Claims: dirty entries on their way to the store, and back.

use super::{Dirty, DirtyEntry, DirtyState, Ready};
use crate::entry::Change;
use crate::key::Key;
use crate::mutation::Mutation;
use crate::port::Guard;
use crate::version::Version;

/// A dirty entry on its way to the store: what is written now, whatever the key holds when it arrives.
#[derive(Clone)]
pub(crate) struct Claim {
    pub(crate) key: Key,
    pub(crate) class: usize,
    /// What is asked of the store; an additive entry shows its readers what it comes to.
    pub(crate) change: Change,
    pub(crate) version: Version,
    pub(crate) guard: Guard,
}

/// What became of the wish to claim one key.
pub(crate) enum KeyClaim {
    /// Nothing of it waits for the store.
    Free,
    Claimed(Claim),
    /// A claim of it is out already.
    Busy,
}

/// Which write of a key is on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    ByIt,
    ByAnEarlierOne,
}

impl Dirty {
    /// Claims at most `limit` entries of a class, longest dirty first, and at most so many bytes if there is more
    /// than one.
    pub(crate) fn claim(&mut self, class: usize, limit: usize, bytes_max: u64) -> Vec<Claim> {
        let Some(queue) = self.queues.get_mut(class) else {
            return Vec::new();
        };
        let mut claims = Vec::with_capacity(limit.min(queue.ready.len()));
        let mut claimed_bytes = 0;
        while claims.len() < limit {
            let Some(first) = queue.ready.first_entry() else {
                break;
            };
            claimed_bytes += first.get().bytes;
            if claimed_bytes > bytes_max && !claims.is_empty() {
                break;
            }
            let (turn, Ready { key, bytes }) = first.remove_entry();
            queue.ready_bytes -= bytes;
            self.waiting -= 1;
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            entry.state = DirtyState::Claimed;
            self.claimed += 1;
            queue.claimed.insert(turn, entry.since);
            claims.push(entry.claim(key));
        }
        claims
    }

    /// Whether this key has an entry in the queue of the flusher.
    pub(crate) fn is_waiting(&self, key: &[u8]) -> bool {
        let entry = self.entries.get(key);
        entry.is_some_and(|entry| entry.state == DirtyState::Waiting)
    }

    /// The entry of this key, and those before it, go out without lingering.
    pub(crate) fn hurry_key(&mut self, key: &[u8]) {
        if let Some((class, turn)) = self.entries.get(key).map(|entry| (entry.class, entry.turn)) {
            self.hurry(class, turn.saturating_add(1));
        }
    }

    /// Claims the entry of this key, out of turn, for a write that comes after it, and takes its place whatever
    /// it holds if it `replaces`. A parked one is left alone.
    pub(crate) fn claim_key(&mut self, key: &Key, replaces: bool) -> KeyClaim {
        let Some(entry) = self.entries.get_mut(key) else {
            return KeyClaim::Free;
        };
        match entry.state {
            DirtyState::Parked if replaces && !entry.lineage.was_sent() => return KeyClaim::Free,
            // Sums go to the store as such, before anything comes in their place.
            _ if entry.lineage.has_sums() => return KeyClaim::Busy,
            DirtyState::Parked => return KeyClaim::Free,
            DirtyState::Claimed => return KeyClaim::Busy,
            DirtyState::Waiting => entry.state = DirtyState::Claimed,
        }
        let (class, turn, since) = (entry.class, entry.turn, entry.since);
        let claim = entry.claim(key.clone());
        self.unqueue(class, turn);
        self.of_class(class).claimed.insert(turn, since);
        self.claimed += 1;
        KeyClaim::Claimed(claim)
    }

    /// The store has this claim, or something newer. The entry is clean, unless it was written again
    /// meanwhile: un-dirty only what is unchanged. Returns the entry if it is now clean.
    pub(crate) fn settle(&mut self, claim: &Claim) -> Option<DirtyEntry> {
        let state = self.claim_of(claim)?;
        if state == Held::ByIt || self.mutations.breaks(Mutation::UndirtyWithoutComparing) {
            return self.remove(claim.key.as_bytes());
        }
        // What was written meanwhile now stands for itself alone.
        let turn = self.own_turn(&claim.key);
        self.release(&claim.key, turn);
        None
    }

    /// The claim did not reach the store: it goes back to its place in the queue.
    pub(crate) fn unclaim(&mut self, claim: &Claim) {
        if self.claim_of(claim).is_some()
            && let Some(entry) = self.entries.get(&claim.key)
        {
            let turn = entry.turn;
            self.release(&claim.key, turn);
        }
    }

    /// Every claim that is out goes back to its place: whoever made them is gone, and nobody knows what became of
    /// them.
    pub(crate) fn unclaim_all(&mut self) {
        let claimed = |(key, entry): (&Key, &DirtyEntry)| {
            (entry.state == DirtyState::Claimed).then(|| (key.clone(), entry.turn))
        };
        let claimed: Vec<(Key, u64)> = self.entries.iter().filter_map(claimed).collect();
        for (key, turn) in claimed {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.lineage.abandoned(entry.version);
            }
            self.release(&key, turn);
        }
    }

    /// Whether this claim is out, and of what.
    pub(super) fn claim_of(&self, claim: &Claim) -> Option<Held> {
        let entry = self.entries.get(&claim.key)?;
        if entry.state != DirtyState::Claimed {
            return None;
        }
        Some(match entry.version == claim.version {
            true => Held::ByIt,
            false => Held::ByAnEarlierOne,
        })
    }

    /// The claim of this key is in: what the key holds waits, in this turn.
    pub(super) fn release(&mut self, key: &Key, turn: u64) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let (class, claimed_turn, bytes) = (entry.class, entry.turn, entry.bytes(key));
        self.overtaken.remove(key);
        entry.state = DirtyState::Waiting;
        entry.turn = turn;
        self.of_class(class).claimed.remove(&claimed_turn);
        self.claimed -= 1;
        self.queue(class, turn, key.clone(), bytes);
    }
}
