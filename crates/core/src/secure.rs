//! More durability for one key than its class promises: waiting until its newest acknowledged write is in the
//! journal, or in the store.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};

use crate::class::Strategy;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::lane::{Dirty, DirtyState, Lane, Pin};
use crate::layer::Layer;
use crate::port::{Journal, JournalError, Lsn};
use crate::receipt::{Durability, Receipt, Source};
use crate::record::Record;
use crate::shared::back;
use crate::version::Version;

/// Returns when the newest write of `key` that was acknowledged before the call is as durable as asked.
pub(crate) async fn secure(
    layer: &Layer,
    key: &[u8],
    durability: Durability,
    deadline: Duration,
) -> Result<Receipt> {
    let class = layer.class_of(key);
    let key = Key::copy_from(key);
    let result = match layer.class(class).strategy {
        Strategy::CacheOnly if durability > Durability::Memory => Err(Error::invalid(
            "what a cache-only class holds is in memory and nowhere else",
        )),
        Strategy::WriteBack if layer.shared.is_some() => {
            back::secure(layer, class, &key, durability, deadline).await
        }
        _ => {
            let reached = std::pin::pin!(reach(layer, &key, durability));
            match select(reached, layer.clock.sleep(deadline)).await {
                Either::Left((reached, _)) => reached,
                Either::Right(((), _)) => Err(late(layer, &key, durability, deadline)),
            }
        }
    };
    result.map_err(|error| error.with_key(&key).with_class(&layer.state(class).name))
}

async fn reach(layer: &Layer, key: &Key, durability: Durability) -> Result<Receipt> {
    let lane = layer.lane_of(key.as_bytes());
    match stand(layer, key)? {
        Stand::Stored(version) => Ok(receipt(version, Durability::Store)),
        Stand::Dirty {
            version, recorded, ..
        } => {
            let has = match recorded {
                true => Durability::Journal,
                false => Durability::Memory,
            };
            if has >= durability {
                return Ok(receipt(version, has));
            }
            match durability {
                Durability::Store => reach_store(layer, lane, key, version).await,
                _ => reach_journal(layer, lane, key).await,
            }
        }
    }
}

/// Where the newest acknowledged write of a key stands.
enum Stand {
    Stored(Version),
    Dirty {
        version: Version,
        /// Its record is in the journal, synced.
        recorded: bool,
        /// Its turn at the flusher; see [`Dirty::own_turn_of`].
        own_turn: u64,
        /// The turn of the oldest write that is not stored and for which the entry stands too.
        turn: u64,
    },
}

/// # Errors
/// Refused, if it is a dead letter; unknown, if nobody knows what became of it.
fn stand(layer: &Layer, key: &Key) -> Result<Stand> {
    let state = layer.lane_of(key.as_bytes()).lock();
    let Some(entry) = state.dirty.entry(key.as_bytes()) else {
        if state.quarantine.contains_key(key) {
            let why = "what became of the last write of the key is not known";
            return Err(Error::new(ErrorKind::Unknown, why));
        }
        let copy = layer.near.peek(key.as_bytes());
        return Ok(Stand::Stored(
            copy.map_or(Version::NONE, |copy| copy.version()),
        ));
    };
    if entry.state == DirtyState::Parked {
        return Err(refused(&state.dirty, key));
    }
    Ok(Stand::Dirty {
        version: entry.version,
        recorded: entry.lsn.is_some(),
        own_turn: state.dirty.own_turn_of(key).unwrap_or(entry.turn),
        turn: entry.turn,
    })
}

fn refused(dirty: &Dirty, key: &Key) -> Error {
    let refusal = dirty.refusal(key.as_bytes());
    let (code, why) = refusal.map_or((None, "no reason is known"), |refusal| {
        (refusal.code.as_deref(), &*refusal.message)
    });
    let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
    let message = format!("the write is a dead letter{code}: {why}");
    Error::new(ErrorKind::Refused, message)
}

async fn reach_store(layer: &Layer, lane: &Lane, key: &Key, version: Version) -> Result<Receipt> {
    let mut asked = None;
    loop {
        let settled = lane.settled.notified();
        tokio::pin!(settled);
        settled.as_mut().enable();
        let (own_turn, turn) = match stand(layer, key)? {
            Stand::Stored(_) => return Ok(receipt(version, Durability::Store)),
            Stand::Dirty { own_turn, turn, .. } => (own_turn, turn),
        };
        match asked {
            None => {
                let class = layer.class_of(key.as_bytes());
                lane.lock().dirty.hurry(class, own_turn.saturating_add(1));
                lane.dirty_waiting.notify_one();
                lane.flush_asked.notify_one();
                asked = Some(own_turn);
            }
            // What is dirty now was written after a claim that held the write asked for, or a newer one.
            Some(asked) if turn > asked => return Ok(receipt(version, Durability::Store)),
            Some(_) => {}
        }
        settled.await;
    }
}

/// Brings a write of a class of durability memory into the journal.
async fn reach_journal(layer: &Layer, lane: &Lane, key: &Key) -> Result<Receipt> {
    let Some(journal) = &layer.journal else {
        return Err(Error::invalid("there is no journal"));
    };
    let unavailable = |error: JournalError| {
        layer.note_journal_failure(&error);
        let kind = match &error {
            JournalError::TooLarge { .. } => ErrorKind::Invalid,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, format_args!("{error}; the write is in memory"))
    };
    loop {
        match submit(layer, lane, key, &**journal) {
            Ok(Submitted::Stored) => {
                // The store has it by now, or it became a dead letter.
                return match stand(layer, key)? {
                    Stand::Stored(version) | Stand::Dirty { version, .. } => {
                        Ok(receipt(version, Durability::Store))
                    }
                };
            }
            Ok(Submitted::Waits { version, lsn, pin }) => {
                // Drops the pin also if this is dropped.
                let pin = Pinned { lane, pin };
                journal.wait(lsn).await.map_err(unavailable)?;
                pin.record(key, version, lsn);
                return Ok(receipt(version, Durability::Journal));
            }
            Err((JournalError::Busy { .. }, record)) => {
                journal.room(&[record]).await.map_err(unavailable)?;
            }
            Err((error, _)) => return Err(unavailable(error)),
        }
    }
}

enum Submitted {
    Stored,
    Waits {
        version: Version,
        lsn: Lsn,
        pin: Pin,
    },
}

fn submit(
    layer: &Layer,
    lane: &Lane,
    key: &Key,
    journal: &dyn Journal,
) -> Result<Submitted, (JournalError, Bytes)> {
    let mut state = lane.lock();
    let Some(entry) = state.dirty.entry(key.as_bytes()) else {
        return Ok(Submitted::Stored);
    };
    if entry.state == DirtyState::Parked {
        return Ok(Submitted::Stored);
    }
    let version = entry.version;
    let record = Record::encode_entry(&layer.state(entry.class).name, key, entry);
    match journal.submit(std::slice::from_ref(&record)) {
        Ok(lsn) => {
            let pin = state.dirty.pin(lsn);
            Ok(Submitted::Waits { version, lsn, pin })
        }
        Err(error) => Err((error, record)),
    }
}

/// Keeps a record that is on its way to the journal.
struct Pinned<'a> {
    lane: &'a Lane,
    pin: Pin,
}

impl Pinned<'_> {
    /// The record is durable: it is the entry's from now on, if the entry is still the same.
    fn record(&self, key: &Key, version: Version, lsn: Lsn) {
        let mut state = self.lane.lock();
        let entry = state.dirty.entry(key.as_bytes());
        if entry.is_some_and(|entry| entry.version == version && entry.lsn.is_none()) {
            let pin = state.dirty.move_record(key, lsn);
            state.dirty.unpin(pin);
        }
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.lane.lock().dirty.unpin(self.pin);
    }
}

fn late(layer: &Layer, key: &Key, durability: Durability, deadline: Duration) -> Error {
    let wanted = match durability {
        Durability::Store => "store",
        _ => "journal",
    };
    let safe = match stand(layer, key) {
        Err(error) => return error,
        Ok(Stand::Stored(_)) => "store",
        Ok(Stand::Dirty { recorded: true, .. }) => "journal",
        Ok(Stand::Dirty { .. }) => "memory of this process",
    };
    Error::new(
        ErrorKind::Unavailable,
        format_args!(
            "the write did not reach the {wanted} within {deadline:?}; it is in the {safe}, and goes on by itself"
        ),
    )
}

fn receipt(version: Version, durability: Durability) -> Receipt {
    let source = match durability {
        Durability::Store => Source::Store,
        _ => Source::Dirty,
    };
    Receipt {
        version,
        source,
        age_bound: Duration::ZERO,
        durability,
    }
}
