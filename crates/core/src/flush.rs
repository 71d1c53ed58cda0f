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

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};

use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::lane::{Claim, Lane};
use crate::layer::Layer;
use crate::port::{Guard, Outcome, StoreError, Write};
use crate::receipt::FlushReport;
use crate::strategy::commit::{self, Committed};

/// What the flusher of a lane should do next.
enum Next {
    Flush(usize),
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
            Next::Flush(limit) => match round(&layer, lane, limit).await {
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

fn next(layer: &Layer, lane: &Lane) -> Next {
    let state = lane.lock();
    let dirty = &state.dirty;
    let (Some(class), Some(since)) = (dirty.front_class(), dirty.oldest_ready()) else {
        return Next::Idle;
    };
    let settings = layer.class(class);
    let limit = settings
        .batch
        .min(layer.store.capabilities().batch_max)
        .max(1);
    let due = since + settings.linger;
    let now = layer.clock.elapsed();
    let crowded = layer.state(class).budget.used() > settings.dirty_bytes_max / 2;
    if dirty.hurry || crowded || dirty.ready() >= limit || due <= now {
        Next::Flush(limit)
    } else {
        Next::Linger(due - now)
    }
}

/// One batch: claim, write, settle. An error is transient, and every entry is dirty as before.
async fn round(layer: &Layer, lane: &Lane, limit: usize) -> Result<(), StoreError> {
    let claims = lane.lock().dirty.claim(limit);
    let writes: Vec<Write> = claims
        .iter()
        .filter_map(|claim| {
            Some(Write {
                table: layer.state(claim.class).table?,
                key: claim.key.clone(),
                change: claim.change.clone(),
                guard: Guard::IfNewer(claim.version),
            })
        })
        .collect();
    let committed = commit::apply(&*layer.store, writes, layer.clock.now()).await;
    let failure = settle(layer, lane, claims.into_iter().zip(committed).collect());
    trim(layer).await;
    lane.settled.notify_waiters();
    failure.map_or(Ok(()), Err)
}

/// Gives each claim its end, and returns the failure after which to wait.
fn settle(layer: &Layer, lane: &Lane, claims: Vec<(Claim, Committed)>) -> Option<StoreError> {
    let mut failure = None;
    let mut state = lane.lock();
    // From the back, so that those that return to the front of the queue keep their order.
    for (claim, committed) in claims.into_iter().rev() {
        let class = layer.state(claim.class);
        match committed {
            Ok(outcome) => {
                if let Some(entry) = state.dirty.settle(&claim) {
                    class.budget.give(entry.bytes(&claim.key));
                    if outcome == Outcome::Superseded {
                        // The store has something newer than the cached copy.
                        layer.near.remove(claim.key.as_bytes());
                    }
                }
                match outcome {
                    Outcome::Applied { .. } => class.counters.flushed.one(),
                    Outcome::Superseded | Outcome::Changed => class.counters.superseded.one(),
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
