//! The long way: a batch of writes that waited in their lane, for others of their keys, for a load, or for
//! room in the journal.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::{Either, select};

use super::admit::{full, grow, waited};
use super::land::wait_and_land;
use super::place::{Decided, NotPlaced, place};
use super::shown;
use super::spill;
use super::{NotTaken, check, left_as_is, needs_present, not_taken};
use crate::class::WhenFull;
use crate::entry::Change;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::lane::{Callers, Lane, LaneState, Pass, Present, Road, Work};
use crate::layer::Layer;
use crate::read::answer_readers;
use crate::record::Record;
use crate::strategy::present::{Prepared, prepare};
use crate::strategy::settle::{Answers, unloaded};

/// Brings a batch on its way. Every operation of it is placed when this returns, or answered, or in flight
/// with a task of its own, or back in the queue.
pub(crate) async fn commit(layer: &Arc<Layer>, lane_index: usize, batch: Vec<Work>) {
    let lane = &layer.lanes[lane_index];
    let (through, batch): (Vec<Work>, Vec<Work>) =
        batch.into_iter().partition(|work| work.pass.through);
    spill::start(layer, lane_index, through);

    // 1. What a write depends on may still be on its way through the journal: nothing may be told that
    //    could come to nothing.
    let dependent = batch.iter().filter(|work| needs_present(&work.operations));
    let dependent = dependent.map(|work| work.key.clone()).collect();
    land_before(layer, lane, dependent).await;

    // 2. Operations that depend on the present value are told it: a dirty entry, a copy, or a load. A delete
    //    depends on it too, for it tells whether the key was there. Those of one key become one write.
    let (prepared, failed) = prepare(layer, lane, batch, needs_present).await;
    unloaded(layer, lane, Road::Back, failed);

    // 3. Each write gets its version, newer than every one before it, and is placed.
    let mut left = VecDeque::from(prepared);
    loop {
        let mut answers = Answers::default();
        let busy = place_all(layer, lane_index, &mut left, &mut answers);
        answers.send();
        lane.dirty_waiting.notify_one();
        let Some(record) = busy else {
            return;
        };
        if let Some(journal) = &layer.journal
            && let Err(error) = journal.room(&[record]).await
            && let Some(first) = left.pop_front()
        {
            layer.note_journal_failure(&error);
            let mut answers = Answers::default();
            let mut state = lane.lock();
            refuse(
                layer,
                lane,
                &mut state,
                first.work,
                &error.into(),
                &mut answers,
            );
            drop(state);
            answers.send();
        }
    }
}

/// Waits for the records of these keys that the journal has not synced. No new ones come meanwhile, for the
/// keys are in flight.
pub(super) async fn land_before(layer: &Layer, lane: &Lane, keys: Vec<Key>) {
    let Some(journal) = &layer.journal else {
        return;
    };
    loop {
        let last = {
            let state = lane.lock();
            let last_of = |key: &Key| state.appended.last_of(key.as_bytes());
            keys.iter().filter_map(last_of).max()
        };
        match last {
            Some(last) => wait_and_land(layer, lane, &**journal, last).await,
            None => return,
        }
    }
}

/// Places what it can, from the front on. Stops at one that the journal has no room for, and returns its
/// record, for the journal to be asked.
fn place_all(
    layer: &Arc<Layer>,
    lane_index: usize,
    left: &mut VecDeque<Prepared>,
    answers: &mut Answers,
) -> Option<bytes::Bytes> {
    let lane = &layer.lanes[lane_index];
    let mut state = lane.lock();
    while let Some(prepared) = left.pop_front() {
        let Err(busy) = place_one(layer, lane_index, &mut state, prepared, answers) else {
            continue;
        };
        let (prepared, change) = *busy;
        let name = &layer.state(prepared.work.class).name;
        // As large as the one that was not taken, or it would be told that there is room.
        let over = shown(&prepared.present, prepared.folded.added);
        let version = layer.newest_issued();
        let record = Record::encode_over(name, &prepared.work.key, version, over, &change);
        left.push_front(prepared);
        return Some(record);
    }
    None
}

/// One write. It comes back if the journal is busy.
fn place_one(
    layer: &Arc<Layer>,
    lane_index: usize,
    state: &mut LaneState,
    prepared: Prepared,
    answers: &mut Answers,
) -> Result<(), Box<(Prepared, Change)>> {
    let lane = &layer.lanes[lane_index];
    let Some(change) = prepared.folded.change.clone() else {
        leave(layer, state, prepared, answers);
        return Ok(());
    };
    if let Err(error) = check(layer, &prepared.work.key, prepared.work.class, &change) {
        if change == Change::Delete && matches!(prepared.present, Present::Known(None)) {
            // A key the store cannot hold is not there to be deleted.
            leave(layer, state, prepared, answers);
        } else {
            refuse(layer, lane, state, prepared.work, &error, answers);
        }
        return Ok(());
    }
    let Prepared {
        mut work,
        present,
        mut folded,
    } = prepared;
    let more = grow(state, &work.key, &mut work.pass, change.value_bytes());
    if more > 0 {
        match layer.class(work.class).when_full {
            WhenFull::Block => wait_for_room(layer, lane_index, work, more),
            WhenFull::Reject => {
                let error = full(layer, work.class, "");
                refuse(layer, lane, state, work, &error, answers);
            }
            WhenFull::WriteThrough => turn_through(lane, state, work),
        }
        return Ok(());
    }
    let Some(admitted) = work.pass.admitted.take() else {
        // Not let in with room: it goes through.
        turn_through(lane, state, work);
        return Ok(());
    };
    let existed = std::mem::take(&mut folded.existed);
    let operations = std::mem::take(&mut work.operations);
    let callers = Callers::Many(operations.into_iter().zip(existed).collect());
    let decided = Decided {
        key: work.key.clone(),
        class: work.class,
        change,
        over: shown(&present, folded.added),
        admitted,
    };
    let Err(left) = place(layer, lane, state, decided, callers, answers) else {
        return Ok(());
    };
    let NotPlaced {
        decided,
        callers,
        error,
    } = *left;
    if let Callers::Many(operations) = callers {
        for (operation, existed) in operations {
            work.operations.push(operation);
            folded.existed.push(existed);
        }
    }
    work.pass = Pass::with(decided.admitted);
    match not_taken(layer, work.class, error) {
        NotTaken::Wait => Err(Box::new((
            Prepared {
                work,
                present,
                folded,
            },
            decided.change,
        ))),
        NotTaken::Through => {
            turn_through(lane, state, work);
            Ok(())
        }
        NotTaken::Refuse(error) => {
            refuse(layer, lane, state, work, &error, answers);
            Ok(())
        }
    }
}

/// Answers operations that left their key as it was.
pub(super) fn leave(
    layer: &Layer,
    state: &mut LaneState,
    prepared: Prepared,
    answers: &mut Answers,
) {
    let work = prepared.work;
    let readers = state.road(Road::Back).land(&work.key);
    answer_readers(layer, state, &work.key, readers);
    let Present::Known(entry) = prepared.present else {
        // Only when every operation was taken out.
        return;
    };
    for (operation, existed) in work.operations.into_iter().zip(prepared.folded.existed) {
        let left = left_as_is(state, &work.key, entry.as_ref(), existed);
        answers.write(operation, Ok(left));
    }
}

/// Answers the caller of a write that was refused; several are tried one by one, to find the guilty one.
pub(super) fn refuse(
    layer: &Layer,
    lane: &Lane,
    state: &mut LaneState,
    work: Work,
    error: &Error,
    answers: &mut Answers,
) {
    if work.operations.len() > 1 {
        state.road(Road::Back).put_back(work, true);
        lane.writes_waiting[Road::Back as usize].notify_one();
        return;
    }
    fail(layer, state, work, error, answers);
}

/// Answers the callers of a write that failed, and those who waited to read it.
pub(super) fn fail(
    layer: &Layer,
    state: &mut LaneState,
    work: Work,
    error: &Error,
    answers: &mut Answers,
) {
    let readers = state.road(Road::Back).land(&work.key);
    answer_readers(layer, state, &work.key, readers);
    answers.write_all(work.operations, error);
}

/// Sends a write back into the queue, to go through the store.
fn turn_through(lane: &Lane, state: &mut LaneState, mut work: Work) {
    work.pass = Pass::through();
    state.road(Road::Back).put_back(work, false);
    lane.writes_waiting[Road::Back as usize].notify_one();
}

/// Keeps a write in flight until there is room for what it has grown to; then it is tried again, in front of
/// what came for its key meanwhile.
fn wait_for_room(layer: &Arc<Layer>, lane_index: usize, work: Work, more: u64) {
    layer.spawn(room_then_again(Arc::clone(layer), lane_index, work, more));
}

async fn room_then_again(layer: Arc<Layer>, lane_index: usize, mut work: Work, more: u64) {
    let lane = &layer.lanes[lane_index];
    let budget = &layer.state(work.class).budget;
    let pass = &mut work.pass;
    let has_room = {
        let room = std::pin::pin!(async {
            let line = budget.line_up().await;
            let grown = || match &mut pass.admitted {
                Some(admitted) => admitted.try_grow(more).then_some(()),
                None => Some(()),
            };
            line.retry(grown).await;
        });
        let timeout = layer.clock.sleep(layer.class(work.class).block_timeout);
        matches!(select(room, timeout).await, Either::Left(_))
    };
    let mut answers = Answers::default();
    let mut state = lane.lock();
    if has_room {
        state.road(Road::Back).put_back(work, false);
    } else {
        let error = waited(&layer, work.class);
        refuse(&layer, lane, &mut state, work, &error, &mut answers);
    }
    drop(state);
    answers.send();
    lane.writes_waiting[Road::Back as usize].notify_one();
    lane.settled.notify_waiters();
}
