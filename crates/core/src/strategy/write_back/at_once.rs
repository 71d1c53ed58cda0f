//! The short way: a write that need not wait for anything in memory is placed by its caller, under the lane's
//! lock, without a task in between.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::admit::{admit_in_line, bytes_of, grow, try_admit};
use super::place::{Decided, over, place, to_dirty};
use super::{NotTaken, check, left_as_is, needs_present, not_taken, shown, wakes_flusher};
use crate::budget::Admitted;
use crate::entry::Change;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::lane::{
    Callers, Lane, LaneState, Operation, Over, Pass, Present, Road, WriteReply, dirty_bytes, fold,
};
use crate::layer::Layer;
use crate::port::Timestamp;
use crate::read::reply_all;
use crate::receipt::{Durability, Written};
use crate::strategy::present::in_memory;
use crate::strategy::settle::Answers;
use crate::write::{answered, queue};

/// Writes a value.
pub(crate) async fn put(
    layer: &Layer,
    key: &Key,
    class: usize,
    value: Bytes,
    expires_at: Option<Timestamp>,
) -> Result<Written> {
    if layer.class(class).durability == Durability::Memory
        && let Some(written) = put_in_memory(layer, key, class, &value, expires_at)?
    {
        return Ok(written);
    }
    let (reply, answer) = oneshot::channel();
    let operation = Operation::Put {
        value,
        expires_at,
        reply,
    };
    submit(layer, key, class, operation).await?;
    answered(answer).await
}

/// Lets an operation in and begins it; its answer comes by its reply.
pub(crate) async fn submit(
    layer: &Layer,
    key: &Key,
    class: usize,
    operation: Operation,
) -> Result<()> {
    let bytes = bytes_of(key, &operation);
    if let Some(pass) = try_admit(layer, key, class, bytes)? {
        return begin(layer, key, class, operation, pass);
    }
    let (pass, line) = admit_in_line(layer, key, class, bytes).await?;
    let begun = begin(layer, key, class, operation, pass);
    // Only now may the next in line begin.
    drop(line);
    begun
}

/// A put that is done when this returns, without a reply to wait for; nothing if it has to wait.
fn put_in_memory(
    layer: &Layer,
    key: &Key,
    class: usize,
    value: &Bytes,
    expires_at: Option<Timestamp>,
) -> Result<Option<Written>> {
    let bytes = dirty_bytes(key, value.len());
    let pass = try_admit(layer, key, class, bytes)?;
    let Some(admitted) = pass.and_then(|pass| pass.admitted) else {
        return Ok(None);
    };
    let change = Change::Put {
        value: value.clone(),
        expires_at,
    };
    check(layer, key, class, &change)?;
    let lane = layer.lane_of(key.as_bytes());
    let mut state = lane.lock();
    if layer.is_closing() {
        return Err(Error::closed());
    }
    if state.is_queued(key.as_bytes()) {
        return Ok(None);
    }
    let readers = state.loads.overtake(key.as_bytes());
    let decided = Decided {
        key: key.clone(),
        class,
        change,
        over: Over::default(),
        admitted,
    };
    let version = layer.issue_over(over(layer, &state, &decided).base);
    let shown = to_dirty(layer, &mut state, decided, version, None);
    let wake = wakes_flusher(layer, &state, class);
    drop(state);
    if wake {
        lane.dirty_waiting.notify_one();
    }
    let written = shown.written(None);
    reply_all(readers, &Ok(shown.read));
    Ok(Some(written))
}

/// Places an operation that was let in, or queues it.
fn begin(
    layer: &Layer,
    key: &Key,
    class: usize,
    operation: Operation,
    mut pass: Pass,
) -> Result<()> {
    let lane = layer.lane_of(key.as_bytes());
    let mut answers = Answers::default();
    let mut state = lane.lock();
    // Looked at under the lock: after this lock the drain, which closes first, sees that the lane is not idle.
    if layer.is_closing() {
        return Err(Error::closed());
    }
    // A caller's function may call the gate, and so must not run under the lock.
    let runs_code = matches!(operation, Operation::Update(_));
    let free = !pass.through && !runs_code && !state.is_queued(key.as_bytes());
    let left = match pass.admitted.take_if(|_| free) {
        None => Some((operation, pass)),
        Some(admitted) => {
            let mut here = Here {
                layer,
                lane,
                state: &mut state,
                key,
                class,
                answers: &mut answers,
            };
            match operation {
                Operation::Put {
                    value,
                    expires_at,
                    reply,
                } => here.put(Change::Put { value, expires_at }, admitted, reply)?,
                other => here.dependent(other, admitted)?,
            }
        }
    };
    if let Some((operation, pass)) = left {
        let key = (key, class);
        queue(layer, lane, &mut state, key, Road::Back, operation, pass)?;
    }
    let wake = wakes_flusher(layer, &state, class);
    drop(state);
    answers.send();
    if wake {
        lane.dirty_waiting.notify_one();
    }
    Ok(())
}

/// What has to be queued after all.
type Left = Option<(Operation, Pass)>;

/// Where an operation is placed: a key in its lane, which is locked.
struct Here<'a> {
    layer: &'a Layer,
    lane: &'a Lane,
    state: &'a mut LaneState,
    key: &'a Key,
    class: usize,
    answers: &'a mut Answers,
}

impl Here<'_> {
    fn put(&mut self, change: Change, admitted: Admitted, reply: WriteReply) -> Result<Left> {
        check(self.layer, self.key, self.class, &change)?;
        match self.place(change, Over::default(), admitted, Callers::One(reply))? {
            Some((Change::Put { value, expires_at }, Callers::One(reply), pass)) => {
                let put = Operation::Put {
                    value,
                    expires_at,
                    reply,
                };
                Ok(Some((put, pass)))
            }
            // Nothing else comes back of a put.
            _ => Ok(None),
        }
    }

    /// An operation that depends on the present state of its key, if memory has that.
    fn dependent(&mut self, operation: Operation, admitted: Admitted) -> Result<Left> {
        let mut pass = Pass::with(admitted);
        let mut operations = vec![operation];
        let mut present = Present::Unknown;
        if needs_present(&operations) {
            let known = match self.state.appended.last_of(self.key.as_bytes()) {
                // What the journal has not synced may yet come to nothing.
                Some(_) => None,
                None => in_memory(self.layer, self.state, self.key, true),
            };
            let Some(entry) = known else {
                return Ok(operations.pop().map(|operation| (operation, pass)));
            };
            let now = self.layer.clock.now();
            present = Present::Known(entry.filter(|entry| !entry.is_expired(now)));
        }
        let folded = fold(&mut operations, &present, self.layer.clock.now());
        // One whose function panicked is gone, and its caller was told.
        let Some(operation) = operations.pop() else {
            return Ok(None);
        };
        let existed = folded.existed.first().copied().flatten();
        let Some(change) = folded.change else {
            let Present::Known(entry) = present else {
                return Ok(Some((operation, pass)));
            };
            let left = left_as_is(self.state, self.key, entry.as_ref(), existed);
            self.answers.write(operation, Ok(left));
            return Ok(None);
        };
        if let Err(error) = check(self.layer, self.key, self.class, &change) {
            if change == Change::Delete && existed == Some(false) {
                // A key the store cannot hold is not there to be deleted.
                let left = left_as_is(self.state, self.key, None, existed);
                self.answers.write(operation, Ok(left));
                return Ok(None);
            }
            return Err(error);
        }
        let more = grow(self.state, self.key, &mut pass, change.value_bytes());
        let Some(admitted) = pass.admitted.take_if(|_| more == 0) else {
            return Ok(Some((operation, pass)));
        };
        let over = shown(&present, folded.added);
        match self.place(
            change,
            over,
            admitted,
            Callers::Many(vec![(operation, existed)]),
        )? {
            Some((_, Callers::Many(mut operations), pass)) => {
                Ok(operations.pop().map(|(operation, _)| (operation, pass)))
            }
            _ => Ok(None),
        }
    }

    fn place(
        &mut self,
        change: Change,
        over: Over,
        admitted: Admitted,
        callers: Callers,
    ) -> Result<Option<(Change, Callers, Pass)>> {
        let decided = Decided {
            key: self.key.clone(),
            class: self.class,
            change,
            over,
            admitted,
        };
        let placed = place(
            self.layer,
            self.lane,
            self.state,
            decided,
            callers,
            self.answers,
        );
        let Err(left) = placed else {
            return Ok(None);
        };
        let pass = match not_taken(self.layer, self.class, left.error) {
            NotTaken::Refuse(error) => return Err(error),
            NotTaken::Through => Pass::through(),
            NotTaken::Wait => Pass::with(left.decided.admitted),
        };
        Ok(Some((left.decided.change, left.callers, pass)))
    }
}
