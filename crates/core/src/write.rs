//! The way of a write to its strategy: checks, admission, and the queue of its lane.
//!
//! From the moment it is in the queue a write belongs to the lane: a caller that goes away changes nothing.

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::class::Strategy;
use crate::entry::VALUE_BYTES_MAX;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{KEY_BYTES_MAX, Key};
use crate::lane::{Lane, LaneState, Operation, Pass, Road, WriteReply};
use crate::layer::Layer;
use crate::port::Timestamp;
use crate::read::answer_readers;
use crate::receipt::Written;
use crate::shared::back;
use crate::strategy::write_back::{self, pace};
use crate::strategy::{cache_only, read_only};

/// Writes `key` as its class says and returns when the class's acknowledgement is due.
pub(crate) async fn write(
    layer: &Layer,
    key: &[u8],
    operation: impl FnOnce(WriteReply) -> Operation,
) -> Result<Written> {
    let class = layer.class_of(key);
    let (reply, answer) = oneshot::channel();
    let key = Key::copy_from(key);
    let result = match submit(layer, &key, class, operation(reply)).await {
        Ok(()) => answered(answer).await,
        Err(error) => Err(error),
    };
    conclude(layer, &key, class, result).await
}

/// As [`write`], of the most frequent operation, which may go without a reply to wait for.
pub(crate) async fn put(
    layer: &Layer,
    key: &[u8],
    value: Bytes,
    expires_at: Option<Timestamp>,
) -> Result<Written> {
    let class = layer.class_of(key);
    if layer.class(class).strategy != Strategy::WriteBack || layer.shared.is_some() {
        let operation = |reply| Operation::Put {
            value,
            expires_at,
            reply,
        };
        return write(layer, key, operation).await;
    }
    let key = Key::copy_from(key);
    let result = match check(&key, value.len()) {
        Ok(()) => write_back::put(layer, &key, class, value, expires_at).await,
        Err(error) => Err(error),
    };
    conclude(layer, &key, class, result).await
}

pub(crate) async fn answered(answer: oneshot::Receiver<Result<Written>>) -> Result<Written> {
    answer.await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Unknown,
            "the gate was closed while the write was under way",
        ))
    })
}

async fn conclude(
    layer: &Layer,
    key: &Key,
    class: usize,
    result: Result<Written>,
) -> Result<Written> {
    count(layer, class, &result);
    if layer.class(class).strategy == Strategy::WriteBack {
        match &layer.shared {
            Some(shared) => back::write::pace(layer, &shared.back, class).await,
            None => pace(layer, class).await,
        }
    }
    result.map_err(|error| error.with_key(key).with_class(&layer.state(class).name))
}

fn check(key: &Key, value_bytes: usize) -> Result<()> {
    if key.len() > KEY_BYTES_MAX {
        return Err(Error::invalid(format_args!(
            "a key is at most {KEY_BYTES_MAX} bytes long"
        )));
    }
    if value_bytes > VALUE_BYTES_MAX {
        return Err(Error::invalid(format_args!(
            "a value is at most {VALUE_BYTES_MAX} bytes long"
        )));
    }
    Ok(())
}

async fn submit(layer: &Layer, key: &Key, class: usize, operation: Operation) -> Result<()> {
    check(key, operation.value_bytes())?;
    match layer.class(class).strategy {
        Strategy::WriteThrough => enqueue(layer, key, class, Road::Through, operation),
        Strategy::WriteAround => enqueue(layer, key, class, Road::Around, operation),
        Strategy::WriteBack => match &layer.shared {
            Some(shared) => back::submit(layer, &shared.back, key, class, operation).await,
            None => write_back::submit(layer, key, class, operation).await,
        },
        Strategy::ReadOnly => read_only::refuse(),
        Strategy::CacheOnly => cache_only::write(layer, key, class, operation),
    }
}

fn enqueue(layer: &Layer, key: &Key, class: usize, road: Road, operation: Operation) -> Result<()> {
    let lane = layer.lane_of(key.as_bytes());
    let mut state = lane.lock();
    // Looked at under the lock: after this lock the drain, which closes first, sees the queue not empty.
    if layer.is_closing() {
        return Err(Error::closed());
    }
    queue(
        layer,
        lane,
        &mut state,
        (key, class),
        road,
        operation,
        Pass::default(),
    )
}

/// Puts an operation behind all others of its key, for the driver of the road.
pub(crate) fn queue(
    layer: &Layer,
    lane: &Lane,
    state: &mut LaneState,
    (key, class): (&Key, usize),
    road: Road,
    operation: Operation,
    pass: Pass,
) -> Result<()> {
    let readers = state.loads.overtake(key.as_bytes());
    match state.road(road).push(key, class, operation, pass, readers) {
        Ok(joined) => {
            if joined {
                layer.state(class).counters.coalesced.one();
            } else {
                lane.writes_waiting[road as usize].notify_one();
            }
            Ok(())
        }
        Err((error, readers)) => {
            answer_readers(layer, state, key, readers);
            Err(error)
        }
    }
}

fn count(layer: &Layer, class: usize, result: &Result<Written>) {
    let counters = &layer.state(class).counters;
    match result {
        Ok(_) => counters.writes.one(),
        Err(error) => match error.kind() {
            ErrorKind::Refused | ErrorKind::ReadOnly | ErrorKind::Invalid => counters.refused.one(),
            ErrorKind::Unknown => counters.unknown.one(),
            _ => counters.failed.one(),
        },
    }
}
