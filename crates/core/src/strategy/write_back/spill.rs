//! Writes that go to the store before they are acknowledged: past a bound, or past a broken journal.
//!
//! They keep to the order of their key: it stays in flight, and a dirty entry of it is held back from the
//! flusher until the store has what comes after it, which settles both. The version is issued here, as for
//! every write-back write, so that replay and flush compare it with those around it.
//!
//! What depends on a dirty entry goes over the row that the entry was made over. If that is not the row any
//! more, the flusher goes first: it knows whose the row is, and what the class says about it.
//!
//! An addition over no dirty entry stays one, so that what others added meanwhile is not overwritten.
//!
//! One batch of a lane at a time; what comes meanwhile shares the next one.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, select};

use super::place::journal_of;
use super::queued::{fail, land_before, leave, refuse};
use super::{check, needs_present, shown};
use crate::entry::{Change, Entry};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::lane::{Claim, KeyClaim, Lane, LaneState, Present, Road, Work};
use crate::layer::Layer;
use crate::port::{Guard, Outcome, StoreError, Ticket, Write};
use crate::receipt::{Durability, Read, Receipt, Source, Written};
use crate::record::Record;
use crate::strategy::commit::{self, Committed};
use crate::strategy::present::{Prepared, prepare};
use crate::strategy::settle::{Answers, resolve_later, unloaded};
use crate::version::Version;

/// How often a write is made again over rows that others keep numbering above it.
const ATTEMPTS_MAX: u32 = 64;

/// Brings these on their way, in a task of its own. They are in flight.
pub(super) fn start(layer: &Arc<Layer>, lane_index: usize, works: Vec<Work>) {
    if works.is_empty() {
        return;
    }
    layer.lanes[lane_index].lock().spilling = true;
    let (task, end) = (Arc::clone(layer), End(Arc::clone(layer), lane_index));
    layer.spawn(async move {
        spill(&task, lane_index, works).await;
        drop(end);
    });
}

/// Lets the next batch begin, also after a panic.
struct End(Arc<Layer>, usize);

impl Drop for End {
    fn drop(&mut self) {
        let lane = &self.0.lanes[self.1];
        lane.lock().spilling = false;
        lane.writes_waiting[Road::Back as usize].notify_one();
        lane.settled.notify_waiters();
    }
}

async fn spill(layer: &Arc<Layer>, lane_index: usize, works: Vec<Work>) {
    let lane = &layer.lanes[lane_index];

    // 1. Nothing of these keys is on its way: neither through the journal nor to the store.
    land_before(
        layer,
        lane,
        works.iter().map(|work| work.key.clone()).collect(),
    )
    .await;
    let (works, held) = hold(layer, lane, works).await;

    // 2. Operations are folded into one write for each key, as on every other way.
    let (prepared, failed) = prepare(layer, lane, works, needs_present).await;
    unloaded(layer, lane, Road::Back, failed);

    // 3. The store commits.
    let (tried, writes) = decide(layer, lane, prepared);
    let committed = apply(layer, writes).await;

    // 4. A deletion leaves nothing in the store that a replay could see: its record comes after those that it
    //    makes void. (Of anything else the row tells.)
    let records = deletions(layer, &tried, &committed);
    record_deletions(layer, records).await;

    // 5. State first, under the lock, then the callers.
    settle(
        layer,
        lane,
        held,
        tried.into_iter().zip(committed).collect(),
    );
}

/// Holds the dirty entries of these keys back from the flusher. A key whose flush does not end in time fails.
async fn hold(layer: &Layer, lane: &Lane, works: Vec<Work>) -> (Vec<Work>, Vec<Claim>) {
    let mut held = Vec::new();
    let mut free = Vec::new();
    let mut busy = works;
    let timeout = busy
        .iter()
        .map(|work| layer.class(work.class).block_timeout);
    let mut deadline = layer.clock.sleep(timeout.max().unwrap_or(Duration::ZERO));
    loop {
        let settled = lane.settled.notified();
        tokio::pin!(settled);
        settled.as_mut().enable();
        busy = try_hold(lane, busy, &mut free, &mut held);
        lane.dirty_waiting.notify_one();
        if busy.is_empty() {
            return (free, held);
        }
        match select(settled, deadline).await {
            Either::Left(((), rest)) => deadline = rest,
            Either::Right(_) => break,
        }
    }
    let mut answers = Answers::default();
    let mut state = lane.lock();
    for work in busy {
        let error = Error::new(
            ErrorKind::Unavailable,
            "an earlier write of the key is still on its way to the store, and the write waited its block_timeout",
        );
        fail(layer, &mut state, work, &error, &mut answers);
    }
    drop(state);
    answers.send();
    (free, held)
}

/// Claims what can be claimed; returns what cannot, and lets what is dirty of that go soon.
fn try_hold(
    lane: &Lane,
    busy: Vec<Work>,
    free: &mut Vec<Work>,
    held: &mut Vec<Claim>,
) -> Vec<Work> {
    let mut still = Vec::new();
    let mut state = lane.lock();
    for work in busy {
        // The row was not what the entry was made over: the flusher finds out whose it is.
        let depends = needs_present(&work.operations);
        let after_flush = depends && work.attempts > 0;
        let claimed = match after_flush && state.dirty.is_waiting(work.key.as_bytes()) {
            true => KeyClaim::Busy,
            false => state.dirty.claim_key(&work.key, !depends),
        };
        match claimed {
            KeyClaim::Busy => {
                state.dirty.hurry_key(work.key.as_bytes());
                still.push(work);
            }
            KeyClaim::Free => free.push(work),
            KeyClaim::Claimed(claim) => {
                held.push(claim);
                free.push(work);
            }
        }
    }
    still
}

/// Gives each write its version. What writes nothing, or is seen to be refused, is answered here.
fn decide(
    layer: &Layer,
    lane: &Lane,
    prepared: Vec<Prepared>,
) -> (Vec<(Prepared, Version)>, Vec<Write>) {
    let mut answers = Answers::default();
    let (mut tried, mut writes) = (Vec::new(), Vec::new());
    let mut state = lane.lock();
    for prepared in prepared {
        let table = layer.state(prepared.work.class).table;
        let (Some(change), Some(table)) = (prepared.folded.change.clone(), table) else {
            leave(layer, &mut state, prepared, &mut answers);
            continue;
        };
        if let Err(error) = check(layer, &prepared.work.key, prepared.work.class, &change) {
            if change == Change::Delete && matches!(prepared.present, Present::Known(None)) {
                leave(layer, &mut state, prepared, &mut answers);
            } else {
                refuse(layer, lane, &mut state, prepared.work, &error, &mut answers);
            }
            continue;
        }
        let key = prepared.work.key.clone();
        // What depends on the present state goes over just that.
        let shown = shown(&prepared.present, prepared.folded.added);
        let base = match (shown.base, state.dirty.get(key.as_bytes())) {
            (Some(_), Some(dirty)) => dirty.lineage.base(),
            (base, _) => base,
        };
        let version = layer.issue_over(base);
        let added = shown
            .added
            .filter(|_| state.dirty.entry(key.as_bytes()).is_none());
        let (change, guard) = match added {
            Some(by) => {
                let since = version;
                (Change::Add { by }, Guard::Once { since, version })
            }
            None => (change, Guard::Flush { base, version }),
        };
        writes.push(Write {
            table,
            key,
            change,
            guard,
        });
        tried.push((prepared, version));
    }
    drop(state);
    answers.send();
    (tried, writes)
}

async fn apply(layer: &Layer, writes: Vec<Write>) -> Vec<Committed> {
    let count = writes.len();
    if count == 0 {
        return Vec::new();
    }
    let applied = commit::apply(&*layer.store, writes, layer.clock.now(), None);
    let applied = AssertUnwindSafe(applied).catch_unwind().await;
    // A panic is a bug of an adapter: as good as a lost answer.
    applied.unwrap_or_else(|_| vec![Err(StoreError::unknown(None, "the store panicked")); count])
}

async fn record_deletions(layer: &Layer, records: Vec<Bytes>) {
    let Some(journal) = layer.journal.as_ref().filter(|_| !records.is_empty()) else {
        return;
    };
    if layer.journal_failure().is_some() {
        return;
    }
    if let Err(error) = journal.append(records).await {
        layer.note_journal_failure(&error);
        tracing::debug!(%error, "deletions that are in the store have no record in the journal");
    }
}

fn deletions(layer: &Layer, tried: &[(Prepared, Version)], committed: &[Committed]) -> Vec<Bytes> {
    tried
        .iter()
        .zip(committed)
        .filter(|(_, committed)| matches!(committed, Ok(Outcome::Applied { .. })))
        .filter(|((prepared, _), _)| prepared.folded.change == Some(Change::Delete))
        .filter(|((prepared, _), _)| journal_of(layer, prepared.work.class).is_some())
        .map(|((prepared, version), _)| {
            let name = &layer.state(prepared.work.class).name;
            Record::encode(name, &prepared.work.key, *version, &Change::Delete)
        })
        .collect()
}

fn settle(
    layer: &Arc<Layer>,
    lane: &Lane,
    held: Vec<Claim>,
    tried: Vec<((Prepared, Version), Committed)>,
) {
    let mut answers = Answers::default();
    let mut unresolved: Vec<(Ticket, Key)> = Vec::new();
    let mut state = lane.lock();
    let mut stored: Vec<Key> = Vec::new();
    for ((prepared, version), committed) in tried {
        let key = prepared.work.key.clone();
        match committed {
            Ok(Outcome::Applied { existed, .. }) => {
                let change = prepared.folded.change.as_ref();
                let entry = change.and_then(|change| change.to_entry(version));
                stored.push(key);
                let row = Row {
                    entry,
                    version,
                    existed,
                };
                applied(layer, &mut state, prepared, row, &mut answers);
            }
            Ok(Outcome::Added {
                version,
                existed,
                value,
                expires_at,
            }) => {
                let entry = Some(Entry {
                    value: value.to_string().into(),
                    expires_at,
                    version,
                });
                let row = Row {
                    entry,
                    version,
                    existed,
                };
                applied(layer, &mut state, prepared, row, &mut answers);
            }
            Ok(Outcome::Conflict { newest }) => {
                // Somebody else numbered the row. A write that is not acknowledged yet is simply later.
                layer.issue_above(newest);
                again(layer, &mut state, prepared.work, &mut answers);
            }
            Ok(_) => again(layer, &mut state, prepared.work, &mut answers),
            Err(error @ StoreError::Refused { .. }) => {
                let error = error.into();
                refuse(layer, lane, &mut state, prepared.work, &error, &mut answers);
            }
            Err(error) => {
                if let StoreError::Unknown { ticket, .. } = &error {
                    layer.near.remove(key.as_bytes());
                    state.quarantine.insert(key.clone(), *ticket);
                    unresolved.extend(ticket.map(|ticket| (ticket, key)));
                }
                fail(
                    layer,
                    &mut state,
                    prepared.work,
                    &error.into(),
                    &mut answers,
                );
            }
        }
    }
    for claim in held {
        if !stored.contains(&claim.key) {
            state.dirty.unclaim(&claim);
        }
    }
    drop(state);
    answers.send();
    resolve_later(layer, unresolved);
    lane.dirty_waiting.notify_one();
}

/// What a write left in the store.
struct Row {
    entry: Option<Entry>,
    version: Version,
    /// There was one before.
    existed: bool,
}

/// The store has it: whatever was dirty or parked of the key is older.
fn applied(
    layer: &Layer,
    state: &mut LaneState,
    prepared: Prepared,
    row: Row,
    answers: &mut Answers,
) {
    let Prepared { work, folded, .. } = prepared;
    let Row {
        entry,
        version,
        existed,
    } = row;
    if let Some(old) = state.dirty.remove(work.key.as_bytes()) {
        layer.state(old.class).budget.give(old.bytes(&work.key));
        layer.state(old.class).counters.coalesced.one();
    }
    let entry = entry.filter(|entry| !entry.is_expired(layer.clock.now()));
    layer.fill(&work.key, work.class, entry.as_ref(), version);
    state.quarantine.remove(&work.key);
    let receipt = Receipt {
        version,
        source: Source::Store,
        age_bound: Duration::ZERO,
        durability: Durability::Store,
    };
    let readers = state.road(Road::Back).land(&work.key);
    for (operation, before) in work.operations.into_iter().zip(folded.existed) {
        let existed = before.unwrap_or(existed);
        answers.write(operation, Ok(Written { existed, receipt }));
    }
    answers.read(readers, Ok(Read { entry, receipt }));
}

/// Tries a write once more, or gives up.
fn again(layer: &Layer, state: &mut LaneState, mut work: Work, answers: &mut Answers) {
    work.attempts += 1;
    if work.attempts < ATTEMPTS_MAX {
        state.road(Road::Back).put_back(work, false);
        return;
    }
    let error = Error::new(
        ErrorKind::Unavailable,
        format_args!("the row was changed by others {ATTEMPTS_MAX} times in a row"),
    );
    fail(layer, state, work, &error, answers);
}
