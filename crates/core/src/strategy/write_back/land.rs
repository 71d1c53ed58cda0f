//! What follows a sync of the journal: the writes it covers become dirty, are seen, and are answered.
//!
//! One task for each lane waits for the journal, so that nothing depends on a caller that goes away or is
//! slow to look. It is the leader of its lane's writes: one sync, one lock, many answers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;

use super::place::{Decided, to_dirty};
use crate::error::Error;
use crate::lane::{Callers, Lane};
use crate::layer::Layer;
use crate::port::{Journal, JournalError, Lsn};
use crate::read::answer_readers;
use crate::strategy::settle::Answers;

/// The task of a lane that waits for the journal; ends when the layer stops and nothing is under way.
pub(crate) async fn drive_appended(layer: Arc<Layer>, lane: usize, journal: Arc<dyn Journal>) {
    let lane = &layer.lanes[lane];
    loop {
        let first = lane.lock().appended.first();
        let Some(first) = first else {
            if layer.is_stopping() && lane.lock().has_empty_queues() {
                return;
            }
            lane.appended_waiting.notified().await;
            continue;
        };
        wait_and_land(&layer, lane, &*journal, first).await;
        // Callers that were just answered often write again at once: let them in before the next look.
        tokio::task::yield_now().await;
    }
}

/// Waits until the record at `place` is synced, and lands the writes of the lane up to there, and those that
/// the same sync covered.
pub(super) async fn wait_and_land(layer: &Layer, lane: &Lane, journal: &dyn Journal, place: Lsn) {
    let waited = AssertUnwindSafe(journal.wait(place)).catch_unwind().await;
    // A panic is a bug of an adapter: as good as a lost answer.
    let waited = waited.unwrap_or_else(|_| Err(JournalError::unavailable("the journal panicked")));
    match waited {
        Ok(()) => land(layer, lane, place.max(journal.synced()), None),
        Err(error) => {
            layer.note_journal_failure(&error);
            land(layer, lane, place, Some(&Error::from(error)));
        }
    }
}

/// Ends the wait of all writes up to `up_to`. Those of a journal that failed leave no trace here; their
/// callers learn that the outcome is unknown.
fn land(layer: &Layer, lane: &Lane, up_to: Lsn, failure: Option<&Error>) {
    let mut answers = Answers::default();
    let mut state = lane.lock();
    while let Some((write, readers)) = state.appended.pop(up_to) {
        if let Some(error) = failure {
            answer_readers(layer, &mut state, &write.key, readers);
            match write.callers {
                Callers::One(reply) => answers.one(reply, Err(error.clone())),
                Callers::Many(operations) => {
                    let operations = operations.into_iter().map(|(operation, _)| operation);
                    answers.write_all(operations.collect(), error);
                }
            }
            continue;
        }
        let decided = Decided {
            key: write.key,
            class: write.class,
            change: write.change,
            over: write.over,
            admitted: write.admitted,
        };
        let shown = to_dirty(layer, &mut state, decided, write.version, Some(write.lsn));
        shown.tell(write.callers, &mut answers);
        answers.read(readers, Ok(shown.read));
    }
    drop(state);
    answers.send();
    lane.dirty_waiting.notify_one();
    lane.settled.notify_waiters();
}
