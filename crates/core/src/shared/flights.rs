//! Who waits for which key of a lane: single-flight, the strict kind.
//!
//! Who arrives while a key is being asked for and loaded does not share the answer. It may be older than a write of
//! another node that was acknowledged after the load began and before the newcomer did; nothing in this process
//! knows of that write. So newcomers share the next one, and a key is loaded at most twice for all of them.
//!
//! | a key is | newcomers |
//! |---|---|
//! | waiting to go out | join |
//! | pausing, because another node loads it | join: it will be asked for again |
//! | running | wait for the next one; they join late if the load itself has not been sent yet |

use std::collections::HashMap;
use std::collections::hash_map;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::hash::Hasher;
use crate::key::Key;
use crate::lane::ReadReply;

/// More keys than this waiting in one lane means that store and cache do not keep up.
const KEYS_WAITING_MAX: usize = 65_536;

/// The flights of a lane, and what wakes its drivers.
pub(crate) struct LaneFlights {
    flights: Mutex<Flights>,
    waiting: Notify,
}

impl LaneFlights {
    pub(super) fn new(hasher: &Hasher) -> Self {
        Self {
            flights: Mutex::new(Flights {
                waiting: HashMap::with_hasher(hasher.clone()),
                pausing: HashMap::with_hasher(hasher.clone()),
                running: HashMap::with_hasher(hasher.clone()),
                last: 0,
            }),
            waiting: Notify::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One driver looks again.
    pub(super) fn wake(&self) {
        self.waiting.notify_one();
    }

    pub(super) async fn woken(&self) {
        self.waiting.notified().await;
    }
}

/// See the [module](self).
pub(crate) struct Flights {
    waiting: HashMap<Key, Flight, Hasher>,
    pausing: HashMap<Key, Flight, Hasher>,
    running: HashMap<Key, Running, Hasher>,
    /// The number of the last flight that went out.
    last: u64,
}

/// A flight that is out.
struct Running {
    number: u64,
    replies: Vec<ReadReply>,
}

/// Everyone who waits for one key.
struct Flight {
    class: usize,
    replies: Vec<ReadReply>,
    wait: Wait,
}

/// How long a key has been waiting for another node's load.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Wait {
    /// Since then, in elapsed time; nothing if it does not.
    pub(super) since: Option<Duration>,
    /// The last pause.
    pub(super) pause: Duration,
}

/// A key that goes out.
#[derive(Clone, Debug)]
pub(super) struct Going {
    pub(super) key: Key,
    pub(super) class: usize,
    pub(super) wait: Wait,
    number: u64,
}

/// What became of a newcomer.
pub(super) enum Boarded {
    /// It is the first for its key: a driver must be woken.
    Leads,
    /// It shares with others.
    Follows,
    /// Too many are waiting.
    Refused,
}

impl Flights {
    /// Adds a reader of `key`. With `relaxed`, which breaks the rule, it shares also what is running.
    pub(super) fn board(
        &mut self,
        key: &Key,
        class: usize,
        reply: ReadReply,
        relaxed: bool,
    ) -> Boarded {
        if let Some(flight) = self.pausing.get_mut(key) {
            flight.replies.push(reply);
            return Boarded::Follows;
        }
        if relaxed && let Some(running) = self.running.get_mut(key) {
            running.replies.push(reply);
            return Boarded::Follows;
        }
        let full = self.waiting.len() >= KEYS_WAITING_MAX;
        match self.waiting.entry(key.clone()) {
            hash_map::Entry::Occupied(flight) => {
                flight.into_mut().replies.push(reply);
                Boarded::Follows
            }
            hash_map::Entry::Vacant(_) if full => Boarded::Refused,
            hash_map::Entry::Vacant(none) => {
                none.insert(Flight {
                    class,
                    replies: vec![reply],
                    wait: Wait::default(),
                });
                Boarded::Leads
            }
        }
    }

    /// Sends at most `limit` waiting keys out, none that is running. True beside them if more could go.
    pub(super) fn take(&mut self, limit: usize) -> (Vec<Going>, bool) {
        let free = self.waiting.keys();
        let free = free.filter(|key| !self.running.contains_key(*key));
        let mut keys: Vec<Key> = free.take(limit.saturating_add(1)).cloned().collect();
        let more = keys.len() > limit;
        keys.truncate(limit);
        let mut going = Vec::with_capacity(keys.len());
        for key in keys {
            if let Some(flight) = self.waiting.remove(&key) {
                self.last += 1;
                let running = Running {
                    number: self.last,
                    replies: flight.replies,
                };
                self.running.insert(key.clone(), running);
                going.push(Going {
                    key,
                    class: flight.class,
                    wait: flight.wait,
                    number: self.last,
                });
            }
        }
        (going, more)
    }

    /// The flight, if it is still out: another of its key may be by now.
    fn running(&mut self, going: &Going) -> Option<&mut Running> {
        let running = self.running.get_mut(&going.key)?;
        (running.number == going.number).then_some(running)
    }

    /// The load of a flight is sent now: who waits for the next one of the key may share this.
    pub(super) fn board_late(&mut self, going: &Going) {
        let next = self.waiting.remove(&going.key);
        match (self.running(going), next) {
            (Some(running), Some(next)) => running.replies.extend(next.replies),
            (None, Some(next)) => drop(self.waiting.insert(going.key.clone(), next)),
            (_, None) => {}
        }
    }

    /// Those who are to be answered. The key goes on running: the next one would find its fill under way.
    pub(super) fn answer(&mut self, going: &Going) -> Vec<ReadReply> {
        self.running(going)
            .map(|running| mem::take(&mut running.replies))
            .unwrap_or_default()
    }

    /// The flight is over; those who were not answered. True beside them if the next one of its key waits.
    pub(super) fn end(&mut self, going: &Going) -> (Vec<ReadReply>, bool) {
        let replies = self.answer(going);
        if self.running(going).is_none() {
            return (replies, false);
        }
        self.running.remove(&going.key);
        (replies, self.waiting.contains_key(&going.key))
    }

    /// The key is to be asked for again after a pause; who waits for the next one waits with it.
    pub(super) fn pause(&mut self, going: &Going) {
        if self.running(going).is_none() {
            return;
        }
        let (mut replies, _) = self.end(going);
        if let Some(next) = self.waiting.remove(&going.key) {
            replies.extend(next.replies);
        }
        let flight = Flight {
            class: going.class,
            replies,
            wait: going.wait,
        };
        self.pausing.insert(going.key.clone(), flight);
    }

    /// The pause is over.
    pub(super) fn resume(&mut self, key: &Key) {
        if let Some(flight) = self.pausing.remove(key) {
            self.waiting.insert(key.clone(), flight);
        }
    }

    /// True if nothing waits to go out or will.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.pausing.is_empty()
    }
}
