//! Misses: the keys that wait in a lane are asked for together; those that this node is to load are loaded together,
//! and filled together.
//!
//! 1. One pipeline asks the cache. What is found by now is answered. What another node loads is asked for again after
//!    a pause, for at most as long as a lease holds, and then loaded and not filled.
//! 2. One load of the store for what is leased and what must bypass the cache. It is sent after the answer of the
//!    cache, so what it finds is at least as new as the lease: that is what makes a fill right.
//! 3. The readers are answered, and then one pipeline fills what is leased. A fill that is refused (a write came
//!    between) is none of the readers' concern: what they got was right when it was read.
//!
//! Batches of a lane run beside each other, a few at a time, so that one slow load does not keep all others waiting.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::back::is_journalled;
use super::flights::Going;
use super::life::{held, life};
use super::read::{Looked, looked};
use super::{Shared, fit, shared_key, token};
use crate::class::Strategy;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::lane::ReadReply;
use crate::layer::Layer;
use crate::port::{Ask, Asked, Fill, SharedError, SharedKey, StoreError, Token};
use crate::read::{load_in_time, reply_all, store_read};
use crate::receipt::Read;
use crate::version::Version;

/// Batches of a lane that run beside each other.
pub(crate) const BATCHES_AT_ONCE: usize = 4;
/// The first pause of who waits for another node's load.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// A key to be loaded.
struct Load {
    going: Going,
    /// Of its lease, if it may be filled.
    lease: Option<Token>,
    /// Something past its freshness is in the cache.
    anew: bool,
}

/// One of the drivers of a lane's misses; ends when the layer stops and nothing waits.
pub(crate) async fn drive(layer: Arc<Layer>, lane: usize) {
    let Some(shared) = &layer.shared else {
        return;
    };
    let flights = &shared.lanes[lane].flights;
    let limit = layer.batch_max;
    loop {
        let (batch, more) = flights.lock().take(limit);
        if more {
            flights.wake();
        }
        if batch.is_empty() {
            if layer.is_stopping() && flights.lock().is_idle() {
                // The next driver of the lane ends too.
                flights.wake();
                return;
            }
            flights.woken().await;
            continue;
        }
        let out = batch.clone();
        let running = AssertUnwindSafe(run(&layer, shared, lane, batch));
        if running.catch_unwind().await.is_err() {
            tracing::error!(lane, keys = out.len(), "a batch of loads panicked");
            let error = Error::new(ErrorKind::Unavailable, "the load came to no end");
            for going in &out {
                land(shared, lane, going, &Err(error.clone()));
            }
        }
        // Readers that were just answered often read on at once: let them into the next batch.
        tokio::task::yield_now().await;
    }
}

/// The flight is over. Who is still to be answered.
fn end(shared: &Shared, lane: usize, going: &Going) -> Vec<ReadReply> {
    let flights = &shared.lanes[lane].flights;
    let (replies, next) = flights.lock().end(going);
    if next {
        flights.wake();
    }
    replies
}

/// Answers and ends a flight.
fn land(shared: &Shared, lane: usize, going: &Going, answer: &Result<Read>) {
    reply_all(end(shared, lane, going), answer);
}

async fn run(layer: &Arc<Layer>, shared: &Shared, lane: usize, batch: Vec<Going>) {
    let loads = ask(layer, shared, lane, batch).await;
    if loads.is_empty() {
        return;
    }
    {
        let mut flights = shared.lanes[lane].flights.lock();
        // The cache said that the store has all there is before these began. Of a write-back class it may not be so
        // any more, and they wait for the next question.
        for load in loads.iter().filter(|load| !is_back(layer, &load.going)) {
            flights.board_late(&load.going);
        }
    }
    let keys: Vec<(Key, usize)> = loads
        .iter()
        .map(|load| (load.going.key.clone(), load.going.class))
        .collect();
    let loaded = load_in_time(layer, &keys).await;
    let mut fills = Vec::new();
    let mut evicted = Vec::new();
    for (load, loaded) in loads.iter().zip(loaded) {
        after(layer, shared, load, &loaded, &mut fills, &mut evicted);
        let replies = shared.lanes[lane].flights.lock().answer(&load.going);
        reply_all(replies, &loaded.map(store_read).map_err(Error::from));
    }
    fill(layer, shared, fills, evicted).await;
    for load in &loads {
        // Who came late, between the answer and now, is answered by the next one.
        let late = end(shared, lane, &load.going);
        debug_assert!(late.is_empty(), "newcomers wait for the next flight");
    }
}

/// Asks for a batch, answers what is found, and lets pause what another node loads. The rest is to be loaded.
async fn ask(layer: &Arc<Layer>, shared: &Shared, lane: usize, batch: Vec<Going>) -> Vec<Load> {
    let mut loads = Vec::with_capacity(batch.len());
    let mut paused = Vec::new();
    let (patient, others): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .partition(|going| may_wait(layer, shared, going));
    let bypass = |going| Load {
        going,
        lease: None,
        anew: false,
    };
    loads.extend(others.into_iter().map(bypass));
    let asks: Vec<Ask> = patient
        .iter()
        .map(|going| Ask {
            key: shared_key(layer, going.class, &going.key),
            token: token(layer),
        })
        .collect();
    let pass = match asks.is_empty() {
        true => None,
        false => shared.reach.pass(&*layer.clock),
    };
    let Some(pass) = pass else {
        for going in patient {
            match is_back(layer, &going) {
                true => land(shared, lane, &going, &Err(unread())),
                false => loads.push(bypass(going)),
            }
        }
        shared.counters.bypasses.add(loads.len() as u64);
        return loads;
    };
    shared.counters.asks.add(asks.len() as u64);
    let answers = shared.cache.ask(&asks, layer.clock.now()).await;
    let answers = fit(answers, asks.len());
    pass.tell(&answers, &*layer.clock);
    for ((mut going, ask), asked) in patient.into_iter().zip(asks).zip(answers) {
        match asked {
            Ok(Asked::Found(got)) => match looked(layer, going.class, got) {
                Looked::Fresh(read) => land(shared, lane, &going, &Ok(read)),
                Looked::Stale(..) | Looked::Nothing => loads.push(bypass(going)),
            },
            Ok(Asked::Lease(stale)) => {
                shared.counters.leases.one();
                loads.push(Load {
                    going,
                    lease: Some(ask.token),
                    anew: stale.is_some(),
                });
            }
            Ok(Asked::Wait(_)) => {
                shared.counters.waits.one();
                pause(layer, shared, lane, &mut going);
                paused.push(going);
            }
            // What the journals of others have of it may not be back yet.
            Ok(Asked::Bypass) if is_journalled(layer.class(going.class)) => {
                wait(layer, shared, lane, going, &mut paused);
            }
            Ok(Asked::Bypass) => loads.push(bypass(going)),
            Err(SharedError::NeedsGeneration { .. }) => {
                shared.needs.tell();
                match is_back(layer, &going) {
                    true => wait(layer, shared, lane, going, &mut paused),
                    false => loads.push(bypass(going)),
                }
            }
            Err(_) if is_back(layer, &going) => land(shared, lane, &going, &Err(unread())),
            Err(_) => loads.push(bypass(going)),
        }
    }
    let bypassed = loads.iter().filter(|load| load.lease.is_none()).count();
    shared.counters.bypasses.add(bypassed as u64);
    resume_later(layer, lane, paused);
    loads
}

/// Lets a key wait that must not be loaded before the cache is ready; until then there is no end of it but that of the
/// layer.
fn wait(layer: &Layer, shared: &Shared, lane: usize, mut going: Going, paused: &mut Vec<Going>) {
    if layer.is_stopping() {
        return land(shared, lane, &going, &Err(Error::closed()));
    }
    pause(layer, shared, lane, &mut going);
    paused.push(going);
}

/// Lets a key wait a little longer than the last time.
fn pause(layer: &Layer, shared: &Shared, lane: usize, going: &mut Going) {
    let longest = (shared.cache.lease_time() / 4).max(PAUSE_MIN);
    going.wait.since.get_or_insert(layer.clock.elapsed());
    going.wait.pause = (going.wait.pause * 2).clamp(PAUSE_MIN, longest);
    shared.lanes[lane].flights.lock().pause(going);
}

/// Whether the cache may have what the store does not: then the store must not be asked in its place.
fn is_back(layer: &Layer, going: &Going) -> bool {
    layer.class(going.class).strategy == Strategy::WriteBack
}

/// What a reader of such a class is told when the cache does not answer.
fn unread() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the shared cache does not answer, and it may have a write of the key that the store does not have yet",
    )
}

/// Whether a key is to be asked for: not if it has waited for another node as long as that can have a lease.
fn may_wait(layer: &Layer, shared: &Shared, going: &Going) -> bool {
    let waited = going
        .wait
        .since
        .map(|since| layer.clock.elapsed().saturating_sub(since));
    is_back(layer, going) || waited.is_none_or(|waited| waited < shared.cache.lease_time())
}

/// Asks again for keys that another node loads, after their shortest pause.
fn resume_later(layer: &Arc<Layer>, lane: usize, paused: Vec<Going>) {
    let Some(pause) = paused.iter().map(|going| going.wait.pause).min() else {
        return;
    };
    let pause = layer.jittered(pause, 0.5);
    let gate = Arc::clone(layer);
    layer.spawn(async move {
        gate.clock.sleep(pause).await;
        let Some(shared) = &gate.shared else {
            return;
        };
        let flights = &shared.lanes[lane].flights;
        let mut state = flights.lock();
        for going in &paused {
            state.resume(&going.key);
        }
        drop(state);
        flights.wake();
    });
}

/// What the cache is told of a key that was loaded under a lease.
fn after(
    layer: &Layer,
    shared: &Shared,
    load: &Load,
    loaded: &Result<Option<Entry>, StoreError>,
    fills: &mut Vec<Fill>,
    evicted: &mut Vec<SharedKey>,
) {
    let Some(token) = load.lease else {
        return;
    };
    let key = shared_key(layer, load.going.class, &load.going.key);
    let Ok(entry) = loaded else {
        // Others need not wait until the lease is over. What is past its freshness stays: it may still be served
        // where the store cannot be read.
        if !load.anew {
            evicted.push(key);
        }
        return;
    };
    let held = held(entry.as_ref(), Version::NONE);
    match life(layer, load.going.class, held.value.as_ref()) {
        // Nothing is known of the version of an absent row, so it is never newer than what the cache has.
        Some(_) if load.anew && held.value.is_none() => evicted.push(key),
        Some(life) => {
            shared.counters.fills.one();
            fills.push(Fill {
                key,
                token,
                held,
                life,
            });
        }
        None => evicted.push(key),
    }
}

/// Fills, and lets go of leases that will not be filled. An error costs others their patience and no more.
async fn fill(layer: &Layer, shared: &Shared, fills: Vec<Fill>, evicted: Vec<SharedKey>) {
    if !fills.is_empty()
        && let Some(pass) = shared.reach.pass(&*layer.clock)
    {
        let filled = fit(shared.cache.fill(&fills).await, fills.len());
        pass.tell(&filled, &*layer.clock);
        let refused = filled.iter().filter(|filled| !matches!(filled, Ok(true)));
        shared.counters.fills_refused.add(refused.count() as u64);
    }
    if !evicted.is_empty()
        && let Some(pass) = shared.reach.pass(&*layer.clock)
    {
        let done = fit(shared.cache.evict(&evicted).await, evicted.len());
        pass.tell(&done, &*layer.clock);
    }
}
