//! The loads of a lane: who waits for which key, and which keys are being loaded.

use std::collections::HashMap;
use std::mem;

use super::ReadReply;
use crate::hash::Hasher;
use crate::key::Key;

/// More keys than this waiting in one lane means that the store does not keep up: further loads fail at once
/// instead of queueing for an answer nobody will wait for.
pub(crate) const LOADS_WAITING_MAX: usize = 65_536;

/// Loads of a lane. Equal keys share one load (single-flight): the first reader is the leader in that it
/// caused the load; a driver task does it, so that no reader that goes away takes it along.
pub(crate) struct Loads {
    waiting: HashMap<Key, Flight, Hasher>,
    in_flight: HashMap<Key, Flight, Hasher>,
}

/// Everyone who waits for one key.
pub(crate) struct Flight {
    pub(crate) class: usize,
    pub(crate) replies: Vec<ReadReply>,
    /// Cleared when a write or an invalidation of the key arrives: the result still answers those who asked
    /// before it, and is not cached.
    pub(crate) may_fill: bool,
}

/// What became of a request for a load.
pub(crate) enum Joined {
    /// It is the first for its key; the driver must be woken.
    Leads,
    /// It shares a load with others.
    Follows,
    /// Too many are waiting; here is the reply back.
    Refused(ReadReply),
}

impl Loads {
    pub(crate) fn new(hasher: &Hasher) -> Self {
        Self {
            waiting: HashMap::with_hasher(hasher.clone()),
            in_flight: HashMap::with_hasher(hasher.clone()),
        }
    }

    /// Adds a reader of `key`. A load in flight that a write has overtaken is not joined.
    pub(crate) fn join(&mut self, key: &[u8], class: usize, reply: ReadReply) -> Joined {
        if let Some(flight) = self.in_flight.get_mut(key).filter(|flight| flight.may_fill) {
            flight.replies.push(reply);
            return Joined::Follows;
        }
        if let Some(flight) = self.waiting.get_mut(key) {
            flight.replies.push(reply);
            return Joined::Follows;
        }
        if self.waiting.len() >= LOADS_WAITING_MAX {
            return Joined::Refused(reply);
        }
        let flight = Flight {
            class,
            replies: vec![reply],
            may_fill: true,
        };
        self.waiting.insert(Key::copy_from(key), flight);
        Joined::Leads
    }

    /// A write of `key` begins: the load in flight will fill nothing, and those still waiting are handed over
    /// to be answered by the write.
    pub(crate) fn overtake(&mut self, key: &[u8]) -> Vec<ReadReply> {
        self.invalidate(key);
        self.waiting
            .remove(key)
            .map(|flight| flight.replies)
            .unwrap_or_default()
    }

    /// What a load of `key` now in flight returns may be outdated.
    pub(crate) fn invalidate(&mut self, key: &[u8]) {
        if let Some(flight) = self.in_flight.get_mut(key) {
            flight.may_fill = false;
        }
    }

    /// What any load now in flight returns may be outdated.
    pub(crate) fn invalidate_all(&mut self) {
        self.in_flight
            .values_mut()
            .for_each(|flight| flight.may_fill = false);
    }

    /// Moves at most `limit` waiting keys into flight. The caller guarantees that nothing is in flight.
    pub(crate) fn take(&mut self, limit: usize) -> Vec<(Key, usize)> {
        debug_assert!(self.in_flight.is_empty(), "one load of a lane at a time");
        self.in_flight = if self.waiting.len() <= limit {
            mem::replace(
                &mut self.waiting,
                HashMap::with_hasher(self.in_flight.hasher().clone()),
            )
        } else {
            let keys: Vec<Key> = self.waiting.keys().take(limit).cloned().collect();
            keys.into_iter()
                .filter_map(|key| self.waiting.remove(&key).map(|flight| (key, flight)))
                .collect()
        };
        self.in_flight
            .iter()
            .map(|(key, flight)| (key.clone(), flight.class))
            .collect()
    }

    /// Takes a key out of flight.
    pub(crate) fn land(&mut self, key: &Key) -> Option<Flight> {
        self.in_flight.remove(key)
    }
}
