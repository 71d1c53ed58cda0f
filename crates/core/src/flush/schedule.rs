//! When a batch goes: the flusher of a lane, and how it is started anew.

use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::control::{Permit, Refused};
use super::round::round;
use crate::backoff::Backoff;
use crate::lane::{Front, Lane};
use crate::layer::Layer;
use crate::port::StoreError;

/// The flusher of a lane; ends when the layer stops, whatever is left: that is in the journal. One that
/// panics, which is a bug of ours or of an adapter, is started anew with everything dirty as before.
pub(crate) async fn drive(layer: Arc<Layer>, lane_index: usize) {
    let lane = &layer.lanes[lane_index];
    let mut backoff = Backoff::default();
    loop {
        let run = AssertUnwindSafe(run(&layer, lane));
        if run.catch_unwind().await.is_ok() {
            return;
        }
        layer.flusher.restarted();
        tracing::error!(lane = lane_index, "a flusher panicked and is started anew");
        lane.lock().dirty.unclaim_all();
        lane.settled.notify_waiters();
        layer.clock.sleep(backoff.next(&*layer.clock)).await;
    }
}

/// Sends batches, several at once if the window allows, until the layer stops; then waits for those that are
/// on their way.
async fn run(layer: &Layer, lane: &Lane) {
    let mut rounds = FuturesUnordered::new();
    let mut pace = Pace::default();
    while !layer.is_stopping() {
        // Registered before looking, so that no change is missed.
        let changed = layer.flusher.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        pace.busy = !rounds.is_empty();
        let wait = match next(layer, lane, &pace) {
            Next::Flush {
                class,
                limit,
                permit,
            } => {
                pace.last_sent = layer.clock.elapsed();
                let claims = {
                    let bytes_max = layer.class(class).batch_bytes;
                    lane.lock().dirty.claim(class, limit, bytes_max)
                };
                rounds.push(round(layer, lane, claims, permit));
                continue;
            }
            Next::Wait(wait) => wait,
        };
        let sleep = async {
            match wait {
                Some(wait) => layer.clock.sleep(wait).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(ended) = rounds.next() => pace.note(layer, ended),
            () = lane.flush_asked.notified() => {
                pace.hold_until = Duration::ZERO;
                layer.flusher.hurry(layer.clock.elapsed());
            }
            () = lane.dirty_waiting.notified() => {}
            () = &mut changed => {}
            () = sleep => {}
        }
    }
    while rounds.next().await.is_some() {}
}

/// What a lane keeps in mind between its batches.
#[derive(Default)]
struct Pace {
    backoff: Backoff,
    /// After a failure nothing is sent before this moment.
    hold_until: Duration,
    /// When the last batch was sent.
    last_sent: Duration,
    /// A batch of this lane is on its way.
    busy: bool,
}

impl Pace {
    fn note(&mut self, layer: &Layer, ended: Result<(), StoreError>) {
        match ended {
            Ok(()) => {
                self.backoff.reset();
                self.hold_until = Duration::ZERO;
            }
            Err(error) => {
                let wait = self.backoff.next(&*layer.clock);
                self.hold_until = layer.clock.elapsed().saturating_add(wait);
                tracing::warn!(%error, ?wait, "a flush failed and will be tried again");
            }
        }
    }
}

/// What the flusher of a lane should do next.
enum Next<'a> {
    /// Flush up to `limit` entries of a class.
    Flush {
        class: usize,
        limit: usize,
        permit: Permit<'a>,
    },
    /// Look again after this time, or when something happens.
    Wait(Option<Duration>),
}

/// The class that is due first, each judged by its own settings.
fn next<'a>(layer: &'a Layer, lane: &Lane, pace: &Pace) -> Next<'a> {
    let now = layer.clock.elapsed();
    let window = layer.flusher.batch();
    let mut first: Option<(Duration, Front, usize)> = None;
    for front in lane.lock().dirty.fronts() {
        let (due, limit) = due(layer, front, pace, window, now);
        if first.is_none_or(|(soonest, ..)| due < soonest) {
            first = Some((due, front, limit));
        }
    }
    let Some((due, front, limit)) = first else {
        return Next::Wait(None);
    };
    let mut hold_until = pace.hold_until;
    if layer.state(front.class).budget.is_awaited() {
        hold_until = hold_until.min(layer.flusher.awaited(now, pace.last_sent));
    }
    let due = due.max(hold_until);
    if due > now {
        return Next::Wait(Some(due - now));
    }
    match layer
        .flusher
        .begin(now, limit >= window && front.ready >= limit)
    {
        Ok(permit) => Next::Flush {
            class: front.class,
            limit,
            permit,
        },
        Err(Refused::For(wait)) => Next::Wait(Some(wait)),
        Err(Refused::UntilChanged) => Next::Wait(None),
    }
}

/// When the entries of a class are to go, and how many at most.
fn due(
    layer: &Layer,
    front: Front,
    pace: &Pace,
    window: usize,
    now: Duration,
) -> (Duration, usize) {
    let settings = layer.class(front.class);
    let batch_max = layer.batch_max;
    let crowded = layer.state(front.class).budget.is_past_soft();
    let wanted = if crowded { batch_max } else { settings.batch };
    let limit = wanted.min(batch_max).min(window).max(1);
    let full = front.ready >= limit || front.ready_bytes >= settings.batch_bytes;
    // What is full goes by age too, so that no class starves another.
    let mut due = if front.urgent || crowded || full {
        front.since.min(now)
    } else {
        front.since.saturating_add(settings.linger)
    };
    if pace.busy && !full {
        // What comes while a batch is on its way shares the next one, unless that batch is stuck.
        due = due.max(pace.last_sent.saturating_add(layer.flusher.patience()));
    }
    (due, limit)
}
