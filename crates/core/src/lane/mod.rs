//! Lanes: the one queue of a process through which all store traffic of a key passes.
//!
//! `lane = hash(key) % lanes`. Because every load, write and flush of a key goes through its lane, their order
//! inside this process is a fact and not a protocol: no fill can overtake a write, and two writes cannot
//! reach store and cache in different orders. A lane is state behind a short lock ([`LaneState`]) and a few
//! driver tasks, each of which takes a batch out of the state, does its I/O without the lock, and puts the
//! result back:
//!
//! - the [loads](crate::read) driver: keys asked for while a load is in flight go out as the next one load;
//! - a driver per [strategy] that writes: writes that arrive while one is in flight go out as the next one
//!   transaction or journal append (group commit);
//! - the [flusher](crate::flush).
//!
//! What a key can be in, at most one of the last three at a time:
//!
//! | state | held in | a reader gets |
//! |---|---|---|
//! | clean | near cache | the copy |
//! | load waiting or in flight | [`Loads`] | the result, shared (single-flight) |
//! | write waiting or in flight | [`Writes`], [`AppendedQueue`] | the result of that write |
//! | dirty, parked | [`Dirty`] | the dirty entry |
//! | quarantine | [`LaneState::quarantine`] | a load of its own, which fills nothing |
//!
//! [strategy]: crate::strategy

mod appended;
mod dirty;
mod loads;
mod operation;
mod writes;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::error::Result;
use crate::hash::Hasher;
use crate::key::Key;
use crate::mutation::Mutations;
use crate::port::{Lsn, Ticket};
use crate::receipt::Read;

pub(crate) use appended::{Appended, AppendedQueue, Callers};
pub(crate) use dirty::{
    Claim, Dirty, DirtyEntry, DirtyState, Fate, Front, KeyClaim, Lineage, Over, Pin, Sum,
    dirty_bytes,
};
pub(crate) use loads::{Joined, Loads};
pub(crate) use operation::{Folded, Operation, Present, Update, WriteReply, fold, needs_present};
pub(crate) use writes::{Pass, Work, Writes};

/// Where the answer to a read goes.
pub(crate) type ReadReply = oneshot::Sender<Result<Read>>;

/// The roads on which writes leave a lane: one queue and one driver for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Road {
    Through,
    Around,
    Back,
}

impl Road {
    pub(crate) const ALL: [Self; 3] = [Self::Through, Self::Around, Self::Back];
}

/// One lane. See the [module](self).
pub(crate) struct Lane {
    state: Mutex<LaneState>,
    /// A load was asked for.
    pub(crate) loads_waiting: Notify,
    /// A write was asked for, by road.
    pub(crate) writes_waiting: [Notify; 3],
    /// The journal took a record of this lane, and none was on its way before.
    pub(crate) appended_waiting: Notify,
    /// An entry became dirty, or a flush was asked for.
    pub(crate) dirty_waiting: Notify,
    /// A flush was asked for: a flusher that waits after a failure tries again at once.
    pub(crate) flush_asked: Notify,
    /// A flush round ended, or the last write of a queue was answered.
    pub(crate) settled: Notify,
}

/// What a lane knows. Changed only under its lock, which is never held over an await.
pub(crate) struct LaneState {
    pub(crate) loads: Loads,
    pub(crate) writes: [Writes; 3],
    pub(crate) appended: AppendedQueue,
    /// Writes that go through the store past a bound are under way; the next ones wait.
    pub(crate) spilling: bool,
    pub(crate) dirty: Dirty,
    /// Keys whose last write has an unknown outcome. The writer may still be at it inside the store, so what
    /// a load returns may be outdated a moment later: nothing is filled until the outcome is known or a
    /// later write of the key is committed.
    pub(crate) quarantine: HashMap<Key, Option<Ticket>, Hasher>,
}

impl Lane {
    pub(crate) fn new(hasher: &Hasher, mutations: Mutations) -> Self {
        Self {
            state: Mutex::new(LaneState {
                loads: Loads::new(hasher),
                writes: [
                    Writes::new(hasher),
                    Writes::new(hasher),
                    Writes::new(hasher),
                ],
                appended: AppendedQueue::new(hasher),
                spilling: false,
                dirty: Dirty::new(hasher, mutations),
                quarantine: HashMap::with_hasher(hasher.clone()),
            }),
            loads_waiting: Notify::new(),
            writes_waiting: [Notify::new(), Notify::new(), Notify::new()],
            appended_waiting: Notify::new(),
            dirty_waiting: Notify::new(),
            flush_asked: Notify::new(),
            settled: Notify::new(),
        }
    }

    /// The state. A panic under the lock would leave it between two consistent states; everything done under
    /// it is free of panics by review, so the poison is not passed on to every later caller.
    pub(crate) fn lock(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes every driver, so that each sees that the layer is stopping.
    pub(crate) fn wake_all(&self) {
        self.loads_waiting.notify_one();
        self.writes_waiting.iter().for_each(Notify::notify_one);
        self.appended_waiting.notify_one();
        self.dirty_waiting.notify_one();
        self.flush_asked.notify_one();
        self.settled.notify_waiters();
    }
}

impl LaneState {
    pub(crate) fn road(&mut self, road: Road) -> &mut Writes {
        &mut self.writes[road as usize]
    }

    /// True if a write of `key` waits, is in flight, or waits for the journal.
    pub(crate) fn is_writing(&self, key: &[u8]) -> bool {
        self.appended.last_of(key).is_some() || self.is_queued(key)
    }

    /// True if a write of `key` waits or is in flight, so that what comes later must go behind it.
    pub(crate) fn is_queued(&self, key: &[u8]) -> bool {
        self.writes.iter().any(|writes| writes.has(key))
    }

    /// Adds a reader to be answered by a write of `key` that is under way: the newest, or one before it that
    /// is done earlier.
    pub(crate) fn attach(&mut self, key: &[u8], reply: ReadReply) -> Result<(), ReadReply> {
        if let Some(writes) = self.writes.iter_mut().find(|writes| writes.has(key)) {
            return writes.attach(key, reply);
        }
        self.appended.attach(key, reply)
    }

    /// Nothing of this lane's journal records is needed before this place.
    pub(crate) fn journal_needed_from(&mut self) -> Option<Lsn> {
        match (self.appended.first(), self.dirty.oldest_lsn()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// True if no write is waiting, in flight, or waiting for the journal.
    pub(crate) fn is_idle(&self) -> bool {
        self.appended.is_empty() && self.has_empty_queues()
    }

    /// True if no write is waiting or in flight.
    pub(crate) fn has_empty_queues(&self) -> bool {
        self.writes.iter().all(Writes::is_empty)
    }
}
