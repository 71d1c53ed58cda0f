//! The flusher of a lane: dirty entries on their way to the store, in coalesced batches.
//!
//! Life of an entry: dirty → claimed → clean, or parked. A claim is a copy of what the entry holds; it is
//! written under the guard that the store has nothing newer, and afterwards the entry becomes clean only if
//! it was not written again meanwhile. So a flush may be repeated at any time, and one whose outcome is
//! unknown simply is.
//!
//! - A batch goes out when it is full, when its oldest entry has lingered long enough, when the class is past
//!   half its bound on dirty bytes, or when a flush was asked for.
//! - A transient failure is retried with backoff, without limit, all entries kept.
//! - A write that the store refuses is parked: kept in memory and journal, read as before, listed in the
//!   stats, tried again when a flush is asked for, superseded by a newer write of its key. The others of
//!   its batch go on.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};

use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::lane::{Claim, Lane};
use crate::layer::Layer;
use crate::mutation::Mutation;
use crate::port::{Guard, Outcome, StoreError, TableId, Write};
use crate::read::load;
use crate::receipt::FlushReport;
use crate::recover::checkpoint_if_due;
use crate::strategy::commit::{self, Committed};
use crate::version::Version;

/// What the flusher of a lane should do next.
enum Next {
    /// Flush so many entries of a class.
    Flush(usize, usize),
    Linger(Duration),
    Idle,
}

/// The flusher of a lane; ends when the layer stops, whatever is left: that is in the journal.
pub(crate) async fn drive(layer: Arc<Layer>, lane: usize) {
    let lane = &layer.lanes[lane];
    let mut backoff = Backoff::default();
    while !layer.is_stopping() {
        match next(&layer, lane) {
            Next::Idle => lane.dirty_waiting.notified().await,
            Next::Linger(wait) => {
                let woken = std::pin::pin!(lane.dirty_waiting.notified());
                select(woken, layer.clock.sleep(wait)).await;
            }
            Next::Flush(class, limit) => match round(&layer, lane, class, limit).await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    let wait = backoff.next(&*layer.clock);
                    tracing::warn!(%error, ?wait, "a flush failed and will be tried again");
                    let asked = std::pin::pin!(lane.flush_asked.notified());
                    select(asked, layer.clock.sleep(wait)).await;
                }
            },
        }
    }
}

/// The class that is due first, each judged by its own settings.
fn next(layer: &Layer, lane: &Lane) -> Next {
    let state = lane.lock();
    let now = layer.clock.elapsed();
    let mut first: Option<(Duration, usize, usize)> = None;
    for (class, ready, since) in state.dirty.fronts() {
        let settings = layer.class(class);
        let limit = settings
            .batch
            .min(layer.store.capabilities().batch_max)
            .max(1);
        let crowded = layer.state(class).budget.used() > settings.dirty_bytes_max / 2;
        let due = if state.dirty.hurry || crowded || ready >= limit {
            // What is full goes by age too, so that no class starves another.
            since.min(now)
        } else {
            since.saturating_add(settings.linger)
        };
        if first.is_none_or(|(soonest, ..)| due < soonest) {
            first = Some((due, class, limit));
        }
    }
    match first {
        None => Next::Idle,
        Some((due, class, limit)) if due <= now => Next::Flush(class, limit),
        Some((due, ..)) => Next::Linger(due - now),
    }
}

/// One batch: claim, write, settle. An error is transient, and every entry is dirty as before.
async fn round(layer: &Layer, lane: &Lane, class: usize, limit: usize) -> Result<(), StoreError> {
    let claims = lane.lock().dirty.claim(class, limit);
    if layer.mutations.breaks(Mutation::CleanOnceClaimed) {
        clean(layer, lane, &claims);
    }
    let writes: Vec<Write> = claims
        .iter()
        .filter_map(|claim| Some(write_of(claim, layer.state(claim.class).table?)))
        .collect();
    let now = layer.clock.now();
    let applied = AssertUnwindSafe(commit::apply(&*layer.store, writes, now))
        .catch_unwind()
        .await;
    // A panic is a bug of an adapter: as good as a lost answer, and like one repeated.
    let lost = || StoreError::unknown(None, "the store panicked");
    let committed = applied.unwrap_or_else(|_| claims.iter().map(|_| Err(lost())).collect());
    let foreign = newer_rows(layer, &claims, &committed).await;
    let failure = settle(
        layer,
        lane,
        claims.into_iter().zip(committed).collect(),
        &foreign,
    );
    trim(layer).await;
    lane.settled.notify_waiters();
    failure.map_or(Ok(()), Err)
}

/// What is asked of the store for a claim.
pub(crate) fn write_of(claim: &Claim, table: TableId) -> Write {
    Write {
        table,
        key: claim.key.clone(),
        change: claim.change.clone(),
        guard: Guard::IfNewer(claim.version),
    }
}

/// Of claims that the store has something newer than: the versions of rows that hold it. A row of the same
/// version is an earlier try of the same flush that did reach the store. A newer one was written by somebody
/// else, for what this process writes of a key goes through one lane.
async fn newer_rows(
    layer: &Layer,
    claims: &[Claim],
    committed: &[Committed],
) -> Vec<(Key, Version)> {
    let superseded = claims
        .iter()
        .zip(committed)
        .filter(|(_, c)| matches!(c, Ok(Outcome::Superseded)));
    let claims: Vec<&Claim> = superseded.map(|(claim, _)| claim).collect();
    if claims.is_empty() {
        return Vec::new();
    }
    let keys: Vec<(Key, usize)> = claims
        .iter()
        .map(|claim| (claim.key.clone(), claim.class))
        .collect();
    let Ok(rows) = load(layer, &keys).await else {
        return Vec::new();
    };
    let newer = claims.into_iter().zip(rows).filter_map(|(claim, row)| {
        let version = row?.version;
        (version > claim.version).then(|| (claim.key.clone(), version))
    });
    newer.collect()
}

/// Forgets claims that the store does not have: a broken rule, see [`Mutation::CleanOnceClaimed`].
fn clean(layer: &Layer, lane: &Lane, claims: &[Claim]) {
    let mut state = lane.lock();
    for claim in claims {
        if let Some(entry) = state.dirty.settle(claim) {
            layer
                .state(claim.class)
                .budget
                .give(entry.bytes(&claim.key));
        }
    }
}

/// Gives each claim its end, and returns the failure after which to wait.
fn settle(
    layer: &Layer,
    lane: &Lane,
    claims: Vec<(Claim, Committed)>,
    foreign: &[(Key, Version)],
) -> Option<StoreError> {
    let mut failure = None;
    let mut state = lane.lock();
    // From the back, so that those that return to the front of the queue keep their order.
    for (claim, committed) in claims.into_iter().rev() {
        let class = layer.state(claim.class);
        match committed {
            Ok(outcome) => {
                let newer = foreign.iter().find(|(key, _)| *key == claim.key);
                if let Some((_, version)) = newer {
                    // Acknowledged and overtaken by a stranger: kept, and said, never dropped. Later writes
                    // are numbered above the stranger's.
                    layer.issue_above(*version);
                    let error = Error::new(
                        ErrorKind::Refused,
                        format_args!(
                            "the row has version {version}, which this process did not write and which \
                             is newer than {}",
                            claim.version
                        ),
                    );
                    let error = error.with_key(&claim.key).with_class(&class.name);
                    tracing::error!(%error, "a dirty entry is parked");
                    state.dirty.park(&claim, error);
                    continue;
                }
                if let Some(entry) = state.dirty.settle(&claim) {
                    class.budget.give(entry.bytes(&claim.key));
                }
                match outcome {
                    Outcome::Applied { .. } | Outcome::Added { .. } => {
                        class.counters.flushed.one();
                    }
                    Outcome::Superseded | Outcome::Changed | Outcome::Conflict { .. } => {
                        class.counters.superseded.one();
                    }
                }
            }
            Err(StoreError::Refused { .. })
                if layer.mutations.breaks(Mutation::DropOnPermanentError) =>
            {
                if let Some(entry) = state.dirty.settle(&claim) {
                    class.budget.give(entry.bytes(&claim.key));
                }
            }
            Err(error @ StoreError::Refused { .. }) => {
                let error = Error::from(error)
                    .with_key(&claim.key)
                    .with_class(&class.name);
                tracing::error!(%error, "a dirty entry is parked");
                state.dirty.park(&claim, error);
            }
            Err(error) => {
                state.dirty.unclaim(&claim);
                failure = Some(error);
            }
        }
    }
    state.dirty.end_round();
    failure
}

/// Tells the journal what it need not keep.
async fn trim(layer: &Layer) {
    let Some(journal) = &layer.journal else {
        return;
    };
    let mark = layer.journal_needed_from(&**journal);
    if let Err(error) = journal.trim(mark).await {
        tracing::warn!(%error, "the journal could not be trimmed");
    }
    checkpoint_if_due(layer, mark).await;
}

/// Flushes everything that is dirty now, parked entries too, and returns when the store has it (or refuses
/// it), at the latest after `deadline`. What becomes dirty meanwhile is not waited for.
pub(crate) async fn flush(layer: &Layer, deadline: Duration) -> FlushReport {
    let before = flushed(layer);
    let mut turns = Vec::with_capacity(layer.lanes.len());
    for lane in &layer.lanes {
        let mut state = lane.lock();
        state.dirty.retry_parked();
        turns.push(state.dirty.next_turn());
        state.dirty.hurry = state.dirty.unflushed() > 0;
        drop(state);
        lane.dirty_waiting.notify_one();
        lane.flush_asked.notify_one();
    }
    let all = std::pin::pin!(async {
        for (lane, turn) in layer.lanes.iter().zip(&turns) {
            loop {
                let settled = lane.settled.notified();
                tokio::pin!(settled);
                settled.as_mut().enable();
                if lane.lock().dirty.is_flushed_before(*turn) {
                    break;
                }
                settled.await;
            }
        }
    });
    match select(all, layer.clock.sleep(deadline)).await {
        Either::Left(_) | Either::Right(_) => {}
    }
    let mut report = FlushReport {
        flushed: flushed(layer) - before,
        ..FlushReport::default()
    };
    for (lane, turn) in layer.lanes.iter().zip(&turns) {
        let state = lane.lock();
        report.left += state.dirty.unflushed_before(*turn);
        report.parked += state.dirty.parked() as u64;
    }
    report
}

fn flushed(layer: &Layer) -> u64 {
    let of = |class: &crate::layer::ClassState| {
        class.counters.flushed.get() + class.counters.superseded.get()
    };
    layer.states.iter().map(of).sum()
}
