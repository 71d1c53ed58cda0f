//! What follows a commit to the store, the same for write-through and write-around but for what the cache
//! gets: state under the lane's lock first, then the callers.

use std::sync::Arc;
use std::time::Duration;

use super::commit::Committed;
use super::present::Prepared;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::lane::{Lane, LaneState, Operation, Present, ReadReply, Road, Work, WriteReply};
use crate::layer::Layer;
use crate::port::{Outcome, Resolution, StoreError, Ticket};
use crate::read::{answer_readers, reply_all, store_read};
use crate::receipt::{Durability, Read, Receipt, Source, Written};
use crate::version::Version;

/// How often a write that depends on the present value is tried when others keep changing the row.
const ATTEMPTS_MAX: u32 = 64;

/// What the cache gets of a committed write: called under the lane's lock with the key's new state.
pub(crate) type IntoCache = fn(&Layer, &Key, usize, Option<&Entry>, Version);

/// Answers given after the lock.
#[derive(Default)]
pub(crate) struct Answers {
    ones: Vec<(WriteReply, Result<Written>)>,
    writes: Vec<(Operation, Result<Written>)>,
    reads: Vec<(Vec<ReadReply>, Result<Read>)>,
}

impl Answers {
    pub(crate) fn one(&mut self, reply: WriteReply, answer: Result<Written>) {
        self.ones.push((reply, answer));
    }

    pub(crate) fn write(&mut self, operation: Operation, answer: Result<Written>) {
        self.writes.push((operation, answer));
    }

    pub(crate) fn write_all(&mut self, operations: Vec<Operation>, error: &Error) {
        self.writes.extend(
            operations
                .into_iter()
                .map(|operation| (operation, Err(error.clone()))),
        );
    }

    pub(crate) fn read(&mut self, replies: Vec<ReadReply>, answer: Result<Read>) {
        if !replies.is_empty() {
            self.reads.push((replies, answer));
        }
    }

    pub(crate) fn send(self) {
        for (reply, answer) in self.ones {
            // One that went away is no concern.
            drop(reply.send(answer));
        }
        for (operation, answer) in self.writes {
            operation.answer(answer);
        }
        for (replies, answer) in self.reads {
            reply_all(replies, &answer);
        }
    }
}

/// Operations whose present state could not be loaded: nothing was done, each caller gets the error.
pub(crate) fn unloaded(layer: &Layer, lane: &Lane, road: Road, unloaded: Vec<(Work, Error)>) {
    if unloaded.is_empty() {
        return;
    }
    let mut answers = Answers::default();
    let mut state = lane.lock();
    for (work, error) in unloaded {
        let readers = state.road(road).land(&work.key);
        answer_readers(layer, &mut state, &work.key, readers);
        answers.write_all(work.operations, &error);
    }
    drop(state);
    answers.send();
}

/// Operations that left their key as it was: nothing is written, the present state answers.
pub(crate) fn unchanged(
    layer: &Layer,
    state: &mut LaneState,
    road: Road,
    prepared: Prepared,
    answers: &mut Answers,
) {
    let Prepared {
        work,
        present,
        folded,
    } = prepared;
    let readers = state.road(road).land(&work.key);
    let entry = match present {
        Present::Known(entry) => entry,
        // Only when every operation was taken out.
        Present::Unknown => return answer_readers(layer, state, &work.key, readers),
    };
    let version = entry.as_ref().map_or(Version::NONE, |entry| entry.version);
    for (operation, existed) in work.operations.into_iter().zip(folded.existed) {
        let existed = existed.unwrap_or(entry.is_some());
        answers.write(
            operation,
            Ok(Written {
                existed,
                receipt: store_receipt(version),
            }),
        );
    }
    answers.read(readers, Ok(store_read(entry)));
}

/// Settles a batch that the store answered: cache and lane under the lock, then the callers.
pub(crate) fn settle(
    layer: &Arc<Layer>,
    lane: &Lane,
    road: Road,
    batch: Vec<(Prepared, Committed)>,
    into_cache: IntoCache,
) {
    let mut answers = Answers::default();
    let mut unresolved: Vec<(Ticket, Key)> = Vec::new();
    let mut again = false;
    let mut state = lane.lock();
    for (prepared, committed) in batch {
        let key = prepared.work.key.clone();
        match committed {
            Ok(Outcome::Applied { version, existed }) => {
                let Prepared { work, folded, .. } = prepared;
                let entry = folded
                    .change
                    .as_ref()
                    .and_then(|change| change.to_entry(version));
                let entry = entry.filter(|entry| !entry.is_expired(layer.clock.now()));
                into_cache(layer, &key, work.class, entry.as_ref(), version);
                state.quarantine.remove(&key);
                let readers = state.road(road).land(&key);
                for (operation, before) in work.operations.into_iter().zip(folded.existed) {
                    let existed = before.unwrap_or(existed);
                    let receipt = store_receipt(version);
                    answers.write(operation, Ok(Written { existed, receipt }));
                }
                answers.read(readers, Ok(store_read(entry)));
            }
            Ok(Outcome::Changed) => {
                // What is cached is not what the store has.
                layer.near.remove(key.as_bytes());
                let mut work = prepared.work;
                work.attempts += 1;
                if work.attempts < ATTEMPTS_MAX {
                    state.road(road).put_back(work, false);
                    again = true;
                } else {
                    let error = Error::new(
                        ErrorKind::Unavailable,
                        format_args!("the row was changed by others {ATTEMPTS_MAX} times in a row"),
                    );
                    fail(layer, &mut state, road, work, &error, &mut answers);
                }
            }
            // Not what an unguarded write is answered.
            Ok(Outcome::Superseded | Outcome::Conflict { .. } | Outcome::Added { .. }) => {
                layer.near.remove(key.as_bytes());
                let error = Error::new(ErrorKind::Refused, "the store has something newer");
                fail(layer, &mut state, road, prepared.work, &error, &mut answers);
            }
            Err(StoreError::Refused { .. }) if prepared.work.operations.len() > 1 => {
                state.road(road).put_back(prepared.work, true);
                again = true;
            }
            Err(error) => {
                if let StoreError::Unknown { ticket, .. } = &error {
                    layer.near.remove(key.as_bytes());
                    state.quarantine.insert(key.clone(), *ticket);
                    unresolved.extend(ticket.map(|ticket| (ticket, key.clone())));
                }
                fail(
                    layer,
                    &mut state,
                    road,
                    prepared.work,
                    &error.into(),
                    &mut answers,
                );
            }
        }
    }
    drop(state);
    answers.send();
    if again {
        lane.writes_waiting[road as usize].notify_one();
    }
    resolve_later(layer, unresolved);
}

fn fail(
    layer: &Layer,
    state: &mut LaneState,
    road: Road,
    work: Work,
    error: &Error,
    answers: &mut Answers,
) {
    let readers = state.road(road).land(&work.key);
    answer_readers(layer, state, &work.key, readers);
    answers.write_all(work.operations, error);
}

fn store_receipt(version: Version) -> Receipt {
    Receipt {
        version,
        source: Source::Store,
        age_bound: Duration::ZERO,
        durability: Durability::Store,
    }
}

/// Ends the quarantine of keys when the store can tell what became of their write.
pub(crate) fn resolve_later(layer: &Arc<Layer>, unresolved: Vec<(Ticket, Key)>) {
    let mut by_ticket: Vec<(Ticket, Vec<Key>)> = Vec::new();
    for (ticket, key) in unresolved {
        match by_ticket.iter_mut().find(|(other, _)| *other == ticket) {
            Some((_, keys)) => keys.push(key),
            None => by_ticket.push((ticket, vec![key])),
        }
    }
    for (ticket, keys) in by_ticket {
        layer.spawn(resolve(Arc::clone(layer), ticket, keys));
    }
}

async fn resolve(layer: Arc<Layer>, ticket: Ticket, keys: Vec<Key>) {
    let mut backoff = crate::backoff::Backoff::default();
    while !layer.is_stopping() {
        match layer.store.resolve(ticket).await {
            Ok(Resolution::Committed | Resolution::Aborted | Resolution::Forgotten) => break,
            Ok(Resolution::Pending) | Err(_) => {
                layer.clock.sleep(backoff.next(&*layer.clock)).await;
            }
        }
    }
    for key in keys {
        let mut state = layer.lane_of(key.as_bytes()).lock();
        // A load in flight may have read before the writer was done.
        state.loads.invalidate(key.as_bytes());
        if state.quarantine.get(&key) == Some(&Some(ticket)) {
            state.quarantine.remove(&key);
        }
    }
}
