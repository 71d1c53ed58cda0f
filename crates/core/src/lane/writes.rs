//! The writes of one road of a lane: what waits, in order, and what is in flight.

use std::collections::{HashMap, VecDeque};
use std::mem;

use super::{Operation, ReadReply, dirty_bytes};
use crate::budget::Admitted;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hasher;
use crate::key::Key;

/// The most operations that wait in one queue. More means that the store does not keep up.
const OPERATIONS_WAITING_MAX: usize = 65_536;
/// The most bytes of values that wait in one queue.
const BYTES_WAITING_MAX: usize = 256 << 20;

/// One road of a lane. A key is in flight at most once; what arrives for it meanwhile waits together and
/// goes out as one write (coalescing), each caller answered by the commit that holds its key.
pub(crate) struct Writes {
    waiting: HashMap<Key, Chain, Hasher>,
    /// Keys of `waiting`, oldest first.
    order: VecDeque<Key>,
    /// Readers of keys in flight.
    in_flight: HashMap<Key, Vec<ReadReply>, Hasher>,
    operations: usize,
    bytes: usize,
}

/// What waits for one key.
struct Chain {
    class: usize,
    operations: VecDeque<Operation>,
    readers: Vec<ReadReply>,
    /// So many operations at the front go out one at a time, because the store refused them together.
    one_by_one: usize,
    /// How often the front was tried and the row was found changed.
    attempts: u32,
    pass: Pass,
}

/// How a write was let in: with room under the bounds of its class, or past them.
#[derive(Default)]
pub(crate) struct Pass {
    /// The room taken for it; nothing for a write that does not become dirty.
    pub(crate) admitted: Option<Admitted>,
    /// A write-back write that goes to the store before it is acknowledged.
    pub(crate) through: bool,
}

impl Pass {
    /// With this room.
    pub(crate) fn with(admitted: Admitted) -> Self {
        Self {
            admitted: Some(admitted),
            through: false,
        }
    }

    /// Past the bounds, by way of the store.
    pub(crate) fn through() -> Self {
        Self {
            admitted: None,
            through: true,
        }
    }

    fn join(&mut self, other: Self) {
        self.through |= other.through;
        match (&mut self.admitted, other.admitted) {
            (Some(mine), Some(other)) => mine.join(other),
            (mine @ None, other) => *mine = other,
            (Some(_), None) => {}
        }
    }

    /// The part of an operation of so many bytes.
    fn split(&mut self, bytes: u64) -> Self {
        Self {
            admitted: self.admitted.as_mut().map(|all| all.split(bytes)),
            through: self.through,
        }
    }
}

/// A key taken out of the queue, with what to do to it.
pub(crate) struct Work {
    pub(crate) key: Key,
    pub(crate) class: usize,
    pub(crate) operations: Vec<Operation>,
    /// How often this was tried and the row was found changed meanwhile.
    pub(crate) attempts: u32,
    pub(crate) pass: Pass,
}

impl Writes {
    pub(crate) fn new(hasher: &Hasher) -> Self {
        Self {
            waiting: HashMap::with_hasher(hasher.clone()),
            order: VecDeque::new(),
            in_flight: HashMap::with_hasher(hasher.clone()),
            operations: 0,
            bytes: 0,
        }
    }

    /// Adds an operation behind all others of its key. True if it joined others that were waiting.
    ///
    /// # Errors
    /// Overloaded, with the readers handed back, if the queue is full.
    pub(crate) fn push(
        &mut self,
        key: &Key,
        class: usize,
        operation: Operation,
        pass: Pass,
        readers: Vec<ReadReply>,
    ) -> Result<bool, (Error, Vec<ReadReply>)> {
        let bytes = operation.value_bytes();
        if self.operations >= OPERATIONS_WAITING_MAX
            || (self.bytes > 0 && self.bytes + bytes > BYTES_WAITING_MAX)
        {
            let error = Error::new(
                ErrorKind::Overloaded,
                "too many writes are waiting for the store",
            );
            return Err((error, readers));
        }
        self.operations += 1;
        self.bytes += bytes;
        let joined = self.waiting.contains_key(key);
        let chain = self.chain(key, class);
        chain.operations.push_back(operation);
        chain.pass.join(pass);
        chain.readers.extend(readers);
        Ok(joined)
    }

    fn chain(&mut self, key: &Key, class: usize) -> &mut Chain {
        let order = &mut self.order;
        self.waiting.entry(key.clone()).or_insert_with(|| {
            order.push_back(key.clone());
            Chain {
                class,
                operations: VecDeque::new(),
                readers: Vec::new(),
                one_by_one: 0,
                attempts: 0,
                pass: Pass::default(),
            }
        })
    }

    /// Moves at most `limit` keys into flight, oldest first. What waits for a key that is in flight stays, and
    /// so do writes to be made through the store unless `through`.
    pub(crate) fn take(&mut self, limit: usize, through: bool) -> Vec<Work> {
        let mut taken = Vec::with_capacity(self.order.len().min(limit));
        let mut kept = Vec::new();
        while taken.len() < limit {
            let Some(key) = self.order.pop_front() else {
                break;
            };
            let Some(mut chain) = self.waiting.remove(&key) else {
                continue;
            };
            if self.in_flight.contains_key(&key) || (chain.pass.through && !through) {
                self.waiting.insert(key.clone(), chain);
                kept.push(key);
                continue;
            }
            let readers = mem::take(&mut chain.readers);
            let attempts = mem::take(&mut chain.attempts);
            let class = chain.class;
            let (operations, pass) = if chain.one_by_one > 0 && chain.operations.len() > 1 {
                chain.one_by_one -= 1;
                let first: Vec<Operation> = chain.operations.pop_front().into_iter().collect();
                let bytes = first
                    .iter()
                    .map(|first| dirty_bytes(&key, first.value_bytes()));
                let pass = chain.pass.split(bytes.sum());
                self.waiting.insert(key.clone(), chain);
                self.order.push_back(key.clone());
                (first, pass)
            } else {
                (Vec::from(chain.operations), chain.pass)
            };
            self.operations -= operations.len();
            self.bytes -= operations.iter().map(Operation::value_bytes).sum::<usize>();
            self.in_flight.insert(key.clone(), readers);
            taken.push(Work {
                key,
                class,
                operations,
                attempts,
                pass,
            });
        }
        for key in kept.into_iter().rev() {
            self.order.push_front(key);
        }
        taken
    }

    /// Takes a key out of flight; those who wait to read it are handed over.
    pub(crate) fn land(&mut self, key: &Key) -> Vec<ReadReply> {
        self.in_flight.remove(key).unwrap_or_default()
    }

    /// Puts work that was in flight back in front of whatever arrived for its key meanwhile: because the row
    /// had changed, or (`one_by_one`) to find out which of its operations the store refuses.
    pub(crate) fn put_back(&mut self, work: Work, one_by_one: bool) {
        let readers = self.land(&work.key);
        self.operations += work.operations.len();
        self.bytes += work
            .operations
            .iter()
            .map(Operation::value_bytes)
            .sum::<usize>();
        let count = work.operations.len();
        let chain = self.chain(&work.key, work.class);
        for operation in work.operations.into_iter().rev() {
            chain.operations.push_front(operation);
        }
        chain.readers.extend(readers);
        chain.pass.join(work.pass);
        chain.attempts = work.attempts;
        if one_by_one {
            chain.one_by_one = count;
        } else if chain.one_by_one > 0 {
            chain.one_by_one += count;
        }
    }

    /// True if a write of `key` is waiting or in flight.
    pub(crate) fn has(&self, key: &[u8]) -> bool {
        self.waiting.contains_key(key) || self.in_flight.contains_key(key)
    }

    /// Adds a reader to be answered by the newest write of `key` that waits or is in flight.
    pub(crate) fn attach(&mut self, key: &[u8], reply: ReadReply) -> Result<(), ReadReply> {
        if let Some(chain) = self.waiting.get_mut(key) {
            chain.readers.push(reply);
        } else if let Some(readers) = self.in_flight.get_mut(key) {
            readers.push(reply);
        } else {
            return Err(reply);
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }
}
