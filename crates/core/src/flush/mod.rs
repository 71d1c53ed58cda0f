//! The flusher: dirty entries on their way to the store, in coalesced batches.
//!
//! Life of an entry: dirty → claimed → clean, or parked. A claim is a copy of what the entry holds; it is
//! written under the guard that the store has nothing newer, and afterwards the entry becomes clean only if
//! it was not written again meanwhile. So a flush may be repeated at any time, and one whose outcome is
//! unknown simply is.
//!
//! - A batch goes out when it is full, when its oldest entry has lingered long enough, when the class is past
//!   half of a bound, or when a flush was asked for ([`schedule`]).
//! - Several batches may be on their way, of one lane too; how many and how large follows what the store can
//!   take ([`window`]).
//! - A transient failure is retried with backoff, without limit, all entries kept and no attempt counted.
//!   When the store fails again and again, one batch asks and the others wait ([`breaker`](crate::breaker)).
//! - A write that the store refuses is parked ([`dead_letters`](crate::dead_letters)): kept, read as before,
//!   listed, tried again when asked for, superseded by a newer write of its key. The others of its batch go
//!   on.

mod control;
mod round;
mod schedule;
mod settle;
mod window;

use std::time::Duration;

use futures_util::future::select;

pub(crate) use control::{Control, Permit, Refused};
#[cfg(feature = "mutation")]
pub(crate) use round::write_of;
pub(crate) use schedule::drive;

use crate::class::Strategy;
use crate::layer::Layer;
use crate::receipt::{ClassFlush, FlushReport};
use crate::shared::back;

/// Flushes everything of a class, or of all, that is dirty now, and returns when the store has it or refuses
/// it, at the latest after `deadline`. Dead letters are not tried again, and what becomes dirty meanwhile is
/// not waited for.
pub(crate) async fn flush(layer: &Layer, only: Option<usize>, deadline: Duration) -> FlushReport {
    if let Some(shared) = &layer.shared {
        return back::report::flush(layer, &shared.back, only, deadline).await;
    }
    let classes: Vec<usize> = (0..layer.states.len())
        .filter(|class| match only {
            Some(only) => *class == only,
            None => layer.class(*class).strategy == Strategy::WriteBack,
        })
        .collect();
    let before: Vec<u64> = classes.iter().map(|class| flushed(layer, *class)).collect();
    let mut turns = Vec::with_capacity(layer.lanes.len());
    for lane in &layer.lanes {
        let mut state = lane.lock();
        let turn = state.dirty.next_turn();
        turns.push(turn);
        for class in &classes {
            state.dirty.hurry(*class, turn);
        }
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
                let done = {
                    let state = lane.lock();
                    let flushed = |class: &usize| state.dirty.is_flushed_before(*class, *turn);
                    classes.iter().all(flushed)
                };
                if done {
                    break;
                }
                settled.await;
            }
        }
    });
    select(all, layer.clock.sleep(deadline)).await;
    let mut report = FlushReport::default();
    for (class, before) in classes.iter().copied().zip(before) {
        let mut of_class = ClassFlush {
            class: layer.class(class).name.clone(),
            flushed: flushed(layer, class).saturating_sub(before),
            left: 0,
            parked: 0,
        };
        for (lane, turn) in layer.lanes.iter().zip(&turns) {
            let state = lane.lock();
            of_class.left += state.dirty.unflushed_before(class, *turn);
            of_class.parked += state.dirty.parked_of(class);
        }
        report.flushed += of_class.flushed;
        report.left += of_class.left;
        report.parked += of_class.parked;
        report.classes.push(of_class);
    }
    report
}

fn flushed(layer: &Layer, class: usize) -> u64 {
    let counters = &layer.state(class).counters;
    counters.flushed.get() + counters.superseded.get()
}
