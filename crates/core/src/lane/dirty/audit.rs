//! Comparing the queues and counts of dirty entries with the entries (invariant I8).

use super::{Dirty, DirtyState, Ready};

impl Dirty {
    /// What does not fit, in words.
    pub(crate) fn audit(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let in_state = |which: DirtyState| {
            let entries = self.entries.values();
            entries.filter(|entry| entry.state == which).count()
        };
        let (waiting, claimed, parked) = (
            in_state(DirtyState::Waiting),
            in_state(DirtyState::Claimed),
            in_state(DirtyState::Parked),
        );
        let mut keys = 0;
        let mut queued = 0;
        let mut turns = 0;
        for (class, queue) in self.queues.iter().enumerate() {
            keys += queue.ready.len();
            turns += queue.claimed.len();
            let rightly = queue.ready.iter().filter(|(turn, Ready { key, bytes })| {
                self.entries.get(key).is_some_and(|entry| {
                    entry.bytes(key) == *bytes
                        && entry.state == DirtyState::Waiting
                        && entry.turn == **turn
                        && entry.class == class
                })
            });
            queued += rightly.count();
        }
        if [waiting, queued, keys] != [self.waiting; 3] {
            wrong.push(format!(
                "{waiting} entries wait, {keys} keys are queued, {queued} of them rightly, counted are {}",
                self.waiting
            ));
        }
        if (claimed, turns, parked) != (self.claimed, self.claimed, self.parked) {
            wrong.push(format!(
                "{claimed} entries are claimed in {turns} turns and {parked} parked, counted are {} and {}",
                self.claimed, self.parked
            ));
        }
        let lettered = self.letters.keys().filter(|key| {
            let entry = self.entries.get(*key);
            entry.is_some_and(|entry| entry.state == DirtyState::Parked)
        });
        let lettered = lettered.count();
        if lettered != parked {
            wrong.push(format!(
                "{parked} entries are parked and {lettered} have letters"
            ));
        }
        let gone = self
            .letters
            .keys()
            .filter(|key| !self.entries.contains_key(*key));
        if let Some(key) = gone.into_iter().next() {
            wrong.push(format!("there is a letter of key '{key}' and no entry"));
        }
        let recorded: u64 = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.lsn.is_some())
            .map(|(key, entry)| entry.bytes(key))
            .sum();
        if recorded != self.recorded_bytes {
            wrong.push(format!(
                "{} bytes are counted as recorded and {recorded} are",
                self.recorded_bytes
            ));
        }
        wrong
    }
}
