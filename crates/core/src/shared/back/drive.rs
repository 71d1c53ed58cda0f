//! The flusher of the shared cache: when a round goes, and how it is started anew. Every node has one, and any may
//! flush whatever any wrote.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::Back;
use super::round::round;
use crate::backoff::Backoff;
use crate::flush::Refused;
use crate::layer::Layer;
use crate::port::{Shard, StoreError};

/// A shard counts as having at least so many entries when rounds are made of shards: what is known of it may be old.
const USUAL: u64 = 4;
/// A round has at most so many shards: each costs the cache a call.
const SHARDS_MAX: usize = 64;

/// Flushes until the layer stops, whatever is left: it is in the cache. One that panics, which is a bug of ours or of
/// an adapter, is started anew; what it had claimed comes back when the claims run out.
pub(crate) async fn drive(layer: Arc<Layer>) {
    let Some(back) = super::of(&layer) else {
        return;
    };
    let mut backoff = Backoff::default();
    loop {
        let run = AssertUnwindSafe(run(&layer, back));
        if run.catch_unwind().await.is_ok() {
            return;
        }
        layer.flusher.restarted();
        tracing::error!("the flusher of the shared cache panicked and is started anew");
        layer.clock.sleep(backoff.next(&*layer.clock)).await;
    }
}

async fn run(layer: &Layer, back: &Back) {
    let mut rounds = FuturesUnordered::new();
    let mut backoff = Backoff::default();
    // After a failure nothing is sent before this moment; and when the last round was sent.
    let (mut hold_until, mut last_sent) = (Duration::ZERO, Duration::ZERO);
    while !layer.is_stopping() {
        // Registered before looking, so that no change is missed.
        let changed = layer.flusher.changed.notified();
        let stopped = back.stopped.notified();
        tokio::pin!(changed, stopped);
        changed.as_mut().enable();
        stopped.as_mut().enable();
        if layer.is_stopping() {
            break;
        }
        let now = layer.clock.elapsed();
        if back.room.is_awaited() && hold_until > now {
            hold_until = hold_until.min(layer.flusher.awaited(now, last_sent));
        }
        let due = back.due.first().map(|due| due.max(hold_until));
        let wait = match due {
            None => None,
            Some(due) if due > now => Some(due - now),
            Some(_) => match layer.flusher.begin(now, false) {
                Ok(permit) => {
                    last_sent = now;
                    let limit = layer.flusher.batch().min(layer.batch_max);
                    let shards = some(back, now, limit);
                    rounds.push(round(layer, back, shards, limit, permit));
                    continue;
                }
                Err(Refused::For(wait)) => Some(wait),
                Err(Refused::UntilChanged) => None,
            },
        };
        let sleep = async {
            match wait {
                Some(wait) => layer.clock.sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(ended) = rounds.next() => {
                hold_until = note(layer, ended, &mut backoff);
            }
            () = back.due.asked.notified() => {
                hold_until = Duration::ZERO;
                layer.flusher.hurry(layer.clock.elapsed());
            }
            () = back.due.sooner.notified() => {}
            () = &mut changed => {}
            () = &mut stopped => {}
            () = sleep => {}
        }
    }
    while rounds.next().await.is_some() {}
}

/// Until when to wait after a round.
fn note(layer: &Layer, ended: Result<(), StoreError>, backoff: &mut Backoff) -> Duration {
    let Err(error) = ended else {
        backoff.reset();
        return Duration::ZERO;
    };
    let wait = backoff.next(&*layer.clock);
    tracing::warn!(%error, ?wait, "a flush of the shared cache failed and will be tried again");
    layer.clock.elapsed().saturating_add(wait)
}

/// Some of the shards that are due, with about as much as a batch takes; the others stay due.
fn some(back: &Back, now: Duration, limit: usize) -> Vec<Shard> {
    let mut due = back.due.take(now);
    let (mut entries, mut taken) = (0, 0);
    while taken < due.len() && taken < SHARDS_MAX && entries < limit as u64 {
        entries += back.room.of(due[taken]).entries.max(USUAL);
        taken += 1;
    }
    for shard in due.split_off(taken) {
        back.due.at(shard, now);
    }
    due
}
