//! Writes whose records the journal has taken and not yet synced. Nobody sees them before it has.

use std::collections::{HashMap, VecDeque};

use super::{Operation, Over, ReadReply, WriteReply};
use crate::budget::Admitted;
use crate::entry::Change;
use crate::hash::Hasher;
use crate::key::Key;
use crate::port::Lsn;
use crate::version::Version;

/// A write on its way through the journal.
pub(crate) struct Appended {
    pub(crate) key: Key,
    pub(crate) class: usize,
    pub(crate) change: Change,
    pub(crate) over: Over,
    pub(crate) version: Version,
    pub(crate) lsn: Lsn,
    pub(crate) admitted: Admitted,
    pub(crate) callers: Callers,
}

/// Who is told of a write.
pub(crate) enum Callers {
    /// One caller, who is told whether memory knew the key.
    One(WriteReply),
    /// The operations that became the write, and whether the key was there before each, if that is known.
    Many(Vec<(Operation, Option<bool>)>),
}

/// The writes of a lane between journal and memory, in the order of their records.
pub(crate) struct AppendedQueue {
    queue: VecDeque<Appended>,
    keys: HashMap<Key, OfKey, Hasher>,
}

/// What is known of a key with writes in the queue.
struct OfKey {
    writes: usize,
    /// The place of the last one.
    last: Lsn,
    readers: Vec<ReadReply>,
}

impl AppendedQueue {
    pub(crate) fn new(hasher: &Hasher) -> Self {
        Self {
            queue: VecDeque::new(),
            keys: HashMap::with_hasher(hasher.clone()),
        }
    }

    /// Adds the newest write, with those who wait to read it. The caller guarantees that its record comes
    /// after all others here. True if it is the only one.
    pub(crate) fn push(&mut self, write: Appended, readers: Vec<ReadReply>) -> bool {
        debug_assert!(
            self.queue.back().is_none_or(|last| last.lsn < write.lsn),
            "journal order"
        );
        let of_key = self.keys.entry(write.key.clone()).or_insert(OfKey {
            writes: 0,
            last: write.lsn,
            readers: Vec::new(),
        });
        of_key.writes += 1;
        of_key.last = write.lsn;
        of_key.readers.extend(readers);
        self.queue.push_back(write);
        self.queue.len() == 1
    }

    /// Takes out the oldest write if its record is not after `up_to`, and the readers of its key: they may
    /// have it, for it is the newest that anybody may see.
    pub(crate) fn pop(&mut self, up_to: Lsn) -> Option<(Appended, Vec<ReadReply>)> {
        if self.queue.front()?.lsn > up_to {
            return None;
        }
        let write = self.queue.pop_front()?;
        let Some(of_key) = self.keys.get_mut(&write.key) else {
            return Some((write, Vec::new()));
        };
        of_key.writes -= 1;
        let readers = std::mem::take(&mut of_key.readers);
        if of_key.writes == 0 {
            self.keys.remove(&write.key);
        }
        Some((write, readers))
    }

    /// The place of the oldest record.
    pub(crate) fn first(&self) -> Option<Lsn> {
        self.queue.front().map(|write| write.lsn)
    }

    /// The place of the last record of this key.
    pub(crate) fn last_of(&self, key: &[u8]) -> Option<Lsn> {
        if self.keys.is_empty() {
            return None;
        }
        self.keys.get(key).map(|of_key| of_key.last)
    }

    /// Adds a reader to be answered by the next write of `key`.
    pub(crate) fn attach(&mut self, key: &[u8], reply: ReadReply) -> Result<(), ReadReply> {
        match self.keys.get_mut(key) {
            Some(of_key) => of_key.readers.push(reply),
            None => return Err(reply),
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
